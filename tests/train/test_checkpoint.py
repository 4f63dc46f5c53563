"""Checkpoints: which ones stay, onto other devices, what does not fit named, and what is not whole passed over."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import sharding
from train.checkpoint import CheckpointError, Checkpoints


@pytest.fixture
def opened(tmp_path):
    """Checkpoints of a folder, closed at the end; opened(**options) again and again."""
    made = []

    def open_(**options):
        made.append(Checkpoints(tmp_path / "checkpoints", **options))
        return made[-1]

    yield open_
    for kept in made:
        kept.close()


def state_on(grid):
    rules = [("w", ("fsdp", None))]
    state = {
        "params": {"w": np.arange(32, dtype=np.float32).reshape(8, 4), "b": np.ones(4, np.float32)},
        "step": np.int32(7),
    }
    places = sharding.shardings(state, rules, grid)
    return jax.device_put(state, places), places


def abstract(state):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)


def test_the_best_and_the_last_stay(opened):
    kept = opened(keep_last=2, keep_best=1)
    state, _ = state_on(sharding.training_mesh(1))
    for step, psnr in ((1, 20.0), (2, 25.0), (3, 21.0), (4, None), (5, 24.0), (6, None)):
        kept.save(step, state, {}, {} if psnr is None else {"psnr": psnr})
    kept.close()
    again = opened(read_only=True)
    assert again.steps == [2, 5, 6]
    assert again.best_step() == 2


def test_no_metric_no_best(opened):
    kept = opened(keep_best=0)
    kept.save(1, state_on(sharding.training_mesh(1))[0], {}, {})
    kept.close()
    assert opened(read_only=True).best_step() is None


@pytest.mark.parametrize(("devices", "fsdp"), [(8, 2), (4, 4), (1, 1)])
def test_restored_onto_other_devices(opened, devices, fsdp):
    state, _ = state_on(sharding.training_mesh(8))
    kept = opened()
    kept.save(3, state, {"config": {"seed": 1}}, {"psnr": 1.0})
    kept.close()
    _, places = state_on(sharding.training_mesh(fsdp, jax.devices()[:devices]))
    again = opened()
    back = again.restore(3, abstract(state), places)
    for one, other, place in zip(*map(jax.tree.leaves, (back, state, places)), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.sharding == place
    assert again.record(3) == {"config": {"seed": 1}}


def test_what_does_not_fit_is_named(opened):
    grid = sharding.training_mesh(1)
    state, places = state_on(grid)
    kept = opened()
    kept.save(1, state, {}, {})
    kept.close()
    again = opened()
    whole = sharding.replicated(grid)
    for change, words in (
        ({"w": jnp.zeros((4, 4))}, r"params\.w is float32\[8, 4\], the configuration needs float32\[4, 4\]"),
        ({"w": jnp.zeros((8, 4), jnp.bfloat16)}, r"params\.w is float32\[8, 4\], .* needs bfloat16\[8, 4\]"),
        ({"c": jnp.zeros(1)}, r"params\.c is no array, the configuration needs float32\[1\]"),
    ):
        other = state | {"params": state["params"] | change}
        with pytest.raises(CheckpointError, match="checkpoint 1: " + words):
            again.restore(1, abstract(other), jax.tree.map(lambda leaf: whole, other))
    with pytest.raises(CheckpointError, match=r"params\.b is float32\[4\], the configuration needs no array"):
        again.restore(1, abstract({"params": {"w": state["params"]["w"]}, "step": state["step"]}), places)


# ---- saves that were cut short ---------------------------------------------------------------------


def emptied(step):
    shutil.rmtree(step)
    step.mkdir()


def without(pattern):
    def damage(step):
        for path in list(step.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def cut(pattern, keep=0):
    def damage(step):
        for path in step.glob(pattern):
            path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])

    return damage


def never_renamed(step):
    step.rename(step.with_name(f"{step.name}.orbax-checkpoint-tmp-1700000000"))


DAMAGES = {
    "the folder is empty": emptied,
    "commit_success.txt is missing": without("commit_success.txt"),
    "state/commit_success.txt is missing": without("state/commit_success.txt"),
    "_CHECKPOINT_METADATA is missing": without("_CHECKPOINT_METADATA"),
    "_CHECKPOINT_METADATA is cut short": cut("_CHECKPOINT_METADATA"),
    "run/metadata is missing": without("run/metadata"),
    "run/metadata is cut short": cut("run/metadata", 0.5),
    "metrics/metrics is cut short": cut("metrics/metrics"),
    "state/_METADATA is cut short": cut("state/_METADATA", 0.5),
    "state/commit_success.txt is missing ": without("state"),
    "an array cannot be read": cut("state/ocdbt.process_0/d/*", 0.9),
    "an array cannot be read ": cut("state/d/*"),
    "array large is missing": without("state/ocdbt.process_0"),
    "an array cannot be read   ": without("state/d"),
    "array large is missing ": without("state/manifest.ocdbt"),
    "a save that was cut short": never_renamed,
}


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Folder of checkpoints 1, 2 and 3, the newest also the best."""
    folder = tmp_path_factory.mktemp("three") / "checkpoints"
    kept, grid = Checkpoints(folder, keep_last=3), sharding.training_mesh(1)
    # large enough, and random, so that it lies in a file of its own
    state = state_on(grid)[0] | {
        "large": jax.device_put(np.random.default_rng(0).normal(size=5000), grid.devices[0, 0])
    }
    for step in (1, 2, 3):
        kept.save(step, state, {"config": {"seed": step}}, {"psnr": float(step)})
    kept.close()
    return folder


@pytest.mark.parametrize("reason", DAMAGES)
def test_the_newest_whole_one_is_taken(opened, tmp_path, three, reason):
    shutil.copytree(three, tmp_path / "checkpoints")
    DAMAGES[reason](tmp_path / "checkpoints" / "3")
    reading = opened(read_only=True)
    assert (reading.newest(), reading.best_step()) == (2, 2)
    assert not (tmp_path / "broken_checkpoints").exists()
    kept = opened(keep_last=2, keep_best=0)
    assert kept.steps == [1, 2]
    assert kept.record(2) == {"config": {"seed": 2}}
    ((name, told),) = kept.passed.items()
    assert name.startswith("3")
    assert told.startswith(reason.strip())
    assert [path.name for path in (tmp_path / "broken_checkpoints").iterdir()] == [name]
    # the same step can be saved again, and is the newest then
    kept.save(3, state_on(sharding.training_mesh(1))[0], {"config": {"seed": 9}}, {})
    kept.close()
    again = opened()
    assert (again.steps, again.passed) == ([2, 3], {})
    assert again.record(3) == {"config": {"seed": 9}}


def test_none_whole_is_refused_and_nothing_moved(opened, tmp_path, three):
    folder = tmp_path / "checkpoints"
    shutil.copytree(three, folder)
    for step, damage in (("1", emptied), ("2", cut("state/d/*")), ("3", without("commit_success.txt"))):
        damage(folder / step)
    with pytest.raises(CheckpointError, match=r"none .* whole \(.*1: the folder is empty.*2: an array.* 0"):
        opened()
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "3"]
    assert opened(read_only=True).newest() is None


def test_a_first_save_cut_short_is_no_loss(opened, tmp_path, three):
    """Nothing was ever kept, so there is nothing to go back to."""
    (tmp_path / "checkpoints").mkdir()
    shutil.copytree(three / "3", tmp_path / "checkpoints" / "3")
    never_renamed(tmp_path / "checkpoints" / "3")
    kept = opened()
    assert kept.steps == []
    assert list(kept.passed.values()) == ["a save that was cut short"]
