"""The training loop, in one straight line, for tokenizer, prior and joint training, from a laptop to a pod.

RUN gets config.json, log.jsonl, tensorboard/, pictures/, checkpoints/ and, at the end, weights.safetensors (the
averaged weights). Batch t and the random numbers of step t are pure functions of (seed, t), so a restart needs only the
step. A run starts from the first of these that is present:

    1. the newest checkpoint of RUN  2. ``init_from``, a weights file  3. fresh parameters
"""

import contextlib
import importlib.metadata
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import optax
from jaxtyping import PyTree, UInt8

from train import checkpoint, data, optimiser, prepare, sharding
from train.config import Training
from train.metrics import MetricLog


@dataclass(frozen=True)
class Task:
    """What is trained, as pure functions.

    Attributes:
        name: name of the task.
        init: init(key) gives the parameters.
        loss: loss(params, clips, key, step) gives (loss, aux), means over the clips uint8[B, T, H, W, 3]; step is the
            number of steps done before (int32), and aux a dict of scalars.
        show: show(params, clips) gives the decoded clips, uint8 of the same shape.
        vectors: regular expressions for the paths of the matrices that Adam trains instead of Muon.
        load: load(path) gives the parameters of a weights file.
        save: save(path, params, notes) writes a weights file.
    """

    name: str
    init: Callable
    loss: Callable
    show: Callable
    vectors: tuple[str, ...]
    load: Callable
    save: Callable


def run(
    cfg: Training,
    task: Task,
    videos: str | os.PathLike,
    workdir: str | os.PathLike,
    *,
    validation: str | os.PathLike | None = None,
) -> int:
    """Train a task, and return the number of the last step.

    Args:
        cfg: configuration of the run.
        task: what is trained.
        videos: folder of shards (``train.prepare``) or of videos.
        workdir: the folder RUN, which all hosts see.
        validation: folder like ``videos`` that the probe is taken from; without it, the training data.

    Raises:
        ValueError: with the reason, as CheckpointError, ParallelError or ShardError, or if RUN is already past
            ``steps``.
        FloatingPointError: if the loss is not a number.
    """
    # ---- devices -----------------------------------------------------------------------------
    workdir, host, hosts = Path(workdir).resolve(), jax.process_index(), jax.process_count()
    grid = sharding.training_mesh(cfg.parallel.fsdp)
    # ---- state: shapes and shardings first -----------------------------------------------------
    create, step_fn, abstract, shardings = build(cfg, task, grid)
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
            state = kept.restore(start, abstract, shardings)
            changed = changes(kept.record(start)["config"], record["config"])
            tell(f"resuming at step {start}" + (f"; changed since: {', '.join(changed)}" if changed else ""))
        else:
            start, state = 0, create(jax.random.key(cfg.seed))
            if cfg.init_from:
                state = started_from(task.load(cfg.init_from), state, cfg.init_from, shardings)
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
            if pending:  # the metrics of the step before; the device is already busy with this one
                log.step(*pending)
            pending, last = (step, metrics), step
            stop = kept.stopping(step)
            saving = stop or step == cfg.steps or step % cfg.checkpoint.every == 0
            if saving or (cfg.log.pictures and step % cfg.log.pictures == 0):
                # a state is saved only after its loss is known to be a number
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


def build(cfg: Training, task: Task, grid: jax.sharding.Mesh) -> tuple[Any, Any, PyTree, PyTree]:
    """Build the functions of a run on a mesh.

    The state is a dict: "params" and "average" (the EMA), nested dicts of float32; "optimiser", the state of optax; and
    "step", an int32.

    Args:
        cfg: configuration of the run.
        task: what is trained.
        grid: the mesh.

    Returns:
        The jitted functions key -> state and (state, batch) -> (state, metrics), the shapes of the state, and its
        shardings.
    """
    sharding.check_parts(cfg.batch, cfg.parallel.micro or grid.size, grid)
    change = optimiser.make(cfg.optimiser, cfg.steps, task.vectors)

    def create(key):
        params = task.init(key)
        return {"params": params, "average": params, "optimiser": change.init(params), "step": jnp.int32(0)}

    abstract = jax.eval_shape(create, jax.random.key(cfg.seed))
    optimiser.check_frozen(cfg.optimiser.frozen, abstract["params"])
    rules = [(rule.pattern, rule.axes) for rule in cfg.parallel.sharding]
    shardings = sharding.shardings(abstract, rules, grid)

    loss = loss_of(cfg, task, cfg.parallel.remat)
    gradients = sharding.gradients(loss, grid, shardings["params"], cfg.parallel.micro, cfg.parallel.deterministic)

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
    step = jax.jit(train_step, donate_argnums=(0,) if cfg.parallel.donate else (), out_shardings=(shardings, whole))
    return jax.jit(create, out_shardings=shardings), step, abstract, shardings


def loss_of(cfg: Training, task: Task, remat: bool) -> Callable:
    """Return the task's loss, without the gradients of frozen parameters.

    With ``remat`` only the values that the nets name "block" are kept for the backward pass.
    """

    def loss(params, clips, key, step):
        return task.loss(optimiser.frozen(cfg.optimiser.frozen, params), clips, key, step)

    return jax.checkpoint(loss, policy=jax.checkpoint_policies.save_only_these_names("block")) if remat else loss


