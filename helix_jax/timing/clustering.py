"""Unlabelled reads of a timing pool -> groups of reads that copy one strand.

Only letters are compared: a read with its runs collapsed is the strand's sequence of letters, less the runs that this
copy lost. Reads that share short words at like places nominate each other; the nominated pairs are measured by edit
distance (edlib); clusters grow by average linkage, nearest pair first. Then one read of each cluster stands for it,
the small clusters look for company again, and so on until nothing joins. On the host, in time nearly linear in the
number of reads. The thresholds come from the reads themselves (``Levels``).

The ISIT 2020 paper leaves the grouping of copies open; the method is ours.
"""

from collections import Counter
from dataclasses import dataclass

import edlib  # pyrefly: ignore [missing-import]
import numpy as np

from helix_jax.errors import HelixError

HITS = 4000  # chance meetings of equal words looked at, per read of the pool; sets the word length
PARTNERS = 32  # nominated pairs measured, per read of the pool
CROWD = 512  # occurrences of one word that are looked at: bounds the work where all reads are alike
BLOCK = 1 << 22  # meetings looked at in one go: bounds memory
LOOK = 8  # reads of a cluster that are compared when two clusters meet
SAMPLE = 1024  # pairs that measure unrelated reads
SIGMAS = 3.5  # standard deviations that must lie between related clusters and unrelated ones, at least


class ClusteringError(HelixError):
    """Reads that cannot be clustered; the message names the read."""


def cluster(reads, *, progress=None):
    """Group reads by the strand that they copy.

    reads: n uint8 arrays (bases 0..3), runs included or collapsed; a read covers its strand from end to end and may be
    empty. Any number of reads a strand. progress: called with the number of reads newly compared, n in all.
    Returns labels int64[n]: 0, 1, .. in order of first appearance; a read like no other is a cluster of its own.
    Depends on nothing but the reads and their order. Raises ClusteringError for a read that is no row of bases.

    Where the losses leave copies little nearer than strangers (200 rounds at 20 %, 980 at 40 %), poor reads stay alone
    rather than join a wrong strand.
    """
    progress = progress or (lambda done: None)
    numbers = {}  # exact duplicates are one text
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
        heads = [max(group, key=lambda i: len(texts[i])) for group in groups]  # the longest lost the least
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
    for place, group in enumerate(groups):
        label[group] = place
    return label[np.array(number, np.int64)]


def collapse(read, number=0):
    """Equal neighbours of a read merged: uint8[length] of bases -> uint8[runs]. number: for the error message.

    Raises ClusteringError for anything else.
    """
    read = np.asarray(read)
    if read.ndim != 1 or read.dtype != np.uint8 or read.max(initial=0) > 3:
        raise ClusteringError(
            f"read {number} is {read.dtype}{list(read.shape)} with values up to {read.max(initial=0)}; "
            "give uint8[length] of bases 0..3"
        )
    return read[np.append(True, read[1:] != read[:-1])[: len(read)]]


