"""Where strands pair with themselves or repeat themselves, in plain NumPy for whole pools.

A hairpin stem is a stretch of bases whose reverse complement follows in the same strand after a loop of LOOP bases or
more, without bulges and wobble pairs. All pairs of positions (i, j) are visited, i by i: the stretch that ends at
(i, j) is one longer than that at (i - 1, j + 1), or at (i - 1, j - 1) for repeats. Stretches are counted in single
bytes, as many strands at once as the processor's cache holds.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int64, UInt8

LOOP = 3  # bases of the shortest loop of a hairpin
_CHUNK = 512  # strands at once, so that they stay in the processor's cache


def longest_hairpins(strands: UInt8[np.ndarray, "n L"]) -> Int64[np.ndarray, " n"]:
    """Return the number of bases of each strand's longest hairpin stem."""
    return _in_chunks(strands, lambda columns: _stretches(3 - columns, columns, LOOP + 1, 1)[0])


def longest_dimers(strands: UInt8[np.ndarray, "n L"]) -> Int64[np.ndarray, " n"]:
    """Return the length of the longest stretch with which each strand pairs with another copy of itself.

    It is the longest stretch whose reverse complement occurs in the strand too, anywhere, also over itself.
    """

    def longest(columns):
        stretches, inner = _stretches(3 - columns, columns, 1, 1)
        return np.maximum(stretches, 2 * inner)  # a stretch up to its own middle goes on as far again behind it

    return _in_chunks(strands, longest)


def longest_repeats(strands: UInt8[np.ndarray, "n L"]) -> Int64[np.ndarray, " n"]:
    """Return the length of the longest word that occurs twice in each strand, overlapping or not."""
    return _in_chunks(strands, lambda columns: _stretches(columns, columns, 1, -1)[0])


def _in_chunks(strands: np.ndarray, longest: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    parts = [
        longest(np.ascontiguousarray(strands[begin : begin + _CHUNK].T)) for begin in range(0, len(strands), _CHUNK)
    ]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _stretches(first, second, gap, step):
    """Return the longest stretch of positions i, j >= i + gap with first[i] == second[j], and of those at i + gap.

    ``step`` is 1 where j falls as i rises, and -1 where both rise. The arrays are uint8[L, n].
    """
    length, count = first.shape
    kind = np.uint8 if length < 256 else np.uint16
    run = np.zeros((length + 2, count), kind)  # row j + 1 has the stretches that end at j
    best, inner = np.zeros((length + 2, count), kind), np.zeros(count, kind)
    for i in range(length - gap):
        rows = slice(i + gap + 1, length + 1)
        before = run[i + gap + 1 + step : length + 1 + step]
        run[rows] = (before + kind(1)) * (second[i + gap :] == first[i])
        if i + gap + step > 0:  # nothing ends before i + gap any more
            run[i + gap] = 0
        np.maximum(best[rows], run[rows], out=best[rows])
        np.maximum(inner, run[i + gap + 1], out=inner)
    return best.max(axis=0).astype(np.int64), inner.astype(np.int64)
