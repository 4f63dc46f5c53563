"""A sequencer's reads -> strands: orientation, clusters, consensus, and the next likely strand where a check fails.

    reads (any order, both directions), a portion at a time until all blocks can be solved (``portions``)
      | trimming      primers found and cut off (edlib), qualities to marks
      | matching      reads of strands that are known from earlier portions: counted, and dropped
      | clustering    reads that copy one strand
      | searching     beam search over the copies of each cluster: a list of strands, the most likely first
      | header_search the header, read from these lists: it tells the constraint automaton and the check
      | solved        the first strand of a list that passes its check is taken
      | searching     after the last read, for the clusters left: a wider search that the automaton leads; what fails
      |               again is an erasure
    strands that pass their check, decoded, as ``received.read_pool`` takes them

Reads without primers are taken both ways; the wrong way is never accepted.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from helix_jax.errors import DecodeError
from helix_jax.reads import consensus, ends, matching, portions, report, searching, trimming
from helix_jax.reads.report import ReadReport
from helix_jax.reads.searching import ALL_COPIES, COPIES, IMPOSSIBLE, Hands, Here, Question
from helix_jax.reads.solved import Solved
from helix_jax.strands import header_search
from helix_jax.strands.received import Decoded
from helix_jax.strands.written import Written

SLICE = 1 << 15  # clusters whose lists are in memory at once, once the header is known
LISTED = 1 << 17  # clusters from whose lists the header is sought first, where there are many more
MOST_LISTED = 1 << 18  # the same in the end; more only where they have several copies
SEEN = 1 << 14  # reads in which primers that nobody stated are looked for


def recover(
    chunks: Iterable[tuple],
    *,
    motifs: Iterable[str] = (),
    primers: Sequence[str] = ("", ""),
    primers_exempt: bool = False,
    key: bytes | None = None,
    left_out: Mapping[str, int] | None = None,
    max_reads: int | None = None,
    at_once: bool = False,
    hands: Hands | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> tuple[Decoded, ReadReport]:
    """Recover strands from reads, of which no more are taken than it needs.

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
        max_reads: Reads that are taken at most, the first ones.
        at_once: Whether to take all reads in one portion, also where fewer are enough: where several pools are mixed,
            the error then names the rare ones too.
        hands: Who clusters the reads and searches the clusters, this process by default (``spread.started``).
        progress: Called as progress(station, done, total).

    Returns:
        The strands, decoded, as ``codec.decode`` and ``packing.unpack`` take them, and the report.

    Raises:
        DecodeError: Where no read can be used, or no header be read.
    """
    source, steps, hands = portions.Source(chunks, max_reads), _Steps(progress), hands or Here()
    left, right = primers
    written = Written(tuple(motifs), left, right, primers_exempt)
    start = _begun(source, written, key, left_out, hands, steps, at_once)
    waiting, solved, tally, usable = start.waiting, start.solved, start.tally, start.usable
    tried = np.zeros(len(waiting), np.int64)
    while not solved.enough() and not source.ended():
        waiting, tried = _waiting(solved, waiting, tried)
        wanted, room = portions.total_with_header(source.taken, usable, solved.layout.packets), portions.SLICE
        parts = [waiting]
        while source.taken < wanted and room > 0 and not source.ended():
            total = min(wanted, source.taken + portions.SLICE)
            fresh, tally = trimming.cut(source.until(total), primers, progress, tally=tally, usual=waiting.usual)
            usable += len(fresh)
            known = matching.match(solved.strands.strand, fresh.bases, fresh.lengths, turned=not any(primers))
            solved.count(known)
            parts.append(fresh.chosen(known < 0))
            room -= len(parts[-1])
        waiting = trimming.joined(parts)
        tried = np.concatenate([tried, np.zeros(len(waiting) - len(tried), np.int64)])
        copies = _directed(waiting, primers)
        clusters = hands.clusters(copies, steps.at("clusters", len(copies)))
        solved.begin(copies, clusters)
        _take(solved, _worth_trying(copies, clusters, tried), start.rates, hands, steps)
    if not solved.enough():
        _search_on(solved, start.rates, hands, steps)
    solved.settle()
    tally = _counted(tally, left_out)
    about, few = report.of_strands(solved, tally, usable)
    bases = _with_primers(solved.strands.strand, _primers(primers))
    return Decoded(solved.found, bases, solved.strands.words, few.remedy(tally.total)), about


# ---- the first portions, up to the header ----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Start:
    """What there is once the header is known.

    Attributes:
        waiting: The reads, each once; their marks are worth what was measured.
        solved: The strands of their clusters.
        rates: The rates of the errors.
        tally: The counts of the reads.
        usable: Reads that could be used: those that wait, and those that wait no longer.
    """

    waiting: trimming.Copies
    solved: Solved
    rates: consensus.Rates
    tally: trimming.Tally
    usable: int


def _begun(source, written, key, left_out, hands, steps, at_once):
    """Take reads until the header can be read from them."""
    primers, waiting, tally = (written.left, written.right), None, None
    total, sought, gone = float("inf") if at_once else portions.FIRST, 0, 0
    while True:
        fresh, tally = trimming.cut(source.until(total), primers, steps.progress, tally=tally)
        waiting = fresh if waiting is None else trimming.of_one_length(waiting, fresh, tally)
        total, usable = 2 * source.taken, gone + len(waiting)
        if not len(waiting) and not source.ended():
            continue
        if not len(waiting):
            _refuse(waiting, _counted(tally, left_out), primers)
        copies = _directed(waiting, primers)
        clusters = hands.clusters(copies, steps.at("clusters", len(copies)))
        coverage, strands = portions.seen(np.array(list(map(len, clusters))))
        if source.ended() or portions.headed(source.taken, coverage, sought):
            try:
                copies, solved, rates = _headed(copies, clusters, written, key, hands, steps, at_once)
            except (_NoHeaderError, header_search.MixedError) as error:
                if source.ended() or isinstance(error, header_search.MixedError):
                    said = _no_header(error, copies, clusters, written, waiting, tally)
                    about = report.without_strands(copies, clusters, _counted(tally, left_out), usable)
                    raise DecodeError(said, about) from error
                sought = source.taken
            else:
                waiting = dataclasses.replace(waiting, doubts=copies.doubts)
                return _Start(waiting, solved, rates, tally, usable)
        most = portions.most_waiting(strands * len(waiting) / len(copies))
        total = portions.total_without_header(source.taken, usable, coverage, most)
        waiting = waiting.chosen(_likeliest(copies, clusters, len(waiting), most))
        gone = usable - len(waiting)


def _no_header(error, copies, clusters, written, waiting, tally):
    """Return what to say where no header can be read, or several."""
    if isinstance(error, header_search.MixedError):
        return str(error)
    primers = (written.left, written.right)
    unstated = [] if any(primers) else _unstated(copies, error, written.motifs)
    short = trimming.shortness(waiting, primers)
    return ends.advice(unstated) or f"{error}; {tally.reads:,} reads in {len(clusters):,} clusters{short}"


def _likeliest(copies, clusters, reads, most):
    """Return the rows of those reads that may wait while no header is known, where too many do.

    Reads of clusters of several copies come first, of a cluster no more than are used, and then the latest ones.
    """
    worth = np.zeros(reads, np.int64)
    for cluster in clusters:
        if len(cluster) > 1:
            worth[copies.read[cluster[-ALL_COPIES[-1] :]]] = 1
    return np.sort(np.lexsort((np.arange(reads), worth))[-most:])


def _refuse(copies, tally, primers):
    """Raise the error of reads of which none can be used."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in tally.left_out.most_common())
    doubtful = tally.left_out[trimming.NO_PRIMER] or (any(primers) and tally.left_out[trimming.TOO_SHORT])
    remedy = "; give the primers that were written" if doubtful else ""
    raise DecodeError(
        f"none of {tally.total:,} reads can be used" + (f": {reasons}{remedy}" if reasons else ": there are no reads"),
        report.without_strands(copies, [], tally, 0),
    )


