"""Reads of a packed pool -> its strands and its bytes: simulated reads, reads made by hand, and what is none of it."""

import functools

import jax
import numpy as np
import pytest

from helix_jax import codec, parallel
from helix_jax.channel import fit, model, simulate
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.errors import DecodeError
from helix_jax.reads import clustering, fastq, recover, solved

OPTIMISED = True  # see tests/conftest.py

BLOB = np.random.default_rng(7).bytes(600)
OTHER = np.random.default_rng(8).bytes(600)
PRIMERS = ("ACACGACGCTCTTCCGATCT", "AGATCGGAAGAGCACACGTC")


@pytest.fixture(autouse=True)
def one_shape(request, monkeypatch):
    """Batches of 64 rows, so that most tests share what is compiled; not in tests of "own-shapes"."""
    plain = parallel.map_batches

    def fixed(function, constants, *batched, batch, **options):
        return plain(function, constants, *batched, batch=64, **options)

    if "own-shapes" not in request.node.name:
        monkeypatch.setattr(parallel, "map_batches", fixed)


@functools.cache
def packed(blob=BLOB, primers=("", ""), redundancy=0.3):
    config = CodecConfig(
        codec="tokens",
        constraints="strand",
        strands=StrandConfig(length=100, redundancy=redundancy, left_primer=primers[0], right_primer=primers[1]),
    )
    return codec.pack(blob, config=config)


@functools.cache
def simulated(preset, coverage, primers=("", "")):
    return simulate.reads_of(model.named(preset), packed(primers=primers).strands, coverage, jax.random.key(1))


def chunks_of(reads, size=150):
    """Simulated reads as ``fastq.read`` gives them."""
    for begin in range(0, len(reads.lengths), size):
        part = slice(begin, begin + size)
        yield reads.bases[part], reads.lengths[part], reads.qualities[part]


def by_hand(rows, seed=0):
    """List of uint8 arrays, 4 = N -> one chunk without qualities, in random order."""
    order = np.random.default_rng(seed).permutation(len(rows))
    lengths = np.array([len(rows[i]) for i in order], np.int32)
    bases = np.full((len(rows), lengths.max()), fastq.PAD, np.uint8)
    for row, i in zip(bases, order, strict=True):
        row[: len(rows[i])] = rows[i]
    return iter([(bases, lengths, None)])


def back(row):
    """Reverse complement."""
    return np.array([3 - base if base < 4 else base for base in row[::-1].tolist()], np.uint8)


def noisy(strand, rate, draw):
    """A third of the errors each substituted, inserted and deleted."""
    copy = []
    for base in strand.tolist():
        while draw.random() < rate / 3:
            copy.append(int(draw.integers(4)))
        kind = draw.random()
        if kind >= rate / 3:
            copy.append((base + int(draw.integers(1, 4))) % 4 if kind < 2 * rate / 3 else base)
    return np.array(copy, np.uint8)


def check(strands, report, pool, reads):
    """Every strand is one that was written, once; the report's numbers agree among themselves."""
    written = {row.tobytes() for row in pool.strands}
    rows, length = strands.bases, strands.bases.shape[1]
    found = [row.tobytes() for row in rows]
    assert length == pool.strands.shape[1]
    assert len(set(found)) == len(found)
    assert set(found) <= written
    assert report.strand_length == 100
    assert report.reads == reads
    assert report.at_once + report.repaired == len(found)
    numbers, read, unread = zip(*report.coverage, strict=True)
    assert list(numbers) == sorted(set(numbers))
    assert (sum(read), sum(unread)) == (len(found), report.unread)
    assert report.clusters == len(found) + report.unread
    assert sum(n * (r + u) for n, r, u in report.coverage) <= reads - report.unusable


