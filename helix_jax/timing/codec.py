"""Bytes -> schedule of a synthesiser, and reads -> bytes, in the order of the data.

    bytes
      | header              length and digest in front
    payload
      | strands.outer       RaptorQ: repair strands
    symbols uint8[n, s]
      | keyed               made uniform
      | paths               K bits -> a path of G: data letters and levels
    letters, levels uint8[n, data]
      | ecc                 parity of the level bits of a group of strands
      | frame               check letters, parity and index as letters
    letters, durations uint8[n, R] -> schedule

and back: reads -> clustering -> alignment (letters, likelihoods of the levels) -> ecc -> paths -> strands.outer. The
error-correcting code is undone before the constrained coder, as in the paper's pipeline (ISIT 2020).
"""

import dataclasses
import hashlib
import itertools
from dataclasses import dataclass

import jax
import numpy as np
from jax import lax

from helix_jax import keyed, parallel
from helix_jax.errors import DecodeError, HelixError
from helix_jax.strands import outer, packets
from helix_jax.timing import alignment, capacity, clustering, ecc, frame, paths
from helix_jax.timing.schedule import Schedule

_KEY = b"timing.1"  # whitening: makes the payload uniform, hides nothing
_LENGTH_BYTES, _DIGEST_BYTES = 6, 10
_BATCH = 4096  # strands per call of the coder
_ALIGNED = 8  # strands per call and device of the alignment
_MOST_COPIES = 2  # times the copies that the scheme expects: more are not looked at
_SUREST = 12.0  # greatest log-likelihood ratio of a level bit: a misread strand must not be certain of itself
_DOUBT = (8.0, 0.5)  # most doubt of an alignment that is believed: nats, and nats for each check letter


@dataclass(frozen=True)
class Report:
    """What became of the reads; counts.

    reads; clusters of them; aligned: clusters whose letters pass their checks; strands of the pool, source_strands
    among them; lost_strands: source strands past repair. corrected: level bits that the error-correcting code changed.
    broken_groups: groups of strands in which it failed. verified: the digest of the bytes matches.
    """

    reads: int
    clusters: int
    aligned: int
    strands: int
    source_strands: int
    lost_strands: int
    corrected: int
    broken_groups: int
    verified: bool


@dataclass(frozen=True, eq=False)
class Received:
    """Bytes as far as they came back. lost: bool[len(data)], bytes that are not known (zeros)."""

    data: bytes
    lost: np.ndarray
    report: Report


# ---- writing -----------------------------------------------------------------------------------------


def symbol_bytes(scheme):
    """Payload bytes of a strand."""
    return paths.coder(scheme).bits // 8


