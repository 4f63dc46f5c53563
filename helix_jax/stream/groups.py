"""Where a clip is cut into closed groups of pictures, each of which is coded and decoded alone.

A group begins at a scene cut, where a key picture is needed anyway, and lasts ``SECONDS`` at most, so that a viewer can
begin anywhere and what is lost is short. A scene that is longer is divided evenly. Cuts are found on tiny pictures of
the luma: the difference from one frame to the next against what it was lately. Flashes are no cuts, as the frames
after them look like those before.

All of it is a function of the frames alone, so every pass over a clip cuts it at the same places.
"""

import itertools
import statistics
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Protocol, runtime_checkable

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import Int16

from helix_jax.video import VideoInfo
from helix_jax.video.signal import Signal

SECONDS = 5  # length of the longest group
SHORTEST = Fraction(1, 2)  # seconds between cuts
MEMORY = 1 << 30  # bytes of the frames of one group in 10 bits; what the encoder takes comes on top
MOST = 100  # byte strings of a pool

_SIDES = (36, 64)  # of the tiny pictures
_CHANGED = 0.6  # share of a picture that changes at a cut: a screen behind a newsreader is less
_LEAST = 10  # grey levels by which it changes; the jerk of coastguard_cif has 8, the least of 21 pairs of clips 22
_FACTOR = 4  # times the median of the differences lately
_RECENT = 12  # differences of which the median is taken
_FLASH = 3  # frames that a flash may last

Grey = Int16[np.ndarray, "h w"]


@runtime_checkable
class Source(Protocol):
    """A clip whose frames can be had from the start as often as wanted: ``VideoReader`` or ``Clip``.

    Attributes:
        info: Size, frames and rate.
        signal: Colours and pixel aspect.
    """

    @property
    def info(self) -> VideoInfo: ...

    @property
    def signal(self) -> Signal: ...

    def yuv(self) -> Iterator[av.VideoFrame]:
        """Yield the frames as yuv420p10le, upright, with pts 0, 1, 2, ..."""
        ...


def lengths(clip: Source, seconds: float = SECONDS, memory: int = MEMORY) -> tuple[int, ...]:
    """Return the number of frames of each group, in one pass over the clip that keeps no frames.

    Args:
        clip: The clip.
        seconds: Length of the longest group.
        memory: Bytes that the frames of a group may take, which also bounds its length.
    """
    info = clip.info
    shortest = max(1, round(SHORTEST * info.fps))
    most = max(1, min(round(seconds * info.fps), memory // (3 * info.height * info.width)))
    begins, count = [0], 0
    for count, cut in enumerate(_cuts(clip.yuv()), 1):
        if cut and count - 1 - begins[-1] >= shortest:
            begins.append(count - 1)
    if len(begins) > 1 and count - begins[-1] < shortest:
        begins.pop()
    scenes = (end - begin for begin, end in itertools.pairwise([*begins, count]))
    return tuple(itertools.chain.from_iterable(_even(scene, -(-scene // most)) for scene in scenes))


def groups(clip: Source, frames: Sequence[int] | None = None) -> Iterator[list[av.VideoFrame]]:
    """Yield the groups of a clip, with one of them in memory.

    Args:
        clip: The clip.
        frames: Number of frames of each group, by default ``lengths(clip)``, which takes a pass over the clip.
    """
    every = clip.yuv()
    for length in lengths(clip) if frames is None else frames:
        yield list(itertools.islice(every, length))


def merged(frames: Sequence[int], most: int = MOST) -> tuple[tuple[int, ...], ...]:
    """Return the groups of each byte string of a pool: one, or as many as it takes to have ``most`` strings.

    Args:
        frames: Number of frames of each group.
        most: Greatest number of byte strings.

    Returns:
        Tuples of the same numbers in the same order, none of them empty, of about as many frames each.
    """
    if len(frames) <= most:
        return tuple((length,) for length in frames)
    ends = list(itertools.accumulate(frames))
    strings, begin = [], 0
    for number in range(most):
        after = len(frames) - (most - number - 1)  # leaves one group at least for each of the others
        aim, end = ends[-1] * (number + 1) / most, begin + 1
        while end < after and ends[end - 1] + frames[end] / 2 <= aim:
            end += 1
        end = len(frames) if number == most - 1 else end
        strings.append(tuple(frames[begin:end]))
        begin = end
    return tuple(strings)


def _even(total, parts):
    """Return ``parts`` whole numbers that differ by at most 1 and have that sum."""
    return [total * (part + 1) // parts - total * part // parts for part in range(parts)]


def _cuts(frames: Iterable[av.VideoFrame]) -> Iterator[bool]:
    """Yield for each frame whether a scene begins with it."""
    tiny = _tiny(frames)
    before: deque[Grey] = deque(maxlen=_FLASH + 1)
    after = deque(itertools.islice(tiny, _FLASH + 1))  # the frame in question, and those that follow
    steps: deque[float] = deque(maxlen=_RECENT)
    while after:
        cut = False
        if before:
            step = _difference(before[-1], after[0])
            usual = statistics.median(steps) if steps else 0.0
            steps.append(step)
            # during a flash the frames after it look like those before, and after it those before look like the frame
            cut = step > max(_LEAST, _FACTOR * usual) and (
                min(_difference(old, new) for old, new in itertools.product(before, after)) > step / 2
            )
        yield cut
        before.append(after.popleft())
        after.extend(itertools.islice(tiny, 1))


def _tiny(frames: Iterable[av.VideoFrame]) -> Iterator[Grey]:
    reformatter, (height, width) = VideoReformatter(), _SIDES
    for frame in frames:
        small = reformatter.reformat(frame, width, height, format="gray", interpolation=Interpolation.AREA, threads=1)
        yield small.to_ndarray().astype(np.int16)


def _difference(one: Grey, other: Grey) -> float:
    """Return the grey levels by which most of the picture differs at least."""
    return float(np.quantile(np.abs(one - other), 1 - _CHANGED))
