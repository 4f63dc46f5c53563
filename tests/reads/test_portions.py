"""Reads are taken a portion at a time, no more than are needed: how many, and that what comes back does not change."""

import numpy as np
import pytest

from helix_jax import codec, packing, parallel
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.errors import DecodeError
from helix_jax.reads import portions, recover, solved, trimming
from helix_jax.strands import layouts

BLOB = np.random.default_rng(7).bytes(600)
PRIMERS = ("ACACGACGCTCTTCCGATCT", "AGATCGGAAGAGCACACGTC")


@pytest.fixture(autouse=True)
def one_shape(monkeypatch):
    """Batches of 64 rows, so that the tests share what is compiled."""
    plain = parallel.map_batches

    def fixed(function, constants, *batched, batch, **options):
        return plain(function, constants, *batched, batch=64, **options)

    monkeypatch.setattr(parallel, "map_batches", fixed)


def packed(blob, left="", right=""):
    strands = StrandConfig(length=100, redundancy=0.3, left_primer=left, right_primer=right)
    return codec.pack(blob, config=CodecConfig(codec="tokens", constraints="strand", strands=strands))


@pytest.fixture(scope="module")
def pool():
    return packed(BLOB)


def reads_of(strands, times, seed=0):
    """Copies with one base substituted each, half of them reverse complements, in random order: uint8[n, L]."""
    draw = np.random.default_rng(seed)
    rows = np.repeat(strands, times, axis=0)
    rows[np.arange(len(rows)), draw.integers(0, rows.shape[1], len(rows))] ^= 1
    turned = draw.random(len(rows)) < 0.5
    return np.where(turned[:, None], 3 - rows[:, ::-1], rows)[draw.permutation(len(rows))]


def chunks_of(rows, size=40, seen=None):
    """The chunks of reads; ``seen`` gets the number of reads of each that is asked for."""
    for begin in range(0, len(rows), size):
        part = rows[begin : begin + size]
        if seen is not None:
            seen.append(len(part))
        yield part, np.full(len(part), part.shape[1], np.int32), None


def rows_of(strands):
    return {row.tobytes() for row in strands.bases}


# ---- how many ------------------------------------------------------------------------------------------------


def test_reads_are_taken_in_whole_chunks_until_there_are_enough():
    source = portions.Source(chunks_of(np.zeros((100, 20), np.uint8), 30))
    assert [len(lengths) for _, lengths, _ in source.until(31)] == [30, 30]
    assert (source.taken, source.ended()) == (60, False)
    assert list(source.until(60)) == []
    assert [len(lengths) for _, lengths, _ in source.until(90)] == [30]
    assert not source.ended()
    assert [len(lengths) for _, lengths, _ in source.until(np.inf)] == [10]
    assert source.ended()
    assert portions.Source(iter(())).ended()


@pytest.mark.parametrize("most", [1, 29, 30, 31, 99, 100, 1000])
def test_no_more_reads_than_asked_for(most):
    source = portions.Source(chunks_of(np.arange(100, dtype=np.uint8)[:, None].repeat(20, 1), 30), most)
    taken = np.concatenate([bases[:, 0] for bases, _, _ in source.until(1000)])
    np.testing.assert_array_equal(taken, np.arange(min(most, 100)))
    assert source.ended()
    assert source.taken == len(taken)


@pytest.mark.parametrize("others", [0, 100_000])
@pytest.mark.parametrize("strands", [500, 4000, 20_000])
def test_coverage_and_strands_show_in_a_sample(strands, others):
    """Whatever other reads there are that resemble none."""
    drawn = np.random.default_rng(0).integers(0, strands, 8192)
    sizes = np.bincount(drawn)
    coverage, number = portions.seen(np.concatenate([sizes[sizes > 0], np.ones(others, int)]))
    assert coverage == pytest.approx(8192 / strands, rel=0.25)
    assert number == pytest.approx(strands, rel=0.3)


def test_no_coverage_shows_without_three_copies():
    assert portions.seen(np.array([1, 2, 2, 1])) == (0, 0)
    assert portions.seen(np.zeros(0, int)) == (0, 0)


