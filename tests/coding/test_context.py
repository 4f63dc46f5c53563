"""The contexts against the text of the module, and what must hold of counts and states whatever the tables are."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helix_jax.arithmetic import TOTAL
from helix_jax.coding import coder, context
from helix_jax.prior import tables

SHAPE, DIGITS = (6, 3, 4), 3  # a group of the tokenizer and the beginning of the next


@pytest.fixture(scope="module")
def tokens():
    """Two levels mostly, so that neighbours are often equal; and some that are not there."""
    generator = np.random.default_rng(0)
    levels = generator.choice(4, (*SHAPE, DIGITS), p=[0.45, 0.45, 0.05, 0.05])
    return levels, generator.random(SHAPE) < 0.85


STEPS = int(np.prod(SHAPE)) * DIGITS


def flat_steps(mode="context"):
    """Steps of all digits, all there; in mode `prior` with the logits of ``said``."""
    xs = coder.steps(SHAPE, DIGITS)
    flat = jax.tree.map(lambda leaf: leaf.reshape(STEPS, *leaf.shape[2:]), xs)
    return flat._replace(valid=np.ones(STEPS, bool), logits=said() if mode == "prior" else None)


@functools.cache
def said():
    """Logits of any net, int32[steps, 3]: small and large ones, their limits, and none at all."""
    generator = np.random.default_rng(8)
    size = generator.choice([1, 30, 300, 1000, 3000], (STEPS, 1))
    found = np.rint(generator.normal(0, 1, (STEPS, 3)) * size).astype(np.int32)
    found[::11], found[::13] = 0, tables.REACH * generator.choice([-1, 1], found[::13].shape)
    return np.clip(found, -tables.REACH, tables.REACH)


# ---- which row ---------------------------------------------------------------------------------------


def told(tokens, f, y, x, j):
    """What each expert knows of digit j at (f, y, x), from the text alone: one tuple each."""
    levels, valid = tokens
    here = np.ravel_multi_index((f, y, x), SHAPE)

    def token(df, dy, dx):
        place = (f + df, y + dy, x + dx)
        if not all(0 <= at < size for at, size in zip(place, SHAPE, strict=True)):
            return None
        return tuple(levels[place]) if valid[place] and np.ravel_multi_index(place, SHAPE) < here else None

    def digit(one, n):
        return one[n] if one is not None and n >= 0 else "none"

    def changed(one, other):
        count = DIGITS if one is None or other is None else sum(a != b for a, b in zip(one, other, strict=True))
        return 0 if count == 0 else 1 if count <= 2 else 2 if count <= 5 else 3

    own = tuple(levels[f, y, x][:j])
    past, left, up = token(-1, 0, 0), token(0, 0, -1), token(0, -1, 0)
    sides = [token(-1, 0, -1), token(-1, 0, 1), token(-1, -1, 0)]
    before = (digit(own, j - 1), digit(own, j - 2))
    so_far = j if past is None else sum(a != b for a, b in zip(own, past, strict=False))
    return (
        (digit(past, j), digit(left, j), digit(up, j)),
        (digit(past, j), *before, digit(past, j - 1)),
        (digit(left, j), digit(up, j), digit(token(0, -1, -1), j), digit(token(0, -1, 1), j)),
        (digit(past, j), min(so_far, 3), changed(left, sides[0]), changed(up, sides[2]), f % 4 == 0),
        (digit(past, j), *(digit(side, j) for side in sides)),
        (digit(left, j), digit(up, j), *before),
        told_by_net(levels, f, y, x, j),
    )


def chance(x):
    """Of a log-odds in units of 1 / 256, as the coder has it: out of 65536, none below 16."""
    return round(min(max(65536 / (1 + math.exp(-x / 256)), 16), 65520))


def chosen(logits):
    """(digit, doubt): the likelier half, then the likelier digit of it; by powers of two, how probably one of them is
    wrong, the least that there can be being none."""
    high, low, top = (max(-3071, min(3071, int(x))) for x in logits)
    second = top if high > 0 else low
    wrong = chance(-abs(high)) + chance(-abs(second))
    return 2 * (high > 0) + (second > 0), int(math.log2(wrong / 32))


def told_by_net(levels, f, y, x, j):
    logits = said().reshape(*SHAPE, DIGITS, 3)[f, y, x]
    strayed = sum(chosen(logits[n])[0] != levels[f, y, x, n] for n in range(j))
    return (*chosen(logits[j]), min(strayed, 2))


@pytest.mark.parametrize("mode", ["context", "prior"])
def test_rows_tell_what_the_text_says(tokens, mode):
    """Two digits share a row of an expert if, and only if, the same is known of them."""
    levels, valid = tokens
    places = int(np.prod(SHAPE))
    order = np.arange(places)
    flat = levels.reshape(places, DIGITS)
    value = np.append(np.where(valid.reshape(-1, 1), flat, tables.NONE), np.full((1, DIGITS), tables.NONE), axis=0)
    before = np.append(order, places)[None] < np.repeat(order, DIGITS)[:, None]
    so_far = np.where(before[..., None], value[None], tables.NONE).astype(np.uint8)
    begun = np.where(np.tri(DIGITS, k=-1, dtype=bool)[None], flat[:, None], tables.NONE).reshape(-1, DIGITS)
    wrong = np.array([chosen(logits)[0] for logits in said()]).reshape(places, DIGITS) != levels.reshape(places, DIGITS)
    strayed = (np.cumsum(wrong, axis=1) - wrong).reshape(-1).astype(np.int32)
    call = jax.jit(jax.vmap(lambda tokens, token, strayed, x: context.rows(tokens, token, strayed, x)))
    rows = np.asarray(call(so_far, begun.astype(np.uint8), strayed, flat_steps(mode)))
    assert rows.shape == (STEPS, tables.EXPERTS[mode])
    seen = {}
    for n, (*place, j) in enumerate(np.ndindex(*SHAPE, DIGITS)):
        for expert, same in enumerate(told(tokens, *place, j)[: tables.EXPERTS[mode]]):
            size = tables.SIZES[expert]
            first = DIGITS * sum(tables.SIZES[:expert]) + j * size
            assert first <= rows[n, expert] < first + size
            seen.setdefault((expert, j, same), set()).add(int(rows[n, expert]))
    assert all(len(found) == 1 for found in seen.values())
    assert len({row for found in seen.values() for row in found}) == len(seen)
    assert len(seen) > 500


@pytest.mark.parametrize("shape", [(1, 1, 1), (8, 3, 5)])
def test_steps(shape):
    """In raster order, each with the places of its neighbours; the place after the last is none."""
    xs = coder.steps(shape, 4)
    places = np.arange(np.prod(shape)).reshape(shape)
    none = places.size
    frames = shape[0]
    np.testing.assert_array_equal(xs.position, np.repeat(places.reshape(frames, -1), 4, axis=1))
    np.testing.assert_array_equal(xs.digit, np.tile(np.arange(4), (frames, places[0].size)))
    np.testing.assert_array_equal(xs.begins, np.broadcast_to(np.arange(frames)[:, None] % 4 == 0, xs.position.shape))
    border = np.pad(places, 1, constant_values=none)
    for n, (df, dy, dx) in enumerate(context.NEIGHBOURS):
        moved = border[1 + df : 1 + df + frames, 1 + dy : 1 + dy + shape[1], 1 + dx : 1 + dx + shape[2]]
        np.testing.assert_array_equal(xs.near[:, ::4, n], moved.reshape(frames, -1))


# ---- counts and states ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tokens):
    """run(mode, start, there) -> states and counts before every digit of ``tokens``, [steps, ...]."""
    symbols = tokens[0].reshape(-1).astype(np.int32)

    @jax.jit
    def call(start, xs):
        model = context.model(start, int(np.prod(SHAPE)), DIGITS)

        def step(state, item):
            x, symbol = item
            return model.advance(state, x, symbol), (state, model.cumulative(state, x))

        return jax.lax.scan(step, model.state, (xs, jnp.where(xs.valid, symbols, 0)))[1]

    def run(mode, start, valid):
        xs = flat_steps(mode)._replace(valid=valid)
        return jax.tree.map(np.asarray, call(jax.tree.map(jnp.asarray, start), xs))

    return run


@pytest.mark.parametrize("mode", ["context", "prior"])
@pytest.mark.parametrize("seed", range(4))
def test_no_digit_is_ever_forbidden(tokens, run, any_start, mode, seed):
    """Whatever the tables: four counts above zero, and where no token is, all of it for digit 0."""
    valid = np.repeat(tokens[1].reshape(-1), DIGITS)
    states, counts = run(mode, any_start(mode, DIGITS, seed), valid)
    assert counts.dtype == np.uint32
    edges = np.pad(counts.astype(int), ((0, 0), (1, 0)))
    edges = np.concatenate([edges, np.full((len(edges), 1), TOTAL)], axis=1)
    assert (np.diff(edges[valid], axis=1) >= 1).all()
    assert (counts[~valid] == TOTAL).all()
    p, n = states.cells >> 8, states.cells & 255
    assert ((p >= 0) & (p < 65536) & (n <= tables.LIMIT)).all()
    assert (np.abs(states.weights) <= tables.WEIGHT_LIMIT).all()


@pytest.mark.parametrize("mode", ["context", "prior"])
def test_what_is_not_there_teaches_nothing(tokens, run, mode):
    valid = np.repeat(tokens[1].reshape(-1), DIGITS)
    states, _ = run(mode, tables.fresh(mode, DIGITS), valid)
    for step in np.flatnonzero(~valid[:-1]):
        for before, after in ((s[step], s[step + 1]) for s in (states.cells, states.weights, states.tokens)):
            np.testing.assert_array_equal(before, after)
    # and what is there moves one row of every expert, and weights of its own digit: in mode `prior` those for its doubt
    sets, used = tables.SETS[mode], set()
    for step in np.flatnonzero(valid[:-1]):
        moved = np.flatnonzero((states.cells[step] != states.cells[step + 1]).any(axis=1))
        assert len(moved) == tables.EXPERTS[mode]
        which = chosen(said()[step])[1] // 3 if mode == "prior" else 0
        weights = np.flatnonzero((states.weights[step] != states.weights[step + 1]).any(axis=1))
        assert set(weights // 3) <= {sets * (step % DIGITS) + which}
        used |= set(weights // 3)
    assert used == set(range(DIGITS * sets))


def test_the_logit_is_an_input_of_its_own_decision(run):
    """With a weight of one on it and none on the experts, the counts are the net's own probabilities."""
    start = tables.fresh("prior", DIGITS)
    weights = np.zeros_like(start.weights)
    weights[:, -1] = 65536
    states, counts = run("prior", start._replace(weights=weights), np.zeros(STEPS, bool))
    assert (states.weights == weights[None]).all()
    states, counts = run("prior", start._replace(weights=weights), np.arange(STEPS) == 5)
    high, one, three = (chance(x) for x in said()[5])
    upper = high >> 1
    lower = TOTAL - upper
    np.testing.assert_array_equal(counts[5], [lower - (lower * one >> 16), lower, TOTAL - (upper * three >> 16)])


