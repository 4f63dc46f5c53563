"""The simulator against what edlib finds in its reads, against counts, and against itself."""

import dataclasses
import functools

import edlib
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helix_jax.channel import model, simulate
from helix_jax.channel.model import PRESETS, Channel, ChannelError, Errors, Quality

fresh_key = functools.partial(jax.random.key, 5)  # a key is used once


def strands_of(n, length, seed=0):
    return np.random.default_rng(seed).integers(0, 4, (n, length), dtype=np.uint8)


def channel_of(errors=Errors(), **fields):  # noqa: B008
    return Channel("test", "this test", sequencing=errors, **fields)


def rows_of(reads):
    return [reads.bases[i, :length] for i, length in enumerate(reads.lengths.tolist())]


def text(row):
    return bytes(row + 65).decode()


def edit_share(reads, strands):
    """Edits per base of the strand, by edlib, of reads in the direction of their strands."""
    found = [
        edlib.align(text(row), text(strands[i]))["editDistance"]
        for row, i in zip(rows_of(reads), reads.origin, strict=True)
    ]
    return np.array(found) / strands.shape[1]


def pass_of(errors, strands, factor=1.0, key=None):
    n, length = strands.shape
    keys = jax.random.split(fresh_key() if key is None else key, n)
    lengths = np.full(n, length, np.int32)
    return [
        np.asarray(part) for part in simulate.corrupt(errors, strands, lengths, np.full(n, factor, np.float32), keys)
    ]


# ---- one pass ------------------------------------------------------------------------------------------------


def test_substitutions_hit_the_asked_share_of_each_pair():
    shares = ((0, 1, 0, 0), (0.5, 0, 0, 1.5), (0, 0, 0, 0), (0.2, 0.3, 0.5, 0))
    strands = strands_of(2000, 100)
    bases, lengths, kind = pass_of(Errors(substitution=0.1, substitutions=shares), strands)
    assert bases.shape == strands.shape
    assert (lengths == 100).all()
    assert ((bases != strands) == (kind == simulate.WRONG)).all()
    counts = np.bincount(strands.ravel() * 4 + bases.ravel(), minlength=16).reshape(4, 4)
    rates = counts / counts.sum(axis=1, keepdims=True)
    off = ~np.eye(4, dtype=bool)
    # 50,000 of each base: a standard deviation is at most 0.0016
    np.testing.assert_allclose(rates[off], 0.1 * np.array(shares)[off], atol=0.007)
    assert (counts[off & (np.array(shares) == 0)] == 0).all()
    # a right base beside a wrong one says so, and no other does
    wrong = np.pad(kind == simulate.WRONG, ((0, 0), (1, 1)))
    beside = (wrong[:, 2:] | wrong[:, :-2]) & ~wrong[:, 1:-1]
    assert (beside == (kind == simulate.BESIDE)).all()


@pytest.mark.parametrize("run", [0.0, 0.5])
def test_deletions_keep_their_total_and_come_in_bursts(run):
    # places are told apart by a strand that counts: 0 1 2 3 0 1 2 3 ...
    strands = np.tile(np.arange(400, dtype=np.uint8) % 4, (1000, 1))
    bases, lengths, _ = pass_of(Errors(deletion=0.05, deletion_run=run), strands)
    lost = 1 - lengths.mean() / 400
    assert lost == pytest.approx(0.05, abs=0.0015)
    assert (bases[np.arange(400)[None] >= lengths[:, None]] == simulate.PAD).all()
    real = np.arange(399)[None] < lengths[:, None] - 1
    steps = ((bases[:, 1:].astype(int) - bases[:, :-1] - 1) % 4)[real]
    bursts = np.bincount(steps, minlength=4)[1:3]  # of one base and two; rare ones of five and six join them
    assert bursts[1] / bursts[0] == pytest.approx(run if run else 0.05, abs=0.06)


def test_insertions_keep_their_total_and_come_in_bursts():
    errors = Errors(insertion=0.04, insertion_run=0.5)
    strands = np.zeros((1000, 300), np.uint8)
    bases, lengths, kind = pass_of(errors, strands)
    assert lengths.mean() / 300 - 1 == pytest.approx(0.04, abs=0.0015)
    assert lengths.max() < bases.shape[1] == simulate.width(errors, 300)
    inserted = kind == simulate.WRONG
    np.testing.assert_allclose(np.bincount(bases[inserted], minlength=4) / inserted.sum(), 0.25, atol=0.02)
    edges = np.diff(np.pad(inserted, ((0, 0), (1, 1))).astype(int), axis=1)
    sizes = np.argwhere(edges == -1)[:, 1] - np.argwhere(edges == 1)[:, 1]
    assert sizes.mean() == pytest.approx(2, abs=0.1)
    assert (sizes >= 3).mean() == pytest.approx(0.25, abs=0.03)


