"""The command line of training: overrides, the dry run, wrong use."""

import dataclasses
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from helix_jax import config as configuration
from helix_jax.config import TokenizerConfig
from helix_jax.prior import net
from helix_jax.prior import weights as prior_weights
from train import checkpoint, command, joint, loop, prior, sharding, tokenizer
from train.config import JointTraining, PriorTraining, TokenizerTraining

CONFIGS = Path(__file__).parents[2] / "configs"
GOLDEN = Path(__file__).parents[1] / "golden" / "dry_run.json"
PRIORS = sorted(CONFIGS.glob("prior_*.py"))
TASKS = {TokenizerTraining: tokenizer.task, PriorTraining: prior.task, JointTraining: joint.task}
ARGUMENTS = ["--config", str(CONFIGS / "tokenizer_cpu.py"), "--data", "videos", "--run", "run"]


def main(*arguments):
    command.main("Train.", TokenizerTraining, tokenizer.task, [*ARGUMENTS, *arguments])


def test_overrides_reach_the_run(monkeypatch):
    seen = []
    monkeypatch.setattr(command.loop, "run", lambda *arguments, **named: seen.append((arguments, named)))
    main("--set", "steps=3", "--set", "data.size=32", "--set", "optimiser.frozen=^embed,^encoder", "--validation", "v")
    (cfg, task, videos, run), named = seen[0]
    assert (cfg.steps, cfg.data.size, cfg.optimiser.frozen) == (3, 32, ("^embed", "^encoder"))
    assert (task.name, videos, run, named) == ("tokenizer", "videos", "run", {"validation": "v"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "stepz=3"], "no field 'stepz'; TokenizerTraining has model, data"),
        (["--set", "steps=some"], "--set steps=some: not a int"),
        (["--set", "parallel.compute=float64"], "parallel.compute is 'float64': use float32 or bfloat16"),
        (["--set", "checkpoint.every=0"], "checkpoint.every is 0: at least 1"),
        (["--set", "data.speeds="], "data.speeds is empty"),
        (["--set", "data.size=20"], "data.size is 20: a multiple of 8"),
        (["--set", "min_digits=8"], "min_digits is 8: fewer than the 8 of a token"),
        (["--set", "model.width=0"], "model.width is 0: at least 1"),
        (["--set", "optimiser.ema=2"], "optimiser.ema is 2.0: less than 1"),
        (["--run", "gs://bucket/run"], "not an address but a folder"),
        (["--set", "parallel.sharding=x"], "parallel.sharding"),
        (["--config", "configs/gone.py"], "configs/gone.py"),
        (["--config", __file__], "has no function get()"),
        (["--hosts", "2"], "give all of coordinator, hosts and host"),
        (["--data", "/nowhere", "--run", "/dev/null/x"], "/dev/null/x"),
    ],
)
def test_wrong_use_is_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(*arguments)
    assert caught.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in last


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.frames=16", "data.frames is 16: 32 for model.frames=8"),
        ("data.frames=30", "data.frames is 30: a multiple of 4"),
        ("data.size=20", "data.size is 20: a multiple of 8"),
        ("model.hidden=0", "model.hidden is 0: at least 1"),
        ("model.digits=4", "model.digits=4 and frames=8 do not fit the tokenizer, whose tokens have 8 digits"),
        ("parallel.compute=bfloat16", "parallel.compute is 'bfloat16': float32 for the prior"),
        ("min_digits=3", "no field 'min_digits'; PriorTraining has model, data"),
        ("tokenizer=gone.safetensors", "no weights file gone.safetensors"),
    ],
)
def test_wrong_priors_are_one_line(change, words, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main("Train.", PriorTraining, prior.task, ["--config", str(PRIORS[0]), *ARGUMENTS[2:], "--set", change])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_configuration_of_the_other_program(capsys):
    with pytest.raises(SystemExit):
        main("--config", str(PRIORS[0]))
    assert "builds a PriorTraining, this program needs a TokenizerTraining" in capsys.readouterr().err


def test_data_and_run_are_needed(capsys):
    with pytest.raises(SystemExit) as caught:
        command.main("Train.", TokenizerTraining, tokenizer.task, ARGUMENTS[:2])
    assert caught.value.code == 2
    assert "give --data and --run (or --dry_run)" in capsys.readouterr().err


def test_a_lost_run_has_status_one(monkeypatch, capsys):
    def lost(*_, **__):
        raise FloatingPointError("loss of step 3 is nan")

    monkeypatch.setattr(command.loop, "run", lost)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert "loss of step 3 is nan" in capsys.readouterr().err


@pytest.mark.slow
def test_dry_run_counts_by_hand(capsys, tiny):
    """Parameters, and the state of one device: with fsdp the matrices' share of it."""
    width, digits = tiny.model.width, tiny.model.digits
    block = (9 + 3) * width**2 + 3 * width
    count = 2 * 768 * width + width + 768 + 2 * block + 2 * width * digits + digits + width
    lines = command.dry_run(tiny, tokenizer.task(tiny))
    assert f"{count / 1e6:.2f} M parameters" in lines[0]
    assert "mesh: 8 x 1 (data x fsdp), 1 hosts" in lines[1]
    main("--dry_run", "--set", "model.width=8", "--set", "data.size=16", "--set", "parallel.fsdp=1")
    assert capsys.readouterr().out.splitlines()[1] == lines[1]


def test_flops_are_six_for_each_weight_and_token(tiny):
    """Two on the way there, four on the way back; what Haar and the loss add is little for a net that is not tiny."""
    cfg = dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, width=128))
    grid = sharding.training_mesh(1)
    flops = [
        loop.step_flops(c, tokenizer.task(c), grid, loop.build(c, tokenizer.task(c), grid)[2])
        for c in (cfg, dataclasses.replace(cfg, batch=2 * cfg.batch))
    ]
    tokens = cfg.batch * 2 * 2 * 2
    least = 6 * tokens * (2 * 768 * 128 + 2 * 12 * 128**2)
    assert 0.9 * least < flops[0] < 1.3 * least  # the first layer asks for no gradient of its input
    assert flops[1] == pytest.approx(2 * flops[0], rel=0.02)
    for changes, share in (
        ({"parallel": {"remat": True}}, 1.0),
        ({"optimiser": {"frozen": ("^enc", "^emb", "^to")}}, 0.7),
    ):
        other = cfg
        for part, values in changes.items():
            other = dataclasses.replace(other, **{part: dataclasses.replace(getattr(other, part), **values)})
        task = tokenizer.task(other)
        counted = loop.step_flops(other, task, grid, loop.build(other, task, grid)[2])
        assert counted == pytest.approx(share * flops[0], rel=0.1)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("[a-z]*.py")), ids=lambda p: p.stem)
