"""Video files -> uint8 RGB frames (PyAV), streamed so that memory does not grow with the clip.

Any format that FFmpeg knows is read, at a constant frame rate, or resampled to one. What a pool does not keep (
pixel aspect, HDR, transparency) is stated by name (``VideoReader.not_kept``); what cannot be read right (damaged or
truncated files, variable frame rate) is refused with the remedy. A rotation stored as metadata is applied to the
pixels.
"""

import contextlib
import itertools
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from helix_jax.config import Preparation
from helix_jax.video import frame_rate, images, not_kept, pictures, planes
from helix_jax.video.clip import VideoError, VideoInfo
from helix_jax.video.signal import Signal
from helix_jax.video.sound import Sound
from helix_jax.video.sound import read as read_sound

_AS_IT_IS = Preparation()
MOST_REPEATS = 1000  # times the frames of a clip that resampling may give; more are the result of wrong timestamps
# Formats in which FFmpeg draws text as pictures; "tty" takes any file called .txt, .asc, .nfo or .diz for such a one.
_TEXTS = ("tty", "bin", "xbin", "adf", "idf")
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # decoders that read WebM's alpha, which FFmpeg's own leave out


@dataclass(frozen=True)
class _Source:
    """A file, and what the user calls it."""

    path: Path
    name: str
    sequence: tuple[Path, ...] = ()  # the images, of which ``path`` is the first
    fps: Fraction = images.RATE  # of them

    def __str__(self):
        return self.name


@dataclass(frozen=True)
class VideoReader:
    """A readable clip, made by ``open_video``. It holds no open file.

    Attributes:
        source: The file.
        info: Size, frames and rate.
        has_audio: Whether the file has sound, which ``blocks`` does not give.
        signal: The colours of the frames that ``yuv`` gives, and the pixel aspect (1 = square, also where the file says
            nothing).
        losses: For each codec of pools a sentence about the clip for each kind of loss, without its subject (see
            helix_jax/video/not_kept.py).
        look: How frames become pictures.
        shown: How often each frame of the file is given, 1 unless the clip is resampled.
        begin: When the first frame is shown, in seconds on the file's own clock.
    """

    source: _Source
    info: VideoInfo
    has_audio: bool
    signal: Signal
    losses: dict[str, dict[str, str]]
    look: pictures.Look
    shown: tuple[int, ...]
    begin: Fraction

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.source.path

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a pixel over its height, upright."""
        return self.signal.aspect

    @property
    def not_kept(self) -> dict[str, str]:
        """The sentences for pools of tokens."""
        return self.losses["tokens"]

    def blocks(self, frames: int = 32) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
        """Yield the clip from its start in RGB blocks of ``frames`` frames, of which the last may be shorter.

        Raises VideoError where the file is no longer what ``open_video`` read.
        """
        block = []
        for picture in self._repeated(pictures.pictures(_decoded(self.source), self.look)):
            block.append(picture)
            if len(block) == frames:
                yield np.stack(block)
                block = []
        if block:
            yield np.stack(block)

    def yuv(self) -> Iterator[av.VideoFrame]:
        """Yield the clip from its start as frames of YUV 4:2:0 with 10 bits, in the colours that ``signal`` states.

        They are upright, ``info.frames`` in number, new ones each time, and their timestamps are 0, 1, 2, ... frames.
        Raises VideoError where the file is no longer what ``open_video`` read.
        """
        upright = self._repeated(planes.samples(_decoded(self.source), self.look, self.signal))
        for number, samples in enumerate(upright):
            yield planes.frame(samples, self.signal, number, self.info.fps)

    def sound(self, kbit: float) -> Sound | None:
        """Return the sound as Opus of ``kbit`` kbit/s, in step with the frames, or None where there is none.

        Raises HelixError for a rate that Opus does not have, and VideoError for sound that cannot be decoded.
        """
        duration = self.info.frames / self.info.fps
        return read_sound(self.path, kbit, begin=self.begin, duration=duration, name=str(self.source))

    def _repeated(self, pictures):
        """Yield each picture as often as it is shown."""
        count = 0
        with _named(self.source):
            for picture in pictures:
                for _ in range(self.shown[count] if count < len(self.shown) else 0):
                    yield picture
                count += 1
        if count != len(self.shown):
            raise VideoError(f"{self.source}: changed while it was read ({count} frames, {len(self.shown)} before)")


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame that ``frames`` has read.

    Attributes:
        rgb: The picture as it is shown.
        decoded: What the decoder gave, not turned and in the file's own colours.
        seconds: When its time is over, if all frames last as long as the file's average rate says.
    """

    rgb: UInt8[np.ndarray, "H W 3"]
    decoded: av.VideoFrame
    seconds: float


