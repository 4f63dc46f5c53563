"""Segments to bits and back: exact, alone or in any company, and at the price that the tokens are worth."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helix_jax.coding import coder, context, segments
from helix_jax.prior import tables, weights

GRID = (9, 21, 23)  # two segments, the second nearly empty
CUT = (9, 3, 31)  # two by two segments of 8 x 3 x 16: one frame in the lower two, and a column too many in two
LONG = (8 * 8, 3, 16)  # eight segments of the same shape


def compressed(prior, tokens, mode="context"):
    return coder.compress(prior, mode, segments.plan(tokens.shape[:3]), tokens)


def expanded(prior, coded, grid, digits, mode="context", progress=None):
    """With zeros behind short segments, so that fewer widths occur: each is a compilation."""
    coded = [piece if piece is None else piece.ljust(300, b"\0") for piece in coded]
    return coder.expand(prior, mode, segments.plan(grid), digits, coded, progress=progress)


def size(coded):
    return sum(map(len, coded))


@pytest.fixture(scope="module")
def listening(net_files):
    """A prior of 4 digits whose net is wild, and whose mixer listens to it from the first digit on."""
    return attentive(weights.load(net_files[4]), 30000)


def attentive(prior, weight):
    """The same with this weight on the net's logits."""
    start = tables.Start(prior.mixed.cells, prior.mixed.weights.copy())
    start.weights[:, -1] = weight
    return dataclasses.replace(prior, mixed=start)


@pytest.fixture(scope="module")
def prior_for(prior_of):
    """Mode -> prior of 4 digits, its net a tame one."""
    return {"context": prior_of(4), "prior": attentive(prior_of(4), 20000)}.get


# ---- there and back -------------------------------------------------------------------------------------


def test_round_trip_of_as_many_digits_as_there_can_be(prior_of, walk):
    check_round_trip(prior_of(15), walk((2, 3, 3), 15))


def check_round_trip(prior, tokens, mode="context"):
    """Bytes of all segments."""
    *grid, digits = tokens.shape
    coded = compressed(prior, tokens, mode)
    assert len(coded) == segments.plan(grid).number
    back = expanded(prior, coded, grid, digits, mode)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, tokens)
    return size(coded)


@pytest.mark.parametrize("mode", ["context", "prior"])
@pytest.mark.parametrize("digits", [4, 3])
def test_round_trip_of_fewer_digits_and_broken_tiles(prior_for, walk, mode, digits):
    """Of the four digits that the prior knows all are sent, or the first three; of four segments one is full."""
    tokens = walk(CUT, 4)[..., :digits]
    assert check_round_trip(prior_for(mode), tokens, mode) < 0.9 * tokens.size / 4
    check_round_trip(prior_for(mode), 3 - walk(CUT, 4, seed=1)[..., :digits], mode)


def test_price(prior_of, walk):
    """Tokens without any order cost hardly more than they are, those of one value next to nothing."""
    prior, raw = prior_of(4), np.prod(GRID)
    even = np.random.default_rng(0).integers(0, 4, (*GRID, 4), dtype=np.uint8)
    assert raw < check_round_trip(prior, even) <= 1.03 * raw
    assert size(compressed(prior, walk(GRID, 4))) < 0.6 * raw
    for value in (0, 3):
        assert size(compressed(prior, np.full((*GRID, 4), value, np.uint8))) < 0.03 * raw


def test_progress(prior_of, walk):
    plan, done = segments.plan(CUT), []
    coded = coder.compress(prior_of(4), "context", plan, walk(CUT, 4), progress=done.append)
    expanded(prior_of(4), coded, CUT, 4, progress=done.append)
    assert sum(done) == 2 * plan.number


# ---- the net, asked at once or digit by digit --------------------------------------------------------------


