"""Checkpoints: which ones stay, onto other devices, and what does not fit named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helix_jax import parallel
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
    places = parallel.shardings(state, rules, grid)
    return jax.device_put(state, places), places


def abstract(state):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)


def test_the_best_and_the_last_stay(opened):
    kept = opened(keep_last=2, keep_best=1)
    state, _ = state_on(parallel.training_mesh(1))
    for step, psnr in ((1, 20.0), (2, 25.0), (3, 21.0), (4, None), (5, 24.0), (6, None)):
        kept.save(step, state, {}, {} if psnr is None else {"psnr": psnr})
    kept.close()
    again = opened(read_only=True)
    assert again.steps == [2, 5, 6]
    assert again.best_step() == 2


def test_no_metric_no_best(opened):
    kept = opened(keep_best=0)
    kept.save(1, state_on(parallel.training_mesh(1))[0], {}, {})
    kept.close()
    assert opened(read_only=True).best_step() is None


@pytest.mark.parametrize(("devices", "fsdp"), [(8, 2), (4, 4), (1, 1)])
def test_restored_onto_other_devices(opened, devices, fsdp):
    state, _ = state_on(parallel.training_mesh(8))
    kept = opened()
    kept.save(3, state, {"config": {"seed": 1}}, {"psnr": 1.0})
    kept.close()
    _, places = state_on(parallel.training_mesh(fsdp, jax.devices()[:devices]))
    again = opened()
    back = again.restore(3, abstract(state), places)
    for one, other, place in zip(*map(jax.tree.leaves, (back, state, places)), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.sharding == place
    assert again.record(3) == {"config": {"seed": 1}}


def test_what_does_not_fit_is_named(opened):
    grid = parallel.training_mesh(1)
    state, places = state_on(grid)
    kept = opened()
    kept.save(1, state, {}, {})
    kept.close()
    again = opened()
    whole = parallel.replicated(grid)
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