# ---- simulated reads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "coverage", "primers"),
    [
        pytest.param("nanopore", 12, ("", ""), marks=pytest.mark.slow),
        pytest.param("illumina", 5, ("", ""), marks=pytest.mark.slow),
        ("nanopore", 12, PRIMERS),
    ],
    ids=["nanopore", "illumina-own-shapes", "nanopore-primed"],
)
def test_whole_way(preset, coverage, primers):
    pool, reads = packed(primers=primers), simulated(preset, coverage, primers)
    assert 0.3 < reads.reversed.mean() < 0.7
    steps = {}
    progress = lambda station, done, total: steps.setdefault(station, []).append((done, total))  # noqa: E731
    strands, report = recover.recover(chunks_of(reads), primers=primers, progress=progress)
    check(strands, report, pool, len(reads.lengths))
    data, found = codec.unpack(strands, primers=primers)
    assert data == BLOB
    assert found.verified
    assert sum(done for done, _ in steps["reads"]) == len(reads.lengths)
    for station in ("clusters", "consensus"):
        assert sum(done for done, _ in steps[station]) == steps[station][0][1] > 0

    seen, copies = np.unique(reads.origin, return_counts=True)
    missing = len(seen) - len(strands)
    assert missing <= 4
    # most clusters are the strands' reads, and no other: the histogram is that of the copies
    drawn = dict(zip(*np.unique(copies, return_counts=True), strict=True))
    told = {n: r + u for n, r, u in report.coverage}
    assert sum(abs(told.get(n, 0) - drawn.get(n, 0)) for n in told.keys() | drawn.keys()) <= 0.25 * len(seen)

    # as the shortest alignments of the true pairs show them, which hide some
    bare, first = simulated(preset, coverage), slice(500)
    rows = [row[:length] for row, length in zip(bare.bases[first], bare.lengths[first], strict=True)]
    rows = [3 - row[::-1] if turned else row for row, turned in zip(rows, bare.reversed[first], strict=True)]
    pairs = fit.statistics(list(packed().strands[bare.origin[first]]), rows)
    measured = [report.substitutions, report.insertions, report.deletions]
    if preset == "nanopore":  # some hundred errors of each kind; lumped by reads of log-normal quality
        np.testing.assert_allclose(measured, pairs.rates, rtol=0.4)
    assert sum(measured) == pytest.approx(sum(pairs.rates), rel=0.3)


def test_error_rates_of_reads_made_by_hand():
    """Every read has 3 bases substituted, 2 inserted and 1 deleted, far apart."""
    draw = np.random.default_rng(3)
    rows = []
    for strand in packed().strands:
        for _ in range(6):
            places = draw.permutation(np.arange(0, 90, 15) + draw.integers(2, 95) % 15 + draw.integers(0, 6, 6))
            places = np.clip(places, 2, 97)
            bases = strand.tolist()
            for place, kind in sorted(zip(places.tolist(), "SSSIID", strict=True), reverse=True):
                if kind == "S":
                    bases[place] = (bases[place] + int(draw.integers(1, 4))) % 4
                elif kind == "I":
                    bases.insert(place, int(draw.integers(4)))
                else:
                    del bases[place]
            rows.append(np.array(bases, np.uint8))
    strands, report = recover.recover(by_hand(rows))
    check(strands, report, packed(), len(rows))
    measured = [report.substitutions, report.insertions, report.deletions]
    np.testing.assert_allclose(measured, [0.03, 0.02, 0.01], rtol=0.1)
    assert codec.unpack(strands)[0] == BLOB


# ---- reads made by hand -------------------------------------------------------------------------------------


def test_copies_without_errors_both_ways():
    pool = packed()
    rows = [back(row) if (i + turn) % 3 == 0 else row for i, row in enumerate(pool.strands) for turn in range(3)]
    strands, report = recover.recover(by_hand(rows))
    check(strands, report, pool, len(rows))
    assert {row.tobytes() for row in strands.bases} == {row.tobytes() for row in pool.strands}
    assert (report.at_once, report.repaired, report.unread) == (len(pool.strands), 0, 0)
    assert report.coverage == ((3, len(pool.strands), 0),)
    assert (report.substitutions, report.insertions, report.deletions) == (0, 0, 0)
    assert (report.unusable, report.clusters) == (0, len(pool.strands))
    assert codec.unpack(strands)[0] == BLOB


