"""The contexts against the text of the module, and what must hold of counts and states whatever the tables are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helix_jax.prior import coder, context, tables
from helix_jax.reference import TOTAL

SHAPE, DIGITS = (6, 3, 4), 3  # a group of the tokenizer and the beginning of the next


@pytest.fixture(scope="module")
def tokens():
    """Two levels mostly, so that neighbours are often equal; and some that are not there."""
    generator = np.random.default_rng(0)
    levels = generator.choice(4, (*SHAPE, DIGITS), p=[0.45, 0.45, 0.05, 0.05])
    return levels, generator.random(SHAPE) < 0.85


def packed(digits):
    value = 0
    for digit in digits:
        value = value << 2 | int(digit)
    return value


def flat_steps():
    xs = coder.steps(SHAPE, DIGITS)
    count = int(np.prod(SHAPE)) * DIGITS
    flat = jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), xs)
    return flat._replace(there=np.ones(count, bool))


# ---- which row ---------------------------------------------------------------------------------------


def told(tokens, f, y, x, j):
    """What each expert knows of digit j at (f, y, x), from the text alone: one tuple each."""
    levels, there = tokens
    here = np.ravel_multi_index((f, y, x), SHAPE)

    def token(df, dy, dx):
        place = (f + df, y + dy, x + dx)
        if not all(0 <= at < size for at, size in zip(place, SHAPE, strict=True)):
            return None
        return tuple(levels[place]) if there[place] and np.ravel_multi_index(place, SHAPE) < here else None

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
    )


def test_rows_tell_what_the_text_says(tokens):
    """Two digits share a row of an expert if, and only if, the same is known of them."""
    levels, there = tokens
    places = int(np.prod(SHAPE))
    order = np.arange(places)
    value = np.array([packed(token) | 4**DIGITS for token in levels.reshape(places, DIGITS)])
    value = np.append(np.where(there.reshape(-1), value, 0), 0)
    before = np.append(order, places)[None] < np.repeat(order, DIGITS)[:, None]
    known = np.where(before, value[None], 0).astype(np.uint32)
    so_far = [packed(token[:j]) for token in levels.reshape(places, DIGITS) for j in range(DIGITS)]
    call = jax.jit(jax.vmap(lambda known, token, x: context.rows(known, token, jnp.int32(0), x, DIGITS)))
    rows = np.asarray(call(known, np.array(so_far, np.uint32), flat_steps()))
    assert rows.shape == (places * DIGITS, tables.EXPERTS["context"])
    seen = {}
    for n, (*place, j) in enumerate(np.ndindex(*SHAPE, DIGITS)):
        for expert, known_there in enumerate(told(tokens, *place, j)):
            size = tables.SIZES[expert]
            first = DIGITS * sum(tables.SIZES[:expert]) + j * size
            assert first <= rows[n, expert] < first + size
            seen.setdefault((expert, j, known_there), set()).add(int(rows[n, expert]))
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
    np.testing.assert_array_equal(xs.place, np.repeat(places.reshape(frames, -1), 4, axis=1))
    np.testing.assert_array_equal(xs.digit, np.tile(np.arange(4), (frames, places[0].size)))
    np.testing.assert_array_equal(xs.begins, np.broadcast_to(np.arange(frames)[:, None] % 4 == 0, xs.place.shape))
    border = np.pad(places, 1, constant_values=none)
    for n, (df, dy, dx) in enumerate(context.NEIGHBOURS):
        moved = border[1 + df : 1 + df + frames, 1 + dy : 1 + dy + shape[1], 1 + dx : 1 + dx + shape[2]]
        np.testing.assert_array_equal(xs.near[:, ::4, n], moved.reshape(frames, -1))


# ---- counts and states ---------------------------------------------------------------------------------


def any_start(seed):
    """Cells and weights to their very ends."""
    generator = np.random.default_rng(seed)
    cells, weights = tables.fresh("context", DIGITS)
    p = generator.choice([0, 1, 255, 32768, 65534, 65535], cells.shape)
    n = generator.choice([0, 1, 6, tables.LIMIT], cells.shape)
    end = tables.WEIGHT_LIMIT
    drawn = generator.choice([-end, -1, 0, 20000, end], weights.shape)
    return tables.Start((p << 8 | n).astype(np.int32), drawn.astype(np.int32))


@pytest.fixture(scope="module")
def run(tokens):
    """run(start, there) -> states and counts before every digit of ``tokens``, [steps, ...]."""
    symbols = tokens[0].reshape(-1).astype(np.int32)

    @jax.jit
    def call(start, there):
        model = context.model(start, None, int(np.prod(SHAPE)), DIGITS)

        def step(state, item):
            x, symbol = item
            return model.advance(state, x, symbol), (state, model.cumulative(state, x))

        xs = flat_steps()._replace(there=there)
        return jax.lax.scan(step, model.state, (xs, jnp.where(there, symbols, 0)))[1]

    return lambda start, there: jax.tree.map(np.asarray, call(jax.tree.map(jnp.asarray, start), there))


@pytest.mark.parametrize("seed", range(4))
def test_no_digit_is_ever_forbidden(tokens, run, seed):
    """Whatever the tables: four counts above zero, and where no token is, all of it for digit 0."""
    there = np.repeat(tokens[1].reshape(-1), DIGITS)
    states, counts = run(any_start(seed), there)
    assert counts.dtype == np.uint32
    edges = np.pad(counts.astype(int), ((0, 0), (1, 0)))
    edges = np.concatenate([edges, np.full((len(edges), 1), TOTAL)], axis=1)
    assert (np.diff(edges[there], axis=1) >= 1).all()
    assert (counts[~there] == TOTAL).all()
    p, n = states.cells >> 8, states.cells & 255
    assert ((p >= 0) & (p < 65536) & (n <= tables.LIMIT)).all()
    assert (np.abs(states.weights) <= tables.WEIGHT_LIMIT).all()


def test_what_is_not_there_teaches_nothing(tokens, run):
    there = np.repeat(tokens[1].reshape(-1), DIGITS)
    states, _ = run(tables.fresh("context", DIGITS), there)
    for step in np.flatnonzero(~there[:-1]):
        for before, after in ((s[step], s[step + 1]) for s in (states.cells, states.weights, states.known)):
            np.testing.assert_array_equal(before, after)
    # and what is there moves one row of every expert, and the weights of its own digit
    for step in np.flatnonzero(there[:-1]):
        moved = np.flatnonzero((states.cells[step] != states.cells[step + 1]).any(axis=1))
        assert len(moved) == tables.EXPERTS["context"]
        j = step % DIGITS
        weights = np.flatnonzero((states.weights[step] != states.weights[step + 1]).any(axis=1))
        assert set(weights) <= {3 * j, 3 * j + 1, 3 * j + 2}


def test_fresh_tables_give_even_odds(run):
    steps = int(np.prod(SHAPE)) * DIGITS
    _, counts = run(tables.fresh("context", DIGITS), np.ones(steps, bool))
    np.testing.assert_array_equal(counts[0], [TOTAL // 4, TOTAL // 2, TOTAL * 3 // 4])


def test_a_step_without_jit(tokens, run):
    """The same counts and the same next state."""
    start, step = any_start(2), 40
    states, counts = run(start, np.ones(int(np.prod(SHAPE)) * DIGITS, bool))
    before, after = (jax.tree.map(lambda leaf, at=at: leaf[at], states) for at in (step, step + 1))
    x = jax.tree.map(lambda leaf: jnp.asarray(leaf[step]), flat_steps())
    with jax.disable_jit():
        model = context.model(jax.tree.map(jnp.asarray, start), None, int(np.prod(SHAPE)), DIGITS)
        state = jax.tree.map(jnp.asarray, before)
        np.testing.assert_array_equal(model.cumulative(state, x), counts[step])
        found = model.advance(state, x, jnp.int32(tokens[0].reshape(-1)[step]))
    for one, other in zip(found, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_guess_is_the_likelier_half_and_then_the_likelier_digit():
    logits = np.zeros((1, 3, 3), np.int32)
    logits[0, 0] = 900, -5000, 5000  # 3
    logits[0, 1] = -900, 700, 5000  # 1
    within = np.zeros((3, 4, 3, 3), np.int32)
    within[0, 3, 2] = 2000, 0, -300  # after a 3 the third digit is a 2
    digits, doubt = context.guess(jnp.asarray(logits), jnp.asarray(within))
    assert digits.tolist() == [[3, 1, 2]]
    sure = context.guess(jnp.full((1, 3, 3), 9000, jnp.int32), jnp.asarray(within) * 0)[1]
    even = context.guess(jnp.zeros((1, 3, 3), jnp.int32), jnp.asarray(within) * 0)[1]
    assert 0 <= int(sure[0]) < int(doubt[0]) < int(even[0]) < tables.DOUBTS
