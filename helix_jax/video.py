"""Video files <-> uint8 RGB frames (PyAV), streamed so that memory does not grow with the clip.

Read: any format FFmpeg knows, at a constant frame rate. What cannot be kept is refused by name
(variable frame rate, damaged or truncated files); a rotation stored as metadata is applied to the pixels.
Write: H.264 in MP4 as yuv444p, which keeps odd sizes, tagged BT.709 limited range.
"""

import contextlib
import shlex
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter

from helix_jax.errors import HelixError
from helix_jax.files import atomic

# yuv -> rgb and back within a level or two: without these flags swscale takes coarse shortcuts
PRECISE = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
NEAR_LOSSLESS_CRF = 8
UPRIGHT = (1, 0, 0, 1)
JITTER = 0.02  # of a frame: timestamps may wander this far beyond the rounding to their time base


class VideoError(HelixError):
    """A clip that cannot be read, or not be kept as it is: names the file and the remedy."""


@dataclass(frozen=True)
class VideoInfo:
    """frames: count; height, width: pixels, upright; fps: frames per second, exact."""

    frames: int
    height: int
    width: int
    fps: Fraction


@dataclass(frozen=True)
class VideoReader:
    """A readable clip; holds no open file. Made by ``open_video``.

    has_audio: the file has sound, which ``blocks`` does not give. pixel_aspect: width of a pixel over
    its height (1 = square, also where the file says nothing). orientation: (a, b, c, d) of the
    display matrix, already applied in ``info`` and ``blocks``.
    """

    path: Path
    info: VideoInfo
    has_audio: bool
    pixel_aspect: Fraction
    orientation: tuple[int, int, int, int]

    def blocks(self, frames=32):
        """Yield the clip from its start, uint8[n, H, W, 3] RGB with n = ``frames`` but for the last block.

        Raises VideoError where the file is no longer what ``open_video`` saw.
        """
        reformatter, block, count = VideoReformatter(), [], 0
        for frame in _decoded(self.path):
            rgb = reformatter.reformat(frame, format="rgb24", interpolation=PRECISE, threads=1).to_ndarray()
            block.append(_upright(rgb, self.orientation))
            count += 1
            if len(block) == frames:
                yield np.stack(block)
                block = []
        if block:
            yield np.stack(block)
        if count != self.info.frames:
            raise VideoError(f"{self.path}: changed while it was read ({count} frames, {self.info.frames} before)")


def open_video(path):
    """Check a clip and count its frames. Returns a VideoReader.

    The whole clip is decoded once, without keeping it: headers lie about the number of frames, and a
    damaged or variable-rate clip is better refused now than after minutes of work. A single frame
    whose file states no rate gets 25 per second.
    Raises VideoError: no such file, empty, not a video, no picture (sound only), damaged or cut short,
    variable frame rate, a size that changes, or a rotation that is no multiple of 90 degrees.
    """
    path = Path(path)
    if not path.is_file():
        raise VideoError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty; copy it again from its source")
    with _reading(path) as container:
        stream = _video_stream(path, container)
        guessed = stream.guessed_rate
        rates = [rate for rate in (stream.average_rate, guessed, stream.base_rate) if rate]
        has_audio = bool(container.streams.audio)
        aspect = stream.sample_aspect_ratio or Fraction(1)
    timestamps, shape, orientation, tick = [], None, UPRIGHT, Fraction(1)
    for frame in _decoded(path):
        if shape is None:
            shape, tick = (frame.height, frame.width), frame.time_base
            orientation = _orientation(path, frame)
        if (frame.height, frame.width) != shape:
            raise VideoError(
                f"{path}: the size changes from {shape[1]}x{shape[0]} to {frame.width}x{frame.height} at frame "
                f"{len(timestamps)}; {_reencode(path, f'-vf scale={shape[1]}:{shape[0]}')}"
            )
        timestamps.append(frame.pts)
    if shape is None:
        raise VideoError(f"{path}: no frame can be decoded; {_reencode(path)}")
    fps = _constant_rate(path, timestamps, tick, rates, guessed)
    turned = orientation[0] == 0
    height, width = shape[::-1] if turned else shape
    info = VideoInfo(len(timestamps), height, width, fps)
    return VideoReader(path, info, has_audio, 1 / aspect if turned else aspect, orientation)


