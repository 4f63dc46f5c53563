"""The AV1 sections of a pool -> pictures: each group that came back, and the preview in place of those that did not."""

import collections
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

from helix_jax import contents
from helix_jax.contents import Content
from helix_jax.errors import DecodeError
from helix_jax.strands.sections import HeaderError, read_numbers
from helix_jax.stream import av1, obus, preview
from helix_jax.stream.obus import StreamError
from helix_jax.video import VideoInfo, planes
from helix_jax.video.pictures import PictureError
from helix_jax.video.signal import Signal
from helix_jax.writer import Progress, Received

BLOCK, MEMORY = 16, 1 << 28  # frames that are given at once, and their bytes, at most
GREY = 128  # level that is shown where there has been no picture yet
MOST_PIXELS = 1 << 27  # of a picture, so that forged sizes cannot ask for more memory; 8K has 1 << 25
MOST_NUMBER = 1 << 31  # of the parts of frame rate and pixel aspect, which files hold
LEAST_PICTURE = 3  # bytes of a picture that is only shown again


@dataclass(frozen=True, eq=False)
class _String:
    """A section of pictures as the header describes it.

    Attributes:
        frames: Number of pictures.
        size: Height and width that were coded.
        data: Bare AV1, or None where it is lost.
    """

    frames: int
    size: tuple[int, int]
    data: bytes | None


def decode(
    received: Received, parts: Sequence[contents.Part], progress: Progress | None = None
) -> tuple[VideoInfo, Signal, Iterator[UInt8[np.ndarray, "n H W 3"]], tuple[bytes, ...] | None, dict[str, Any]]:
    """Turn the AV1 sections of a pool into the clip.

    Args:
        received: The pool.
        parts: Its sections.
        progress: As for ``codec.decode``.

    Returns:
        The facts about the clip, its signal, its frames in blocks, the coded groups where all of the picture is there
        at its own size (else None), and the fields of the report that say what is lost.

    Raises:
        DecodeError: Neither a group nor the preview came back, or the header contradicts itself.
    """
    head = received.header
    info = VideoInfo(head.frames, head.height, head.width, head.fps)
    signal = Signal(head.aspect, *head.colours[:3], bool(head.colours[3]))
    strings = [_string(part, info) for part in parts if part.section.kind == "av1"]
    if sum(string.frames for string in strings) != info.frames:
        raise DecodeError(f"the header says {info.frames:,} frames, and its groups have others: forged?")
    if max(info.fps.numerator, info.fps.denominator, signal.aspect.numerator, signal.aspect.denominator) >= MOST_NUMBER:
        raise DecodeError(
            f"the header says {info.fps} frames per second and a pixel aspect of {signal.aspect}: forged?"
        )
    lost = [string.data is None for string in strings]
    small = _preview(parts, info, signal) if any(lost) else None
    if all(lost) and not small:
        raise DecodeError(
            f"every group of pictures has lost some of its packets, and so has the preview: {received.remedy}"
        )
    stretches = _seconds(strings, lost, info.fps)
    report = {"preview_seconds": stretches} if small else {"missing_seconds": stretches}
    whole = not any(lost) and all(string.size == (info.height, info.width) for string in strings)
    copied = tuple(string.data for string in strings if string.data is not None) if whole else None
    for string, data in zip(strings, copied or (), strict=False):  # the file will hold what the header says
        collections.deque(obus.bounded(data, string.size, string.frames), maxlen=0)
    step = None if progress is None else lambda done: progress("pictures", done, info.frames)
    return info, signal, _blocks(strings, small, info, signal, step), copied, report


def shown(every: Sequence[Content], info: VideoInfo, signal: Signal) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
    """Yield the pictures of contents of kind av1, as they would be shown if all came back."""
    strings = []
    for content in every:
        (frames, height, width), _ = read_numbers(content.details, 3)
        strings.append(_String(frames, (height, width), content.data))
    return _blocks(strings, None, info, signal, None)


def _string(part: contents.Part, info: VideoInfo) -> _String:
    try:
        (frames, height, width), _ = read_numbers(part.section.details, 3)
    except HeaderError as error:
        raise DecodeError(f"{error}: forged?") from error
    if not 1 <= height * width <= MOST_PIXELS or info.height * info.width > MOST_PIXELS:
        raise DecodeError(
            f"the header says pictures of {width}x{height}, shown at {info.width}x{info.height}, more than "
            f"{MOST_PIXELS:,} pixels: forged?"
        )
    if not 0 < LEAST_PICTURE * frames <= part.section.size:  # a lost group is shown for as long as it says
        raise DecodeError(f"the header says {frames:,} pictures in {part.section.size:,} bytes: forged?")
    return _String(frames, (height, width), part.data)


def _preview(parts, info: VideoInfo, signal: Signal) -> bytes | None:
    """Return the preview, or None where it is lost or is not what a preview of this clip can be."""
    small = next((part.data for part in parts if part.section.kind == "preview"), None)
    try:
        return small if small and next(preview.frames(small, info, signal)) else None
    except StreamError:
        return None


def _seconds(strings, lost, fps: Fraction) -> tuple[tuple[float, float], ...]:
    """Return (begin, end) in seconds of the stretches that are lost."""
    ends = [0, *itertools.accumulate(string.frames for string in strings)]
    found: list[list[int]] = []
    for number, gone in enumerate(lost):
        if gone and found and found[-1][1] == ends[number]:
            found[-1][1] = ends[number + 1]
        elif gone:
            found.append([ends[number], ends[number + 1]])
    return tuple((float(begin / fps), float(end / fps)) for begin, end in found)


def _blocks(strings, small, info, signal, step):
    """Yield the pictures as RGB, BLOCK frames at once, or fewer of large pictures."""
    size, waiting = (info.height, info.width), []
    most = max(1, min(BLOCK, MEMORY // (3 * info.height * info.width)))
    for picture in _pictures(strings, small, info, signal, size):
        waiting.append(picture)
        if len(waiting) == most:
            yield np.stack(waiting)
            if step:
                step(len(waiting))
            waiting = []
    if waiting:
        yield np.stack(waiting)
        if step:
            step(len(waiting))


def _pictures(strings, small, info, signal, size) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Yield the pictures one by one: those of the groups, and those of the preview in place of lost ones."""
    previewed = preview.frames(small, info, signal) if small else iter(())
    last, before = np.full((*size, 3), GREY, np.uint8), None

    def rgb(frame: av.VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
        try:
            return planes.rgb(next(av1.resize([frame], size)), signal)
        except (PictureError, av.FFmpegError) as error:
            raise DecodeError(f"the header says colours that cannot be shown: {error}") from error

    for string in strings:
        instead = itertools.islice(previewed, string.frames)
        if string.data is not None:
            collections.deque(instead, maxlen=0)
            before = None
            for frame in av1.decode(string.data, size=string.size, frames=string.frames, signal=signal):
                last = rgb(frame)
                yield last
        elif small:
            for frame in instead:
                if frame is not before:  # a picture stands for several frames
                    last, before = rgb(frame), frame
                yield last
        else:
            yield from itertools.repeat(last, string.frames)
