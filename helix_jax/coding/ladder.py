"""How much of a clip is written: a ladder of qualities, and the highest rung that a budget of nucleotides pays for.

A rung says how many of a token's digits are sent, the first ones carrying the coarse picture, and how much damage
dropping may do for each bit that it saves (``coding.drop``). In mode raw nothing is saved by dropping, so digits are
all that there is. Where tokens are entropy-coded, the ladder follows the best pairs that were measured (docs/prior.md):
dropping first, then fewer digits, since a digit that is dropped comes back as a level, and one that is not sent as the
middle, which is nearer to the truth where the prior knows little."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from helix_jax.coding import segments
from helix_jax.coding.drop import drop
from helix_jax.tokenizer import fsq

BEST = 10  # quality that writes every digit as it is
CODED = (  # eighths of a token's digits, damages
    (8, (0, 250, 500, 750, 1_000, 1_500, 2_000, 3_000, 4_000, 5_000, 6_000, 8_000)),
    (7, (8_000,)),
    (6, (8_000,)),
    (5, (8_000, 10_000, 12_000, 16_000)),
    (4, (16_000,)),
    (3, (16_000, 24_000, 32_000, 48_000, 64_000)),
)


@dataclass(frozen=True)
class Rung:
    """digits: of each token that are sent. damage: as for ``drop``."""

    digits: int
    damage: float


def ladder(digits, coded):
    """Rungs from the best to the cheapest. digits: of a whole token. coded: whether tokens are entropy-coded."""
    if coded:
        return tuple(
            Rung(max(1, round(digits * eighths / 8)), float(damage)) for eighths, damages in CODED for damage in damages
        )
    return tuple(Rung(count, 0.0) for count in range(digits, 0, -1))


def rung_of(rungs, quality):
    """Quality from BEST to 0, evenly over the ladder."""
    return rungs[round((BEST - quality) * (len(rungs) - 1) / BEST)]


def tokens_at(rung, positions, prior, *, progress=None):
    """Positions float32[t, h, w, k] -> (tokens uint8[t, h, w, rung.digits], share of them that are left to the prior).
    prior: only for rungs with damage. progress: called as progress(station, done, total)."""
    positions = positions[..., : rung.digits]
    if not rung.damage:
        return np.asarray(fsq.digits(jnp.asarray(positions))), 0.0
    plan = segments.plan(positions.shape[:3])
    step = progress and (lambda done: progress("dropping", done, plan.number))
    tokens, dropped, _ = drop(prior, plan, positions, rung.damage, progress=step)
    return tokens, dropped


def best_within(rungs, attempt, budget):
    """The best rung that the budget pays for: (its attempt, None), or (None, what the cheapest costs).

    attempt(rung) -> (anything, its cost). Costs are taken to fall along the ladder, so that a few attempts find it.
    """
    low, high = 0, len(rungs) - 1
    found, cost = attempt(rungs[high])
    if cost > budget:
        return None, cost
    while low < high:
        middle = (low + high) // 2
        result, cost = attempt(rungs[middle])
        if cost <= budget:
            high, found = middle, result
        else:
            low = middle + 1
    return found, None


def whole_tokens(levels, digits):
    """Digits as they were sent, or levels -> float32[..., digits] for the tokenizer's decoder, which was trained to
    take the middle for a digit that is not there."""
    missing = digits - levels.shape[-1]
    if not missing:
        return levels
    pad = [(0, 0)] * (levels.ndim - 1) + [(0, missing)]
    return np.pad(levels.astype(np.float32), pad, constant_values=(fsq.LEVELS - 1) / 2)
