"""Training: data as a pure function of (seed, step), a run of a few steps, and picking up where it stopped."""

import dataclasses
import itertools
import json
import logging
import runpy
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train.tokenizer
from helix_jax import weights
from helix_jax.config import TokenizerConfig
from helix_jax.tokenizer import model
from train import data
from train.config import DataConfig, OptimiserConfig, TokenizerTraining

CONFIGS = Path(__file__).parents[1] / "configs"
TINY = TokenizerTraining(
    model=TokenizerConfig(width=8, encoder_blocks=1, decoder_blocks=1, digits=4),
    data=DataConfig(per_clip=4, frames=8, size=16, exclude=("left_out",)),
    optimiser=OptimiserConfig(warmup_steps=2),
    steps=4,
    batch=2,
    log_every=1,
    save_every=2,
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory, make_clip):
    folder = tmp_path_factory.mktemp("videos")
    make_clip(folder / "a.mp4", 12, 40, 48)
    make_clip(folder / "b.mp4", 9, 24, 32)
    make_clip(folder / "left_out.mp4", 9, 24, 32)
    return folder


# ---- data ----------------------------------------------------------------------------------


def numbered(n=20):
    """Crops that tell which they are, mirrored or not."""
    crops = np.zeros((n, 2, 4, 4, 3), np.uint8)
    crops[:, :, :, 0] = np.arange(n)[:, None, None, None]
    return crops


@pytest.mark.parametrize("start", [1, 3, 11])
def test_starting_late_is_skipping(start):
    """Past the end of an epoch too: 20 crops in batches of 4."""
    whole = list(itertools.islice(data.batches(numbered(), seed=5, batch=4, start=0), 15))
    late = list(itertools.islice(data.batches(numbered(), seed=5, batch=4, start=start), 15 - start))
    for one, other in zip(whole[start:], late, strict=True):
        np.testing.assert_array_equal(one, other)


def test_batches():
    first, second = (list(itertools.islice(data.batches(numbered(), seed=s, batch=4, start=0), 10)) for s in (5, 6))
    assert all(batch.shape == (4, 2, 4, 4, 3) and batch.dtype == np.uint8 for batch in first)
    assert any((one != other).any() for one, other in zip(first, second, strict=True))
    epochs = np.stack(first).reshape(2, 20, 2, 4, 4, 3)
    assert (epochs[0] != epochs[1]).any()
    assert [sorted(epoch[:, 0, 0].max(axis=(1, 2))) for epoch in epochs] == [list(range(20))] * 2  # each crop once
    mirrored = np.stack(first).reshape(40, 2, 4, 4, 3)[:, 0, 0, -1, 0] > 0
    assert 0.2 < mirrored.mean() < 0.8


def test_halve_is_the_rounded_mean():
    clip = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    blocks = clip[:, :4, :6].reshape(2, 2, 2, 3, 2, 3).mean(axis=(2, 4))
    np.testing.assert_array_equal(data.halve(clip), np.floor(blocks + 0.5))


def test_crops(tmp_path, videos, caplog):
    """The same seed cuts the same crops; a clip too small or damaged is named and skipped."""
    (tmp_path / "videos").mkdir()
    for path in videos.iterdir():
        (tmp_path / "videos" / path.name).symlink_to(path)
    (tmp_path / "videos" / "z_damaged.mp4").write_bytes(b"no video")
    options = {"per_clip": 6, "frames": 8, "size": 20, "exclude": ("left_out",)}
    with caplog.at_level(logging.WARNING):
        for name, seed in (("one", 0), ("two", 0), ("three", 1)):
            data.cut_crops(tmp_path / "videos", tmp_path / f"{name}.npy", seed=seed, **options)
    assert "z_damaged.mp4" in caplog.text
    assert "left_out" not in caplog.text
    one, two, three = (np.load(tmp_path / f"{name}.npy") for name in ("one", "two", "three"))
    assert one.shape == (12, 8, 20, 20, 3)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, two)
    assert (one != three).any()
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"no \.mp4 file in .*none"):
        data.cut_crops(tmp_path / "none", tmp_path / "x.npy", seed=0, **options)


# ---- a run ---------------------------------------------------------------------------------


def log_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, videos):
    """A run of four steps, at one go."""
    run = tmp_path_factory.mktemp("run")
    train.tokenizer.run(TINY, videos, run)
    return run


