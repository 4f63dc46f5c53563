"""The best picture of a clip within a number of bytes: which size is coded, with which CRF.

The size is chosen on a sample of the groups and by a quick preset: each size is coded to the same number of bytes,
scaled up again and compared with the clip in RGB, from the full size downwards as long as it gets better. Then the
whole clip is coded, until the bytes are filled to ``FILLED``; groups are given a finer CRF one by one where one CRF
for all cannot fill them.

The search knows that the logarithm of the bytes falls about linearly with the CRF, and by how much it did so far.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from helix_jax.errors import HelixError
from helix_jax.stream import av1, coded
from helix_jax.stream.av1 import COARSEST, STEP
from helix_jax.stream.coded import Group, Progress, Way
from helix_jax.stream.groups import MOST, Source, lengths, merged

Result = TypeVar("Result")

FILLED = 0.98  # share of the allowed bytes at which a clip is coded well enough
SCALES = (1, 3 / 4, 1 / 2, 3 / 8, 1 / 4, 1 / 8)
_SMALLER_WINS = 45  # CRF at full size from which on a smaller size may show more for the same bytes
_HALVING = 8.0  # increase of the CRF that halves the bytes, about
_MANY = 10  # groups whose CRFs may differ by 1, and not only by a quarter
_PATIENCE = 5  # attempts after which the bracket is halved instead
_THOROUGH = 2  # effort from which on a size is compared with the next larger one by the preset that is kept
_SAMPLE = 250  # frames on which the size is chosen, about


@dataclass(frozen=True)
class Effort:
    """What is done for a picture.

    Attributes:
        preset: SVT-AV1's preset of what is kept.
        trial: The preset with which sizes are compared.
        scales: The sizes that are compared, as shares of the sides, in the order in which they are tried.
        every: How many frames there are for one that is compared.
    """

    preset: int
    trial: int
    scales: tuple[float, ...]
    every: int


EFFORTS = (
    Effort(8, 10, (1, 1 / 2, 1 / 4, 1 / 8), 8),
    Effort(6, 10, SCALES, 4),
    Effort(4, 8, SCALES, 4),
    Effort(1, 6, SCALES, 1),
)


class FitError(HelixError):
    """A clip that does not go into the bytes; the message says how many it needs.

    Attributes:
        reason: The message without the remedy.
    """

    def __init__(self, reason: str, remedy: str):
        super().__init__(f"{reason}: {remedy}")
        self.reason = reason


@dataclass(frozen=True)
class Unit:
    """One or several groups, which are kept and lost together.

    Attributes:
        data: Their bytes, one after the other.
        frames: Number of their frames.
        crfs: CRF of each group.
        psnr: PSNR of the frames in dB, in RGB as they are shown.
    """

    data: bytes
    frames: int
    crfs: tuple[float, ...]
    psnr: float


@dataclass(frozen=True)
class Fitted:
    """A clip as it was coded.

    Attributes:
        units: The byte strings, in the order of the frames.
        size: Height and width that are coded.
        preset: SVT-AV1's preset.
        crf: Mean CRF of the frames.
        psnr: PSNR of the clip in dB, in RGB as it is shown, over all frames.
    """

    units: tuple[Unit, ...]
    size: tuple[int, int]
    preset: int
    crf: float
    psnr: float

    @property
    def bytes(self) -> int:
        """The bytes of all units together."""
        return sum(len(unit.data) for unit in self.units)


def fit(
    clip: Source,
    most_bytes: int,
    *,
    effort: int = 1,
    most_units: int = MOST,
    scales: Sequence[float] | None = None,
    cuts: Sequence[int] | None = None,
    progress: Progress = coded.nothing,
) -> Fitted:
    """Return the clip coded to at most ``most_bytes``, less by at most 2 % or one step of the CRF of each group.

    Args:
        clip: The clip.
        most_bytes: Greatest number of bytes of all units together.
        effort: From 0 (quick) to 3 (thorough), a place in ``EFFORTS``.
        most_units: Greatest number of units.
        scales: The sizes to choose from as shares of the sides, by default those of the effort.
        cuts: Number of frames of each group, where ``groups.lengths`` has been over the clip already.
        progress: Called with the name of a station ("cuts", "size", "encode", "compare"), how much of it is done, and
            how much there is. Stations come again.

    Raises:
        FitError: If even the smallest size takes more bytes with the coarsest CRF.
    """
    if most_bytes < 1:
        raise FitError(f"{most_bytes} bytes hold no picture", "give more")
    frames = _cut(clip, cuts, progress)
    plan = EFFORTS[effort]
    scales = tuple(scales or plan.scales)
    scale, crf = _best_scale(clip, frames, most_bytes, plan, scales, progress)
    number = scales.index(scale)
    if number and effort >= _THOROUGH:  # the quick preset of the trial is in favour of small sizes
        with contextlib.suppress(FitError):
            way = Way(_scaled(clip, scales[number - 1]), plan.preset)
            larger = _filled(clip, frames, most_bytes, way, crf + 4, most_units, progress)
            try:
                own = Way(_scaled(clip, scale), plan.preset)
                chosen = _filled(clip, frames, most_bytes, own, crf, most_units, progress)
            except FitError:
                return larger
            return max(larger, chosen, key=lambda one: one.psnr)
    *larger, smallest = scales[scales.index(scale) :]
    for scale in larger:
        try:
            return _filled(clip, frames, most_bytes, Way(_scaled(clip, scale), plan.preset), crf, most_units, progress)
        except FitError:  # the sample was smaller than the rest of the clip
            crf = COARSEST - _HALVING
    return _filled(clip, frames, most_bytes, Way(_scaled(clip, smallest), plan.preset), crf, most_units, progress)


def at_quality(
    clip: Source,
    quality: float,
    *,
    effort: int = 1,
    most_units: int = MOST,
    cuts: Sequence[int] | None = None,
    progress: Progress = coded.nothing,
) -> Fitted:
    """Return the clip at a quality from 0 to 10, which is CRF 63 - 3.5 ``quality`` at full size.

    A smaller size is coded to the same number of bytes instead, where it shows more. The other arguments are those of
    ``fit``.
    """
    crf = crf_of(quality)
    frames = _cut(clip, cuts, progress)
    plan = EFFORTS[effort]
    whole = Way(_scaled(clip, 1), plan.preset)
    groups = _all_at(clip, frames, crf, whole, progress)
    if crf >= _SMALLER_WINS:
        scale, start = _best_scale(clip, frames, _sum(groups), plan, plan.scales, progress)
        if scale != 1:
            way = Way(_scaled(clip, scale), plan.preset)
            return _filled(clip, frames, _sum(groups), way, start, most_units, progress)
    return _finished(clip, frames, groups, whole, most_units, progress)


def crf_of(quality: float) -> float:
    """Return the CRF of a quality from 0 to 10, in steps of a quarter."""
    return _quarter(63 - 3.5 * quality)


def _cut(clip, cuts, progress):
    """Return the number of frames of each group."""
    if cuts is not None:
        return tuple(cuts)
    progress("cuts", 0, 1)
    frames = lengths(clip)
    progress("cuts", 1, 1)
    return frames


# ---- the size ------------------------------------------------------------------------------------------------


def _best_scale(clip, frames, most_bytes, plan, scales, progress) -> tuple[float, float]:
    """Return the scale that shows most in that many bytes, and a CRF for it."""
    chosen = sample(frames)
    share = most_bytes * sum(itertools.compress(frames, chosen)) / sum(frames)
    best, crf = None, _guess(clip, most_bytes / sum(frames), scales[0])

    def search_sample(scale, preset, crf):
        way = Way(_scaled(clip, scale), preset)

        def attempt(crf):
            return coded.encode_groups(clip, frames, [crf if wanted else None for wanted in chosen], way)

        return way, *search(attempt, _sum, share, crf, filled=0.95, step=1.0)

    for number, scale in enumerate(scales if len(scales) > 1 else ()):
        progress("size", number, len(scales))
        way, crf, groups = search_sample(scale, plan.trial, crf)
        if groups is not None:
            psnr = coded.psnr(coded.errors(clip, frames, groups, way, plan.every), frames)
            if best is not None and psnr < best[0]:
                break
            best = psnr, scale, crf
            crf -= 4  # a smaller picture has finer steps for the same bytes
    _, scale, crf = best or (0, scales[-1], crf if len(scales) == 1 else COARSEST)
    if 2 * sum(itertools.compress(frames, chosen)) < sum(frames):
        crf = search_sample(scale, plan.preset, crf)[1]
    progress("size", len(scales), len(scales))
    return scale, crf


def _guess(clip, bytes_per_frame, scale):
    """Return the CRF at which pictures of that size often have that many bytes."""
    height, width = _scaled(clip, scale)
    bits = 8 * bytes_per_frame / (height * width)
    return min(max(50 - _HALVING * math.log2(max(bits, 1e-9) / 0.04), 10.0), 66.0)


def sample(frames: Sequence[int]) -> list[bool]:
    """Return for each group whether it is one of the sample, which has ``_SAMPLE`` frames or a few more."""
    count = math.ceil(len(frames) * min(1, _SAMPLE / sum(frames)))
    places = {(2 * number + 1) * len(frames) // (2 * count) for number in range(count)}
    return [number in places for number in range(len(frames))]


def _scaled(clip, scale):
    return av1.scaled((clip.info.height, clip.info.width), scale)


# ---- the CRF -------------------------------------------------------------------------------------------------


def search(
    attempt: Callable[[float], Result],
    bytes_of: Callable[[Result], int],
    most: float,
    crf: float,
    filled: float = FILLED,
    step: float = STEP,
) -> tuple[float, Result | None]:
    """Look for the CRF whose result has at most ``most`` bytes, and ``filled`` of them at least.

    Args:
        attempt: Codes with a CRF.
        bytes_of: The bytes of a result.
        most: Greatest number of bytes.
        crf: The CRF to begin with.
        filled: Share of the bytes that is enough.
        step: Least difference of two CRFs.

    Returns:
        The CRF and its result, the largest that fits; COARSEST and None if none does.
    """
    tried: dict[float, int] = {}
    best = None
    crf = min(max(_quarter(crf), 0.0), COARSEST)
    while True:
        result = attempt(crf)
        tried[crf] = bytes_of(result)
        if tried[crf] <= most and (best is None or tried[crf] >= tried[best[0]]):
            best = crf, result
        if best is not None and tried[best[0]] >= filled * most:
            return best
        following = _next(tried, most, (1 + filled) / 2 * most, step)
        if following is None:
            return best or (COARSEST, None)
        crf = following


def _next(tried, most, aim, step):
    """Return the CRF to try next, None if there is none between the one that fits and the one that does not."""
    fits = min((crf for crf, size in tried.items() if size <= most), default=None)
    above = max((crf for crf, size in tried.items() if size > most and (fits is None or crf < fits)), default=None)
    low, high = -step if above is None else above, COARSEST + step if fits is None else fits
    if high - low <= step:
        return None
    if len(tried) > _PATIENCE:
        middle = min(max(_quarter((low + high) / 2), 0.0), COARSEST)
        return None if middle in tried else middle
    near = sorted(tried, key=lambda crf: abs(math.log2(max(1, tried[crf]) / aim)))
    slope = -1 / _HALVING
    if len(near) > 1:
        steps = near[1] - near[0]
        measured = math.log2(max(1, tried[near[1]]) / max(1, tried[near[0]])) / steps
        slope = min(max(measured, -1.0), -1 / 30)
    crf = near[0] + math.log2(aim / max(1, tried[near[0]])) / slope
    # within the bracket, and never at its ends
    crf = max(_quarter(crf), low + step if above is not None else 0.0)
    crf = min(max(min(crf, high - step if fits is not None else COARSEST), 0.0), COARSEST)
    return None if crf in tried else crf


def _quarter(crf):
    return round(crf / STEP) * STEP


def _sum(groups: Sequence[Group | None]) -> int:
    return sum(len(group.data) for group in groups if group)


# ---- the whole clip ------------------------------------------------------------------------------------------


def _all_at(clip, frames, crf, way, progress):
    return coded.encode_groups(clip, frames, [crf] * len(frames), way, progress)


def _filled(clip, frames, most_bytes, way, crf, most_units, progress):
    """Return the clip coded in that way to the number of bytes. Raises FitError."""
    kept: dict[float, list[Group | None]] = {}

    def attempt(crf):
        kept[crf] = _all_at(clip, frames, crf, way, progress)
        return kept[crf]

    # many groups fill the bytes by a finer CRF for some of them
    step = STEP if len(frames) < _MANY else 1.0
    crf, groups = search(attempt, _sum, most_bytes, crf, step=step)
    if groups is None:
        least = min(map(_sum, kept.values()))
        raise FitError(
            f"the clip takes {least:,} bytes as AV1 of {way.size[1]}x{way.size[0]} at the coarsest setting, and there "
            f"are {most_bytes:,}",
            "give more bytes, or a shorter clip",
        )
    finer = max((other for other in kept if other < crf), default=None)
    if finer is not None and _sum(groups) < FILLED * most_bytes:
        groups = _mixed(groups, kept[finer], most_bytes)
    return _finished(clip, frames, groups, way, most_units, progress)


def _mixed(groups, finer, most_bytes):
    """Return the groups, some of them in the finer version, as many as there are bytes for."""
    chosen, left = list(groups), most_bytes - _sum(groups)
    for number in sorted(range(len(groups)), key=lambda number: len(finer[number].data) - len(groups[number].data)):
        more = len(finer[number].data) - len(groups[number].data)
        if more <= left:
            chosen[number], left = finer[number], left - more
    return chosen


def _finished(clip, frames, groups, way, most_units, progress):
    progress("compare", 0, 1)
    errors = coded.errors(clip, frames, groups, way)
    progress("compare", 1, 1)
    units, begin = [], 0
    for part in merged(frames, most_units):
        end = begin + len(part)
        units.append(
            Unit(
                b"".join(group.data for group in groups[begin:end]),
                sum(part),
                tuple(group.crf for group in groups[begin:end]),
                coded.psnr(errors[begin:end], part),
            )
        )
        begin = end
    crf = sum(group.crf * group.frames for group in groups) / sum(frames)
    return Fitted(tuple(units), way.size, way.preset, crf, coded.psnr(errors, frames))
