"""Coded pictures and sound -> a container that plays everywhere, copied without coding them again (PyAV).

MP4, Matroska and WebM take AV1 and Opus. PyAV has no streams that are described by hand: each stream of the new file is
made from one that was read from a few bytes in memory, and then told what the pool knows better.
"""

import contextlib
import io
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

from helix_jax.files import atomic, is_standard
from helix_jax.video import sound as sounds
from helix_jax.video.clip import VideoError, VideoInfo
from helix_jax.video.signal import Signal
from helix_jax.video.sound import Sound

# Matroska states the shape of a picture in elements that FFmpeg writes only for streams which it has copied itself. A
# name of the same length keeps their place.
_PLACE = b"\x53\x6e\x8b" + b"helix-shape"
_UNKNOWN_UNIT, _PIXELS = b"\x54\xb2\x81\x04", b"\x54\xb2\x81\x00"  # of these elements
_VIDEO, _HEADER = 0xE0, 1 << 20
FORMATS = {".mp4": "mp4", ".mkv": "matroska", ".webm": "webm"}
_DELIMITER = b"\x12\x00"  # an OBU that begins a temporal unit (AV1, section 5.6)


def check_output(path: str | os.PathLike) -> None:
    """Raise VideoError for the name of a file that is none of FORMATS; standard output gets an MP4."""
    if not is_standard(path) and Path(path).suffix.lower() not in FORMATS:
        raise VideoError(
            f"{path}: videos are written as MP4, Matroska or WebM; give a name that ends in .mp4, .mkv or .webm"
        )


@contextlib.contextmanager
def opened(path: str | os.PathLike, info: VideoInfo, aspect: Fraction) -> Iterator[Any]:
    """Open a new file as an output container, which appears, complete, when the block ends without an error.

    Args:
        path: The file, .mp4, .mkv or .webm; ``-`` is standard output, which gets an MP4.
        info: Size of its picture.
        aspect: Width of a pixel over its height; the stream of the picture has to be passed to ``shaped``.

    Raises:
        VideoError: Where the file cannot be written.
    """
    check_output(path)
    form = "mp4" if is_standard(path) else FORMATS[Path(path).suffix.lower()]
    options = {"movflags": "+faststart"} if form == "mp4" else {"cues_to_front": "1", "write_crc32": "0"}
    try:
        with atomic(path) as temporary:
            with av.open(str(temporary.absolute()), "w", format=form, container_options=options) as container:
                yield container
            if form != "mp4" and aspect != 1:
                _state_shape(temporary, info, aspect)
    except av.FFmpegError as error:
        raise VideoError(f"{path}: cannot be written ({error.strerror})") from error


def shaped(container: Any, stream: Any, aspect: Fraction) -> None:
    """Prepare a new stream of pictures for a pixel aspect."""
    if stream.codec_context is not None:
        stream.codec_context.sample_aspect_ratio = aspect
    if container.format.name != "mp4" and aspect != 1:
        stream.metadata["title"] = _PLACE[3:].decode()


def remux(
    path: str | os.PathLike,
    units: Iterable[tuple[bytes, bool]],
    info: VideoInfo,
    signal: Signal,
    sound: Sound | None = None,
) -> None:
    """Copy AV1 and Opus into a file.

    Args:
        path: The file, .mp4, .mkv or .webm; ``-`` is standard output, which gets an MP4.
        units: For each frame its temporal unit, without a temporal delimiter, and whether it is a key frame.
        info: Size, frames and rate.
        signal: Colours and pixel aspect.
        sound: The sound, or None.

    Raises:
        VideoError: For a path of another kind, pictures that are no AV1, another number of them than ``info.frames``,
            or a file that cannot be written.
    """
    check_output(path)
    units = iter(units)
    first = next(units, None)
    if first is None:
        raise VideoError(f"{path}: 0 frames to write, {info.frames} promised")
    with contextlib.ExitStack() as stack:
        container = stack.enter_context(opened(path, info, signal.aspect))
        stream = _pictures(container, path, first[0], info, signal)
        track = None if sound is None else Track(container, sound)
        written = 0
        for number, (unit, is_key) in enumerate(_chained(first, units)):
            packet = av.Packet(unit)
            packet.stream, packet.time_base = stream, 1 / info.fps
            packet.pts = packet.dts = number
            packet.duration, packet.is_keyframe = 1, is_key
            if track is not None:
                track.write(number / info.fps)
            container.mux(packet)
            written += 1
        if written != info.frames:
            raise VideoError(f"{path}: {written} frames written, {info.frames} promised")
        if track is not None:
            track.write(None)


