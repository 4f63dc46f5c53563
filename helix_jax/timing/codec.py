"""From bytes to the schedule of a synthesiser, and from reads back to bytes, in the order of the data.

    bytes
      | header              length and digest are put in front
    payload
      | strands.outer       RaptorQ: repair strands
    symbols uint8[n, s]
      | keyed               made uniform
      | paths               K bits -> a path of G: data letters and levels
    letters, levels uint8[n, data]
      | ecc                 parity of the level bits of a group of strands
      | frame               check letters, parity and index as letters
    letters, durations uint8[n, R] -> schedule

The way back is: reads -> clustering -> alignment (letters, likelihoods of the levels) -> ecc -> paths -> strands.outer.
The error-correcting code is decoded before the constrained coder, as in the paper's pipeline (ISIT 2020).
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax import lax
from jaxtyping import Bool, Float32, Int, UInt8

from helix_jax import keyed, parallel
from helix_jax.errors import DecodeError, HelixError
from helix_jax.strands import outer, packets
from helix_jax.timing import alignment, capacity, clustering, ecc, frame, paths
from helix_jax.timing.schedule import Schedule
from helix_jax.timing.scheme import Scheme

_KEY = b"timing.1"  # the key of the whitening, which makes the payload uniform and hides nothing
_LENGTH_BYTES, _DIGEST_BYTES = 6, 10
_BATCH = 4096  # strands per call of the coder
_ALIGNED = 8  # strands per call and device of the alignment
_MOST_COPIES = 2  # multiple of the copies that the scheme expects; the decoder ignores further copies
_SUREST = 12.0  # largest log-likelihood ratio of a level bit: a misread strand must not be certain of itself
_DOUBT = (8.0, 0.5)  # largest doubt with which an alignment is accepted: nats, and nats for each check letter

Progress = Callable[[str, int, int], None] | None
Reads = Sequence[UInt8[np.ndarray, " _"]]


@dataclass(frozen=True)
class Report:
    """What became of the reads, as counts.

    Attributes:
        reads: The number of reads.
        clusters: The number of their clusters.
        aligned: The clusters whose letters pass their checks.
        strands: The strands of the pool.
        source_strands: The source strands among them.
        lost_strands: The source strands that are lost beyond repair.
        corrected: The level bits that the error-correcting code changed.
        broken_groups: The groups of strands in which that code failed.
        verified: The digest of the bytes matches.
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
    """The bytes as far as they came back.

    Attributes:
        data: The bytes, with zeros for those that are lost.
        lost: The mask of the lost bytes.
        report: What became of the reads.
    """

    data: bytes
    lost: Bool[np.ndarray, " n"]
    report: Report


# ---- writing -----------------------------------------------------------------------------------------


def symbol_bytes(scheme: Scheme) -> int:
    """Return the number of payload bytes of a strand."""
    return paths.coder(scheme).bits // 8


