"""Checkpoint of a run -> the weights file that the codec takes.

    python -m train.export --run RUN [--step last|best|N] [--weights average|params] [--out FILE]

Works while the run goes on, on one machine, whatever devices the run has. The file holds float16 tensors, the net's
configuration, and where it comes from: steps, code version, training configuration.
"""

import argparse
import dataclasses
import json
import typing
from pathlib import Path

import jax

from helix_jax import parallel
from train import checkpoint, loop, prior, tokenizer
from train.config import PriorTraining, TokenizerTraining


def export(run, out, *, step="last", which="average"):
    """Write the weights file ``out``; returns the step. step: "last", "best" (probe PSNR) or a number.

    Raises ValueError naming what is missing: no run, no such step.
    """
    run = Path(run)
    if not (run / "checkpoints").is_dir():
        raise ValueError(f"{run} is not the folder of a run: it has no checkpoints")
    kept = checkpoint.Checkpoints(run / "checkpoints", read_only=True)
    try:
        at = _chosen(kept, step, run)
        record = kept.record(at)
        # a prior's configuration names its tokenizer, a tokenizer's names none
        kind, task_of = (
            (PriorTraining, prior.task) if "tokenizer" in record["config"] else (TokenizerTraining, tokenizer.task)
        )
        cfg = from_dict(kind, record["config"])
        task = task_of(cfg)
        grid = parallel.training_mesh(1, jax.devices()[:1])
        *_, abstract, _ = loop.build(cfg, task, grid)
        places = jax.tree.map(lambda leaf: parallel.replicated(grid), abstract)
        state = kept.restore(at, abstract, places)
    finally:
        kept.close()
    notes = {"steps": str(at), "code": record["code"], "training": json.dumps(record["config"])}
    task.save(out, parallel.to_host(state[which], grid), notes)
    return at


def _chosen(kept, step, run):
    if not kept.steps:
        raise ValueError(f"{run} has no finished checkpoint yet")
    if step == "last":
        return kept.steps[-1]
    at = kept.best_step() if step == "best" else int(step) if step.isdigit() else None
    if at is None:
        raise ValueError(f"step {step!r}: give last, best (where a checkpoint has a probe PSNR) or a number")
    if at not in kept.steps:
        raise ValueError(f"{run} has no checkpoint of step {at}, but of {', '.join(map(str, kept.steps))}")
    return at


def from_dict(kind, fields):
    """Inverse of ``dataclasses.asdict`` through JSON; fields that an older version did not have take their defaults.

    Raises ValueError for fields that this version does not know.
    """
    hints = typing.get_type_hints(kind)
    if set(fields) - set(hints):
        raise ValueError(f"{kind.__name__} of another version: fields {sorted(set(fields) - set(hints))}")
    return kind(**{name: _value(hints[name], value) for name, value in fields.items()})


def _value(hint, value):
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value)
    if typing.get_origin(hint) is tuple:
        return tuple(_value(typing.get_args(hint)[0], item) for item in value)
    return value


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="folder of the run")
    parser.add_argument("--out", help="weights file; default: RUN/weights.safetensors")
    parser.add_argument("--step", default="last", help="last, best or a number (%(default)s)")
    parser.add_argument("--weights", choices=("average", "params"), default="average", help="EMA or not (%(default)s)")
    args = parser.parse_args(argv)
    out = args.out or Path(args.run) / "weights.safetensors"
    try:
        print(f"{out}: step {export(args.run, out, step=args.step, which=args.weights)}")
    except (OSError, ValueError) as error:
        parser.error(" ".join(str(error).split()))


if __name__ == "__main__":
    main()
