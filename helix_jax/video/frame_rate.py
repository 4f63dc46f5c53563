"""Frame rates: which constant rate explains a clip's timestamps, what to resample to where none does, and how.

Containers round timestamps (Matroska and FLV to 1 ms, GIF to 10 ms) and announce rates that are rounded too, or wrong.
So the timestamps decide, and the announced rates only choose among the rates that explain the timestamps.

Timestamps are whole numbers of ticks; a tick is a Fraction of a second. Rates are Fractions, in frames per second.
"""

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np

from helix_jax.errors import HelixError

_WHOLE = (1, 2, 5, 10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240)
_NTSC = (15, 24, 30, 48, 60, 120, 240)  # times 1000/1001
STANDARD = tuple(sorted([Fraction(25, 2), *map(Fraction, _WHOLE), *(Fraction(1000 * rate, 1001) for rate in _NTSC)]))
JITTER = 0.02  # of a frame: timestamps may wander this far beyond the rounding to their tick
HIGHEST = 1000
# Relative: an announced rate this near to a standard one means it; 30 and 30000/1001 differ five times as much.
_SAME = 2e-4


def constant(timestamps: Sequence[int], tick: Fraction, announced: Iterable[Fraction | int | None]) -> Fraction | None:
    """Return the one rate of a clip, or None where its frames do not come at a constant rate.

    Standard rates are tried first, but a rate that explains every timestamp without any rounding, or a whole one, stays
    what it is.

    Args:
        timestamps: Two or more timestamps.
        tick: The length of a tick.
        announced: Rates that the container states, the most trusted first.

    Returns:
        The rate, or None.
    """
    pts, tick = _on_a_grid(timestamps, tick)
    slope = _slope(pts)
    if slope <= 0:
        return None
    measured = 1 / (slope * float(tick))
    stated = [Fraction(rate) for rate in announced if rate and rate > 0]
    exact = [rate for rate in stated if (1 / (rate * tick)).denominator == 1]
    meant = [standard for rate in stated if (standard := _meant(rate)) in STANDARD]
    whole = [rate for rate in stated if rate.denominator == 1]
    near = sorted((rate for rate in STANDARD if abs(rate / measured - 1) < 0.5), key=lambda rate: abs(rate - measured))
    simple = [Fraction(round(measured * parts), parts) for parts in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 1001)]
    slow = [Fraction(1, max(1, round(1 / measured)))]
    ends = [Fraction(len(pts) - 1) / (Fraction(int(pts[-1])) * tick)] if pts[-1] >= 1 else []
    candidates = [rate for rate in (*exact, *meant, *whole, *near, *stated, *slow, *simple, *ends) if rate > 0]
    for slack in (0.0, JITTER):
        for rate in candidates:
            if _explains(pts, tick, rate, slack):
                return rate
    return None


def of_one(announced: Iterable[Fraction | None], tick: Fraction, length: int) -> Fraction:
    """Return the rate of a clip of one frame.

    It is the first plausible one of the announced rates, else it follows from the frame's length, else it is 25.

    Args:
        announced: Rates that the container states.
        tick: The length of a tick.
        length: The length of the frame in ticks, 0 where it is not known.

    Returns:
        The rate.
    """
    lengths = [1 / (length * tick)] if length > 0 else []
    for rate in (*announced, *lengths):
        if rate and 0 < rate <= max(STANDARD):
            return rate if (1 / (rate * tick)).denominator == 1 else _meant(rate)
    return Fraction(25)