def step_flops(cfg: Training, task: Task, grid: jax.sharding.Mesh, abstract: PyTree) -> float:
    """Return the FLOP of one optimiser step over all devices.

    XLA counts them for one micro-batch, as it would count a loop over several only once. The backward pass of frozen
    parameters is not counted, and neither is what ``remat`` recomputes, following the definition of MFU.

    Args:
        cfg: configuration of the run.
        task: what is trained.
        grid: the mesh.
        abstract: shapes of the state.
    """
    parts = cfg.parallel.micro or grid.size
    shape = (max(cfg.batch // parts, 1), cfg.data.frames, cfg.data.size, cfg.data.size, 3)

    part = jax.value_and_grad(loss_of(cfg, task, False), has_aux=True)
    key = jax.eval_shape(lambda: jax.random.key(0))
    step = jax.ShapeDtypeStruct((), jnp.int32)
    lowered = jax.jit(part).lower(abstract["params"], jax.ShapeDtypeStruct(shape, jnp.uint8), key, step)
    return float((lowered.cost_analysis() or {}).get("flops", 0.0)) * parts


def started_from(found: PyTree, state: dict[str, PyTree], origin: str, places: dict[str, PyTree]) -> dict[str, PyTree]:
    """Return the state with the parameters of a weights file; those that the file lacks stay fresh and are reported.

    Args:
        found: parameters of the file.
        state: a fresh state.
        origin: name of the file.
        places: shardings of the state.

    Raises:
        ValueError: naming a parameter of another shape, or one that the configuration does not have.
    """
    loaded = {sharding.path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(found)[0]}
    fresh = []

    def take(path, leaf, place):
        name = sharding.path_name(path)
        if name not in loaded:
            fresh.append(name)
            return leaf
        value = np.asarray(loaded.pop(name), leaf.dtype)
        if value.shape != leaf.shape:
            raise ValueError(f"init_from {origin}: {name} is {value.shape}, the configuration needs {leaf.shape}")
        return jax.make_array_from_callback(value.shape, place, lambda index: value[index])

    params = jax.tree_util.tree_map_with_path(take, state["params"], places["params"])
    if loaded:
        raise ValueError(f"init_from {origin}: the configuration has no parameter {sorted(loaded)[0]}")
    tell(f"starting from {origin}" + (f"; fresh: {', '.join(fresh)}" if fresh else ""))
    copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=places["params"])
    return state | {"params": params, "average": copy(params)}  # two buffers, as the step donates both


# ---- data and pictures ------------------------------------------------------------------------


def shards_of(videos: str | os.PathLike, out: Path, cfg: Training) -> Path:
    """Return a folder of shards: ``videos`` itself, or ``out``, into which that folder of videos is cut once.

    Args:
        videos: folder of shards or of videos.
        out: the folder to write shards to.
        cfg: configuration of the run.
    """
    if (Path(videos) / "index.json").is_file():
        return Path(videos)
    if jax.process_index() == 0:
        # the pieces are larger than the crops, in space and time, so that the position of a crop is random
        prepare.prepare(
            [videos], out, frames=cfg.data.frames * max(cfg.data.speeds), size=2 * cfg.data.size,
            smallest=(cfg.data.frames, cfg.data.size), seed=cfg.seed, exclude=cfg.data.exclude,
        )  # fmt: skip
    sharding.barrier(str(out))
    return out


def probe_clips(cfg: Training, shards: str | os.PathLike) -> UInt8[np.ndarray, "n T H W 3"]:
    """Return the crops of the probe, which are always the same, on every host."""
    stream = data.batches(
        shards, seed=cfg.seed + 1, batch=cfg.log.probe, frames=cfg.data.frames, size=cfg.data.size, start=0
    )
    try:
        return next(stream).clips
    finally:
        stream.close()


def look(
    workdir: str | os.PathLike,
    log: MetricLog,
    step: int,
    probe: UInt8[np.ndarray, "n T H W 3"],
    decoded: UInt8[np.ndarray, "n T H W 3"],
) -> dict[str, float]:
    """Write a sample picture, with the middle frame of each crop and its decoded version, and the PSNR of the probe.

    Args:
        workdir: the folder RUN.
        log: the log of the run.
        step: number of the step.
        probe: the crops of the probe.
        decoded: the decoded crops.

    Returns:
        The PSNR, as {METRIC: PSNR}.
    """
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


# ---- messages ---------------------------------------------------------------------------------


def tell(text: str) -> None:
    """Print one line on standard output, on host 0 only."""
    if jax.process_index() == 0:
        print(text, flush=True)


def changes(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the paths of the values that differ between two configurations (nested dicts), each with a prefix."""
    paths = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            paths += changes(before, after, f"{prefix}{name}.")
        elif before != after:
            paths.append(prefix + name)
    return paths


def code_version() -> str:
    """Return the version of the package, and of the git checkout if there is one."""
    version = importlib.metadata.version("helix-jax")
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return version
    return f"{version} ({described.stdout.strip()})"
