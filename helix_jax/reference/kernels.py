"""The range coder and the constrained coder in NumPy and Python integers, which are their specification.

They are written from the definitions, one stream at a time, and import nothing that the library encodes with.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8, UInt32

from helix_jax.arithmetic import FIRST_BITS, REGISTER_BITS, TOTAL

Model = tuple[Any, Callable, Callable]

# ---- range coder (helix_jax.range_coder) --------------------------------------------------------


def interval(model: Model, symbols: Sequence | np.ndarray) -> tuple[int, int, int]:
    """Compute the interval of a symbol string, in exact integers.

    Args:
        model: (state, edges, advance), where edges(state, i) are the A + 1 cumulative counts from 0 to TOTAL at
            position i, and advance(state, i, symbol) is the next state.
        symbols: The symbols.

    Returns:
        (low, width, places): the string owns [low, low + width) / 2^places. The width is 0 if the string is forbidden.
    """
    state, edges, advance = model
    low, width, places = 0, 1 << FIRST_BITS, FIRST_BITS
    for i, symbol in enumerate(symbols):
        cut = edges(state, i)
        bottom, top = width * int(cut[symbol]) // TOTAL, width * int(cut[symbol + 1]) // TOTAL
        if top == bottom:
            return low, 0, places
        shift = REGISTER_BITS - (top - bottom).bit_length()
        low, width, places = (low + bottom) << shift, (top - bottom) << shift, places + shift
        state = advance(state, i, symbol)
    return low, width, places


def bits_to_symbols(model: Model, payload: int, bits: int, length: int) -> list[int]:
    """Find the string of symbols whose interval contains payload / 2^bits.

    Args:
        model: As for ``interval``.
        payload: The payload.
        bits: Number of its bits.
        length: Number of symbols.
    """
    state, edges, advance = model
    low, width, places = 0, 1 << FIRST_BITS, FIRST_BITS
    symbols = []
    for i in range(length):
        cut = edges(state, i)
        # payload / 2^bits, in whole units of 2^-places
        value = ((payload << places) >> bits) - low
        bounds = [width * int(c) // TOTAL for c in cut]
        symbol = max(n for n in range(len(bounds) - 1) if bounds[n] <= value and bounds[n] < bounds[n + 1])
        shift = REGISTER_BITS - (bounds[symbol + 1] - bounds[symbol]).bit_length()
        low = (low + bounds[symbol]) << shift
        width = (bounds[symbol + 1] - bounds[symbol]) << shift
        places += shift
        state = advance(state, i, symbol)
        symbols.append(symbol)
    return symbols


def symbols_to_bits(model: Model, symbols: Sequence | np.ndarray, bits: int) -> tuple[int, bool]:
    """Find the payload of a symbol string: the last K-bit number below the end of its interval.

    Args:
        model: As for ``interval``.
        symbols: The symbols.
        bits: Length of the payload, K.

    Returns:
        The payload, and whether the model allows all of the symbols.
    """
    low, width, places = interval(model, symbols)
    if width == 0:
        return 0, False
    return ((low + width - 1) << bits) >> places, True


# ---- constrained coder (helix_jax.tk_scone.coder) -----------------------------------------------


def strand_model(tables: Any) -> Model:
    """Make the model of a strand under ``tk_scone.tables.Tables``, whose symbols are differences of bases."""

    def edges(row, _):
        c12, c3 = int(tables.rows[row, 0]), int(tables.rows[row, 1])
        return [0, c12 & 0xFFFF, c12 >> 16, c3, TOTAL]

    def advance(row, i, symbol):
        row = int(tables.rows[row, 2 + symbol])
        return int(tables.joint[row]) if i + 1 == tables.head else row

    return tables.start, edges, advance


def write_strand(tables: Any, payload: int) -> UInt8[np.ndarray, " L"]:
    """Write a payload of K bits as the bases of a strand under ``tk_scone.tables.Tables``."""
    differences = bits_to_symbols(strand_model(tables), payload, tables.bits, tables.length)
    return np.bitwise_xor.accumulate(np.array([tables.first_base, *differences], np.uint8))[1:]


def read_strand(tables: Any, bases: UInt8[np.ndarray, " L"]) -> tuple[int, bool]:
    """Read the payload of a strand, and tell whether ``tk_scone.tables.Tables`` allow the strand."""
    previous = np.concatenate([[tables.first_base], bases[:-1]]).astype(np.uint8)
    return symbols_to_bits(strand_model(tables), [int(x) for x in bases ^ previous], tables.bits)


def words_to_int(words: Integer[np.ndarray, " W"], bits: int) -> int:
    """Convert the first ``bits`` bits of words, whose first bit is the most significant one, to an integer."""
    return int.from_bytes(np.asarray(words).astype(">u4").tobytes(), "big") >> (32 * len(words) - bits)


def int_to_words(payload: int, bits: int) -> UInt32[np.ndarray, " W"]:
    """Convert an integer of ``bits`` bits to words: the inverse of ``words_to_int``."""
    count = -(-bits // 32)
    return np.frombuffer((payload << (32 * count - bits)).to_bytes(4 * count, "big"), ">u4").astype(np.uint32)