def test_a_strand_of_several_clusters_is_given_once(monkeypatch):
    """Where clustering takes the copies apart."""
    pool = packed()
    rows = [row for row in pool.strands for _ in range(3)]
    monkeypatch.setattr(clustering, "cluster", lambda reads, lengths, progress: np.arange(len(reads)))
    strands, report = recover.recover(by_hand(rows))
    check(strands, report, pool, len(rows))
    assert report.coverage == ((1, len(pool.strands), 0),)
    assert len(strands.bases) == len(pool.strands)


def test_of_two_copies_of_a_packet_the_one_with_more_reads_is_taken(monkeypatch):
    """Both pass their checks: of two pools of one key and one layout, the second lent the first two strands. Clusters
    are in the order of the letters, and the one with more reads is once the last and once the first of the two."""
    config = CodecConfig(codec="tokens", constraints="strand", strands=StrandConfig(length=100, redundancy=0.3))
    ours, theirs = (codec.pack(blob, config=config, key=b"one key!").strands for blob in (BLOB, OTHER))
    half = len(ours) // 2
    pairs = [sorted((pool[n].tobytes() for pool in (ours, theirs)), reverse=n == half) for n in (half, half + 1)]
    rows = [row for n, row in enumerate(ours) if n not in (half, half + 1)]
    wanted = {row.tobytes() for row in rows} | {more for more, _ in pairs}
    rows += [np.frombuffer(row, np.uint8) for more, less in pairs for row in [more] * 5 + [less] * 2]

    def by_letters(reads, lengths, progress):
        return np.unique(reads, axis=0, return_inverse=True)[1].reshape(-1)

    monkeypatch.setattr(clustering, "cluster", by_letters)
    strands, _ = recover.recover(by_hand(rows))
    assert {row.tobytes() for row in strands.bases} == wanted


def test_unknown_bases():
    """Each copy has two N, at other places than the others' N."""
    pool, draw = packed(), np.random.default_rng(0)
    rows = []
    for strand in pool.strands:
        places = draw.permutation(100)[:6].reshape(3, 2)
        for where in places:
            row = strand.copy()
            row[where] = fastq.UNKNOWN
            rows.append(back(row) if draw.random() < 0.5 else row)
    strands, report = recover.recover(by_hand(rows))
    check(strands, report, pool, len(rows))
    assert report.at_once == len(pool.strands)
    assert codec.unpack(strands)[0] == BLOB


def test_pieces_and_junk():
    """Truncated reads, random ones, too long and tiny ones, and one base repeated, among 4 good copies of each."""
    pool, draw = packed(), np.random.default_rng(1)
    rows = [noisy(row, 0.02, draw) for row in pool.strands for _ in range(4)]
    pieces = [
        row[: draw.integers(20, 95)] if draw.random() < 0.5 else row[-draw.integers(20, 95) :] for row in rows[::4]
    ]
    junk = [draw.integers(0, 4, draw.integers(60, 111), dtype=np.uint8) for _ in range(60)]
    strange = [np.zeros(100, np.uint8)] * 20 + [np.zeros(1, np.uint8), draw.integers(0, 4, 5000, dtype=np.uint8)]
    everything = [*rows, *pieces, *junk, *strange]
    strands, report = recover.recover(by_hand(everything))
    check(strands, report, pool, len(everything))
    assert report.unusable >= 2
    assert len(strands.bases) >= 62
    assert codec.unpack(strands)[0] == BLOB


def test_primed_reads_cut_short():
    """A read may end with its left primer, hold one primer alone, or none; it harms no other."""
    pool = packed(primers=PRIMERS)
    rows = [back(row) if i % 2 else row for i, row in enumerate(pool.strands) for _ in range(3)]
    draw = np.random.default_rng(0)
    broken = [pool.strands[0][:20], pool.strands[0][:21], back(pool.strands[1])[:20], pool.strands[2][-20:]]
    junk = [draw.integers(0, 4, 140, dtype=np.uint8) for _ in range(30)]
    everything = [*rows, *broken, *junk]
    strands, report = recover.recover(by_hand(everything), primers=PRIMERS)
    check(strands, report, pool, len(everything))
    assert len(strands.bases) == len(pool.strands)
    assert codec.unpack(strands, primers=PRIMERS)[0] == BLOB