def test_homopolymers_lose_more():
    strand = np.array([0, 1, 1, 1, 1, 2, 3, 0, 2, 3] * 20, np.uint8)
    errors = Errors(deletion=0.02, homopolymer=2.0)
    bases, lengths, _ = pass_of(errors, np.tile(strand, (4000, 1)))
    real = np.arange(bases.shape[1])[None] < lengths[:, None]
    left = np.array([(bases[real] == base).sum() for base in range(4)]) / (4000 * 20)
    lost = 1 - left / [2, 4, 2, 2]
    alone = 0.02 / model.homopolymer_mean(2.0)
    np.testing.assert_allclose(lost, [alone, 8 * alone, alone, alone], rtol=0.08)


def test_position_profile():
    errors = Errors(substitution=0.05, position=(0, 1, 3))
    _, _, kind = pass_of(errors, strands_of(8000, 101))
    seen = (kind == simulate.WRONG).mean(axis=0)
    expected = 0.05 * np.interp(np.arange(101) / 50, range(3), errors.position)
    assert seen[0] == 0
    np.testing.assert_allclose(seen.reshape(-1)[:100].reshape(10, 10).mean(1), expected[:100].reshape(10, 10).mean(1),
                               atol=0.004)  # fmt: skip


def stretches_of(wrong, far=8):
    """(share of errors with another one base on, the same of errors ``far`` bases apart), over what chance gives."""
    rate = wrong.mean()
    return [(wrong[:, lag:] & wrong[:, :-lag]).mean() / rate**2 for lag in (1, far)]


def test_errors_crowd_in_bad_stretches():
    """Two-state chain: the rate's covariance at a distance is its variance times keep^distance."""
    share, inside, length = 0.08, 0.8, 6.0
    errors = Errors(substitution=0.04, bad_share=share, bad_errors=inside, bad_length=length)
    strands = strands_of(3000, 200)
    _, _, kind = pass_of(errors, strands)
    wrong = kind == simulate.WRONG
    assert wrong.mean() == pytest.approx(0.04, abs=0.001)
    keep, variance = 1 - 1 / (length * (1 - share)), inside**2 * (1 - share) / share
    near, far = stretches_of(wrong)
    assert near == pytest.approx(1 + variance * keep, rel=0.06)
    assert far == pytest.approx(1 + variance * keep**8, rel=0.12)
    _, _, kind = pass_of(dataclasses.replace(errors, bad_share=0.0, bad_errors=0.0), strands)
    np.testing.assert_allclose(stretches_of(kind == simulate.WRONG), 1, atol=0.1)


def test_a_bad_read_has_more_stretches_and_not_worse_ones():
    errors = Errors(substitution=0.02, bad_share=0.05, bad_errors=1.0, bad_length=5.0)
    seen = []
    for factor in (0.5, 2.0):
        wrong = pass_of(errors, strands_of(2000, 200), factor)[2] == simulate.WRONG
        assert wrong.mean() == pytest.approx(0.02 * factor, rel=0.08)
        seen.append((wrong[:, 1:] & wrong[:, :-1]).mean() / wrong.mean())
    # a stretch goes on with 0.8, and has 0.4 errors a base
    np.testing.assert_allclose(seen, 0.32, atol=0.03)


@pytest.mark.parametrize("kind", ["insertion", "deletion"])
def test_stretches_keep_the_totals(kind):
    errors = Errors(**{kind: 0.025}, deletion_run=0.3, insertion_run=0.2, homopolymer=1.4, spread=0.5, bad_share=0.08,
                    bad_errors=0.85, bad_length=4.5, position=(0.5, 1.0, 1.5))  # fmt: skip
    strands, keys = strands_of(6000, 128), jax.random.split(fresh_key(), 6000)
    factor = jax.vmap(lambda key: simulate.draw_factor(errors, key)[0])(jax.random.clone(keys))
    lengths = np.full(6000, 128, np.int32)
    _, out, _ = simulate.corrupt(errors, strands, lengths, factor / factor.mean(), keys)
    more = np.mean(out) / 128 - 1
    assert more == pytest.approx(0.025 if kind == "insertion" else -0.025, rel=0.04)


