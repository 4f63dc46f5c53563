"""The training loop: a run of a few steps, picking up where it stopped, the step against one device, NaN, pictures."""

import dataclasses
import json
import os
import re
import shutil
import signal

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import optax
import pytest

from helix_jax.tokenizer import model, weights
from train import checkpoint, loop, optimiser, sharding, tokenizer
from train.shards import open_shards


def log_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def losses_of(run):
    return [(record["step"], record["loss"]) for record in log_of(run) if "loss" in record]


def set_to(config, **changes):
    """A configuration with fields of its parts changed: set_to(cfg, parallel={"fsdp": 2}, steps=3)."""
    parts = {
        name: dataclasses.replace(getattr(config, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return dataclasses.replace(config, **parts)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny, shards):
    """A run of four steps, at one go."""
    run = tmp_path_factory.mktemp("run")
    assert loop.run(tiny, tokenizer.task(tiny), shards, run) == 4
    return run


def test_run(finished, tiny):
    log = [record for record in log_of(finished) if "loss" in record]
    assert [record["step"] for record in log] == [1, 2, 3, 4]
    names = {"step", "loss", "mse", "grad_norm", "skipped_records", "images_per_second", "step_seconds", "data_share"}
    assert all(set(record) == names and np.isfinite(list(record.values())).all() for record in log)
    assert [record["step"] for record in log_of(finished) if "probe_psnr" in record] == [2, 4]
    saved = json.loads((finished / "config.json").read_text())
    assert saved["config"] == json.loads(json.dumps(dataclasses.asdict(tiny)))
    assert saved["code"].startswith("0.")
    loaded = weights.load(finished / "weights.safetensors")
    assert loaded.config == tiny.model
    start = model.init(jax.random.key(tiny.seed), tiny.model)
    moved = jax.tree.map(lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()), loaded.params, start)
    assert max(jax.tree.leaves(moved)) > 1e-4
    assert any((finished / "tensorboard").iterdir())


def test_sample_pictures_show_original_and_decoded(finished, tiny, shards):
    picture = (matplotlib.image.imread(finished / "pictures" / "0000004.png")[..., :3] * 255).round().astype(np.uint8)
    probe = loop.probe_clips(tiny, shards)
    assert picture.shape == (2 * 16, 2 * 16, 3)
    np.testing.assert_array_equal(picture[:, :16], probe[:, 4].reshape(32, 16, 3))
    loaded = weights.load(finished / "weights.safetensors")
    decoded = tokenizer.task(tiny).show(loaded.params, probe)  # float16 weights: nearly
    assert np.abs(picture[:, 16:] - np.asarray(decoded)[:, 4].reshape(32, 16, 3).astype(int)).mean() < 2
    error = np.square(probe.astype(float) - np.asarray(decoded)).mean(axis=(2, 3, 4))
    psnr = np.mean(10 * np.log10(255**2 / error))
    assert log_of(finished)[-1]["probe_psnr"] == pytest.approx(psnr, abs=0.1)


def test_resumed_run_is_the_uninterrupted_one(tmp_path, shards, finished, tiny, capsys):
    """From the checkpoint of step 2, as after a kill amid a line and a save: the steps that follow are the same."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for path in (run / "checkpoints" / "4" / "state").glob("ocdbt.process_0/d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (run / "weights.safetensors").unlink()
    lines = (finished / "log.jsonl").read_text().splitlines(keepends=True)
    (run / "log.jsonl").write_text("".join(lines[:4]) + lines[4][:20])
    loop.run(tiny, tokenizer.task(tiny), shards, run)
    told = capsys.readouterr().out
    assert "resuming at step 2\n" in told
    assert f"moved to {run / 'broken_checkpoints'}: 4: an array cannot be read" in told
    assert losses_of(run) == losses_of(finished)
    one, other = (weights.load(folder / "weights.safetensors") for folder in (run, finished))
    assert one.digest == other.digest


def test_finished_run_stays(finished, shards, tiny):
    before = weights.load(finished / "weights.safetensors").digest, log_of(finished)
    loop.run(tiny, tokenizer.task(tiny), shards, finished)
    assert (weights.load(finished / "weights.safetensors").digest, log_of(finished)) == before


def test_fewer_steps_than_are_done_are_refused(finished, shards, tiny):
    """By name; what the run wrote stays."""
    before = (finished / "config.json").read_text(), log_of(finished)
    with pytest.raises(ValueError, match=r"steps is 3, and the checkpoint of .* is of step 4: set steps to 4 or more"):
        loop.run(set_to(tiny, steps=3), tokenizer.task(tiny), shards, finished)
    assert ((finished / "config.json").read_text(), log_of(finished)) == before


def test_straight_from_a_folder_of_videos(tmp_path, tiny, videos, finished):
    """Cut with the settings of ``shards``: the very same run."""
    loop.run(tiny, tokenizer.task(tiny), videos, tmp_path)
    clips = [row[0] for part in json.loads((tmp_path / "shards" / "index.json").read_text())["files"]
             for row in part["pieces"]]  # fmt: skip
    assert set(clips) == {"a.mp4", "b.mp4"}
    assert losses_of(tmp_path) == losses_of(finished)


def test_validation_is_what_the_probe_shows(tmp_path, tiny, shards, make_clip):
    """Here from a folder of videos, which is cut too."""
    (tmp_path / "other").mkdir()
    make_clip(tmp_path / "other" / "other.mp4", 20, 40, 48)
    loop.run(tiny, tokenizer.task(tiny), shards, tmp_path / "run", validation=tmp_path / "other")
    picture = matplotlib.image.imread(tmp_path / "run" / "pictures" / "0000004.png")
    probe = loop.probe_clips(tiny, tmp_path / "run" / "validation")
    assert {row[0] for row in open_shards(tmp_path / "run" / "validation").rows} == {"other.mp4"}
    np.testing.assert_allclose(picture[:, :16, :3] * 255, probe[:, 4].reshape(32, 16, 3), atol=0.5)


# ---- the step ------------------------------------------------------------------------------


def one_step(cfg, clips):
    grid = sharding.training_mesh(cfg.parallel.fsdp)
    create, step, *_ = loop.build(cfg, tokenizer.task(cfg), grid)
    state, metrics = step(create(jax.random.key(0)), sharding.to_global(clips, grid))
    return jax.tree.map(np.asarray, (state, metrics))


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(0).integers(0, 256, (16, 8, 16, 16, 3), dtype=np.uint8)


def plain_step(cfg, clips):
    """The step again, on one device, without any of our parallel code: the mean over the micro-batches, in a loop."""
    task = tokenizer.task(cfg)
    params = jax.jit(task.init)(jax.random.key(0))
    change = optimiser.make(cfg.optimiser, cfg.steps, task.vectors)
    key = jax.random.fold_in(jax.random.key(cfg.seed), 0)
    parts = clips.reshape(cfg.parallel.micro, -1, *clips.shape[1:])
    of_part = jax.jit(jax.value_and_grad(task.loss, has_aux=True))  # op by op it takes three hundred compilations
    each = [of_part(params, jnp.asarray(part), jax.random.fold_in(key, n), 0) for n, part in enumerate(parts)]
    (loss, _), grads = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *each)
    updates, _ = change.update(grads, change.init(params), params)
    return optax.apply_updates(params, updates), loss, optax.tree.norm(grads)


@pytest.mark.parametrize(
    ("deterministic", "fsdp"),
    [
        (False, 4),
        pytest.param(True, 1, marks=pytest.mark.slow),
        pytest.param(True, 4, marks=pytest.mark.slow),
        pytest.param(False, 1, marks=pytest.mark.slow),
    ],
)
def test_step_is_that_of_one_device(tiny, clips, fsdp, deterministic):
    cfg = set_to(tiny, parallel={"fsdp": fsdp, "deterministic": deterministic}, optimiser={"warmup_steps": 0})
    state, metrics = one_step(cfg, clips)
    params, loss, norm = plain_step(cfg, clips)
    assert metrics["loss"] == pytest.approx(float(loss), rel=1e-6)
    assert metrics["grad_norm"] == pytest.approx(float(norm), rel=1e-5)
    for one, other in zip(jax.tree.leaves(state["params"]), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    assert state["step"] == 1


@pytest.mark.slow
def test_remat_changes_nothing_and_bfloat16_little(tiny, clips):
    plain = one_step(tiny, clips)
    remat = one_step(set_to(tiny, parallel={"remat": True}), clips)
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(remat), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    _, half = one_step(set_to(tiny, parallel={"compute": "bfloat16"}), clips)
    assert half["loss"] == pytest.approx(plain[1]["loss"], rel=0.02)
    assert half["loss"] != plain[1]["loss"]
    with pytest.raises(ValueError, match="compute is 'float64': use float32 or bfloat16"):
        set_to(tiny, parallel={"compute": "float64"})


@pytest.mark.slow
def test_remat_keeps_less(tiny, clips):
    """The blocks' inner values are not kept for the way back."""
    block = clips.size // 3 // 256 * tiny.model.width  # values of one block's output

    def kept(blocks, remat):
        """Arrays of a block's output's size or more, in such units, that go from the way there to the way back."""
        cfg = set_to(tiny, model={"decoder_blocks": blocks})
        loss = loop.loss_of(cfg, tokenizer.task(cfg), remat)
        params = tokenizer.task(cfg).init(jax.random.key(0))
        _, back = jax.vjp(lambda params: loss(params, clips, jax.random.key(0), 0)[0], params)
        return sum(leaf.size for leaf in jax.tree.leaves(back) if leaf.shape[:1] == clips.shape[:1]) / block

    assert kept(6, True) - kept(2, True) == pytest.approx(4)  # one output for each block more
    assert kept(6, False) - kept(2, False) > 3 * 4


def test_donated_state_is_gone_and_the_other_stays(tiny, clips):
    grid = sharding.training_mesh(1)
    for donate in (True, False):
        create, step, *_ = loop.build(set_to(tiny, parallel={"donate": donate}), tokenizer.task(tiny), grid)
        state = create(jax.random.key(0))
        new, _ = step(state, sharding.to_global(clips, grid))
        assert [leaf.is_deleted() for leaf in jax.tree.leaves(state["params"])] == [donate] * len(
            jax.tree.leaves(state["params"])
        )
        assert new["step"] == 1


@pytest.mark.slow
def test_frozen_parameters_do_not_move(tiny, clips):
    cfg = set_to(tiny, optimiser={"frozen": ("^encoder", "^embed", "^to_digits"), "warmup_steps": 0})
    state, _ = one_step(cfg, clips)
    start = jax.jit(tokenizer.task(cfg).init)(jax.random.key(0))
    for name, part in start.items():
        leaves = zip(jax.tree.leaves(part), jax.tree.leaves(state["params"][name]), strict=True)
        moved = [np.any(np.asarray(one) != other) for one, other in leaves]
        assert any(moved) == (name in ("from_digits", "decoder", "unembed"))


def test_clip_limits_the_gradient():
    grads = {"b": jnp.array([3.0, 0, 0, 4.0])}
    np.testing.assert_allclose(optimiser.clipped(grads, 5.0, 0.5)["b"], [0.3, 0, 0, 0.4], rtol=1e-6)
    for most in (0.0, 6.0):
        np.testing.assert_array_equal(optimiser.clipped(grads, 5.0, most)["b"], grads["b"])


@pytest.mark.slow  # compiles two steps; how it clips is tested above
def test_a_step_clips(tiny, clips):
    limited, plain = (one_step(set_to(tiny, optimiser={"clip": most}), clips) for most in (1e-3, 0.0))
    moments = [
        max(np.abs(leaf).max() for path, leaf in jax.tree_util.tree_flatten_with_path(state["optimiser"])[0]
            if sharding.path_name(path).split(".")[-3:-2] == ["mu"])
        for state, _ in (limited, plain)
    ]  # fmt: skip
    assert moments[0] == pytest.approx(moments[1] * 1e-3 / plain[1]["grad_norm"], rel=1e-3)


@pytest.mark.slow
def test_clipping_can_begin_when_a_run_goes_on(tmp_path, finished, tiny, shards):
    """As the message of a NaN advises."""
    shutil.copytree(finished, tmp_path / "run")
    cfg = set_to(tiny, steps=5, optimiser={"clip": 1.0})
    assert loop.run(cfg, tokenizer.task(cfg), shards, tmp_path / "run") == 5


def test_average_follows_slowly():
    """rate of the old average; its memory is shorter at first."""
    average = optimiser.averaged({"w": jnp.ones(1)}, {"w": jnp.zeros(1)}, jnp.int32(10_000), 0.99)
    assert float(average["w"][0]) == pytest.approx(0.99)
    average = optimiser.averaged({"w": jnp.ones(1)}, {"w": jnp.zeros(1)}, jnp.int32(0), 0.99)
    assert float(average["w"][0]) == pytest.approx(0.1)


def test_tail_dropout(tiny, clips):
    """All digits for full_share of the examples: 1 is the plain error, 0 is that of prefixes, and one between."""
    params = tokenizer.task(tiny).init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: 3 * leaf, params)  # so that digits matter

    def mse(share, least):
        cfg = dataclasses.replace(tiny, full_share=share, min_digits=least)
        return float(tokenizer.loss_fn(params, clips, jax.random.key(1), cfg)[1]["mse"])

    def of_prefix(count):
        levels = model.encode(params, clips, tiny.model).astype(np.float32)
        decoded = model.pixels(
            params, jnp.where(jnp.arange(4) < count, tokenizer.fsq.centre(levels, 1.5), 0.0), tiny.model
        )
        return float(jnp.mean(jnp.square(decoded - model.to_float(clips))))

    assert mse(1.0, 1) == pytest.approx(of_prefix(4), rel=1e-4)
    assert mse(0.0, 3) == pytest.approx(of_prefix(3), rel=1e-4)
    assert of_prefix(3) != pytest.approx(of_prefix(4), rel=1e-3)
    assert mse(0.5, 3) not in (pytest.approx(of_prefix(3), rel=1e-4), pytest.approx(of_prefix(4), rel=1e-4))


