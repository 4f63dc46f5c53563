"""Checkpoints of a run. This is the only file that imports orbax.

RUN/checkpoints/STEP holds the sharded state and a JSON file of the configuration and the code version. Saving runs in
the background. A checkpoint can be restored onto any number of devices and hosts: the target says where each array
goes.

If a disk fills up or a machine dies, a checkpoint may be incomplete: an empty folder, one without the mark that Orbax
sets last, or one with a missing or truncated file. Such a checkpoint is skipped, with the reason. A run that is resumed
moves it to RUN/broken_checkpoints, since Orbax would count it among the newest and delete good ones in its place.
"""

import collections
import dataclasses
import json
import os
import re
import signal
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers as managers

from helix_jax.errors import HelixError
from train import sharding
from train.config import Training

METRIC = "psnr"  # higher is better; ``keep_best`` uses it


class CheckpointError(HelixError):
    """A checkpoint does not fit the run or is incomplete; the message names the first difference or the files."""


class Checkpoints:
    """The checkpoints of one run folder. Every host opens them, in a folder that all hosts see.

    Attributes:
        passed: name of a folder to the reason why it is not a complete checkpoint, for those that were skipped so far
            (on host 0).
    """

    def __init__(
        self, folder: str | os.PathLike, *, keep_last: int = 2, keep_best: int = 1, read_only: bool = False
    ) -> None:
        """Open the checkpoints, and move incomplete ones away unless ``read_only``.

        Args:
            folder: the folder of the checkpoints, RUN/checkpoints.
            keep_last: number of newest checkpoints to keep.
            keep_best: number of checkpoints with the best metric to keep.
            read_only: for a run that may be in progress elsewhere; nothing is moved then.

        Raises:
            CheckpointError: if the run has checkpoints to resume from, but none of them is complete.
        """
        self._folder = Path(folder).resolve()
        self.passed: dict[str, str] = {}
        self._reader = ocp.Checkpointer(ocp.StandardCheckpointHandler())
        self._manager: Any = None  # it reads the metrics of all steps, and fails if those of one are broken
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
            # with several hosts, jax.distributed receives the signal and informs all of them
            self._previous = signal.signal(signal.SIGTERM, lambda *_: self._signalled.set())

    def _set_aside(self) -> None:
        """Move incomplete checkpoints out of the folder. Host 0 decides for all hosts.

        All steps are checked by their small files; their arrays are read from the newest step down to the first
        complete one.
        """
        refused = 0
        if jax.process_index() == 0 and self._folder.is_dir():
            for path in self._folder.iterdir():
                if re.match(r"\d+\b", path.name) and not path.name.isdigit():
                    self.passed[path.name] = "a save that was cut short"
            for step in self.steps:  # Orbax would fail to open any of these
                reason = _fault_of_files(self._folder / str(step))
                if reason:
                    self.passed[str(step)] = reason
            newest = self.newest()
            refused = newest is None and any(name.isdigit() for name in self.passed)
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
    def steps(self) -> list[int]:
        """The steps that have a folder, ascending; ``fault`` says which of them cannot be restored."""
        return _steps(self._folder)

    def newest(self) -> int | None:
        """Return the newest complete step, or None. The steps that are skipped are added to ``passed``."""
        return self._first_whole(reversed(self.steps))

    def best_step(self) -> int | None:
        """Return the complete step with the highest metric, or None if no step has a metric."""
        scored = {}
        for step in self.steps:
            try:
                scored[step] = _metric(json.loads((self._folder / str(step) / _METRICS).read_bytes()))
            except (OSError, ValueError, KeyError, TypeError):  # it was not measured, or its file is broken
                continue
        return self._first_whole(sorted(scored, key=lambda step: (scored[step], -step), reverse=True))

    def _first_whole(self, steps: Iterable[int]) -> int | None:
        for step in steps:
            reason = self.fault(step)
            if reason is None:
                return step
            self.passed[str(step)] = reason
        return None

    def fault(self, step: int) -> str | None:
        """Return why a step cannot be restored, or None if it is complete. All of it is read, on this host."""
        folder = self._folder / str(step)
        return _fault_of_files(folder) or _fault_of_arrays(folder / "state")

    def told(self) -> str:
        """Return ``passed`` in words, for messages."""
        return "; ".join(f"{name}: {reason}" for name, reason in self.passed.items())

    def save(self, step: int, state: PyTree, record: dict[str, Any], metrics: Mapping[str, float]) -> None:
        """Write a checkpoint in the background, unless there is one of this step.

        Args:
            step: number of the step.
            state: pytree of arrays.
            record: what is saved beside it as JSON (``record_of``).
            metrics: measurements, of which METRIC is saved if it is present.
        """
        if step in self._manager.all_steps():
            return
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), run=ocp.args.JsonSave(record))
        scored = {METRIC: float(metrics[METRIC])} if METRIC in metrics else None
        self._manager.save(step, args=arguments, metrics=scored, force=True)

    def record(self, step: int) -> dict[str, Any]:
        """Return the JSON that was saved with a step."""
        return json.loads((self._folder / str(step) / "run/metadata").read_bytes())

    def restore(self, step: int, abstract: PyTree, shardings: PyTree) -> PyTree:
        """Restore the state of a step.

        Args:
            step: number of a complete step.
            abstract: pytree of ShapeDtypeStruct, the arrays that are expected.
            shardings: pytree of the sharding of each array.

        Raises:
            CheckpointError: naming an array that is missing, unknown, or of another shape or type; Orbax itself would
                silently cast it to another type.
        """
        place = self._folder / str(step) / "state"
        # pyrefly: ignore[missing-attribute]  (a complete step has it)
        saved = _named(self._reader.metadata(place).item_metadata.tree)
        wanted = _named(abstract)
        for name in sorted(saved.keys() | wanted.keys()):
            present, needed = (
                f"{np.dtype(tree[name].dtype)}{list(tree[name].shape)}" if name in tree else "no array"
                for tree in (saved, wanted)
            )
            if present != needed:
                raise CheckpointError(
                    f"checkpoint {step}: {name} is {present}, the configuration needs {needed}: use the configuration "
                    "of the run, or another run folder"
                )
        target = jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), abstract, shardings
        )
        return self._reader.restore(place, args=ocp.args.StandardRestore(target))

    def stopping(self, step: int) -> bool:
        """Return whether any host has received SIGTERM; all hosts see it at the same step."""
        if jax.process_count() == 1:
            return self._signalled.is_set()
        return self._manager.reached_preemption(step)

    def close(self) -> None:
        """Wait until everything is written, and close the checkpoints."""
        if self._manager is not None:
            self._manager.wait_until_finished()
            self._manager.close()
        self._reader.close()
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None


