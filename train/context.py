"""Compute the counts and mixing weights that the coder's context model starts from, from training videos.

    python -m train.context --data SHARDS --prior RUN/weights.safetensors --out FILE

The counts come from nine of ten pieces, with their confidence limited so that a segment can overrule them. The weights
are the average of what the mixer has learned by the end of each of the other pieces. All of them are integers, and the
same shards and tokenizer give the same values. FILE holds the net of --prior and these values, and can be passed to
``helix-jax --prior``.
"""

import argparse
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Int32, UInt8
from tqdm import tqdm

from helix_jax.coding import coder, context
from helix_jax.prior import tables
from helix_jax.prior import weights as prior_weights
from helix_jax.tokenizer import model, weights
from train import prior, shards

CONFIDENCE = 6  # greatest number that a count starts with
HELD = 10  # one of this many pieces is held back for the weights
ROUNDS = 2  # rounds of learning the weights, each of which starts from the average of the one before
BATCH = 32
SOME = 64  # number of pieces that the importance of the digits is measured on
APART = 8  # one of this many tokens is changed, to measure the importance of its digits


def tokens_of(folder: str | os.PathLike, tokenizer: weights.Model, most: int) -> UInt8[np.ndarray, "n t h w k"]:
    """Return the tokens of up to ``most`` pieces, spread over the shards in ``folder``, all cropped to the smallest."""
    opened = shards.open_shards(folder)
    frames, height, width = (size // patch * patch for size, patch in zip(opened.smallest, (16, 8, 8), strict=True))
    chosen = np.linspace(0, len(opened) - 1, min(most, len(opened))).astype(int)
    call = jax.jit(functools.partial(prior.to_tokens, tokenizer))
    return np.concatenate(
        [np.asarray(call(opened.read(int(n)).frames[None, :frames, :height, :width])) for n in tqdm(chosen, "tokens")]
    )


def start_of(mode: str, known: prior_weights.Prior, tokens: UInt8[np.ndarray, "n t h w k"]) -> tables.Start:
    """Return the start of a mode's context model.

    Args:
        mode: "context" or "prior".
        known: the prior whose net mode "prior" uses.
        tokens: tokens of training pieces.
    """
    held = np.arange(len(tokens)) % HELD == HELD - 1
    start = tables.fresh(mode, tokens.shape[-1])
    start = start._replace(cells=_counted(mode, known, tokens[~held], len(start.cells)))
    for _ in range(ROUNDS):
        start = start._replace(weights=_mixed(start, mode, known, tokens[held]))
    return start


def _counted(mode: str, known: prior_weights.Prior, tokens: np.ndarray, rows: int) -> Int32[np.ndarray, "..."]:
    """Count over all tokens, and return the cells of a tables.Start."""
    call, logits_of = jax.jit(jax.vmap(_rows, in_axes=(0, 0, None))), _net_of(mode, known)
    xs = coder.steps(tokens.shape[1:4], tokens.shape[-1])
    seen = np.zeros((2, rows, tables.NODES), np.int64)  # occurrences, and the ones among them
    for begin in tqdm(range(0, len(tokens), BATCH), f"{mode}: counts"):
        some = tokens[begin : begin + BATCH]
        at = np.asarray(call(some, logits_of(some), xs)).reshape(-1, tables.EXPERTS[mode])
        digit = np.broadcast_to(some.reshape(-1, 1), at.shape)
        for node, ones, where in ((0, digit >> 1, digit >= 0), (1, digit & 1, digit < 2), (2, digit & 1, digit >= 2)):
            for n, weight in enumerate((None, ones[where])):
                seen[n, :, node] += np.bincount(at[where], weight, minlength=rows).astype(np.int64)
    times, ones = seen
    p = np.clip((2 * ones + 1) * 65536 // (2 * times + 2), 64, 65535 - 64)
    return (p << 8 | np.minimum(times, CONFIDENCE)).astype(np.int32)


def _net_of(mode: str, known: prior_weights.Prior) -> Callable[[Any], Any]:
    """Return a function from tokens to the net's logits of their digits, or to None in mode "context"."""
    if mode == "context":
        return lambda tokens: None
    all_valid = functools.partial(jnp.ones, dtype=bool)
    return jax.jit(lambda tokens: coder.logits_of_all(known.params, tokens, all_valid(tokens.shape[:-1]), known.config))


def _rows(tokens, logits, shared):
    """Return int32[steps, experts] for one piece, all of whose tokens are known: a context reads no later tokens."""
    k = tokens.shape[-1]
    flat = tokens.reshape(-1, k)
    known_tokens = jnp.concatenate([flat, jnp.full((1, k), tables.NONE, jnp.uint8)])
    if logits is not None:
        shared = shared._replace(logits=logits.reshape(*shared.digit.shape, tables.NODES))
    xs = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), shared)
    so_far = jnp.where(jnp.arange(k)[None] < xs.digit[:, None], flat[xs.position], tables.NONE).astype(jnp.uint8)
    strayed = jnp.zeros(len(so_far), jnp.int32)
    if logits is not None:
        wrong = (tokens.reshape(-1, k) != context.choice(xs.logits)[0].reshape(-1, k)).astype(jnp.int32)
        strayed = (jnp.cumsum(wrong, axis=1) - wrong).reshape(-1)
    return jax.vmap(lambda token, strayed, x: context.rows(known_tokens, token, strayed, x))(so_far, strayed, xs)


