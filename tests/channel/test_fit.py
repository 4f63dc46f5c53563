"""The fit: alignments and statistics by hand, a known channel found again, and the shipped one beside real reads."""

import dataclasses
import functools
import gzip
from pathlib import Path

import jax
import numpy as np
import pytest

from helix_jax.channel import fit, model, simulate
from helix_jax.channel.model import PRESETS, ChannelError, Errors, Quality
from helix_jax.errors import HelixError
from helix_jax.reads import edits

REAL = Path(__file__).parents[3] / "shared" / "data" / "reads"
fresh_key = functools.partial(jax.random.key, 11)  # a key is used once


def bases(text):
    return np.array(["ACGT".index(letter) for letter in text], np.uint8)


def pairs_of(channel, strands, coverage, key=None):
    """Strands, reads and qualities, as lists of arrays, of a channel that turns none around."""
    reads = simulate.reads_of(
        dataclasses.replace(channel, reverse=0.0), strands, coverage, fresh_key() if key is None else key
    )
    lengths = reads.lengths.tolist()
    return (
        [strands[i] for i in reads.origin.tolist()],
        [reads.bases[i, :length] for i, length in enumerate(lengths)],
        [reads.qualities[i, :length] for i, length in enumerate(lengths)],
    )


# ---- alignment -----------------------------------------------------------------------------------------------


def test_edits_column_by_column():
    script = edits.edits(bases("ACGTACGT"), bases("ACTTAACG"))
    assert "".join("=XID"[op] for op in script.op) in ("==X==I==D", "==X=I===D")
    assert script.position.tolist()[-2:] == [6, 7]
    assert script.read.tolist()[-2:] == [7, 8]
    assert (script.position.dtype, script.read.dtype, script.op.dtype) == (np.int32, np.int32, np.uint8)


@pytest.mark.parametrize(
    ("strand", "read", "said"),
    [
        (bases("AC"), np.zeros(0, np.uint8), r"read: uint8\[0\]"),
        (np.zeros(0, np.uint8), bases("AC"), r"strand: uint8\[0\]"),
        (bases("AC"), np.array([4], np.uint8), "read: base 4.*leave reads with N out"),
        (np.array([1, 2]), bases("AC"), r"strand: int64\[2\]; give uint8"),
    ],
)
def test_edits_refuse(strand, read, said):
    with pytest.raises(HelixError, match=said):
        edits.edits(strand, read)


def test_transplant():
    strand, read = bases("ACGTACGTTGCA"), bases("ACTTACGTTCGA")[:11]  # G -> T at 2, and damage at the end
    quality = np.arange(20, 31, dtype=np.uint8)
    same, told = fit.transplant(strand, read, quality, strand)
    np.testing.assert_array_equal(same, read)
    np.testing.assert_array_equal(told, quality)
    ours = bases("TTTTTTTTTTTT")
    moved, _ = fit.transplant(bases("ACGTACGTAC"), bases("ACTTACGTAC"), np.full(10, 9, np.uint8), ours)
    assert moved.tolist() == [3, 3, (3 + 1) % 4, 3, 3, 3, 3, 3, 3, 3, 3, 3]  # G -> T is a shift by one


def test_transplant_goes_on_from_the_beginning_or_is_cut():
    strand, read = bases("ACGTACGTAC"), bases("ACGACGGTAC")  # without the T at 3; one G more at 6
    quality = np.arange(10, dtype=np.uint8)
    assert [int(np.sum(edits.edits(strand, read).op == op)) for op in (edits.INSERTED, edits.DELETED)] == [1, 1]
    ours = np.tile(bases("CATG"), 6)[:23]
    out, told = fit.transplant(strand, read, quality, ours)
    once, twice = np.delete(np.arange(23), [3, 13]), out
    assert len(out) == 23 - 2 + 2
    inserted = [int(np.flatnonzero(edits.edits(strand, read).op == edits.INSERTED)[0]) - 1]
    inserted.append(inserted[0] + 10)
    np.testing.assert_array_equal(np.delete(twice, inserted), ours[once])
    assert out[inserted].tolist() == [2, 2]
    np.testing.assert_array_equal(told, np.tile(quality, 3)[:23])
    short, _ = fit.transplant(strand, read, quality, ours[:5])
    np.testing.assert_array_equal(short, ours[[0, 1, 2, 4]])
    with pytest.raises(ChannelError, match="quality: 3 values for a read of 10"):
        fit.transplant(strand, read, quality[:3], ours)


