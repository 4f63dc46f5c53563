"""Train tokenizer and masked prior together, with quality, masked prediction and nucleotides in one loss.

    python -m train.joint --config configs/joint_cpu.py --data VIDEOS --run RUN

    loss = distortion + rate x nucleotides per pixel + masked x bits of a hidden digit
         + concealment x distortion after losing strands + constraint x penalty     (weights: config.JointTraining)

or, in place of the nucleotides, the logarithm of the bits of a token, which is what a BD-rate measures: with random
numbers of digits and that term, one net is trained for all qualities at once.

Digits are hard in the forward pass. In the backward pass a digit is a distribution over the four levels around its
position on the level axis, and its cost is the mean of the costs of the levels under the prior's integer logits. The
gradient thus moves a token towards what the prior finds likely. The prior's own part of the loss, the plain
cross-entropy of the tokens as they are, moves the prior alone. The cost of a token also depends on the digits of its
neighbours; no gradient follows that dependence.

RUN is as in ``train.tokenizer``, with tokenizer.safetensors and prior.safetensors at the end, which can be passed to
`helix-jax --model` and `--prior` (``train.context`` adds the counts that the coder starts from). With
`--set optimiser.frozen=^tokenizer` the same program fits a prior to the tokenizer of `init_from`.
"""

import functools
import os
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree, UInt8

from helix_jax.config import TokenizerConfig
from helix_jax.prior import net
from helix_jax.prior import weights as prior_weights
from helix_jax.timing import capacity as timing_capacity
from helix_jax.timing import scheme as schemes
from helix_jax.tk_scone import capacity, constraints
from helix_jax.tokenizer import fsq, haar, model, weights
from train import command, distortion, loop, masks
from train.config import JointTraining
from train.prior import cross_entropy

PIXELS = haar.PATCH[0] * haar.PATCH[1] * haar.PATCH[2]  # pixels of a token
RUN_WINDOW = 20  # window of the penalty on GC content in bases, as that of the set `helix`
ASKING = ("rate", "log_rate", "masked", "concealment", "dropping")  # weights of the terms that use the prior

Clips = UInt8[Array, "B T H W 3"]
Levels = Float[Array, "B t h w k"]
Scalar = Float[Array, ""]


# ---- digits, soft in the backward pass ---------------------------------------------------------------------


