"""The NumPy twin of the segments' coder: the same tokens from any bytes, under any tables."""

import jax.numpy as jnp
import numpy as np
import pytest

from helix_jax import reference as exact
from helix_jax.prior import coder, context, reference, segments, tables


def any_start(digits, seed):
    """Cells and weights to their very ends, where sums and products are largest."""
    generator = np.random.default_rng(seed)
    cells, weights = tables.fresh("context", digits)
    p = generator.choice([0, 1, 9000, 32768, 65534, 65535], cells.shape)
    n = generator.choice([0, 1, 6, tables.LIMIT], cells.shape)
    end = tables.WEIGHT_LIMIT
    drawn = generator.choice([-end, -60000, 0, 20000, 60000, end], weights.shape)
    return tables.Start((p << 8 | n).astype(np.int32), drawn.astype(np.int32))


@pytest.mark.parametrize(("grid", "digits"), [((2, 3, 3), 15), ((9, 2, 31), 4)])
def test_it_reads_what_the_coder_wrote(prior_of, walk, grid, digits):
    """Fresh tables, and tables at their ends; even tokens too."""
    plan, done = segments.plan(grid), []
    even = np.random.default_rng(0).integers(0, 4, (*grid, digits), dtype=np.uint8)
    for start, tokens in ((None, walk(grid, digits)), (any_start(digits, 1), walk(grid, digits)), (None, even)):
        prior = prior_of(digits, start=start)
        coded = coder.compress(prior, "context", plan, tokens)
        if None in coded:
            coded = [piece or b"" for piece in coded]
            tokens = coder.expand(prior, "context", plan, digits, coded)
        back = reference.expand_clip(prior, "context", plan, digits, coded, done.append)
        assert back.dtype == np.uint8
        np.testing.assert_array_equal(back, tokens)
    assert sum(done) == 3 * plan.number


@pytest.mark.parametrize("seed", range(3))
def test_any_bytes_are_the_same_tokens_to_both(prior_of, seed):
    """Bytes that nobody wrote, too short and too long ones, and segments that are lost."""
    grid, digits, generator = (17, 2, 31), 4, np.random.default_rng(seed)
    plan = segments.plan(grid)
    prior = prior_of(digits, start=any_start(digits, seed) if seed else None)
    coded = [generator.bytes(int(n)) for n in generator.integers(30, 250, plan.number)]
    coded[0], coded[1], coded[2] = b"", None, b"\xff" * 200
    tokens = coder.expand(prior, "context", plan, digits, coded)
    np.testing.assert_array_equal(reference.expand_clip(prior, "context", plan, digits, coded), tokens)
    assert not segments.cut(plan, tokens)[1].any()


def test_segments_in_turns(prior_of, walk, monkeypatch):
    """More of them than are read side by side."""
    monkeypatch.setattr(reference, "BATCH", 3)
    grid, done = (25, 2, 16), []
    plan, tokens, prior = segments.plan(grid), walk(grid, 4), prior_of(4)
    coded = coder.compress(prior, "context", plan, tokens)
    assert plan.number == 4
    back = reference.expand_clip(prior, "context", plan, 4, coded, done.append)
    np.testing.assert_array_equal(back, tokens)
    assert done == [3, 1]


def test_its_range_decoder_equals_big_integers():
    """Ten streams of different lengths, under counts drawn anew for every symbol."""
    generator = np.random.default_rng(0)
    coded = [generator.bytes(n) for n in (0, 1, 2, 5, 6, 7, 20, 40, 41, 100)]
    counts = np.sort(generator.integers(0, exact.TOTAL + 1, (60, 10, 3)), axis=-1)
    counts[::7] = exact.TOTAL  # nothing there
    counts[3::7] = [0, 0, exact.TOTAL - 1]
    bits = reference._Bits(coded)
    found = np.stack([bits.symbols(row) for row in counts], axis=1)
    for lane, blob in enumerate(coded):
        edges = np.pad(counts[:, lane], ((0, 0), (1, 1)), constant_values=(0, exact.TOTAL))
        model = (None, lambda _, i, edges=edges: edges[i], lambda *_: None)
        payload = int.from_bytes(blob + bytes(100), "big")
        wanted = exact.bits_to_symbols(model, payload, 8 * (len(blob) + 100), len(counts))
        assert found[lane].tolist() == wanted


@pytest.mark.parametrize("seed", range(3))
def test_guess_equals_the_coders(seed):
    generator = np.random.default_rng(seed)
    reach = (10, 400, 2 * tables.REACH)[seed]
    logits = generator.integers(-min(reach, tables.REACH), min(reach, tables.REACH) + 1, (200, 6, 3))
    within = generator.integers(-reach, reach + 1, (6, 4, 6, 3))
    digits, doubt = context.guess(jnp.asarray(logits, jnp.int32), jnp.asarray(within, jnp.int32))
    ours = reference._guess(logits, within)
    np.testing.assert_array_equal(digits, ours[0])
    np.testing.assert_array_equal(doubt, ours[1])