# ---- statistics ------------------------------------------------------------------------------------------------


def test_statistics_by_hand():
    strands = [bases("ACGTACGTAC"), bases("AAACCGTGTC")]
    reads = [bases("ACTTACGTAC"), bases("AACCGTGATC")]  # G -> T; one A lost, one put in
    qualities = [np.array([30, 29, 5, 28, 31, 32, 33, 34, 35, 90], np.uint8), np.full(10, 20, np.uint8)]
    seen = fit.statistics(strands, reads, qualities)
    assert (seen.reads, seen.bases, seen.inserted, seen.deleted) == (2, 20, 1, 1)
    assert np.argwhere(seen.substitutions).tolist() == [[2, 3]]
    assert seen.rates.tolist() == [0.05, 0.05, 0.05]
    assert seen.deletion_runs[1] == seen.insertion_runs[1] == 1
    assert seen.by_run[0].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert seen.by_run[1].tolist() == [0, 15, 2, 3, 0, 0, 0, 0, 0]
    assert seen.by_place.sum(axis=1).tolist() == [3, 20]
    assert (seen.errors.tolist(), seen.events.tolist(), seen.shares.tolist()) == ([1, 2], [1, 2], [0.1, 0.2])
    assert seen.histograms[simulate.WRONG].nonzero()[0].tolist() == [5, 20]
    assert seen.histograms[simulate.BESIDE][[28, 29]].tolist() == [1, 1]
    assert seen.histograms[simulate.RIGHT][90] == 0  # no probability
    assert seen.histograms.sum() == 19
    assert seen.run.tolist() == [[1] * 10, [3, 3, 3, 2, 2, 1, 1, 1, 1, 1]]
    assert np.argwhere(seen.begun).tolist() in [[[0, 2], [1, place], [1, 8]] for place in range(3)]
    assert (seen.free, seen.followed(5), seen.followed(8)) == (0, 0, 1 / 3)


@pytest.mark.parametrize(
    ("strands", "reads", "qualities", "said"),
    [
        ([], [], None, "pairs: 0 strands, 0 reads, no qualities"),
        ([bases("AC")], [], None, "pairs: 1 strands, 0 reads"),
        ([bases("AC")], [bases("AC")], [], "0 qualities"),
        ([bases("AC")], [bases("AC")], [np.array([1], np.uint8)], "qualities: 1 values for 2 bases"),
        ([bases("AC")], [bases("AC")], [np.array([1, 99], np.uint8)], "qualities: 99; Phred.*take 33 off"),
    ],
)
def test_statistics_refuse(strands, reads, qualities, said):
    with pytest.raises(ChannelError, match=said):
        fit.statistics(strands, reads, qualities)


# ---- fit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "inside", "length", "spread"), [(0.1, 0.7, 8.0, 0.5), (0.2, 0.9, 12.0, 0.4)])
def test_fit_finds_stretches_again(share, inside, length, spread):
    asked = Errors(substitution=0.03, bad_share=share, bad_errors=inside, bad_length=length, spread=spread)
    channel = model.Channel("asked", "this test", sequencing=asked)
    strands = np.random.default_rng(1).integers(0, 4, (1500, 100), dtype=np.uint8)
    rows, reads, _ = pairs_of(channel, strands, 1)
    got = fit.fit(rows, reads, None, "found", "this test", rounds=0).sequencing
    assert got.bad_share == pytest.approx(share, rel=0.25)
    assert got.bad_errors == pytest.approx(inside, abs=0.1)
    assert got.bad_length == pytest.approx(length, rel=0.25)
    assert got.spread == pytest.approx(spread, abs=0.12)


