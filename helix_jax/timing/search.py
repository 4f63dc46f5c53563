"""The search for the strings of letters and levels of all clusters: one beam after the other, and tags from the second.

What a search does not find is tried again with the next beam. Where the scheme has tags (``tags``), the strands that
were found give those of the others. A cluster that was not read is then aligned once for each strand that its first
letters may name, with the tags of that strand.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jaxtyping import Bool, Float32, Int, Int32, Int64, UInt8

from helix_jax import parallel
from helix_jax.timing import alignment, frame
from helix_jax.timing import tags as tagging
from helix_jax.timing.scheme import Scheme
from helix_jax.timing.window import Model

BATCH = 4096  # strands per call of the frame
_ALIGNED = 8  # strands per call and device of the alignment
_DOUBT = (8.0, 0.5)  # largest doubt with which an alignment is accepted: nats, and nats for each check letter
_ODDS = 3.0  # least log odds against other strings of letters with which version 2 accepts one
_LAST_ODDS = 0.0  # the same of the last search where all tags are known: what is not accepted then is lost
_ENOUGH = 15 / 16  # of the clusters: the payload may come back from these
_BEGINNINGS = 64  # strings that are looked at for the number of a strand that was not read
_HEADS, _GAP = 64, 8  # strands of a header at most, at the end of the index, and missing numbers before them at least
_CANDIDATES = 2  # numbers that such a strand may have


@dataclass(eq=False)
class Found:
    """The strings that were found for each cluster.

    Attributes:
        letters: The letters of all rounds.
        levels: Their levels.
        doubt: The doubt of the alignment.
        odds: Its odds, by which one of two clusters with the same number is chosen; 0 for version 1, where the larger
            cluster is.
        number: The number of the strand in its pool, or -1 where nothing was found.
        total: How many strands the pool has, by the code of the tags, or 0 where it does not say so.
    """

    letters: UInt8[np.ndarray, "c rounds"]
    levels: UInt8[np.ndarray, "c rounds"]
    doubt: Float32[np.ndarray, " c"]
    odds: Float32[np.ndarray, " c"]
    number: Int64[np.ndarray, " c"]
    total: int = 0

    @classmethod
    def nothing(cls, clusters: int, layout: frame.Frame) -> "Found":
        """Return the state before the first search."""
        letters, zero = np.zeros((clusters, layout.rounds), np.uint8), np.zeros(clusters, np.float32)
        return cls(letters, letters.copy(), zero, zero.copy(), np.full(clusters, -1, np.int64))

    @property
    def done(self) -> Bool[np.ndarray, " c"]:
        """The mask of the clusters for which a string was found."""
        return self.number >= 0

    def surest(self) -> Int[np.ndarray, " m"]:
        """Return one cluster for each number that was found, in the order of the numbers."""
        order = np.argsort(-self.odds, kind="stable")
        order = order[self.done[order]]
        return order[np.unique(self.number[order], return_index=True)[1]]

    def take(
        self, targets: "Targets", aligned: Sequence[np.ndarray], scheme: Scheme, least: Float32[np.ndarray, " n"]
    ) -> None:
        """Take the strings that pass their checks; of several for one cluster, the one with the best odds.

        Args:
            targets: What was aligned.
            aligned: What ``alignment.align`` returned.
            scheme: The scheme.
            least: What the odds of each must exceed in version 2.
        """
        letters, levels, score, doubt, odds = aligned
        most = _DOUBT[0] + _DOUBT[1] * np.count_nonzero(scheme.frame.kinds == frame.CHECK)
        number, _ = numbers(scheme, letters)
        good = (score > alignment.NOTHING / 2) & (doubt <= most) & (number >= 0)
        good &= (targets.number < 0) | (number == targets.number)
        if scheme.version > 1:
            good &= odds > least
        for row in np.flatnonzero(good)[np.argsort(odds[good], kind="stable")]:
            cluster = targets.clusters[row]
            self.letters[cluster], self.levels[cluster], self.doubt[cluster] = letters[row], levels[row], doubt[row]
            self.odds[cluster], self.number[cluster] = odds[row] if scheme.version > 1 else 0, number[row]


class Targets(NamedTuple):
    """What is aligned: clusters, each perhaps several times.

    Attributes:
        clusters: The clusters.
        number: The number of the strand whose copies they are taken for, or -1 for any.
        tags: The tags that the letters must have (``alignment.align``).
    """

    clusters: Int64[np.ndarray, " n"]
    number: Int64[np.ndarray, " n"]
    tags: Int32[np.ndarray, "n rounds"]


def search(
    scheme: Scheme,
    known: Model,
    copies: UInt8[np.ndarray, "c N L"],
    lengths: Int32[np.ndarray, "c N"],
    step: Callable[[int], None] | None,
) -> Iterator[Found]:
    """Search for the strings of all clusters, with the beams of the scheme one after the other.

    Args:
        scheme: The scheme.
        known: The model of its channel.
        copies: The copies of each cluster, the largest cluster first.
        lengths: Their lengths.
        step: Called with the number of clusters that were found since the last time.

    Yields:
        The strings, the same object each time: after the last search, and after others that leave few clusters.
    """
    layout = scheme.frame
    found, tried, counted = Found.nothing(len(copies), layout), {}, 0  # what alignment returned, by cluster and tags
    for turn, beam in enumerate(scheme.beams):
        last = turn == len(scheme.beams) - 1
        if turn and scheme.tags:
            targets = _tagged(scheme, known, found, copies, lengths)
        else:
            targets = _untagged(np.flatnonzero(~found.done), layout)
        if not len(targets.clusters):
            break
        names = [
            (cluster, tags.tobytes()) for cluster, tags in zip(targets.clusters.tolist(), targets.tags, strict=True)
        ]
        new = [row for row, name in enumerate(names) if tried.get(name, (0, ()))[0] < beam]
        if new:
            clusters = targets.clusters[new]
            aligned = parallel.map_batches(
                _align_batch, known, copies[clusters], lengths[clusters], targets.tags[new], batch=rows(len(new)),
                layout=layout, beam=beam, window=scheme.window,
            )  # fmt: skip
            tried |= {names[row]: (beam, one) for row, one in zip(new, zip(*aligned, strict=True), strict=True)}
        aligned = [np.stack(part) for part in zip(*(tried[name][1] for name in names), strict=True)]
        sure = (targets.tags[:, layout.tag_rounds] >= 0).all(axis=1)
        found.take(targets, aligned, scheme, np.where(last & sure, _LAST_ODDS, _ODDS).astype(np.float32))
        if step and (more := int(found.done.sum()) - counted) > 0:  # what the tags disproved may be found again
            step(more)
            counted += more
        if not last and _ENOUGH * len(copies) <= found.done.sum() < len(copies):
            yield _checked(scheme, found)
    yield _checked(scheme, found)


def _checked(scheme, found):
    """Return the strings without those which the tags disprove."""
    if scheme.tags:
        _code(scheme, found)
    return found


def rows(strands: int) -> int:
    """Return the number of strands per call of the alignment.

    A small number is not padded to the full batch, as a strand takes seconds with a wide beam.
    """
    devices = len(jax.local_devices())
    return devices * min(_ALIGNED, 1 << (-(-strands // devices) - 1).bit_length())


def numbers(
    scheme: Scheme, letters: UInt8[np.ndarray, "n rounds"]
) -> tuple[Int64[np.ndarray, " n"], UInt8[np.ndarray, "n parity"]]:
    """Return the numbers of strands, or -1 where the parity is no bits; and the parity bits of their levels."""
    digits, parts = np.asarray(frame.digits(letters, frame=scheme.frame)), scheme.frame.digit_parts
    parity, valid = frame.trits_to_bits(digits[:, parts["parity"]], scheme.parity)
    return np.where(valid, _index(scheme, digits), -1), parity


def _index(scheme, digits):
    return digits[:, scheme.frame.digit_parts["index"]].astype(np.int64) @ 3 ** np.arange(scheme.index)


def _untagged(clusters, layout):
    """Return the Targets of clusters of which nothing is known."""
    return Targets(clusters, np.full(len(clusters), -1), np.full((len(clusters), layout.rounds), -1, np.int32))


def _align_batch(known, copies, lengths, tags, *, layout, beam, window):
    def align(strand):
        copies, lengths, tags = strand
        return alignment.align(known, copies, lengths, layout=layout, beam=beam, window=window, tags=tags)

    return lax.map(align, (copies, lengths, tags))


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
    tags = parallel.map_batches(_tags, np.zeros(1), letters, batch=BATCH, layout=scheme.frame)
    return tagging.to_bytes(tags)


def _tags(_, letters, *, layout):
    return frame.tags(letters, frame=layout)


def _code(scheme, found):
    """Decode the code of the tags, and forget the strings which it disproves.

    Returns (the known tags int32[tags] of each strand by its number, the numbers of the forgotten strings by cluster).
    """
    chosen = found.surest()
    chosen = chosen[~_of_header(scheme, found.number[chosen])]
    if not len(chosen):
        return {}, {}
    number, own = found.number[chosen], _tags_of(scheme, found.letters[chosen])
    digits = np.asarray(frame.digits(found.letters[chosen], frame=scheme.frame))
    bits, valid = frame.trits_to_bits(digits[:, scheme.frame.digit_parts["shared"]], 8 * scheme.shared)
    shared = np.packbits(bits, axis=1)
    groups, tags, forgotten = number // scheme.group, {}, {}
    last = int(groups.max())
    for group in np.unique(groups).tolist():
        members = np.flatnonzero(groups == group)
        position = number[members] % scheme.group
        decoded = tagging.known(
            scheme.tagging, position, own[members], shared[members], valid[members], last=group == last
        )
        if decoded.sure.any():
            rows = tagging.from_bytes(decoded.tags, np.broadcast_to(decoded.sure, decoded.tags.shape))
            tags |= {group * scheme.group + place: row for place, row in enumerate(rows[: decoded.strands])}
            found.total = group * scheme.group + decoded.strands
        wrong = members[decoded.wrong[position]]
        forgotten |= dict(zip(chosen[wrong].tolist(), number[wrong].tolist(), strict=True))
    found.number[list(forgotten)] = -1
    return tags, forgotten


def _of_header(scheme, number):
    """Return a mask of the ascending numbers that a header in strands of its own has: the last ones, after a gap."""
    after = np.flatnonzero(np.diff(number) > _GAP)[-1:] + 1
    if not len(after) or number[after[0]] < 3**scheme.index - _HEADS:
        return np.zeros(len(number), bool)
    return np.arange(len(number)) >= after[0]


def _tagged(scheme, known, found, copies, lengths):
    """Return the Targets of the next search, after forgetting the strings which the tags disprove.

    A cluster comes once for each strand that it may copy, and once without tags where there is none.
    """
    layout = scheme.frame
    tags, forgotten = _code(scheme, found)
    lost, claimed = np.flatnonzero(~found.done), set(found.number.tolist())
    beginnings = _numbers_at_the_beginning(scheme, known, copies[lost], lengths[lost])
    clusters, number, rows = [], [], []
    for cluster, names in zip(lost.tolist(), beginnings, strict=True):
        if cluster in forgotten:  # its number may be right, and what follows wrong
            names = [forgotten[cluster], *(name for name in names if name != forgotten[cluster])]
        names = [name for name in names if name in tags and name not in claimed][:_CANDIDATES]
        rows += [tags[name] for name in names] or [np.full(len(layout.tag_rounds), -1, np.int32)]
        number += names or [-1]
        clusters += [cluster] * max(1, len(names))
    targets = _untagged(np.array(clusters, np.int64), layout)
    if rows:
        targets.tags[:, layout.tag_rounds] = rows
    return targets._replace(number=np.array(number, np.int64))


def _numbers_at_the_beginning(scheme, known, copies, lengths):
    """Return the numbers that the first letters of strands may say, the likeliest ones first: a list for each."""
    if not len(copies):
        return []
    layout = scheme.frame
    first = min(layout.rounds, int(layout.digit_rounds[scheme.index - 1]) + 1 + 2 * scheme.spacing)
    strings = parallel.map_batches(
        _begin_batch, known, copies, lengths, batch=rows(len(copies)), layout=layout, beam=scheme.beams[0],
        window=scheme.window, rounds=first,
    )  # fmt: skip
    padded = np.zeros((len(copies), strings.shape[1], layout.rounds), np.uint8)
    padded[..., :first] = strings
    names = _index(scheme, frame.digits(padded.reshape(-1, layout.rounds), frame=layout)).reshape(len(copies), -1)
    return [list(dict.fromkeys(row)) for row in names.tolist()]


def _begin_batch(known, copies, lengths, *, layout, beam, window, rounds):
    def begin(pair):
        return alignment.beginnings(
            known, *pair, layout=layout, beam=beam, window=window, rounds=rounds, count=min(beam, _BEGINNINGS)
        )

    return lax.map(begin, (copies, lengths))
