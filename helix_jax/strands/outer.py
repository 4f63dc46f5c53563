"""Outer erasure code: payload bytes <-> packet symbols, RaptorQ (RFC 6330) over source blocks.

The code is systematic: source symbols are the payload itself. RaptorQ wants symbols of a multiple of 8 bytes; as it
codes each byte column by itself, symbols are padded with zero columns, which stay zero in repair symbols and are
not written. A block comes back from any packets as many as it has source symbols, but for about 1 case in 300; with
two more the code practically never fails.

Packets that reach ``decode`` passed their own check, yet one in 2**check_bits garbled strands does so by chance, and
one wrong packet spoils every symbol solved from it. The digest of the payload catches that; the packets that a block
has over its source symbols (its surplus) then tell which ones are wrong: see ``_audit``.
"""

import hashlib
import itertools
from dataclasses import dataclass

import numpy as np
import raptorq

from helix_jax.strands.packets import BLOCK_BYTES

_ROUNDS = 8  # searches for wrong packets in one block; each one removes all that it sees
_ROWS = 72  # surplus packets looked at in one search: up to 64 wrong packets, and 8 to tell them from the others
_ATTEMPTS = 64  # alternatives tried where the surplus is too small to name the wrong packets
_PROVEN = 3  # surplus at which a consistent block is beyond doubt: a wrong packet hides with probability 256**-surplus


@dataclass(frozen=True, eq=False)
class Recovered:
    """What ``decode`` made of the packets.

    payload: bytes of the stated length; lost source symbols are zeros. lost: bool[sources], neither received nor
    recovered. suspect: bool[sources], received, but in a block that holds a wrong packet which could not be found.
    rejected: int64[r], ascending indices of which a received copy was found wrong or contradicted by another copy.
    verified: the payload's digest matches. When it is False, payload may hold wrong bytes even where neither lost
    nor suspect is set, each symbol with the probability that a wrong packet passed its own check.
    """

    payload: bytes
    lost: np.ndarray
    suspect: np.ndarray
    rejected: np.ndarray
    verified: bool


def payload_digest(payload):
    """First 16 bytes of the SHA-256 of payload bytes."""
    return hashlib.sha256(payload).digest()[:16]


def matching(digest):
    """The test "``payload_digest`` of the payload is ``digest``", for ``decode``."""
    return lambda payload: payload_digest(payload) == digest


