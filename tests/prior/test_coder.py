"""Segments to bits and back: exact, alone or in any company, and at the price that the tokens are worth."""

import functools

import jax
import numpy as np
import pytest

from helix_jax.prior import coder, segments, tables

GRID = (9, 21, 23)  # two segments, the second nearly empty


def compressed(prior, tokens):
    return coder.compress(prior, "context", segments.plan(tokens.shape[:3]), tokens)


def expanded(prior, coded, grid, digits):
    return coder.expand(prior, "context", segments.plan(grid), digits, coded)


def size(coded):
    return sum(map(len, coded))


@pytest.mark.parametrize(("grid", "digits"), [((1, 1, 1), 4), ((3, 5, 7), 15)])
def test_round_trip(prior_of, walk, grid, digits):
    check_round_trip(prior_of(digits), walk(grid, digits))


def check_round_trip(prior, tokens):
    """Bytes of all segments."""
    *grid, digits = tokens.shape
    coded = compressed(prior, tokens)
    assert len(coded) == segments.plan(grid).number
    back = expanded(prior, coded, grid, digits)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, tokens)
    return size(coded)


def test_price(prior_of, walk):
    """Tokens without any order cost hardly more than they are, those of one value next to nothing."""
    prior, raw = prior_of(8), np.prod(GRID) * 2
    even = np.random.default_rng(0).integers(0, 4, (*GRID, 8), dtype=np.uint8)
    assert raw < check_round_trip(prior, even) <= 1.03 * raw
    assert size(compressed(prior, walk(GRID, 8))) < 0.55 * raw
    for value in (0, 3):
        assert size(compressed(prior, np.full((*GRID, 8), value, np.uint8))) < 0.02 * raw


def test_progress(prior_of, walk):
    prior, plan, done = prior_of(8), segments.plan(GRID), []
    coded = coder.compress(prior, "context", plan, walk(GRID, 8), progress=done.append)
    coder.expand(prior, "context", plan, 8, coded, progress=done.append)
    assert sum(done) == 2 * plan.number


# ---- segments share nothing -----------------------------------------------------------------------------

LONG = (8 * 64, 3, 4)  # 64 segments of one shape


@pytest.fixture(scope="module")
def many(prior_of, walk):
    """Tokens of 64 segments, and their bytes from eight devices at once."""
    assert len(jax.devices()) == 8
    tokens = walk(LONG, 4)
    return tokens, compressed(prior_of(4), tokens)


def test_a_broken_segment_leaves_the_others_exact(prior_of, many):
    tokens, coded = many
    prior, plan = prior_of(4), segments.plan(LONG)
    for lost in ([0], [63], [1, 2, 40], range(64)):
        left = [None if n in lost else piece for n, piece in enumerate(coded)]
        parts = segments.cut(plan, tokens)
        parts[list(lost)] = 0
        np.testing.assert_array_equal(expanded(prior, left, LONG, 4), segments.join(plan, parts))
    # bytes of another segment, or none at all: wrong tokens there, and there alone
    wrong = segments.cut(plan, expanded(prior, [coded[1], b"", *coded[2:]], LONG, 4))
    np.testing.assert_array_equal(wrong[2:], segments.cut(plan, tokens)[2:])


def test_tokens_change_the_bytes_of_their_own_segment_alone(prior_of, many):
    tokens, before = many
    plan = segments.plan(LONG)
    for n in (0, 1, 40, 63):
        parts = segments.cut(plan, tokens)
        parts[n] = 3 - parts[n]
        after = compressed(prior_of(4), segments.join(plan, parts))
        assert [m for m in range(64) if before[m] != after[m]] == [n]


def test_a_segment_that_takes_too_much_is_none(prior_of):
    """Tables that are sure of another digit and do not let go. The other segments are coded all the same."""
    sure = tables.fresh("context", 4)
    sure.cells[:] = 65535 << 8 | tables.LIMIT
    tokens = np.full((*LONG, 4), 3, np.uint8)
    tokens[:8] = np.random.default_rng(0).integers(0, 3, (8, 3, 4, 4))
    first, *others = compressed(prior_of(4, start=sure), tokens)
    assert first is None
    assert max(map(len, others)) < 20
    np.testing.assert_array_equal(expanded(prior_of(4, start=sure), [None, *others], LONG, 4)[8:], tokens[8:])


# ---- one result on every road ---------------------------------------------------------------------------


def test_a_segment_alone_equals_one_of_64(prior_of, many):
    tokens, coded = many
    for n in (0, 17, 63):
        (alone,) = compressed(prior_of(4), tokens[8 * n : 8 * n + 8])
        assert alone == coded[n]
        np.testing.assert_array_equal(expanded(prior_of(4), [alone], (8, 3, 4), 4), tokens[8 * n : 8 * n + 8])
    np.testing.assert_array_equal(expanded(prior_of(4), coded, LONG, 4), tokens)


def on_one_device(prior, plan, tokens, room, jit=jax.jit):
    """Bytes of each segment, without shard_map."""
    call = jit(functools.partial(coder._compress, room=room, net_config=None))
    constants = coder._constants(prior, "context", plan, tokens.shape[-1])
    words, bits, ok = call(constants, segments.cut(plan, tokens), segments.there(plan))
    assert np.asarray(ok).all()
    return [np.asarray(w).astype(">u4").tobytes()[: -(-int(n) // 8)] for w, n in zip(words, bits, strict=True)]


def test_one_device_equals_eight(prior_of, many):
    tokens, coded = many
    assert on_one_device(prior_of(4), segments.plan(LONG), tokens, 1024) == coded


@pytest.mark.slow
def test_without_jit(prior_of, walk):
    """Slow: every operation is compiled by itself."""
    plan = segments.Plan((2, 1, 2), (2, 1, 2), (1, 1, 1))
    tokens = walk(plan.grid, 3, seed=3)
    jitted = on_one_device(prior_of(3), plan, tokens, 64)
    with jax.disable_jit():
        assert on_one_device(prior_of(3), plan, tokens, 64, jit=lambda call: call) == jitted
        constants = coder._constants(prior_of(3), "context", plan, 3)
        call = functools.partial(coder._expand, digits=3, net_config=None)
        back = call(constants, coder.to_words(jitted), segments.there(plan))
    np.testing.assert_array_equal(segments.join(plan, np.asarray(back)), tokens)


def test_to_words():
    """First bit most significant, zeros after the end, and few widths: each is a compilation."""
    words = coder.to_words([b"\x01\x02\x03\x04\x05", None, b""])
    assert words.tolist() == [[0x01020304, 0x05000000], [0, 0], [0, 0]]
    widths = {coder.to_words([bytes(n)]).shape[1] for n in range(5000)}
    assert widths == {1 << n for n in range(12)}
    assert all(4 * coder.to_words([bytes(n)]).shape[1] >= n for n in range(300))
