"""Slow, plain twins of the integer kernels, in NumPy and Python integers: the specification.

Written from the definitions, one stream at a time, without JAX: they are the oracle of the tests and the
archival decoder: ``python -m helix_jax.reference POOL.fasta FILE [PRIOR.safetensors]`` writes the bytes of a pool, or,
for a video, its token digits uint8[t, h, w, k] as .npy (not the update of the decoder that a pool of `--effort 3` may
have behind them: ``tokenizer.update``). The prior's weights are needed where the pool's tokens are
coded; by default the shipped ones are taken.
"""

import sys

import numpy as np

# ---- range coder (helix_jax.range_coder) --------------------------------------------------------

TOTAL_BITS = 15  # counts of a model sum to 2^15
TOTAL = 1 << TOTAL_BITS
FIRST_BITS = 31  # the first interval is 2^31 wide and stands for [0, 1)
REGISTER_BITS = 32


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


# ---- archival decoder -----------------------------------------------------------------------------


def read_pool(strands, prior=None):
    """Strands (dict of length -> uint8[n, length], no primers) -> bytes, or token digits uint8[t, h, w, k] of a video.

    prior: path of the prior's weights, read where tokens are coded; None: the shipped ones.
    Raises ValueError when no header of a named constraint set is found, the payload is not whole, or the prior is
    another one.
    """
    # imported here: these modules take the coder's constants from this one
    from helix_jax.strands import header, outer, packets
    from helix_jax.tk_scone import constraints, mixing, tables

    for length, group in strands.items():
        for chosen in constraints.NAMED.values():
            table = tables.load(chosen, length)
            if not header.usable(table.bits):
                continue
            pairs = [read_strand(table, strand) for strand in group]
            words = np.array([int_to_words(payload, table.bits) for payload, ok in pairs if ok])
            if not len(words):
                continue
            headers, is_header = header.find_headers(words, table.bits)
            for head in headers:
                layout = head.layout(table.bits)
                index, symbols, ok = packets.unpack(layout, head.key, words[~is_header])
                recovered = outer.decode(layout, index[ok], symbols[ok], outer.matching(head.digest))
                if not recovered.verified:
                    raise ValueError(f"pool {head.key.hex()}: {int(recovered.lost.sum())} packets are lost past repair")
                payload = np.frombuffer(recovered.payload, np.uint8).reshape(layout.sources, layout.symbol_bytes)
                digits = mixing.unmix(mixing.from_bytes(payload), head.key, head.mixing)
                if head.kind == "bytes":
                    return mixing.to_bytes(digits).tobytes()[: head.content_bytes]
                grid = (-(-head.frames // 4), -(-head.height // 8), -(-head.width // 8))
                if head.mode == "raw":
                    return mixing.deinterleave(digits, grid, head.digits, head.mixing)
                return _expand(head, grid, mixing.to_bytes(digits), prior)
    raise ValueError(
        "no header of a helix_jax pool in a named constraint set: more strands are needed, or it has primers"
    )


def _expand(head, grid, rows, path):
    """Packets' bytes of a pool whose tokens are coded -> tokens uint8[t, h, w, k]."""
    from helix_jax.prior import payload, reference, segments, stored

    prior = stored.read(path or stored.DEFAULT)
    if prior.digest[:6] != head.prior_hash:
        raise ValueError(f"the pool was coded with prior {head.prior_hash.hex()}, not {prior.digest[:6].hex()}")
    if not 1 <= head.digits <= prior.config.digits:
        raise ValueError(f"the header says {head.digits} digits a token, the prior has {prior.config.digits}: forged?")
    plan = segments.plan(grid)
    coded = payload.read_pieces(rows, np.zeros(len(rows), bool), plan.number)
    if None in coded:
        raise ValueError(f"{coded.count(None)} of {plan.number} segments do not match their checks: forged?")
    return reference.expand_clip(prior, head.mode, plan, head.digits, coded)


def main():
    from helix_jax import files
    from helix_jax.strands import fasta

    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python -m helix_jax.reference POOL.fasta FILE [PRIOR.safetensors]")
    try:
        content = read_pool(fasta.read(sys.argv[1]), *sys.argv[3:])
    except ValueError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
    with files.atomic(sys.argv[2]) as temporary, open(temporary, "wb") as out:
        if isinstance(content, bytes):
            out.write(content)
        else:
            np.save(out, content)


if __name__ == "__main__":
    main()