def encode(layout, payload):
    """Payload bytes -> symbols of all packets in the order of the global index: uint8[packets, symbol_bytes].

    Raises ValueError when payload has not the length that the layout was planned for.
    """
    if len(payload) != layout.payload_bytes:
        raise ValueError(f"payload of {len(payload)} bytes; the layout was planned for {layout.payload_bytes}")
    width = layout.symbol_bytes
    symbols = np.zeros((layout.packets, width), np.uint8)
    symbols[: layout.sources].reshape(-1)[: len(payload)] = np.frombuffer(payload, np.uint8)
    if not layout.repairs:
        return symbols
    repairs = symbols[layout.sources :].reshape(layout.blocks, layout.repairs, width)
    block = start = 0
    # Columns are coded independently, so blocks of one size share an encoder, side by side: ten times faster.
    for size, same in itertools.groupby(layout.block_sources):
        last = block + len(list(same))
        side_by_side = max(1, BLOCK_BYTES // (size * width) - 1)
        while block < last:
            group = min(side_by_side, last - block)
            data = symbols[start : start + group * size].reshape(group, size, width).transpose(1, 0, 2)
            coded = _repair_symbols(data.reshape(size, group * width), layout.repairs)
            repairs[block : block + group] = coded.reshape(layout.repairs, group, width).transpose(1, 0, 2)
            block, start = block + group, start + group * size
    return symbols


def decode(layout, index, symbols, genuine, progress=None):
    """Packets that passed their check -> Recovered.

    index: int[n] global indices, in any order, repeats allowed. symbols: uint8[n, symbol_bytes]. genuine: tells of the
    bytes of a whole payload whether they are the true ones (see ``matching``). progress: called as progress(blocks
    done, blocks in all) after each block; where no payload is genuine then, a second pass of about a second per
    damaged block looks for wrong packets.

    Copies of an index that differ are settled by the majority; without one, all are left out. Wrong packets are
    found and left out as long as a block has two surplus packets more than wrong ones (and no more than
    symbol_bytes or 64 wrong ones); with one more, by trying against the digest. Beyond that the block's recovered
    symbols count as lost and its received ones as suspect.
    Raises ValueError for wrong shapes or an index out of range.
    """
    index, symbols = np.asarray(index, np.int64), np.asarray(symbols)
    if symbols.shape != (index.size, layout.symbol_bytes) or symbols.dtype != np.uint8 or index.ndim != 1:
        raise ValueError(
            f"{index.shape} indices and {symbols.dtype}{list(symbols.shape)} symbols; "
            f"the layout wants int[n] and uint8[n, {layout.symbol_bytes}]"
        )
    index, symbols, contradicted = _collapse(index, symbols)
    blocks = _split(layout, index, symbols)
    found = []
    for done, block in enumerate(blocks, start=1):
        found.append([_Finding(solve(*block)[0])])
        if progress is not None:
            progress(done, len(blocks))
    verified = _choose(layout, found, genuine)
    if verified is None:
        found = [_audit(*block, layout.symbol_bytes) for block in blocks]
        verified = _choose(layout, found, genuine)
    if verified is not None:
        settled, doubtful = verified, set()
    else:
        settled = [findings[0] for findings in found]
        doubtful = _doubtful(found)
    return _assemble(layout, blocks, settled, doubtful, contradicted, verified is not None)


@dataclass(frozen=True, eq=False)
class _Finding:
    """One reading of a block. data: uint8[sources, width] or None if it cannot be solved. rejected: symbol ids left
    out. surplus: packets that agree with it beyond those it was solved from (-1: the packets contradict it)."""

    data: np.ndarray | None
    rejected: tuple = ()
    surplus: int = 0


def _collapse(index, symbols):
    """Sort by index and keep one copy each: (index, symbols, indices whose copies differ)."""
    order = np.argsort(index, kind="stable")
    index, symbols = index[order], symbols[order]
    first = np.flatnonzero(np.diff(index, prepend=-1))
    group = np.cumsum(np.diff(index, prepend=-1) > 0) - 1
    odd = (symbols != symbols[first[group]]).any(axis=1)
    contradicted = np.unique(index[odd])
    if not contradicted.size:
        return index[first], symbols[first], contradicted
    among = np.isin(index, contradicted)
    rows = np.concatenate([index[among].astype(">i8")[:, None].view(np.uint8), symbols[among]], axis=1)
    variants, copies = np.unique(rows, axis=0, return_counts=True)
    of = np.ascontiguousarray(variants[:, :8]).view(">i8")[:, 0].astype(np.int64)
    order = np.lexsort((-copies, of))
    variants, copies, of = variants[order], copies[order], of[order]
    lead = np.flatnonzero(np.diff(of, prepend=-1))  # every index here has at least two variants
    lead = lead[copies[lead] > copies[lead + 1]]
    clean = first[~np.isin(index[first], contradicted)]
    kept, kept_symbols = np.append(index[clean], of[lead]), np.append(symbols[clean], variants[lead, 8:], axis=0)
    order = np.argsort(kept)
    return kept[order], kept_symbols[order], contradicted


def _split(layout, index, symbols):
    """Packets by source block: a list of (source symbols, ids int64[n] ascending, symbols uint8[n, width])."""
    block, ids = layout.locate(index)
    order = np.lexsort((ids, block))
    ids, symbols = ids[order], symbols[order]
    edges = np.searchsorted(block[order], np.arange(layout.blocks + 1))
    return [
        (sources, ids[low:high], symbols[low:high])
        for sources, low, high in zip(layout.block_sources, edges[:-1], edges[1:], strict=True)
    ]


def _repair_symbols(data, repairs):
    """First repair symbols of one block: uint8[sources, width] -> uint8[repairs, width]."""
    sources, width = data.shape
    data = np.pad(data, ((0, 0), (0, -width % 8)))
    # pyrefly: ignore[missing-attribute]  (a compiled module without stubs)
    encoder = raptorq.Encoder.with_defaults(data.tobytes(), data.shape[1])
    packets = b"".join(encoder.get_encoded_packets(repairs)[sources:])
    return np.frombuffer(packets, np.uint8).reshape(repairs, 4 + data.shape[1])[:, 4 : 4 + width]


def solve(sources, ids, symbols):
    """Source symbols from packets in ascending order of id: (uint8[sources, width], packets used).

    (None, 0) when the packets do not determine them.
    """
    if len(ids) < sources:
        return None, 0
    if ids[sources - 1] == sources - 1:
        return symbols[:sources], sources
    width = symbols.shape[1]
    padded = width + -width % 8
    packets = np.zeros((len(ids), 4 + padded), np.uint8)  # block number 0, symbol id in 3 bytes, symbol
    packets[:, 1:4] = ids.astype(">u4")[:, None].view(np.uint8)[:, 1:]
    packets[:, 4 : 4 + width] = symbols
    raw = packets.tobytes()
    # pyrefly: ignore[missing-attribute]
    decoder = raptorq.Decoder.with_defaults(sources * padded, padded)
    for used, start in enumerate(range(0, len(raw), 4 + padded), start=1):  # the library takes packets one by one
        data = decoder.decode(raw[start : start + 4 + padded])
        if data is not None:
            return np.frombuffer(data, np.uint8).reshape(sources, padded)[:, :width], used
    return None, 0


def _audit(sources, ids, symbols, width):
    """Find wrong packets of a block by the packets it has to spare: a list of findings, most likely one.

    Solve from just enough packets, code the others anew, compare. A wrong packet j in the first set adds h_j e_j to
    the difference, a matrix (other packets) x (bytes), where e_j is its error and h_j how the others depend on it.
    So the rank of the difference is the number of wrong packets, and they are those whose h_j lies in its column
    space (as in the decoding of interleaved codes). The h_j come from solving with unit symbols.
    """
    rejected = ()
    for _ in range(_ROUNDS):
        data, used = solve(sources, ids, symbols)
        rest = ids[used:]
        if data is None or not rest.size:
            return [_Finding(data, rejected)]
        difference = _repair_symbols(data, rest[-1] - sources + 1)[rest - sources] ^ symbols[used:]
        odd = difference.any(axis=1)
        agreeing = int(rest.size - odd.sum())
        if not odd.any():
            return [_Finding(data, rejected, agreeing)]
        if agreeing >= 4 and 2 * agreeing >= rest.size:  # the solution is right, some of the others are not
            wrong, rank = rest[odd], int(odd.sum())
        else:
            rows = slice(0, min(rest.size, width + 8, _ROWS))
            wrong, rank = _blame(sources, ids, used, rest[rows], difference[rows])
        if len(wrong) > rank:
            return _alternatives(sources, ids, symbols, rejected, wrong, rank) or [_Finding(None, rejected, -1)]
        if len(wrong) < rank:
            return [_Finding(None, rejected, -1)]
        rejected += tuple(wrong.tolist())
        keep = ~np.isin(ids, wrong)
        ids, symbols = ids[keep], symbols[keep]
    return [_Finding(None, rejected, -1)]


def _blame(sources, ids, used, rest, difference):
    """Ids of packets that can explain the difference, and how many of them are wrong."""
    null, rank = _left_null(difference)
    step = max(8, min(BLOCK_BYTES // sources, -(-used // 8) * 8) // 8 * 8)
    product = np.zeros((len(null), used), np.uint8)
    visible = np.zeros(used, bool)
    for start in range(0, used, step):
        units = np.zeros((used, step), np.uint8)
        columns = np.arange(start, min(start + step, used))
        units[columns, columns - start] = 1
        data, _ = solve(sources, ids[:used], units)
        effect = _repair_symbols(data, rest[-1] - sources + 1)[rest - sources][:, : columns.size]
        visible[columns] = effect.any(axis=0)
        for row, line in enumerate(effect):
            product[:, columns] ^= _PRODUCT[null[:, row, None], line]
    inner = ids[:used][visible & ~product.any(axis=0)]
    return np.concatenate([inner, rest[~null.any(axis=0)]]), rank


def _alternatives(sources, ids, symbols, rejected, wrong, rank):
    """Findings for each way to leave out ``rank`` of the packets in ``wrong``; none if there are too many."""
    ways = list(itertools.islice(itertools.combinations(wrong.tolist(), rank), _ATTEMPTS + 1))
    findings = []
    for way in ways if len(ways) <= _ATTEMPTS else ():
        keep = ~np.isin(ids, way)
        data, _ = solve(sources, ids[keep], symbols[keep])
        if data is not None:
            findings.append(_Finding(data, rejected + way, -1))
    return findings


def _choose(layout, found, genuine):
    """The findings, one of each block, whose payload has the digest; None when there are none."""
    if any(finding.data is None for findings in found for finding in findings):
        return None
    for choice in itertools.islice(itertools.product(*found), 4 * _ATTEMPTS):
        payload = np.concatenate([finding.data for finding in choice]).tobytes()[: layout.payload_bytes]
        if genuine(payload):
            return list(choice)
    return None


def _doubtful(found):
    """Blocks to distrust: those that contradict themselves; else, if only the digest fails, the least proven."""
    contradictory = {number for number, findings in enumerate(found) if findings[0].surplus < 0}
    if contradictory or any(findings[0].data is None for findings in found):
        return contradictory
    unproven = {number for number, findings in enumerate(found) if findings[0].surplus < _PROVEN}
    return unproven or set(range(len(found)))


def _assemble(layout, blocks, settled, doubtful, contradicted, verified):
    """Put blocks together; where one is unsolved or doubtful, keep what was received and no more."""
    symbols = np.zeros((layout.sources, layout.symbol_bytes), np.uint8)
    lost, suspect = np.zeros(layout.sources, bool), np.zeros(layout.sources, bool)
    rejected = [contradicted]
    start = 0
    for number, ((sources, ids, received), finding) in enumerate(zip(blocks, settled, strict=True)):
        end = start + sources
        # a contradictory block's rejects are guesses, unless the digest bears them out
        wrong = finding.rejected if number not in doubtful else ()
        rejected.append(layout.index_of(np.full(len(wrong), number), wrong))
        if finding.data is not None and number not in doubtful:
            symbols[start:end] = finding.data
        else:
            here = (ids < sources) & ~np.isin(ids, np.asarray(wrong, np.int64))
            symbols[start + ids[here]] = received[here]
            lost[start:end] = True
            lost[start + ids[here]] = False
            suspect[start:end] = ~lost[start:end] if number in doubtful else False
        start = end
    payload = symbols.tobytes()[: layout.payload_bytes]
    return Recovered(payload, lost, suspect, np.unique(np.concatenate(rejected)), verified)


def _product_table():
    """uint8[256, 256], products in the field of RFC 6330 section 5.7: x^8 + x^4 + x^3 + x^2 + 1."""
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
    """uint8[r, c] over GF(256) -> (basis uint8[r - rank, r] of the vectors v with v matrix = 0, rank)."""
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