def frames(path: str | os.PathLike) -> Iterator[Frame]:
    """Yield the frames of a file while it is decoded, one at a time and each as ``VideoReader.blocks`` shows it.

    The frame rate may vary. One thread decodes, so that a caller with many files reads several in parallel. After
    a VideoError, whose ``reason`` is short, the frames before it are good.

    Raises:
        VideoError: As for ``open_video``, as soon as it is known.
    """
    source = _Source(Path(path), str(path))
    reformatter, orientation = VideoReformatter(), None
    with _reading(source) as container, _named(source):
        streams, chosen = _video_streams(source, container)
        stream = streams[chosen]
        stream.thread_type = "NONE"
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        for number, frame in enumerate(_frames(source, container, stream)):
            orientation = orientation or pictures.orientation(frame)
            # Where no pixel is transparent, blending changes nothing.
            look = pictures.Look(orientation, blend=pictures.traits(frame).alpha)
            yield Frame(pictures.picture(reformatter, frame, look), frame, (number + 1) / rate)


def open_video(path: str | os.PathLike, prepare: Preparation = _AS_IT_IS, *, name: str | None = None) -> VideoReader:
    """Check a clip and count its frames.

    The whole clip is decoded once, without keeping it: headers lie about the number of frames, and a damaged or
    variable-rate clip is better refused now than after minutes of work. Of several video streams the default one is
    read. A single frame whose file states no rate gets 25 per second.

    Args:
        path: The file.
        prepare: What is changed in the clip.
        name: What to call it in messages, by default its path.

    Returns:
        The readable clip.

    Raises:
        VideoError: If there is no such file, or it is empty, no video, without a picture (sound only), damaged or cut
            short, of a variable frame rate (unless it is resampled), of a size that changes, in colours that cannot be
            converted, or turned by what is no multiple of 90 degrees.
    """
    sequence = images.sequence(path)
    first_file, called = sequence[0] if sequence else Path(path), str(path) if name is None else name
    source = _Source(first_file, called, sequence, prepare.fps or images.RATE)
    if not source.path.is_file():
        raise VideoError(f"{source}: no such file")
    if source.path.stat().st_size == 0:
        raise VideoError(f"{source}: the file is empty; copy it again from its source")
    with _reading(source) as container:
        streams, chosen = _video_streams(source, container)
        stream = streams[chosen]
        # Fractions, since PyAV 19 has rationals of its own
        guessed = Fraction(stream.guessed_rate) if stream.guessed_rate else None
        rates = [Fraction(rate) for rate in (stream.average_rate, guessed, stream.base_rate) if rate]
        has_audio = bool(container.streams.audio)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        fields = (stream.codec_context.field_order or 0) > 1
    timestamps, alpha, flagged, first, length = [], False, False, None, 0
    with _named(source):
        for frame in _decoded(source):
            first = first or frame
            alpha = alpha or (pictures.traits(frame).alpha and not pictures.is_opaque(frame))
            flagged = flagged or frame.interlaced_frame
            timestamps.append(frame.pts)
            length = frame.duration or 0  # after the loop: of the last frame
    assert first is not None, "_frames gives one or raises"
    if images.is_image(source.path) and len(timestamps) == max(1, len(sequence)):
        fps, shown = source.fps, (1,) * len(timestamps)
    else:
        fps, shown = _timing(source, timestamps, Fraction(first.time_base), length, rates, guessed, prepare.fps)
    traits = pictures.traits(first)
    interlaced = "interlaced" if flagged else "all" if fields else ""
    with _named(source):
        look = pictures.Look(
            orientation=pictures.orientation(first),
            blend=alpha,
            deinterlace=interlaced if prepare.deinterlace else "",
            tone_map=pictures.intent(traits) if prepare.tone_map else "",
        )
        next(pictures.pictures(iter([first]), look))
    height, width = first.height, first.width
    if look.orientation[0] == 0:
        height, width, aspect = width, height, 1 / aspect
    info = VideoInfo(sum(shown), height, width, fps)
    signal = planes.signal(first, look, aspect)
    if look.tone_map:
        traits = pictures.Traits(traits.alpha)
    losses = {
        codec: not_kept.of_clip(
            source.name, info, traits, streams=(len(streams), chosen), aspect=aspect, alpha=alpha,
            interlaced=bool(interlaced) and not look.deinterlace, codec=codec,
        )
        for codec in not_kept.CODECS
    }  # fmt: skip
    begin = Fraction(0) if first.pts is None else first.pts * first.time_base
    return VideoReader(source, info, has_audio, signal, losses, look, shown, begin)