@pytest.fixture(scope="module")
def walked(listening):
    """walked(tokens, there, free) -> (logits int32[n, t, h, w, 3, 3] as the walk comes by, its tokens): those that are
    given, or, if free, what the net would choose."""

    @jax.jit
    def call(params, tokens, valid, free):
        n, t, h, w = valid.shape
        shared, flat = jax.tree.map(jnp.asarray, coder.steps((t, h, w), 3)), tokens.reshape(n, -1, 3).astype(jnp.int32)

        def step(found, x, here, logits):
            digit = jnp.where(free, context.choice(logits)[0], flat[:, x.position, x.digit])
            return found.at[:, x.position, x.digit].set(logits), digit

        found = jnp.zeros((n, t * h * w, 3, 3), jnp.int32)
        found, tokens = coder.walk(params, listening.config, step, found, shared, valid, 3)
        return found.reshape(*tokens.shape, 3), tokens

    return lambda *told: tuple(map(np.asarray, call(listening.params, *told)))


def test_the_decoder_is_told_what_the_encoder_was(listening, walked, walk):
    """Of three digits, and also where tokens are not there: at the edges, and scattered."""
    plan = segments.plan(CUT)
    valid = segments.valid(plan)
    valid[0] &= np.random.default_rng(0).random(plan.shape) < 0.8
    tokens = segments.cut(plan, walk(CUT, 3))
    call = jax.jit(functools.partial(coder.logits_of_all, config=listening.config))
    wanted = np.asarray(call(listening.params, tokens, valid))
    found, back = walked(tokens, valid, False)
    np.testing.assert_array_equal(back, np.where(valid[..., None], tokens, 0))
    np.testing.assert_array_equal(found[valid], wanted[valid])
    assert len(np.unique(found[valid])) > 500
    # a digit that is not there is not looked at
    other = np.where(valid[..., None], tokens, 3 - tokens)
    np.testing.assert_array_equal(np.asarray(call(listening.params, other, valid))[valid], wanted[valid])


def test_what_the_net_chooses_costs_next_to_nothing(listening, walked):
    """Tokens that are its own choice throughout; and not where another net is asked."""
    plan = segments.plan(CUT)
    valid = segments.valid(plan)
    tokens = segments.join(plan, walked(np.zeros((*valid.shape, 3), np.uint8), valid, True)[1])
    assert len(np.unique(tokens)) == 4
    cost = size(compressed(listening, tokens, "prior"))
    assert cost < 0.2 * tokens.size / 4
    other = listening.params | {"after": jax.tree.map(lambda leaf: -leaf, listening.params["after"])}
    assert size(compressed(dataclasses.replace(listening, params=other), tokens, "prior")) > 3 * cost


def test_every_part_of_the_net_decides_the_bits(listening, walk):
    """With one weight changed a segment reads otherwise: so a prior is named by a digest of all of it."""
    tokens = walk(CUT, 4)
    coded = compressed(listening, tokens, "prior")
    for name in ("begun", "earlier"):
        leaf = listening.params[name]
        moved = {"w": leaf["w"], "b": leaf["b"] + 1} if name == "begun" else leaf + 1
        other = dataclasses.replace(listening, params=listening.params | {name: moved})
        assert (expanded(other, coded, CUT, 4, "prior") != tokens).mean() > 0.1


# ---- segments share nothing -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["context", "prior"])
def many(request, prior_for, walk):
    """Mode, prior, tokens of eight segments, and their bytes from eight devices, one from each."""
    assert len(jax.devices()) == 8
    mode, tokens = request.param, walk(LONG, 4)
    return mode, prior_for(mode), tokens, compressed(prior_for(mode), tokens, mode)


def test_a_broken_segment_leaves_the_others_exact(many):
    mode, prior, tokens, coded = many
    plan = segments.plan(LONG)
    for lost in ([0], [7], [1, 2, 5], range(7)):
        left = [None if n in lost else piece for n, piece in enumerate(coded)]
        parts = segments.cut(plan, tokens)
        parts[list(lost)] = 0
        np.testing.assert_array_equal(expanded(prior, left, LONG, 4, mode), segments.join(plan, parts))
    # bytes of another segment, or none at all: wrong tokens there, and there alone
    wrong = segments.cut(plan, expanded(prior, [coded[1], b"", *coded[2:]], LONG, 4, mode))
    np.testing.assert_array_equal(wrong[2:], segments.cut(plan, tokens)[2:])