class VideoWriter:
    """Write frames to an MP4 (H.264, yuv444p, BT.709): ``with VideoWriter(path, info) as out: out.write(block)``.

    path: appears, complete, when the block ends without an error. info: VideoInfo; all of its frames
    must be written. lossless: keep the yuv444p samples bit for bit (several times larger); the
    default is near-lossless, CRF 8. The step from RGB to 8-bit YUV costs up to 2 levels either way.
    Raises VideoError for a path that is not .mp4, or where the frames do not agree with ``info``.
    """

    def __init__(self, path, info, lossless=False):
        self.path, self.info, self.lossless = Path(path), info, lossless
        if self.path.suffix.lower() != ".mp4":
            raise VideoError(f"{self.path}: videos are written as MP4; give a name that ends in .mp4")
        if min(info.frames, info.height, info.width) < 1 or info.fps <= 0:
            raise VideoError(f"{self.path}: nothing to write: {info}")

    def __enter__(self):
        self._session = self._open()
        self._session.__enter__()
        return self

    def __exit__(self, *error):
        return self._session.__exit__(*error)

    @contextlib.contextmanager
    def _open(self):
        try:
            with atomic(self.path) as temporary, av.open(str(temporary.absolute()), "w", format="mp4") as container:
                self._container, self._reformatter, self._written = container, VideoReformatter(), 0
                self._stream = self._add_stream()
                yield
                if self._written != self.info.frames:
                    raise VideoError(f"{self.path}: {self._written} frames written, {self.info.frames} promised")
                container.mux(self._stream.encode())
        except av.FFmpegError as error:
            raise VideoError(f"{self.path}: cannot be written ({error.strerror})") from error

    def _add_stream(self):
        stream = self._container.add_stream("libx264", rate=self.info.fps)
        stream.width, stream.height, stream.pix_fmt = self.info.width, self.info.height, "yuv444p"
        quality = {"qp": "0"} if self.lossless else {"crf": str(NEAR_LOSSLESS_CRF)}
        # tune=psnr: x264's psychovisual and adaptive quantisation move hard colour edges by up to 50 levels
        stream.options = {"preset": "veryfast", "tune": "psnr", **quality}
        codec = stream.codec_context
        codec.time_base = 1 / self.info.fps
        codec.colorspace, codec.color_range = Colorspace.ITU709, ColorRange.MPEG
        codec.color_primaries, codec.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        return stream

    def write(self, block):
        """Append uint8[n, H, W, 3] RGB frames."""
        expected = (self.info.height, self.info.width, 3)
        if block.dtype != np.uint8 or block.ndim != 4 or block.shape[1:] != expected:
            raise VideoError(f"{self.path}: frames are {block.dtype}{list(block.shape)}, not uint8[n, {expected}]")
        for rgb in block:
            frame = self._reformatter.reformat(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"),
                format="yuv444p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG,
                interpolation=PRECISE, threads=1,
            )  # fmt: skip
            frame.pts, frame.time_base = self._written, 1 / self.info.fps
            self._written += 1
            self._container.mux(self._stream.encode(frame))


# ---- reading -------------------------------------------------------------------------------


@contextlib.contextmanager
def _reading(path):
    try:
        # absolute: a name such as "pipe:0" must not be taken for a protocol
        with av.open(str(path.absolute())) as container:
            yield container
    except av.FFmpegError as error:
        raise VideoError(
            f"{path}: not a readable video ({error.strerror}); give a video file such as MP4 or MKV"
        ) from error


def _video_stream(path, container):
    """The first stream of pictures; cover art of a sound file is none."""
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        what = "has sound but no picture" if container.streams.audio else "has no picture"
        raise VideoError(f"{path}: {what}; give a file with a video stream")
    return streams[0]