@pytest.mark.parametrize("steps", [1, 2, 100])
def test_trial_runs_are_shorter_than_the_warm_up(tiny, steps):
    """As in the README: --set steps=100."""
    params = {"embed": {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}}
    change = optimiser.make(dataclasses.replace(tiny.optimiser, warmup_steps=100), steps)
    updates, _ = change.update(params, change.init(params), params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))


# ---- starting points -------------------------------------------------------------------------


@pytest.mark.slow
def test_start_from_weights(tmp_path, tiny, shards, finished, capsys):
    """A net with one more block starts from the other's weights; what they lack is named."""
    cfg = set_to(tiny, model={"decoder_blocks": 2}, init_from=str(finished / "weights.safetensors"), steps=1)
    loop.run(cfg, tokenizer.task(cfg), shards, tmp_path)
    assert "fresh: decoder.1.gain, decoder.1.spatial.b" in capsys.readouterr().out
    places = loop.build(cfg, tokenizer.task(cfg), sharding.training_mesh(1))[3]
    fresh = {"params": tokenizer.task(cfg).init(jax.random.key(0))}
    given = weights.load(finished / "weights.safetensors").params
    params = loop.started_from(given, fresh, "it", places)["params"]
    for part in ("embed", "unembed", "to_digits"):
        np.testing.assert_array_equal(params[part]["w"], given[part]["w"])
    np.testing.assert_array_equal(params["decoder"][1]["spatial"]["w"], fresh["params"]["decoder"][1]["spatial"]["w"])
    wrong = set_to(tiny, model={"width": 16}, init_from=cfg.init_from)
    with pytest.raises(ValueError, match=r"init_from .*: decoder.0.gain is \(8,\), the configuration needs \(16,\)"):
        loop.run(wrong, tokenizer.task(wrong), shards, tmp_path / "wrong")


