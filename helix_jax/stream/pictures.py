"""A clip <-> the AV1 sections of a pool: groups of pictures, and a preview that outlives greater losses.

Each group stands alone in blocks of its own of the outer code, so that it comes back whole or not at all. Where it does
not, the preview is shown in its place, scaled up, as it has repair strands for far greater losses. So a pool has a
step, not a cliff, and says which seconds are preview.
"""

import collections
import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

from helix_jax import contents
from helix_jax.config import CodecConfig, StrandConfig, Survival
from helix_jax.contents import Content
from helix_jax.errors import DecodeError, HelixError
from helix_jax.strands.layouts import PacketLayout
from helix_jax.strands.sections import HeaderError, Section, numbers, read_numbers
from helix_jax.stream import av1, fit, groups, preview
from helix_jax.video import VideoInfo, planes
from helix_jax.video.signal import Signal
from helix_jax.writer import Progress, Received, Station

KINDS = ("av1", "preview")
BLOCK = 16  # frames that are given at once
GREY = 128  # level that is shown where there has been no picture yet
LEAST = 40  # bytes of a group or a preview below which there is no picture
MOST_PIXELS = 1 << 27  # of a picture, so that forged sizes cannot ask for more memory; 8K has 1 << 25
SAFER = 0.25  # how much more redundancy the sound has than the picture
# The preview outlives the loss of half of all strands, but for one pool in a hundred. Where its share of nucleotides
# is too small for FLOOR bytes, it gets up to three times the share: docs/experiments.md has the measurement.
FLOOR, FACTOR = 192, 3
PREVIEW = Survival(loss=0.5, coverage=1000, errors=0.001, failure=1e-2)


def fields(info: VideoInfo, signal: Signal, measured: tuple[float, float] | None) -> dict[str, Any]:
    """Return what the header says of a clip in format 2.

    Args:
        info: The facts about the clip.
        signal: Its colours and its pixel aspect.
        measured: PSNR of AV1 and of tokens on the clip's first seconds, where both were tried, in dB.
    """
    return {
        "kind": "video",
        "frames": info.frames,
        "height": info.height,
        "width": info.width,
        "fps": info.fps,
        "aspect": signal.aspect,
        "colours": (signal.primaries, signal.transfer, signal.matrix, int(signal.full_range)),
        "measured": tuple(round(100 * max(0.0, psnr)) for psnr in measured or ()),
    }


def safer(strands: StrandConfig) -> float | int | Survival:
    """Return the redundancy of the sound, of which each loss is heard."""
    own = strands.redundancy_of("av1")
    if isinstance(own, Survival):
        return dataclasses.replace(own, loss=min(0.9, own.loss + SAFER / 2))
    return own + SAFER


# ---- writing -------------------------------------------------------------------------------------------------


def encode(
    video: groups.Source,
    beside: Sequence[Content],
    about: Mapping[str, Any],
    config: CodecConfig,
    station: Station,
    progress: Progress | None = None,
) -> tuple[list[Content], PacketLayout]:
    """Turn a clip into the contents of a pool, at the quality, rate or budget that is requested.

    Args:
        video: The clip.
        beside: Contents that the pool holds too, which come after the preview.
        about: What the header says of the clip (``fields``).
        config: The configuration.
        station: What will write the pool.
        progress: As for ``codec.encode``.

    Returns:
        All contents in the order of the payload, and their layout.

    Raises:
        HelixError: The rate or budget does not pay for the lowest quality.
    """
    frames = tuple(map(sum, groups.merged(groups.lengths(video))))
    plan = _Plan(video, tuple(beside), about, station, frames)
    most, shown = _limit(video.info, config), None
    if most is None:
        shown = fit.at_quality(video, config.quality, effort=config.effort, **_told(progress))
        picture = [len(unit.data) for unit in shown.units]
        whole = station.cost(plan.layout(picture, 0)) / (1 - config.preview)
    else:
        picture, whole = [0] * len(frames), most
        least = station.cost(plan.layout([LEAST] * len(frames), 0))
        if least > most:
            raise _too_few(most, least, station)
    room = _room(plan, picture, whole, config.preview)
    if room >= LEAST:
        with contextlib.suppress(fit.FitError):  # too small for a single picture
            plan = dataclasses.replace(plan, small=preview.preview(video, room, **_told(progress)))
    if shown is None:
        shown = _filled(plan, most, config.effort, progress)
        plan = _protected(plan, shown, most, config.strands.redundancy_of("av1"))
    if progress:
        progress("av1", video.info.frames, video.info.frames)
    return plan.contents(shown)


def _room(plan, picture, whole, share):
    """Return the bytes of a preview that takes that share of the ``whole`` pool, beside a picture of these sizes."""
    bare = plan.cost(picture, 0)

    def within(size, share):
        return plan.cost(picture, size) - bare <= share * whole

    room = _greatest(lambda size: within(size, share), int(whole))
    return FLOOR if share and room < FLOOR and within(FLOOR, FACTOR * share) else room


def _filled(plan, most, effort, progress):
    """Return the best picture that a pool of at most ``most`` nucleotides or time units holds."""
    size = _greatest(lambda size: plan.cost(plan.shares(size), None) <= most, most)
    for _ in range(3):
        try:
            shown = fit.fit(plan.video, size, effort=effort, **_told(progress))
        except fit.FitError as error:
            raise HelixError(f"{most:,} {plan.station.unit} are too few: {error}") from error
        taken = plan.cost([len(unit.data) for unit in shown.units], None)
        if taken <= most:
            return shown
        # Each group is rounded up to whole packets and has repair packets of its own, which shares cannot foresee.
        size = int(size * min(0.98, most / taken)) - plan.width
    raise _too_few(most, plan.station.cost(plan.layout([len(unit.data) for unit in shown.units], None)), plan.station)


