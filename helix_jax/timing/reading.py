"""Reads -> strands of the timing channel: clusters of copies, their alignment, and the likelihoods of the levels."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax import lax
from jaxtyping import Float32, Int, UInt8

from helix_jax import parallel
from helix_jax.errors import DecodeError
from helix_jax.timing import alignment, clustering, frame
from helix_jax.timing import tags as tagging
from helix_jax.timing.scheme import Scheme

_BATCH = 4096  # strands per call of the frame
_ALIGNED = 8  # strands per call and device of the alignment
_MOST_COPIES = 2  # multiple of the copies that the scheme expects; the decoder ignores further copies
_DOUBT = (8.0, 0.5)  # largest doubt with which an alignment is accepted: nats, and nats for each check letter
_ODDS = 3.0  # least log odds against other strings of letters with which version 2 accepts one
_LAST_ODDS = 1.0  # the same of the last search: what is not accepted then is lost
_SWEEPS = 3  # of ``alignment.soft_levels``: the doubt of a level falls by a seventh, and hardly further
_BEGINNINGS = 64  # strings that are looked at for the number of a strand that was not read
_CANDIDATES = 2  # numbers that such a strand may have

Progress = Callable[[str, int, int], None] | None
Reads = Sequence[UInt8[np.ndarray, " _"]]


@dataclass(frozen=True, eq=False)
class Strands:
    """The strands that were read.

    Attributes:
        index: Their numbers in the pool, ascending.
        letters: The letters of their paths.
        likelihood: The log-likelihoods of the levels, which include the prior.
        parity: Their parity bits.
        doubt: The doubt of their alignment.
        clusters: The number of clusters of reads.
        aligned: The number of clusters whose letters passed their checks.
    """

    index: Int[np.ndarray, " m"]
    letters: UInt8[np.ndarray, "m data"]
    likelihood: Float32[np.ndarray, "m data levels"]
    parity: UInt8[np.ndarray, "m parity"]
    doubt: Float32[np.ndarray, " m"]
    clusters: int
    aligned: int


def read(reads: Reads, scheme: Scheme, progress: Progress = None) -> Strands:
    """Read the strands of a pool.

    Args:
        reads: The bases (0..3) of copies of all strands, in any order.
        scheme: The scheme that they were written with.
        progress: Called as progress(station, done, total).

    Returns:
        The strands, one for each index that was read.

    Raises:
        DecodeError: No strand can be read.
    """
    if not len(reads):
        raise DecodeError("no reads")
    labels = clustering.cluster(reads, progress=_step(progress, "clusters", len(reads)))
    copies, lengths = _stack(reads, labels, _MOST_COPIES * scheme.copies)
    return _align(scheme, copies, lengths, _step(progress, "align", len(copies)))


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


def _align_batch(known, copies, lengths, tags, *, layout, beam, window):
    def align(strand):
        copies, lengths, tags = strand
        return alignment.align(known, copies, lengths, layout=layout, beam=beam, window=window, tags=tags)

    return lax.map(align, (copies, lengths, tags))


def _begin_batch(known, copies, lengths, *, layout, beam, window, rounds):
    def begin(pair):
        return alignment.beginnings(
            known, *pair, layout=layout, beam=beam, window=window, rounds=rounds, count=min(beam, _BEGINNINGS)
        )

    return lax.map(begin, (copies, lengths))


def _soften_batch(known, letters, levels, copies, lengths, *, layout, window):
    def soften(strand):
        return alignment.soft_levels(known, *strand, layout=layout, window=window, sweeps=_SWEEPS)[0]

    return lax.map(soften, (letters, levels, copies, lengths))


def _rows(strands):
    """Return the number of strands per call of the alignment.

    A small number is not padded to the full batch, as a strand takes seconds with a wide beam.
    """
    devices = len(jax.local_devices())
    return devices * min(_ALIGNED, 1 << (-(-strands // devices) - 1).bit_length())


def _align(scheme, copies, lengths, step):
    """Align clusters of copies, and return the Strands whose letters pass their checks.

    Of two clusters with the same index, the larger one counts.
    """
    known = alignment.model(scheme.law, scheme.table, costs=scheme.costs, overhead=scheme.overhead)
    layout = scheme.frame
    found = _Found.nothing(len(copies), layout)
    for number, beam in enumerate(scheme.beams):
        todo = np.flatnonzero(np.isinf(found.doubt))
        tags = np.full((len(todo), layout.rounds), -1, np.int32)
        if number and scheme.tags:
            todo, tags = _tagged(scheme, known, found, copies, lengths)
        if not len(todo):
            break
        aligned = parallel.map_batches(
            _align_batch, known, copies[todo], lengths[todo], tags, batch=_rows(len(todo)), layout=layout, beam=beam,
            window=scheme.window,
        )  # fmt: skip
        before = np.isinf(found.doubt).sum()
        found.take(todo, aligned, scheme, _ODDS if number < len(scheme.beams) - 1 else _LAST_ODDS)
        if step:
            step(int(before - np.isinf(found.doubt).sum()))
    done = np.flatnonzero(~np.isinf(found.doubt))
    index, parity = _numbers(scheme, found.letters[done])
    index, first = np.unique(index, return_index=True)  # larger clusters come first
    index, first = index[index >= 0], first[index >= 0]
    if not len(index):
        raise DecodeError(f"no strand of scheme {scheme.name} can be read: too few copies, or another scheme")
    chosen = done[first]
    letters, levels = found.letters[chosen], found.levels[chosen]
    soft = parallel.map_batches(
        _soften_batch, known, letters, levels, copies[chosen], lengths[chosen], batch=_rows(len(chosen)),
        layout=layout,
        window=scheme.window,
    )  # fmt: skip
    data, _, _ = parallel.map_batches(_read, np.zeros(1), letters, levels, batch=_BATCH, layout=layout)
    before = np.concatenate([np.zeros_like(letters[:, :1]), letters[:, :-1]], axis=1)
    prior = np.asarray(known.prior)[0][before, letters]
    likelihood = (soft + prior)[:, layout.data_rounds]
    return Strands(index, data, likelihood, parity[first], found.doubt[chosen], len(copies), len(done))


@dataclass(eq=False)
class _Found:
    """The strings that were found for each cluster; where there is none, the doubt is infinite."""

    letters: UInt8[np.ndarray, "c rounds"]
    levels: UInt8[np.ndarray, "c rounds"]
    doubt: Float32[np.ndarray, " c"]

    @classmethod
    def nothing(cls, clusters, layout):
        shape = (clusters, layout.rounds)
        return cls(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), np.full(clusters, np.inf, np.float32))

    def take(self, clusters, aligned, scheme, least):
        """Take the strings that pass their checks, and whose odds exceed ``least`` in version 2; of several for one
        cluster, that of the best odds."""
        letters, levels, score, doubt, odds = aligned
        most = _DOUBT[0] + _DOUBT[1] * np.count_nonzero(scheme.frame.kinds == frame.CHECK)
        good = (score > alignment.NOTHING / 2) & (doubt <= most)
        if scheme.version > 1:
            good &= odds > least
        for row in np.flatnonzero(good)[np.argsort(odds[good], kind="stable")]:
            cluster = clusters[row]
            self.letters[cluster], self.levels[cluster], self.doubt[cluster] = letters[row], levels[row], doubt[row]


def _numbers(scheme, letters):
    """Return (index or -1, level parity bits) of strands, by the letters of all their rounds."""
    digits, parts = _digits(scheme.frame, letters), scheme.frame.digit_parts
    parity, valid = frame.trits_to_bits(digits[:, parts["parity"]], scheme.parity)
    number = digits[:, parts["index"]].astype(np.int64) @ 3 ** np.arange(scheme.index)
    return np.where(valid, number, -1), parity


def _digits(layout, letters):
    before = np.concatenate([np.zeros_like(letters[:, :1]), letters[:, :-1]], axis=1)
    return ((letters - before - 1) % 4)[:, layout.digit_rounds]


# ---- tags ------------------------------------------------------------------------------------------------


def shared_bytes(
    scheme: Scheme, index: Int[np.ndarray, " n"], letters: UInt8[np.ndarray, "n rounds"]
) -> UInt8[np.ndarray, "n shared"]:
    """Return what each strand of a pool writes of the code of the tags.

    Args:
        scheme: The scheme, which has tags.
        index: The numbers of all strands.
        letters: Their letters; those from the shared digits on do not count.
    """
    own, shared = _tags_of(scheme, letters), np.zeros((len(index), scheme.shared), np.uint8)
    for group in np.unique(index // scheme.group):
        members = np.flatnonzero(index // scheme.group == group)
        full = np.zeros((index[members].max() % scheme.group + 1, scheme.tags), np.uint8)
        full[index[members] % scheme.group] = own[members]
        shared[members] = tagging.parity(scheme.tagging, full)[index[members] % scheme.group]
    return shared


def _tags_of(scheme, letters):
    tags = parallel.map_batches(_tags, np.zeros(1), letters, batch=_BATCH, layout=scheme.frame)
    return tagging.to_bytes(tags)


def _tags(_, letters, *, layout):
    return frame.tags(letters, frame=layout)


def _tagged(scheme, known, found, copies, lengths):
    """Return (clusters to align again, the tags int32[n, rounds] that they must have).

    A cluster comes once for each strand that it may copy, and once without tags where none is known. Strands that were
    misread are forgotten.
    """
    layout, code = scheme.frame, scheme.tagging
    done = np.flatnonzero(~np.isinf(found.doubt))
    index, _ = _numbers(scheme, found.letters[done])
    found.doubt[done[index < 0]] = np.inf
    index, first = np.unique(index, return_index=True)
    index, done = index[index >= 0], done[first][index >= 0]
    own = _tags_of(scheme, found.letters[done]) if len(done) else np.zeros((0, code.columns), np.uint8)
    digits = _digits(layout, found.letters[done])[:, layout.digit_parts["shared"]]
    bits, valid = frame.trits_to_bits(digits, 8 * scheme.shared)
    shared = np.packbits(bits, axis=1)
    clusters, tags, rows = [], {}, []
    for group in np.unique(index // scheme.group).tolist():
        members = np.flatnonzero(index // scheme.group == group)
        position = index[members] % scheme.group
        of_group = tagging.known(code, position, own[members], shared[members], valid[members])
        sure = np.broadcast_to(of_group.sure, of_group.tags.shape)
        tags |= {group * scheme.group + i: row for i, row in enumerate(tagging.from_bytes(of_group.tags, sure))}
        for member in members[of_group.wrong[position]]:
            found.doubt[done[member]] = np.inf
            clusters.append(done[member])
            rows.append(tags[index[member]])
    claimed = set(index.tolist())
    lost = np.setdiff1d(np.flatnonzero(np.isinf(found.doubt)), clusters)
    for cluster, numbers in zip(
        lost, _numbers_at_the_beginning(scheme, known, copies[lost], lengths[lost]), strict=True
    ):
        candidates = [tags[number] for number in numbers if number in tags and number not in claimed][:_CANDIDATES]
        rows += candidates or [np.full(len(layout.tag_rounds), -1, np.int32)]
        clusters += [cluster] * max(1, len(candidates))
    spread = np.full((len(rows), layout.rounds), -1, np.int32)
    if rows:
        spread[:, layout.tag_rounds] = rows
    return np.array(clusters, np.int64), spread


def _numbers_at_the_beginning(scheme, known, copies, lengths):
    """Return the numbers that the first letters of strands may say, the likeliest ones first: a list for each."""
    if not len(copies):
        return []
    layout = scheme.frame
    rounds = min(layout.rounds, int(layout.digit_rounds[scheme.index - 1]) + 1 + 2 * scheme.spacing)
    strings = parallel.map_batches(
        _begin_batch, known, copies, lengths, batch=_rows(len(copies)), layout=layout, beam=scheme.beams[0],
        window=scheme.window, rounds=rounds,
    )  # fmt: skip
    padded = np.zeros((len(copies), strings.shape[1], layout.rounds), np.uint8)
    padded[..., :rounds] = strings
    digits = _digits(layout, padded.reshape(-1, layout.rounds))[:, layout.digit_parts["index"]]
    numbers = (digits.astype(np.int64) @ 3 ** np.arange(scheme.index)).reshape(len(copies), -1)
    return [list(dict.fromkeys(row)) for row in numbers.tolist()]


def _step(progress, station, total):
    return None if progress is None else lambda done: progress(station, done, total)


def _read(_, letters, levels, *, layout):
    return frame.read(letters, levels, frame=layout)