def test_portions_grow():
    total = portions.total_without_header
    assert total(8192, 8192, 0.01, 1 << 20) == total(8192, 8192, 0, 1 << 20) == 8192 * portions.LEAP
    assert total(8192, 8192, 1.0, 1 << 20) == 3 * 8192
    assert total(8192, 8192, 50.0, 1 << 20) == 2 * 8192
    assert total(10**6, 10**6, 0.1, 1 << 19) == 10**6 + (1 << 19)  # no more at once than may wait
    assert total(10**6, 10**4, 0.1, 1 << 19) == 16 * 10**6  # of which few are usable
    assert portions.total_with_header(8192, 8192, 100_000) == 300_000
    assert portions.total_with_header(8000, 800, 100_000) == 3_000_000
    assert portions.total_with_header(400_000, 400_000, 100_000) == pytest.approx(560_000)
    assert portions.most_waiting(10) == portions.MOST_WAITING
    assert portions.most_waiting(1e6) == 8_000_000


def test_the_header_is_sought_early_and_at_each_doubling():
    assert portions.headed(8192, 2.0, 0)
    assert not portions.headed(8192, 1.0, 0)
    assert portions.headed(1 << 19, 0.0, 0)
    assert not portions.headed((1 << 20) - 1, 9.0, 1 << 19)
    assert portions.headed(1 << 20, 0.0, 1 << 19)


