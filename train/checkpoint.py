"""Checkpoints of a run: the only file that imports orbax.

RUN/checkpoints/STEP holds the sharded state and a JSON of the configuration and the code version. Saving runs in the
background. A checkpoint is restored onto any number of devices and hosts: the target says where each array goes.

A disk that fills up, or a machine that dies, may leave a checkpoint that is not whole: an empty folder, one without the
mark that Orbax sets last, a file that is missing or cut short. Such a one is passed over, with the reason. A run that
goes on moves it to RUN/broken_checkpoints, since Orbax would count it among the newest and delete good ones for it.
"""

import collections
import dataclasses
import json
import re
import signal
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from orbax.checkpoint import checkpoint_managers as managers

from helix_jax.errors import HelixError
from train import sharding

METRIC = "psnr"  # higher is better; ``keep_best`` goes by it


class CheckpointError(HelixError):
    """A checkpoint that does not fit the run, or is not whole; the message names the first difference or the files."""


class Checkpoints:
    """The checkpoints of one run folder. Every host opens them, on a folder that all hosts see.

    read_only: of a run that may be going on elsewhere; nothing is moved then.
    passed: {name of a folder: why it is no whole checkpoint}, of those that were met so far (on host 0).
    Raises CheckpointError where a run would go on, and none of its checkpoints is whole.
    """

    def __init__(self, folder, *, keep_last=2, keep_best=1, read_only=False):
        self._folder, self.passed = Path(folder).resolve(), {}
        self._reader = ocp.Checkpointer(ocp.StandardCheckpointHandler())
        self._manager: Any = None  # it reads the metrics of all steps, and fails where those of one are broken
        if not read_only:
            self._set_aside()
            policies: list[managers.PreservationPolicy] = [managers.LatestN(max(keep_last, 1))]
            if keep_best:
                policies.append(
                    managers.BestN(get_metric_fn=_metric, n=keep_best, keep_checkpoints_without_metrics=False)
                )
            options = ocp.CheckpointManagerOptions(
                preservation_policy=managers.AnyPreservationPolicy(policies),
                best_fn=_metric,  # without it Orbax would not write metrics down
            )
            handlers = {"state": ocp.StandardCheckpointHandler(), "run": ocp.JsonCheckpointHandler()}
            self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)
        self._signalled = threading.Event()
        self._previous = None
        if not read_only and jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            # with several hosts jax.distributed takes the signal and tells all of them
            self._previous = signal.signal(signal.SIGTERM, lambda *_: self._signalled.set())

    def _set_aside(self):
        """Move what is not whole out of the folder: all whose small files tell, and else down to the newest that is
        whole. Host 0 decides for all."""
        refused = 0
        if jax.process_index() == 0 and self._folder.is_dir():
            for path in self._folder.iterdir():
                if re.match(r"\d+\b", path.name) and not path.name.isdigit():
                    self.passed[path.name] = "a save that was cut short"
            for step in self.steps:  # Orbax would fail to open any of these
                reason = _fault_of_files(self._folder / str(step))
                if reason:
                    self.passed[str(step)] = reason
            whole = self.newest()
            refused = whole is None and any(name.isdigit() for name in self.passed)
            for name in [] if refused else self.passed:
                aside = self._folder.parent / "broken_checkpoints"
                aside.mkdir(exist_ok=True)
                number = sum(1 for _ in aside.glob(f"{name}*"))
                (self._folder / name).rename(aside / (f"{name}.{number}" if number else name))
        if sharding.sum_over_hosts(int(refused)):
            raise CheckpointError(
                f"none of the checkpoints in {self._folder} is whole ({self.told()}): put a copy of one there, or move "
                "that folder away to begin at step 0"
            )

    @property
    def steps(self):
        """Steps whose folders are there, ascending; ``fault`` tells which of them cannot be restored."""
        return _steps(self._folder)

    def newest(self):
        """The newest step that is whole; None where none is. What is passed over goes to ``passed``."""
        return self._first_whole(reversed(self.steps))

    def best_step(self):
        """The whole step of the highest metric; None where none has one."""
        scored = {}
        for step in self.steps:
            try:
                scored[step] = _metric(json.loads((self._folder / str(step) / _METRICS).read_bytes()))
            except (OSError, ValueError, KeyError, TypeError):  # none was taken, or it is broken
                continue
        return self._first_whole(sorted(scored, key=lambda step: (scored[step], -step), reverse=True))

    def _first_whole(self, steps):
        for step in steps:
            reason = self.fault(step)
            if reason is None:
                return step
            self.passed[str(step)] = reason
        return None

    def fault(self, step):
        """Why a step cannot be restored, for people; None where all of it is there. Reads all of it, on this host."""
        folder = self._folder / str(step)
        return _fault_of_files(folder) or _fault_of_arrays(folder / "state")

    def told(self):
        """``passed`` in words."""
        return "; ".join(f"{name}: {reason}" for name, reason in self.passed.items())

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
        return json.loads((self._folder / str(step) / "run/metadata").read_bytes())

    def restore(self, step, abstract, shardings):
        """State of a step, each array where ``shardings`` says. abstract: pytree of ShapeDtypeStruct.

        Raises CheckpointError naming an array that is missing, unknown, or of another shape or type: Orbax itself would
        cast to another type without a word.
        """
        place = self._folder / str(step) / "state"
        # pyrefly: ignore[missing-attribute]  (of a whole step it is there)
        saved = _named(self._reader.metadata(place).item_metadata.tree)
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
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), abstract, shardings
        )
        return self._reader.restore(place, args=ocp.args.StandardRestore(target))

    def stopping(self, step):
        """Whether SIGTERM has come, to any host: all of them see it at the same step."""
        if jax.process_count() == 1:
            return self._signalled.is_set()
        return self._manager.reached_preemption(step)

    def close(self):
        """Wait until everything is written."""
        if self._manager is not None:
            self._manager.wait_until_finished()
            self._manager.close()
        self._reader.close()
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None