def test_no_stretches_where_there_are_none():
    channel = model.Channel("asked", "this test", sequencing=Errors(substitution=0.04, spread=0.5))
    strands = np.random.default_rng(1).integers(0, 4, (1000, 100), dtype=np.uint8)
    rows, reads, _ = pairs_of(channel, strands, 1)
    got = fit.fit(rows, reads, None, "found", "this test", rounds=0).sequencing
    assert (got.bad_share, got.bad_errors, got.bad_length) == (0, 0, 1)
    assert got.spread == pytest.approx(0.5, abs=0.07)


@pytest.mark.slow
def test_fit_finds_a_channel_again():
    shares = ((0, 0.2, 0.6, 0.2), (0.2, 0, 0.2, 0.8), (1.2, 0.2, 0, 0.2), (0.1, 0.05, 0.05, 0))
    asked = Errors(0.015, 0.01, 0.03, shares, homopolymer=1.5, position=(0.5, 1.5), deletion_run=0.3,
                   insertion_run=0.2, spread=0.6)  # fmt: skip
    right, wrong = tuple(np.arange(30) / 435), tuple(np.arange(30)[::-1] / 435)
    quality = Quality(right, wrong, right, factor=0.4, read=0.3, neighbour=0.6)
    channel = model.Channel("asked", "this test", sequencing=asked, quality=quality)
    strands = np.random.default_rng(1).integers(0, 4, (2000, 120), dtype=np.uint8)
    found = fit.fit(*pairs_of(channel, strands, 2), "found", "this test", rounds=1, copies=2)
    got = found.sequencing
    assert found.name == "found"
    for name, tolerance in (("substitution", 0.0012), ("insertion", 0.001), ("deletion", 0.002)):
        assert getattr(got, name) == pytest.approx(getattr(asked, name), abs=tolerance)
    assert got.homopolymer == pytest.approx(1.5, abs=0.1)
    assert got.deletion_run == pytest.approx(0.3, abs=0.03)
    assert got.insertion_run == pytest.approx(0.2, abs=0.04)
    assert got.spread == pytest.approx(0.6, abs=0.06)
    np.testing.assert_allclose(got.substitutions, shares, atol=0.2)
    knots = np.interp(np.linspace(0, 1, fit.KNOTS), (0, 1), asked.position)
    np.testing.assert_allclose(got.position[1:-1], knots[1:-1], atol=0.12)
    assert found.quality.factor == pytest.approx(0.4, abs=0.08)
    assert found.quality.read == pytest.approx(0.3, abs=0.1)
    assert found.quality.neighbour == pytest.approx(0.6, abs=0.06)
    assert abs(np.cumsum(found.quality.right) - np.cumsum(right)).max() < 0.03
    # the shortest alignment sometimes takes the right base beside a wrong one for it
    assert abs(np.cumsum(found.quality.wrong) - np.cumsum(wrong)).max() < 0.08


def test_fit_of_flawless_pairs():
    strands = list(np.random.default_rng(2).integers(0, 4, (20, 30), dtype=np.uint8))
    found = fit.fit(strands, strands, None, "flawless", "this test", rounds=0)
    assert found.total == 0
    assert found.quality == Quality.flat(40)
    with pytest.raises(ChannelError, match=r"strands: lengths \[20, 30\]"):
        fit.fit([*strands, strands[0][:20]], [*strands, strands[0][:20]], None, "two", "this test")


# ---- beside real reads -----------------------------------------------------------------------------------------


