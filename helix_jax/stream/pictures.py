"""A clip <-> the AV1 sections of a pool: groups of pictures, and a preview that outlives greater losses.

Each group stands alone in blocks of its own of the outer code, so that it comes back whole or not at all. Where it does
not, the preview is shown in its place, scaled up, as it has repair strands for far greater losses. So a pool has a
step, not a cliff, and says which seconds are preview.
"""

import collections
import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helix_jax import contents
from helix_jax.config import CodecConfig, StrandConfig, Survival
from helix_jax.contents import Content
from helix_jax.errors import BudgetError, HelixError
from helix_jax.strands.layouts import PacketLayout
from helix_jax.strands.sections import HeaderError, Section, numbers
from helix_jax.stream import fit, groups, preview
from helix_jax.video import Sound, VideoInfo
from helix_jax.video.signal import Signal
from helix_jax.writer import Progress, Station

NEARLY = 0.9  # share of a budget below which the picture has not used it
MOST_MORE = 60  # thousandths of the source packets that are added to a redundancy
LEAST = 40  # bytes of a group or a preview below which there is no picture
SAFER = 0.25  # how much more redundancy the sound has than the picture
# The preview outlives the loss of half of all strands, but for one pool in a hundred. Where its share of nucleotides
# is too small for FLOOR bytes, it gets up to three times the share: docs/experiments.md has the measurement.
FLOOR, FACTOR = 192, 3
_REMEDIES = ("less redundancy", "--preview 0", "a smaller picture", "a shorter clip")
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


def sound(heard: Sound | None, config: CodecConfig) -> tuple[Content, ...]:
    """Return a clip's sound as a content, which is better protected than the picture; () without sound."""
    return (Content("sound", heard.to_bytes(), safer(config.strands)),) if heard else ()


