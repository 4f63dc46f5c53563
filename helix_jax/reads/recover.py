"""A sequencer's reads -> strands: orientation, clusters, consensus, and the next likely strand where a check fails.

    reads (any order, both directions)
      | trimming      primers found and cut off (edlib), qualities to probabilities
      | clustering    reads that copy one strand
      | consensus     beam search over the copies of each cluster: a list of strands, the most likely first
      | header_search the header, read from these lists: it tells the constraint automaton and the check
      | check         the first strand of a list that passes is taken
      | consensus     for the clusters left: a wider search that the automaton leads; what fails again is an erasure
    strands that pass their check, decoded, as ``received.read_pool`` takes them

Reads without primers are taken both ways; the wrong way is never accepted.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from helix_jax import parallel
from helix_jax.errors import DecodeError
from helix_jax.reads import clustering, consensus, edits, enough, trimming
from helix_jax.reads import ends as ends_of
from helix_jax.reads.consensus import Rates
from helix_jax.strands import header as headers
from helix_jax.strands import header_search, packets
from helix_jax.strands.received import Decoded
from helix_jax.strands.strand_coder import Constrained
from helix_jax.strands.written import Written
from helix_jax.tk_scone import coder

# Copies used: a cluster takes the least of these that holds it, or the last; the second search may take more.
COPIES, ALL_COPIES = (1, 4, 16), (1, 4, 16, 48)
BEAMS, WIDE_BEAMS = (32, 32, 8), (512, 128, 32, 32)  # beginnings followed, for each of these numbers of copies
KEPT, KEPT_WIDE = 8, max(WIDE_BEAMS)  # strands of each cluster that a search keeps
BAND, WIDE_BAND = 24, 96
ROOM = 1 << 24  # positions in the bands of a call, which bounds its memory (about 16 bytes each)
BATCHES = (256, 128, 64, 32)  # clusters of a call, for each of ALL_COPIES
PART = 1024  # clusters whose reads are gathered, and in the second search listed, at once
SURPLUS = 4  # packets of a block beyond its source packets that are enough: no further strand is searched for
LENGTHS = 3  # lengths of the strands tried one after the other, where the length is in doubt, until a header is found
SEEN = 1 << 14  # reads in which primers that nobody stated are looked for
SAMPLE = 64  # clusters that determine the strands' length and the error rates
GAP = 15.0  # log probability by which a strand of the list may be less likely than its first
IMPOSSIBLE = -1e8


@dataclass(frozen=True)
class ReadReport:
    """What became of the reads.

    Attributes:
        reads: All reads.
        unusable: How many are of no use.
        left_out: Why they are of no use: number by reason.
        without_quality: Reads whose qualities are a placeholder (all the same, or impossibly low) and were taken as
            unknown.
        clusters: Clusters of reads that copy one strand, as far as one can tell.
        at_once: Strands whose most likely reading passed the check.
        repaired: Strands of which a later reading passed.
        unread: Clusters that gave no strand.
        coverage: (reads of a cluster, clusters that gave a strand, clusters that gave none), in ascending order.
        strand_length: Bases of a strand, primers not counted.
        substitutions: Errors per base of the reads, by comparison with the strands.
        insertions: Likewise.
        deletions: Likewise.
        by_position: (substitutions, insertions, deletions) for each base of the strand as it was written, as shares of
            the reads compared.
        used_reads: Reads of the clusters whose strands were taken. These, the next two and ``unusable`` are all reads.
        duplicate_reads: Reads of further clusters of the same strands.
        unread_reads: Reads of clusters that gave no strand.
        enough_reads: Reads of this kind with which the whole pool comes back in nine of ten cases, by estimate; None
            where it cannot be estimated, or no number would do.
        more_reads: How many reads are missing to that, rounded up.
        gone: Share of the strands that seem to be missing from the sample, however much of it is read.
    """

    reads: int
    unusable: int
    left_out: dict[str, int]
    without_quality: int
    clusters: int
    at_once: int
    repaired: int
    unread: int
    coverage: tuple[tuple[int, int, int], ...]
    strand_length: int
    substitutions: float
    insertions: float
    deletions: float
    by_position: tuple[tuple[float, float, float], ...] = ()
    used_reads: int = 0
    duplicate_reads: int = 0
    unread_reads: int = 0
    enough_reads: int | None = None
    more_reads: int = 0
    gone: float = 0.0


def recover(
    chunks: Iterable[tuple],
    *,
    motifs: Iterable[str] = (),
    primers: Sequence[str] = ("", ""),
    primers_exempt: bool = False,
    key: bytes | None = None,
    left_out: Mapping[str, int] | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> tuple[Decoded, ReadReport]:
    """Recover strands from reads.

    Each strand passed its check, which one in 2**16 wrong ones does. There is one strand for each packet, the one with
    the most copies.

    Args:
        chunks: (bases uint8[n, R], lengths int32[n], Phred qualities uint8[n, R] or None), as ``fastq.read`` gives
            them.
        motifs: See ``codec.decode``.
        primers: See ``codec.decode``.
        primers_exempt: See ``codec.decode``.
        key: See ``codec.decode``.
        left_out: Number of reads that are not in the chunks, by reason (``records.Records.left_out``).
        progress: Called as progress(station, done, total).

    Returns:
        The strands, decoded, as ``codec.decode`` and ``packing.unpack`` take them, and the report.

    Raises:
        DecodeError: Where no read can be used, or no header be read.
    """
    (left, right), refused, unstated = primers, None, []
    written = Written(tuple(motifs), left, right, primers_exempt)
    copies, tally = trimming.cut(chunks, primers, progress)
    tally.left_out.update(left_out or {})
    tally.outside = sum((left_out or {}).values())
    reads = tally.reads
    if not len(copies.read):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in tally.left_out.most_common())
        doubtful = tally.left_out[trimming.NO_PRIMER] or (any(primers) and tally.left_out[trimming.TOO_SHORT])
        remedy = "; give the primers that were written" if doubtful else ""
        raise DecodeError(
            f"none of {tally.total:,} reads can be used"
            + (f": {reasons}{remedy}" if reasons else ": there are no reads"),
            _unread_report(copies, [], tally),
        )
    labels = clustering.cluster(copies.bases, copies.lengths, progress=_at(progress, "clusters", len(copies.read)))
    clusters = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    ends = [np.frombuffer(p.upper().encode().translate(_NUMBER), np.uint8) for p in primers]
    for length in _lengths(copies, clusters):
        scaled, rates = _measure(copies, clusters, length)
        plain, step = consensus.unconstrained(length), _at(progress, "consensus", len(clusters))
        lists = _search(scaled, clusters, plain, rates, BEAMS, KEPT, step)[:2]
        try:
            header = _header(*lists, ends, written, key)
            break
        except DecodeError as error:
            refused = refused or error
            if not any(primers):
                unstated = unstated or _unstated(copies, clusters, lists[0][:, 0], written.motifs)
    else:
        raise DecodeError(
            ends_of.advice(unstated)
            or f"{refused}; {reads:,} reads in {len(clusters):,} clusters{trimming.shortness(copies, primers)}",
            _unread_report(copies, clusters, tally),
        ) from refused
    copies, found = scaled, _Read(header, len(clusters))
    found.take(np.arange(len(clusters)), *lists)

    solved = np.zeros(reads, bool)
    for number in np.flatnonzero(found.index >= 0):
        solved[copies.read[clusters[number]]] = True
    left = [n for n in np.flatnonzero(found.index < 0) if not solved[copies.read[clusters[n]]].all()]
    left.sort(key=lambda n: -len(clusters[n]))
    automaton, step = coder.on_device(found.coder.table), _at(progress, "repair", len(left))
    for part in np.split(np.array(left, int), range(PART, len(left), PART)):
        if found.enough():
            break
        lists = _search(
            copies, [clusters[n] for n in part], automaton, rates, WIDE_BEAMS, KEPT_WIDE, step, sizes=ALL_COPIES
        )
        found.take(part, *lists[:2], wide=True)
    return _result(found, copies, clusters, tally, length, ends)


_NUMBER = bytes.maketrans(b"ACGT", bytes(range(4)))


# ---- clusters --------------------------------------------------------------------------------------------


def _sample(copies, clusters, automaton, rates, band=BAND):
    """Run ``_search`` on the largest clusters: (those clusters, strands uint8[n, L], ends float32[n, L])."""
    order = np.argsort([-len(cluster) for cluster in clusters], kind="stable")
    largest = [clusters[number] for number in order[:SAMPLE]]
    sizes = COPIES[min(np.searchsorted(COPIES, len(largest[0])), len(COPIES) - 1)]
    strands, _, ends = _search(copies, largest, automaton, rates, BEAMS, 1, band=band, sizes=(sizes,))
    return largest, strands[:, 0], ends


def _lengths(copies, clusters):
    """Return the lengths that the strands may have, the most likely first."""
    room, rates = consensus.unconstrained(copies.bases.shape[1]), Rates(np.float32(trimming.DOUBT), np.float32(0.5))
    largest, _, ends = _sample(copies, clusters, room, rates, band=WIDE_BAND)
    votes = np.bincount(1 + ends.argmax(axis=1), weights=[len(cluster) for cluster in largest])
    order = np.argsort(-votes, kind="stable")[:LENGTHS]
    return order[votes[order] >= votes[order[0]] / 2].tolist()


def _measure(copies, clusters, length):
    """Return the copies with their doubt scaled to the errors found, and the rates, from the largest clusters."""
    rates = Rates(np.float32(trimming.DOUBT), np.float32(0.5))
    largest, strands, _ = _sample(copies, clusters, consensus.unconstrained(length), rates)
    pairs = [(strands[n], read) for n in range(len(largest)) for read in largest[n][: COPIES[-1]]]
    substitutions, insertions, deletions = _errors(copies, pairs, length).mean(axis=1)
    wrong = substitutions + insertions
    doubted = np.concatenate([copies.doubt[read][: copies.lengths[read]] for _, read in pairs]).mean()
    doubt = (copies.doubt * (max(wrong, 1e-3) / doubted)).clip(1e-4, 0.75).astype(np.float32)
    rates = Rates(np.float32(max(deletions, 1e-3)), np.float32(np.clip(insertions / max(wrong, 1e-6), 0.02, 0.98)))
    return dataclasses.replace(copies, doubt=doubt), rates


def _errors(copies, pairs, length):
    """Return substitutions, insertions and deletions at each base of a strand, as shares of the reads compared.

    The result is float64[3, L]; the pairs are (strand uint8[L], index of a read).
    """
    reads = ((strand, copies.bases[read][: copies.lengths[read]]) for strand, read in pairs)
    return edits.by_position(reads, length) / max(len(pairs), 1)


def _search(copies, clusters, automaton, rates, beams, kept, progress=None, band=BAND, sizes=COPIES):
    """Return lists of strands of clusters: strands uint8[n, kept, L], score float32[n, kept], ends float32[n, L]."""
    tables, shape = automaton
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
                cluster = clusters[number]
                far = np.abs(copies.lengths[cluster] - copies.usual)
                best = cluster[np.argsort(far, kind="stable")[:most]]
                chosen[row, : len(best)] = best
            lengths = np.where(chosen >= 0, copies.lengths[chosen], 0).astype(np.int32)
            lists = parallel.map_batches(
                consensus.candidates, (tables, rates), copies.bases[chosen], lengths, copies.doubt[chosen], batch=batch,
                progress=progress, shape=shape, beam=beam, band=band,
            )  # fmt: skip
            strands[rows, :keep], score[rows, :keep], ends[rows] = lists[0][:, :keep], lists[1][:, :keep], lists[2]
    return strands, score, ends


def _header(strands, score, ends, written, key):
    """Return the header from the lists of a search. Raises DecodeError where no header or several can be read."""

    def read(kept):
        likely = np.unique(strands[:, :kept][score[:, :kept] > IMPOSSIBLE], axis=0)
        whole = _with_primers(likely, ends)
        return header_search.find_header({whole.shape[1]: whole}, written, key)

    try:
        return read(1)
    except DecodeError:  # header strands are few: where their first readings do not suffice, the next ones may
        return read(strands.shape[1])


def _unstated(copies, clusters, strands, motifs):
    """Return the pools whose primers nobody stated (``ends.pools``).

    They are seen in the strands of clusters of several reads, or, where the primers alone have joined reads of many
    strands into a cluster, in reads of few errors.
    """
    several = np.array([len(cluster) for cluster in clusters]) >= min(3, max(map(len, clusters)))
    whole = np.flatnonzero(copies.lengths == copies.usual)[:SEEN]
    return ends_of.pools(strands[several], motifs) or ends_of.pools(copies.bases[whole, : copies.usual], motifs)


class _Read:
    """The strand of each cluster, once one is known.

    Attributes:
        index: int64[n], the index of the packet, -1 without one; header strands have numbers past all packets.
        rank: int64[n], the position in the list of the search, 0 for the most likely strand.
        strand: uint8[n, L], the strands.
        words: uint32[n, W], their words.
    """

    def __init__(self, found, count):
        assert isinstance(found.coder, Constrained)  # no other coder was asked for
        self.found, self.coder = found, found.coder
        self.layout = found.header.layout(self.coder.bits)
        self.index, self.rank = np.full(count, -1, np.int64), np.zeros(count, np.int64)
        self.strand = np.zeros((count, self.coder.length), np.uint8)
        self.words = np.zeros((count, -(-self.coder.bits // 32)), np.uint32)

    def take(self, numbers, strands, score, wide=False):
        """Take the first strand that passes from the list of each of the clusters ``numbers``.

        ``wide`` says that this is the second try.
        """
        likely = (score > IMPOSSIBLE) & (score > score[:, :1] - GAP)
        cluster, rank = np.nonzero(likely)
        flat = strands[cluster, rank]
        index, words = self._check(flat)
        good = np.flatnonzero(index >= 0)
        first = good[np.unique(cluster[good], return_index=True)[1]]
        fresh = numbers[cluster[first]]
        self.index[fresh], self.strand[fresh], self.words[fresh] = index[first], flat[first], words[first]
        self.rank[fresh] = rank[first] + wide

    def enough(self):
        """Return whether every block of the outer code can be solved."""
        index = np.unique(self.index[(self.index >= 0) & (self.index < self.layout.packets)])
        received = np.bincount(self.layout.locate(index)[0], minlength=self.layout.blocks)
        return bool((received >= np.array(self.layout.block_sources) + SURPLUS).all())

    def _check(self, strands):
        words, ok = self.coder.read(strands)
        index, _, good = packets.unpack(self.layout, self.found.header.key, words)
        header = headers.is_header(words, self.coder.bits)
        # The number of a header strand follows from its words, so that copies of it get the same number.
        number = self.layout.packets + packets.crc32(words.view(np.uint8)).astype(np.int64)
        index = np.where(good, index, np.where(header, number, -1))
        return np.where(ok, index, -1), words


def _result(found, copies, clusters, tally, length, ends):
    sizes = _sizes(copies, clusters)
    solved = np.flatnonzero(found.index >= 0)
    solved = solved[np.lexsort((found.rank[solved], -sizes[solved], found.index[solved]))]
    solved = solved[np.unique(found.index[solved], return_index=True)[1]]
    pairs = [(found.strand[n], read) for n in solved[:: max(1, len(solved) // 500)] for read in clusters[n][:4]]
    used, again = (_reads_of(copies, clusters, rows, tally) for rows in (solved, np.flatnonzero(found.index >= 0)))
    unread = _unread(copies, clusters, np.flatnonzero(found.index < 0), again.copy())
    by_position = _errors(copies, pairs, length)
    substitutions, insertions, deletions = (round(float(share), 6) for share in by_position.mean(axis=1))
    few = enough.estimate(
        found.layout,
        sizes[solved[found.index[solved] < found.layout.packets]],
        sizes[unread],
        reads=tally.total,
        errors=float(by_position.mean(axis=1).sum()),
        complete=not found.enough(),
    )
    report = dataclasses.replace(
        _unread_report(copies, clusters, tally),
        clusters=len(solved) + len(unread),
        at_once=int((found.rank[solved] == 0).sum()),
        repaired=int((found.rank[solved] > 0).sum()),
        unread=len(unread),
        coverage=_coverage(sizes, solved, unread),
        strand_length=length,
        substitutions=substitutions,
        insertions=insertions,
        deletions=deletions,
        by_position=tuple(map(tuple, by_position.T.round(5).tolist())),
        used_reads=int(used.sum()),
        duplicate_reads=int((again & ~used).sum()),
        unread_reads=len(np.unique(copies.read)) - int(again.sum()),
        enough_reads=few.reads,
        more_reads=few.more(tally.total),
        gone=round(few.gone, 4),
    )
    strands = _with_primers(found.strand[solved], ends)
    return Decoded(found.found, strands, found.words[solved], few.remedy(tally.total)), report


def _unread_report(copies, clusters, tally):
    """Return what is known of the reads while no strand of theirs is."""
    sizes = _sizes(copies, clusters)
    usable = len(np.unique(copies.read))
    unread = _unread(copies, clusters, range(len(clusters)), np.zeros(tally.reads, bool))
    return ReadReport(
        reads=tally.total, unusable=tally.total - usable, left_out=dict(tally.left_out),
        without_quality=tally.placeholders, clusters=len(unread), at_once=0, repaired=0, unread=len(unread),
        coverage=_coverage(sizes, np.zeros(0, int), unread), strand_length=0, substitutions=0.0, insertions=0.0,
        deletions=0.0, unread_reads=usable,
    )  # fmt: skip


def _sizes(copies, clusters):
    """Return the reads of each cluster: int64[clusters]."""
    return np.array([len(np.unique(copies.read[cluster])) for cluster in clusters], int)


def _reads_of(copies, clusters, numbers, tally):
    """Return the mask of the reads in some of the clusters."""
    mask = np.zeros(tally.reads, bool)
    for number in numbers:
        mask[copies.read[clusters[number]]] = True
    return mask


def _unread(copies, clusters, numbers, used):
    """Return those clusters of ``numbers`` that hold none of the reads ``used``, nor those of another one of them.

    Reads that are taken both ways are thus counted once. ``used`` is changed.
    """
    unread = []
    for number in numbers:
        if not used[copies.read[clusters[number]]].any():
            unread.append(number)
            used[copies.read[clusters[number]]] = True
    return np.array(unread, int)


def _coverage(sizes, solved, unread):
    """Return (reads of a cluster, clusters that gave a strand, clusters that gave none), in ascending order."""
    read, lost = (np.bincount(sizes[rows], minlength=sizes.max(initial=0) + 1) for rows in (solved, unread))
    return tuple((int(n), int(read[n]), int(lost[n])) for n in np.flatnonzero(read + lost))


def _with_primers(strands, ends):
    left, right = (np.tile(end, (len(strands), 1)) for end in ends)
    return np.concatenate([left, strands, right], axis=1)


def _at(progress, station, total):
    return progress and (lambda done: progress(station, done, total))