# ---- reading -------------------------------------------------------------------------------


@contextlib.contextmanager
def _reading(source):
    try:
        # The path is absolute because a name such as "pipe:0" must not be taken for a protocol.
        with av.open(str(source.path.absolute())) as container:
            if container.format.name in _TEXTS:
                raise VideoError(
                    f"{source}: not a video, as FFmpeg would only draw its bytes as text; give a video file such as "
                    "MP4 or MKV, or store any file with `helix-jax pack`",
                    "a text",
                )
            yield container
    except av.FFmpegError as error:
        raise VideoError(
            f"{source}: not a readable video ({error.strerror}); give a video file such as MP4 or MKV", error.strerror
        ) from error


def _video_streams(source, container):
    """Return the streams of moving pictures, and the number of the one to read.

    Cover art of a sound file is no such stream.
    """
    stills = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & stills]
    if not streams:
        what = "has sound but no picture" if container.streams.audio else "has no picture"
        raise VideoError(f"{source}: {what}; give a file with a video stream", "no picture")
    return streams, next((n for n, stream in enumerate(streams) if stream.disposition & Disposition.default), 0)


def _decoded(source):
    """Yield every frame as an av.VideoFrame. Raises VideoError, see ``_frames``."""
    if source.sequence:
        yield from _images(source)
        return
    with _reading(source) as container:
        streams, chosen = _video_streams(source, container)
        streams[chosen].thread_type = "AUTO"
        yield from _frames(source, container, streams[chosen])


def _images(source):
    """Yield the images of a sequence, which must look alike but for what they show."""
    first = turned = None
    for number, path in enumerate(source.sequence):
        one = _Source(path, str(path))
        every = list(itertools.islice(_decoded(one), 2))
        if len(every) > 1:
            raise VideoError(f"{one}: it has several pictures, and an image of a sequence has one; take it out")
        frame = every[0]
        first, turned = first or frame, turned or pictures.orientation(frame)
        if (frame.height, frame.width, pictures.orientation(frame)) != (first.height, first.width, turned):
            before = f"{source.sequence[0].name} of {first.width}x{first.height}"
            raise VideoError(
                f"{one}: it has {frame.width}x{frame.height} pixels, or is turned otherwise, unlike {before}: give "
                "images of one size and orientation",
                f"the size changes to {frame.width}x{frame.height}",
            )
        frame.pts, frame.time_base = number, 1 / source.fps
        yield frame