def positions(tokenizer: PyTree, clips: Clips, config: TokenizerConfig) -> Levels:
    """Return the positions of the digits on the level axis; each group of frames is encoded on its own.

    Args:
        tokenizer: parameters of the tokenizer.
        clips: the clips.
        config: shape of the tokenizer.
    """
    batch, frames, *rest = clips.shape
    group = config.tile[0] * haar.PATCH[0]
    latents = model.latents(tokenizer, model.to_float(clips.reshape(batch * frames // group, group, *rest)), config)
    return fsq.bound(latents).reshape(batch, -1, *latents.shape[2:])


def pictures(tokenizer: PyTree, levels: Levels, config: TokenizerConfig) -> distortion.Pixels:
    """Return the pixels of decoded clips, in [-1, 1] but not clipped.

    Args:
        tokenizer: parameters of the tokenizer.
        levels: levels of the digits, which need not be integers.
        config: shape of the tokenizer.
    """
    batch, t, *rest = levels.shape
    pixels = model.pixels(tokenizer, fsq.centre(levels.reshape(-1, config.tile[0], *rest), config.silence), config)
    return pixels.reshape(batch, t * haar.PATCH[0], *pixels.shape[2:])


def soft(places: Float[Array, "*n"], temperature: Scalar | float) -> Float[Array, "*n 4"]:
    """Return a distribution over the four levels for each position; the nearest level has the highest probability."""
    distance = jnp.stack([jnp.square(places - level) for level in range(fsq.LEVELS)], axis=-1)
    return jax.nn.softmax(-distance / temperature, axis=-1)


# ---- terms ---------------------------------------------------------------------------------------------------


def expected_bits(distribution: Float[Array, "*n 4"], logits: Float[Array, "*n 3"]) -> Float[Array, "*n"]:
    """Return the expected cost of each soft digit under the logits, through which no gradient flows."""
    return jnp.sum(distribution * net.code_lengths(jax.lax.stop_gradient(logits)), axis=-1)


def penalty(distribution: Float[Array, "B *n 4"]) -> Scalar:
    """Return how far soft digits would break constraints if each were written as a base, in the order of the grid.

    It is the mean probability that two neighbours are the same, plus the mean squared distance of the GC content from
    one half over all windows of RUN_WINDOW bases, of which there must be at least one. ``distribution`` is over A, C,
    G, T.
    """
    bases = distribution.reshape(len(distribution), -1, fsq.LEVELS)
    same = jnp.mean(jnp.sum(bases[:, 1:] * bases[:, :-1], axis=-1))
    total = jnp.cumsum(jnp.pad(bases[..., 1] + bases[..., 2], ((0, 0), (1, 0))), axis=1)
    share = (total[:, RUN_WINDOW:] - total[:, :-RUN_WINDOW]) / RUN_WINDOW
    return same + jnp.mean(jnp.square(share - 0.5))


def bits_per_unit(cfg: JointTraining) -> float:
    """Return the capacity: bits per nucleotide of the constraint set, or bits per time unit of the timing scheme."""
    if cfg.scheme:
        chosen = schemes.named(cfg.scheme)
        return timing_capacity.capacity(chosen.table, overhead=chosen.overhead)
    return capacity.capacity(constraints.named(cfg.constraints))


def risen(cfg: JointTraining, step: Array | int) -> tuple[Scalar, Scalar | float]:
    """Return the factor of the weights, from 0 to 1, and the temperature at a step."""
    done = step / max(1, cfg.steps - 1)
    begin, end = cfg.ramp
    share = jnp.clip((done - begin) / max(end - begin, 1e-6), 0.0, 1.0) if end else jnp.float32(1)
    first, last = cfg.temperature
    return share, first * (last / first) ** done


# ---- loss ------------------------------------------------------------------------------------------------------


def loss_fn(
    params: dict[str, PyTree], clips: Clips, key: Key[Array, ""], step: Array | int, cfg: JointTraining, unit: float
) -> tuple[Scalar, dict[str, Array]]:
    """Return the loss, as a mean over the clips, and its terms.

    Args:
        params: parameters of "tokenizer" and "prior".
        clips: the clips.
        key: is consumed.
        step: number of steps done before.
        cfg: configuration of the run.
        unit: bits per nucleotide or time unit, from ``bits_per_unit``.

    Returns:
        The loss, and a dict of the terms that the weights multiply and further measurements.
    """
    target = model.to_float(clips)
    key_masks, key_lost = jax.random.split(key)
    places = positions(params["tokenizer"], clips, cfg.model)
    digits = jax.lax.stop_gradient(fsq.digits(places))
    mixture = functools.partial(
        masks.mixture, shape=digits.shape[1:], full_share=cfg.full_share, min_digits=cfg.min_digits
    )
    known, sent = jax.vmap(mixture)(jax.random.split(key_masks, len(clips)))
    sent = jnp.broadcast_to(sent[:, None, None, None], digits.shape)
    share, temperature = risen(cfg, step)
    if cfg.dropping:
        key_lost, key_price = jax.random.split(key_lost)
        price = share * jax.random.uniform(key_price, (len(clips),), jnp.float32, 0, cfg.dropping)
        digits = jax.lax.stop_gradient(dropped(params["prior"], places, digits, sent, price, cfg))
    levels = places + jax.lax.stop_gradient(digits - places)
    decoded = pictures(params["tokenizer"], jnp.where(sent, levels, cfg.model.silence), cfg.model)
    total = jnp.mean(distortion.weighted(decoded, target, cfg.distortion))
    terms = {"distortion": total, "mse": jnp.mean(distortion.mse(decoded, target))}
    distribution = soft(places, temperature)
    if asks_prior(cfg):
        prior = net.quantise(params["prior"])
        few = max(1, round(cfg.masked_share * len(clips)))
        ways = (
            (net.masked_logits(prior, digits[:few], known[:few], cfg.prior), sent[:few] & ~known[:few]),
            (net.causal_logits(prior, digits, sent, cfg.prior), sent),
        )
        own, ours = [], []
        for logits, counted in ways:
            n = len(logits)
            number = jnp.maximum(jnp.sum(counted, axis=(1, 2, 3, 4)), 1)
            own.append(jnp.mean(jnp.sum(cross_entropy(logits, digits[:n]) * counted, axis=(1, 2, 3, 4)) / number))
            ours.append((jnp.sum(expected_bits(distribution[:n], logits) * counted, axis=(1, 2, 3, 4)), number))
        bits = ours[1][0] / digits[0, ..., 0].size  # of a token of each example
        terms |= {
            "masked": jnp.mean(ours[0][0] / ours[0][1]),
            "rate": jnp.mean(bits) / (PIXELS * unit),
            "log_rate": jnp.mean(jnp.log1p(bits)),
            "prior": cast(Array, sum(own)),
            "bits": own[1] * cfg.model.digits,  # bits of a token, at the mean over the digits that are sent
        }
        # the prior's own part moves the prior alone, as no gradient flows through the digits
        weighed = (getattr(cfg, name) * terms[name] for name in ("rate", "log_rate", "masked"))
        total = total + terms["prior"] + share * cast(Array, sum(weighed))
        if cfg.concealment:
            terms["concealment"] = concealed(params["tokenizer"], prior, levels, digits, target, key_lost, cfg)
            total = total + share * cfg.concealment * terms["concealment"]
    if cfg.constraint:
        terms["constraint"] = penalty(distribution)
        total = total + share * cfg.constraint * terms["constraint"]
    return total, terms


def dropped(
    prior: PyTree,
    places: Levels,
    digits: UInt8[Array, "B t h w k"],
    sent: Bool[Array, "B t h w k"],
    price: Float[Array, " B"],
    cfg: JointTraining,
) -> UInt8[Array, "B t h w k"]:
    """Return the digits after dropping: those of the least squared error of the level + price * bits.

    The bits of a digit are those after the digits before it as they were. ``coding.drop`` goes from digit to digit and
    counts them after the digits as they are written, which would take many passes here.

    Args:
        prior: parameters of the prior.
        places: positions of the digits.
        digits: the rounded positions.
        sent: mask of the digits that are sent.
        price: price of a bit in squared levels, for each example.
        cfg: configuration of the run.
    """
    bits = net.code_lengths(net.causal_logits(net.quantise(prior), digits, sent, cfg.prior))
    error = jnp.square(places[..., None] - jnp.arange(fsq.LEVELS, dtype=jnp.float32).reshape(1, 1, 1, 1, 1, -1))
    return jnp.argmin(error + price[:, None, None, None, None, None] * bits, axis=-1).astype(jnp.uint8)


def concealed(
    tokenizer: PyTree,
    prior: PyTree,
    levels: Levels,
    digits: UInt8[Array, "B t h w k"],
    target: distortion.Target,
    key: Key[Array, ""],
    cfg: JointTraining,
) -> Scalar:
    """Return the distortion after strands are lost and their digits are set to the prior's expectation, in one pass.

    It is computed on a share ``cfg.concealed`` of the examples, the first ones. Gradients reach the tokenizer through
    the digits that are left and through the decoder.

    Args:
        tokenizer: parameters of the tokenizer.
        prior: parameters of the prior, rounded.
        levels: levels of the digits, with gradients.
        digits: the digits.
        target: the originals.
        key: is consumed.
        cfg: configuration of the run.
    """
    few = max(1, round(cfg.concealed * len(levels)))
    levels, digits, target = levels[:few], digits[:few], target[:few]
    least, most = cfg.lost
    lose = functools.partial(masks.strands, shape=digits.shape[1:4], least=least, most=most)
    known = jnp.broadcast_to(jax.vmap(lose)(jax.random.split(key, few))[..., None], digits.shape)
    guessed = net.expectation(net.masked_logits(jax.lax.stop_gradient(prior), digits, known, cfg.prior))
    decoded = pictures(tokenizer, jnp.where(known, levels, guessed), cfg.model)
    return jnp.mean(distortion.weighted(decoded, target, cfg.distortion))


def asks_prior(cfg: JointTraining) -> bool:
    """Return whether the prior is trained, or used by a term of the loss."""
    return "^prior" not in cfg.optimiser.frozen or any(getattr(cfg, name) for name in ASKING)


# ---- task ------------------------------------------------------------------------------------------------------


def task(cfg: JointTraining) -> loop.Task:
    """Return the task of a joint run."""
    unit = bits_per_unit(cfg)

    def init(key):
        key_tokenizer, key_prior = jax.random.split(key)
        return {"tokenizer": model.init(key_tokenizer, cfg.model), "prior": net.init(key_prior, cfg.prior)}

    def show(params, clips):
        digits = fsq.digits(positions(params["tokenizer"], clips, cfg.model))
        return model.to_uint8(pictures(params["tokenizer"], digits.astype(jnp.float32), cfg.model))

    return loop.Task(
        name="joint",
        init=init,
        loss=lambda params, clips, key, step: loss_fn(params, clips, key, step, cfg, unit),
        show=show,
        vectors=(
            *(f"^tokenizer.{name}" for name in ("to_digits", "from_digits")),
            *(f"^prior.{name}" for name in ("embed", "phase", "alone", "begun", "earlier", "after")),
        ),
        load=load,
        save=lambda path, params, notes: save(path, params, notes, cfg),
    )


def files_of(path: str | os.PathLike) -> tuple[Path, Path]:
    """Return the files of the tokenizer and of the prior that belong to a run's weights file."""
    return Path(path).with_name("tokenizer.safetensors"), Path(path).with_name("prior.safetensors")


def save(path: str | os.PathLike, params: dict[str, PyTree], notes: dict[str, str], cfg: JointTraining) -> None:
    """Write both files beside ``path``; the prior's names the digest of the tokenizer as it was written.

    Args:
        path: weights file of the run.
        params: parameters of "tokenizer" and "prior".
        notes: the origin of the weights.
        cfg: configuration of the run.
    """
    tokenizer, prior = files_of(path)
    weights.save(tokenizer, params["tokenizer"], cfg.model, notes)
    prior_weights.save(prior, params["prior"], cfg.prior, weights.load(tokenizer).digest, notes)


def load(path: str | os.PathLike) -> dict[str, PyTree]:
    """Return the parameters of the tokenizer's file ``path``, and of the prior's beside it if it belongs to it."""
    tokenizer = weights.load(path)
    params = {"tokenizer": tokenizer.params}
    beside = files_of(path)[1]
    if beside.is_file() and (prior := prior_weights.load(beside)).tokenizer == tokenizer.digest:
        params["prior"] = prior.params
    return params


if __name__ == "__main__":
    command.main(__doc__, JointTraining, task)
