"""Write the weights file that the codec takes from a checkpoint of a run.

    python -m train.export --run RUN [--step last|best|N] [--weights average|params] [--out FILE]
    python -m train.export --int8 --run RUN [--data SHARDS]

The program runs on one machine, whatever the devices of the run, and also while the run is in progress. The file holds
the weights, the net's configuration, and their origin: steps, code version and training configuration. The same
checkpoint gives the same bytes. The weights of a tokenizer are float16. A joint run gives tokenizer.safetensors and
prior.safetensors beside FILE.

The weights of a prior are integers, with or without --int8: its logits decide bits of the coder, so they must be the
same on every machine. --int8 reports what their rounding costs, in bits per digit of some crops of SHARDS, and notes it
in the file. It compares two nets that differ in their weights only: float32 as trained, and int8 with a power of two
for each channel (int32 for biases), as in the file. Activations and logits are rounded in both, since the net has no
other way to compute. Training rounds the weights too, so that the losses in the log are those of the second net.
"""

import argparse
import dataclasses
import functools
import json
import os
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from helix_jax.prior import net
from helix_jax.tokenizer import weights
from train import checkpoint, data, joint, loop, masks, prior, sharding, tokenizer
from train.config import JointTraining, PriorTraining, TokenizerTraining, Training

CROPS = 32  # number of crops that the cost of rounding is measured on
AT_ONCE = 4  # crops in a batch

Cost = dict[str, dict[str, float]]


def export(
    run: str | os.PathLike,
    out: str | os.PathLike,
    *,
    step: str = "last",
    which: str = "average",
    int8: bool = False,
    shards: str | os.PathLike | None = None,
) -> tuple[int, Cost | None]:
    """Write the weights file of a checkpoint.

    Args:
        run: folder of the run.
        out: the file to write.
        step: "last", "best" (the highest PSNR of the probe) or a number.
        which: "average" for the EMA of the weights, or "params" for the weights themselves.
        int8: whether to measure what rounding costs; only for the run of a prior.
        shards: with ``int8``, the folder of shards to measure it on.

    Returns:
        The step, and the result of ``cost_of_rounding``, or None if it was not measured.

    Raises:
        ValueError: naming what is missing (no run, no such step); or if ``int8`` is used for another run.
    """
    run = Path(run)
    if not (run / "checkpoints").is_dir():
        raise ValueError(f"{run} is not the folder of a run: it has no checkpoints")
    kept = checkpoint.Checkpoints(run / "checkpoints", read_only=True)
    try:
        at = _chosen(kept, step, run)
        record = kept.record(at)
        kind, task_of = _kind_of(record["config"])
        if int8 and kind is TokenizerTraining:
            raise ValueError(
                f"{run} is a tokenizer's run, and --int8 is for a prior's: a tokenizer makes pixels, not bits of the "
                "coder, so its weights are float16 and not integers: leave --int8 out"
            )
        if int8 and kind is JointTraining:
            raise ValueError(
                f"{run} trained both nets, and --int8 measures a run of the prior alone: leave --int8 out; the prior's "
                "weights are integers all the same"
            )
        cfg = from_dict(kind, record["config"])
        task = task_of(cfg)
        grid = sharding.training_mesh(1, jax.devices()[:1])
        *_, abstract, _ = loop.build(cfg, task, grid)
        places = jax.tree.map(lambda leaf: sharding.replicated(grid), abstract)
        state = kept.restore(at, abstract, places)
    finally:
        kept.close()
    cost = cost_of_rounding(cfg, state[which], shards) if int8 and shards else None
    notes = {"steps": str(at), "code": record["code"], "training": json.dumps(record["config"])}
    if cost:
        notes["rounding"] = json.dumps({"crops": CROPS, "bits_per_digit": cost})
    task.save(out, sharding.to_host(state[which], grid), notes)
    return at, cost


