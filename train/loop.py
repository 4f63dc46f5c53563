"""The training loop: one straight line, for tokenizer, prior and joint training, from a laptop to a pod.

RUN gets config.json, log.jsonl, tensorboard/, pictures/, checkpoints/ and at the end weights.safetensors (the averaged
weights). Batch t and the randomness of step t are pure functions of (seed, t), so a restart needs the step alone:

resume order: 1. the newest checkpoint of RUN  2. ``init_from``, a weights file  3. fresh parameters.
"""

import contextlib
import importlib.metadata
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import optax

from train import checkpoint, data, optimiser, prepare, sharding
from train.metrics import MetricLog


@dataclass(frozen=True)
class Task:
    """What is trained; pure functions.

    init(key) -> params. loss(params, clips, key, step) -> (loss, aux), means over the clips uint8[B, T, H, W, 3]; step:
    int32, steps done before; aux: dict of scalars. show(params, clips) -> decoded clips, uint8 of the same shape.
    vectors: patterns of matrices that Adam trains, not Muon. load(path) -> params, save(path, params, notes): the
    weights file.
    """

    name: str
    init: Callable
    loss: Callable
    show: Callable
    vectors: tuple[str, ...]
    load: Callable
    save: Callable


def run(cfg, task, videos, workdir, *, validation=None):
    """Train ``task`` as ``cfg`` says. videos: folder of shards (``train.prepare``) or of videos. workdir: RUN, seen by
    all hosts. validation: like videos; the probe is taken from it, else from the training data.

    Raises ValueError (CheckpointError, ParallelError, ShardError) with the reason, also where RUN is past ``steps``;
    FloatingPointError at a NaN.
    """
    # ---- devices -----------------------------------------------------------------------------
    workdir, host, hosts = Path(workdir).resolve(), jax.process_index(), jax.process_count()
    grid = sharding.training_mesh(cfg.parallel.fsdp)
    # ---- state: shapes and places first --------------------------------------------------------
    create, step_fn, abstract, places = build(cfg, task, grid)
    flops = step_flops(cfg, task, grid, abstract)
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract["params"]))
    tell(
        f"{task.name}: {count:,} parameters, {flops:.3g} FLOP per step of {cfg.batch} crops; {hosts} hosts, "
        f"{grid.size} x {jax.devices()[0].device_kind}, mesh {dict(grid.shape)}"
    )
    # ---- data: batch t is a pure function of (seed, t) -----------------------------------------
    workdir.mkdir(parents=True, exist_ok=True)
    shards = shards_of(videos, workdir / "shards", cfg)
    probe = probe_clips(cfg, shards_of(validation, workdir / "validation", cfg) if validation else shards)
    show = jax.jit(task.show, out_shardings=sharding.replicated(grid))
    with contextlib.ExitStack() as stack:
        # ---- resume --------------------------------------------------------------------------
        kept = checkpoint.Checkpoints(
            workdir / "checkpoints", keep_last=cfg.checkpoint.keep_last, keep_best=cfg.checkpoint.keep_best
        )
        stack.callback(kept.close)
        record = checkpoint.record_of(cfg, code_version())
        if kept.passed:
            tell(f"checkpoints that are not whole, moved to {workdir / 'broken_checkpoints'}: {kept.told()}")
        if kept.steps:
            start = kept.steps[-1]
            if start > cfg.steps:
                raise ValueError(
                    f"steps is {cfg.steps}, and the checkpoint of {workdir} is of step {start}: set steps to {start} "
                    "or more, or take another run folder"
                )
            state = kept.restore(start, abstract, places)
            told = changes(kept.record(start)["config"], record["config"])
            tell(f"resuming at step {start}" + (f"; changed since: {', '.join(told)}" if told else ""))
        else:
            start, state = 0, create(jax.random.key(cfg.seed))
            if cfg.init_from:
                state = started_from(task.load(cfg.init_from), state, cfg.init_from, places)
        if host == 0:
            (workdir / "config.json").write_text(json.dumps(record, indent=2) + "\n")
        batches = data.batches(
            shards, seed=cfg.seed, batch=cfg.batch, frames=cfg.data.frames, size=cfg.data.size, speeds=cfg.data.speeds,
            start=start, host=host, hosts=hosts, workers=cfg.data.workers,
        )  # fmt: skip
        stack.callback(batches.close)
        log = MetricLog(
            workdir, name=task.name, start=start, steps=cfg.steps, images=cfg.batch * cfg.data.frames, flops=flops,
            every=cfg.log.every,
        )  # fmt: skip
        stack.callback(log.close)
        # ---- loop ----------------------------------------------------------------------------
        pending, last = None, start
        for step in range(start + 1, cfg.steps + 1):
            began = time.perf_counter()
            batch = next(batches)
            log.waited(time.perf_counter() - began)
            log.skipped(batch.skipped)
            state, metrics = step_fn(state, sharding.to_global(batch.clips, grid))
            if pending:  # the step before: the device is already busy with this one
                log.step(*pending)
            pending, last = (step, metrics), step
            stop = kept.stopping(step)
            saving = stop or step == cfg.steps or step % cfg.checkpoint.every == 0
            if saving or (cfg.log.pictures and step % cfg.log.pictures == 0):
                # no state is saved before its loss is known to be a number
                log.step(*pending, last=stop or step == cfg.steps)
                pending = None
                probed = {} if stop else look(workdir, log, step, probe, np.asarray(show(state["average"], probe)))
                if saving:
                    kept.save(step, state, record, probed)
            if stop:
                tell(f"told to stop: saved step {step}; the same command goes on from there")
                break
        # ---- weights -------------------------------------------------------------------------
        if last == cfg.steps:
            average = sharding.to_host(state["average"], grid)
            if host == 0:
                notes = {"steps": str(last), "code": record["code"], "training": json.dumps(record["config"])}
                task.save(workdir / "weights.safetensors", average, notes)
    return last