# ---- whole or not ----------------------------------------------------------------------------------

_METRICS = "metrics/metrics"


def _steps(folder):
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit() and path.is_dir())


def _fault_of_files(folder):
    """What is amiss with the small files of a step: the marks that Orbax sets last, and its JSON."""
    if not any(folder.iterdir()):
        return "the folder is empty"
    marked = ["", "run/", "state/", *(["metrics/"] if (folder / "metrics").exists() else [])]
    files = [f"{item}commit_success.txt" for item in marked]
    texts = ["_CHECKPOINT_METADATA", "run/metadata", "state/_METADATA", *([_METRICS] if len(marked) > 3 else [])]
    for name in (*files, *texts):
        if not (folder / name).is_file():
            return f"{name} is missing"
    for name in texts:
        try:
            whole = isinstance(json.loads((folder / name).read_bytes()), dict)
        except ValueError:
            whole = False
        if not whole:
            return f"{name} is cut short"
    return None


def _fault_of_arrays(folder):
    """What is amiss with the arrays of a state: read to the end, one piece after the other, and thrown away."""
    tree = json.loads((folder / "_METADATA").read_bytes())["tree_metadata"]
    leaves = [leaf for leaf in tree.values() if not leaf["value_metadata"]["skip_deserialize"]]  # what is no empty node
    wanted = {".".join(str(part["key"]) for part in leaf["key_metadata"]) for leaf in leaves}
    try:
        base = {"driver": "file", "path": f"{folder}/"}
        store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
        # where the file of a value is gone the value is empty, and nothing is raised
        keys = [key for key in store.list().result() if store.read(key).result().value]
    except (ValueError, OSError) as error:
        return f"an array cannot be read ({' '.join(str(error).split())})"
    pieces = collections.Counter(key.decode().rpartition("/")[0] for key in keys)
    missing = [name for name in wanted if pieces[name] < 2]  # its shape, and at least one piece of its values
    return f"array {min(missing)} is missing" if missing else None


def _metric(metrics):
    return metrics[METRIC]


def _named(tree):
    return {sharding.path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def record_of(cfg, version):
    """What is saved beside the arrays: the configuration and the version of the code."""
    # through JSON once, so that tuples compare equal to what comes back
    return json.loads(json.dumps({"config": dataclasses.asdict(cfg), "code": version}))
