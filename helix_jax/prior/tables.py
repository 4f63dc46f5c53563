"""Numbers that the coder and the decoder of tokens must share: stretch, squash, adaptation, and starts of segments.

All are integers that are computed exactly (by ``decimal``, not by the machine's exp), so that every machine has the
same. NumPy only: ``reference.token_coder`` uses them too.
"""

import functools
from decimal import Decimal, localcontext
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

UNIT = 256  # log-odds are in units of 1 / UNIT
REACH = 3071  # largest log-odds, e^-12
LIMIT = 250  # largest count
RECIPROCAL_BITS = 14
RATE_BITS = 14  # the mixer's weights move by s * error / 2^RATE_BITS
BIAS = 256  # the mixer's constant input
WEIGHT_BITS = 16
WEIGHT_LIMIT = 2**19 - 1
NODES = 3
EVEN = 32768 * 256  # a cell before anything was seen: p * 256 + n
NONE = 4  # in place of an unknown digit
DOUBTS = 12  # number of steps of how doubtful the net's choice of a digit is
SIZES = (125, 625, 625, 5 * 4 * 4 * 4 * 2, 625, 625, 4 * 3 * DOUBTS)  # values of each context of ``coding.context``
EXPERTS = {"context": 6, "prior": 7}  # number of experts of a mode
SETS = {"context": 1, "prior": 4}  # sets of mixing weights: in mode `prior`, one for each three steps of doubt


class Start(NamedTuple):
    """Where every segment starts.

    Attributes:
        cells: p * 256 + n of each node, in rows by expert, digit and context.
        weights: Weights for each digit, set and node: one for each expert, one for a constant and, in mode `prior`, one
            for the net's logit.
    """

    cells: Int32[np.ndarray, "rows 3"]
    weights: Int32[np.ndarray, "sets inputs"]

    def first(self, digits: int, of: int) -> "Start":
        """Return the start for tokens of which only the first ``digits`` of ``of`` digits are sent."""
        ends = np.cumsum((0, *SIZES)) * of
        parts = [self.cells[a : a + digits * n] for a, n in zip(ends, SIZES, strict=False) if a < len(self.cells)]
        return Start(np.concatenate(parts), self.weights[: len(self.weights) // of * digits])


def fresh(mode: str, digits: int) -> Start:
    """Make a start without knowledge: even odds and equal weights."""
    experts = EXPERTS[mode]
    cells = np.full((digits * sum(SIZES[:experts]), NODES), EVEN, np.int32)
    weights = np.zeros((digits * SETS[mode] * NODES, experts + 1 + (mode == "prior")), np.int32)
    weights[:, :experts] = 65536 * 3 // 10
    return Start(cells, weights)


def to_arrays(context: Start, mixed: Start) -> dict[str, np.ndarray]:
    """Convert the starts of the modes `context` and `prior` to arrays of the weights file."""
    arrays: dict[str, np.ndarray] = {}
    for name, start in (("context", context), ("mixed", mixed)):
        arrays[f"{name}.p"] = (start.cells >> 8).astype(np.uint16)
        arrays[f"{name}.n"] = (start.cells & 255).astype(np.uint8)
        arrays[f"{name}.weights"] = start.weights.astype(np.int32)
    return arrays


def from_arrays(arrays: dict[str, np.ndarray]) -> tuple[Start, Start]:
    """Convert arrays of the weights file to the starts of the modes `context` and `prior`: undo ``to_arrays``."""
    context, mixed = (
        Start(arrays[f"{name}.p"].astype(np.int32) << 8 | arrays[f"{name}.n"], arrays[f"{name}.weights"])
        for name in ("context", "mixed")
    )
    return context, mixed


@functools.cache
def stretch() -> Int32[np.ndarray, "4096"]:
    """Return the table of round(256 ln(p / (1 - p))) at p = (i + 1/2) / 4096."""
    with localcontext() as context:
        context.prec = 40
        odds = [(Decimal(2 * i + 1) / Decimal(8191 - 2 * i)).ln() * UNIT for i in range(4096)]
    return np.array([int(x.to_integral_value()) for x in odds], np.int32)


@functools.cache
def squash() -> Int32[np.ndarray, " n"]:
    """Return the table of round(65536 / (1 + e^-x)) at x = (i - REACH) / 256, clipped to 16 and 65520."""
    with localcontext() as context:
        context.prec = 40
        p = [65536 / (1 + (Decimal(REACH - i) / UNIT).exp()) for i in range(2 * REACH + 1)]
    return np.clip([int(x.to_integral_value()) for x in p], 16, 65520).astype(np.int32)


@functools.cache
def reciprocal() -> Int32[np.ndarray, " n"]:
    """Return the table of floor(2^14 / (n + 3/2))."""
    return np.array([(2 << RECIPROCAL_BITS) // (2 * n + 3) for n in range(LIMIT + 1)], np.int32)
