"""Reads -> strands of the timing channel: clusters of copies, their alignment, and the likelihoods of the levels."""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax import lax
from jaxtyping import Float32, Int, UInt8

from helix_jax import parallel
from helix_jax.errors import DecodeError
from helix_jax.timing import alignment, both_ways, clustering, frame
from helix_jax.timing.scheme import Scheme

_BATCH = 4096  # strands per call of the frame
_ALIGNED = 8  # strands per call and device of the alignment
_MOST_COPIES = 2  # multiple of the copies that the scheme expects; the decoder ignores further copies
_DOUBT = (8.0, 0.5)  # largest doubt with which an alignment is accepted: nats, and nats for each check letter
_MEETING_DOUBT = 20.0  # the same in nats where strings meet from both ends

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


def _align_batch(known, copies, lengths, *, layout, beam, window):
    def align(pair):
        return alignment.align(known, *pair, layout=layout, beam=beam, window=window)

    return lax.map(align, (copies, lengths))


def _one_way_batch(known, copies, lengths, *, layout, beam, window):
    align = functools.partial(both_ways.one_way, known, layout=layout, count=beam, window=window)
    return jax.vmap(align)(copies, lengths)


def _both_ways_batch(known, copies, lengths, *, layout, beam, window):
    align = functools.partial(both_ways.both_ways, known, layout=layout, count=beam, window=window)
    return jax.vmap(align)(copies, lengths)


def _searches(scheme):
    """Return what the alignment tries one after the other, as (function, beam, largest doubt)."""
    if scheme.reversible:
        first, *others = scheme.beams
        return [(_one_way_batch, first, 0.0), *((_both_ways_batch, beam, _MEETING_DOUBT) for beam in others)]
    most = _DOUBT[0] + _DOUBT[1] * np.count_nonzero(scheme.frame.kinds == frame.CHECK)
    return [(_align_batch, beam, most) for beam in scheme.beams]


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
    """Align clusters of copies, and return the Strands whose letters pass their checks.

    Of two clusters with the same index, the larger one counts.
    """
    clusters = len(copies)
    known = alignment.model(scheme.law, scheme.table, overhead=scheme.overhead)
    layout = scheme.frame
    shape = (len(copies), layout.rounds)
    letters, levels = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    doubt = np.full(len(copies), np.inf, np.float32)
    for search, beam, most in _searches(scheme):
        todo = np.flatnonzero(np.isinf(doubt))
        if not len(todo):
            break
        aligned = parallel.map_batches(
            search,
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
    return Strands(index, data[first], likelihood, parity[first], doubt[done][first], clusters, len(done))


def _step(progress, station, total):
    return None if progress is None else lambda done: progress(station, done, total)


def _read(_, letters, levels, *, layout):
    return frame.read(letters, levels, frame=layout)