@pytest.mark.parametrize("mode", ["context", "prior"])
def test_fresh_tables_give_even_odds(run, mode):
    """Before anything is seen the net is not listened to."""
    _, counts = run(mode, tables.fresh(mode, DIGITS), np.ones(STEPS, bool))
    np.testing.assert_array_equal(counts[0], [TOTAL // 4, TOTAL // 2, TOTAL * 3 // 4])


@pytest.mark.parametrize("mode", ["context", "prior"])
def test_a_step_without_jit(tokens, run, any_start, mode):
    """The same counts and the same next state."""
    start, step = any_start(mode, DIGITS, 2), 40
    states, counts = run(mode, start, np.ones(STEPS, bool))
    before, after = (jax.tree.map(lambda leaf, at=at: leaf[at], states) for at in (step, step + 1))
    x = jax.tree.map(lambda leaf: jnp.asarray(leaf[step]), flat_steps(mode))
    with jax.disable_jit():
        model = context.model(jax.tree.map(jnp.asarray, start), int(np.prod(SHAPE)), DIGITS)
        state = jax.tree.map(jnp.asarray, before)
        np.testing.assert_array_equal(model.cumulative(state, x), counts[step])
        found = model.advance(state, x, jnp.int32(tokens[0].reshape(-1)[step]))
    for one, other in zip(found, after, strict=True):
        np.testing.assert_array_equal(one, other)


# ---- the net's own choice --------------------------------------------------------------------------------


def test_choice_is_the_likelier_half_and_then_the_likelier_digit():
    logits = np.array([[900, -5000, 5000], [-900, 700, 5000], [900, 5000, -1], [-1, -5, 5000], [0, 0, 0], [1, -9, 0]])
    digits, doubt = context.choice(jnp.asarray(logits, jnp.int32))
    assert (digits.dtype, doubt.dtype) == (np.int32, np.int32)
    assert digits.tolist() == [3, 1, 2, 0, 0, 2]  # of two that are alike, the lower
    assert (digits.tolist(), doubt.tolist()) == tuple(map(list, zip(*map(chosen, logits), strict=True)))


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("other", [0, 50, 700, 2000, tables.REACH, 2 * tables.REACH])
def test_doubt_falls_as_either_decision_is_surer(side, other):
    """From an even choice, the greatest of DOUBTS steps, to a sure one, the least; past the limit of a logit too."""
    margins = np.arange(tables.REACH + 500)
    fixed = np.full_like(margins, other)
    for first, second in ((margins, fixed), (fixed, margins)):
        digits, doubt = map(np.asarray, context.choice(jnp.asarray(np.stack([side * first, -second, second], axis=1))))
        upper = (side * first > 0).astype(int)
        np.testing.assert_array_equal(digits, upper * (2 + (second > 0)))
        assert (np.diff(doubt) <= 0).all()
        assert doubt[0] == tables.DOUBTS - 1 if other == 0 else tables.DOUBTS - 2
        least = chosen((other, 3071, 3071))[1]
        assert doubt[-1] == least
        assert set(doubt.tolist()) == set(range(least, int(doubt[0]) + 1))  # every step between
