"""Find the wrong packets of a block of the outer code by means of the packets that it has to spare.

Packets pass their own check, yet one in 2**check_bits garbled strands does so by chance, and one wrong packet spoils
every symbol solved from it.
"""

import itertools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8

from helix_jax.strands import raptor
from helix_jax.strands.layouts import BLOCK_BYTES

ATTEMPTS = 64  # alternatives tried where the surplus is too small to identify the wrong packets
_ROUNDS = 8  # searches for wrong packets in one block; each one removes all that it finds
_ROWS = 72  # surplus packets used in one search: up to 64 wrong packets, and 8 to tell them from the others


class Reading(NamedTuple):
    """One way to read a block.

    Attributes:
        data: The source symbols, or None if the block cannot be solved.
        rejected: Symbol ids left out.
        surplus: The packets that agree with the data beyond those it was solved from; -1 if the packets contradict it.
    """

    data: UInt8[np.ndarray, "sources width"] | None
    rejected: tuple[int, ...] = ()
    surplus: int = 0


def audit(
    sources: int,
    ids: Integer[np.ndarray, " n"],
    symbols: UInt8[np.ndarray, "n width"],
    width: int,
    code: Any = raptor,
) -> list[Reading]:
    """Find the wrong packets of a block by the packets it has to spare.

    The block is solved from just enough packets; the others are coded anew and compared. A wrong packet j in the first
    set adds h_j e_j to the difference, a matrix (other packets) x (bytes), where e_j is its error and h_j how the
    others depend on it. So the rank of the difference is the number of wrong packets, and the wrong packets are those
    whose h_j lies in its column space (as in the decoding of interleaved codes). The h_j come from solving with unit
    symbols.

    Args:
        sources: Source symbols of the block.
        ids: Symbol ids of the packets received, in ascending order.
        symbols: Their symbols.
        width: Bytes of a symbol.
        code: The code of the block, as ``outer.code_of`` returns it.

    Returns:
        The possible readings, the most likely first.
    """
    rejected = ()
    for _ in range(_ROUNDS):
        data, used = code.solve(sources, ids, symbols)
        rest = ids[used:]
        if data is None or not rest.size:
            return [Reading(data, rejected)]
        difference = code.repair_symbols(data, rest[-1] - sources + 1)[rest - sources] ^ symbols[used:]
        odd = difference.any(axis=1)
        agreeing = int(rest.size - odd.sum())
        if not odd.any():
            return [Reading(data, rejected, agreeing)]
        if agreeing >= 4 and 2 * agreeing >= rest.size:  # the solution is right, and some of the others are wrong
            wrong, rank = rest[odd], int(odd.sum())
        else:
            rows = slice(0, min(rest.size, width + 8, _ROWS))
            wrong, rank = _blame(sources, ids, used, rest[rows], difference[rows], code)
        if len(wrong) > rank:
            return _alternatives(code, sources, ids, symbols, rejected, wrong, rank) or [Reading(None, rejected, -1)]
        if len(wrong) < rank:
            return [Reading(None, rejected, -1)]
        rejected += tuple(wrong.tolist())
        keep = ~np.isin(ids, wrong)
        ids, symbols = ids[keep], symbols[keep]
    return [Reading(None, rejected, -1)]


def _blame(sources, ids, used, rest, difference, code=raptor):
    """Return the ids of the packets that can explain the difference, and how many of them are wrong."""
    null, rank = _left_null(difference)
    step = max(8, min(BLOCK_BYTES // sources, -(-used // 8) * 8) // 8 * 8)
    product = np.zeros((len(null), used), np.uint8)
    visible = np.zeros(used, bool)
    for start in range(0, used, step):
        units = np.zeros((used, step), np.uint8)
        columns = np.arange(start, min(start + step, used))
        units[columns, columns - start] = 1
        data, _ = code.solve(sources, ids[:used], units)
        assert data is not None  # as many packets as were enough before
        effect = code.repair_symbols(data, rest[-1] - sources + 1)[rest - sources][:, : columns.size]
        visible[columns] = effect.any(axis=0)
        for row, line in enumerate(effect):
            product[:, columns] ^= _PRODUCT[null[:, row, None], line]
    inner = ids[:used][visible & ~product.any(axis=0)]
    return np.concatenate([inner, rest[~null.any(axis=0)]]), rank


def _alternatives(code, sources, ids, symbols, rejected, wrong, rank):
    """Return a reading for each way to leave out ``rank`` of the packets in ``wrong``; none if there are too many."""
    ways = list(itertools.islice(itertools.combinations(wrong.tolist(), rank), ATTEMPTS + 1))
    readings = []
    for left_out in ways if len(ways) <= ATTEMPTS else ():
        keep = ~np.isin(ids, left_out)
        data, _ = code.solve(sources, ids[keep], symbols[keep])
        if data is not None:
            readings.append(Reading(data, rejected + left_out, -1))
    return readings


def _product_table():
    """Return uint8[256, 256], the products in the field of RFC 6330 section 5.7: x^8 + x^4 + x^3 + x^2 + 1."""
    power = np.zeros(510, np.uint8)
    value = 1
    for exponent in range(255):
        power[exponent] = power[exponent + 255] = value
        value = value << 1 ^ (0x11D if value & 0x80 else 0)
    log = np.zeros(256, np.int64)
    log[power[:255]] = np.arange(255)
    table = power[log[:, None] + log]
    table[0] = table[:, 0] = 0
    return table


_PRODUCT = _product_table()


def _left_null(matrix):
    """Return (basis uint8[r - rank, r] of the vectors v with v matrix = 0 over GF(256), rank) of a uint8[r, c]."""
    size, width = matrix.shape
    work = np.concatenate([matrix, np.eye(size, dtype=np.uint8)], axis=1)
    rank = 0
    for column in range(width):
        pivots = np.flatnonzero(work[rank:, column])
        if not pivots.size:
            continue
        work[[rank, rank + pivots[0]]] = work[[rank + pivots[0], rank]]
        inverse = np.argmax(_PRODUCT[work[rank, column]] == 1)
        line = _PRODUCT[inverse, work[rank]]
        work[rank + 1 :] ^= _PRODUCT[work[rank + 1 :, column, None], line]
        rank += 1
        if rank == size:
            break
    return work[rank:, width:], rank