def test_configurations(path):
    """Each builds, says what it is for, and its parameters are those of the golden file; UPDATE_GOLDEN=1 writes it."""
    module = runpy.run_path(str(path))
    cfg = module["get"]()
    for word in ("Command:", "Expected:"):
        assert word in module["__doc__"]
    shapes = jax.eval_shape(lambda: TASKS[type(cfg)](cfg).init(jax.random.key(0)))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    found = {"parameters": count, "batch": cfg.batch, "steps": cfg.steps}
    if os.environ.get("UPDATE_GOLDEN"):
        kept = json.loads(GOLDEN.read_text()) | {path.stem: found}
        GOLDEN.write_text(json.dumps(dict(sorted(kept.items())), indent=2) + "\n")
    assert json.loads(GOLDEN.read_text())[path.stem] == found


@pytest.mark.parametrize("path", PRIORS, ids=lambda p: p.stem)
def test_priors_can_be_exported(path):
    """Twice the largest sum that each net begins with stays below 2^24; so do weights spread evenly from 0 to 127."""
    cfg = runpy.run_path(str(path))["get"]()
    assert 9 * cfg.model.width * 63.5 * 127 < 2**24
    flat = prior_weights.to_integers(net.init(jax.random.key(0), dataclasses.replace(cfg.model, blocks=1)))
    for name in (name[:-2] for name in flat if name.endswith(".w")):
        room = prior_weights.EXACT // 2 - np.abs(flat[f"{name}.w"].astype(np.int64)).sum(0) * net.ACTIVATION_LIMIT
        assert (room > 0).all()
    prior_weights.check(path, flat)


