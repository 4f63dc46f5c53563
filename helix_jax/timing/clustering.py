"""Clustering: from the unlabelled reads of a timing pool to groups of reads that copy one strand.

Only letters are compared: a read with its runs collapsed is the strand's sequence of letters, without the runs that
this copy lost. Reads that share short words at similar positions nominate each other, and the nominated pairs are
measured by edit distance (edlib). Clusters grow by average linkage, nearest pair first. Then one read of each cluster
represents it, the small clusters look for partners again, and so on until no two clusters join. All of this runs on the
host, in time nearly linear in the number of reads. The thresholds come from the reads themselves (``Levels``).

The ISIT 2020 paper leaves the grouping of copies open; the method is ours.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import edlib  # pyrefly: ignore [missing-import]
import numpy as np
from jaxtyping import Float, Int, Int64, Shaped, UInt8

from helix_jax.errors import HelixError

HITS = 4000  # chance meetings of equal words that are examined, per read of the pool; sets the word length
PARTNERS = 32  # nominated pairs that are measured, per read of the pool
CROWD = 512  # occurrences of one word that are examined: bounds the work where all reads are alike
BLOCK = 1 << 22  # meetings that are examined at a time: bounds memory
LOOK = 8  # reads of a cluster that are compared when two clusters meet
SAMPLE = 1024  # pairs that measure unrelated reads
SIGMAS = 3.5  # the least number of standard deviations between related clusters and unrelated ones


class ClusteringError(HelixError):
    """Reads cannot be clustered; the message names the read."""


def cluster(
    reads: Sequence[Shaped[np.ndarray, "..."]], *, progress: Callable[[int], None] | None = None
) -> Int64[np.ndarray, " n"]:
    """Group reads by the strand that they copy.

    The result depends on nothing but the reads and their order. Where the losses leave copies little nearer to each
    other than to reads of other strands (200 rounds at 20 %, 980 at 40 %), poor reads stay alone rather than join a
    wrong strand.

    Args:
        reads: n uint8 arrays of bases 0..3, with runs included or collapsed. A read covers its strand from end to end
            and may be empty. There may be any number of reads of a strand.
        progress: Called with the number of reads that are newly compared, n in all.

    Returns:
        Labels 0, 1, ... in order of first appearance; a read that is like no other is a cluster of its own.

    Raises:
        ClusteringError: A read is no one-dimensional array of bases.
    """
    progress = progress or (lambda done: None)
    numbers = {}  # exact duplicates count as one text
    number = [numbers.setdefault(collapse(read, i).tobytes(), len(numbers)) for i, read in enumerate(reads)]
    texts, measured = list(numbers), {}
    progress(len(reads) - len(texts))

    def distance(i, j):
        pair = (i, j) if i < j else (j, i)
        if pair not in measured:
            measured[pair] = _distance(texts[i], texts[j])
        return measured[pair]

    groups, levels = [[i] for i in range(len(texts))], None
    small = np.arange(len(texts))
    while len(small):
        heads = [max(group, key=lambda i: len(texts[i])) for group in groups]  # the longest read lost the fewest runs
        pairs = set()
        for done, nominated in nominate([texts[head] for head in heads], small):
            pairs.update((distance(heads[i], heads[j]), i, j) for i, j in nominated.tolist())
            if levels is None:
                progress(done)
        pairs = sorted(pairs)
        levels = levels or measure(texts, np.array([d for d, _, _ in pairs]))
        joined = link(groups, pairs, distance, levels)
        if len(joined) == len(groups):
            break
        groups = joined
        small = np.flatnonzero([len(group) * len(groups) < len(texts) for group in groups])
    label = np.empty(len(texts), np.int64)
    for name, group in enumerate(groups):
        label[group] = name
    return label[np.array(number, np.int64)]


def collapse(read: Shaped[np.ndarray, "..."], number: int = 0) -> UInt8[np.ndarray, " runs"]:
    """Merge equal neighbours of a read, which is an array uint8[length] of bases 0..3.

    Raises ClusteringError for anything else; its message has the ``number`` of the read.
    """
    read = np.asarray(read)
    if read.ndim != 1 or read.dtype != np.uint8 or read.max(initial=0) > 3:
        raise ClusteringError(
            f"read {number} is {read.dtype}{list(read.shape)} with values up to {read.max(initial=0)}; "
            "give uint8[length] of bases 0..3"
        )
    return read[np.append(True, read[1:] != read[:-1])[: len(read)]]


def nominate(texts: Sequence[bytes], small: Int[np.ndarray, " s"]) -> Iterator[tuple[int, Int[np.ndarray, "m 2"]]]:
    """Nominate pairs of texts that share most words at similar positions.

    A word has k letters, where k is the least number that leaves about HITS meetings a text to chance. Positions are
    scaled to the mean length L. Copies drift apart by at most about sqrt(L) (at a loss of 20 %, this is three standard
    deviations in the middle of the strand), so words meet only if they are that near; the score of a pair is the sum of
    how near its words are.

    Args:
        texts: The collapsed reads as bytes.
        small: The numbers of the texts that nominate, ascending, at least one; all texts may be nominated.

    Yields:
        The number of texts that are done since the last time, and pairs (i, j) of text numbers, i < j: PARTNERS a text
        on average over all texts.
    """
    count, lengths = len(texts), np.array([len(text) for text in texts])
    common = max(1, round(lengths.mean()))
    drift = int(np.ceil(np.sqrt(common)))
    k = 5
    while len(small) * common * 2 * drift > HITS * 4 * 3 ** (k - 1):
        k += 1
    letters = np.frombuffer(b"".join(texts), np.uint8)
    word = np.zeros(max(len(letters) - k + 1, 0), np.int64)
    for i in range(k):
        word = word * 4 + letters[i : i + len(word)]
    owner = np.repeat(np.arange(count), lengths)[: len(word)]
    position = np.arange(len(word)) - (np.cumsum(lengths) - lengths)[owner]
    whole = position + k <= lengths[owner]
    owner, word, position = owner[whole], word[whole], position[whole]
    position = drift + position * common // lengths[owner]

    # sorted by word and position, the words that meet word x are the meetings[x] words from low[x] on
    key = word * (common + 2 * drift) + position
    order = np.argsort(key, kind="stable")
    key, owners, positions = key[order], owner[order], position[order]
    low, high = np.empty_like(key), np.empty_like(key)
    low[order] = np.searchsorted(key, key - drift)
    high[order] = np.searchsorted(key, key + drift, side="right")
    nominates = np.isin(np.arange(count), small)[owner]
    meetings = np.where(nominates, np.minimum(high - low, CROWD), 0)

    begin = np.searchsorted(owner, np.arange(count + 1))
    before = np.append(0, np.cumsum(meetings))
    most = PARTNERS * count // len(small)
    first = 0
    while first < count:
        room = before[begin[first]] + BLOCK
        last = max(first + 1, int(np.searchsorted(before[begin], room, side="right")) - 1)
        part = slice(begin[first], begin[last])
        mine = np.repeat(np.arange(part.start, part.stop), meetings[part])
        other = np.arange(len(mine)) + np.repeat(low[part] - before[part] + before[part.start], meetings[part])
        near = drift + 1 - np.abs(position[mine] - positions[other])
        # with (text, partner, near) as one number, one sort brings the words of a pair together
        pair, near = np.divmod(np.sort((owner[mine] * count + owners[other]) * (drift + 2) + near), drift + 2)
        head = np.flatnonzero(np.diff(pair, prepend=-1))
        score = np.add.reduceat(near, head) if len(head) else head
        text, partner = np.divmod(pair[head], count)
        best = np.lexsort((partner, -score, text))
        best = best[text[best] != partner[best]]
        text, partner = text[best], partner[best]
        chosen = np.arange(len(text)) - np.searchsorted(text, text) < most
        yield last - first, np.sort(np.stack([text[chosen], partner[chosen]], axis=1), axis=1)
        first = last


@dataclass(frozen=True)
class Levels:
    """The edit distances per letter that separate related reads from unrelated ones.

    Attributes:
        unrelated: The mean for reads of different strands.
        spread: The standard deviation for reads of different strands.
        related: The mean for copies of one strand; ``unrelated`` where no pair looks like that.
        scatter: The standard deviation for copies of one strand; 0 where no pair looks like that.
    """

    unrelated: float
    spread: float
    related: float
    scatter: float

    def limit(self, first: int, second: int, chances: int) -> float:
        """Return the greatest mean distance at which two clusters may copy one strand.

        It is the lower of two bounds. One is the point that lies equally many deviations from either level (or halfway,
        if that is higher). The other lies so many deviations of that mean below ``unrelated`` that hardly one of
        ``chances`` unrelated pairs reaches it.

        Args:
            first: The number of reads of one cluster.
            second: The number of reads of the other cluster.
            chances: The number of pairs of clusters of these sizes.

        Returns:
            The distance, in edits per letter.
        """
        share = min(0.5, self.spread / max(self.spread + self.scatter, 1e-9))
        between = self.unrelated - share * (self.unrelated - self.related)
        sigmas = max(SIGMAS, np.sqrt(2.4 * np.log(chances)))  # a normal tail (which would be 2), with some extra weight
        # what two strands, their reads, and the pairs of reads add to the variance, by simulation of 200 and 980 rounds
        variance = 0.15 + 0.15 / first + 0.15 / second + 0.55 / (first * second)
        return min(between, self.unrelated - sigmas * self.spread * np.sqrt(variance))


def measure(texts: Sequence[bytes], nominated: Float[np.ndarray, " m"]) -> Levels:
    """Measure the ``Levels`` of a set of collapsed reads, one or more, as bytes.

    ``nominated`` are the distances of the nominated pairs; those that are 4 deviations nearer than unrelated reads are
    regarded as related. Unrelated reads are available even where all reads are of one strand, as one of two is rotated
    by a quarter to three quarters of its length. What is far from the median is left out, as a few reads may be cut
    short.
    """
    count, sample = len(texts), np.empty(SAMPLE)
    for t in range(SAMPLE):
        first, second = texts[t % count], texts[(t + 1 + t // count) % count]
        turn = len(first) * (SAMPLE + 2 * t) // (4 * SAMPLE)
        sample[t] = _distance(first[turn:] + first[:turn], second)
    middle = np.median(sample)
    deviation = 1.4826 * np.median(np.abs(sample - middle))  # of a normal distribution
    # Distances of short strands are few whole numbers of edits, so that medians may miss the spread by a third.
    usual = sample[np.abs(sample - middle) <= 4 * deviation]
    unrelated, spread = float(usual.mean()), float(usual.std())
    alike = nominated[nominated < unrelated - 4 * spread]
    if not len(alike):
        return Levels(unrelated, spread, unrelated, 0.0)
    lower, related = np.quantile(alike, [0.159, 0.5])  # one deviation; the upper side may be cut off
    return Levels(unrelated, spread, float(related), float(related - lower))


def link(
    groups: Sequence[Sequence[int]],
    pairs: Sequence[tuple[float, int, int]],
    distance: Callable[[int, int], float],
    levels: Levels,
) -> list[list[int]]:
    """Join clusters by average linkage, nearest pair first.

    Two clusters join if the mean distance between their first LOOK reads is within ``levels.limit``, so that a single
    chance likeness joins no clusters.

    Args:
        groups: The text numbers of each cluster.
        pairs: (distance, i, j) of group numbers, ascending.
        distance: Returns the distance between any two texts, by their numbers.
        levels: The distances of related and unrelated reads.

    Returns:
        The new groups, each ascending, in order of their first texts.
    """
    groups, where = [list(group) for group in groups], np.arange(len(groups))
    sizes, refused = Counter(map(len, groups)), set()
    farthest = levels.limit(LOOK, LOOK, 1)
    for d, i, j in pairs:
        a, b = sorted((int(where[i]), int(where[j])))
        m, n = len(groups[a]), len(groups[b])
        if d > farthest or a == b or (a, b, m, n) in refused:
            continue
        first, second = groups[a][:LOOK], groups[b][:LOOK]
        mean = sum(distance(x, y) for x in first for y in second) / (len(first) * len(second))
        if mean > levels.limit(len(first), len(second), sizes[m] * sizes[n]):
            refused.add((a, b, m, n))
            continue
        sizes.update((m + n,))
        sizes.subtract((m, n))
        groups[a] += groups[b]
        groups[b] = []
        where[where == b] = a
    return sorted(sorted(group) for group in groups if group)


def _distance(first, second):
    """Return the number of edits per letter of the mean length."""
    return 2 * edlib.align(first, second)["editDistance"] / max(1, len(first) + len(second))