# ---- state and step ---------------------------------------------------------------------------


def build(cfg, task, grid):
    """(create, step, abstract, places): functions key -> state and (state, batch) -> (state, metrics), jitted on the
    mesh; shapes of the state and where it lies.

    The state is a dict: params and average (EMA), nested dicts of float32; optimiser, of optax; step int32.
    """
    sharding.check_parts(cfg.batch, cfg.parallel.micro or grid.size, grid)
    change = optimiser.make(cfg.optimiser, cfg.steps, task.vectors)

    def create(key):
        params = task.init(key)
        return {"params": params, "average": params, "optimiser": change.init(params), "step": jnp.int32(0)}

    abstract = jax.eval_shape(create, jax.random.key(cfg.seed))
    optimiser.check_frozen(cfg.optimiser.frozen, abstract["params"])
    rules = [(rule.pattern, rule.axes) for rule in cfg.parallel.sharding]
    places = sharding.shardings(abstract, rules, grid)

    loss = loss_of(cfg, task, cfg.parallel.remat)
    gradients = sharding.gradients(loss, grid, places["params"], cfg.parallel.micro, cfg.parallel.deterministic)

    def train_step(state, batch):
        key = jax.random.fold_in(jax.random.key(cfg.seed), state["step"])
        (value, aux), grads = gradients(state["params"], batch, key, state["step"])
        norm = optax.tree.norm(grads)
        grads = optimiser.clipped(grads, norm, cfg.optimiser.clip)
        updates, opt = change.update(grads, state["optimiser"], state["params"])
        params = optimiser.apply(cfg.optimiser.frozen, state["params"], updates)
        average = optimiser.averaged(state["average"], params, state["step"], cfg.optimiser.ema)
        new = {"params": params, "average": average, "optimiser": opt, "step": state["step"] + 1}
        return new, {"loss": value, "grad_norm": norm, **aux}

    whole = sharding.replicated(grid)
    step = jax.jit(train_step, donate_argnums=(0,) if cfg.parallel.donate else (), out_shardings=(places, whole))
    return jax.jit(create, out_shardings=places), step, abstract, places


def loss_of(cfg, task, remat):
    """The task's loss, without gradients of what is frozen. remat: keep only what nets name "block" for the way
    back."""

    def loss(params, clips, key, step):
        return task.loss(optimiser.frozen(cfg.optimiser.frozen, params), clips, key, step)

    return jax.checkpoint(loss, policy=jax.checkpoint_policies.save_only_these_names("block")) if remat else loss


