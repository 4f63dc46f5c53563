"""Weights files: float16 and back, the hash of what decides the tokens, and damage named."""

import dataclasses

import jax
import numpy as np
import pytest
import safetensors.numpy

from helix_jax.config import TokenizerConfig
from helix_jax.tokenizer import model, weights

CONFIG = TokenizerConfig(width=16, encoder_blocks=1, decoder_blocks=2, digits=4, tile=(4, 8, 8))


@pytest.fixture(scope="module")
def params():
    return model.init(jax.random.key(3), CONFIG)


@pytest.fixture
def path(tmp_path, params):
    weights.save(tmp_path / "a.safetensors", params, CONFIG, {"steps": "7"})
    return tmp_path / "a.safetensors"


def test_round_trip_to_float16(path, params):
    loaded = weights.load(path)
    assert loaded.config == CONFIG
    assert len(loaded.digest) == 32
    assert jax.tree.structure(loaded.params) == jax.tree.structure(params)
    for one, other in zip(jax.tree.leaves(loaded.params), jax.tree.leaves(params), strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, np.asarray(other).astype(np.float16).astype(np.float32))


def test_loaded_weights_save_to_the_same_tensors(path):
    loaded = weights.load(path)
    weights.save(path.with_name("b.safetensors"), loaded.params, loaded.config, {})
    again = weights.load(path.with_name("b.safetensors"))
    assert again.config == loaded.config
    assert again.digest == loaded.digest  # the notes differ, the model is the same
    for one, other in zip(jax.tree.leaves(again.params), jax.tree.leaves(loaded.params), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_model_has_another_hash(path, params):
    loaded = weights.load(path)
    changed = jax.tree.map(lambda leaf: leaf, params)
    changed["unembed"]["b"] = changed["unembed"]["b"] + 1
    weights.save(path.with_name("c.safetensors"), changed, CONFIG, {})
    assert weights.load(path.with_name("c.safetensors")).digest != loaded.digest
    retiled = dataclasses.replace(CONFIG, tile=(4, 4, 4))  # the same group in time
    weights.save(path.with_name("d.safetensors"), params, retiled, {})
    assert weights.load(path.with_name("d.safetensors")).digest == loaded.digest
    silent = dataclasses.replace(CONFIG, silence=1.0)
    weights.save(path.with_name("e.safetensors"), params, silent, {})
    assert weights.load(path.with_name("e.safetensors")).config == silent
    assert weights.load(path.with_name("e.safetensors")).digest != loaded.digest


def test_values_beyond_float16_are_named(tmp_path, params):
    huge = jax.tree.map(lambda leaf: leaf, params)
    huge["unembed"]["b"] = huge["unembed"]["b"] + 1e6
    with pytest.raises(weights.WeightsError, match=r"unembed\.b"):
        weights.save(tmp_path / "huge.safetensors", huge, CONFIG, {})
    assert not list(tmp_path.iterdir())


def test_loaded_weights_run(path):
    loaded = weights.load(path)
    clip = np.random.default_rng(0).integers(0, 256, (1, 4, 16, 16, 3), dtype=np.uint8)
    tokens = model.encode(loaded.params, clip, loaded.config)
    assert tokens.shape == (1, 1, 2, 2, 4)
    assert model.decode(loaded.params, tokens, loaded.config).shape == clip.shape


def test_missing(tmp_path):
    with pytest.raises(weights.WeightsError, match=r"gone\.safetensors.*--model"):
        weights.load(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_cut_short(path, keep):
    blob = path.read_bytes()
    path.write_bytes(blob[: keep if isinstance(keep, int) else int(keep * len(blob))])
    with pytest.raises(weights.WeightsError, match="is not a tokenizer weights file"):
        weights.load(path)


def rewritten(path, flat=None, metadata=None):
    with safetensors.safe_open(str(path), framework="numpy") as handle:
        kept = handle.metadata()
    flat = safetensors.numpy.load(path.read_bytes()) if flat is None else flat
    path.write_bytes(safetensors.numpy.save(flat, metadata=kept if metadata is None else metadata))


@pytest.mark.parametrize(
    "metadata", [{}, {"config": "no json"}, {"config": "{}"}, {"config": '{"tile": [1, 2, 3], "breadth": 4}'}]
)
def test_other_safetensors(path, metadata):
    rewritten(path, metadata=metadata)
    with pytest.raises(weights.WeightsError, match="is not a tokenizer weights file"):
        weights.load(path)


def test_tensors_that_do_not_fit_their_config(path):
    """A tensor gone, one too many, one of another shape: named, not found out in the middle of a clip."""
    flat = safetensors.numpy.load(path.read_bytes())
    without = {name: array for name, array in flat.items() if name != "encoder.0.gain"}
    for changed, word in (
        (without, "encoder.0.gain"),
        ({**flat, "encoder.9.gain": flat["encoder.0.gain"]}, "encoder.9.gain"),
        ({**flat, "embed.b": flat["embed.b"][:-1]}, "embed.b"),
    ):
        rewritten(path, flat=changed)
        with pytest.raises(weights.WeightsError, match=word):
            weights.load(path)


def test_shipped_weights():
    """The default model loads, is small enough to ship, and has the default shape and the hash that pools name."""
    assert weights.DEFAULT.stat().st_size <= 10e6
    assert weights.load().digest.hex().startswith("0d5a7bb08960296c")
    assert dataclasses.asdict(weights.load().config)["digits"] == 8
