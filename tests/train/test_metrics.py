"""The log of a run: means over its windows, speed, MFU where the peak is known, and what a kill leaves behind."""

import json
import time

import jax.numpy as jnp
import numpy as np
import pytest

from train import metrics
from train.metrics import MetricLog, peak_flops


def opened(folder, start=0, **changes):
    return MetricLog(
        folder, **({"name": "test", "start": start, "steps": 9, "images": 10, "flops": 1e9, "every": 2} | changes)
    )


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_line_is_the_mean_of_its_window(tmp_path):
    log = opened(tmp_path)
    for step, loss in ((1, 1.0), (2, 3.0), (3, 10.0), (4, 20.0), (5, 7.0)):
        log.skipped(step)
        log.step(step, {"loss": jnp.float32(loss)}, last=step == 5)
    log.close()
    found = [(line["step"], line["loss"], line["skipped_records"]) for line in lines(tmp_path)]
    assert found == [(2, 2.0, 3), (4, 15.0, 7), (5, 7.0, 5)]  # skipped: since the line before


def test_speed_counts_images_and_waiting(tmp_path):
    log = opened(tmp_path)
    for step in (1, 2):
        time.sleep(0.05)
        log.waited(0.025)
        log.step(step, {"loss": jnp.float32(1)})
    log.close()
    (line,) = lines(tmp_path)
    assert 0.05 <= line["step_seconds"] < 0.5
    assert line["images_per_second"] == pytest.approx(10 / line["step_seconds"])
    assert line["data_share"] == pytest.approx(0.05 / (2 * line["step_seconds"]))
    assert "mfu" not in line  # nobody tells the peak of a CPU


def test_mfu_where_the_peak_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "PEAK_FLOPS", {"cpu": 1e12})
    log = opened(tmp_path, every=1)
    log.step(1, {"loss": jnp.float32(1)})
    log.close()
    (line,) = lines(tmp_path)
    assert line["mfu"] == pytest.approx(1e9 / line["step_seconds"] / 1e12 / 8)  # of eight devices


def test_peaks():
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("TPU v5 lite") == 197e12
    assert peak_flops("cpu") is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_a_number_stops_with_its_name(tmp_path, value):
    log = opened(tmp_path)
    with pytest.raises(FloatingPointError, match=f"grad_norm of step 7 is {value}: lower the learning rate"):
        log.step(7, {"loss": jnp.float32(1), "grad_norm": jnp.float32(value)})
    log.close()


def test_lines_after_the_checkpoint_are_dropped(tmp_path):
    """And one that was cut in the middle."""
    written = [json.dumps({"step": step, "loss": 0.5}) for step in (2, 4, 6)]
    (tmp_path / "log.jsonl").write_text("\n".join(written) + '\n{"step": 8, "lo')
    log = opened(tmp_path, start=4, every=1)
    log.step(5, {"loss": jnp.float32(2)})
    log.close()
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(2, 0.5), (4, 0.5), (5, 2.0)]