def test_factor_scales_every_rate():
    errors = Errors(0.01, 0.01, 0.01)
    strands = strands_of(2000, 100)
    _, lengths, kind = pass_of(errors, strands, factor=3.0)
    wrong = (kind == simulate.WRONG).sum() / strands.size
    assert wrong == pytest.approx(0.06, abs=0.003)
    assert lengths.mean() == pytest.approx(100, abs=0.2)
    _, lengths, kind = pass_of(errors, strands, factor=0.0)
    assert (lengths == 100).all()
    assert not kind.any()


def test_rows_of_unequal_length_stay_within_them():
    strands, lengths = strands_of(300, 60), np.arange(300, dtype=np.int32) % 61
    errors = Errors(0.1, 0.1, 0.1, insertion_run=0.3, deletion_run=0.3)
    bases, out, kind = (
        np.asarray(part)
        for part in simulate.corrupt(
            errors, strands, lengths, np.ones(300, np.float32), jax.random.split(fresh_key(), 300)
        )
    )
    real = np.arange(bases.shape[1])[None] < out[:, None]
    assert (bases[real] <= 3).all()
    assert (bases[~real] == simulate.PAD).all()
    assert not kind[~real].any()
    assert out[lengths == 0].max() == 0
    assert abs(out.sum() / lengths.sum() - 1) < 0.05


def test_jit_is_eager():
    errors = Errors(substitution=0.1, insertion=0.1)
    strands, keys = strands_of(3, 40), jax.random.split(fresh_key(), 3)
    arguments = jnp.asarray(strands), jnp.full(3, 40, jnp.int32), jnp.ones(3), keys
    compiled = simulate.corrupt(errors, *arguments[:-1], jax.random.clone(keys))
    eager = jax.vmap(functools.partial(simulate._corrupt, errors))(*arguments)
    for one, other in zip(compiled, eager, strict=True):
        np.testing.assert_array_equal(one, other)


# ---- reads ---------------------------------------------------------------------------------------------------


def test_zero_errors_give_the_strands_back():
    strands = strands_of(50, 33)
    reads = simulate.reads_of(PRESETS["clean"], strands, 6, fresh_key())
    assert reads.bases.shape[1] == 33
    assert (reads.lengths == 33).all()
    np.testing.assert_array_equal(reads.bases, strands[reads.origin])
    assert (reads.qualities == 40).all()
    assert not reads.reversed.any()
    assert (np.diff(reads.origin) < 0).any()  # shuffled
    assert (reads.bases.dtype, reads.lengths.dtype, reads.origin.dtype) == (np.uint8, np.int32, np.int64)


@pytest.fixture(scope="module")
def everything():
    """A channel that does all it can, strands of 60 bases, and its reads."""
    errors = Errors(0.01, 0.01, 0.02, homopolymer=1.3, position=(1, 2), deletion_run=0.3, insertion_run=0.2, spread=0.5,
                    bad_share=0.1, bad_errors=0.5, bad_length=6.0)  # fmt: skip
    half = tuple(np.full(30, 1 / 30))
    channel = channel_of(
        errors, synthesis=Errors(substitution=0.01), quality=Quality(half, (*half[:10], 2 / 3), half, 0.5, 0.3, 0.6),
        molecules=5, dropout=0.1, skew=0.5, reverse=0.5, truncated=0.2, chimera=0.2,
    )  # fmt: skip
    strands = strands_of(150, 60)
    return channel, strands, simulate.reads_of(channel, strands, 8, fresh_key())


def test_same_key_same_reads_in_any_batch(everything):
    channel, strands, reads = everything
    again = simulate.reads_of(channel, strands, 8, fresh_key(), batch=256)
    for field in dataclasses.fields(reads):
        np.testing.assert_array_equal(getattr(reads, field.name), getattr(again, field.name))
    other = simulate.reads_of(channel, strands, 8, jax.random.key(6))
    assert reads.bases.shape != other.bases.shape or (reads.bases != other.bases).any()
    done = []
    simulate.reads_of(channel, strands, 8, fresh_key(), batch=256, progress=done.append)
    assert sum(done) == len(reads.lengths)


def test_pairs_are_the_two_ends_of_the_same_molecules(everything):
    channel, strands, reads = everything
    first, second = simulate.pairs_of(channel, strands, 8, 25, fresh_key())
    assert len(first.lengths) == len(second.lengths) >= 0.97 * len(reads.lengths)
    np.testing.assert_array_equal(first.origin, second.origin)
    np.testing.assert_array_equal(first.reversed, ~second.reversed)
    for mates in (first, second):
        assert (mates.bases.shape, mates.lengths.max(), mates.lengths.min() > 0) == ((len(first.lengths), 25), 25, True)
        past = np.arange(25)[None] >= mates.lengths[:, None]
        assert (mates.bases[past] == simulate.PAD).all()
        assert (mates.qualities[past] == 0).all()
        assert (mates.bases[~past] <= 3).all()
    whole = {row[:25].tobytes() for row in rows_of(reads)}
    assert {row.tobytes() for row in rows_of(first)} <= whole  # the first reads are those of ``reads_of``, cut


