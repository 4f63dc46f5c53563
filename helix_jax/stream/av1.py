"""One closed group of pictures <-> AV1: coded by SVT-AV1, decoded by dav1d, both in 10 bits by PyAV.

Bytes from a pool may be anything. The decoder runs in this process all the same: what a stream could ask of it is
checked before (``obus.bounded``), and dav1d refuses pictures of more pixels than are stated. Of 9,700 streams with
flipped bits, forged headers and units that are shuffled or from elsewhere, none crashed it, the memory of the process
rose by 2 MB, and the slowest took 0.15 s for 48 pictures of 352x288. A child process would cost more than that.
"""

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import av
from av.video.reformatter import Interpolation, VideoReformatter

from helix_jax.errors import HelixError
from helix_jax.stream import obus
from helix_jax.stream.obus import StreamError
from helix_jax.video.signal import Signal

COARSEST, STEP = 63.0, 0.25  # of the CRF
PIXELS = "yuv420p10le"
SCALING = (
    Interpolation.LANCZOS | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)
SMALLEST = 4  # pixels of the least side that SVT-AV1 takes; odd sizes are as good as others
_LIMITED, _FULL = 1, 2  # FFmpeg's numbers of the ranges
_MOST_THREADS = 4  # of the decoder; each takes memory
os.environ.setdefault("SVT_LOG", "1")  # print errors only; otherwise SVT prints a greeting on standard error


class EncodeError(HelixError):
    """Frames that the encoder refuses; the message says what it is told."""


def encode(
    frames: Iterable[av.VideoFrame],
    *,
    size: tuple[int, int],
    crf: float,
    preset: int,
    signal: Signal,
    fps: Fraction,
    threads: int = 1,
) -> bytes:
    """Code one closed group of pictures.

    Args:
        frames: The pictures, one at least, all of one size.
        size: Height and width to code, to which the pictures are scaled.
        crf: CRF in steps of 0.25, from 0 (best) to 63.
        preset: Preset of SVT-AV1, from 0 (slowest) to 13.
        signal: The colours, which are tagged in the sequence header.
        fps: Frames per second, which rate control needs.
        threads: SVT's parallelism ("lp").

    Returns:
        Bare OBUs; ``obus`` tells which.

    Raises:
        EncodeError: Where SVT-AV1 refuses, for example a size.
    """
    rules = f"keyint=-1:tune=1:scd=0:lp={threads}:crf={round(crf / STEP) * STEP:g}"
    height, width = size
    context: Any = av.CodecContext.create("libsvtav1", "w")
    context.height, context.width, context.pix_fmt = height, width, PIXELS
    context.time_base, context.framerate = 1 / fps, fps
    context.color_primaries, context.color_trc = signal.primaries, signal.transfer
    context.colorspace, context.color_range = signal.matrix, _FULL if signal.full_range else _LIMITED
    context.options = {"preset": str(preset), "svtav1-params": rules}
    packets = []
    try:
        for number, frame in enumerate(resize(frames, size)):
            frame.pts, frame.time_base = number, 1 / fps
            frame.pict_type = 0  # a frame that was decoded asks for the type that it had
            packets += context.encode(frame)
        packets += context.encode(None)
    except av.FFmpegError as error:
        raise EncodeError(
            f"SVT-AV1 refuses pictures of {width}x{height} with preset {preset} and {rules} ({error.strerror})"
        ) from error
    return b"".join(obus.bare(bytes(packet)) for packet in packets)


def decode(
    data: bytes, *, size: tuple[int, int], frames: int, signal: Signal, threads: int | None = None
) -> Iterator[av.VideoFrame]:
    """Yield the pictures of a group as yuv420p10le with pts 0, 1, 2, ...

    Args:
        data: Bare OBUs; any bytes may be given.
        size: Height and width that were coded.
        frames: Number of pictures.
        signal: The colours, which the frames get, whatever the stream says.
        threads: Threads of the decoder, by default one per core and 4 at most.

    Raises:
        StreamError: Where the bytes are no AV1 of exactly that size and number; the pictures before have been yielded
            by then.
    """
    context: Any = av.CodecContext.create("libdav1d", "r")
    context.options = {"max_pixels": str(size[0] * size[1])}
    context.thread_count = threads or min(os.cpu_count() or 1, _MOST_THREADS)
    shown = 0
    for frame in _decoded(context, obus.bounded(data, size, frames)):
        if (frame.height, frame.width, frame.format.name) != (*size, PIXELS) or shown == frames:
            raise StreamError(f"the AV1 stream has pictures of {frame.width}x{frame.height} in {frame.format.name}")
        frame.pts = shown
        frame.color_primaries, frame.color_trc = signal.primaries, signal.transfer
        frame.colorspace, frame.color_range = signal.matrix, _FULL if signal.full_range else _LIMITED
        yield frame
        shown += 1
    if shown != frames:
        raise StreamError(f"the AV1 stream has {shown} pictures that can be decoded, not {frames}")


def _decoded(context, units):
    try:
        for unit in units:
            yield from context.decode(av.Packet(unit))
        yield from context.decode(None)
    except av.FFmpegError as error:
        raise StreamError(f"the AV1 stream is damaged ({error.strerror})") from error


def resize(frames: Iterable[av.VideoFrame], size: tuple[int, int]) -> Iterator[av.VideoFrame]:
    """Yield frames scaled to ``size`` = (height, width) as yuv420p10le; those that are so already as they are."""
    reformatter, (height, width) = VideoReformatter(), size
    for frame in frames:
        if (frame.height, frame.width, frame.format.name) != (height, width, PIXELS):
            frame = reformatter.reformat(frame, width, height, format=PIXELS, interpolation=SCALING, threads=1)
        yield frame