# ---- complete or not -------------------------------------------------------------------------------

_METRICS = "metrics/metrics"


def _steps(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit() and path.is_dir())


def _fault_of_files(folder: Path) -> str | None:
    """Return what is wrong with the small files of a step (the marks that Orbax sets last, and its JSON), or None."""
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
            valid = isinstance(json.loads((folder / name).read_bytes()), dict)
        except ValueError:
            valid = False
        if not valid:
            return f"{name} is cut short"
    return None


def _fault_of_arrays(folder: Path) -> str | None:
    """Return what is wrong with the arrays of a state, or None. Every piece is read to its end and discarded."""
    tree = json.loads((folder / "_METADATA").read_bytes())["tree_metadata"]
    leaves = [leaf for leaf in tree.values() if not leaf["value_metadata"]["skip_deserialize"]]  # not empty
    wanted = {".".join(str(part["key"]) for part in leaf["key_metadata"]) for leaf in leaves}
    try:
        base = {"driver": "file", "path": f"{folder}/"}
        store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
        # if the file of a value is missing, the value is empty, and nothing is raised
        keys = [key for key in store.list().result() if store.read(key).result().value]
    except (ValueError, OSError) as error:
        return f"an array cannot be read ({' '.join(str(error).split())})"
    pieces = collections.Counter(key.decode().rpartition("/")[0] for key in keys)
    missing = [name for name in wanted if pieces[name] < 2]  # its shape, and at least one piece of its values
    return f"array {min(missing)} is missing" if missing else None


def _metric(metrics: Mapping[str, float]) -> float:
    return metrics[METRIC]


def _named(tree: PyTree) -> dict[str, Any]:
    """Return the leaves of a pytree by the names of their paths."""
    return {sharding.path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def record_of(cfg: Training, version: str) -> dict[str, Any]:
    """Return what is saved beside the arrays: the configuration and the version of the code."""
    # through JSON once, so that tuples compare equal to the lists that come back
    return json.loads(json.dumps({"config": dataclasses.asdict(cfg), "code": version}))
