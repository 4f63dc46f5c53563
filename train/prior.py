"""Train the masked prior on the tokens of a frozen tokenizer.

    python -m train.prior --config configs/prior_cpu.py --data VIDEOS --run RUN

The crops are turned into tokens as they are read, by the shipped tokenizer or the one that ``tokenizer`` names. The
prior learns to predict hidden digits from the others, under the mixture of masks of ``train.masks``. RUN is as in
``train.tokenizer``, except that the sample pictures show crops in which two of five tokens are lost and concealed; the
PSNR of the probe is theirs. `python -m train.export --int8 --run RUN` writes the file of integers that `helix-jax`
takes.
"""

import functools
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree, UInt8

from helix_jax.prior import net
from helix_jax.prior import weights as prior_weights
from helix_jax.tokenizer import model, weights
from train import command, loop, masks
from train.config import PriorTraining

Clips = UInt8[Array, "B T H W 3"] | UInt8[np.ndarray, "B T H W 3"]
Scalar = Float[Array, ""]


def to_tokens(tokenizer: weights.Model, clips: Clips) -> UInt8[Array, "B t h w k"]:
    """Return the tokens of clips; each group of frames is encoded on its own, as in the codec."""
    batch, frames, *rest = clips.shape
    group = tokenizer.config.tile[0] * 4
    pieces = clips.reshape(batch * frames // group, group, *rest)
    digits = model.encode(tokenizer.params, pieces, tokenizer.config)
    return digits.reshape(batch, -1, *digits.shape[2:])


def cross_entropy(logits: Float[Array, "*n 3"], digits: UInt8[Array, "*n"]) -> Float[Array, "*n"]:
    """Return the cost of each digit in bits."""
    high, low = digits >> 1, digits & 1
    second = jnp.where(high == 1, logits[..., 2], logits[..., 1])
    first = logits[..., 0]
    nats = jax.nn.softplus(jnp.where(high == 1, -first, first)) + jax.nn.softplus(jnp.where(low == 1, -second, second))
    return nats / np.log(2)


def loss_of_tokens(
    params: PyTree, digits: UInt8[Array, "B t h w k"], key: Key[Array, ""], cfg: PriorTraining
) -> tuple[Scalar, dict[str, Array]]:
    """Return the loss: the bits per digit of masked and of causal prediction, averaged over the examples and added.

    Args:
        params: parameters of the prior.
        digits: the tokens.
        key: is consumed.
        cfg: configuration of the run.

    Returns:
        The loss, and its two parts "masked" (per hidden digit) and "causal" (per digit).
    """
    known, sent = jax.vmap(functools.partial(masks.mixture, shape=digits.shape[1:]))(jax.random.split(key, len(digits)))
    sent = jnp.broadcast_to(sent[:, None, None, None], digits.shape)
    logits = net.both_logits(net.quantise(params), digits, known, sent, cfg.model)
    bits = []
    for each, counted in zip(logits, (sent & ~known, sent), strict=True):
        total = jnp.sum(cross_entropy(each, digits) * counted, axis=(1, 2, 3, 4))
        bits.append(jnp.mean(total / jnp.maximum(jnp.sum(counted, axis=(1, 2, 3, 4)), 1)))
    return cast(Array, sum(bits)), {"masked": bits[0], "causal": bits[1]}


def loss_fn(
    params: PyTree, clips: Clips, key: Key[Array, ""], cfg: PriorTraining, tokenizer: weights.Model
) -> tuple[Scalar, dict[str, Array]]:
    """Return ``loss_of_tokens`` for the tokens of clips, by this tokenizer; the other parameters are as there."""
    return loss_of_tokens(params, to_tokens(tokenizer, clips), key, cfg)


def task(cfg: PriorTraining) -> loop.Task:
    """Return the task of a prior's run.

    Raises WeightsError for a tokenizer that cannot be loaded, and ValueError for one with other digits or groups.
    """
    tokenizer = weights.load(cfg.tokenizer or weights.DEFAULT)
    if tokenizer.config.digits != cfg.model.digits or cfg.model.frames % tokenizer.config.tile[0]:
        raise ValueError(
            f"model.digits={cfg.model.digits} and frames={cfg.model.frames} do not fit the tokenizer, whose tokens "
            f"have {tokenizer.config.digits} digits, in groups of {tokenizer.config.tile[0]} latent frames"
        )

    def show(params, clips):
        digits = to_tokens(tokenizer, clips)
        lost = jax.random.bernoulli(jax.random.key(0), 0.4, digits.shape[:-1])[..., None]
        logits = net.masked_logits(net.quantise(params), digits, jnp.broadcast_to(~lost, digits.shape), cfg.model)
        levels = jnp.where(lost, net.expectation(logits), digits)
        groups = levels.reshape(-1, tokenizer.config.tile[0], *levels.shape[2:])
        return model.decode(tokenizer.params, groups, tokenizer.config).reshape(clips.shape)

    return loop.Task(
        name="prior",
        init=lambda key: net.init(key, cfg.model),
        loss=lambda params, clips, key, _: loss_fn(params, clips, key, cfg, tokenizer),
        show=show,
        vectors=("^embed", "^phase", "^alone", "^begun", "^earlier", "^after"),
        load=lambda path: prior_weights.load(path).params,
        save=lambda path, params, notes: prior_weights.save(path, params, cfg.model, tokenizer.digest, notes),
    )


if __name__ == "__main__":
    command.main(__doc__, PriorTraining, task)