def check_sound(
    info: VideoInfo, heard: Sequence[Content], about: Mapping[str, Any], config: CodecConfig, station: Station
) -> int:
    """Return what the sound takes of a pool, in nucleotides or time units; 0 where the pool may take anything.

    Args:
        info: The facts about the clip.
        heard: The sound (``sound``).
        about: As for ``encode``.
        config: The configuration.
        station: What will write the pool.

    Raises:
        BudgetError: Header and sound alone take more than the pool may.
    """
    most = limit(info, config)
    if most is None:
        return 0
    picture, own = (Section.of("av1", 0), None), [(content.section, content.redundancy) for content in heard]
    empty, whole = (station.cost(contents.plan(station, [picture, *more], about, "av1")) for more in ([], own))
    if whole > most:
        error = BudgetError(f"{most:,} {station.unit}", (f"header and sound take {whole:,}",), ("less redundancy",))
        raise error.with_sound(f"{whole - empty:,}", config.sound)
    return whole - empty


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
        BudgetError: The rate or budget does not pay for the lowest quality.
    """
    plan = planned(video, beside, about, config, station)
    frames, units = plan.frames, len(plan.frames)
    most, shown = limit(video.info, config), None
    if most is None:
        shown = fit.at_quality(
            video, config.quality, effort=config.effort, most_units=units, cuts=plan.cuts, **_told(progress)
        )
        picture = [len(unit.data) for unit in shown.units]
        whole = station.cost(plan.layout(picture, 0)) / (1 - config.preview)
    else:
        picture, whole = [0] * len(frames), most
        least = station.cost(plan.layout([LEAST] * len(frames), 0))
        if least > most:
            raise _too_few(most, least, station)
    plan = _with_preview(plan, _room(plan, picture, whole, config.preview, most), progress)
    if shown is None:
        assert most is not None
        shown = _filled(plan, most, config.effort, progress)
        taken = [len(unit.data) for unit in shown.units]
        used = plan.cost(taken, None)
        if plan.small and used < NEARLY * most:  # the picture cannot get better, and a large preview is of no use
            plan = _with_preview(plan, _room(plan, taken, used, config.preview, most), progress)
        plan = _protected(plan, shown, most, config.strands.redundancy_of("av1"))
    if progress:
        progress("av1", video.info.frames, video.info.frames)
    return plan.contents(shown)


def bare(
    video: groups.Source, beside: Sequence[Content], about: Mapping[str, Any], config: CodecConfig, station: Station
) -> int:
    """Return what a pool takes with empty groups and no preview. The arguments are those of ``encode``."""
    plan = planned(video, beside, about, config, station)
    return station.cost(plan.layout([0] * len(plan.frames), 0))


def planned(
    video: groups.Source, beside: Sequence[Content], about: Mapping[str, Any], config: CodecConfig, station: Station
) -> "Plan":
    """Return the plan of a pool, with as many groups as its header has room to describe.

    The arguments are those of ``encode``. Raises HeaderError where there is not even room for one group.
    """
    lengths, most = groups.lengths(video), groups.MOST
    protected = _preview_redundancy(config.strands.redundancy_of("av1"))
    while True:
        frames = tuple(map(sum, groups.merged(lengths, most)))
        plan = Plan(video, tuple(beside), about, station, frames, protected, lengths)
        try:
            station.cost(plan.layout([1 << 20] * len(frames), 1 << 20))
        except HeaderError:
            if len(frames) == 1:
                raise
            most = len(frames) * 3 // 4
        except HelixError:  # of so much content, not of its description
            return plan
        else:
            return plan


def foreseen(plan: "Plan", size: int, share: float | int) -> PacketLayout:
    """Return the layout of a pool whose picture takes about ``size`` bytes, with a preview that fills its share."""
    picture = plan.shares(size)
    whole = plan.cost(picture, 0) / (1 - share)
    return plan.layout(picture, _room(plan, picture, whole, share, None) if math.isfinite(whole) else 0)


def _preview_redundancy(redundancy):
    """Return what the preview must outlive: half of all strands, and more than the groups do."""
    share = redundancy.loss if isinstance(redundancy, Survival) else redundancy / (1 + redundancy)
    return dataclasses.replace(PREVIEW, loss=min(0.9, max(PREVIEW.loss, share + 0.1)))


def _with_preview(plan, room, progress):
    """Return the plan with a preview of at most ``room`` bytes, or without where that is too little."""
    small = None
    if room >= LEAST:
        with contextlib.suppress(fit.FitError):  # too small for a single picture
            small = preview.preview(plan.video, room, **_told(progress))
    return dataclasses.replace(plan, small=small)


def _room(plan, picture, whole, share, most):
    """Return the bytes of a preview that takes that share of the ``whole`` pool, beside a picture of these sizes.

    The least picture that there is must go into a pool of ``most`` with it, if that is a number.
    """
    alone, least = plan.cost(picture, 0), [LEAST] * len(plan.frames)

    def within(size, share):
        fits = most is None or plan.cost(least, size) <= most
        return fits and plan.cost(picture, size) - alone <= share * whole

    room = _greatest(lambda size: within(size, share), int(whole))
    return FLOOR if share and room < FLOOR and within(FLOOR, FACTOR * share) else room


def _filled(plan, most, effort, progress):
    """Return the best picture that a pool of at most ``most`` nucleotides or time units holds."""
    size = _greatest(lambda size: plan.cost(plan.shares(size), None) <= most, most)
    # Each group is rounded up to whole packets and has repair packets of its own, which shares cannot foresee.
    size -= plan.width * (len(plan.frames) - 1)
    for _ in range(3):
        try:
            shown = fit.fit(
                plan.video, size, effort=effort, most_units=len(plan.frames), cuts=plan.cuts, **_told(progress)
            )
        except fit.FitError as error:
            raise BudgetError(f"{most:,} {plan.station.unit}", (error.reason,), _REMEDIES) from error
        taken = plan.cost([len(unit.data) for unit in shown.units], None)
        if taken <= most:
            return shown
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

    return raised(_greatest(lambda more: raised(more).cost(sizes, None) <= most, MOST_MORE))


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


def limit(info: VideoInfo, config: CodecConfig) -> int | None:
    """Return the nucleotides or time units that a pool of a clip may take, or None."""
    limits = [config.rate * info.frames * info.height * info.width, config.budget]
    return int(min(filter(None, limits))) if any(limits) else None


def _too_few(most, least, station):
    return BudgetError(f"{most:,} {station.unit}", (f"AV1 takes {least:,} at least",), _REMEDIES)


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
class Plan:
    """What a pool of a clip consists of.

    Attributes:
        video: The clip.
        beside: Contents beside the picture.
        about: Fields of the header.
        station: What will write the pool.
        frames: Number of frames of each string.
        protected: The redundancy of the preview.
        cuts: Number of frames of each group; a string has one or several.
        small: The preview, or None.
        redundancy: That of the groups; None stands for that of the pool.
    """

    video: groups.Source
    beside: tuple[Content, ...]
    about: Mapping[str, Any]
    station: Station
    frames: tuple[int, ...]
    protected: Survival
    cuts: tuple[int, ...]
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
            small = [(Section.of("preview", room), self.protected)] if room else []
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
        return [Content("preview", self.small.data, self.protected)]
