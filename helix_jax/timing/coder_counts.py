"""Counts of the range coder's symbols for a graph of paths, and proof of how many payloads every state carries.

One step of the coder narrows its interval to at most count / 2^15 + 2^-31 of it (see ``range_coder``). From the last
round backwards goes the number of payloads that each state is *proven* to carry: 1 / the widest interval. In proportion
to that number of the state after each symbol the 2^15 counts are shared out, so that the widest of the new intervals is
as narrow as it can be; rounding in one row is so made up for in the rows before it. A symbol worth less than a count
may get none: its paths are never written.

Every float here is an IEEE float64 worked on element by element in a fixed order, with powers of two apart, so what is
made of them is bit-identical on every machine.
"""

import functools

import jax.numpy as jnp
import numpy as np

from helix_jax.arithmetic import TOTAL

NOTHING = -(1 << 24)  # exponent of the number 0: far below any other
ROUNDED = 1 - 2.0**-50  # more than covers the float64 rounding of one round


# ---- numbers past the range of float64: fraction * 2^exponent ----------------------------------------


def align(fraction, exponent):
    """Columns [A, n] -> (values float64[A, n] in units of 2^top, top int[n]); what is 2^-200 below the top is as 0."""
    top = exponent.max(axis=0)
    return np.ldexp(fraction, np.maximum(exponent - top, -200)), top


def split(values, top):
    """values >= 0 in units of 2^top -> (fraction in [0.5, 1) or 0, exponent)."""
    fraction, exponent = np.frexp(values)
    return fraction, np.where(values > 0, exponent + top, NOTHING)


def add(columns):
    """Their sum, taken from the first on; numpy's own order may differ between machines."""
    return functools.reduce(np.add, columns)


# ---- counts -------------------------------------------------------------------------------------------


def share_counts(values):
    """Weights float64[A, n] >= 0 -> counts int64[A, n] of each column's symbols, with sum TOTAL (all 0 if no weight).

    The counts for which the greatest count / weight is least: each starts at its share rounded down, and what is left
    goes, one by one, to where the ratio rises least (the first, of several).
    """
    total = add(values)
    alive = total > 0
    # rounding cannot make these sum to more than TOTAL: 2^15 * 2^-50 is far below 1
    counts = np.floor(values / np.where(alive, total, 1.0) * TOTAL)
    positive = values > 0
    safe = np.where(positive, values, 1.0)
    columns = np.arange(values.shape[1])
    while True:
        missing = alive & (add(counts) < TOTAL)
        if not missing.any():
            return counts.astype(np.int64)
        where = np.argmin(np.where(positive, (counts + 1) / safe, np.inf), axis=0)
        counts[where, columns] += missing


def payloads_proven(counts, values):
    """Payloads proven for states with these counts, if ``values`` are proven for the states after each symbol."""
    factor = np.where(counts > 0, counts / TOTAL + 2.0**-31, 1.0)
    least = np.where(counts > 0, values / factor, np.inf).min(axis=0) * ROUNDED
    return np.where(np.isfinite(least), least, 0.0)


def pack_counts(counts):
    """Counts [A, n] -> uint32[n, A // 2]: the inner cumulative counts, two in a word."""
    inner = np.cumsum(counts, axis=0)[:-1].astype(np.uint32)
    low, high = inner[0::2], inner[1::2]
    words = low.copy()
    words[: len(high)] |= high << 16
    return words.T


def read_counts(rows, row, symbols):
    """The inner cumulative counts uint32[symbols - 1] of a row of the flat array ``rows``."""
    halves = symbols // 2
    words = [rows.at[row * halves + k].get(mode="clip") for k in range(halves)]
    return jnp.stack([half for word in words for half in (word & 0xFFFF, word >> 16)][: symbols - 1])