@functools.cache
def real_pairs():
    names = [REAL / f"nanopore_{part}.tsv.gz" for part in "ab"]
    missing = [name.name for name in names if not name.exists()]
    if missing:
        pytest.skip(f"{', '.join(missing)} of the real pairs are not beside this checkout, in shared/data/reads")
    texts = [gzip.decompress(name.read_bytes()).decode() for name in names]
    rows = [line.split("\t") for text in texts for line in text.splitlines()[1:]]
    return (
        [bases(row[1]) for row in rows],
        [bases(row[2]) for row in rows],
        [np.frombuffer(row[3].encode(), np.uint8) - 33 for row in rows],
    )


def test_shipped_nanopore_is_the_real_one():
    """Tolerances: some three standard errors of 1,215 reads, where no more is said."""
    strands, reads, qualities = real_pairs()
    real = fit.statistics(strands, reads, qualities)
    seen = fit.statistics(*pairs_of(PRESETS["nanopore"], np.stack(strands), 4))
    np.testing.assert_allclose(seen.rates, real.rates, atol=0.0012)
    assert seen.rates.sum() == pytest.approx(real.rates.sum(), rel=0.07)
    off = ~np.eye(4, dtype=bool)
    ratios = [
        (one.substitutions / one.substitutions.sum(axis=1, keepdims=True))[off] for one in (seen, real)
    ]  # fmt: skip
    np.testing.assert_allclose(*ratios, atol=0.09)
    for name, most in (("deletion_runs", 0.04), ("insertion_runs", 0.04)):
        shares = [getattr(one, name)[1:6] / getattr(one, name).sum() for one in (seen, real)]
        np.testing.assert_allclose(*shares, atol=most)
    # a step of one edit is 0.0078
    np.testing.assert_allclose(
        seen.quantiles((0.25, 0.5, 0.75, 0.9, 0.95)), real.quantiles((0.25, 0.5, 0.75, 0.9, 0.95)), atol=0.0117
    )
    assert seen.spread == pytest.approx(real.spread, abs=0.07)
    assert seen.free == pytest.approx(real.free, abs=0.015)
    for bases in (1, 2, 3, 5):
        assert seen.followed(bases) == pytest.approx(real.followed(bases), abs=0.045)
    places = [one.by_place.reshape(2, 8, 8).sum(axis=2) for one in (seen, real)]
    np.testing.assert_allclose(*(errors / exposed for errors, exposed in places), rtol=0.15)
    runs = [one.by_run[0, 1:4] / one.by_run[1, 1:4] for one in (seen, real)]
    np.testing.assert_allclose(*runs, rtol=0.2)
    for kind in (simulate.RIGHT, simulate.WRONG, simulate.BESIDE):
        shares = [np.cumsum(one.histograms[kind]) / one.histograms[kind].sum() for one in (seen, real)]
        assert abs(shares[0] - shares[1]).max() < 0.07
    assert seen.near == pytest.approx(real.near, abs=0.04)
    assert seen.far == pytest.approx(real.far, abs=0.04)
    links = [np.corrcoef(one.levels, one.shares)[0, 1] for one in (seen, real)]
    # bad stretches of a real read also lower the qualities of right bases; those of the model do so only next to errors
    assert links[0] == pytest.approx(links[1], abs=0.18)


def test_real_errors_on_our_strands():
    strands, reads, qualities = real_pairs()
    ours = np.random.default_rng(3).integers(0, 4, (len(strands), 150), dtype=np.uint8)
    moved = [fit.transplant(*row) for row in zip(strands, reads, qualities, ours, strict=True)]
    seen = fit.statistics(list(ours), [row[0] for row in moved], [row[1] for row in moved])
    real = fit.statistics(strands, reads, qualities)
    # the first 22 bases of each script come twice, and have fewer errors than the rest; and the shortest alignment of
    # the same edits on other bases is sometimes another
    np.testing.assert_allclose(seen.rates, real.rates, rtol=0.2)
    means = [(one.histograms[0] @ np.arange(94)) / one.histograms[0].sum() for one in (seen, real)]
    assert means[0] == pytest.approx(means[1], abs=0.5)