def encode(data: bytes, scheme: Scheme, *, progress: Progress = None) -> Schedule:
    """Encode bytes into a schedule.

    Args:
        data: The bytes.
        scheme: The scheme, which the reader must know too.
        progress: Called as progress(station, done, total).

    Returns:
        The schedule of all strands.

    Raises:
        HelixError: The bytes need more strands than the scheme's index can number.
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
    """Return the PacketLayout of a pool of ``sources`` source strands, for the outer code.

    The index and the check are not in its packets: ``frame`` puts them into the letters.
    """
    size = symbol_bytes(scheme)
    layout = packets.PacketLayout(8 * size + 33, size, 32, 1, sources * size, 0)
    return dataclasses.replace(layout, repairs=packets.repairs_of(scheme.redundancy, layout.block_sources[0]))


def _whiten(symbols, index=None):
    """Xor symbols uint8[n, s] with a fixed stream; this is its own inverse.

    index: int[n], the numbers of the strands (by default 0, 1, ...).
    """
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
    """Return the parity bits of all strands: levels uint8[n, data] -> uint8[n, scheme.parity]."""
    parity = np.zeros((len(levels), scheme.parity), np.uint8)
    for start in range(0, len(levels), scheme.group) if scheme.parity and scheme.level_bits else ():
        group = levels[start : start + scheme.group]
        code = _code(scheme, len(group))
        bits = ecc.level_bits(group, scheme.levels).reshape(-1)
        parity[start : start + len(group)] = np.asarray(ecc.encode(code, bits)).reshape(len(group), -1)
    return parity


def _code(scheme, strands):
    """Return the error-correcting code of a group of so many strands."""
    return ecc.design(strands * scheme.data * scheme.level_bits, strands * scheme.parity)


def _correct(scheme, likelihood, parity, doubt):
    """Decode the error-correcting code of one group of strands.

    Where the code fails, the most doubtful strands are regarded as misread and left out, more of them at each attempt:
    wrong parity bits would spoil the whole group.

    Args:
        likelihood: float32[g, data, levels], logarithms that include the prior.
        parity: uint8[g, parity].
        doubt: float32[g], the doubt of the alignment of each strand, which is infinite for a strand that was not read.

    Returns:
        (levels uint8[g, data], whether the code succeeded, the number of level bits that it changed).
    """
    guess = likelihood.argmax(axis=-1).astype(np.uint8)
    if not (scheme.parity and scheme.level_bits):
        return guess, True, 0
    code = _code(scheme, len(likelihood))
    order = np.argsort(-np.where(np.isinf(doubt), -1, doubt))
    was_read = ~np.isinf(doubt)
    for dropped in (0, 1, 2, 4, 8):
        if dropped > was_read.sum() // 4:
            break
        kept = was_read.copy()
        kept[order[:dropped]] = False
        llr = np.clip(ecc.bit_llr(likelihood), -_SUREST, _SUREST)
        llr[~kept] = _prior_llr(scheme)
        bits, ok = ecc.decode(code, llr.reshape(-1), parity.reshape(-1), np.repeat(kept, scheme.parity))
        if ok:
            bits = np.asarray(bits).reshape(llr.shape)
            changed = int(((llr < 0) != bits)[kept].sum())
            return ecc.levels(bits, scheme.levels), True, changed
    return guess, False, 0


def _prior_llr(scheme):
    """Return the prior log-likelihood ratios of the bits of a level: float32[level bits]."""
    return ecc.bit_llr(np.log(np.maximum(capacity.chain(scheme.table, overhead=scheme.overhead).level_share, 1e-9)))


# ---- reading -----------------------------------------------------------------------------------------


def decode(reads: Reads, scheme: Scheme, *, progress: Progress = None) -> tuple[bytes, Report]:
    """Decode reads into the bytes that were encoded.

    Args:
        reads: The bases (0..3) of copies of all strands, in any order.
        scheme: The scheme that the bytes were encoded with.
        progress: Called as progress(station, done, total).

    Returns:
        The bytes, and the report on the reads.

    Raises:
        DecodeError: Not every byte can be recovered, or the digest does not match.
    """
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


def recover(reads: Reads, scheme: Scheme, *, progress: Progress = None) -> Received:
    """Recover as many bytes as possible from reads.

    Args:
        reads: The bases (0..3) of copies of all strands, in any order.
        scheme: The scheme that the bytes were encoded with.
        progress: Called as progress(station, done, total).

    Returns:
        The bytes, the mask of the lost ones, and the report on the reads.

    Raises:
        DecodeError: Not even the length of the content can be recovered.
    """
    if not len(reads):
        raise DecodeError("no reads")
    labels = clustering.cluster(reads, progress=_step(progress, "clusters", len(reads)))
    copies, lengths = _stack(reads, labels, _MOST_COPIES * scheme.copies)
    aligned = _align(scheme, copies, lengths, _step(progress, "align", len(copies)))
    return _repair(scheme, aligned, len(reads), len(copies), progress)


@dataclass(frozen=True, eq=False)
class _Strands:
    """The strands that were read.

    Attributes:
        index: Their numbers in the pool, ascending.
        letters: The letters of their paths.
        likelihood: The log-likelihoods of the levels, which include the prior.
        parity: Their parity bits.
        doubt: The doubt of their alignment.
        aligned: The number of clusters that they come from.
    """

    index: Int[np.ndarray, " m"]
    letters: UInt8[np.ndarray, "m data"]
    likelihood: Float32[np.ndarray, "m data levels"]
    parity: UInt8[np.ndarray, "m parity"]
    doubt: Float32[np.ndarray, " m"]
    aligned: int


def _stack(reads, labels, most):
    """Stack clusters of reads into (copies uint8[c, N, L], lengths int32[c, N]), the largest cluster first.

    Copies are padded with alignment.PAD.
    """
    order = np.argsort(labels, kind="stable")
    edges = np.flatnonzero(np.diff(labels[order], prepend=-1, append=-1))
    groups = sorted((order[a:b][:most] for a, b in itertools.pairwise(edges)), key=len, reverse=True)
    longest = -(-max(max(len(read) for read in reads), 1) // 64) * 64
    copies = np.full((len(groups), len(groups[0]), longest), alignment.PAD, np.uint8)
    lengths = np.zeros(copies.shape[:2], np.int32)
    for row, group in enumerate(groups):
        for n, read in enumerate(group):
            copies[row, n, : len(reads[read])], lengths[row, n] = reads[read], len(reads[read])
    return copies, lengths


def _align_batch(known, copies, lengths, *, layout, beam, window):
    def align(pair):
        return alignment.align(known, *pair, layout=layout, beam=beam, window=window)

    return lax.map(align, (copies, lengths))


def _soften_batch(known, letters, levels, copies, lengths, *, layout, window):
    def soften(strand):
        return alignment.soft_levels(known, *strand, layout=layout, window=window)[0]

    return lax.map(soften, (letters, levels, copies, lengths))


def _rows(strands):
    """Return the number of strands per call of the alignment.

    A small number is not padded to the full batch, as a strand takes seconds with a wide beam.
    """
    devices = len(jax.local_devices())
    return devices * min(_ALIGNED, 1 << (-(-strands // devices) - 1).bit_length())


def _align(scheme, copies, lengths, step):
    """Align clusters of copies, and return the _Strands whose letters pass their checks.

    Of two clusters with the same index, the larger one counts.
    """
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
        aligned = parallel.map_batches(
            _align_batch,
            known,
            copies[todo],
            lengths[todo],
            batch=_rows(len(todo)),
            layout=layout,
            beam=beam,
            window=scheme.window,
        )
        good = (aligned[2] > alignment.NOTHING / 2) & (aligned[3] <= most)
        done = todo[good]
        letters[done], levels[done], doubt[done] = aligned[0][good], aligned[1][good], aligned[3][good]
        if step:
            step(len(done))
    done = np.flatnonzero(~np.isinf(doubt))
    letters, levels, copies, lengths = letters[done], levels[done], copies[done], lengths[done]
    data, _, digits = parallel.map_batches(_read, np.zeros(1), letters, levels, batch=_BATCH, layout=layout)
    parity_digits = frame.trits(scheme.parity)
    parity, valid = frame.trits_to_bits(digits[:, :parity_digits], scheme.parity)
    index = np.where(valid, digits[:, parity_digits:].astype(np.int64) @ 3 ** np.arange(scheme.index), -1)
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
    """Correct the strands that were read, and return what was Received.

    The number of strands follows from the length in the first strand; where that is lost, possible numbers are tried.
    """
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
    if best is None:  # impossible: the first number always fits
        raise DecodeError("no number of strands fits the scheme")
    return _content(*best)


def _read_group(scheme, strands, rows, position, size):
    """Read the strands ``rows``, which stand at ``position`` in a group of ``size`` strands.

    Returns (symbols, good bool[rows], whether the code succeeded, the number of level bits that it changed).
    """
    coder = paths.coder(scheme)
    likelihood = np.zeros((size, scheme.data, scheme.levels), np.float32)
    parity, doubt = np.zeros((size, scheme.parity), np.uint8), np.full(size, np.inf, np.float32)
    likelihood[position], parity[position] = strands.likelihood[rows], strands.parity[rows]
    doubt[position] = strands.doubt[rows]
    levels, ok, changed = _correct(scheme, likelihood, parity, doubt)
    symbols, good = paths.read(coder, strands.letters[rows], levels[position])
    return _whiten(symbols, strands.index[rows]), good, ok, changed


def _possible_sources(scheme, strands):
    """Yield possible numbers of source strands, the likeliest first.

    The first is the number that the first strands state. The others are those that fit the indices: the last strands
    may be lost, and the redundancy of the scheme says which numbers of strands are possible.
    """
    stated = _stated_sources(scheme, strands)
    if stated:
        yield stated
    seen = int(strands.index.max()) + 1
    most = seen + max(4, seen // 10)
    first = next(n for n in range(1, seen + 1) if _layout(scheme, n).packets >= seen)
    fitting = itertools.takewhile(lambda n: _layout(scheme, n).packets <= most or n == first, itertools.count(first))
    yield from (n for n in fitting if n != stated)


def _stated_sources(scheme, strands):
    """Return the number of source strands by the length at the head of the payload; None where that was not read."""
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
