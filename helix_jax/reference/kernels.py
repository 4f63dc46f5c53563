"""Plain twins of the range coder and of the constrained coder, in NumPy and Python integers: their specification.

They are written from the definitions, one stream at a time, and import nothing that the library encodes with.
"""

import numpy as np

from helix_jax.arithmetic import FIRST_BITS, REGISTER_BITS, TOTAL

# ---- range coder (helix_jax.range_coder) --------------------------------------------------------


def interval(model, symbols):
    """Interval of a symbol string, as exact integers.

    model: (state, edges, advance) where edges(state, i) are the A + 1 cumulative counts from 0 to TOTAL at
    position i and advance(state, i, symbol) is the next state.
    Returns (low, width, places): the string owns [low, low + width) / 2^places; width 0 if it is forbidden.
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


def bits_to_symbols(model, payload, bits, length):
    """The string of ``length`` symbols whose interval holds payload / 2^bits (payload: Python int)."""
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


def symbols_to_bits(model, symbols, bits):
    """Payload of a symbol string: the last K-bit number below the end of its interval; (payload, ok)."""
    low, width, places = interval(model, symbols)
    if width == 0:
        return 0, False
    return ((low + width - 1) << bits) >> places, True


# ---- constrained coder (helix_jax.tk_scone.coder) -----------------------------------------------


def strand_model(tables):
    """Model of a strand under ``tables`` (tk_scone.tables.Tables), over differences of bases."""

    def edges(row, _):
        c12, c3 = int(tables.rows[row, 0]), int(tables.rows[row, 1])
        return [0, c12 & 0xFFFF, c12 >> 16, c3, TOTAL]

    def advance(row, i, symbol):
        row = int(tables.rows[row, 2 + symbol])
        return int(tables.joint[row]) if i + 1 == tables.head else row

    return tables.start, edges, advance


def write_strand(tables, payload):
    """Payload (Python int of K bits) -> bases uint8[L]."""
    differences = bits_to_symbols(strand_model(tables), payload, tables.bits, tables.length)
    return np.bitwise_xor.accumulate(np.array([tables.first_base, *differences], np.uint8))[1:]


def read_strand(tables, bases):
    """Bases uint8[L] -> (payload as Python int, ok)."""
    previous = np.concatenate([[tables.first_base], bases[:-1]]).astype(np.uint8)
    return symbols_to_bits(strand_model(tables), [int(x) for x in bases ^ previous], tables.bits)


def words_to_int(words, bits):
    """uint32[W], first bit most significant -> the Python int of its first ``bits`` bits."""
    return int.from_bytes(np.asarray(words).astype(">u4").tobytes(), "big") >> (32 * len(words) - bits)


def int_to_words(payload, bits):
    """Inverse of ``words_to_int``."""
    count = -(-bits // 32)
    return np.frombuffer((payload << (32 * count - bits)).to_bytes(4 * count, "big"), ">u4").astype(np.uint32)
