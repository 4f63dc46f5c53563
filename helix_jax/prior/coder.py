"""Segments of tokens <-> bits, in the modes `context` and `prior`: one compilation for a shape of segment.

Tokens are coded in raster order within each latent frame, digits from the first on. In mode `prior` the net looks at
all frames of a segment before one, once for each frame, and its logits for that frame go into the mixer; so the decoder
takes turns with it. ``drop`` makes tokens what the net would choose, where that is good enough: they cost little then.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from helix_jax import parallel, range_coder
from helix_jax.prior import context, net, segments

BATCH = 64  # most segments per call


def compress(prior, mode, plan, tokens, *, progress=None):
    """Tokens of a clip -> bits of each segment.

    prior: prior.weights.Prior. mode: "context" or "prior". tokens: uint8[t, h, w, k]. progress: called with the number
    of segments just done. Returns a list of bytes, one per segment, zero bits at the end of the last byte.
    A segment is given room for its raw digits and an eighth more; one that takes more comes out as None.
    """
    digits = tokens.shape[-1]
    room = int(np.prod(plan.shape)) * digits * 2 * 9 // 8 + 64
    words, bits, ok = parallel.map_batches(
        _compress, _constants(prior, mode, plan, digits), segments.cut(plan, tokens), segments.there(plan),
        batch=_batch(plan), progress=progress, room=room, net_config=_net_config(prior, mode),
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
        batch=_batch(plan), progress=progress, digits=digits, net_config=_net_config(prior, mode),
    )  # fmt: skip
    return segments.join(plan, tokens)


def drop(prior, plan, tokens, importance, threshold, *, progress=None):
    """Replace tokens by what the prior predicts from the frames before, where that does little damage (mode `prior`).

    importance: float32[k], damage of a digit that is off by one, summed as importance * difference^2. threshold: most
    damage of a token that is dropped. The prior sees what the decoder will see: tokens replaced before, too.
    Returns (tokens uint8[t, h, w, k], dropped bool[t, h, w]).
    """
    constants = (prior.params, within(prior), jnp.asarray(importance, jnp.float32), jnp.float32(threshold))
    replaced, gone = parallel.map_batches(
        _drop, constants, segments.cut(plan, tokens), segments.there(plan),
        batch=_batch(plan), progress=progress, net_config=prior.config,
    )  # fmt: skip
    return segments.join(plan, replaced), segments.join(plan, gone)


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
        guess=None,
        doubt=None,
    )


def to_words(coded):
    """List of bytes (None: empty) -> uint32[n, W], zeros after the end; W a power of two, so that few shapes occur."""
    longest = max(4, *(len(piece or b"") for piece in coded))
    width = 4 << (-(-longest // 4) - 1).bit_length()
    data = b"".join((piece or b"").ljust(width, b"\0") for piece in coded)
    return np.frombuffer(data, ">u4").astype(np.uint32).reshape(len(coded), -1)


def _batch(plan):
    """Segments per call: a power of two, so that few shapes occur, and no more than there are."""
    return min(BATCH, 1 << (plan.number - 1).bit_length())


def _net_config(prior, mode):
    return prior.config if mode == "prior" else None


def _constants(prior, mode, plan, digits):
    if mode == "context":
        return prior.context, None, steps(plan.shape, digits), {}
    return prior.mixed, within(prior), steps(plan.shape, digits), prior.params


def within(prior):
    """int32[k, 4, k, 3]: what a digit adds to the logits of those after it; zero for the others."""
    k = prior.config.digits
    table = np.rint(np.ldexp(np.asarray(prior.params["within"], np.float64), net.LOGIT_BITS)).astype(np.int32)
    return table.reshape(k, 4, k, context.NODES) * (
        np.arange(k)[:, None, None, None] < np.arange(k)[None, None, :, None]
    )


# ---- one batch of segments, on one device ----------------------------------------------------------


def _compress(constants, tokens, there, *, room, net_config):
    start, within, shared, params = constants
    told = told_of_all(params, within, tokens, net_config, there) if net_config else None

    def one(tokens, there, told):
        model, xs, symbols = of_segment(start, within, shared, tokens, there, told)
        return range_coder.compress(model, symbols, xs=xs, most=room)

    return jax.vmap(one)(tokens, there, told)


def _expand(constants, words, there, *, digits, net_config):
    start, within, shared, params = constants
    n, t, h, w = there.shape
    model = context.model(start, within, t * h * w, digits)

    def begin(words, there):
        return range_coder.start(_begun(model, there).state, words)

    def frame(carry, item):
        decoder, tokens = carry
        f, xs, here = item
        told = _told(params, within, tokens, f, net_config, there) if net_config else None

        def one(decoder, words, here, told):
            return range_coder.read_on(model, decoder, words, xs=filled(xs, here, told))

        decoder, symbols = jax.vmap(one)(decoder, words, here, told)
        symbols = symbols.reshape(n, h, w, digits).astype(jnp.uint8)
        return (decoder, lax.dynamic_update_index_in_dim(tokens, symbols, f, 1)), None

    tokens = jnp.zeros((*there.shape, digits), jnp.uint8) + (there[..., None] & False)
    carry = jax.vmap(begin)(words, there), tokens
    return lax.scan(frame, carry, (jnp.arange(t), shared, jnp.moveaxis(there, 1, 0)))[0][1]


def _drop(constants, tokens, there, *, net_config):
    params, within, importance, threshold = constants

    def frame(carry, f):
        tokens, gone = carry
        _, (guess, _) = _told(params, within, tokens, f, net_config, there)
        true = lax.dynamic_index_in_dim(tokens, f, 1, keepdims=False)
        error = jnp.square(guess - true.astype(jnp.int32)).astype(jnp.float32)
        out = (error @ importance <= threshold) & lax.dynamic_index_in_dim(there, f, 1, keepdims=False)
        kept = jnp.where(out[..., None], guess.astype(jnp.uint8), true)
        tokens = lax.dynamic_update_index_in_dim(tokens, kept, f, 1)
        return (tokens, lax.dynamic_update_index_in_dim(gone, out, f, 1)), None

    return lax.scan(frame, (tokens, there & False), jnp.arange(tokens.shape[1]))[0]


def of_segment(start, within, shared, tokens, there, told):
    """(range_coder.Model, Steps, symbols int32) of one segment from its first digit to its last."""
    xs = filled(shared, there, told)
    symbols = jnp.where(xs.there, tokens.reshape(xs.digit.shape).astype(jnp.int32), 0)
    model = _begun(context.model(start, within, there.size, tokens.shape[-1]), there)
    return model, *jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (xs, symbols))


def told_of_all(params, within, tokens, config, there=None):
    """``_told`` of every frame, along axis 1. there: bool[n, t, h, w]; None: all tokens are."""
    there = jnp.ones(tokens.shape[:-1], bool) if there is None else there
    frames = lax.map(lambda f: _told(params, within, tokens, f, config, there), jnp.arange(tokens.shape[1]))
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), frames)


def _told(params, within, tokens, frame, config, there):
    """What the net says of one frame, from those before it: (logits int32[n, h, w, k, 3], without what ``within`` adds;
    (digits int32[n, h, w, k], doubt int32[n, h, w]) as ``context.guess``)."""
    known = there & (jnp.arange(tokens.shape[1])[:, None, None] < frame)[None]
    shown = jnp.broadcast_to(known[..., None], tokens.shape)
    logits = net.next_frame_logits(params, tokens, shown, frame, config)
    return logits, context.guess(logits, jnp.asarray(within))


def filled(xs, there, told):
    """Steps with what differs between segments. there: bool[..., h, w]; told: as ``_told``, or None."""
    shape = xs.digit.shape
    each = shape[-1] // (there.shape[-2] * there.shape[-1])  # digits of a token

    def spread(values):
        return jnp.repeat(values.reshape(*shape[:-1], -1), each, axis=-1)

    xs = xs._replace(there=spread(there))
    if told is None:
        return xs
    logits, (guess, doubt) = told
    return xs._replace(logits=logits.reshape(*shape, context.NODES), guess=guess.reshape(shape), doubt=spread(doubt))


def _begun(model, there):
    """The model with a first state that varies over devices as ``there`` does: shard_map refuses a constant."""
    zero = there.reshape(-1)[0].astype(jnp.int32) * 0
    return model._replace(state=jax.tree.map(lambda leaf: leaf ^ zero.astype(leaf.dtype), model.state))