def _counted(tally, left_out):
    """Return the counts with the reads that are not in the chunks."""
    outside = left_out or {}
    return dataclasses.replace(tally, left_out=tally.left_out + Counter(outside), outside=sum(outside.values()))


def _headed(copies, clusters, written, key, hands, steps, at_once):
    """Read the header, and the strands of the clusters: (copies with their doubt as measured, ``Solved``, rates).

    It is sought in the clusters of several copies and in some others, whose lists wait until there is a header; with
    ``at_once``, only when all of them are there.
    """
    refused, primers = None, _primers((written.left, written.right))
    sizes = np.array(list(map(len, clusters)))
    most = len(clusters) if at_once else max(MOST_LISTED, int((sizes > 1).sum()))
    likely, others = np.split(np.argsort(-sizes, kind="stable"), [most])
    likely = np.sort(likely)
    for length in searching.lengths(copies, clusters):
        doubts, rates = searching.measure(copies, clusters, length)
        scaled = dataclasses.replace(copies, doubts=doubts)
        question, step = Question(length, rates), steps.at("consensus", len(clusters))
        lists, solved, done = [], None, 0
        for numbers in [*_slices(likely), *_slices(others)]:
            if done >= len(likely) and solved is None:
                break
            lists.append((numbers, *hands.lists(question, scaled, [clusters[n] for n in numbers], step)))
            done += len(numbers)
            if solved is None and (done == len(likely) or (not at_once and done >= LISTED and done & (done - 1) == 0)):
                strands, score = (np.concatenate([part[n] for part in lists]) for n in (1, 2))
                try:
                    solved = Solved(_header(strands, score, primers, written, key), scaled, clusters)
                except header_search.MixedError:
                    raise
                except DecodeError as error:
                    refused = refused or _NoHeaderError(str(error), strands[:, 0], sizes[likely[:done]])
                    continue
            while solved is not None and lists:
                solved.take(*lists.pop(0))
        if solved is not None:
            return scaled, solved, rates
    assert refused is not None  # as one length at least was tried
    raise refused


