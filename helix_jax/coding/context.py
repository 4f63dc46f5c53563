"""The `context` model of token digits: adaptive counts under several contexts, mixed, in integers only.

A digit is a tree of three binary decisions: node 0 says whether the digit is 2 or 3, node 1 says which of 0 and 1 it
is, and node 2 says which of 2 and 3. For each decision every *expert*, one for each context below, holds an adaptive
probability, and a mixer adds their log-odds with weights that it learns as it goes (logistic mixing: Mahoney, "Adaptive
Weighing of Context Models for Lossless Data Compression", 2005). The prior's logits, where they are given, are one more
input. All of it starts from tables that ship with the package, and adapts within its segment. All numbers are 32-bit
integers, so that coder and decoder agree on any device. ``reference.token_coder`` is the same model in NumPy.

    p      16-bit probability of a 1, with a count n of how often the context was seen:
           p += (target - p) / (n + 3/2), where n is at most LIMIT
    s      log-odds in units of 1 / 256: ``tables.stretch`` of the high 12 bits of p
    mixer  sum of s * w -> ``tables.squash`` -> 16-bit probability; w += s * (bit - probability) * rate

These are the contexts of digit j of a token. A digit is NONE where its token is unknown or outside the segment, and
*past* is the token at the same position one latent frame earlier.

    0  digit j of past, of the left and of the upper neighbour
    1  digit j of past; the two digits before j; digit j - 1 of past
    2  digit j of the left, upper, upper left and upper right neighbours
    3  digit j of past; how many digits before j differ from those of past (up to 3); how many of all digits of the left
       and of the upper neighbour differ from the frame before (four steps each); whether the frame begins a group of
       the tokenizer
    4  digit j of past and of its left, right and upper neighbours
    5  digit j of the left and of the upper neighbour; the two digits before j

In mode `prior` there is one more context. With it, tokens that the net predicts well, by themselves or because the
encoder chose them so, cost almost nothing:

    6  the net's own choice of digit j; how many digits before j were not its choice (up to 2); how doubtful the choice
       is (``choice``)

In that mode the mixer has a set of weights for each quarter of that doubt.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Int32, UInt8

from helix_jax import range_coder
from helix_jax.arithmetic import TOTAL
from helix_jax.prior import tables
from helix_jax.prior.tables import DOUBTS, NODES, NONE, SETS, SIZES

PAST, LEFT, UP, UP_LEFT, UP_RIGHT, PAST_LEFT, PAST_UP, PAST_RIGHT = range(8)
NEIGHBOURS = ((-1, 0, 0), (0, 0, -1), (0, -1, 0), (0, -1, -1), (0, -1, 1), (-1, 0, -1), (-1, -1, 0), (-1, 0, 1))


class State(NamedTuple):
    """State of the model between two digits.

    Attributes:
        cells: As in ``tables.Start``.
        weights: As in ``tables.Start``.
        tokens: The tokens so far, NONE where a token is unknown. The last one stands for a token that does not exist.
        token: Digits of this token so far, and NONE for those to come.
        strayed: How many of them are not the net's choice.
    """

    cells: Int32[Array, "rows 3"]
    weights: Int32[Array, "sets inputs"]
    tokens: UInt8[Array, "n k"]
    token: UInt8[Array, " k"]
    strayed: Int32[Array, ""]


class Step(NamedTuple):
    """What is known of one digit beforehand. An array of steps has the same fields with more axes in front.

    Attributes:
        position: int32, the index of its token in the segment.
        near: int32[8], the indices of the tokens at NEIGHBOURS.
        digit: int32, the index j of the digit in its token.
        begins: int32, 1 in the first frame of a group.
        valid: bool, whether the token is not padding.
        logits: int32[3], those of the net in units of 1 / 256; None in mode `context`.
    """

    position: Any
    near: Any
    digit: Any
    begins: Any
    valid: Any
    logits: Any


def rows(
    tokens: UInt8[Array, "n k"],
    token: UInt8[Array, " k"],
    strayed: Int32[Array, ""],
    x: Step,
) -> Int32[Array, " experts"]:
    """Find the row of ``cells`` that each expert looks up for a digit.

    Args:
        tokens: As in State.
        token: As in State.
        strayed: As in State.
        x: The step of the digit.
    """
    near, j, digits = tokens[x.near], x.digit, tokens.shape[-1]
    before_it = jnp.arange(digits, dtype=jnp.int32) < j

    def digit_of(token, back):
        """Digit j - back of a token; NONE if the token is unknown or has no such digit."""
        found = lax.dynamic_index_in_dim(token, jnp.maximum(j - back, 0), keepdims=False)
        return jnp.where(j >= back, found.astype(jnp.int32), NONE)

    def differing(left, right, otherwise, counted=True):
        """How many of the ``counted`` digits of two tokens differ; ``otherwise`` if one of the tokens is unknown."""
        count = jnp.sum((left != right) & counted, dtype=jnp.int32)
        return jnp.where((left[0] != NONE) & (right[0] != NONE), count, otherwise)

    past, left, up = (digit_of(near[n], 0) for n in (PAST, LEFT, UP))
    one, two = (digit_of(token, back) for back in (1, 2))
    so_far = differing(token, near[PAST], j, before_it)  # before its first digit no digit differs
    beside = [_steps(differing(near[a], near[b], digits)) for a, b in ((LEFT, PAST_LEFT), (UP, PAST_UP))]
    contexts = [
        _number(5, past, left, up),
        _number(5, past, one, digit_of(near[PAST], 1), two),
        _number(5, left, up, digit_of(near[UP_LEFT], 0), digit_of(near[UP_RIGHT], 0)),
        _number(4, past, jnp.minimum(so_far, 3), *beside) * 2 + x.begins,
        _number(5, past, *(digit_of(near[n], 0) for n in (PAST_LEFT, PAST_RIGHT, PAST_UP))),
        _number(5, left, up, one, two),
    ]
    if x.logits is not None:
        guess, doubt = choice(x.logits)
        contexts.append((guess * 3 + jnp.minimum(strayed, 2)) * DOUBTS + doubt)
    offset = (np.cumsum((0, *SIZES[:-1])) * digits).tolist()  # NumPy's numbers would widen the sums to int64
    return jnp.stack([a + j * n + c for a, n, c in zip(offset, SIZES, contexts, strict=False)]).astype(jnp.int32)


def model(start: tables.Start, size: int, digits: int) -> range_coder.Model:
    """Make the range coder's model of one segment, whose ``xs`` are Steps.

    A token of the padding costs nothing, whatever its digits are; its symbols are 0.

    Args:
        start: Where the model starts, as device arrays.
        size: Number of tokens of a segment, padding included.
        digits: Number of digits of a token.
    """
    stretch, squash = jnp.asarray(tables.stretch()), jnp.asarray(tables.squash())
    reciprocal = jnp.asarray(tables.reciprocal())

    def look(state, x):
        """Look up what predicts a digit.

        Returns the rows, their cells int32[experts, 3], the mixer's inputs int32[3, inputs], the first of the rows of
        its weights, these rows, and the probabilities int32[3] of a 1.
        """
        at = rows(state.tokens, state.token, state.strayed, x)
        cells = state.cells[at]
        inputs = [stretch[cells >> 12].T, jnp.full((NODES, 1), tables.BIAS, jnp.int32)]
        first = NODES * x.digit
        if x.logits is not None:
            inputs.append(jnp.clip(x.logits, -tables.REACH, tables.REACH)[:, None])
            first = NODES * (SETS["prior"] * x.digit + choice(x.logits)[1] * SETS["prior"] // DOUBTS)
        inputs = jnp.concatenate(inputs, axis=1)
        weights = lax.dynamic_slice_in_dim(state.weights, first, NODES)
        total = jnp.sum(inputs * (weights >> 4), axis=1, dtype=jnp.int32) >> (tables.WEIGHT_BITS - 4)
        return at, cells, inputs, first, weights, squash[jnp.clip(total, -tables.REACH, tables.REACH) + tables.REACH]

    def cumulative(state, x):
        high, one, three = look(state, x)[-1]
        upper = jnp.clip(high >> 1, 2, TOTAL - 2)
        lower = TOTAL - upper
        ones, threes = (jnp.clip(part * p >> 16, 1, part - 1) for part, p in ((lower, one), (upper, three)))
        counts = jnp.stack([lower - ones, lower, TOTAL - threes])
        return jnp.where(x.valid, counts, TOTAL).astype(jnp.uint32)

    def advance(state, x, symbol):
        at, cells, inputs, first, weights, p = look(state, x)
        high, low = symbol >> 1, symbol & 1
        bits = jnp.stack([high, low, low])
        seen = jnp.stack([x.valid, x.valid & (high == 0), x.valid & (high == 1)])
        cells = jnp.where(seen[None], _counted(cells, bits[None], reciprocal), cells)
        error = jnp.where(seen, (bits << 16) - p, 0)
        moved = weights + (inputs * error[:, None] >> tables.RATE_BITS)
        moved = jnp.clip(moved, -tables.WEIGHT_LIMIT, tables.WEIGHT_LIMIT)
        last = x.digit == digits - 1
        token = state.token.at[x.digit].set(symbol.astype(jnp.uint8))
        # p is never 0, but with this condition the write waits for the read, so XLA need not copy `tokens` each step
        done = last & x.valid & (p[0] > 0)
        index = jnp.where(done, x.position, size)
        after = state._replace(
            cells=state.cells.at[at].set(cells),
            weights=lax.dynamic_update_slice_in_dim(state.weights, moved, first, 0),
            tokens=state.tokens.at[index].set(jnp.where(done, token, NONE)),
            token=jnp.where(last, NONE, token).astype(jnp.uint8),
        )
        if x.logits is None:
            return after
        return after._replace(strayed=jnp.where(last, 0, state.strayed + (symbol != choice(x.logits)[0])))

    state = State(
        cells=jnp.asarray(start.cells),
        weights=jnp.asarray(start.weights),
        tokens=jnp.full((size + 1, digits), NONE, jnp.uint8),
        token=jnp.full(digits, NONE, jnp.uint8),
        strayed=jnp.int32(0),
    )
    return range_coder.Model(state, cumulative, advance)


def choice(logits: Int[Array, "*axes 3"]) -> tuple[Int32[Array, "*axes"], Int32[Array, "*axes"]]:
    """Find the net's own choice of a digit, and how doubtful it is.

    Returns the digit, which is the likelier one of the likelier half, and the doubt from 0 to DOUBTS - 1: in powers of
    two, how probably one of these two decisions is wrong.
    """
    squash = jnp.asarray(tables.squash())
    logits = jnp.clip(logits, -tables.REACH, tables.REACH)
    high = logits[..., 0] > 0
    second = jnp.where(high, logits[..., 2], logits[..., 1])
    wrong = squash[tables.REACH - jnp.abs(logits[..., 0])] + squash[tables.REACH - jnp.abs(second)]
    return 2 * high.astype(jnp.int32) + (second > 0), jnp.clip(26 - lax.clz(wrong), 0, DOUBTS - 1)


def _counted(cells: Int32[Array, "*axes"], bits: Int32[Array, "..."], reciprocal: Int32[Array, " n"]) -> Array:
    """Update cells with the ``bits`` that were seen."""
    p, n = cells >> 8, cells & 255
    p += ((bits * 65535 - p) * reciprocal[n]) >> tables.RECIPROCAL_BITS
    return p << 8 | jnp.minimum(n + 1, tables.LIMIT)


def _number(base, *digits):
    value = digits[0]
    for digit in digits[1:]:
        value = value * base + digit
    return value


def _steps(count):
    """Map the counts 0, 1 to 2, 3 to 5, and more to 0, 1, 2 and 3."""
    return (count > 0).astype(jnp.int32) + (count > 2) + (count > 5)
