"""Train the video tokenizer.

    python -m train.tokenizer --config configs/tokenizer_cpu.py --data VIDEOS --run RUN

RUN gets config.json, log.jsonl, tensorboard/, pictures/, checkpoints/ and, at the end, weights.safetensors, which can
be passed to `helix-jax encode --model`. If the command is repeated, the run is resumed where it stopped. `--dry_run`
only prints how large the run is.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree, UInt8

from helix_jax.tokenizer import fsq, model, weights
from train import command, distortion, loop
from train.config import TokenizerTraining


def loss_fn(
    params: PyTree, clip: UInt8[Array, "B T H W 3"], key: Key[Array, ""], cfg: TokenizerTraining
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Return the mean over the examples of log MSE, that is the mean PSNR, with random tail dropout of the digits.

    The logarithm gives an easy clip as much weight as a hard one.

    Args:
        params: parameters of the tokenizer.
        clip: the clips.
        key: is consumed.
        cfg: configuration of the run.

    Returns:
        The loss, and {"mse": mean squared error}, both for the digits that each example kept.
    """
    compute = jnp.dtype(cfg.parallel.compute)
    params = jax.tree.map(lambda leaf: leaf.astype(compute), params)
    target = model.to_float(clip)

    key_full, key_count = jax.random.split(key)
    batch, digits = clip.shape[0], cfg.model.digits
    count = jax.random.randint(key_count, (batch,), cfg.min_digits, digits, jnp.int32)
    full = jax.random.uniform(key_full, (batch,), jnp.float32) < cfg.full_share
    count = jnp.where(full, digits, count)
    kept = jnp.arange(digits)[None, :] < count[:, None]
    latents = model.latents(params, target, cfg.model).astype(jnp.float32)
    centred = fsq.centre(fsq.straight_through(latents), cfg.model.silence)
    centred = jnp.where(kept[:, None, None, None, :], centred, 0.0)
    decoded = model.pixels(params, centred.astype(compute), cfg.model)
    return jnp.mean(distortion.log_mse(decoded, target)), {"mse": jnp.mean(distortion.mse(decoded, target))}


def task(cfg: TokenizerTraining) -> loop.Task:
    """Return the task of a tokenizer's run."""

    def show(params, clips):
        return model.decode(params, model.encode(params, clips, cfg.model), cfg.model)

    return loop.Task(
        name="tokenizer",
        init=lambda key: model.init(key, cfg.model),
        loss=lambda params, clip, key, _: loss_fn(params, clip, key, cfg),
        show=show,
        vectors=("^to_digits", "^from_digits"),
        load=lambda path: weights.load(path).params,
        save=lambda path, params, notes: weights.save(path, params, cfg.model, notes),
    )


if __name__ == "__main__":
    command.main(__doc__, TokenizerTraining, task)