def _decoded(path):
    """Yield every frame as an av.VideoFrame; VideoError where the file turns out damaged or cut short."""
    packets = frames = 0
    last = None
    with _reading(path) as container:
        stream = _video_stream(path, container)
        stream.thread_type = "AUTO"
        try:
            for packet in container.demux(stream):
                packets += packet.size > 0
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise _damaged(path, frames, "a frame is incomplete")
                    yield frame
                    frames += 1
                    last = frame
                if packet.is_corrupt:
                    raise _damaged(path, frames, "the data end inside a frame")
        except av.FFmpegError as error:
            raise _damaged(path, frames, error.strerror) from error
        # what edit lists cut away is missing from the index, not from the header's count
        announced = min(stream.frames, len(stream.index_entries) or stream.frames)
        if packets < announced:
            raise _damaged(path, frames, f"its header announces {announced} frames")
        if last is not None and last.pts is not None and "matroska" in container.format.name:
            missing = _seconds(stream.metadata.get("DURATION")) - float(last.pts * last.time_base)
            rate = stream.average_rate or 25
            if missing * rate > 3:
                raise _damaged(path, frames, f"its header announces {missing:.1f} s more")


def _seconds(text):
    """Matroska's DURATION tag, hh:mm:ss.fraction, in seconds; 0 where there is none."""
    parts = (text or "0").split(":")
    try:
        return sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))
    except ValueError:
        return 0.0


def _damaged(path, frames, reason):
    return VideoError(
        f"{path}: damaged or cut short after {frames} frames ({reason}); copy it again from its source, or keep what "
        f"is there: {_reencode(path)}"
    )


def _reencode(path, options=""):
    middle = f"{options} " if options else ""
    target = path.with_name(f"{path.stem}-new.mp4")
    return f"re-encode it with: ffmpeg -i {shlex.quote(str(path))} {middle}{shlex.quote(str(target))}"


def _orientation(path, frame):
    """(a, b, c, d) in {-1, 0, 1} of the display matrix: pixel (x, y) is shown at (a x + c y, b x + d y)."""
    side_data = frame.side_data.get(SideData.DISPLAYMATRIX)
    if side_data is None:
        return UPRIGHT
    matrix = np.frombuffer(side_data, np.int32)[[0, 1, 3, 4]] / 65536  # 16.16 fixed point
    rounded = np.round(matrix).astype(int)
    a, b, c, d = (int(value) for value in rounded)
    if (
        np.abs(matrix - rounded).max() > 1e-3
        or sorted((abs(a), abs(b))) != [0, 1]
        or abs(a) != abs(d)
        or abs(b) != abs(c)
    ):
        raise VideoError(f"{path}: turned by {frame.rotation} degrees, not a multiple of 90; {_reencode(path)}")
    return a, b, c, d


def _upright(rgb, orientation):
    """uint8[H, W, 3] as stored -> as shown."""
    a, b, c, d = orientation
    if a == 0:
        rgb, a, d = rgb.transpose(1, 0, 2), c, b
    return rgb[::d, ::a]


def _constant_rate(path, timestamps, tick, rates, guessed):
    """The exact rate that explains the timestamps (counts of ``tick`` seconds), as a Fraction."""
    if None in timestamps:  # raw streams have none: constant by definition, and only the guess reads their header
        return guessed or Fraction(25)
    if len(timestamps) == 1:
        return rates[0] if rates else Fraction(25)
    pts = np.array(timestamps, np.float64)
    pts -= pts[0]
    if pts[-1] > 0:
        measured = (len(pts) - 1) / (Fraction(timestamps[-1] - timestamps[0]) * tick)
        rates = [*rates, Fraction(round(measured)), Fraction(1000 * round(measured * Fraction(1001, 1000)), 1001)]
    for rate in rates:
        if rate <= 0:
            continue
        step = float(1 / (rate * tick))  # ticks per frame
        spread = np.ptp(pts - step * np.arange(len(pts)))
        # rounding to ticks, up or down, keeps the spread below one tick: none at all where a frame is whole ticks
        if spread < (1e-3 if step.is_integer() else 1.001) or spread < JITTER * step:
            return Fraction(rate)
    gaps = np.diff(pts) * float(tick)
    raise VideoError(
        f"{path}: variable frame rate (frames last {gaps.min():.4g} to {gaps.max():.4g} s), and one rate is kept per "
        f"clip; {_reencode(path, f'-fps_mode cfr -r {rates[0] if rates else 25}')}"
    )
