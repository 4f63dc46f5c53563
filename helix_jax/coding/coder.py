"""Segments of tokens <-> bits, in the modes `context` and `prior`: one compilation for each shape of segments.

Tokens are coded in raster order within each latent frame, and the digits of a token from the first to the last. A clip
may be sent without the last digits of its tokens. In mode `prior` the net's logits go into the mixer. Its causal head
depends on every earlier digit: the encoder computes the logits of all digits at once, the decoder one after the other.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int32, Shaped, UInt8, UInt32

from helix_jax import parallel, range_coder
from helix_jax.coding import context, segments
from helix_jax.coding.segments import Plan
from helix_jax.config import PriorConfig
from helix_jax.prior import inputs as net_inputs
from helix_jax.prior import net, stored, tables
from helix_jax.prior.weights import Prior

BATCH = 64  # most segments per call


def compress(
    prior: Prior,
    mode: str,
    plan: Plan,
    tokens: UInt8[np.ndarray, "t h w k"],
    *,
    progress: Callable[[int], None] | None = None,
) -> list[bytes | None]:
    """Code the tokens of a clip, segment by segment.

    Args:
        prior: The prior, which has the tables that the coder starts from.
        mode: "context" or "prior".
        plan: How the clip is cut into segments.
        tokens: The tokens, with no more digits than the prior has.
        progress: Called with the number of segments that have just been coded.

    Returns:
        The bytes of each segment, whose last byte ends with zero bits. A segment has room for its raw digits and an
        eighth more; for one that takes more there is None.
    """
    digits = tokens.shape[-1]
    room = int(np.prod(plan.shape)) * digits * 2 * 9 // 8 + 64
    words, bits, ok = parallel.map_batches(
        _compress, _constants(prior, mode, plan, digits), segments.cut(plan, tokens), segments.valid(plan),
        batch=batch_of(plan), progress=progress, room=room, net_config=_net_config(prior, mode),
    )  # fmt: skip
    data = words.astype(">u4").tobytes()
    size = 4 * words.shape[1]
    return [data[n * size : n * size + -(-int(bits[n]) // 8)] if ok[n] else None for n in range(len(ok))]


def expand(
    prior: Prior,
    mode: str,
    plan: Plan,
    digits: int,
    coded: Sequence[bytes | None],
    *,
    progress: Callable[[int], None] | None = None,
) -> UInt8[np.ndarray, "t h w {digits}"]:
    """Decode the segments of a clip: the inverse of ``compress``.

    Args:
        prior: As for ``compress``.
        mode: As for ``compress``.
        plan: As for ``compress``.
        digits: Number of digits of a token that were sent.
        coded: The bytes of each segment, or None for a lost one, whose tokens then are zeros.
        progress: Called with the number of segments that have just been decoded.
    """
    valid = segments.valid(plan)
    valid[[piece is None for piece in coded]] = False
    tokens = parallel.map_batches(
        _expand, _constants(prior, mode, plan, digits), to_words(coded), valid,
        batch=batch_of(plan), progress=progress, digits=digits, net_config=_net_config(prior, mode),
    )  # fmt: skip
    return segments.join(plan, tokens)


@functools.lru_cache(maxsize=8)
def steps(shape: tuple[int, ...], digits: int, group: int = 4) -> context.Step:
    """List the steps of all digits of a segment, without what differs between segments.

    Args:
        shape: (t, h, w) of the segment.
        digits: Number of digits of a token.
        group: Latent frames of a group of the tokenizer.

    Returns:
        NumPy arrays [t, steps of a frame, ...]. The fields ``valid`` and ``logits`` are None.
    """
    t, h, w = shape
    index = np.arange(t * h * w, dtype=np.int32)
    position = np.stack(np.unravel_index(index, shape))
    near = []
    for shift in context.NEIGHBOURS:
        neighbour = position + np.array(shift)[:, None]
        inside = ((neighbour >= 0) & (neighbour < np.array(shape)[:, None])).all(axis=0)
        near.append(np.where(inside, np.ravel_multi_index(neighbour, shape, mode="clip"), t * h * w))

    def each(values):
        return np.repeat(values.astype(np.int32), digits, axis=0).reshape(t, -1, *values.shape[1:])

    return context.Step(
        position=each(index),
        near=each(np.stack(near, axis=1)),
        digit=np.tile(np.arange(digits, dtype=np.int32), len(index)).reshape(t, -1),
        begins=each(position[0] % group == 0),
        valid=None,
        logits=None,
    )


def to_words(coded: Sequence[bytes | None]) -> UInt32[np.ndarray, "n W"]:
    """Put the bytes of segments (None stands for an empty one) into words, with zeros after the end of each.

    The number of words is a power of two, so that few shapes occur.
    """
    longest = max(4, *(len(piece or b"") for piece in coded))
    width = 4 << (-(-longest // 4) - 1).bit_length()
    data = b"".join((piece or b"").ljust(width, b"\0") for piece in coded)
    return np.frombuffer(data, ">u4").astype(np.uint32).reshape(len(coded), -1)


def batch_of(plan: Plan) -> int:
    """Number of segments per call: the power of two that holds all of them, so that few shapes occur, or BATCH."""
    return min(BATCH, 1 << (plan.number - 1).bit_length())


def _net_config(prior, mode):
    return prior.config if mode == "prior" else None


def _constants(prior, mode, plan, digits):
    start = (prior.context if mode == "context" else prior.mixed).first(digits, prior.config.digits)
    return start, steps(plan.shape, digits), prior.params if mode == "prior" else {}


# ---- one batch of segments, on one device ----------------------------------------------------------


def _compress(
    constants: Any,
    tokens: UInt8[Array | np.ndarray, "n t h w k"],
    valid: Bool[Array | np.ndarray, "n t h w"],
    *,
    room: int,
    net_config: PriorConfig | None,
) -> tuple[UInt32[Array, "n W"], Int32[Array, " n"], Bool[Array, " n"]]:
    start, shared, params = constants
    logits = logits_of_all(params, tokens, valid, net_config) if net_config else None

    def compress_segment(tokens, valid, logits):
        model, xs, symbols = of_segment(start, shared, tokens, valid, logits)
        return range_coder.compress(model, symbols, xs=xs, most=room)

    return jax.vmap(compress_segment)(tokens, valid, logits)


def _expand(
    constants: Any,
    words: UInt32[Array | np.ndarray, "n W"],
    valid: Bool[Array | np.ndarray, "n t h w"],
    *,
    digits: int,
    net_config: PriorConfig | None,
) -> UInt8[Array, "n t h w {digits}"]:
    start, shared, params = constants
    n, t, h, w = valid.shape
    model = context.model(start, t * h * w, digits)
    windows = jax.vmap(range_coder.windows)(jnp.asarray(words))
    decoder = jax.vmap(lambda words: range_coder.start(model.state, words))(words)

    def step(decoder, x, here, logits=None):
        def read_digit(decoder, windows, here, logits):
            return range_coder.read_one(model, decoder, windows, x._replace(valid=here, logits=logits))

        return jax.vmap(read_digit)(decoder, windows, here, logits)

    if net_config:
        return walk(params, net_config, step, decoder, shared, valid, digits)[1]
    here = jnp.repeat(valid.reshape(n, t * h * w), digits, axis=1).T
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), shared)
    symbols = lax.scan(lambda decoder, item: step(decoder, *item), decoder, (flat, here))[1]
    return symbols.T.reshape(n, t, h, w, digits).astype(jnp.uint8)


def walk(
    params: dict,
    config: PriorConfig,
    step: Callable,
    carry: Any,
    shared: context.Step,
    valid: Bool[Array | np.ndarray, "n t h w"],
    digits: int,
) -> tuple[Any, UInt8[Array, "n t h w {digits}"]]:
    """Go from digit to digit in the decoder's order, and feed each digit back to the net.

    Args:
        params: Parameters of the prior's net.
        config: Its configuration.
        step: Decides a digit of all segments: step(carry, x, valid bool[n], logits int32[n, 3]) -> (carry, digit
            int32[n]).
        carry: First value of the carry.
        shared: What ``steps`` returns.
        valid: Mask of the tokens of each segment that are not padding.
        digits: Number of digits of a token.

    Returns:
        The last carry, and the tokens, which are 0 in the padding.
    """
    n, t, h, w = valid.shape
    reach = max(abs(distance) for place in stored.AROUND for distance in place)
    pad = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    none = jnp.full((n, h, w, config.digits), net.LEVELS, jnp.uint8)
    memory = jnp.zeros((n, config.blocks, h, w, config.width), jnp.float32)
    xs = jax.tree.map(lambda leaf: leaf.reshape(t, h * w, digits, *leaf.shape[2:]), shared)
    zero = jnp.int32(0)  # slices take indices of one type, and a bare 0 is int64 where 64 bits are enabled
    corners = jnp.stack(jnp.unravel_index(jnp.arange(h * w, dtype=jnp.int32), (h, w)), axis=1)

    def next_features(f):
        def call(before, earlier, memory):
            features, memory = net.next_features(params, before, earlier, f, jnp.moveaxis(memory, 0, 1), config)
            return features, jnp.moveaxis(memory, 1, 0)

        return call

    def frame(carry, item):
        carry, before, earlier, memory = carry
        f, xs, here = item
        features, memory = _one_by_one(next_features(f), here, before, earlier, memory)
        past = jnp.pad(before, pad, constant_values=net.LEVELS)

        def token(carry, item):
            carry, present = carry
            (y, x), xs, here, features = item

            def at(frame, place):
                shape = (n, 1, 1, config.digits)
                return lax.dynamic_slice(frame, (zero, y + reach + place[0], x + reach + place[1], zero), shape)[
                    :, 0, 0
                ]

            around = net_inputs.around(
                [at(present, p) for p in stored.AROUND], [at(past, stored.AROUND[m]) for m in stored.KEPT]
            )
            total = net.begin(params, features, around, config)

            def digit(carry, x):
                carry, total = carry
                logits = net.digit_logits(params, total, x.digit, config)
                carry, symbol = step(carry, x, here, (logits * 2.0**net.LOGIT_BITS).astype(jnp.int32))
                return (carry, net.tell(params, total, x.digit, symbol, config)), symbol

            (carry, _), symbols = lax.scan(digit, (carry, total), xs)
            row = jnp.full((n, config.digits), net.LEVELS, jnp.uint8).at[:, :digits].set(symbols.T.astype(jnp.uint8))
            row = jnp.where(here[:, None], row, net.LEVELS)
            present = lax.dynamic_update_slice(present, row[:, None, None], (zero, y + reach, x + reach, zero))
            return (carry, present), None

        start = (carry, jnp.pad(none, pad, constant_values=net.LEVELS))
        here, features = (jnp.moveaxis(leaf.reshape(n, h * w, *leaf.shape[3:]), 1, 0) for leaf in (here, features))
        carry, present = lax.scan(token, start, (corners, xs, here, features))[0]
        present = present[:, reach : reach + h, reach : reach + w]
        return (carry, present, before, memory), present[..., :digits]

    items = jnp.arange(t, dtype=jnp.int32), xs, jnp.moveaxis(valid, 1, 0)
    (carry, *_), tokens = lax.scan(frame, (carry, none, none, memory), items)
    return carry, jnp.where(valid[..., None], jnp.moveaxis(tokens, 0, 1), 0)


def of_segment(
    start: tables.Start,
    shared: context.Step,
    tokens: UInt8[Array | np.ndarray, "t h w k"],
    valid: Bool[Array | np.ndarray, "t h w"],
    logits: Int32[Array | np.ndarray, "t h w k 3"] | None,
) -> tuple[range_coder.Model, context.Step, Int32[Array, " n"]]:
    """Make what the range coder needs of one segment.

    Args:
        start: Where the model starts.
        shared: What ``steps`` returns.
        tokens: Tokens of the segment.
        valid: Mask of the tokens that are not padding.
        logits: The net's logits in units of 1 / 256, or None in mode `context`.

    Returns:
        The model, and the steps and the symbols from the first digit to the last.
    """
    digits = tokens.shape[-1]
    xs = shared._replace(valid=jnp.repeat(valid.reshape(len(valid), -1), digits, axis=-1))
    if logits is not None:
        xs = xs._replace(logits=logits.reshape(*xs.digit.shape, net.NODES))
    symbols = jnp.where(xs.valid, tokens.reshape(xs.digit.shape).astype(jnp.int32), 0)
    model = context.model(start, valid.size, digits)
    return model, *jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (xs, symbols))


def logits_of_all(
    params: dict,
    tokens: UInt8[Array | np.ndarray, "n t h w k"],
    valid: Bool[Array | np.ndarray, "n t h w"],
    config: PriorConfig,
) -> Int32[Array, "n t h w k 3"]:
    """Compute the net's logits of each digit, given all earlier digits.

    Args:
        params: Parameters of the prior's net.
        tokens: Tokens of the segments.
        valid: Mask of the tokens that are not padding.
        config: Configuration of the net.

    Returns:
        The logits in units of 1 / 256.
    """
    digits = tokens.shape[-1]

    def logits_of_segment(tokens, valid):
        whole = jnp.pad(tokens, (*[(0, 0)] * 4, (0, config.digits - digits)))
        mask = valid[..., None] & (jnp.arange(config.digits, dtype=jnp.int32) < digits)[None, None, None, None]
        logits = net.causal_logits(params, whole, mask, config)[..., :digits, :]
        return (logits * 2.0**net.LOGIT_BITS).astype(jnp.int32)

    return _one_by_one(logits_of_segment, valid, tokens, valid)


def _one_by_one(
    function: Callable, valid: Bool[Array | np.ndarray, " n *axes"], *batched: Shaped[Array | np.ndarray, "n ..."]
) -> Any:
    """``function`` of batched arrays [n, ...], one segment after the other, with zeros where all of one is padding.

    One segment fits into the cache of a core and all of them do not, which makes the net half as fast again on a CPU.
    Segments that only fill up a batch cost nothing.
    """
    shapes = jax.eval_shape(function, *(leaf[:1] for leaf in batched))

    def of_segment(item):
        used, *arrays = item
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        result = lax.cond(used, function, lambda *_: zeros, *(leaf[None] for leaf in arrays))
        return jax.tree.map(lambda leaf: leaf[0], result)

    return lax.map(of_segment, (valid.reshape(len(valid), -1).any(axis=1), *batched))
