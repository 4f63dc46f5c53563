"""Checkpoints of a run: the only file that imports orbax.

RUN/checkpoints/STEP holds the sharded state and a JSON of the configuration and the code version. Saving runs in the
background; a step that was not finished is ignored at restart. A checkpoint is restored onto any number of devices and
hosts: the target says where each array goes.
"""

import dataclasses
import json
import signal
import threading
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from helix_jax import parallel
from helix_jax.errors import HelixError

METRIC = "psnr"  # higher is better; ``keep_best`` goes by it


class CheckpointError(HelixError):
    """A checkpoint that does not fit the run; the message names the first difference."""


class Checkpoints:
    """The checkpoints of one run folder. Every host opens them, on a folder that all hosts see.

    read_only: of a run that may be going on elsewhere.
    """

    def __init__(self, folder, *, keep_last=2, keep_best=1, read_only=False):
        policies: list[managers.PreservationPolicy] = [managers.LatestN(max(keep_last, 1))]
        if keep_best:
            policies.append(managers.BestN(get_metric_fn=_metric, n=keep_best, keep_checkpoints_without_metrics=False))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=managers.AnyPreservationPolicy(policies),
            best_fn=_metric,  # without it Orbax would not write metrics down
            read_only=read_only,
        )
        handlers = {"state": ocp.StandardCheckpointHandler(), "run": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(Path(folder).resolve(), options=options, item_handlers=handlers)
        self._signalled = threading.Event()
        self._previous = None
        if not read_only and jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            # with several hosts jax.distributed takes the signal and tells all of them
            self._previous = signal.signal(signal.SIGTERM, lambda *_: self._signalled.set())

    @property
    def steps(self):
        """Steps that can be restored, ascending."""
        return sorted(self._manager.all_steps())

    def best_step(self):
        """The step of the highest metric; None where none has one."""
        scored = [step for step in self.steps if self._manager.metrics(step)]
        return max(scored, key=lambda step: _metric(self._manager.metrics(step))) if scored else None

    def save(self, step, state, record, metrics):
        """Write the state (pytree of arrays) in the background. record: dict for JSON. metrics: dict of float, may be
        empty."""
        if step in self._manager.all_steps():
            return
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), run=ocp.args.JsonSave(record))
        scored = {METRIC: float(metrics[METRIC])} if METRIC in metrics else None
        self._manager.save(step, args=arguments, metrics=scored, force=True)

    def record(self, step):
        """The JSON that was saved with a step."""
        return self._manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))["run"]

    def restore(self, step, abstract, shardings):
        """State of a step, each array where ``shardings`` says. abstract: pytree of ShapeDtypeStruct.

        Raises CheckpointError naming an array that is missing, unknown, or of another shape or type: Orbax itself would
        cast to another type without a word.
        """
        saved = self._manager.item_metadata(step)["state"]
        saved = _named(getattr(saved, "tree", saved))
        wanted = _named(abstract)
        for name in sorted(saved.keys() | wanted.keys()):
            there, needed = (
                f"{np.dtype(tree[name].dtype)}{list(tree[name].shape)}" if name in tree else "no array"
                for tree in (saved, wanted)
            )
            if there != needed:
                raise CheckpointError(
                    f"checkpoint {step}: {name} is {there}, the configuration needs {needed}: use the configuration of "
                    "the run, or another run folder"
                )
        target = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), abstract, shardings
        )
        return self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))["state"]

    def stopping(self, step):
        """Whether SIGTERM has come, to any host: all of them see it at the same step."""
        if jax.process_count() == 1:
            return self._signalled.is_set()
        return self._manager.reached_preemption(step)

    def close(self):
        """Wait until everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None


def _metric(metrics):
    return metrics[METRIC]


def _named(tree):
    return {parallel.path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def record_of(cfg, version):
    """What is saved beside the arrays: the configuration and the version of the code."""
    # through JSON once, so that tuples compare equal to what comes back
    return json.loads(json.dumps({"config": dataclasses.asdict(cfg), "code": version}))
