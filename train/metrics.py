"""What a run reports: JSON lines, TensorBoard and a progress bar. Only host 0 writes; every host stops at a NaN."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import SupportsFloat

import jax
import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from train import sharding

# FLOP/s of one device for bf16 matrix multiplication without sparsity, from the vendors' data sheets
PEAK_FLOPS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,  # another name of v5p; it must come after "TPU v5 lite"
    "TPU v6 lite": 918e12,
}


def peak_flops(kind: str) -> float | None:
    """Return the peak FLOP/s of a device kind as JAX names it; None if it is not known (no MFU is then reported)."""
    return next((peak for name, peak in PEAK_FLOPS.items() if kind.startswith(name)), None)


class MetricLog:
    """The log.jsonl, the tensorboard/ and the progress bar of one run."""

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        name: str,
        start: int,
        steps: int,
        images: int,
        flops: float,
        every: int,
    ) -> None:
        """Open the log. Lines of later steps than ``start``, left by a run that was killed, are removed.

        Args:
            workdir: the folder RUN.
            name: text of the progress bar.
            start: steps done before.
            steps: number of steps.
            images: frames in a batch.
            flops: FLOP of a step, over all devices.
            every: steps between two lines.
        """
        self._images, self._every, self._flops = images, every, flops
        self._window, self._waited, self._skipped, self._since = [], 0.0, 0, time.perf_counter()
        self._writes = jax.process_index() == 0
        self._bar = tqdm(
            desc=name,
            initial=start,
            total=steps,
            unit="step",
            disable=None if self._writes else True,
            dynamic_ncols=True,
        )
        if not self._writes:
            return
        from tensorboardX import SummaryWriter

        path = Path(workdir) / "log.jsonl"
        kept = []
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if line.strip()]
            kept = [line for line in lines if _step_of(line) <= start]
        path.write_text("".join(line + "\n" for line in kept))
        self._file = open(path, "a")  # noqa: SIM115, closed by close()
        self._board = SummaryWriter(str(Path(workdir) / "tensorboard"), purge_step=start + 1)

    def waited(self, seconds: float) -> None:
        """Add the time that the loop waited for data."""
        self._waited += seconds

    def skipped(self, records: int) -> None:
        """Add the bad records that this host skipped; a line has those of all hosts since the line before."""
        self._skipped += records

    def step(self, step: int, metrics: Mapping[str, SupportsFloat], *, last: bool = False) -> None:
        """Add the metrics of one step, and write a line if one is due.

        Args:
            step: number of the step, counted from 1, after the update.
            metrics: scalars.
            last: whether it is the last step of this program; a line is then written in any case.

        Raises:
            FloatingPointError: on all hosts, if a metric is not a finite number.
        """
        values = {name: float(value) for name, value in metrics.items()}
        wrong = [name for name, value in values.items() if not np.isfinite(value)]
        if wrong:
            raise FloatingPointError(
                f"{', '.join(wrong)} of step {step} is {values[wrong[0]]}: lower the learning rate, or set "
                "optimiser.clip; the last checkpoint is from before"
            )
        self._window.append(values)
        self._bar.update()
        if step % self._every and not last:
            return
        now = time.perf_counter()
        seconds, count = now - self._since, len(self._window)
        speed = {"images_per_second": self._images * count / seconds, "step_seconds": seconds / count}
        peak = peak_flops(jax.devices()[0].device_kind)
        if peak:
            speed["mfu"] = self._flops * count / seconds / peak / jax.device_count()
        speed["data_share"] = self._waited / seconds
        # every host gets here at the same step
        speed["skipped_records"] = float(sharding.sum_over_hosts(self._skipped))
        mean = {name: float(np.mean([v[name] for v in self._window])) for name in values}
        self._window, self._waited, self._skipped, self._since = [], 0.0, 0, now
        shown = {"loss": f"{mean['loss']:.4f}", "images": f"{speed['images_per_second']:.0f}/s"}
        self._bar.set_postfix(shown | ({"mfu": f"{speed['mfu']:.1%}"} if peak else {}))
        self.write(step, mean | speed)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write a line with these values."""
        if not self._writes:
            return
        print(json.dumps({"step": step, **values}), file=self._file, flush=True)
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "H W 3"]) -> None:
        """Add a picture to TensorBoard, under a name, at a step."""
        if self._writes:
            self._board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Close the files and the progress bar."""
        self._bar.close()
        if self._writes:
            self._file.close()
            self._board.close()


def _step_of(line: str) -> float:
    """Return the step of a line of the log; infinity for a line that was truncated when the run was killed."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")
