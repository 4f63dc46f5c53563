"""Train the video tokenizer: ``python -m train.tokenizer --config configs/tokenizer_cpu.py --data VIDEOS --run RUN``.

RUN gets crops.npy (cut once), log.jsonl, config.json, Orbax checkpoints (resumed from on restart) and
weights.safetensors (the averaged weights, what the package ships). One straight line, one process.
"""

import argparse
import dataclasses
import json
import runpy
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from tqdm import tqdm

from helix_jax import config as configuration
from helix_jax import weights
from helix_jax.tokenizer import fsq, model
from train import data

MSE_FLOOR = 1e-4  # in [-1, 1] units, 46 dB: better than this is good enough


def loss_fn(params, clip, key, cfg):
    """Mean over examples of log MSE, that is the mean PSNR, with random tail dropout of the digits.

    The logarithm gives an easy clip as much weight as a hard one. clip: uint8[B, T, H, W, 3]. The key is consumed.
    Returns (loss, {"mse"}).
    """
    target = model.to_float(clip)
    centred = fsq.centre(fsq.straight_through(model.latents(params, target, cfg.model)))
    key_full, key_count = jax.random.split(key)
    batch, digits = clip.shape[0], cfg.model.digits
    count = jax.random.randint(key_count, (batch,), cfg.min_digits, digits)
    count = jnp.where(jax.random.uniform(key_full, (batch,)) < cfg.full_share, digits, count)
    kept = jnp.arange(digits)[None, :] < count[:, None]
    decoded = model.pixels(params, jnp.where(kept[:, None, None, None, :], centred, 0.0), cfg.model)
    mse = jnp.mean(jnp.square(decoded - target), axis=(1, 2, 3, 4))
    loss = jnp.mean(jnp.log(mse + MSE_FLOOR))
    full = count == digits
    return loss, {"mse": jnp.sum(jnp.where(full, mse, 0.0)) / jnp.maximum(jnp.sum(full), 1)}


def make_optimiser(cfg):
    """Muon for 2D weights but the digit projections, which stay with Adam as vectors do."""

    warmup = min(cfg.optimiser.warmup_steps, cfg.steps // 2)  # a short trial run has a shorter one

    def schedule(peak):
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, cfg.steps)

    def matrices(params):
        def choose(path, leaf):
            adam = leaf.ndim != 2 or path[0].key in ("to_digits", "from_digits")
            return None if adam else optax.contrib.MuonDimensionNumbers()

        return jax.tree_util.tree_map_with_path(choose, params)

    return optax.contrib.muon(
        schedule(cfg.optimiser.muon_learning_rate),
        adam_learning_rate=schedule(cfg.optimiser.adam_learning_rate),
        muon_weight_dimension_numbers=matrices,
    )


def run(cfg, videos, workdir):
    workdir = Path(workdir).resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(json.dumps(dataclasses.asdict(cfg), indent=2))
    # ---- data ------------------------------------------------------------------------------
    crops_file = workdir / "crops.npy"
    if not crops_file.exists():
        data.cut_crops(
            videos, crops_file, per_clip=cfg.data.per_clip, frames=cfg.data.frames, size=cfg.data.size,
            seed=cfg.seed, exclude=cfg.data.exclude,
        )  # fmt: skip
    crops = np.load(crops_file, mmap_mode="r")
    # ---- state -----------------------------------------------------------------------------
    optimiser = make_optimiser(cfg)

    def create(key):
        params = model.init(key, cfg.model)
        return {"params": params, "average": params, "optimiser": optimiser.init(params), "step": jnp.int32(0)}

    state = jax.jit(create)(jax.random.key(cfg.seed))
    # ---- resume ----------------------------------------------------------------------------
    checkpoints = ocp.CheckpointManager(workdir / "checkpoints", options=ocp.CheckpointManagerOptions(max_to_keep=2))
    if checkpoints.latest_step() is not None:
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        state = checkpoints.restore(checkpoints.latest_step(), args=ocp.args.StandardRestore(target))
    # ---- step ------------------------------------------------------------------------------

    def train_step(state, clip):
        key = jax.random.fold_in(jax.random.key(cfg.seed), state["step"])
        (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(state["params"], clip, key, cfg)
        updates, opt = optimiser.update(grads, state["optimiser"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        rate = jnp.minimum(cfg.optimiser.ema, (state["step"] + 1) / (state["step"] + 10))
        average = jax.tree.map(lambda a, p: rate * a + (1 - rate) * p, state["average"], params)
        new = {"params": params, "average": average, "optimiser": opt, "step": state["step"] + 1}
        return new, {"loss": loss, "grad_norm": optax.tree.norm(grads), **aux}

    step_fn = jax.jit(train_step, donate_argnums=0)

    # ---- loop ------------------------------------------------------------------------------

    def save(step, state):
        checkpoints.save(step, args=ocp.args.StandardSave(state))
        weights.save(workdir / "weights.safetensors", state["average"], cfg.model, {"steps": str(step)})

    start = int(state["step"])
    stream = data.batches(crops, seed=cfg.seed, batch=cfg.batch, start=start)
    began, window = time.time(), []
    with open(workdir / "log.jsonl", "a") as log:
        for step in tqdm(range(start, cfg.steps), initial=start, total=cfg.steps, desc="tokenizer", disable=None):
            state, metrics = step_fn(state, next(stream))
            window.append(metrics)
            if (step + 1) % cfg.log_every == 0:
                mean = {name: float(np.mean([float(m[name]) for m in window])) for name in window[0]}
                window = []
                if not np.isfinite(mean["loss"]):
                    raise FloatingPointError(f"loss is {mean['loss']} near step {step}; lower the learning rate")
                psnr = 10 * np.log10(4.0 / mean["mse"])
                record = {"step": step + 1, **mean, "psnr": psnr, "seconds": time.time() - began}
                print(json.dumps(record), file=log, flush=True)
            if (step + 1) % cfg.save_every == 0:
                save(step + 1, state)
    if cfg.steps % cfg.save_every:
        save(cfg.steps, state)
    checkpoints.wait_until_finished()
    checkpoints.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="a file of configs/, for example configs/tokenizer_cpu.py")
    parser.add_argument("--data", required=True, help="folder of .mp4 files")
    parser.add_argument("--run", required=True, help="folder for crops, log, checkpoints and weights")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="override, for example steps=100"
    )
    args = parser.parse_args()
    try:
        cfg = configuration.override(runpy.run_path(args.config)["get"](), args.set)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    run(cfg, args.data, args.run)


if __name__ == "__main__":
    main()