def test_pairs_share_the_errors_of_synthesis_and_no_others():
    strands, rate = strands_of(300, 60), 0.05
    written = Channel("test", "this test", synthesis=Errors(substitution=rate), reverse=0.5)
    read = dataclasses.replace(written, synthesis=Errors(), sequencing=Errors(substitution=rate))
    wrong = {}
    for name, channel in (("written", written), ("read", read)):
        first, second = (
            np.where(mates.reversed[:, None], 3 - mates.bases[:, ::-1], mates.bases) != strands[mates.origin]
            for mates in simulate.pairs_of(channel, strands, 5, 60, fresh_key())
        )
        assert first.mean() == pytest.approx(rate, abs=0.003)
        assert second.mean() == pytest.approx(rate, abs=0.003)
        wrong[name] = first, second
    np.testing.assert_array_equal(*wrong["written"])
    assert np.logical_and(*wrong["read"]).mean() == pytest.approx(rate**2, abs=0.0006)
    with pytest.raises(ChannelError, match="cycles: 0; a read has at least 1 base"):
        simulate.pairs_of(read, strands, 5, 0, fresh_key())


def test_reads_are_padded(everything):
    _, _, reads = everything
    real = np.arange(reads.bases.shape[1])[None] < reads.lengths[:, None]
    assert reads.lengths.min() > 0
    assert reads.lengths.max() == reads.bases.shape[1]
    assert (reads.bases[real] <= 3).all()
    assert (reads.bases[~real] == simulate.PAD).all()
    assert (reads.qualities[~real] == 0).all()


@pytest.mark.parametrize("channel", [model.uniform(0.03), model.uniform(0.06, substitution_share=1.0)])
def test_asked_errors_are_what_edlib_finds(channel):
    strands = strands_of(500, 120)
    found = edit_share(simulate.reads_of(channel, strands, 3, fresh_key()), strands)
    # the shortest alignment hides some: an insertion beside a deletion is one substitution
    assert 0.94 * channel.total - 0.002 < found.mean() < channel.total + 0.002


def test_spread_between_reads():
    strands = strands_of(500, 200)
    channel = channel_of(Errors(substitution=0.04, spread=0.8))
    found = edit_share(simulate.reads_of(channel, strands, 4, fresh_key()), strands) * 200
    assert found.mean() == pytest.approx(8, abs=0.7)
    assert found.var() == pytest.approx(8 + 64 * np.expm1(0.64), rel=0.35)  # without spread it would be 8


def test_molecules_share_the_errors_of_synthesis():
    strands = strands_of(40, 50)
    channel = Channel("test", "this test", synthesis=Errors(substitution=0.1), molecules=3)
    reads = simulate.reads_of(channel, strands, 30, fresh_key())
    kinds = [len(np.unique(reads.bases[reads.origin == i], axis=0)) for i in range(40)]
    assert max(kinds) == 3
    alone = simulate.reads_of(dataclasses.replace(channel, molecules=0), strands, 30, fresh_key())
    assert len(np.unique(alone.bases, axis=0)) > 0.98 * len(alone.bases)
    assert edit_share(alone, strands).mean() == pytest.approx(0.1, abs=0.01)


def test_coverage_dropout_and_skew():
    plain = simulate.draw_copies(channel_of(), 20_000, 5.0, fresh_key())
    assert plain.mean() == pytest.approx(5, abs=0.1)
    assert plain.var() == pytest.approx(5, rel=0.05)
    lossy = simulate.draw_copies(channel_of(dropout=0.2), 20_000, 20.0, fresh_key())
    assert (lossy == 0).mean() == pytest.approx(0.2, abs=0.012)
    assert lossy.mean() == pytest.approx(20, abs=0.4)
    skewed = simulate.draw_copies(channel_of(skew=0.6), 20_000, 20.0, fresh_key())
    assert skewed.mean() == pytest.approx(20, abs=0.5)
    assert skewed.var() == pytest.approx(20 + 400 * np.expm1(0.36), rel=0.15)
    reads = simulate.reads_of(channel_of(dropout=0.5), strands_of(200, 20), 10, fresh_key())
    assert 80 < len(np.unique(reads.origin)) < 120