def step_flops(cfg, task, grid, abstract):
    """FLOP of one optimiser step over all devices, by XLA's count of one micro-batch (a loop is counted once, so the
    whole step cannot be asked). What is not trained is left out, and so is what ``remat`` does again, as MFU wants."""
    parts = cfg.parallel.micro or grid.size
    shape = (max(cfg.batch // parts, 1), cfg.data.frames, cfg.data.size, cfg.data.size, 3)

    part = jax.value_and_grad(loss_of(cfg, task, False), has_aux=True)
    key = jax.eval_shape(lambda: jax.random.key(0))
    step = jax.ShapeDtypeStruct((), jnp.int32)
    lowered = jax.jit(part).lower(abstract["params"], jax.ShapeDtypeStruct(shape, jnp.uint8), key, step)
    return float((lowered.cost_analysis() or {}).get("flops", 0.0)) * parts


def started_from(found, state, origin, places):
    """State with the parameters of a weights file. Those that it lacks stay fresh and are named.

    Raises ValueError naming a parameter of another shape, or one that the configuration does not know.
    """
    found = {sharding.path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(found)[0]}
    fresh = []

    def take(path, leaf, place):
        name = sharding.path_name(path)
        if name not in found:
            fresh.append(name)
            return leaf
        value = np.asarray(found.pop(name), leaf.dtype)
        if value.shape != leaf.shape:
            raise ValueError(f"init_from {origin}: {name} is {value.shape}, the configuration needs {leaf.shape}")
        return jax.make_array_from_callback(value.shape, place, lambda index: value[index])

    params = jax.tree_util.tree_map_with_path(take, state["params"], places["params"])
    if found:
        raise ValueError(f"init_from {origin}: the configuration has no parameter {sorted(found)[0]}")
    tell(f"starting from {origin}" + (f"; fresh: {', '.join(fresh)}" if fresh else ""))
    copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=places["params"])
    return state | {"params": params, "average": copy(params)}  # two buffers: the step gives both away


# ---- data and pictures ------------------------------------------------------------------------


def shards_of(videos, out, cfg):
    """Folder of shards: ``videos`` itself, or what is cut from that folder of videos, once, into ``out``."""
    if (Path(videos) / "index.json").is_file():
        return Path(videos)
    if jax.process_index() == 0:
        # room for the crop to move, in space and time
        prepare.prepare(
            [videos], out, frames=cfg.data.frames * max(cfg.data.speeds), size=2 * cfg.data.size,
            smallest=(cfg.data.frames, cfg.data.size), seed=cfg.seed, exclude=cfg.data.exclude,
        )  # fmt: skip
    sharding.barrier(str(out))
    return out


def probe_clips(cfg, shards):
    """A few crops, always the same: uint8[N, T, H, W, 3] on every host."""
    stream = data.batches(
        shards, seed=cfg.seed + 1, batch=cfg.log.probe, frames=cfg.data.frames, size=cfg.data.size, start=0
    )
    try:
        return next(stream).clips
    finally:
        stream.close()


def look(workdir, log, step, probe, decoded):
    """Sample picture (original | decoded, a middle frame of each crop) and the probe's PSNR -> {"psnr"}."""
    error = np.square(probe.astype(np.float32) - decoded.astype(np.float32)).mean(axis=(2, 3, 4))
    psnr = float(np.mean(10 * np.log10(255**2 / np.maximum(error, 1e-6))))
    middle = probe.shape[1] // 2
    pairs = np.concatenate([probe[:, middle], decoded[:, middle]], axis=2)
    sheet = pairs.reshape(-1, *pairs.shape[2:])
    if jax.process_index() == 0:
        folder = Path(workdir) / "pictures"
        folder.mkdir(exist_ok=True)
        matplotlib.image.imsave(folder / f"{step:07d}.png", sheet)
    log.picture(step, "original | decoded", sheet)
    log.write(step, {"probe_psnr": psnr})
    return {checkpoint.METRIC: psnr}


# ---- telling ----------------------------------------------------------------------------------


def tell(text):
    """One line on standard output, from host 0."""
    if jax.process_index() == 0:
        print(text, flush=True)


def changes(old, new, prefix=""):
    """Paths of a configuration (nested dict) whose values differ."""
    paths = []
    for name in sorted(old.keys() | new.keys()):
        one, other = old.get(name), new.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            paths += changes(one, other, f"{prefix}{name}.")
        elif one != other:
            paths.append(prefix + name)
    return paths


def code_version():
    """Version of the package, and of the checkout where there is one."""
    version = importlib.metadata.version("helix-jax")
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return version
    return f"{version} ({found.stdout.strip()})"
