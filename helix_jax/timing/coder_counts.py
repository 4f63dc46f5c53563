"""The counts of the range coder's symbols for a graph of paths, and a proof of how many payloads every state carries.

One step of the coder narrows its interval to at most count / 2^15 + 2^-31 of it (see ``range_coder``). From the last
round backwards, the number of payloads that each state is *proven* to carry is propagated: it is 1 / the widest
interval. The 2^15 counts are shared out in proportion to that number of the state after each symbol, so that the widest
of the new intervals is as narrow as possible. In this way the rows before it make up for the rounding of one row. A
symbol that is worth less than one count may get none: its paths are then never written.

Every float here is an IEEE float64, on which elementwise operations act in a fixed order, with powers of two kept
apart. The results are therefore bit-identical on every machine.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, Int, Int64, Integer, UInt32

from helix_jax.arithmetic import TOTAL

NOTHING = -(1 << 24)  # the exponent of the number 0, far below any other
ROUNDED = 1 - 2.0**-50  # more than covers the float64 rounding of one round


# ---- numbers beyond the range of float64: fraction * 2^exponent ----------------------------------------


def align(
    fraction: Float64[np.ndarray, "A n"], exponent: Int[np.ndarray, "A n"]
) -> tuple[Float64[np.ndarray, "A n"], Int[np.ndarray, " n"]]:
    """Give the numbers of each column a common exponent.

    The results are the values in units of 2^top, and top. A value 2^-200 below the top counts as 0.
    """
    top = exponent.max(axis=0)
    return np.ldexp(fraction, np.maximum(exponent - top, -200)), top


def split(
    values: Float64[np.ndarray, " n"], top: Int[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Split values, at least 0 and in units of 2^top, into a fraction in [0.5, 1) or 0, and an exponent."""
    fraction, exponent = np.frexp(values)
    return fraction, np.where(values > 0, exponent + top, NOTHING)


def add(columns: np.ndarray | Sequence) -> np.ndarray | float:
    """Return the sum over the first axis, from the first item on; NumPy's own order may differ between machines."""
    return functools.reduce(np.add, columns)


# ---- counts -------------------------------------------------------------------------------------------


def share_counts(values: Float64[np.ndarray, "A n"]) -> Int64[np.ndarray, "A n"]:
    """Share out TOTAL counts to the symbols of each column, in proportion to their weights (at least 0).

    The counts are those for which the greatest count / weight is least: each starts at its share rounded down, and the
    remainder goes, one by one, to where the ratio rises least (to the first of several). A column without weight gets
    no counts.
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


def payloads_proven(counts: Int64[np.ndarray, "A n"], values: Float64[np.ndarray, "A n"]) -> Float64[np.ndarray, " n"]:
    """Return the number of payloads that is proven for each state, a column of counts.

    ``values`` are the numbers that are proven for the states after each symbol.
    """
    factor = np.where(counts > 0, counts / TOTAL + 2.0**-31, 1.0)
    least = np.where(counts > 0, values / factor, np.inf).min(axis=0) * ROUNDED
    return np.where(np.isfinite(least), least, 0.0)


def pack_counts(counts: Int64[np.ndarray, "A n"]) -> UInt32[np.ndarray, "n words"]:
    """Pack the inner cumulative counts of each column, two in a word, so that there are A // 2 words."""
    inner = np.cumsum(counts, axis=0)[:-1].astype(np.uint32)
    low, high = inner[0::2], inner[1::2]
    words = low.copy()
    words[: len(high)] |= high << 16
    return words.T


def read_counts(rows: UInt32[Array, " rows"], row: Integer[Array, ""], symbols: int) -> UInt32[Array, " counts"]:
    """Read the inner cumulative counts of a row.

    Args:
        rows: All rows, flattened.
        row: The number of the row.
        symbols: The number of symbols.

    Returns:
        The symbols - 1 counts.
    """
    halves = symbols // 2
    words = [rows.at[row * halves + k].get(mode="clip") for k in range(halves)]
    return jnp.stack([half for word in words for half in (word & 0xFFFF, word >> 16)][: symbols - 1])