def nearest(timestamps: Sequence[int], tick: Fraction, announced: Iterable[Fraction | None] = ()) -> Fraction:
    """Return the rate to resample a clip of variable rate to: the standard one nearest to what its frames keep to.

    The shorter median gap between frames counts as one frame, and a longer gap as the frames that it has room for. So
    pauses and dropped frames do not lower the rate, as they would lower a mean, and jitter evens out, which it does not
    in the most frequent gap. Where jitter leaves the rate open, say between 30 and 30000/1001, an announced one is
    taken, else the whole one.

    Args:
        timestamps: The timestamps.
        tick: The length of a tick.
        announced: Rates that the container states.

    Returns:
        The rate.
    """
    gaps = np.diff(np.maximum.accumulate(np.array(timestamps, np.float64))) * float(tick)
    gaps = gaps[gaps > 0]
    if not len(gaps):
        return Fraction(25)
    step = np.sort(gaps)[(len(gaps) - 1) // 2]
    for longest in (3, 30, np.inf):  # the frames in a pause can be counted once the length of a frame is known well
        close = gaps <= longest * step
        # 0.6 and not 0.5: telecined film has gaps of 1 and 1.5 frames.
        slots = np.maximum(1, np.ceil(gaps / step - 0.6))
        step = gaps[close].sum() / slots[close].sum()
    step, error = _fitted(slots, gaps)
    rate = 1 / step
    if rate < 1:
        return Fraction(1, round(step))
    possible = [standard for standard in STANDARD if abs(standard / rate - 1) < 3 * error]
    stated = [meant for other in announced if other and other > 0 and (meant := _meant(other)) in possible]
    whole = [standard for standard in possible if standard.denominator == 1]
    if stated or whole:
        return stated[0] if stated else min(whole, key=lambda standard: abs(standard - rate))
    if rate >= 1.5 and abs(round(rate) / rate - 1) < 2e-3 and abs(_nearest(rate) / rate - 1) > 0.02:
        return Fraction(min(round(rate), HIGHEST))  # 19 is 19, and no jittered 20
    return _nearest(rate)


def shown(timestamps: Sequence[int], tick: Fraction, last: int, rate: Fraction) -> list[int]:
    """Return how often each frame is shown at a constant rate; the sum of the counts is the new number of frames.

    Each frame goes to the nearest new one in time, and each new frame shows the latest frame up to then: missing frames
    become repeats, and surplus ones are left out (as FFmpeg's filter fps does).

    Args:
        timestamps: The timestamps.
        tick: The length of a tick.
        last: The duration of the last frame in ticks; where it is 0 (unknown), the duration of the one before counts.
        rate: The constant rate.

    Returns:
        One count for each frame.
    """
    if last <= 0:
        last = next((b - a for a, b in reversed(list(itertools.pairwise(timestamps))) if b > a), 0)
    begin = timestamps[0]
    scale = tick * rate

    def slot(time):
        return math.floor((time - begin) * scale + Fraction(1, 2))

    slots, highest = [], 0
    for time in timestamps:
        highest = max(highest, slot(time))
        slots.append(highest)
    slots.append(max(slot(timestamps[-1] + last), 1, highest))
    return [after - before for before, after in itertools.pairwise(slots)]


def parse(text: str) -> Fraction:
    """Parse a rate: "30", "30000/1001" or "29.97" (which means 30000/1001). Raises HelixError for other text."""
    text = text.strip()
    rate = Fraction(text) if re.fullmatch(r"\d+(\.\d+)?|\d+/0*[1-9]\d*", text, re.ASCII) else Fraction(0)
    if not 0 < rate <= HIGHEST or max(rate.numerator, rate.denominator) >= 1 << 32:
        raise HelixError(
            f"frame rate {text!r}: give frames per second up to {HIGHEST}, for example 30, 29.97 or 30000/1001"
        )
    digits = len(text.partition(".")[2])
    if rate in STANDARD or digits < 2:
        return rate
    return next((meant for meant in STANDARD if round(meant, digits) == rate), rate)


def _nearest(rate):
    return min(STANDARD, key=lambda standard: abs(math.log(standard / rate)))


def _meant(rate):
    """Return the standard rate that an announced one is a rounded form of, else the rate itself."""
    standard = _nearest(rate)
    return standard if abs(rate / standard - 1) < _SAME else Fraction(rate)


def _fitted(slots, gaps):
    """Return the length of a frame by least squares, and its relative standard error.

    Each gap is ``slots`` frames long.
    """
    position, time = (np.concatenate([[0.0], np.cumsum(part)]) for part in (slots, gaps))
    position, time = position - position.mean(), time - time.mean()
    step = position @ time / (position @ position)
    return float(step), np.sqrt(np.mean((time - step * position) ** 2) / (position @ position)) / step


def _on_a_grid(timestamps, tick):
    """Return the timestamps from the first, float64, and their tick.

    The timestamps are in ticks, or in ms where they are whole ms that were put into finer ticks.
    """
    pts = [time - timestamps[0] for time in timestamps]
    per_tick = 1000 * tick
    if per_tick < 1 and all(time * per_tick.numerator % per_tick.denominator == 0 for time in pts):
        return np.array([float(time * per_tick) for time in pts]), Fraction(1, 1000)
    return np.array(pts, np.float64), tick


def _slope(pts):
    """Return the ticks per frame, by least squares."""
    number = np.arange(len(pts)) - (len(pts) - 1) / 2
    return float(number @ (pts - pts.mean()) / (number @ number))


def _explains(pts, tick, rate, slack):
    """Return whether frames at a constant rate have these timestamps, up to rounding and ``slack`` of a frame."""
    step = 1 / (rate * tick)  # ticks per frame
    spread = np.ptp(pts - float(step) * np.arange(len(pts)))
    # Rounding to ticks, up or down, keeps the spread below one tick; there is no spread where a frame is whole ticks.
    return spread < max(1e-3 if step.denominator == 1 else 1.001, slack * step)
