"""Train tokenizer and masked prior together: quality, prediction under masking and nucleotides in one loss.

    python -m train.joint --config configs/joint_cpu.py --data VIDEOS --run RUN

    loss = distortion + rate x nucleotides per pixel + masked x bits of a hidden digit
         + concealment x distortion after losing strands + constraint x penalty     (weights: config.JointTraining)

Digits are hard on the way there. On the way back a digit is a distribution over the four levels around its place on the
level axis, and what it costs is the mean of what the levels cost under the prior's integer logits: the gradient moves a
token towards what the prior finds likely. The prior's own part, the plain cross-entropy of the tokens as they are,
moves the prior alone. That what a token costs depends on its neighbours' digits too is not followed backwards.

RUN is as in ``train.tokenizer``, with tokenizer.safetensors and prior.safetensors at the end, which `helix-jax --model`
and `--prior` take (``train.context`` adds the counts that the coder starts from). `--set optimiser.frozen=^tokenizer`
fits a prior to the tokenizer of `init_from` by the same program.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp

from helix_jax.prior import net
from helix_jax.prior import weights as prior_weights
from helix_jax.timing import capacity as timing_capacity
from helix_jax.timing import scheme as schemes
from helix_jax.tk_scone import capacity, constraints
from helix_jax.tokenizer import fsq, haar, model, weights
from train import command, distortion, loop, masks
from train.config import JointTraining
from train.prior import cross_entropy

PIXELS = haar.PATCH[0] * haar.PATCH[1] * haar.PATCH[2]  # of a token
RUN_WINDOW = 20  # bases over which the penalty takes GC content, as set `helix` does
ASKING = ("rate", "masked", "concealment")  # weights of terms that ask the prior


# ---- digits, soft on the way back --------------------------------------------------------------------------


def positions(tokenizer, clips, config):
    """Clips uint8[B, T, H, W, 3] -> places on the level axis float32[B, t, h, w, k], each group of frames by itself."""
    batch, frames, *rest = clips.shape
    group = config.tile[0] * haar.PATCH[0]
    found = model.latents(tokenizer, model.to_float(clips.reshape(batch * frames // group, group, *rest)), config)
    return fsq.bound(found).reshape(batch, -1, *found.shape[2:])


def pictures(tokenizer, levels, config):
    """Levels float32[B, t, h, w, k] -> pixels float32[B, T, H, W, 3] in [-1, 1], not clipped."""
    batch, t, *rest = levels.shape
    found = model.pixels(tokenizer, fsq.centre(levels.reshape(-1, config.tile[0], *rest)), config)
    return found.reshape(batch, t * haar.PATCH[0], *found.shape[2:])


def soft(places, temperature):
    """Distribution over the four levels: float32[...] -> float32[..., 4]; the nearest is the likeliest."""
    distance = jnp.stack([jnp.square(places - level) for level in range(fsq.LEVELS)], axis=-1)
    return jax.nn.softmax(-distance / temperature, axis=-1)


# ---- terms ---------------------------------------------------------------------------------------------------


def expected_bits(distribution, logits):
    """Mean cost of a soft digit under given logits, whose gradient is not taken: float32[...]."""
    return jnp.sum(distribution * net.code_lengths(jax.lax.stop_gradient(logits)), axis=-1)


def penalty(distribution):
    """What soft digits would do wrong if each were written as a base, in the order of the grid: mean probability that
    two neighbours are the same, and mean squared distance of GC content from a half in every window of RUN_WINDOW, of
    which there must be one.

    distribution: float32[B, ..., 4], of A, C, G, T.
    """
    bases = distribution.reshape(len(distribution), -1, fsq.LEVELS)
    same = jnp.mean(jnp.sum(bases[:, 1:] * bases[:, :-1], axis=-1))
    total = jnp.cumsum(jnp.pad(bases[..., 1] + bases[..., 2], ((0, 0), (1, 0))), axis=1)
    share = (total[:, RUN_WINDOW:] - total[:, :-RUN_WINDOW]) / RUN_WINDOW
    return same + jnp.mean(jnp.square(share - 0.5))


def bits_per_unit(cfg):
    """Capacity of what is written: bits per nucleotide of the constraint set, or per time unit of the timing scheme."""
    if cfg.scheme:
        chosen = schemes.named(cfg.scheme)
        return timing_capacity.capacity(chosen.table, overhead=chosen.overhead)
    return capacity.capacity(constraints.named(cfg.constraints))


def risen(cfg, step):
    """(share of the weights, temperature) at a step."""
    done = step / max(1, cfg.steps - 1)
    begin, end = cfg.ramp
    share = jnp.clip((done - begin) / max(end - begin, 1e-6), 0.0, 1.0) if end else jnp.float32(1)
    first, last = cfg.temperature
    return share, first * (last / first) ** done


# ---- loss ------------------------------------------------------------------------------------------------------


def loss_fn(params, clips, key, step, cfg, unit):
    """(loss, terms): means over clips uint8[B, T, H, W, 3]. params: {"tokenizer", "prior"}. step: int32. unit: bits per
    unit written, ``bits_per_unit``. The key is consumed. terms: dict of what each weight multiplies, and more."""
    target = model.to_float(clips)
    key_masks, key_lost = jax.random.split(key)
    places = positions(params["tokenizer"], clips, cfg.model)
    digits = jax.lax.stop_gradient(fsq.digits(places))
    levels = places + jax.lax.stop_gradient(digits - places)
    known, sent = jax.vmap(functools.partial(masks.mixture, shape=digits.shape[1:]))(
        jax.random.split(key_masks, len(clips))
    )
    sent = jnp.broadcast_to(sent[:, None, None, None], digits.shape)
    decoded = pictures(params["tokenizer"], jnp.where(sent, levels, (fsq.LEVELS - 1) / 2), cfg.model)
    share, temperature = risen(cfg, step)
    total = jnp.mean(distortion.weighted(decoded, target, cfg.distortion))
    terms = {"distortion": total, "mse": jnp.mean(distortion.mse(decoded, target))}
    distribution = soft(places, temperature)
    if asks_prior(cfg):
        prior = net.quantise(params["prior"])
        logits = net.both_logits(prior, digits, known, sent, cfg.prior)
        own, ours = [], []
        for each, counted in zip(logits, (sent & ~known, sent), strict=True):
            number = jnp.maximum(jnp.sum(counted, axis=(1, 2, 3, 4)), 1)
            own.append(jnp.mean(jnp.sum(cross_entropy(each, digits) * counted, axis=(1, 2, 3, 4)) / number))
            ours.append((jnp.sum(expected_bits(distribution, each) * counted, axis=(1, 2, 3, 4)), number))
        tokens = digits[0, ..., 0].size
        terms |= {
            "masked": jnp.mean(ours[0][0] / ours[0][1]),
            "rate": jnp.mean(ours[1][0]) / (tokens * PIXELS * unit),
            "prior": sum(own),
            "bits": own[1] * cfg.model.digits,  # of a token, at the mean of the digits that are sent
        }
        # the prior's own part moves the prior alone, as digits have no gradient
        total = total + terms["prior"] + share * (cfg.masked * terms["masked"] + cfg.rate * terms["rate"])
        if cfg.concealment:
            terms["concealment"] = concealed(params["tokenizer"], prior, levels, digits, target, key_lost, cfg)
            total = total + share * cfg.concealment * terms["concealment"]
    if cfg.constraint:
        terms["constraint"] = penalty(distribution)
        total = total + share * cfg.constraint * terms["constraint"]
    return total, terms


def concealed(tokenizer, prior, levels, digits, target, key, cfg):
    """Distortion of the first ``cfg.concealed`` of the examples once strands are lost and what they held is set to what
    the prior expects, in one pass. Gradients reach the tokenizer through what is known and through the decoder."""
    few = max(1, round(cfg.concealed * len(levels)))
    levels, digits, target = levels[:few], digits[:few], target[:few]
    least, most = cfg.lost
    lose = functools.partial(masks.strands, shape=digits.shape[1:4], least=least, most=most)
    known = jnp.broadcast_to(jax.vmap(lose)(jax.random.split(key, few))[..., None], digits.shape)
    guessed = net.expectation(net.masked_logits(jax.lax.stop_gradient(prior), digits, known, cfg.prior))
    decoded = pictures(tokenizer, jnp.where(known, levels, guessed), cfg.model)
    return jnp.mean(distortion.weighted(decoded, target, cfg.distortion))


def asks_prior(cfg):
    """Whether the prior learns, or a term asks it."""
    return "^prior" not in cfg.optimiser.frozen or any(getattr(cfg, name) for name in ASKING)


# ---- task ------------------------------------------------------------------------------------------------------


def task(cfg):
    """JointTraining -> loop.Task."""
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


def files_of(path):
    """(tokenizer's file, prior's file) of a run's weights."""
    return Path(path).with_name("tokenizer.safetensors"), Path(path).with_name("prior.safetensors")


def save(path, params, notes, cfg):
    """Both files beside ``path``; the prior's names the digest of the tokenizer as written."""
    tokenizer, prior = files_of(path)
    weights.save(tokenizer, params["tokenizer"], cfg.model, notes)
    prior_weights.save(prior, params["prior"], cfg.prior, weights.load(tokenizer).digest, notes)


def load(path):
    """Parameters of the tokenizer file ``path``, and of the prior beside it where that one is its."""
    known = weights.load(path)
    found = {"tokenizer": known.params}
    beside = files_of(path)[1]
    if beside.is_file() and (prior := prior_weights.load(beside)).tokenizer == known.digest:
        found["prior"] = prior.params
    return found


if __name__ == "__main__":
    command.main(__doc__, JointTraining, task)
