"""Weights of tokens with more digits, and with an exact silence, that begin where others have ended.

    python -m train.widen --digits 24 --silence 1 --out FOLDER [--tokenizer FILE] [--prior FILE]

FOLDER gets tokenizer.safetensors and prior.safetensors, for ``--set init_from=FOLDER/tokenizer.safetensors`` of
``train.joint``. The first digits of a token are those of before, the picture of all digits is the same whatever the new
ones are, and the prior predicts and codes the old digits as it did, to the bit. A new digit is a random linear function
of the encoder's features, mostly silent, of which the decoder and the prior do not know anything yet.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key

from helix_jax import nets
from helix_jax.config import PriorConfig, TokenizerConfig
from helix_jax.prior import net, tables
from helix_jax.prior import weights as prior_weights
from helix_jax.prior.stored import AROUND, KEPT
from helix_jax.tokenizer import fsq, weights

SPREAD = 0.5  # standard deviation of the channel of a new digit, before ``fsq.bound``
FREQUENCIES = (0.12, 0.715, 0.16, 0.005)  # of the levels of a new digit, with that spread around level 1


def tokenizer(params: dict, config: TokenizerConfig, wide: TokenizerConfig, key: Key[Array, ""]) -> dict:
    """Return the parameters of a tokenizer with more digits.

    Args:
        params: parameters of the tokenizer.
        config: its configuration.
        wide: the new configuration, which differs in ``digits`` and ``silence`` alone.
        key: is consumed.
    """
    more, to, back = wide.digits - config.digits, params["to_digits"], params["from_digits"]
    drawn = jax.random.normal(key, (config.width, more), jnp.float32) * (SPREAD / config.width**0.5)
    share = (round(wide.silence) + 0.5) / fsq.LEVELS
    middle = jnp.full(more, np.log(share / (1 - share)), jnp.float32)
    return params | {
        "to_digits": {"w": jnp.concatenate([to["w"], drawn], axis=1), "b": jnp.concatenate([to["b"], middle])},
        "from_digits": {
            "w": jnp.pad(back["w"], ((0, more), (0, 0))),
            "b": back["b"] + (wide.silence - config.silence) * back["w"].sum(axis=0),
        },
    }


def prior(params: dict, config: PriorConfig, wide: PriorConfig) -> dict:
    """Return the parameters of a prior with more digits, as ``tokenizer`` does of a tokenizer.

    Args:
        params: parameters of the prior.
        config: its configuration.
        wide: the new configuration, which differs in ``digits`` alone.
    """
    k, more = config.digits, wide.digits - config.digits
    zero, one, two, three = FREQUENCIES
    odds = np.log([(two + three) / (zero + one), one / zero, three / two]).astype(np.float32)

    def rows(w: Array, *each: int, before: int = 0) -> Float32[Array, "rows columns"]:
        """Return a matrix with zero rows for the new digits. Its inputs are ``before`` others, and then groups of
        inputs of which each digit has so many."""
        parts, begin = [w[:before]], before
        for count in each:
            part = w[begin : begin + count * k]
            parts.append(jnp.pad(part, ((0, count * more), (0, 0))))
            begin += count * k
        return jnp.concatenate(parts)

    def answers(layer: dict) -> dict:
        return {
            "w": jnp.pad(layer["w"], ((0, 0), (0, net.NODES * more))),
            "b": jnp.concatenate([layer["b"], jnp.tile(odds, more)]),
        }

    embed = rows(params["embed"]["w"], *[net.LEVELS] * 3, 1, 1, 1)
    begun = rows(params["begun"]["w"], *[net.LEVELS] * len(AROUND), *[1] * len(KEPT), before=config.width)
    return params | {
        "embed": params["embed"] | {"w": embed},
        "alone": answers(params["alone"]),
        "begun": params["begun"] | {"w": begun},
        "earlier": rows(params["earlier"], net.LEVELS),
        "after": answers(params["after"]),
    }


def start(mode: str, known: tables.Start, digits: int, wide: int) -> tables.Start:
    """Return where the coder starts with more digits: as before for the old ones, without knowledge for the new ones.

    Args:
        mode: "context" or "prior".
        known: where it started before.
        digits: the number of digits before.
        wide: the new number of digits.
    """
    fresh, parts = tables.fresh(mode, wide), []
    old, new = (np.cumsum((0, *tables.SIZES[: tables.EXPERTS[mode]])) * count for count in (digits, wide))
    for expert, size in enumerate(tables.SIZES[: tables.EXPERTS[mode]]):
        parts.append(known.cells[old[expert] : old[expert + 1]])
        parts.append(fresh.cells[new[expert] + digits * size : new[expert + 1]])
    return tables.Start(np.concatenate(parts), np.concatenate([known.weights, fresh.weights[len(known.weights) :]]))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program; ``argv`` replaces the arguments of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=int, required=True, help="number of digits of the new tokens")
    parser.add_argument("--silence", type=float, default=1.0, help="the level that means nothing (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write both files to")
    parser.add_argument("--tokenizer", default=weights.DEFAULT, metavar="FILE", help="default: the shipped one")
    parser.add_argument("--prior", metavar="FILE", help="default: the shipped one")
    parser.add_argument("--seed", type=int, default=0, help="seed of the new digits (%(default)s)")
    args = parser.parse_args(argv)
    try:
        old = nets.load(args.tokenizer, args.prior)
        if old.prior is None:
            raise ValueError("the shipped prior belongs to another tokenizer: give one with --prior")
        if args.digits < old.tokenizer.config.digits:
            raise ValueError(f"--digits {args.digits}: give at least the {old.tokenizer.config.digits} of before")
        written(old, args.digits, args.silence, args.seed, args.out)
    except (OSError, ValueError) as error:
        parser.error(" ".join(str(error).split()))


def written(old: nets.Nets, digits: int, silence: float, seed: int, folder: Path) -> nets.Nets:
    """Write both files, and return what they hold.

    Args:
        old: the nets to begin with.
        digits: number of digits of the new tokens.
        silence: the level that means nothing.
        seed: seed of the new digits.
        folder: the folder to write to.
    """
    before: Any = old.prior
    config = dataclasses.replace(old.tokenizer.config, digits=digits, silence=silence)
    prior_config = dataclasses.replace(before.config, digits=digits)
    folder.mkdir(parents=True, exist_ok=True)
    model_path, prior_path = folder / "tokenizer.safetensors", folder / "prior.safetensors"
    params = tokenizer(old.tokenizer.params, old.tokenizer.config, config, jax.random.key(seed))
    weights.save(model_path, params, config, {})
    wide = prior(before.params, before.config, prior_config)
    starts = [
        start(mode, known, before.config.digits, digits)
        for mode, known in (("context", before.context), ("prior", before.mixed))
    ]
    importance = np.pad(before.importance, (0, digits - before.config.digits), constant_values=1)
    digest = weights.load(model_path).digest
    prior_weights.save(prior_path, wide, prior_config, digest, {}, (starts[0], starts[1]), importance)
    return nets.load(model_path, prior_path)


if __name__ == "__main__":
    main()
