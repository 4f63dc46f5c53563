"""Two processes of four CPU devices train, are killed, and go on elsewhere: the losses are those of a run left alone.

The commands are those of a user, in processes of their own, on loopback. With ``parallel.deterministic`` and eight
micro-batches every topology gives the same bits.
"""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEPS, EVERY = 80, 10
CONFIG = f"""
from helix_jax.config import TokenizerConfig
from train.config import CheckpointConfig, DataConfig, LogConfig, OptimiserConfig, ParallelConfig, TokenizerTraining


def get():
    return TokenizerTraining(
        model=TokenizerConfig(width=8, encoder_blocks=1, decoder_blocks=1, digits=4),
        data=DataConfig(frames=8, size=16),
        optimiser=OptimiserConfig(warmup_steps=2),
        parallel=ParallelConfig(micro=8, deterministic=True),
        checkpoint=CheckpointConfig(every={EVERY}, keep_last=3),
        log=LogConfig(every=1, pictures=0, probe=2),
        steps={STEPS},
        batch=16,
    )
"""


class Cluster:
    """hosts processes of ``python -m train.tokenizer`` on one run folder, with ``devices`` CPU devices each."""

    def __init__(self, folder, run, hosts, devices):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "train.tokenizer", "--config", str(folder / "config.py"), "--data",
                   str(folder / "shards"), "--run", str(run), "--devices", str(devices)]  # fmt: skip
        self.outputs = [folder / f"{run.name}-{hosts}x{devices}.{host}.txt" for host in range(hosts)]
        self.processes = []
        for host, output in enumerate(self.outputs):
            several = ["--coordinator", f"127.0.0.1:{port}", "--hosts", str(hosts), "--host", str(host)]
            with open(output, "w") as out:
                self.processes.append(
                    subprocess.Popen(
                        command + several * (hosts > 1), cwd=ROOT, stdout=out, stderr=subprocess.STDOUT,
                        env={name: value for name, value in os.environ.items() if not name.startswith("SLURM")},
                    )
                )  # fmt: skip

    def wait(self):
        """Exit statuses."""
        try:
            return [process.wait(timeout=300) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()

    def said(self, host=0):
        return self.outputs[host].read_text()


def losses(run):
    """Step -> loss, as logged: every bit of a float32 is in the JSON."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def wait_for_step(run, step, cluster):
    log, end = run / "log.jsonl", time.time() + 240
    while not (log.exists() and len(re.findall('"loss"', log.read_text())) >= step):
        assert time.time() < end, cluster.said()
        assert all(process.poll() is None for process in cluster.processes), cluster.said()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_clip):
    from train import prepare

    folder = tmp_path_factory.mktemp("multihost")
    (folder / "videos").mkdir()
    make_clip(folder / "videos" / "a.mp4", 20, 40, 48)
    make_clip(folder / "videos" / "b.mp4", 17, 40, 40)
    prepare.prepare([folder / "videos"], folder / "shards", frames=16, size=32, smallest=(8, 16), workers=1)
    (folder / "config.py").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def killed(folder):
    """A run of two hosts, both killed with SIGKILL at a random step."""
    run, step = folder / "killed", random.randint(2 * EVERY + 2, 5 * EVERY)
    cluster = Cluster(folder, run, 2, 4)
    wait_for_step(run, step, cluster)
    for process in cluster.processes:
        process.send_signal(signal.SIGKILL)
    assert cluster.wait() == [-signal.SIGKILL, -signal.SIGKILL]
    assert max(losses(run)) < STEPS
    return run


def goes_on(folder, killed, hosts, devices):
    """Losses of the killed run, taken up on other devices."""
    run = folder / f"resumed-{hosts}x{devices}"
    shutil.copytree(killed, run)
    cluster = Cluster(folder, run, hosts, devices)
    assert cluster.wait() == [0] * hosts, cluster.said()
    found = re.search(r"resuming at step (\d+)\n", cluster.said())
    assert found, cluster.said()
    assert int(found[1]) % EVERY == 0
    assert (run / "weights.safetensors").exists()
    return losses(run)


@pytest.fixture(scope="module")
def on_four(folder, killed):
    return goes_on(folder, killed, 1, 4)


def test_killed_on_two_hosts_goes_on_on_one(killed, on_four):
    """Steps that the killed run logged past its checkpoint are done again, on 1 x 4 and not 2 x 4: the same losses."""
    before = losses(killed)
    assert list(on_four) == list(range(1, STEPS + 1))
    assert {step: on_four[step] for step in before} == before


@pytest.mark.slow
def test_as_if_nothing_had_happened(folder, killed, on_four):
    """Resumed on 2 x 4, 1 x 8 and 1 x 4, against a run that nobody killed: 80 losses, bit for bit."""
    cluster = Cluster(folder, folder / "whole", 2, 4)
    assert cluster.wait() == [0, 0], cluster.said()
    whole = losses(folder / "whole")
    assert list(whole) == list(range(1, STEPS + 1))
    assert on_four == whole
    assert goes_on(folder, killed, 2, 4) == whole
    assert goes_on(folder, killed, 1, 8) == whole


@pytest.mark.slow
def test_sigterm_to_one_stops_both(folder):
    """At the same step, with a whole checkpoint of it."""
    run = folder / "stopped"
    cluster = Cluster(folder, run, 2, 4)
    wait_for_step(run, 15, cluster)
    cluster.processes[1].send_signal(signal.SIGTERM)
    assert cluster.wait() == [0, 0], cluster.said(0) + cluster.said(1)
    stopped = int(re.search(r"told to stop: saved step (\d+)", cluster.said())[1])
    assert max(losses(run)) == stopped < STEPS
    seen = [re.search(r"Reached preemption sync point, step=(\d+)", cluster.said(host))[1] for host in (0, 1)]
    assert seen == [str(stopped)] * 2
    assert (run / "checkpoints" / str(stopped) / "state" / "commit_success.txt").exists()
    assert not (run / "weights.safetensors").exists()
