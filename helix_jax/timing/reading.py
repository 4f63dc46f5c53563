"""Reads -> strands of the timing channel: clusters of copies, their alignment, and the likelihoods of the levels."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jax import lax
from jaxtyping import Float32, Int, Int32, UInt8

from helix_jax import parallel
from helix_jax.errors import DecodeError
from helix_jax.timing import alignment, clustering, frame, search
from helix_jax.timing.scheme import Scheme
from helix_jax.timing.window import Model

_MOST_COPIES = 2  # multiple of the copies that the scheme expects; the decoder ignores further copies
_SWEEPS = 2  # of ``alignment.soft_levels``: the doubt of the levels falls by a third, and no further

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
        odds: The odds of their letters, or 0 in version 1.
        clusters: The number of clusters of reads.
        aligned: The number of clusters whose letters passed their checks.
        total: How many strands the pool has, by the code of the tags, or 0 where it does not say so.
    """

    index: Int[np.ndarray, " m"]
    letters: UInt8[np.ndarray, "m data"]
    likelihood: Float32[np.ndarray, "m data levels"]
    parity: UInt8[np.ndarray, "m parity"]
    doubt: Float32[np.ndarray, " m"]
    odds: Float32[np.ndarray, " m"]
    clusters: int
    aligned: int
    total: int


def read(reads: Reads, scheme: Scheme, progress: Progress = None) -> Iterator[Strands]:
    """Read the strands of a pool.

    The last few strands take most of the time, and may not be needed. So the others come first.

    Args:
        reads: The bases (0..3) of copies of all strands, in any order.
        scheme: The scheme that they were written with.
        progress: Called as progress(station, done, total).

    Yields:
        The strands, one for each index that was read: perhaps without some that are hard to read, and then with more.

    Raises:
        DecodeError: No strand can be read.
    """
    if not len(reads):
        raise DecodeError("no reads")
    labels = clustering.cluster(reads, progress=_step(progress, "clusters", len(reads)))
    copies, lengths = _stack(reads, labels, _MOST_COPIES * scheme.copies)
    known = alignment.model(scheme.law, scheme.table, costs=scheme.costs, overhead=scheme.overhead)
    for found in search.search(scheme, known, copies, lengths, _step(progress, "align", len(copies))):
        yield _weighed(scheme, known, found, copies, lengths)


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


def _weighed(scheme, known, found, copies, lengths):
    """Return the Strands of which strings were found, with the likelihoods of their levels."""
    layout, chosen = scheme.frame, found.surest()
    if not len(chosen):
        raise DecodeError(f"no strand of scheme {scheme.name} can be read: too few copies, or another scheme")
    letters, levels = found.letters[chosen], found.levels[chosen]
    index, parity = search.numbers(scheme, letters)
    likelihood = likelihoods(scheme, known, letters, copies[chosen], lengths[chosen])
    data, _, _ = parallel.map_batches(_read, np.zeros(1), letters, levels, batch=search.BATCH, layout=layout)
    done = int(found.done.sum())
    return Strands(
        index, data, likelihood, parity, found.doubt[chosen], found.odds[chosen], len(copies), done, found.total
    )


def likelihoods(
    scheme: Scheme,
    known: Model,
    letters: UInt8[np.ndarray, "m rounds"],
    copies: UInt8[np.ndarray, "m N L"],
    lengths: Int32[np.ndarray, "m N"],
) -> Float32[np.ndarray, "m data levels"]:
    """Return the log-likelihoods of the levels of the data rounds, which include the prior.

    Args:
        scheme: The scheme.
        known: The model of its channel.
        letters: The letters of all rounds.
        copies: The copies of each strand.
        lengths: Their lengths.
    """
    soft = parallel.map_batches(
        _soften_batch, known, letters, copies, lengths, batch=search.rows(len(letters)), layout=scheme.frame,
        window=scheme.window,
    )  # fmt: skip
    before = np.concatenate([np.zeros_like(letters[:, :1]), letters[:, :-1]], axis=1)
    prior = np.asarray(known.prior)[0][before, letters]
    return (soft + prior)[:, scheme.frame.data_rounds]


def _soften_batch(known, letters, copies, lengths, *, layout, window):
    def soften(strand):
        return alignment.soft_levels(known, *strand, layout=layout, window=window, sweeps=_SWEEPS)[0]

    return lax.map(soften, (letters, copies, lengths))


def _read(_, letters, levels, *, layout):
    return frame.read(letters, levels, frame=layout)


def _step(progress, station, total):
    return None if progress is None else lambda done: progress(station, done, total)