class _NoHeaderError(DecodeError):
    """No header can be read from the strands uint8[n, L] of clusters of int[n] copies, as far as they were searched."""

    def __init__(self, message, strands, sizes):
        super().__init__(message)
        self.strands, self.sizes = strands, sizes


def _unstated(copies, error, motifs):
    """Return the pools whose primers nobody stated (``ends.pools``).

    They are seen in the strands of clusters of several reads, or, where the primers alone have joined reads of many
    strands into a cluster, in reads of few errors.
    """
    several = error.sizes >= min(3, error.sizes.max())
    whole = np.flatnonzero(copies.lengths == copies.usual)[:SEEN]
    return ends.pools(error.strands[several], motifs) or ends.pools(copies.bases[whole, : copies.usual], motifs)


def _header(strands, score, primers, written, key):
    """Return the header from the lists of a search. Raises DecodeError where no header or several can be read."""

    def read(kept):
        likely = np.unique(strands[:, :kept][score[:, :kept] > IMPOSSIBLE], axis=0)
        whole = _with_primers(likely, primers)
        return header_search.find_header({whole.shape[1]: whole}, written, key)

    try:
        return read(1)
    except DecodeError:  # header strands are few: where their first readings do not suffice, the next ones may
        return read(strands.shape[1])


# ---- clusters ------------------------------------------------------------------------------------------------


def _directed(waiting, primers):
    """Return the copies of reads: each one once where primers tell its direction, and both ways otherwise."""
    return dataclasses.replace(waiting, read=np.arange(len(waiting))) if any(primers) else trimming.both_ways(waiting)


def _slices(numbers, size=SLICE):
    return np.split(numbers, range(size, len(numbers), size)) if len(numbers) else []


def _worth_trying(copies, clusters, tried):
    """Return the numbers of the clusters that have more copies than when they were searched last."""
    most = COPIES[-1]
    return np.array(
        [n for n, cluster in enumerate(clusters) if min(len(cluster), most) > tried[copies.read[cluster]].max()], int
    )


def _take(solved, numbers, rates, hands, steps):
    """Search present clusters, and take what passes."""
    question, step = Question(solved.coder.length, rates), steps.at("consensus", len(numbers))
    for part in _slices(numbers):
        solved.take(part, *hands.lists(question, solved.copies, [solved.clusters[n] for n in part], step))


def _search_on(solved, rates, hands, steps):
    """Search the clusters without a strand once more, wider and led by the automaton, the largest first."""
    left = np.array(solved.left(), int)
    question = Question(solved.coder.length, rates, solved.coder.constraints)
    step = steps.at("repair", len(left))
    for part in _slices(left, hands.part):
        if solved.enough():
            break
        lists = hands.lists(question, solved.copies, [solved.clusters[n] for n in part], step)
        solved.take(part, *lists, wide=True)


def _waiting(solved, waiting, tried):
    """Settle the present clusters, and return the reads of no strand yet, and with how many others each was searched.

    Of a cluster no more reads are kept than are used. Where too many wait, as of another pool, the largest clusters are
    cut down, and then the oldest reads go: single reads are those of rare strands.
    """
    solved.settle()
    kept = ~solved.read()
    place = np.zeros(len(waiting), np.int64)  # of each read in its cluster
    size = np.ones(len(waiting), np.int64)
    for cluster in solved.clusters:
        rows = solved.copies.read[cluster]
        place[rows] = np.maximum(place[rows], np.arange(len(rows))[::-1])  # the latest ones come first
        size[rows] = np.maximum(size[rows], len(rows))
    tried = np.maximum(tried, np.minimum(size, COPIES[-1]))
    most = portions.most_waiting(solved.layout.packets)
    for limit in (ALL_COPIES[-1], 16, 8, 4, 2, 1):
        kept &= place < limit
        if kept.sum() <= most:
            break
    rows = np.flatnonzero(kept)[-most:]
    return waiting.chosen(rows), tried[rows]


# ---- primers ---------------------------------------------------------------------------------------------------


def _primers(primers):
    """Return the primers as bases 0..3."""
    return [np.frombuffer(primer.upper().encode().translate(_NUMBER), np.uint8) for primer in primers]


_NUMBER = bytes.maketrans(b"ACGT", bytes(range(4)))


def _with_primers(strands, primers):
    left, right = (np.tile(primer, (len(strands), 1)) for primer in primers)
    return np.concatenate([left, strands, right], axis=1)


class _Steps:
    """Progress of stations that are passed with every portion of reads: their totals grow.

    Attributes:
        progress: Called as progress(station, done, total), or None.
    """

    def __init__(self, progress):
        self.progress, self.totals = progress, Counter()

    def at(self, station, count):
        """Return what is called with how many of ``count`` more items of a station are newly done."""
        self.totals[station] += count
        return self.progress and (lambda done: self.progress(station, done, self.totals[station]))