def _protected(plan, shown, most, redundancy):
    """Return the plan with what is left of the budget as repair packets of the groups.

    Groups have steps of about 2 % of their bytes. A redundancy of 0, or one that is computed, stays what it is.
    """
    if isinstance(redundancy, Survival) or not redundancy:
        return plan
    sizes = [len(unit.data) for unit in shown.units]

    def raised(thousandths):
        return dataclasses.replace(plan, redundancy=redundancy + thousandths / 1000 if thousandths else None)

    return raised(_greatest(lambda more: raised(more).cost(sizes, None) <= most, 1000))


def _told(progress: Progress | None) -> dict[str, Any]:
    """Return the callback of ``fit`` and ``preview`` as a keyword argument.

    They say how much is done, and go over a clip several times; the bar begins again then.
    """
    if progress is None:
        return {}
    last: collections.Counter = collections.Counter()

    def told(station: str, done: int, total: int) -> None:
        progress(station, done - last[station], total)
        last[station] = done

    return {"progress": told}


def _limit(info, config):
    """Return the nucleotides or time units that a pool may take, or None."""
    limits = [config.rate * info.frames * info.height * info.width, config.budget]
    return int(min(filter(None, limits))) if any(limits) else None


def _too_few(most, least, station):
    return HelixError(
        f"{most:,} {station.unit} are too few: AV1 takes {least:,} of this clip with its sound and preview; give more, "
        "or less redundancy, --no-sound, --preview 0, a smaller or a shorter picture"
    )


def _greatest(fits: Callable[[int], bool], high: int) -> int:
    """Return the greatest number of bytes up to ``high`` that fits, 0 where none does."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(frozen=True, eq=False)
class _Plan:
    """What a pool of a clip consists of.

    Attributes:
        video: The clip.
        beside: Contents beside the picture.
        about: Fields of the header.
        station: What will write the pool.
        frames: Number of frames of each string.
        small: The preview, or None.
        redundancy: That of the groups; None stands for that of the pool.
    """

    video: groups.Source
    beside: tuple[Content, ...]
    about: Mapping[str, Any]
    station: Station
    frames: tuple[int, ...]
    small: Any = None
    redundancy: float | None = None

    @property
    def width(self) -> int:
        """Bytes of a packet."""
        return self.layout([1] * len(self.frames), None).symbol_bytes

    def shares(self, size: int) -> list[int]:
        """Divide bytes among the strings, in proportion to their frames."""
        return [size * frames // sum(self.frames) for frames in self.frames]

    def sections(self, sizes: Sequence[int], room: int | None) -> list[tuple[Section, Any]]:
        """Return the sections with their redundancy; ``room`` is that of a preview yet to be made."""
        whole = (self.video.info.height, self.video.info.width)
        if room is None:
            small = [(content.section, content.redundancy) for content in self._preview()]
        else:
            small = [(Section.of("preview", room), PREVIEW)] if room else []
        sound = [(content.section, content.redundancy) for content in self.beside]
        strings = zip(sizes, self.frames, strict=True)
        return [
            *small,
            *sound,
            *((Section.of("av1", size, numbers(n, *whole)), self.redundancy) for size, n in strings),
        ]

    def layout(self, sizes: Sequence[int], room: int | None) -> PacketLayout:
        """Lay out strings of these sizes."""
        return contents.plan(self.station, self.sections(sizes, room), self.about, "av1")

    def cost(self, sizes: Sequence[int], room: int | None) -> float:
        """Return what the pool takes; more than anything where the writer cannot number its packets."""
        try:
            return self.station.cost(self.layout(sizes, room))
        except HelixError:
            return math.inf

    def contents(self, shown: Any) -> tuple[list[Content], PacketLayout]:
        """Return all contents and their layout."""
        strings = [
            Content("av1", unit.data, self.redundancy, numbers(unit.frames, *shown.size)) for unit in shown.units
        ]
        every = [*self._preview(), *self.beside, *strings]
        sections = [(content.section, content.redundancy) for content in every]
        return every, contents.plan(self.station, sections, self.about, "av1")

    def _preview(self):
        if self.small is None:
            return []
        return [Content("preview", self.small.data, PREVIEW)]


# ---- reading -------------------------------------------------------------------------------------------------


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
    small = next((part.data for part in parts if part.section.kind == "preview"), None)
    lost = [string.data is None for string in strings]
    if all(lost) and not small:
        raise DecodeError(
            f"every group of pictures has lost some of its packets, and so has the preview: {received.remedy}"
        )
    stretches = _seconds(strings, lost, info.fps)
    report = {"preview_seconds": stretches} if small else {"missing_seconds": stretches}
    whole = not any(lost) and all(string.size == (info.height, info.width) for string in strings)
    copied = tuple(string.data or b"" for string in strings) if whole else None
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
    if frames > part.section.size:  # no picture takes less than a byte, and a lost group is shown all the same
        raise DecodeError(f"the header says {frames:,} pictures in {part.section.size:,} bytes: forged?")
    return _String(frames, (height, width), part.data)


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
    """Yield the pictures as RGB, BLOCK frames at once."""
    size, waiting = (info.height, info.width), []
    for picture in _pictures(strings, small, info, signal, size):
        waiting.append(picture)
        if len(waiting) == BLOCK:
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
        return planes.rgb(next(av1.resize([frame], size)), signal)

    for string in strings:
        instead = itertools.islice(previewed, string.frames)
        if string.data is not None:
            collections.deque(instead, maxlen=0)
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