def _frames(source, container, stream):
    """Yield the frames of a stream, one at least.

    Raises VideoError where the stream turns out damaged, cut short or without a frame, or where the size changes.
    """
    packets = frames = 0
    first, last, longest = None, None, 0.0
    decode = _decoder(stream)
    try:
        for packet in container.demux(stream):
            packets += packet.size > 0
            for frame in decode(packet):
                if frame.is_corrupt:
                    raise _damaged(source, frames, "a frame is incomplete")
                first = first or frame
                if (frame.height, frame.width) != (first.height, first.width):
                    raise _resized(source, frames, first, frame)
                yield frame
                frames += 1
                longest = max(longest, _gap(last, frame))
                last = frame
            if packet.is_corrupt:
                raise _damaged(source, frames, "the data end inside a frame")
    except av.FFmpegError as error:
        raise _damaged(source, frames, error.strerror) from error
    # Frames that edit lists cut away are missing from the index, not from the header's count.
    announced = min(stream.frames, len(stream.index_entries) or stream.frames)
    if packets < announced:
        raise _damaged(source, frames, f"the header announces {announced} frames")
    if last is not None and last.pts is not None and "matroska" in container.format.name:
        missing = _seconds(stream.metadata.get("DURATION")) - float(last.pts * last.time_base)
        if missing > 3 * (longest or 1 / (stream.average_rate or 25)):
            raise _damaged(source, frames, f"the header announces {missing:.1f} s more")
    if last is None:
        raise VideoError(f"{source}: no frame can be decoded; {_reencode(source)}", "no frame")


def _decoder(stream):
    """Return a function from a packet to its frames."""
    codec = _WITH_ALPHA.get(stream.codec_context.name)
    if stream.metadata.get("alpha_mode") != "1" or codec not in av.codecs_available:
        return av.Packet.decode
    context: Any = av.CodecContext.create(codec, "r")
    return lambda packet: context.decode(packet if packet.size else None)


def _gap(last, frame):
    """Return the seconds from one frame to the next, 0 where a timestamp is missing."""
    if last is None or last.pts is None or frame.pts is None:
        return 0.0
    return float((frame.pts - last.pts) * frame.time_base)


def _seconds(text):
    """Return Matroska's DURATION tag, hh:mm:ss.fraction, in seconds; 0 where there is none."""
    parts = (text or "0").split(":")
    try:
        return sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))
    except ValueError:
        return 0.0


def _damaged(source, frames, reason):
    return VideoError(
        f"{source}: damaged or cut short after {frames} frames ({reason}); copy it again from its source, or keep what "
        f"is there: {_reencode(source)}",
        reason,
    )


def _resized(source, frames, first, frame):
    before, after = f"{first.width}x{first.height}", f"{frame.width}x{frame.height}"
    return VideoError(
        f"{source}: the size changes from {before} to {after} at frame {frames}; "
        f"{_reencode(source, f'-vf scale={first.width}:{first.height}')}",
        f"the size changes to {after}",
    )


def _reencode(source, options=""):
    middle = f"{options} " if options else ""
    return f"re-encode it with: ffmpeg -i {shlex.quote(source.name)} {middle}{not_kept.reencoded(source.name)}"


@contextlib.contextmanager
def _named(source):
    """Give errors about a picture the name of its file and a remedy."""
    try:
        yield
    except pictures.PictureError as error:
        raise VideoError(f"{source}: {error}; {_reencode(source, error.options)}", str(error)) from error


def _timing(source, timestamps, tick, last, rates, guessed, wanted):
    """Return the rate, and how often each frame is shown.

    ``last`` is the duration of the last frame in ticks, and ``wanted`` a rate or None.
    """
    count = len(timestamps)
    if None in timestamps:  # raw streams have none: their rate is constant, and only the guess reads their header
        constant = guessed or Fraction(25)
        timestamps, tick, last = list(range(count)), 1 / constant, 1
    elif count == 1:
        constant = frame_rate.of_one(rates, tick, last)
    else:
        constant = frame_rate.constant(timestamps, tick, rates)
    if wanted in (None, constant) and constant:
        return constant, (1,) * count
    gaps = [float((after - before) * tick) for before, after in itertools.pairwise(timestamps)] or [0.0]
    if wanted:
        shown = tuple(frame_rate.shown(timestamps, tick, last, wanted))
        if sum(shown) > MOST_REPEATS * (count + 100):
            raise VideoError(
                f"{source}: its {count} frames would become {sum(shown):,} at --fps {wanted}, as their times leap by "
                f"up to {max(gaps):.4g} s; {_reencode(source)}"
            )
        return wanted, shown
    raise VideoError(
        f"{source}: variable frame rate (frames last {min(gaps):.4g} to {max(gaps):.4g} s), and one rate is kept per "
        f"clip; resample it with --fps {frame_rate.nearest(timestamps, tick, rates)}"
    )
