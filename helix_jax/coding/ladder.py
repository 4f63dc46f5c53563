"""How much of a clip is written: a ladder of qualities, and the highest rung that a budget of nucleotides pays for.

A rung says how many of a token's digits are sent, of which the first ones carry the coarse picture, and how much damage
dropping may do for each bit that it saves (``coding.drop``). In mode raw, dropping saves nothing, so that rungs differ
in their digits alone. Where tokens are entropy-coded, the ladder follows the best pairs that were measured
(docs/prior.md): more damage first, then fewer digits. A dropped digit is decoded as a level, and a digit that is not
sent as the middle of the levels, which is nearer to the truth where the prior knows little.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from helix_jax.coding import segments
from helix_jax.coding.drop import drop
from helix_jax.config import TokenizerConfig
from helix_jax.prior.weights import Prior
from helix_jax.tokenizer import fsq

_Rung = TypeVar("_Rung")

BEST = 10  # the quality that writes every digit as it is
CODED = (  # eighths of a token's digits, and damages
    (8, (0, 250, 500, 750, 1_000, 1_500, 2_000, 3_000, 4_000, 5_000, 6_000, 8_000)),
    (7, (8_000,)),
    (6, (8_000,)),
    (5, (8_000, 10_000, 12_000, 16_000)),
    (4, (16_000,)),
    (3, (16_000, 24_000, 32_000, 48_000, 64_000)),
)


@dataclass(frozen=True)
class Rung:
    """One quality of the ladder.

    Attributes:
        digits: Number of digits of each token that are sent.
        damage: As for ``drop``.
    """

    digits: int
    damage: float | int


def ladder(digits: int, coded: bool) -> tuple[Rung, ...]:
    """List the rungs from the best to the cheapest.

    ``digits`` is the number of digits of a whole token, and ``coded`` says whether tokens are entropy-coded.
    """
    if coded:
        return tuple(
            Rung(max(1, round(digits * eighths / 8)), float(damage)) for eighths, damages in CODED for damage in damages
        )
    return tuple(Rung(count, 0.0) for count in range(digits, 0, -1))


def rung_of(rungs: Sequence[Rung], quality: int) -> Rung:
    """Find the rung of a quality; the qualities from BEST to 0 are spread evenly over the ladder."""
    return rungs[round((BEST - quality) * (len(rungs) - 1) / BEST)]


def tokens_at(
    rung: Rung,
    positions: Float32[np.ndarray, "t h w k"],
    prior: Prior | None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[UInt8[np.ndarray, "t h w _"], float]:
    """Choose the tokens of a rung.

    Args:
        rung: The rung.
        positions: Positions of all digits, as ``tiles.encode(positions=True)`` gives them.
        prior: The prior, which is needed only for rungs with damage.
        progress: Called as ``progress(station, done, total)``, where ``done`` is how many more are done.

    Returns:
        The tokens, and the share of them that are left to the prior.
    """
    positions = positions[..., : rung.digits]
    if not rung.damage:
        return np.asarray(fsq.digits(jnp.asarray(positions))), 0.0
    assert prior is not None
    plan = segments.plan(positions.shape[:3])
    step = None if progress is None else lambda done: progress("dropping", done, plan.number)
    tokens, dropped, _ = drop(prior, plan, positions, rung.damage, progress=step)
    return tokens, dropped


def best_within(
    rungs: Sequence[_Rung], attempt: Callable[[_Rung], tuple[Any, float]], budget: int
) -> tuple[Any, float | None]:
    """Find the best rung that a budget pays for.

    Costs are assumed to fall along the ladder, so that a few attempts are enough.

    Args:
        rungs: The rungs from the best to the cheapest.
        attempt: Tries a rung, and returns any result and its cost.
        budget: The highest acceptable cost.

    Returns:
        The result of the best rung and None, or None and the cost of the cheapest rung.
    """
    low, high = 0, len(rungs) - 1
    best, cost = attempt(rungs[high])
    if cost > budget:
        return None, cost
    while low < high:
        middle = (low + high) // 2
        result, cost = attempt(rungs[middle])
        if cost <= budget:
            high, best = middle, result
        else:
            low = middle + 1
    return best, None


def whole_tokens(levels: Shaped[np.ndarray, "*axes _"], config: TokenizerConfig) -> Shaped[np.ndarray, "*axes k"]:
    """Fill up tokens to all digits for the tokenizer's decoder.

    ``levels`` are digits as they were sent, or levels between them, and ``config`` is that of the tokenizer. The
    decoder was trained to see silence for a digit that was not sent; where digits are missing, the result is float32.
    """
    missing = config.digits - levels.shape[-1]
    if not missing:
        return levels
    pad = [(0, 0)] * (levels.ndim - 1) + [(0, missing)]
    return np.pad(levels.astype(np.float32), pad, constant_values=config.silence)
