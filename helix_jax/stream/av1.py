"""One closed group of pictures <-> AV1: coded by SVT-AV1, decoded by dav1d, both in 10 bits by PyAV.

Bytes from a pool may be anything. The decoder runs in this process all the same: what a stream could ask of it is
checked before (``obus.bounded``), and dav1d refuses pictures of more pixels than are stated. Of 9,700 streams with
flipped bits, forged headers and units that are shuffled or from elsewhere, none crashed it, the memory of the process
rose by 2 MB, and the slowest took 0.15 s for 48 pictures of 352x288. A child process would cost more than that. But
it has one thread only: with two, dav1d 1.5 waited forever after one damaged stream of a few hundred on a busy machine,
and with one never in 23,000. Whoever has several groups can decode them in several threads.
"""

import contextlib
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

COARSEST, STEP = 70.0, 0.25  # of the CRF
PIXELS = "yuv420p10le"
SCALING = (
    Interpolation.LANCZOS | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)
FASTEST = Fraction(240)  # frames per second that SVT-AV1 takes; it has no use for them at a constant CRF
SMALLEST = 4  # pixels of the least side that SVT-AV1 takes; odd sizes are as good as others
# For one picture: short headers (reduced_still_picture_header), 4 bytes less for the sequence and some for the picture.
# A CRF gives fewer bytes than for a key picture that others refer to.
STILL = "avif=1"
# For pictures that are far apart in time, whose mean over time is blurred: 0.07 dB more on 8 pictures of 88x72.
SPARSE = "enable-tf=0"
# One key picture, tuned for PSNR, no cut detection. On 32 frames of five CIF clips (akiyo, foreman, bus, news,
# coastguard), preset 4, the bytes for the same PSNR change by so much with other rules: tune=0 +4.6 %, tune=2 +5.5 %,
# enable-tf=0 +3.1 %, enable-tf=2 +3.5 %, enable-overlays=1 +2.6 %, enable-variance-boost=1 +3.6 %, pred-struct=1 +30 %,
# ac-bias=1 +0.7 %, max-tx-size=32 +0.7 %, qp-scale-compress-strength=1 +0.7 %, enable-qm=1 +0.5 %, sharpness=-2 or 2
# -0.1 %, aq-mode, enable-dlf=2 and enable-restoration=0 0.2 % at most; scm=1 -1.4 % in three times the time, for which
# a slower preset gives more; hierarchical-levels=3 -1.9 %, but +1.3 % on akiyo. 8 bits instead of 10 take 0.8 % more.
_RULES = "keyint=-1:tune=1:scd=0"
_LIMITED, _FULL = 1, 2  # FFmpeg's numbers of the ranges
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
    rules: str = "",
) -> bytes:
    """Code one closed group of pictures.

    Args:
        frames: The pictures, one at least, all of one size.
        size: Height and width to code, to which the pictures are scaled.
        crf: CRF in steps of 0.25, from 0 (best) to 70.
        preset: Preset of SVT-AV1, from 0 (slowest) to 13.
        signal: The colours, which are tagged in the sequence header.
        fps: Frames per second, which rate control needs.
        threads: SVT's parallelism ("lp").
        rules: More parameters of SVT-AV1 (``STILL``, ``SPARSE``).

    Returns:
        Bare OBUs; ``obus`` tells which.

    Raises:
        EncodeError: Where SVT-AV1 refuses, for example a size.
    """
    rules = f"{_RULES}:lp={threads}:crf={round(crf / STEP) * STEP:g}" + (f":{rules}" if rules else "")
    height, width = size
    context: Any = av.CodecContext.create("libsvtav1", "w")
    context.height, context.width, context.pix_fmt = height, width, PIXELS
    context.time_base, context.framerate = 1 / fps, min(fps, FASTEST)
    context.color_primaries, context.color_trc = signal.primaries, signal.transfer
    context.colorspace, context.color_range = signal.matrix, _FULL if signal.full_range else _LIMITED
    context.options = {"preset": str(preset), "svtav1-params": rules}
    packets = []
    try:
        for number, frame in enumerate(resize(frames, size)):
            frame.pts, frame.time_base = number, 1 / fps
            frame.pict_type = 0  # a frame that was decoded asks for the type that it had
            packets += context.encode(frame)
            if not number:
                ordinary_threads()
        packets += context.encode(None)
    except av.FFmpegError as error:
        raise EncodeError(
            f"SVT-AV1 refuses pictures of {width}x{height} with preset {preset} and {rules} ({error.strerror})"
        ) from error
    return b"".join(obus.bare(bytes(packet)) for packet in packets)


def decode(data: bytes, *, size: tuple[int, int], frames: int, signal: Signal) -> Iterator[av.VideoFrame]:
    """Yield the pictures of a group as yuv420p10le with pts 0, 1, 2, ...

    Args:
        data: Bare OBUs; any bytes may be given.
        size: Height and width that were coded.
        frames: Number of pictures.
        signal: The colours, which the frames get, whatever the stream says.

    Raises:
        StreamError: Where the bytes are no AV1 of exactly that size and number; the pictures before have been yielded
            by then.
    """
    context: Any = av.CodecContext.create("libdav1d", "r")
    context.options = {"max_pixels": str(size[0] * size[1])}
    context.thread_count = 1
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


def ordinary_threads() -> None:
    """Take the real-time priority from SVT-AV1's threads, which it asks for where it may, as root may.

    All else on the machine would wait for them: other clips of a batch, and whoever else works there.
    """
    if os.path.isdir("/proc/self/task"):
        for thread in map(int, os.listdir("/proc/self/task")):
            with contextlib.suppress(OSError):  # it may be over
                if os.sched_getscheduler(thread) == os.SCHED_FIFO:
                    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def _decoded(context, units):
    try:
        for unit in units:
            yield from context.decode(av.Packet(unit))
        yield from context.decode(None)
    except av.FFmpegError as error:
        raise StreamError(f"the AV1 stream is damaged ({error.strerror})") from error


def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return height and width times ``scale``, but no less than SVT-AV1 takes."""
    height, width = (max(SMALLEST, round(scale * side)) for side in size)
    return height, width


def resize(frames: Iterable[av.VideoFrame], size: tuple[int, int]) -> Iterator[av.VideoFrame]:
    """Yield frames scaled to ``size`` = (height, width) as yuv420p10le; those that are so already as they are."""
    reformatter, (height, width) = VideoReformatter(), size
    for frame in frames:
        if (frame.height, frame.width, frame.format.name) != (height, width, PIXELS):
            frame = reformatter.reformat(frame, width, height, format=PIXELS, interpolation=SCALING, threads=1)
        yield frame