def _mixed(start: tables.Start, mode: str, known: prior_weights.Prior, tokens: np.ndarray) -> Int32[np.ndarray, "..."]:
    """Return the average of what the mixer has learned at the end of each piece, as the weights of a tables.Start."""
    shared, logits_of = coder.steps(tokens.shape[1:4], tokens.shape[-1]), _net_of(mode, known)
    start, shared = jax.tree.map(jnp.asarray, (start, shared))

    @jax.jit
    def last(tokens, logits):
        def piece_end(tokens, logits):
            valid = jnp.ones(tokens.shape[:-1], bool)
            counts, xs, symbols = coder.of_segment(start, shared, tokens, valid, logits)
            return lax.scan(lambda state, item: (counts.advance(state, *item), None), counts.state, (xs, symbols))[0]

        return jax.vmap(piece_end)(tokens, logits).weights

    parts = [tokens[n : n + BATCH] for n in range(0, len(tokens), BATCH)]
    weights = np.concatenate([np.asarray(last(part, logits_of(part))) for part in tqdm(parts, f"{mode}: weights")])
    return weights.mean(axis=0).round().astype(np.int32)


def importance_of(tokenizer: weights.Model, tokens: UInt8[np.ndarray, "n t h w k"]) -> Int32[np.ndarray, " k"]:
    """Return the squared error of the picture if a digit is off by one, for each digit of a token.

    The error is in squared 8-bit levels, summed over the 768 samples of a token.
    """
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


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program; ``argv`` replaces the arguments of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="SHARDS", help="folder of shards from train.prepare")
    parser.add_argument("--prior", required=True, metavar="FILE", help="weights of the prior, from train.prior")
    parser.add_argument("--out", required=True, metavar="FILE", help="weights file to write")
    parser.add_argument("--tokenizer", help="weights file of its tokenizer (default: the shipped one)")
    parser.add_argument("--pieces", type=int, default=1200, help="number of pieces to use (%(default)s)")
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
    starts = start_of("context", known, tokens), start_of("prior", known, tokens)
    importance, notes = importance_of(tokenizer, tokens[:SOME]), {"pieces": str(len(tokens))}
    prior_weights.save(args.out, known.params, known.config, tokenizer.digest, notes, starts, importance)
    print(f"{args.out}: {len(tokens)} pieces, {tokens.size // tokens.shape[-1]:,} tokens; importance {importance}")


if __name__ == "__main__":
    main()