def test_reads_of_a_fasta_file(tmp_path):
    pool, draw = packed(), np.random.default_rng(2)
    rows = [noisy(row, 0.02, draw) for row in pool.strands for _ in range(4)]
    path = tmp_path / "reads.fasta"
    path.write_text("".join(f">r\n{''.join('ACGT'[base] for base in row)}\n" for row in rows))
    strands, report = recover.recover(fastq.read(path, chunk=100))
    check(strands, report, pool, len(rows))
    assert codec.unpack(strands)[0] == BLOB


def test_qualities_decide():
    """Of three copies two are wrong at one place, and doubtful there; then the same without the doubt. Header strands
    are left as they are, since nothing is found without them."""
    pool = packed()
    lengths = np.full(3 * len(pool.strands), 100, np.int32)
    bases = np.repeat(pool.strands, 3, axis=0)
    for n in range(pool.header_strands, len(pool.strands)):
        place = 10 + n % 80
        bases[3 * n : 3 * n + 2, place] = (bases[3 * n, place] + 2) % 4
    for doubtful in (True, False):
        qualities = np.full(bases.shape, 30, np.uint8)
        if doubtful:
            qualities[bases != np.repeat(pool.strands, 3, axis=0)] = 2
        strands, report = recover.recover(iter([(bases, lengths, qualities)]))
        check(strands, report, pool, len(lengths))
        assert codec.unpack(strands)[0] == BLOB
        # without the doubt the check finds the right strand further down the list
        assert report.at_once == (len(pool.strands) if doubtful else pool.header_strands)


# ---- few reads, and others' ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sparse():
    """Two copies of each strand at 3 %; of header strands, without errors."""
    pool, draw = packed(), np.random.default_rng(5)
    rates = np.where(np.arange(len(pool.strands)) < pool.header_strands, 0, 0.03)
    return [noisy(row, rate, draw) for row, rate in zip(pool.strands, rates, strict=True) for _ in range(2)]


def test_the_second_search_finds_more(sparse, monkeypatch):
    counts = {}
    for done in (True, False):
        monkeypatch.setattr(solved.Solved, "enough", lambda self, done=done: done)
        strands, report = recover.recover(by_hand(sparse))
        check(strands, report, packed(), len(sparse))
        counts[done] = (len(strands.bases), report.at_once, report.repaired)
    (without, at_once, some), (found, same, more) = counts[True], counts[False]
    assert at_once == same
    assert found > without
    assert more > some


def test_two_pools_mixed():
    ours, theirs = packed(), packed(blob=OTHER)
    rows = [row for pool in (ours, theirs) for row in pool.strands for _ in range(3)]
    keys = [pool.header.key for pool in (ours, theirs)]
    with pytest.raises(DecodeError, match="several pools are mixed") as caught:
        recover.recover(by_hand(rows))
    assert all(key.hex() in str(caught.value) for key in keys)
    for pool, blob, key in zip((ours, theirs), (BLOB, OTHER), keys, strict=True):
        strands, report = recover.recover(by_hand(rows), key=key)
        assert codec.unpack(strands, key=key)[0] == blob
        mine = {row.tobytes() for row in pool.strands[pool.header_strands :]}
        assert mine <= {row.tobytes() for row in strands.bases}
        assert {row.tobytes() for row in strands.bases} <= {row.tobytes() for p in (ours, theirs) for row in p.strands}
        assert report.reads == len(rows)
    with pytest.raises(DecodeError, match="with key 0102030405060708"):
        recover.recover(by_hand(rows), key=bytes(range(1, 9)))