def test_reverse_complements_and_their_qualities():
    high, low = (0.0,) * 30 + (1.0,), (0.0,) * 5 + (1.0,)
    errors = Errors(substitution=0.05, position=(0, 0, 0, 1))
    strands = strands_of(100, 40)
    reads = simulate.reads_of(
        channel_of(errors, quality=Quality(high, low, high), reverse=0.3), strands, 20, fresh_key()
    )
    assert reads.reversed.mean() == pytest.approx(0.3, abs=0.04)
    turned = reads.reversed[:, None]
    wrong = np.where(turned, 3 - reads.bases[:, ::-1], reads.bases) != strands[reads.origin]
    assert wrong.mean() == pytest.approx(0.05, abs=0.006)
    assert not wrong[:, :20].any()  # errors run along the strand, in both directions
    np.testing.assert_array_equal(
        np.where(turned, reads.qualities[:, ::-1], reads.qualities), np.where(wrong, 5, 30)
    )  # fmt: skip


def test_truncated_reads():
    strands = strands_of(200, 100)
    reads = simulate.reads_of(channel_of(truncated=0.4), strands, 20, fresh_key())
    short = reads.lengths < 100
    assert short.mean() == pytest.approx(0.4, abs=0.03)
    assert reads.lengths[short].mean() == pytest.approx(50, abs=2)
    rows = rows_of(reads)
    heads = np.array([(row == strands[i, : len(row)]).all() for row, i in zip(rows, reads.origin, strict=True)])
    tails = np.array([(row == strands[i, -len(row) :]).all() for row, i in zip(rows, reads.origin, strict=True)])
    assert (heads | tails).all()
    assert (heads & (reads.lengths > 10))[short].mean() == pytest.approx(0.45, abs=0.05)


def test_chimeras():
    strands = strands_of(100, 64)
    reads = simulate.reads_of(channel_of(chimera=0.25), strands, 20, fresh_key())
    mixed = reads.origin < 0
    assert mixed.mean() == pytest.approx(0.25, abs=0.04)
    np.testing.assert_array_equal(reads.bases[~mixed], strands[reads.origin[~mixed]])
    agree = reads.bases[mixed][:, None] == strands[None]
    begins = np.argmin(np.pad(agree, ((0, 0), (0, 0), (0, 1))), axis=2).max(axis=1)
    ends = np.argmin(np.pad(agree[..., ::-1], ((0, 0), (0, 0), (0, 1))), axis=2).max(axis=1)
    assert (begins + ends >= 64).all()
    assert ((begins < 64) & (ends < 64)).mean() > 0.95  # the last base alone is often the same


def test_qualities_follow_their_distributions():
    right, wrong, beside = (np.random.default_rng(i).dirichlet(np.ones(20)) for i in range(3))
    quality = Quality(tuple(right), tuple(wrong), tuple(beside), factor=0.6, read=0.3, neighbour=0.7)
    errors = Errors(substitution=0.03, spread=0.6)
    strands = strands_of(1000, 120)
    reads = simulate.reads_of(channel_of(errors, quality=quality), strands, 4, fresh_key())
    bad = reads.bases != strands[reads.origin]
    near = np.pad(bad, ((0, 0), (1, 1)))
    near = (near[:, 2:] | near[:, :-2]) & ~bad
    for where, asked in ((~bad & ~near, right), (bad, wrong), (near, beside)):
        seen = np.bincount(reads.qualities[where], minlength=20) / where.sum()
        assert abs(np.cumsum(seen) - np.cumsum(asked)).max() < 0.035
    level = np.where(bad | near, np.nan, reads.qualities.astype(float))
    assert np.corrcoef(np.nanmean(level, axis=1), bad.mean(axis=1))[0, 1] < -0.4


@pytest.mark.parametrize(
    ("strands", "coverage", "said"),
    [
        (np.zeros((0, 5), np.uint8), 1, r"strands: uint8\[0, 5\]"),
        (np.zeros((2, 5), np.int32), 1, r"strands: int32\[2, 5\]; give uint8"),
        (np.full((2, 5), 4, np.uint8), 1, "strands: base 4"),
        (np.zeros((2, 5), np.uint8), 0, "coverage: 0"),
        (np.zeros((2, 5), np.uint8), float("nan"), "coverage: nan"),
    ],
)
def test_refusals(strands, coverage, said):
    with pytest.raises(ChannelError, match=said):
        simulate.reads_of(PRESETS["clean"], strands, coverage, fresh_key())