def test_tokens_change_the_bytes_of_their_own_segment_alone(many):
    mode, prior, tokens, before = many
    plan = segments.plan(LONG)
    for n in (0, 1, 7):
        parts = segments.cut(plan, tokens)
        parts[n] = 3 - parts[n]
        after = compressed(prior, segments.join(plan, parts), mode)
        assert [m for m in range(8) if before[m] != after[m]] == [n]


def test_a_segment_that_takes_too_much_is_none(prior_of):
    """Tables that are sure of another digit and do not let go. The other segments are coded all the same."""
    sure = tables.fresh("context", 4)
    sure.cells[:] = 65535 << 8 | tables.LIMIT
    tokens = np.full((*LONG, 4), 3, np.uint8)
    tokens[:8] = np.random.default_rng(0).integers(0, 3, (8, *LONG[1:], 4))
    first, *others = compressed(prior_of(4, start=sure), tokens)
    assert first is None
    assert max(map(len, others)) < 20
    np.testing.assert_array_equal(expanded(prior_of(4, start=sure), [None, *others], LONG, 4)[8:], tokens[8:])


# ---- one result on every road ---------------------------------------------------------------------------


def plainly(mode, prior, plan, digits, jit=jax.jit):
    """(tokens -> bytes of each segment, those -> tokens), on one device, all segments at once."""
    constants = jax.tree.map(jnp.asarray, coder._constants(prior, mode, plan, digits))
    net_config, valid = coder._net_config(prior, mode), segments.valid(plan)
    write = jit(functools.partial(coder._compress, room=4096, net_config=net_config))
    read = jit(functools.partial(coder._expand, digits=digits, net_config=net_config))

    def compress(tokens):
        words, bits, ok = write(constants, segments.cut(plan, tokens), valid)
        assert np.asarray(ok).all()
        return [np.asarray(w).astype(">u4").tobytes()[: -(-int(n) // 8)] for w, n in zip(words, bits, strict=True)]

    return compress, lambda coded: segments.join(plan, np.asarray(read(constants, coder.to_words(coded), valid)))


def test_one_device_equals_eight_and_a_batch_equals_each_alone(many):
    """Every device has one segment, whether there are eight or one; here one device has them all."""
    mode, prior, tokens, coded = many
    compress, expand = plainly(mode, prior, segments.plan(LONG), 4)
    assert compress(tokens) == coded
    np.testing.assert_array_equal(expand(coded), tokens)
    np.testing.assert_array_equal(expanded(prior, coded, LONG, 4, mode), tokens)
    for n in (0, 3, 7):
        part = tokens[8 * n : 8 * n + 8]
        assert compressed(prior, part, mode) == [coded[n]]
        np.testing.assert_array_equal(expanded(prior, [coded[n]], part.shape[:3], 4, mode), part)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["context", "prior"])
def test_without_jit(prior_of, walk, mode):
    """Slow: every operation is compiled by itself."""
    plan = segments.Plan((2, 1, 2), (2, 1, 2), (1, 1, 1))
    tokens = walk(plan.grid, 3, seed=3)
    coded = plainly(mode, prior_of(3), plan, 3)[0](tokens)
    with jax.disable_jit():
        compress, expand = plainly(mode, prior_of(3), plan, 3, jit=lambda call: call)
        assert compress(tokens) == coded
        np.testing.assert_array_equal(expand(coded), tokens)


def test_to_words():
    """First bit most significant, zeros after the end, and few widths: each is a compilation."""
    words = coder.to_words([b"\x01\x02\x03\x04\x05", None, b""])
    assert words.tolist() == [[0x01020304, 0x05000000], [0, 0], [0, 0]]
    widths = {coder.to_words([bytes(n)]).shape[1] for n in range(5000)}
    assert widths == {1 << n for n in range(12)}
    assert all(4 * coder.to_words([bytes(n)]).shape[1] >= n for n in range(300))
