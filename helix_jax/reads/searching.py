"""Clusters of copies -> lists of strands, the most likely first; and from the largest clusters, length and error rates.

``consensus`` searches one batch; this module chooses the copies of each cluster and the shapes of the batches.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from helix_jax import parallel
from helix_jax.reads import clustering, consensus, edits, trimming
from helix_jax.reads.consensus import Rates
from helix_jax.reads.trimming import Copies
from helix_jax.tk_scone import coder, tables
from helix_jax.tk_scone.coder import DeviceTables, Shape
from helix_jax.tk_scone.constraints import Constraints

# Copies used: a cluster takes the least of these that holds it, or the last; the second search may take more.
COPIES, ALL_COPIES = (1, 4, 16), (1, 4, 16, 48)
BEAMS, WIDE_BEAMS = (32, 32, 8), (512, 128, 32, 32)  # beginnings followed, for each of these numbers of copies
KEPT, KEPT_WIDE = 8, max(WIDE_BEAMS)  # strands of each cluster that a search keeps
BAND, WIDE_BAND = 24, 96
ROOM = 1 << 24  # positions in the bands of a call, which bounds its memory (about 16 bytes each)
BATCHES = (256, 128, 64, 32)  # clusters of a call, for each of ALL_COPIES
PART = 1024  # clusters whose reads are gathered, and in the second search listed, at once
LENGTHS = 3  # lengths of the strands tried one after the other, where the length is in doubt, until a header is found
SAMPLE = 64  # clusters that determine the strands' length and the error rates
IMPOSSIBLE = -1e8

Clusters = Sequence[Int64[np.ndarray, " _"]]  # numbers of copies
Step = Callable[[int], None] | None


@dataclass(frozen=True)
class Question:
    """What is searched for in clusters: the first search, or the wider one where the constraints are known.

    Attributes:
        length: Bases of a strand.
        rates: What is known of the channel.
        constraints: What the strands obey, None in the first search.
    """

    length: int
    rates: Rates
    constraints: Constraints | None = None

    def lists(
        self, copies: Copies, clusters: Clusters, progress: Step = None
    ) -> tuple[UInt8[np.ndarray, "n k L"], Float32[np.ndarray, "n k"]]:
        """Return lists of strands of clusters of copies, and their scores (``search``)."""
        if self.constraints is None:
            automaton = consensus.unconstrained(self.length)
            return search(copies, clusters, automaton, self.rates, BEAMS, KEPT, progress)[:2]
        automaton = _automaton(self.constraints, self.length)
        return search(copies, clusters, automaton, self.rates, WIDE_BEAMS, KEPT_WIDE, progress, sizes=ALL_COPIES)[:2]

    @property
    def most(self) -> int:
        """Copies of a cluster that are used, at most."""
        return (COPIES if self.constraints is None else ALL_COPIES)[-1]


@functools.lru_cache(maxsize=1)
def _automaton(constraints, length):
    return coder.on_device(tables.load(constraints, length))


@runtime_checkable
class Hands(Protocol):
    """Who does the work that can be divided: this process, or those of ``spread``.

    Attributes:
        part: Clusters of the wider search after which it is seen whether there are strands enough.
    """

    part: int

    def clusters(self, copies: Copies, progress: Step = None) -> list[Int64[np.ndarray, " _"]]:
        """Return the clusters of copies; ``progress`` is called with how many copies are newly done."""
        ...

    def lists(
        self, question: Question, copies: Copies, clusters: Clusters, progress: Step = None
    ) -> tuple[UInt8[np.ndarray, "n k L"], Float32[np.ndarray, "n k"]]:
        """Return ``question.lists`` of clusters; ``progress`` is called with how many clusters are newly done."""
        ...


class Here:
    """This process (``Hands``)."""

    part = PART

    def clusters(self, copies: Copies, progress: Step = None) -> list[Int64[np.ndarray, " _"]]:
        """See ``Hands``."""
        return grouped(clustering.cluster(copies.bases, copies.lengths, progress=progress))

    def lists(
        self, question: Question, copies: Copies, clusters: Clusters, progress: Step = None
    ) -> tuple[UInt8[np.ndarray, "n k L"], Float32[np.ndarray, "n k"]]:
        """See ``Hands``."""
        return question.lists(copies, clusters, progress)


def grouped(labels: Int64[np.ndarray, " n"]) -> list[Int64[np.ndarray, " _"]]:
    """Return the clusters of copies as arrays of their numbers, in the order of the labels 0, 1, .."""
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1]) if len(labels) else []


def lengths(copies: Copies, clusters: Clusters) -> list[int]:
    """Return the lengths that the strands may have, the most likely first."""
    longest = -(-int(copies.lengths.max()) // 32) * 32
    room, rates = consensus.unconstrained(longest), Rates(np.float32(trimming.DOUBT), np.float32(0.5))
    largest, _, ends = _sample(copies, clusters, room, rates, band=WIDE_BAND)
    votes = np.bincount(1 + ends.argmax(axis=1), weights=[len(cluster) for cluster in largest])
    order = np.argsort(-votes, kind="stable")[:LENGTHS]
    return order[votes[order] >= votes[order[0]] / 2].tolist()


def measure(copies: Copies, clusters: Clusters, length: int) -> tuple[Float32[np.ndarray, " 96"], Rates]:
    """Return what quality marks are worth, scaled to the errors of the largest clusters, and the rates of the errors.

    Args:
        copies: The copies.
        clusters: Their clusters.
        length: Bases of a strand.

    Returns:
        The probability that a base is wrong by its mark (``Copies.doubts``), and the rates.
    """
    rates = Rates(np.float32(trimming.DOUBT), np.float32(0.5))
    largest, strands, _ = _sample(copies, clusters, consensus.unconstrained(length), rates)
    pairs = [(strands[n], read) for n in range(len(largest)) for read in largest[n][: COPIES[-1]]]
    substitutions, insertions, deletions = count_errors(copies, pairs, length).mean(axis=1) / len(pairs)
    wrong = substitutions + insertions
    doubted = np.concatenate([copies.doubt(read)[: copies.lengths[read]] for _, read in pairs]).mean()
    doubts = (copies.doubts * (max(wrong, 1e-3) / doubted)).clip(1e-4, 0.75).astype(np.float32)
    return doubts, Rates(
        np.float32(max(deletions, 1e-3)), np.float32(np.clip(insertions / max(wrong, 1e-6), 0.02, 0.98))
    )


def count_errors(
    copies: Copies, pairs: Iterable[tuple[UInt8[np.ndarray, " L"], int | np.integer]], length: int
) -> Int64[np.ndarray, "3 {length}"]:
    """Count the errors of copies by ``edits.by_position``; the pairs are of a strand and the number of a copy of it."""
    return edits.by_position(((strand, copies.bases[read][: copies.lengths[read]]) for strand, read in pairs), length)


def _sample(copies, clusters, automaton, rates, band=BAND):
    """Run ``search`` on the largest clusters: (those clusters, strands uint8[n, L], ends float32[n, L])."""
    order = np.argsort([-len(cluster) for cluster in clusters], kind="stable")
    largest = [clusters[number] for number in order[:SAMPLE]]
    sizes = COPIES[min(np.searchsorted(COPIES, len(largest[0])), len(COPIES) - 1)]
    strands, _, ends = search(copies, largest, automaton, rates, BEAMS, 1, band=band, sizes=(sizes,))
    return largest, strands[:, 0], ends


def search(
    copies: Copies,
    clusters: Clusters,
    automaton: tuple[DeviceTables, Shape],
    rates: Rates,
    beams: Sequence[int],
    kept: int,
    progress: Step = None,
    *,
    band: int = BAND,
    sizes: Sequence[int] = COPIES,
) -> tuple[UInt8[np.ndarray, "n {kept} L"], Float32[np.ndarray, "n {kept}"], Float32[np.ndarray, "n L"]]:
    """Search for the strands of clusters.

    Args:
        copies: The copies.
        clusters: The clusters, as numbers of copies.
        automaton: What the strands obey, as ``tk_scone.coder.on_device`` gives it.
        rates: What is known of the channel.
        beams: Beginnings followed, for each of ALL_COPIES.
        kept: The strands that are kept of each cluster.
        progress: Called with how many more clusters are done.
        band: See ``consensus.candidates``.
        sizes: Copies used, some of ALL_COPIES.

    Returns:
        The strands of each cluster, their scores, and the scores of the lengths, as ``consensus.candidates`` has them.
    """
    arrays, shape = automaton
    count = len(clusters)
    strands = np.zeros((count, kept, shape.length), np.uint8)
    score = np.full((count, kept), 2 * IMPOSSIBLE, np.float32)
    ends = np.zeros((count, shape.length), np.float32)
    reads = np.array([len(cluster) for cluster in clusters], int)
    size = np.minimum(np.searchsorted(sizes, reads), len(sizes) - 1)
    for rank, most in enumerate(sizes):
        beam = beams[ALL_COPIES.index(most)]
        # The batch is the same for every pool, so that few shapes are compiled, but smaller where long strands would
        # take much memory.
        room = ROOM // (shape.length * most * max(band, beam // 4))
        batch = max(1, min(BATCHES[ALL_COPIES.index(most)], 1 << room.bit_length() - 1))
        keep = min(beam, kept)
        everything = np.flatnonzero(size == rank)
        for rows in np.split(everything, range(PART, len(everything), PART)) if len(everything) else ():
            chosen = np.full((len(rows), most), -1)
            for row, number in enumerate(rows):
                best = nearest(copies, clusters[number], most)
                chosen[row, : len(best)] = best
            present = np.where(chosen >= 0, copies.lengths[chosen], 0).astype(np.int32)
            lists = parallel.map_batches(
                consensus.candidates, (arrays, rates), copies.bases[chosen], present, copies.doubt(chosen), batch=batch,
                progress=progress, shape=shape, beam=beam, band=band,
            )  # fmt: skip
            strands[rows, :keep], score[rows, :keep], ends[rows] = lists[0][:, :keep], lists[1][:, :keep], lists[2]
    return strands, score, ends


def nearest(copies: Copies, cluster: Int64[np.ndarray, " _"], most: int) -> Int64[np.ndarray, " _"]:
    """Return the copies of a cluster whose length is nearest to the usual one, ``most`` at most."""
    far = np.abs(copies.lengths[cluster] - copies.usual)
    return cluster[np.argsort(far, kind="stable")[:most]]