@pytest.mark.slow
def test_the_prior_of_the_pod_compiles():
    """Its mesh, its head and its sharing of matrices, with one block and small crops."""
    cfg = runpy.run_path(str(CONFIGS / "prior_pod.py"))["get"]()
    cfg = dataclasses.replace(
        cfg,
        model=dataclasses.replace(cfg.model, blocks=1, frames=4),
        data=dataclasses.replace(cfg.data, frames=16, size=16),
        batch=8,
    )
    lines = command.dry_run(cfg, prior.task(cfg))
    assert lines[1].startswith("mesh: 1 x 8 (data x fsdp)")
    _, _, abstract, places = loop.build(cfg, prior.task(cfg), sharding.training_mesh(8))
    shared = {
        sharding.path_name(path)
        for (path, leaf), place in zip(
            jax.tree_util.tree_flatten_with_path(abstract["params"])[0], jax.tree.leaves(places["params"]), strict=True
        )
        if place.shard_shape(leaf.shape)[:1] == (leaf.shape[0] // 8,)
    }
    layers = ("embed", "blocks.0.spatial", "blocks.0.temporal", "alone", "begun", "after")
    assert shared == {f"{layer}.w" for layer in layers}


@pytest.mark.slow
@pytest.mark.parametrize(("path", "devices"), [(p, 256 if p.stem == "prior_pod" else 1) for p in PRIORS],
                         ids=[p.stem for p in PRIORS])  # fmt: skip
def test_priors_compile(path, devices):
    command = [sys.executable, "-m", "train.prior", "--config", path, "--dry_run", "--devices", str(devices)]
    done = subprocess.run(command, cwd=CONFIGS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.match(r"prior: [\d.]+ M parameters, batch", done.stdout)


def test_the_pod_shares_every_matrix():
    """The tokenizer's: over 256 devices each holds a 256th of all but vectors and the digits' projections."""
    cfg = runpy.run_path(str(CONFIGS / "tokenizer_pod.py"))["get"]()
    assert cfg.parallel.fsdp == 256
    assert isinstance(cfg.model, TokenizerConfig)
    shapes = jax.eval_shape(lambda: tokenizer.task(cfg).init(jax.random.key(0)))
    leaves = jax.tree_util.tree_flatten_with_path(shapes)[0]
    assert sum(leaf.size for _, leaf in leaves) > 300e6
    whole = [
        (sharding.path_name(path), leaf.size)
        for path, leaf in leaves
        if not any(re.search(rule.pattern, sharding.path_name(path)) for rule in cfg.parallel.sharding)
    ]
    assert sum(size for _, size in whole) < 0.001 * 316e6
    for path, leaf in leaves:
        if leaf.ndim == 2 and "digits" not in sharding.path_name(path):
            assert leaf.shape[0] % 256 == 0


@pytest.mark.slow
def test_sigterm_to_the_whole_group(tmp_path, shards):
    """As cluster managers send it: the worker that reads the data gets it too, and is needed until the step ends."""
    small = ["model.width=8", "model.encoder_blocks=0", "model.decoder_blocks=0", "data.frames=8", "data.size=16",
             "data.workers=1", "log.every=1", "log.pictures=0", "log.probe=1", "batch=2", "steps=1000000"]  # fmt: skip
    arguments = ["--config", ARGUMENTS[1], "--data", shards, "--run", tmp_path / "run", "--devices", "1"]
    arguments += [word for change in small for word in ("--set", change)]
    with open(tmp_path / "said.txt", "w+") as said, subprocess.Popen(
        [sys.executable, "-m", "train.tokenizer", *map(str, arguments)],
        cwd=CONFIGS.parent, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("SLURM")},
    ) as process:  # fmt: skip
        try:
            log, end = tmp_path / "run" / "log.jsonl", time.time() + 240
            while not (log.exists() and '"loss"' in log.read_text()):
                assert process.poll() is None, Path(said.name).read_text()
                assert time.time() < end, Path(said.name).read_text()
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGTERM)
            assert process.wait(timeout=240) == 0, Path(said.name).read_text()
        finally:
            process.kill()
    stopped = int(re.search(r"told to stop: saved step (\d+)", (tmp_path / "said.txt").read_text())[1])
    cfg = configuration.override(runpy.run_path(ARGUMENTS[1])["get"](), small)
    grid = sharding.training_mesh(devices=jax.devices()[:1])
    _, _, abstract, places = loop.build(cfg, tokenizer.task(cfg), grid)
    kept = checkpoint.Checkpoints(tmp_path / "run" / "checkpoints")
    assert kept.steps == [stopped]
    assert kept.restore(stopped, abstract, places)["step"] == stopped
    kept.close()
