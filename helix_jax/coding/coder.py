"""Segments of tokens <-> bits, in the modes `context` and `prior`: one compilation for a shape of segment.

Tokens are coded in raster order within each latent frame, digits from the first on; a clip may be sent without the
last digits of its tokens. In mode `prior` the net's logits go into the mixer, and its causal head depends on every
digit before: the encoder asks it of all digits at once, the decoder of one after the other.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from helix_jax import parallel, range_coder
from helix_jax.coding import context, segments
from helix_jax.prior import net, stored

BATCH = 64  # most segments per call


def compress(prior, mode, plan, tokens, *, progress=None):
    """Tokens of a clip -> bits of each segment.

    prior: prior.weights.Prior. mode: "context" or "prior". tokens: uint8[t, h, w, digits], no more digits than the
    prior knows. progress: called with the number of segments just done.
    Returns a list of bytes, one per segment, zero bits at the end of the last byte.
    A segment is given room for its raw digits and an eighth more; one that takes more comes out as None.
    """
    digits = tokens.shape[-1]
    room = int(np.prod(plan.shape)) * digits * 2 * 9 // 8 + 64
    words, bits, ok = parallel.map_batches(
        _compress, _constants(prior, mode, plan, digits), segments.cut(plan, tokens), segments.there(plan),
        batch=batch_of(plan), progress=progress, room=room, net_config=_net_config(prior, mode),
    )  # fmt: skip
    data = words.astype(">u4").tobytes()
    size = 4 * words.shape[1]
    return [data[n * size : n * size + -(-int(bits[n]) // 8)] if ok[n] else None for n in range(len(ok))]


def expand(prior, mode, plan, digits, coded, *, progress=None):
    """Bytes of each segment -> tokens uint8[t, h, w, k]; the inverse of ``compress``.

    coded: list of bytes, or None for a segment that is lost, whose tokens are zeros then.
    """
    there = segments.there(plan)
    there[[piece is None for piece in coded]] = False
    tokens = parallel.map_batches(
        _expand, _constants(prior, mode, plan, digits), to_words(coded), there,
        batch=batch_of(plan), progress=progress, digits=digits, net_config=_net_config(prior, mode),
    )  # fmt: skip
    return segments.join(plan, tokens)


@functools.lru_cache(maxsize=8)
def steps(shape, digits, group=4):
    """context.Step of all digits of a segment of ``shape`` (t, h, w), but for what differs between segments.

    NumPy arrays [t, steps of a frame, ...].
    """
    t, h, w = shape
    place = np.arange(t * h * w, dtype=np.int32)
    at = np.stack(np.unravel_index(place, shape))
    near = []
    for shift in context.NEIGHBOURS:
        where = at + np.array(shift)[:, None]
        inside = ((where >= 0) & (where < np.array(shape)[:, None])).all(axis=0)
        near.append(np.where(inside, np.ravel_multi_index(where, shape, mode="clip"), t * h * w))

    def each(values):
        return np.repeat(values.astype(np.int32), digits, axis=0).reshape(t, -1, *values.shape[1:])

    return context.Step(
        place=each(place),
        near=each(np.stack(near, axis=1)),
        digit=np.tile(np.arange(digits, dtype=np.int32), len(place)).reshape(t, -1),
        begins=each(at[0] % group == 0),
        there=None,
        logits=None,
    )


def to_words(coded):
    """List of bytes (None: empty) -> uint32[n, W], zeros after the end; W a power of two, so that few shapes occur."""
    longest = max(4, *(len(piece or b"") for piece in coded))
    width = 4 << (-(-longest // 4) - 1).bit_length()
    data = b"".join((piece or b"").ljust(width, b"\0") for piece in coded)
    return np.frombuffer(data, ">u4").astype(np.uint32).reshape(len(coded), -1)


def batch_of(plan):
    """Segments per call: a power of two, so that few shapes occur, and no more than there are."""
    return min(BATCH, 1 << (plan.number - 1).bit_length())


def _net_config(prior, mode):
    return prior.config if mode == "prior" else None


def _constants(prior, mode, plan, digits):
    start = (prior.context if mode == "context" else prior.mixed).first(digits, prior.config.digits)
    return start, steps(plan.shape, digits), prior.params if mode == "prior" else {}


# ---- one batch of segments, on one device ----------------------------------------------------------


def _compress(constants, tokens, there, *, room, net_config):
    start, shared, params = constants
    logits = logits_of_all(params, tokens, there, net_config) if net_config else None

    def one(tokens, there, logits):
        model, xs, symbols = of_segment(start, shared, tokens, there, logits)
        return range_coder.compress(model, symbols, xs=xs, most=room)

    return jax.vmap(one)(tokens, there, logits)


def _expand(constants, words, there, *, digits, net_config):
    start, shared, params = constants
    n, t, h, w = there.shape
    model = context.model(start, t * h * w, digits)
    windows = jax.vmap(range_coder.windows)(words)
    decoder = jax.vmap(lambda words, there: range_coder.start(_begun(model, there).state, words))(words, there)

    def step(decoder, x, here, logits=None):
        def one(decoder, windows, here, logits):
            return range_coder.read_one(model, decoder, windows, x._replace(there=here, logits=logits))

        return jax.vmap(one)(decoder, windows, here, logits)

    if net_config:
        return walk(params, net_config, step, decoder, shared, there, digits)[1]
    here = jnp.repeat(there.reshape(n, t * h * w), digits, axis=1).T
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), shared)
    symbols = lax.scan(lambda decoder, item: step(decoder, *item), decoder, (flat, here))[1]
    return symbols.T.reshape(n, t, h, w, digits).astype(jnp.uint8)


def walk(params, config, step, carry, shared, there, digits):
    """From digit to digit as the decoder must, the net being told of each one.

    step(carry, x, here bool[n], logits int32[n, 3]) -> (carry, digit int32[n]). shared: ``steps``. there: bool[n, t, h,
    w]. Returns (carry, tokens uint8[n, t, h, w, digits], 0 where no token is).
    """
    n, t, h, w = there.shape
    reach = max(abs(distance) for place in stored.AROUND for distance in place)
    pad = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    none = jnp.full((n, h, w, config.digits), net.LEVELS, jnp.uint8) + (there[:, 0, ..., None] & False)
    memory = jnp.zeros((n, config.blocks, h, w, config.width), jnp.float32) + 0 * none[:, None, ..., :1].astype(
        jnp.float32
    )
    xs = jax.tree.map(lambda leaf: leaf.reshape(t, h * w, digits, *leaf.shape[2:]), shared)
    zero = jnp.int32(0)  # slices take indices of one type, and a bare 0 is int64 where 64 bits are on
    where = jnp.stack(jnp.unravel_index(jnp.arange(h * w, dtype=jnp.int32), (h, w)), axis=1)

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

            around = net.around(
                [at(present, p) for p in stored.AROUND], [at(past, stored.AROUND[m]) for m in stored.KEPT]
            )
            total = net.begin(params, features, around, config)

            def digit(carry, x):
                carry, total = carry
                logits = net.digit_logits(params, total, x.digit, config)
                carry, symbol = step(carry, x, here, (logits * 2.0**net.LOGIT_BITS).astype(jnp.int32))
                return (carry, net.tell(params, total, x.digit, symbol, config)), symbol

            (carry, _), symbols = lax.scan(digit, (carry, total), xs)
            found = jnp.full((n, config.digits), net.LEVELS, jnp.uint8).at[:, :digits].set(symbols.T.astype(jnp.uint8))
            found = jnp.where(here[:, None], found, net.LEVELS)
            present = lax.dynamic_update_slice(present, found[:, None, None], (zero, y + reach, x + reach, zero))
            return (carry, present), None

        start = (carry, jnp.pad(none, pad, constant_values=net.LEVELS))
        here, features = (jnp.moveaxis(leaf.reshape(n, h * w, *leaf.shape[3:]), 1, 0) for leaf in (here, features))
        carry, present = lax.scan(token, start, (where, xs, here, features))[0]
        present = present[:, reach : reach + h, reach : reach + w]
        return (carry, present, before, memory), present[..., :digits]

    items = jnp.arange(t, dtype=jnp.int32), xs, jnp.moveaxis(there, 1, 0)
    (carry, *_), tokens = lax.scan(frame, (carry, none, none, memory), items)
    return carry, jnp.where(there[..., None], jnp.moveaxis(tokens, 0, 1), 0)


def of_segment(start, shared, tokens, there, logits):
    """(range_coder.Model, Steps, symbols int32) of one segment from its first digit to its last."""
    digits = tokens.shape[-1]
    xs = shared._replace(there=jnp.repeat(there.reshape(len(there), -1), digits, axis=-1))
    if logits is not None:
        xs = xs._replace(logits=logits.reshape(*xs.digit.shape, net.NODES))
    symbols = jnp.where(xs.there, tokens.reshape(xs.digit.shape).astype(jnp.int32), 0)
    model = _begun(context.model(start, there.size, digits), there)
    return model, *jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (xs, symbols))


def logits_of_all(params, tokens, there, config):
    """int32[n, t, h, w, digits, 3], what the net says of each digit once those before it are known."""
    digits = tokens.shape[-1]

    def one(tokens, there):
        whole = jnp.pad(tokens, (*[(0, 0)] * 4, (0, config.digits - digits)))
        known = there[..., None] & (jnp.arange(config.digits, dtype=jnp.int32) < digits)[None, None, None, None]
        logits = net.causal_logits(params, whole, known, config)[..., :digits, :]
        return (logits * 2.0**net.LOGIT_BITS).astype(jnp.int32)

    return _one_by_one(one, there, tokens, there)


def _one_by_one(function, there, *batched):
    """``function`` of batched arrays [n, ...], one segment after the other; zeros where a segment has no token.

    One segment fits the cache of a core and all of them do not, which makes the net half as fast again on a CPU; and
    what only fills up a batch costs nothing. there: bool[n, ...].
    """
    shapes = jax.eval_shape(function, *(leaf[:1] for leaf in batched))

    def one(item):
        some, *arrays = item
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype) + (some & False), shapes)
        found = lax.cond(some, function, lambda *_: nothing, *(leaf[None] for leaf in arrays))
        return jax.tree.map(lambda leaf: leaf[0], found)

    return lax.map(one, (there.reshape(len(there), -1).any(axis=1), *batched))


def _begun(model, there):
    """The model with a first state that varies over devices as ``there`` does: shard_map refuses a constant."""
    zero = there.reshape(-1)[0].astype(jnp.int32) * 0
    return model._replace(state=jax.tree.map(lambda leaf: leaf ^ zero.astype(leaf.dtype), model.state))
