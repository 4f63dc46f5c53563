"""The NumPy twin of the segments' coder: the same tokens from any bytes, under any tables and any net."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from helix_jax import arithmetic
from helix_jax.coding import coder, context, segments
from helix_jax.prior import tables, weights
from helix_jax.reference import kernels as exact
from helix_jax.reference import token_coder


@pytest.fixture
def prior_in(prior_of, net_files, any_start):
    """prior_in(mode, digits, seed): prior.weights.Prior. seed: of its tables; None: without knowledge. In mode `prior`
    the net is wild."""

    def make(mode, digits, seed):
        start = {} if seed is None else {"mixed" if mode == "prior" else "context": any_start(mode, digits, seed)}
        prior = weights.load(net_files[digits]) if mode == "prior" else prior_of(digits)
        return dataclasses.replace(prior, **start)

    return make


@pytest.mark.parametrize(
    ("mode", "grid", "digits", "sent"),
    [
        ("context", (2, 3, 3), 24, 24),
        pytest.param("context", (9, 3, 31), 4, 4, marks=pytest.mark.slow),
        ("context", (9, 3, 31), 4, 3),
        pytest.param("prior", (9, 3, 31), 4, 4, marks=pytest.mark.slow),
        ("prior", (9, 3, 31), 4, 3),
    ],
)
def test_it_reads_what_the_coder_wrote(prior_in, walk, mode, grid, digits, sent):
    """Fresh tables, and tables at their ends; even tokens too. Tokens whole, or without their last digits."""
    plan, done = segments.plan(grid), []
    even = np.random.default_rng(0).integers(0, 4, (*grid, sent), dtype=np.uint8)
    walked = walk(grid, digits)[..., :sent]
    for seed, tokens in ((None, walked), (1, walked), (None, even)):
        prior = prior_in(mode, digits, seed)
        coded = coder.compress(prior, mode, plan, tokens)
        if None in coded:
            coded = [(piece or b"")[:300].ljust(300, b"\0") for piece in coded]  # of one width, compiled once
            tokens = coder.expand(prior, mode, plan, sent, coded)
        back = token_coder.expand_clip(prior, mode, plan, sent, coded, done.append)
        assert back.dtype == np.uint8
        np.testing.assert_array_equal(back, tokens)
    assert sum(done) == 3 * plan.number


@pytest.mark.parametrize("mode", ["context", "prior"])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_any_bytes_are_the_same_tokens_to_both(prior_in, mode, seed):
    """Bytes that nobody wrote, too short and too long ones, and segments that are lost."""
    grid, digits, generator = (17, 3, 31), 4, np.random.default_rng(seed)
    plan = segments.plan(grid)
    prior = prior_in(mode, digits, seed)
    coded = [generator.bytes(int(n)) for n in generator.integers(30, 350, plan.number)]
    coded[0], coded[1], coded[2] = b"", None, b"\xff" * 300
    tokens = coder.expand(prior, mode, plan, digits, coded)
    np.testing.assert_array_equal(token_coder.expand_clip(prior, mode, plan, digits, coded), tokens)
    assert not segments.cut(plan, tokens)[1].any()


@pytest.mark.parametrize("mode", ["context", "prior"])
def test_segments_in_turns(prior_in, walk, monkeypatch, mode):
    """More of them than are read side by side; what the net remembers of the first ones is gone in the next turn."""
    monkeypatch.setattr(token_coder, "BATCH", 3)
    grid, done = (25, 3, 16), []
    plan, tokens, prior = segments.plan(grid), walk(grid, 4), prior_in(mode, 4, None)
    coded = coder.compress(prior, mode, plan, tokens)
    assert plan.number == 4
    back = token_coder.expand_clip(prior, mode, plan, 4, coded, done.append)
    np.testing.assert_array_equal(back, tokens)
    assert done == [3, 1]


def test_its_range_decoder_equals_big_integers():
    """Ten streams of different lengths, under counts drawn anew for every symbol."""
    generator = np.random.default_rng(0)
    coded = [generator.bytes(n) for n in (0, 1, 2, 5, 6, 7, 20, 40, 41, 100)]
    counts = np.sort(generator.integers(0, arithmetic.TOTAL + 1, (60, 10, 3)), axis=-1)
    counts[::7] = arithmetic.TOTAL  # nothing there
    counts[3::7] = [0, 0, arithmetic.TOTAL - 1]
    bits = token_coder.Bits(coded)
    found = np.stack([bits.symbols(row) for row in counts], axis=1)
    for lane, blob in enumerate(coded):
        edges = np.pad(counts[:, lane], ((0, 0), (1, 1)), constant_values=(0, arithmetic.TOTAL))
        model = (None, lambda _, i, edges=edges: edges[i], lambda *_: None)
        payload = int.from_bytes(blob + bytes(100), "big")
        wanted = exact.bits_to_symbols(model, payload, 8 * (len(blob) + 100), len(counts))
        assert found[lane].tolist() == wanted


def test_choice_equals_the_coders():
    """All three logits at their ends, about zero and where a doubt ends; and a sweep of all that each can be."""
    ends = [0, 1, 2, 177, 178, 700, tables.REACH - 1, tables.REACH]
    corners = np.array(list(itertools.product(sorted({*ends, *(-x for x in ends)}), repeat=3)))
    every, generator = np.arange(-tables.REACH, tables.REACH + 1), np.random.default_rng(0)
    swept = np.stack([generator.permutation(every) for _ in range(3)], axis=1)
    logits = np.concatenate([corners, swept])
    digits, doubt = context.choice(jnp.asarray(logits, jnp.int32))
    ours = token_coder._choice(logits)
    np.testing.assert_array_equal(digits, ours[0])
    np.testing.assert_array_equal(doubt, ours[1])
    assert set(ours[0]) == set(range(4))
    assert set(ours[1]) == set(range(tables.DOUBTS))