def cost_of_rounding(cfg: PriorTraining, params: PyTree, folder: str | os.PathLike) -> Cost:
    """Measure the bits per digit with and without rounding, on CROPS crops that are the same at each call.

    Args:
        cfg: configuration of the run.
        params: the parameters as trained.
        folder: folder of shards.

    Returns:
        {"masked": {"float32": ..., "int8": ...}, "causal": ...}. "masked" is the mean over the digits that the masks of
        training hide, "causal" that over all digits, each predicted from all digits before it. "float32" is for
        ``params`` as they are, "int8" for ``net.quantise(params)``, which are those of the file to the bit.
    """
    known = weights.load(cfg.tokenizer or weights.DEFAULT)
    sets = {"float32": params, "int8": jax.jit(net.quantise)(params)}
    call = jax.jit(functools.partial(_bits, config=cfg.model))
    to_tokens = jax.jit(functools.partial(prior.to_tokens, known))
    sums = {name: {"masked": [0.0, 0.0], "causal": [0.0, 0.0]} for name in sets}
    stream = data.batches(
        folder, seed=0, batch=AT_ONCE, frames=cfg.data.frames, size=cfg.data.size, speeds=cfg.data.speeds, start=0
    )
    # the default of a GPU or TPU would round float32 weights to 11 or 8 bits
    with stream, jax.default_matmul_precision("highest"):
        for n in range(CROPS // AT_ONCE):
            digits = to_tokens(next(stream).clips)
            for name, some in sets.items():
                for way, (bits, count) in call(some, digits, jax.random.fold_in(jax.random.key(0), n)).items():
                    sums[name][way][0] += float(bits)
                    sums[name][way][1] += float(count)
    return {
        way: {name: round(sums[name][way][0] / sums[name][way][1], 5) for name in sets} for way in ("masked", "causal")
    }


def _bits(params, digits, key, config):
    """Return {"masked": (bits, digits), "causal": ...}, sums over the crops, for digits uint8[B, t, h, w, k]."""
    known, sent = jax.vmap(functools.partial(masks.mixture, shape=digits.shape[1:]))(jax.random.split(key, len(digits)))
    every = jnp.ones(digits.shape, bool)
    hidden = sent[:, None, None, None] & ~known
    masked, causal = (
        prior.cross_entropy(logits, digits) for logits in net.both_logits(params, digits, known, every, config)
    )
    return {
        "masked": (jnp.sum(masked * hidden), jnp.sum(hidden)),
        "causal": (jnp.sum(causal), digits.size),
    }


def table(cost: Cost, folder: str | os.PathLike) -> list[str]:
    """Return the lines of a table with the result of ``cost_of_rounding`` on the shards in ``folder``."""
    lines = [f"bits per digit, {CROPS} crops of {folder}:", f"{'':10}{'float32':>10}{'int8':>10}{'costs':>10}"]
    for way, bits in cost.items():
        more = 100 * (bits["int8"] / bits["float32"] - 1)
        lines.append(f"{way:10}{bits['float32']:10.4f}{bits['int8']:10.4f}{more:+8.2f} %")
    return [*lines, "float32: weights as trained; int8: as in the file. Activations and logits are rounded in both."]


def _kind_of(fields: dict[str, Any]) -> tuple[type[Training], Callable[[Any], loop.Task]]:
    """Return the class and the task of the run that has this saved configuration."""
    if "prior" in fields:
        return JointTraining, joint.task
    # the configuration of a prior names its tokenizer, and that of a tokenizer does not
    return (PriorTraining, prior.task) if "tokenizer" in fields else (TokenizerTraining, tokenizer.task)


def _chosen(kept: checkpoint.Checkpoints, step: str, run: Path) -> int:
    """Return the number of the requested step. Raises ValueError if there is none."""
    if not kept.steps:
        raise ValueError(f"{run} has no finished checkpoint yet")
    if step in ("last", "best"):
        at = kept.newest() if step == "last" else kept.best_step()
        if kept.passed:
            loop.tell(f"passed over, as they are not whole: checkpoints {kept.told()}")
        if at is None and (step == "last" or kept.passed):
            raise ValueError(f"{run} has no whole checkpoint to take as {step}: give the number of another step")
    else:
        at = int(step) if step.isdigit() else None
    if at is None:
        raise ValueError(f"step {step!r}: give last, best (where a checkpoint has a probe PSNR) or a number")
    if at not in kept.steps:
        raise ValueError(f"{run} has no checkpoint of step {at}, but of {', '.join(map(str, kept.steps))}")
    fault = kept.fault(at) if step.isdigit() else None
    if fault:
        raise ValueError(f"checkpoint {at} of {run} is not whole ({fault}): give the number of another step")
    return at


def from_dict(kind: type, fields: dict[str, Any]) -> Any:
    """Return the dataclass of the class ``kind`` that ``dataclasses.asdict`` turned into ``fields``, through JSON.

    Fields that an older version did not have take their defaults. Raises ValueError for fields that this version does
    not have.
    """
    hints = typing.get_type_hints(kind)
    if set(fields) - set(hints):
        raise ValueError(f"{kind.__name__} of another version: fields {sorted(set(fields) - set(hints))}")
    return kind(**{name: _value(hints[name], value) for name, value in fields.items()})


def _value(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value)
    if typing.get_origin(hint) is tuple:
        return tuple(_value(typing.get_args(hint)[0], item) for item in value)
    return value


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program; ``argv`` replaces the arguments of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="folder of the run")
    parser.add_argument("--out", help="weights file to write (default: RUN/weights.safetensors)")
    parser.add_argument("--step", default="last", help="which checkpoint: last, best or a step (%(default)s)")
    parser.add_argument(
        "--weights", choices=("average", "params"), default="average", help="the EMA, or the weights (%(default)s)"
    )
    parser.add_argument("--int8", action="store_true", help="for a prior: report what rounding its weights costs")
    parser.add_argument("--data", metavar="SHARDS", help=f"with --int8: shards to measure it on ({CROPS} crops)")
    args = parser.parse_args(argv)
    out = args.out or Path(args.run) / "weights.safetensors"
    if args.data and not args.int8:
        parser.error("--data is what --int8 measures on: add --int8, or leave --data out")
    try:
        step, cost = export(args.run, out, step=args.step, which=args.weights, int8=args.int8, shards=args.data)
    except (OSError, ValueError) as error:
        parser.error(" ".join(str(error).split()))
    print(f"{out}: step {step}")
    if cost:
        print("\n".join(table(cost, args.data)))
    elif args.int8:
        print("what rounding the weights costs is not reported: give --data SHARDS to measure it")


if __name__ == "__main__":
    main()
