"""Where the `context` model starts: counts and mixing weights from the tokens of training videos.

    python -m train.context --data SHARDS --prior RUN/weights.safetensors --out FILE

The counts are those of nine pieces in ten, cut down to a confidence that a segment can overrule; the weights are what
the mixer has learned by the end of each other piece, on average. Integers, and the same from the same shards and
tokenizer. FILE holds the net of --prior and these: what ``helix-jax --prior`` takes.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from tqdm import tqdm

from helix_jax.coding import coder, context
from helix_jax.prior import tables
from helix_jax.prior import weights as prior_weights
from helix_jax.tokenizer import model, weights
from train import prior, shards

CONFIDENCE = 6  # most that a count starts with
HELD = 10  # one piece of so many is for the weights
ROUNDS = 2  # of learning the weights, each from the average of the last
BATCH = 32
SOME = 64  # pieces of which what a digit is worth is measured
APART = 8  # of so many tokens one is changed, to see what its digits are worth


def tokens_of(folder, tokenizer, most):
    """uint8[n, t, h, w, k]: tokens of up to ``most`` pieces, spread over the shards, all of the smallest size."""
    opened = shards.open_shards(folder)
    frames, height, width = (size // patch * patch for size, patch in zip(opened.smallest, (16, 8, 8), strict=True))
    chosen = np.linspace(0, len(opened) - 1, min(most, len(opened))).astype(int)
    call = jax.jit(functools.partial(prior.to_tokens, tokenizer))
    return np.concatenate(
        [np.asarray(call(opened.read(int(n)).frames[None, :frames, :height, :width])) for n in tqdm(chosen, "tokens")]
    )


def start_of(mode, known, tokens):
    """tables.Start of a mode. known: prior.weights.Prior, whose net mode `prior` asks. tokens: uint8[n, t, h, w, k]."""
    held = np.arange(len(tokens)) % HELD == HELD - 1
    start = tables.fresh(mode, tokens.shape[-1])
    start = start._replace(cells=_counted(mode, known, tokens[~held], len(start.cells)))
    for _ in range(ROUNDS):
        start = start._replace(weights=_mixed(start, mode, known, tokens[held]))
    return start


def _counted(mode, known, tokens, rows):
    """Counts over all tokens -> cells of a tables.Start."""
    call, told = jax.jit(jax.vmap(_rows, in_axes=(0, 0, None))), _teller(mode, known)
    xs = coder.steps(tokens.shape[1:4], tokens.shape[-1])
    seen = np.zeros((2, rows, tables.NODES), np.int64)  # times, and ones among them
    for begin in tqdm(range(0, len(tokens), BATCH), f"{mode}: counts"):
        some = tokens[begin : begin + BATCH]
        at = np.asarray(call(some, told(some), xs)).reshape(-1, tables.EXPERTS[mode])
        digit = np.broadcast_to(some.reshape(-1, 1), at.shape)
        for node, ones, where in ((0, digit >> 1, digit >= 0), (1, digit & 1, digit < 2), (2, digit & 1, digit >= 2)):
            for n, weight in enumerate((None, ones[where])):
                seen[n, :, node] += np.bincount(at[where], weight, minlength=rows).astype(np.int64)
    times, ones = seen
    p = np.clip((2 * ones + 1) * 65536 // (2 * times + 2), 64, 65535 - 64)
    return (p << 8 | np.minimum(times, CONFIDENCE)).astype(np.int32)


def _teller(mode, known):
    """Function of tokens: what the net says of their digits, None in mode `context`."""
    if mode == "context":
        return lambda tokens: None
    there = functools.partial(jnp.ones, dtype=bool)
    return jax.jit(lambda tokens: coder.logits_of_all(known.params, tokens, there(tokens.shape[:-1]), known.config))


def _rows(tokens, logits, shared):
    """int32[steps, experts] of one piece, all of whose tokens are known: a context reads none that come later."""
    k = tokens.shape[-1]
    packed = jnp.sum(
        tokens.reshape(-1, k).astype(jnp.uint32) << jnp.arange(2 * k - 2, -2, -2, jnp.uint32)[None], axis=1
    )
    known = jnp.concatenate([packed | 4**k, jnp.zeros(1, jnp.uint32)])
    if logits is not None:
        shared = shared._replace(logits=logits.reshape(*shared.digit.shape, tables.NODES))
    xs = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), shared)
    so_far = packed[xs.place] >> (2 * (k - xs.digit)).astype(jnp.uint32)
    strayed = jnp.zeros(len(so_far), jnp.int32)
    if logits is not None:
        wrong = (tokens.reshape(-1, k) != context.choice(xs.logits)[0].reshape(-1, k)).astype(jnp.int32)
        strayed = (jnp.cumsum(wrong, axis=1) - wrong).reshape(-1)
    return jax.vmap(lambda token, strayed, x: context.rows(known, token, strayed, x, k))(so_far, strayed, xs)


def _mixed(start, mode, known, tokens):
    """What the mixer has learned at the end of each piece, on average -> weights of a tables.Start."""
    shared, told = coder.steps(tokens.shape[1:4], tokens.shape[-1]), _teller(mode, known)
    start, shared = jax.tree.map(jnp.asarray, (start, shared))

    @jax.jit
    def last(tokens, told):
        def one(tokens, told):
            there = jnp.ones(tokens.shape[:-1], bool)
            counts, xs, symbols = coder.of_segment(start, shared, tokens, there, told)
            return lax.scan(lambda state, item: (counts.advance(state, *item), None), counts.state, (xs, symbols))[0]

        return jax.vmap(one)(tokens, told).weights

    parts = [tokens[n : n + BATCH] for n in range(0, len(tokens), BATCH)]
    weights = np.concatenate([np.asarray(last(part, told(part))) for part in tqdm(parts, f"{mode}: weights")])
    return weights.mean(axis=0).round().astype(np.int32)


def importance_of(tokenizer, tokens):
    """int32[k]: squared error of the picture (8-bit levels, summed over a token's 768 samples) where a digit is off by
    one. tokens: uint8[n, t, h, w, k]."""
    k, group = tokens.shape[-1], tokenizer.config.tile[0]
    pieces = tokens.reshape(-1, group, *tokens.shape[2:])
    generator = np.random.default_rng(0)
    call = jax.jit(lambda levels: model.decode(tokenizer.params, levels, tokenizer.config).astype(jnp.float32))
    error, count = np.zeros(k), np.zeros(k)
    for begin in tqdm(range(0, len(pieces), BATCH), "importance"):
        some = pieces[begin : begin + BATCH]
        plain = call(some)
        for j in range(k):
            chosen = generator.random(some.shape[:-1]) < 1 / APART
            moved = np.where(
                some[..., j] == 3, 2, np.where(some[..., j] == 0, 1, some[..., j] + generator.choice((-1, 1)))
            )
            other = some.copy()
            other[..., j] = np.where(chosen, moved, some[..., j])
            error[j] += float(jnp.sum(jnp.square(call(other) - plain)))
            count[j] += chosen.sum()
    return np.rint(error / count).astype(np.int32)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="SHARDS", help="folder made by train.prepare")
    parser.add_argument("--prior", required=True, metavar="FILE", help="weights of the net, from train.prior")
    parser.add_argument("--out", required=True, metavar="FILE", help="weights file to write")
    parser.add_argument("--tokenizer", help="its weights file; default: the shipped one")
    parser.add_argument("--pieces", type=int, default=1200, help="how many are used (%(default)s)")
    args = parser.parse_args(argv)
    try:
        tokenizer = weights.load(args.tokenizer or weights.DEFAULT)
        known = prior_weights.load(args.prior)
        if known.tokenizer != tokenizer.digest:
            raise ValueError(f"{args.prior} belongs to another tokenizer: give that one with --tokenizer")
        if args.pieces < HELD:
            raise ValueError(f"--pieces {args.pieces}: give at least {HELD}, one in {HELD} is for the mixing weights")
        tokens = tokens_of(args.data, tokenizer, args.pieces)
    except (OSError, ValueError) as error:
        parser.error(" ".join(str(error).split()))
    starts = tuple(start_of(mode, known, tokens) for mode in ("context", "prior"))
    importance, notes = importance_of(tokenizer, tokens[:SOME]), {"pieces": str(len(tokens))}
    prior_weights.save(args.out, known.params, known.config, tokenizer.digest, notes, starts, importance)
    print(f"{args.out}: {len(tokens)} pieces, {tokens.size // tokens.shape[-1]:,} tokens; importance {importance}")


if __name__ == "__main__":
    main()