class Track:
    """The Opus stream of a file that is being written.

    Args:
        container: An output container, to which nothing was written yet.
        sound: Its sound.
    """

    def __init__(self, container: Any, sound: Sound):
        self._container, self._sound, self._written = container, sound, 0
        with av.open(io.BytesIO(_ogg(sound))) as template:
            self._stream = container.add_stream_from_template(template.streams.audio[0], opaque=True)
        self._stream.time_base = Fraction(1, sounds.RATE)

    def write(self, seconds: Fraction | None) -> None:
        """Write what is heard before a time, or the rest where that is None. Files hold both kinds of data in step."""
        sound, end = self._sound, self._sound.pre_skip + self._sound.samples
        while self._written < len(sound.packets):
            begin = self._written * sound.duration
            if seconds is not None and begin - sound.pre_skip > seconds * sounds.RATE:
                return
            packet = av.Packet(sound.packets[self._written] or _silence(sound))
            packet.stream, packet.time_base = self._stream, Fraction(1, sounds.RATE)
            packet.pts = packet.dts = begin - sound.pre_skip
            packet.duration, packet.is_keyframe = min(sound.duration, end - begin), True
            self._container.mux(packet)
            self._written += 1


# ---- streams -------------------------------------------------------------------------------


def _pictures(container, path, unit, info, signal):
    """Return a new stream of AV1; ``unit`` is its first temporal unit."""
    try:
        with av.open(io.BytesIO(_DELIMITER + unit), format="obu") as template, _aside(container) as aside:
            if not template.streams.video[0].codec_context.width:
                raise IndexError("no sequence header")
            described = aside.add_stream_from_template(template.streams.video[0], opaque=True)
            codec = described.codec_context
            codec.width, codec.height, codec.sample_aspect_ratio = info.width, info.height, signal.aspect
            codec.colorspace, codec.color_range = signal.matrix, 2 if signal.full_range else 1
            codec.color_primaries, codec.color_trc = signal.primaries, signal.transfer
            aside.start_encoding()
            stream = container.add_mux_stream("av1", rate=info.fps)
            BitStreamFilterContext("null", described, stream)
    except (av.FFmpegError, IndexError) as error:
        raise VideoError(f"{path}: the first frame is no AV1 that begins a video") from error
    stream.time_base = 1 / info.fps
    shaped(container, stream, signal.aspect)
    return stream


def _aside(container):
    return av.open(io.BytesIO(), "w", format=container.format.name)


def _ogg(sound):
    """Return an Ogg file with the header of a sound and one packet."""
    made = io.BytesIO()
    with av.open(made, "w", format="ogg") as container:
        stream: Any = container.add_stream("libopus", rate=sounds.RATE, layout=sounds.layout(sound.channels))
        codec = stream.codec_context
        codec.open()
        codec.extradata = sounds.head(sound)
        silence = np.zeros((1, codec.frame_size * sound.channels), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="flt", layout=sounds.layout(sound.channels))
        frame.sample_rate = sounds.RATE
        for converted in av.AudioResampler(format=codec.format, layout=codec.layout, rate=sounds.RATE).resample(frame):
            container.mux(stream.encode(converted))
        container.mux(stream.encode())
    return made.getvalue()


def _silence(sound):
    """Return a packet of silence (RFC 6716, section 3.1: frames without data)."""
    frame = min(sound.duration, 960)
    config = 16 + 12 + {120: 0, 240: 1, 480: 2, 960: 3}[frame]  # CELT, full band
    return bytes([config << 3 | (sound.channels - 1) << 2 | 3, sound.duration // frame])


def _chained(first, rest):
    yield first
    yield from rest


# ---- the shape of a picture in Matroska ----------------------------------------------------


def _state_shape(path, info, aspect):
    """Put DisplayWidth and DisplayHeight into the element Video (RFC 9559), in place of a name of the same length."""
    sizes = [(info.width * aspect, Fraction(info.height)), (Fraction(info.width), info.height / aspect)]
    width, height = next((size for size in sizes if size[0].denominator == size[1].denominator == 1), sizes[0])
    shape = b"".join(
        name + b"\x84" + max(1, round(pixels)).to_bytes(4, "big")
        for name, pixels in ((b"\x54\xb0", width), (b"\x54\xba", height))
    )
    assert len(shape) == len(_PLACE), "the header keeps its length"
    with open(path, "r+b") as file:
        header = file.read(_HEADER)
        begin = header.find(_PLACE)
        if begin < 0:
            return
        place = after = begin + len(_PLACE)
        while header[place] != _VIDEO:
            _, first = _vint(header, place, keep_marker=True)
            size, first = _vint(header, first)
            place = first + size
        size, first = _vint(header, place + 1)
        longer = size + len(shape)
        octets = first - place - 1
        if longer >= (1 << 7 * octets) - 1:
            return
        stated = (longer | 1 << 7 * octets).to_bytes(octets, "big")
        body = header[first : first + size].replace(_UNKNOWN_UNIT, _PIXELS)
        file.seek(begin)
        file.write(header[after : place + 1] + stated + body + shape)


def _vint(data, place, keep_marker=False):
    """Return a whole number of EBML (RFC 8794, section 4) and the place after it."""
    octets = 9 - data[place].bit_length()
    value = int.from_bytes(data[place : place + octets], "big")
    return value if keep_marker else value & (1 << 7 * octets) - 1, place + octets