def encode(data, scheme, *, progress=None):
    """Bytes -> Schedule. progress: called as progress(station, done, total).

    Raises ValueError where the bytes are too many for the scheme's index.
    """
    payload = _header(data) + data
    layout = _layout(scheme, -(-len(payload) // symbol_bytes(scheme)))
    if layout.packets > 3**scheme.index:
        raise HelixError(
            f"{len(data)} bytes need {layout.packets} strands, more than {3**scheme.index}, which {scheme.index} index "
            "letters of the scheme can number: use a scheme with a longer index"
        )
    symbols = outer.encode(layout, payload.ljust(layout.payload_bytes, b"\0"))
    letters, levels = paths.write(paths.coder(scheme), _whiten(symbols), _step(progress, "strands", len(symbols)))
    parity = _parity(scheme, levels)
    digits = np.concatenate([frame.bits_to_trits(parity), _index_digits(scheme, np.arange(len(symbols)))], axis=1)
    strands, levels = parallel.map_batches(
        _write, np.zeros(1), letters, levels, digits, batch=_BATCH, layout=scheme.frame
    )
    before = np.concatenate([np.zeros_like(strands[:, :1]), strands[:, :-1]], axis=1)
    return Schedule(strands, scheme.table.array()[before, strands, levels].astype(np.uint8), scheme.name)


def _header(data):
    length = len(data).to_bytes(_LENGTH_BYTES, "big")
    return length + hashlib.sha256(length + data).digest()[:_DIGEST_BYTES]


def _genuine(payload):
    length = int.from_bytes(payload[:_LENGTH_BYTES], "big")
    content = payload[_LENGTH_BYTES + _DIGEST_BYTES :]
    return length <= len(content) and not any(content[length:]) and payload.startswith(_header(content[:length]))


def _layout(scheme, sources):
    """PacketLayout of a pool of ``sources`` source strands, for the outer code (index and check stand elsewhere)."""
    size = symbol_bytes(scheme)
    layout = packets.PacketLayout(8 * size + 33, size, 32, 1, sources * size, 0)
    return dataclasses.replace(layout, repairs=packets.repairs_of(scheme.redundancy, layout.block_sources[0]))


def _whiten(symbols, index=None):
    """Symbols uint8[n, s] xored with a fixed stream; its own inverse. index: int[n], strand numbers (default 0..)."""
    index = np.arange(len(symbols)) if index is None else index
    words = -(-symbols.shape[1] // 8)
    stream = keyed.stream(_KEY, (index[:, None] * words + np.arange(words)).reshape(-1))
    return symbols ^ stream.astype(">u8").view(np.uint8).reshape(len(symbols), 8 * words)[:, : symbols.shape[1]]


def _index_digits(scheme, index):
    return (index[:, None] // 3 ** np.arange(scheme.index) % 3).astype(np.uint8)


def _write(_, letters, levels, digits, *, layout):
    return frame.write(letters, levels, digits, frame=layout)


def _read(_, letters, levels, *, layout):
    return frame.read(letters, levels, frame=layout)


def _step(progress, station, total):
    return progress and (lambda done: progress(station, done, total))


# ---- error correction ------------------------------------------------------------------------------------


def _parity(scheme, levels):
    """Parity bits of all strands: levels uint8[n, data] -> uint8[n, scheme.parity]."""
    parity = np.zeros((len(levels), scheme.parity), np.uint8)
    for start in range(0, len(levels), scheme.group) if scheme.parity and scheme.level_bits else ():
        group = levels[start : start + scheme.group]
        code = _code(scheme, len(group))
        bits = ecc.level_bits(group, scheme.levels).reshape(-1)
        parity[start : start + len(group)] = np.asarray(ecc.encode(code, bits)).reshape(len(group), -1)
    return parity


def _code(scheme, strands):
    """The code of a group of so many strands."""
    return ecc.design(strands * scheme.data * scheme.level_bits, strands * scheme.parity)


def _correct(scheme, likelihood, parity, doubt):
    """One group of strands.

    likelihood: float32[g, data, levels], log, prior in; parity: uint8[g, parity]; doubt: float32[g] of their alignment,
    inf for a strand that was not read.
    Returns (levels uint8[g, data], ok, level bits changed). Where the code fails, the most doubtful strands are taken
    for misread and left out, more and more of them: wrong parity bits would spoil the whole group.
    """
    guess = likelihood.argmax(axis=-1).astype(np.uint8)
    if not (scheme.parity and scheme.level_bits):
        return guess, True, 0
    code = _code(scheme, len(likelihood))
    order = np.argsort(-np.where(np.isinf(doubt), -1, doubt))
    known = ~np.isinf(doubt)
    for dropped in (0, 1, 2, 4, 8):
        if dropped > known.sum() // 4:
            break
        left = known.copy()
        left[order[:dropped]] = False
        llr = np.clip(ecc.bit_llr(likelihood), -_SUREST, _SUREST)
        llr[~left] = llr[~left] * 0 + _prior_llr(scheme)
        bits, ok = ecc.decode(code, llr.reshape(-1), parity.reshape(-1), np.repeat(left, scheme.parity))
        if ok:
            bits = np.asarray(bits).reshape(llr.shape)
            changed = int(((llr < 0) != bits)[left].sum())
            return ecc.levels(bits, scheme.levels), True, changed
    return guess, False, 0


def _prior_llr(scheme):
    """Log-likelihood ratios of the bits of a level of which nothing is known: float32[level bits]."""
    return ecc.bit_llr(np.log(np.maximum(capacity.chain(scheme.table, overhead=scheme.overhead).level_share, 1e-9)))


# ---- reading -----------------------------------------------------------------------------------------


def decode(reads, scheme, *, progress=None):
    """Reads -> (bytes, Report). Raises DecodeError unless every byte is recovered and the digest matches."""
    received = recover(reads, scheme, progress=progress)
    report = received.report
    if report.lost_strands:
        raise DecodeError(
            f"{report.lost_strands} of {report.source_strands} source strands are lost, past the repair strands: more "
            "copies of each strand are needed"
        )
    if not report.verified:
        raise DecodeError("the bytes do not match their digest, and the wrong strand cannot be located")
    return received.data, report


def recover(reads, scheme, *, progress=None):
    """Reads -> Received: what can be had of the bytes.

    reads: list of uint8 arrays, bases 0..3, copies of all strands in any order.
    Raises DecodeError where not even the length of the content comes back.
    """
    if not len(reads):
        raise DecodeError("no reads")
    labels = clustering.cluster(reads, progress=_step(progress, "clusters", len(reads)))
    copies, lengths = _stack(reads, labels, _MOST_COPIES * scheme.copies)
    aligned = _align(scheme, copies, lengths, _step(progress, "align", len(copies)))
    return _repair(scheme, aligned, len(reads), len(copies), progress)


@dataclass(frozen=True, eq=False)
class _Strands:
    """Strands that were read. index: int64[m], ascending. letters: uint8[m, data], of the path. likelihood: float32[m,
    data, levels], log, prior in. parity: uint8[m, parity]. doubt: float32[m]. aligned: clusters that gave them."""

    index: np.ndarray
    letters: np.ndarray
    likelihood: np.ndarray
    parity: np.ndarray
    doubt: np.ndarray
    aligned: int


def _stack(reads, labels, most):
    """Clusters of reads -> (copies uint8[c, N, L], padded with alignment.PAD; lengths int32[c, N]), largest first."""
    order = np.argsort(labels, kind="stable")
    edges = np.flatnonzero(np.diff(labels[order], prepend=-1, append=-1))
    groups = sorted((order[a:b][:most] for a, b in itertools.pairwise(edges)), key=len, reverse=True)
    longest = -(-max(max(len(read) for read in reads), 1) // 64) * 64
    copies = np.full((len(groups), len(groups[0]), longest), alignment.PAD, np.uint8)
    lengths = np.zeros(copies.shape[:2], np.int32)
    for place, group in enumerate(groups):
        for n, read in enumerate(group):
            copies[place, n, : len(reads[read])], lengths[place, n] = reads[read], len(reads[read])
    return copies, lengths


def _align_batch(known, copies, lengths, *, layout, beam, window):
    def one(pair):
        return alignment.align(known, *pair, layout=layout, beam=beam, window=window)

    return lax.map(one, (copies, lengths))


def _soften_batch(known, letters, levels, copies, lengths, *, layout, window):
    def one(strand):
        return alignment.soft_levels(known, *strand, layout=layout, window=window)[0]

    return lax.map(one, (letters, levels, copies, lengths))


def _rows(strands):
    """Strands per call: few of them are not padded to the most, as alignment takes seconds with a wide beam."""
    devices = len(jax.local_devices())
    return devices * min(_ALIGNED, 1 << (-(-strands // devices) - 1).bit_length())


def _align(scheme, copies, lengths, step):
    """Clusters of copies -> _Strands: those whose letters pass their checks; of two for one index the larger."""
    known = alignment.model(scheme.law, scheme.table, overhead=scheme.overhead)
    layout = scheme.frame
    shape = (len(copies), layout.rounds)
    letters, levels = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    doubt = np.full(len(copies), np.inf, np.float32)
    most = _DOUBT[0] + _DOUBT[1] * (layout.kinds == frame.CHECK).sum()
    for beam in scheme.beams:
        todo = np.flatnonzero(np.isinf(doubt))
        if not len(todo):
            break
        found = parallel.map_batches(
            _align_batch,
            known,
            copies[todo],
            lengths[todo],
            batch=_rows(len(todo)),
            layout=layout,
            beam=beam,
            window=scheme.window,
        )
        good = (found[2] > alignment.NOTHING / 2) & (found[3] <= most)
        done = todo[good]
        letters[done], levels[done], doubt[done] = found[0][good], found[1][good], found[3][good]
        if step:
            step(len(done))
    done = np.flatnonzero(~np.isinf(doubt))
    letters, levels, copies, lengths = letters[done], levels[done], copies[done], lengths[done]
    data, _, digits = parallel.map_batches(_read, np.zeros(1), letters, levels, batch=_BATCH, layout=layout)
    places = frame.trits(scheme.parity)
    parity, legal = frame.trits_to_bits(digits[:, :places], scheme.parity)
    index = np.where(legal, digits[:, places:].astype(np.int64) @ 3 ** np.arange(scheme.index), -1)
    index, first = np.unique(index, return_index=True)  # larger clusters come first
    index, first = index[index >= 0], first[index >= 0]
    if not len(index):
        raise DecodeError(f"no strand of scheme {scheme.name} can be read: too few copies, or another scheme")
    soft = parallel.map_batches(
        _soften_batch, known, letters[first], levels[first], copies[first], lengths[first], batch=_rows(len(first)),
        layout=layout,
        window=scheme.window,
    )  # fmt: skip
    before = np.concatenate([np.zeros_like(letters[:, :1]), letters[:, :-1]], axis=1)
    prior = np.asarray(known.prior)[0][before[first], letters[first]]
    likelihood = (soft + prior)[:, layout.data_rounds]
    return _Strands(index, data[first], likelihood, parity[first], doubt[done][first], len(done))


def _repair(scheme, strands, reads, clusters, progress):
    """Strands as read -> Received. The number of strands follows from the length in the first; else it is tried."""
    index, groups, best = strands.index, {}, None
    for sources in _possible_sources(scheme, strands):
        layout = _layout(scheme, sources)
        symbols, good = np.zeros((len(index), layout.symbol_bytes), np.uint8), np.zeros(len(index), bool)
        corrected = broken = 0
        step = _step(progress, "repair", layout.packets)
        for start in range(0, layout.packets, scheme.group):
            size = min(scheme.group, layout.packets - start)
            rows = np.flatnonzero((index >= start) & (index < start + size))
            if not len(rows):
                continue
            if (start, size) not in groups:
                groups[start, size] = _read_group(scheme, strands, rows, index[rows] - start, size)
                if step:
                    step(size)
            symbols[rows], good[rows], ok, changed = groups[start, size]
            corrected, broken = corrected + changed, broken + (not ok)
        good &= index < layout.packets
        recovered = outer.decode(layout, index[good], symbols[good], lambda payload: _genuine(bytes(payload)))
        lost = recovered.lost | recovered.suspect
        report = Report(
            reads, clusters, strands.aligned, layout.packets, layout.sources, int(lost.sum()), corrected, broken,
            recovered.verified,
        )  # fmt: skip
        if best is None or recovered.verified:
            best = recovered, lost, layout, report
        if recovered.verified:
            break
    if best is None:  # cannot be: the first number always fits
        raise DecodeError("no number of strands fits the scheme")
    return _content(*best)


def _read_group(scheme, strands, rows, place, size):
    """The strands ``rows``, at ``place`` in a group of ``size`` -> (symbols, good bool, ok, level bits changed)."""
    coder = paths.coder(scheme)
    likelihood = np.zeros((size, scheme.data, scheme.levels), np.float32)
    parity, doubt = np.zeros((size, scheme.parity), np.uint8), np.full(size, np.inf, np.float32)
    likelihood[place], parity[place], doubt[place] = strands.likelihood[rows], strands.parity[rows], strands.doubt[rows]
    levels, ok, changed = _correct(scheme, likelihood, parity, doubt)
    symbols, good = paths.read(coder, strands.letters[rows], levels[place])
    return _whiten(symbols, strands.index[rows]), good, ok, changed


def _possible_sources(scheme, strands):
    """Numbers of source strands, the likeliest first: what the first strands tell, and those that fit the indices.

    The last strands may be lost, and the redundancy of the scheme tells what numbers of strands there are.
    """
    told = _told_sources(scheme, strands)
    if told:
        yield told
    seen = int(strands.index.max()) + 1
    most = seen + max(4, seen // 10)
    first = next(n for n in range(1, seen + 1) if _layout(scheme, n).packets >= seen)
    fitting = itertools.takewhile(lambda n: _layout(scheme, n).packets <= most or n == first, itertools.count(first))
    yield from (n for n in fitting if n != told)


def _told_sources(scheme, strands):
    """Number of source strands by the length at the head of the payload; None where that was not read."""
    size = symbol_bytes(scheme)
    head = -(-_LENGTH_BYTES // size)
    if not np.array_equal(strands.index[:head], np.arange(head)):
        return None
    levels = strands.likelihood[:head].argmax(axis=-1).astype(np.uint8)
    symbols, good = paths.read(paths.coder(scheme), strands.letters[:head], levels)
    symbols = _whiten(symbols, strands.index[:head])
    if not good.all() and strands.index[-1] >= scheme.group >= head:  # not the last group: its size is known
        rows = np.flatnonzero(strands.index < scheme.group)
        symbols, good, *_ = _read_group(scheme, strands, rows, strands.index[rows], scheme.group)
    length = int.from_bytes(symbols[:head].tobytes()[:_LENGTH_BYTES], "big")
    sources = -(-(_LENGTH_BYTES + _DIGEST_BYTES + length) // size)
    return sources if good[:head].all() and sources <= 3**scheme.index else None


def _content(recovered, lost, layout, report):
    header = _LENGTH_BYTES + _DIGEST_BYTES
    lost_bytes = np.repeat(lost, layout.symbol_bytes)
    if lost_bytes[:header].any():
        raise DecodeError(
            f"{report.lost_strands} of {report.source_strands} source strands are lost, the first among them, which "
            "tells the length: more copies of each strand are needed"
        )
    payload = recovered.payload
    length = int.from_bytes(payload[:_LENGTH_BYTES], "big")
    if length > len(payload) - header:
        raise DecodeError("the reads do not fit the scheme: the length in their header makes no sense")
    return Received(payload[header : header + length], lost_bytes[header : header + length], report)