def test_checkpoint_of_another_net_is_refused_by_name(finished, tiny, shards):
    wider = set_to(tiny, model={"width": 16})
    with pytest.raises(
        checkpoint.CheckpointError, match=r"checkpoint 4: average\.decoder\.0\.gain is float32\[8\], the "
    ):
        loop.run(wider, tokenizer.task(wider), shards, finished)


def test_changed_settings_are_told(tmp_path, finished, tiny, shards, capsys):
    """Here all steps are done already."""
    shutil.copytree(finished, tmp_path / "run")
    cfg = set_to(tiny, seed=1, log={"every": 2})
    loop.run(cfg, tokenizer.task(cfg), shards, tmp_path / "run")
    assert "resuming at step 4; changed since: log.every, seed\n" in capsys.readouterr().out


# ---- stopping ------------------------------------------------------------------------------


def broken_task(cfg, step):
    """The loss of a task that is no number at one step."""
    task = tokenizer.task(cfg)

    def loss(params, clips, key, done):
        value, aux = task.loss(params, clips, key, done)
        return jnp.where(done == step - 1, jnp.nan, value), aux

    return dataclasses.replace(task, loss=loss)


def test_loss_that_is_not_a_number_is_named(tmp_path, tiny, shards):
    with pytest.raises(FloatingPointError, match=r"loss of step 3 is nan: lower the learning rate"):
        loop.run(tiny, broken_task(tiny, 3), shards, tmp_path)
    assert [step for step, _ in losses_of(tmp_path)] == [1, 2]
    assert not (tmp_path / "weights.safetensors").exists()
    kept = checkpoint.Checkpoints(tmp_path / "checkpoints")
    assert kept.steps == [2]
    kept.close()