def test_run(finished):
    log = log_of(finished)
    assert [record["step"] for record in log] == [1, 2, 3, 4]
    assert all(np.isfinite([record[name] for name in ("loss", "mse", "psnr", "grad_norm")]).all() for record in log)
    assert np.load(finished / "crops.npy").shape == (8, 8, 16, 16, 3)
    assert json.loads((finished / "config.json").read_text()) == json.loads(json.dumps(dataclasses.asdict(TINY)))
    loaded = weights.load(finished / "weights.safetensors")
    assert loaded.config == TINY.model
    start = model.init(jax.random.key(TINY.seed), TINY.model)
    moved = jax.tree.map(lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()), loaded.params, start)
    assert max(jax.tree.leaves(moved)) > 1e-4
    clip = np.zeros((1, 4, 16, 16, 3), np.uint8)
    assert model.encode(loaded.params, clip, loaded.config).shape == (1, 1, 2, 2, 4)


def test_resumed_run_is_the_uninterrupted_one(tmp_path, videos, finished):
    """From the checkpoint of step 2, as after a crash: the steps that follow, and the weights, are the same."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "checkpoints" / "4")
    (run / "weights.safetensors").unlink()
    (run / "log.jsonl").write_text("".join((finished / "log.jsonl").read_text().splitlines(keepends=True)[:2]))
    train.tokenizer.run(TINY, videos, run)
    log, whole = log_of(run), log_of(finished)
    assert [record["step"] for record in log] == [1, 2, 3, 4]
    for one, other in zip(log, whole, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    loaded, expected = (weights.load(folder / "weights.safetensors").params for folder in (run, finished))
    for one, other in zip(jax.tree.leaves(loaded), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)


def test_finished_run_stays(finished, videos):
    before = (finished / "weights.safetensors").read_bytes(), log_of(finished)
    train.tokenizer.run(TINY, videos, finished)
    assert ((finished / "weights.safetensors").read_bytes(), log_of(finished)) == before


def test_loss_that_is_not_finite_is_named(tmp_path, videos, monkeypatch):
    def lost(params, clip, key, cfg):
        return jnp.nan * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params)), {"mse": jnp.float32(1)}

    monkeypatch.setattr(train.tokenizer, "loss_fn", lost)
    with pytest.raises(FloatingPointError, match="near step 0; lower the learning rate"):
        train.tokenizer.run(TINY, videos, tmp_path)
    assert not (tmp_path / "weights.safetensors").exists()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("[a-z]*.py")), ids=lambda p: p.stem)
def test_configs_build(path):
    config = runpy.run_path(str(path))["get"]()
    assert isinstance(config, TokenizerTraining)
    assert "Command:" in runpy.run_path(str(path))["__doc__"]


def test_command_line(tmp_path, monkeypatch, capsys):
    """Overrides reach the run; a wrong one is refused."""
    seen = []
    monkeypatch.setattr(train.tokenizer, "run", lambda *arguments: seen.append(arguments))
    config = str(CONFIGS / "tokenizer_cpu.py")
    common = ["tokenizer", "--config", config, "--data", "videos", "--run", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*common, "--set", "steps=3", "--set", "data.size=32"])
    train.tokenizer.main()
    cfg, videos, run = seen[0]
    assert (cfg.steps, cfg.data.size, videos, run) == (3, 32, "videos", str(tmp_path))
    for arguments, words in (
        ([*common, "--set", "stepz=3"], "no field 'stepz'; TokenizerTraining has model, data"),
        ([*common, "--set", "steps=some"], "--set steps=some: not a int"),
        ([*common, "--config", "configs/gone.py"], "configs/gone.py"),
    ):
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as caught:
            train.tokenizer.main()
        assert caught.value.code == 2
        assert words in capsys.readouterr().err
    assert len(seen) == 1


@pytest.mark.parametrize("steps", [1, 2, 100])
def test_trial_runs_are_shorter_than_the_warm_up(steps):
    """As in the README: --set steps=100."""
    config = dataclasses.replace(TINY, steps=steps, optimiser=OptimiserConfig(warmup_steps=100))
    params = {"embed": {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}}
    optimiser = train.tokenizer.make_optimiser(config)
    updates, _ = optimiser.update(params, optimiser.init(params), params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))