def test_as_many_packets_are_enough_as_a_block_has():
    """Of small blocks, without repair packets, and where a screen leaves packets out."""
    for share, numbered in ((0.0, None), (0.02, None), (0.1, None), (0.1, lambda needed: needed // 4 + 14)):
        layout = layouts.plan(200, 0, share, sections=[(40, share), (300, share), (50_000, share)], numbered=numbered)
        enough, sources = solved.wanted(layout), np.array(layout.block_sources)
        assert (enough <= layout.block_written).all()
        assert (enough - sources).tolist() == ([2, 2, 4] if share else [0, 0, 0])


# ---- what comes back -----------------------------------------------------------------------------------------


def test_reading_stops_when_all_blocks_can_be_solved(pool, monkeypatch):
    monkeypatch.setattr(portions, "FIRST", 200)
    rows, seen = reads_of(pool.strands, 40), []
    strands, report = recover.recover(chunks_of(rows, 20, seen))
    assert codec.unpack(strands)[0] == BLOB
    assert report.reads < len(rows) / 4
    assert sum(seen) <= report.reads + 20
    assert sum(n * (read + lost) for n, read, lost in report.coverage) <= report.reads


def test_reading_stops_with_a_note(monkeypatch):
    """Whose section is a block of a few packets."""
    config = CodecConfig(constraints="strand", note=True, strands=StrandConfig(length=100, redundancy=0.1))
    pool = packing.pack(BLOB, config=config, name="a.bin")
    assert len(pool.header.sections) == 2
    assert min(pool.layout.block_repairs) < solved.SURPLUS
    monkeypatch.setattr(portions, "FIRST", 200)
    rows = reads_of(pool.strands, 40)
    strands, report = recover.recover(chunks_of(rows, 20))
    assert packing.unpack(strands)[0] == BLOB
    assert report.reads < len(rows) / 4


@pytest.mark.parametrize("primers", [("", ""), PRIMERS], ids=["both-ways", "primed"])
def test_few_reads_are_of_the_pool(primers, monkeypatch):
    """One in 5. The header is found before all reads are taken, and no more wait than may."""
    monkeypatch.setattr(portions, "FIRST", 200)
    monkeypatch.setattr(portions, "MOST_WAITING", 300)
    monkeypatch.setattr(portions, "AT_LATEST", 1000)
    waited, plain = [], recover._likeliest

    def watched(copies, clusters, reads, most):
        rows = plain(copies, clusters, reads, most)
        waited.append((len(rows), most))
        return rows

    monkeypatch.setattr(recover, "_likeliest", watched)
    pool = packed(BLOB[:100], *primers)
    own = reads_of(pool.strands, 12)
    junk = np.random.default_rng(1).integers(0, 4, (4 * len(own), own.shape[1]), np.uint8)
    rows = np.concatenate([own, junk])[np.random.default_rng(2).permutation(5 * len(own))]
    strands, report = recover.recover(chunks_of(rows), primers=primers)
    assert codec.unpack(strands, primers=primers)[0] == BLOB[:100]
    assert report.reads < len(rows)
    assert report.used_reads + report.duplicate_reads + report.unread_reads + report.unusable == report.reads
    assert all(count <= most for count, most in waited)


def test_all_at_once(monkeypatch):
    """A pool that only the last reads are of is told, where a first portion would suffice for another."""
    monkeypatch.setattr(portions, "FIRST", 100)
    one, other = (packed(np.random.default_rng(seed).bytes(60)) for seed in (8, 9))
    rows = np.concatenate([reads_of(one.strands, 5), reads_of(other.strands, 2)])
    recover.recover(chunks_of(rows))
    with pytest.raises(DecodeError, match="several pools are mixed"):
        recover.recover(chunks_of(rows), at_once=True)


@pytest.mark.parametrize("primers", [("", ""), PRIMERS], ids=["both-ways", "primed"])
def test_portions_change_nothing(primers, monkeypatch):
    """Of a pool of which too few strands are read: all reads are taken, in one portion or in many."""
    pool = packed(BLOB, *primers)
    kept = np.concatenate([pool.strands[: pool.header_strands], pool.strands[pool.header_strands :: 2]])
    rows = reads_of(kept, 12)
    results = []
    for first in (len(rows), 150):
        monkeypatch.setattr(portions, "FIRST", first)
        results.append(recover.recover(chunks_of(rows), primers=primers))
    (one, about_one), (many, about_many) = results
    assert rows_of(one) == rows_of(many) == {row.tobytes() for row in kept}
    assert about_one.coverage == about_many.coverage == ((12, len(kept), 0),)
    assert (about_one.reads, about_one.unread) == (about_many.reads, about_many.unread) == (len(rows), 0)
    assert about_many.substitutions == pytest.approx(about_one.substitutions, rel=0.1)
    with pytest.raises(DecodeError, match="more reads alone would not be enough"):
        codec.unpack(many, primers=primers)


def test_a_portion_is_taken_in_slices(monkeypatch):
    """However many reads a portion has, few of them are in memory at once, and those of known strands go again."""
    monkeypatch.setattr(portions, "FIRST", 100)
    strands = packed(BLOB[:150]).strands
    rows, sizes, plain = reads_of(strands[: len(strands) * 2 // 3], 16), [], trimming.cut

    def watched(*args, **options):
        fresh, tally = plain(*args, **options)
        sizes.append(len(fresh))
        return fresh, tally

    whole = recover.recover(chunks_of(rows))
    monkeypatch.setattr(trimming, "cut", watched)
    monkeypatch.setattr(portions, "SLICE", 60)
    sliced = recover.recover(chunks_of(rows))
    assert rows_of(whole[0]) == rows_of(sliced[0])
    assert whole[1].coverage == sliced[1].coverage
    assert sliced[1].reads == sum(sizes) == len(rows)
    assert max(sizes[1:]) <= 60 + 40


def test_the_first_reads_only(pool):
    rows = reads_of(pool.strands, 6)
    few = recover.recover(chunks_of(rows), max_reads=400)[1]
    same = recover.recover(chunks_of(rows[:400]))[1]
    assert few == same
    assert few.reads == 400


def test_reads_of_others_first(pool, monkeypatch):
    """A first portion of junk, some of another length, does not hide the pool; junk alone is read to its end."""
    monkeypatch.setattr(portions, "FIRST", 100)
    draw = np.random.default_rng(0)
    junk = [draw.integers(0, 4, (50, length), np.uint8) for length in (100, 300, 300)]
    rows = reads_of(pool.strands, 12)
    chunks = [chunk for part in (*junk, rows) for chunk in chunks_of(part)]
    strands, report = recover.recover(chunks)
    assert codec.unpack(strands)[0] == BLOB
    assert report.left_out == {trimming.FAR: 100}
    monkeypatch.setattr(portions, "AT_LATEST", 200)
    with pytest.raises(DecodeError, match=r"no header strand.* 600 reads"):
        recover.recover(chunks_of(draw.integers(0, 4, (600, 100), np.uint8), 50))


def test_few_reads_wait(pool, monkeypatch):
    """Where another pool's reads fill what may wait, rare strands of ours are still found when more reads come."""
    monkeypatch.setattr(portions, "FIRST", 400)
    monkeypatch.setattr(portions, "MOST_WAITING", 0)  # 8 for each packet are left
    waited = []
    plain = recover._waiting

    def watched(solved, waiting, tried):
        rest, tried = plain(solved, waiting, tried)
        waited.append(len(rest))
        assert len(rest) == len(tried)
        return rest, tried

    monkeypatch.setattr(recover, "_waiting", watched)
    other = packed(np.random.default_rng(8).bytes(600))
    key, kept = pool.header.key, pool.strands[: len(pool.strands) // 2]
    rows = np.concatenate([reads_of(kept, 8), reads_of(other.strands, 25, seed=1)])
    rows = rows[np.random.default_rng(2).permutation(len(rows))]
    strands, report = recover.recover(chunks_of(rows), key=key)
    assert {row.tobytes() for row in kept} <= rows_of(strands)
    assert report.reads == len(rows)
    assert len(waited) > 2
    assert max(waited) <= 8 * pool.layout.packets