def test_a_lost_step_is_never_saved(tmp_path, tiny, shards):
    """Step 3 again, which is compiled already, and would now be saved."""
    cfg = set_to(tiny, checkpoint={"every": 3})
    with pytest.raises(FloatingPointError, match="loss of step 3 is nan"):
        loop.run(cfg, broken_task(cfg, 3), shards, tmp_path)
    kept = checkpoint.Checkpoints(tmp_path / "checkpoints")
    assert kept.steps == []
    kept.close()


def test_sigterm_saves_and_stops(tmp_path, tiny, shards, capsys):
    """Sent by the loss's own trace, so before the first step ends; the next run goes on."""
    task, before = tokenizer.task(tiny), signal.getsignal(signal.SIGTERM)

    def show(params, clips):
        os.kill(os.getpid(), signal.SIGTERM)  # while tracing, at the checkpoint of step 2
        return task.show(params, clips)

    last = loop.run(tiny, dataclasses.replace(task, show=show), shards, tmp_path)
    assert last == 3
    assert "told to stop: saved step 3" in capsys.readouterr().out
    assert not (tmp_path / "weights.safetensors").exists()
    assert signal.getsignal(signal.SIGTERM) is before
    assert loop.run(tiny, task, shards, tmp_path) == 4
    assert re.search("resuming at step 3", capsys.readouterr().out)


def test_patterns_that_match_nothing(tmp_path, tiny, shards):
    for pattern, words in (("^encodr", r"'\^encodr' matches no parameter"), ("[", r"'\[' is no pattern")):
        cfg = set_to(tiny, optimiser={"frozen": (pattern,)})
        with pytest.raises(ValueError, match="optimiser.frozen: " + words):
            loop.run(cfg, tokenizer.task(cfg), shards, tmp_path)


def test_batch_that_devices_cannot_share(tmp_path, tiny, shards):
    for changes, words in (
        ({"batch": 12}, "a batch of 12 cannot be cut in 8 equal micro-batches"),
        ({"parallel": {"micro": 12}}, "12 micro-batches cannot be shared evenly among 8 devices"),
        ({"parallel": {"fsdp": 3}}, "fsdp=3 does not divide 8 devices"),
    ):
        cfg = set_to(tiny, **changes)
        with pytest.raises(sharding.ParallelError, match=words):
            loop.run(cfg, tokenizer.task(cfg), shards, tmp_path)