def nominate(texts, small):
    """Pairs of texts that share most words at like places.

    texts: collapsed reads as bytes. small: int64[s], s >= 1, ascending numbers of the texts that nominate; all may be
    nominated. Yields (done, pairs): the number of texts dealt with since the last time, and int64[m, 2] pairs (i, j) of
    text numbers, i < j, PARTNERS a text on average over all texts.

    A word is k letters, k the least that leaves about HITS meetings a text to chance. Places are scaled to the mean
    length L. Copies drift apart by at most about sqrt(L) (at a loss of 20 %, three standard deviations in the middle of
    the strand), so words meet only if that near; the score of a pair is the sum of how near its words are.
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
    place = np.arange(len(word)) - (np.cumsum(lengths) - lengths)[owner]
    whole = place + k <= lengths[owner]
    owner, word, place = owner[whole], word[whole], place[whole]
    place = drift + place * common // lengths[owner]

    # sorted by word and place, the words that meet word x are those from low[x] on, so many as meetings[x]
    key = word * (common + 2 * drift) + place
    order = np.argsort(key, kind="stable")
    key, owners, places = key[order], owner[order], place[order]
    low, high = np.empty_like(key), np.empty_like(key)
    low[order] = np.searchsorted(key, key - drift)
    high[order] = np.searchsorted(key, key + drift, side="right")
    asks = np.isin(np.arange(count), small)[owner]
    meetings = np.where(asks, np.minimum(high - low, CROWD), 0)

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
        near = drift + 1 - np.abs(place[mine] - places[other])
        # (text, partner, near) as one number: one sort brings a pair's words together
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
    """Edit distances per letter that tell related reads from unrelated ones.

    Means and standard deviations: unrelated, spread for reads of different strands; related, scatter for copies of one
    strand (``unrelated`` and 0 where no pair looks like that).
    """

    unrelated: float
    spread: float
    related: float
    scatter: float

    def limit(self, first, second, chances):
        """Greatest mean distance at which clusters of ``first`` and ``second`` reads may be one strand's.

        chances: how many pairs of clusters of these sizes there are. The lower of two bounds: the point as many
        deviations from either level (or halfway, if that is higher), and so many deviations of that mean below
        ``unrelated`` that hardly one of ``chances`` unrelated pairs gets there.
        """
        share = min(0.5, self.spread / max(self.spread + self.scatter, 1e-9))
        between = self.unrelated - share * (self.unrelated - self.related)
        sigmas = max(SIGMAS, np.sqrt(2.4 * np.log(chances)))  # a normal tail (2) but for some weight
        # what two strands, their reads, and the pairs of reads add to the variance: simulated, 200 and 980 rounds alike
        variance = 0.15 + 0.15 / first + 0.15 / second + 0.55 / (first * second)
        return min(between, self.unrelated - sigmas * self.spread * np.sqrt(variance))


def measure(texts, nominated):
    """``Levels`` of a set of collapsed reads.

    texts: one or more, as bytes. nominated: float[m], distances of nominated pairs; those 4 deviations nearer than
    unrelated reads are taken for related. Unrelated reads are had even where all are of one strand: one of two is
    turned about by a quarter to three quarters of its length. Medians, as a few reads may be cut short.
    """
    count, sample = len(texts), np.empty(SAMPLE)
    for t in range(SAMPLE):
        one, two = texts[t % count], texts[(t + 1 + t // count) % count]
        turn = len(one) * (SAMPLE + 2 * t) // (4 * SAMPLE)
        sample[t] = _distance(one[turn:] + one[:turn], two)
    unrelated = float(np.median(sample))
    spread = 1.4826 * float(np.median(np.abs(sample - unrelated)))  # of a normal law
    alike = nominated[nominated < unrelated - 4 * spread]
    if not len(alike):
        return Levels(unrelated, spread, unrelated, 0.0)
    lower, related = np.quantile(alike, [0.159, 0.5])  # one deviation; the upper side may be cut off
    return Levels(unrelated, spread, float(related), float(related - lower))


def link(groups, pairs, distance, levels):
    """Join clusters by average linkage, nearest pair first.

    groups: lists of text numbers. pairs: ascending (distance, i, j) of group numbers. distance(text, text): of any two.
    Two clusters join if the mean distance between their first LOOK reads is within ``levels.limit``: one chance
    likeness joins no clusters. Returns the new groups, each ascending, in order of their first texts.
    """
    groups, where = [list(group) for group in groups], np.arange(len(groups))
    sizes, refused = Counter(map(len, groups)), set()
    farthest = levels.limit(LOOK, LOOK, 1)
    for d, i, j in pairs:
        a, b = sorted((int(where[i]), int(where[j])))
        m, n = len(groups[a]), len(groups[b])
        if d > farthest or a == b or (a, b, m, n) in refused:
            continue
        one, two = groups[a][:LOOK], groups[b][:LOOK]
        mean = sum(distance(x, y) for x in one for y in two) / (len(one) * len(two))
        if mean > levels.limit(len(one), len(two), sizes[m] * sizes[n]):
            refused.add((a, b, m, n))
            continue
        sizes.update((m + n,))
        sizes.subtract((m, n))
        groups[a] += groups[b]
        groups[b] = []
        where[where == b] = a
    return sorted(sorted(group) for group in groups if group)


def _distance(one, two):
    """Edits per letter of the mean length."""
    return 2 * edlib.align(one, two)["editDistance"] / max(1, len(one) + len(two))