def test_too_few_reads():
    """Never other bytes: the header alone, half of the strands, none of the header, junk, and nothing."""
    pool, draw = packed(), np.random.default_rng(6)
    head, rest = pool.strands[: pool.header_strands], pool.strands[pool.header_strands :]
    for kept, said in ((head, "many more reads are needed"), (np.concatenate([head, rest[:20]]), "missing from the")):
        strands, report = recover.recover(by_hand([row for row in kept for _ in range(3)]))
        check(strands, report, pool, 3 * len(kept))
        with pytest.raises(DecodeError, match=said):
            codec.unpack(strands)
    with pytest.raises(DecodeError, match=r"no header strand .*; 120 reads in \d+ clusters"):
        recover.recover(by_hand([row for row in rest for _ in range(3)]))
    with pytest.raises(DecodeError, match="no header strand"):
        recover.recover(by_hand([draw.integers(0, 4, 100, dtype=np.uint8) for _ in range(30)]))
    for nothing in ((), [(np.zeros((2, 3), np.uint8), np.zeros(2, np.int32), None)]):
        with pytest.raises(DecodeError, match=r"none of \d reads can be used"):
            recover.recover(iter(nothing))


def test_very_noisy_reads_give_the_bytes_or_an_error():
    """3 copies at 9 %, of header strands at 2 %: at least some strands cannot be found."""
    pool, draw = packed(), np.random.default_rng(9)
    rates = np.where(np.arange(len(pool.strands)) < pool.header_strands, 0.02, 0.09)
    rows = [noisy(row, rate, draw) for row, rate in zip(pool.strands, rates, strict=True) for _ in range(3)]
    strands, report = recover.recover(by_hand(rows))
    check(strands, report, pool, len(rows))  # a check passes 1 in 2**16 wrong ones, and this seed has none
    assert len(strands.bases) < len(pool.strands)
    try:
        data = codec.unpack(strands)[0]
    except DecodeError:
        data = None
    assert data in (BLOB, None)


def test_wrong_primers_are_named():
    with pytest.raises(DecodeError, match="give the primers that were written"):
        recover.recover(by_hand([np.zeros(100, np.uint8)] * 3), primers=PRIMERS)


# ---- how many reads would be enough ---------------------------------------------------------------------------


def attempt(chunks):
    """Whether the bytes come back, the report of the reads if there is a header, and the error."""
    report = None
    try:
        strands, report = recover.recover(iter(chunks))
        return codec.unpack(strands)[0] == BLOB, report, ""
    except DecodeError as error:
        return False, report, str(error)


@pytest.mark.parametrize(
    ("preset", "coverage", "seeds"),
    [
        ("illumina", 1.0, [0]),
        pytest.param("illumina", 1.0, range(1, 9), marks=pytest.mark.slow),
        pytest.param("nanopore", 2.0, range(8), marks=pytest.mark.slow),
    ],
)
def test_as_many_more_reads_as_advised_are_enough(preset, coverage, seeds):
    """In most draws; the reads that came stay."""
    strands, channel, done = packed().strands, model.named(preset), []
    for seed in seeds:
        reads = simulate.reads_of(channel, strands, coverage, jax.random.key(seed))
        whole, report, said = attempt(chunks_of(reads))
        if whole or report is None:
            continue
        assert said.endswith(f"about {report.more_reads:,} more reads would be enough")
        assert report.enough_reads > report.reads
        assert report.more_reads >= report.enough_reads - report.reads
        share = report.more_reads / len(strands)
        assert share < 4 * coverage + 3  # no waste either
        more = simulate.reads_of(channel, strands, share, jax.random.key(1000 + seed))
        done.append(attempt([*chunks_of(reads), *chunks_of(more)])[0])
    assert done
    assert np.mean(done) >= 0.7


def test_the_fates_of_reads_sum_up():
    reads = simulated("nanopore", 12, PRIMERS)
    _, report = recover.recover(chunks_of(reads), primers=PRIMERS)
    fates = report.used_reads, report.duplicate_reads, report.unread_reads, report.unusable
    assert sum(fates) == report.reads
    assert report.used_reads > 0.9 * report.reads
    along = np.array(report.by_position)
    assert along.shape == (100, 3)
    totals = [report.substitutions, report.insertions, report.deletions]
    np.testing.assert_allclose(along.mean(axis=0), totals, atol=1e-5)
    # more errors at the end of a strand than at its beginning, as the preset has it
    assert along[:10].sum() < 0.9 * along[-10:].sum()
