"""All groups of a clip, coded with one size and one preset, each with a CRF of its own; and how good they look.

The groups are coded in threads, since PyAV releases the interpreter's lock: SVT-AV1's own threads, which give the same
bytes, cannot keep many cores busy with small pictures. A clip of one group is left to them.
"""

import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import av
import numpy as np

from helix_jax.stream import av1
from helix_jax.stream.groups import MEMORY, Source, groups
from helix_jax.video import planes
from helix_jax.video.clip import VideoInfo
from helix_jax.video.signal import Signal

Progress = Callable[[str, int, int], None]
"""Called with a station's name, how many of its parts are done, and how many there are."""


@dataclass(frozen=True)
class Group:
    """One group as it was coded.

    Attributes:
        data: Its bytes.
        frames: Number of its frames.
        crf: The CRF that it was coded with.
    """

    data: bytes
    frames: int
    crf: float


@dataclass(frozen=True)
class Way:
    """How groups are coded, apart from the CRF.

    Attributes:
        size: Height and width that are coded.
        preset: Preset of SVT-AV1.
    """

    size: tuple[int, int]
    preset: int


def nothing(station: str, done: int, total: int) -> None:
    """Report no progress."""


def encode_groups(
    clip: Source,
    lengths: Sequence[int],
    crfs: Sequence[float | None],
    way: Way,
    progress: Progress = nothing,
) -> list[Group | None]:
    """Code the groups of a clip in one pass over it.

    Args:
        clip: The clip.
        lengths: Number of frames of each group.
        crfs: The CRF of each group, None for those that are left out.
        way: How to code.
        progress: Called as ``progress("encode", frames, total)`` after each group.

    Returns:
        A Group or None for each group.
    """
    wanted = [length for length, crf in zip(lengths, crfs, strict=True) if crf is not None]
    workers = _workers(clip.info, wanted)
    threads = 1 if workers > 1 else os.cpu_count() or 1

    def code(frames, crf):
        data = av1.encode(
            frames, size=way.size, crf=crf, preset=way.preset, signal=clip.signal, fps=clip.info.fps, threads=threads
        )
        return Group(data, len(frames), crf)

    coded, done = [], 0
    for group in _mapped(code, zip(_read(clip, lengths, crfs), crfs, strict=True), workers):
        coded.append(group)
        if group is not None:
            done += group.frames
            progress("encode", done, sum(wanted))
    return coded


def errors(
    clip: Source, lengths: Sequence[int], coded: Sequence[Group | None], way: Way, every: int = 1
) -> list[float]:
    """Return the mean squared error of each group against the clip's frames: in RGB, in squares of 8-bit levels.

    Args:
        clip: The clip.
        lengths: Number of frames of each group.
        coded: The groups of the clip; None for those that are left out, whose error is nan.
        way: How they were coded.
        every: Compare every so many frames only, of which each group has at least one.
    """

    def error(frames, group):
        shown = av1.decode(group.data, size=way.size, frames=group.frames, signal=clip.signal)
        shown = itertools.islice(shown, every // 2 % group.frames, None, every)
        size = (clip.info.height, clip.info.width)
        return mean_squared(frames[every // 2 % group.frames :: every], av1.resize(shown, size), clip.signal)

    jobs = zip(_read(clip, lengths, coded), coded, strict=True)
    found = _mapped(error, jobs, _workers(clip.info, [group.frames for group in coded if group]))
    return [math.nan if value is None else value for value in found]


def psnr(errors: Iterable[float], weights: Iterable[int]) -> float:
    """Return the PSNR in dB of squared errors of 8-bit levels with these weights; those that are nan do not count."""
    pairs = [(error, weight) for error, weight in zip(errors, weights, strict=True) if not math.isnan(error)]
    mean = sum(error * weight for error, weight in pairs) / sum(weight for _, weight in pairs)
    return 10 * math.log10(255**2 / max(mean, 1e-4))


def mean_squared(frames: Iterable[av.VideoFrame], shown: Iterable[av.VideoFrame], signal: Signal) -> float:
    """Return the mean squared difference of frames in RGB, as they are shown in 8 bits."""
    total = count = 0
    for pair in zip(frames, shown, strict=True):
        one, other = (planes.rgb(frame, signal) for frame in pair)
        gap = (np.maximum(one, other) - np.minimum(one, other)).astype(np.uint16)
        total, count = total + float(np.square(gap).mean()), count + 1
    return total / count


def _read(clip, lengths, wanted) -> Iterator[list[av.VideoFrame] | None]:
    """Yield the frames of each group, None where nothing is wanted of it; what comes after the last one is not read."""
    last = max((number for number, item in enumerate(wanted) if item is not None), default=-1)
    every = zip(groups(clip, lengths[: last + 1]), wanted, strict=False)
    for frames, item in every:
        yield None if item is None else frames
    yield from itertools.repeat(None, len(wanted) - last - 1)


def _workers(info: VideoInfo, wanted):
    """Return how many groups are worked at, for which the frames of all have to be in memory."""
    largest = 3 * info.height * info.width * max(wanted, default=1)
    return max(1, min(len(wanted), os.cpu_count() or 1, 2 * MEMORY // largest))


def _mapped(function, jobs, workers):
    """Yield function(frames, item) for each job in their order, None for those without frames."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque = deque()
        for frames, item in jobs:
            waiting.append(None if frames is None else pool.submit(function, frames, item))
            del frames
            while sum(job is not None for job in waiting) >= workers + (workers > 1):
                job = waiting.popleft()
                yield job and job.result()
        while waiting:
            job = waiting.popleft()
            yield job and job.result()
