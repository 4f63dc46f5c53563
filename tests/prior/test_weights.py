"""The prior's weights file: integers and back, a digest of all that decides the bits, and damage named."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from helix_jax.config import PriorConfig
from helix_jax.prior import net, stored, tables, weights
from helix_jax.tokenizer import weights as tokenizer_weights
from helix_jax.tokenizer.weights import WeightsError

CONFIG = PriorConfig(width=16, blocks=2, hidden=12, digits=4)
IMPORTANCE = np.array([900, 400, 70, 1], np.int32)
TOKENIZER = bytes(range(32))


@pytest.fixture(scope="module")
def params(wild):
    return wild(CONFIG, 5)


@pytest.fixture(scope="module")
def starts():
    generator = np.random.default_rng(1)
    made = []
    for start in weights.fresh_starts(CONFIG.digits):
        p, n = generator.integers(0, 65536, start.cells.shape), generator.integers(0, 251, start.cells.shape)
        drawn = generator.integers(-tables.WEIGHT_LIMIT, tables.WEIGHT_LIMIT + 1, start.weights.shape)
        made.append(tables.Start((p << 8 | n).astype(np.int32), drawn.astype(np.int32)))
    return tuple(made)


@pytest.fixture(scope="module")
def blob(tmp_path_factory, params, starts):
    """Content of a weights file."""
    path = tmp_path_factory.mktemp("weights") / "a.safetensors"
    weights.save(path, params, CONFIG, TOKENIZER, {"steps": "7"}, starts, IMPORTANCE)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path, blob):
    (tmp_path / "a.safetensors").write_bytes(blob)
    return tmp_path / "a.safetensors"


def rewritten(path, change=None, **metadata):
    """Write the file anew: ``change`` is called with its tensors, the metadata are put over the old ones."""
    with safetensors.safe_open(str(path), framework="numpy") as handle:
        kept = handle.metadata()
    flat = {name: array.copy() for name, array in safetensors.numpy.load(path.read_bytes()).items()}
    if change:
        change(flat)
    path.write_bytes(safetensors.numpy.save(flat, metadata=kept | metadata))
    return path


# ---- there and back ----------------------------------------------------------------------------------------


def test_round_trip(path, params, starts):
    """The parameters come back as ``quantise`` rounds them, to the bit; the starts as they are."""
    loaded = weights.load(path)
    assert (loaded.config, loaded.tokenizer, len(loaded.digest)) == (CONFIG, TOKENIZER, 32)
    rounded = jax.jit(net.quantise)(params)
    assert jax.tree.structure(loaded.params) == jax.tree.structure(rounded)
    for one, other in zip(jax.tree.leaves(loaded.params), jax.tree.leaves(rounded), strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, other)
    for one, other in zip((loaded.context, loaded.mixed), starts, strict=True):
        np.testing.assert_array_equal(one.cells, other.cells)
        np.testing.assert_array_equal(one.weights, other.weights)
    np.testing.assert_array_equal(loaded.importance, IMPORTANCE)


def test_what_was_loaded_is_saved_as_it_is(path):
    loaded = weights.load(path)
    again = path.with_name("b.safetensors")
    starts, notes = (loaded.context, loaded.mixed), {"other": "notes"}
    weights.save(again, loaded.params, CONFIG, TOKENIZER, notes, starts, loaded.importance)
    first, second = (safetensors.numpy.load(p.read_bytes()) for p in (path, again))
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array)
    assert weights.load(again).digest == loaded.digest  # the notes differ, the prior is the same


def test_starts_are_fresh_by_default(path, params):
    weights.save(path, params, CONFIG, TOKENIZER, {})
    loaded = weights.load(path)
    for one, other in zip((loaded.context, loaded.mixed), weights.fresh_starts(CONFIG.digits), strict=True):
        np.testing.assert_array_equal(one.cells, other.cells)
        np.testing.assert_array_equal(one.weights, other.weights)
    assert loaded.importance.tolist() == [1] * 4


def test_stored_is_the_same_without_jax(path):
    loaded, kept = weights.load(path), stored.read(path)
    assert (kept.digest, kept.config, kept.tokenizer) == (loaded.digest, loaded.config, loaded.tokenizer)
    assert jax.tree.structure(kept.params) == jax.tree.structure(loaded.params)
    for one, other in zip(jax.tree.leaves(kept.params), jax.tree.leaves(loaded.params), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in ((kept.context, loaded.context), (kept.mixed, loaded.mixed)):
        np.testing.assert_array_equal(one.cells, other.cells)
        np.testing.assert_array_equal(one.weights, other.weights)


# ---- the digest ----------------------------------------------------------------------------------------------


def test_every_tensor_counts(path, blob):
    """One unit of any number of any tensor, and the digest is another."""
    seen = {stored.read(path).digest}
    names = list(safetensors.numpy.load(blob))
    for name in names:
        path.write_bytes(blob)

        def change(flat, name=name):
            flat[name].reshape(-1)[-1] ^= 1

        seen.add(stored.read(rewritten(path, change)).digest)
    assert len(seen) == 1 + len(names)


def test_tokenizer_and_shape_count(path, blob):
    digest = stored.read(path).digest
    assert stored.read(rewritten(path, tokenizer=bytes(32).hex())).digest != digest
    for field in dataclasses.fields(CONFIG):
        path.write_bytes(blob)
        other = dataclasses.asdict(CONFIG) | {field.name: 4 + getattr(CONFIG, field.name)}
        assert stored.read(rewritten(path, config=json.dumps(other))).digest != digest
    path.write_bytes(blob)
    assert stored.read(rewritten(path, steps="8", more="notes")).digest == digest


# ---- damage --------------------------------------------------------------------------------------------------


def test_missing(tmp_path):
    for read in (weights.load, stored.read):
        with pytest.raises(WeightsError, match=r"gone\.safetensors.*--prior"):
            read(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_cut_short(path, blob, keep):
    path.write_bytes(blob[: keep if isinstance(keep, int) else int(keep * len(blob))])
    with pytest.raises(WeightsError, match=r"a\.safetensors is not a weights file of helix_jax's prior"):
        weights.load(path)


def test_weights_of_a_tokenizer(weights_file):
    with pytest.raises(WeightsError, match=rf"{weights_file.name} is not a weights file of helix_jax's prior"):
        weights.load(weights_file)


@pytest.mark.parametrize(
    "metadata",
    [{"config": "no json"}, {"config": "{}", "tokenizer": "zz"}, {"config": '{"breadth": 4}'}, {"config": "[3]"}],
)
def test_metadata_without_sense(path, metadata):
    with pytest.raises(WeightsError, match="is not a weights file of helix_jax's prior"):
        weights.load(rewritten(path, **metadata))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("blocks.1.temporal.shift", lambda flat: flat.pop("blocks.1.temporal.shift")),
        ("blocks.0.spatial.w", lambda flat: flat.pop("blocks.0.spatial.w")),
        ("earlier", lambda flat: flat.pop("earlier")),
        ("begun.w", lambda flat: flat.pop("begun.w")),
        ("after.b", lambda flat: flat.pop("after.b")),
        ("importance", lambda flat: flat.pop("importance")),
        ("within", lambda flat: flat.update(within=flat["earlier"])),
        ("context.n", lambda flat: flat.pop("context.n")),
        ("blocks.2.spatial.w", lambda flat: flat.update({"blocks.2.spatial.w": flat["blocks.0.spatial.w"]})),
        ("embed.b", lambda flat: flat.update({"embed.b": flat["embed.b"][:-1]})),
        ("mixed.weights", lambda flat: flat.update({"mixed.weights": flat["mixed.weights"][:, :-1].copy()})),
        ("phase", lambda flat: flat.update(phase=flat["phase"].astype(np.float32))),
        ("earlier", lambda flat: flat.update(earlier=flat["earlier"][:, :-1].copy())),
        ("importance", lambda flat: flat.update(importance=flat["importance"][:-1].copy())),
    ],
)
def test_tensors_that_do_not_fit_their_config(path, name, change):
    """Gone, one too many, of another shape or type: named, not found out in the middle of a clip."""
    with pytest.raises(WeightsError, match=rf"prior: {name} is "):
        weights.load(rewritten(path, change))


# ---- proof of exactness ----------------------------------------------------------------------------------------


def test_a_net_too_wide_is_not_saved(tmp_path):
    """Nine times 128 weights of 127 steps, times activations of 127."""
    config = PriorConfig(width=128, blocks=1, digits=4)
    zeros = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, np.float32), jax.eval_shape(lambda: net.init(jax.random.key(0), config))
    )
    zeros["blocks"][0]["spatial"]["w"][:, 5] = 0.9
    with pytest.raises(WeightsError, match=r"sums of blocks\.0\.spatial, channel 5, .*2\^24.*smaller width"):
        weights.save(tmp_path / "wide.safetensors", zeros, config, TOKENIZER, {})
    assert not list(tmp_path.iterdir())
    zeros["blocks"][0]["spatial"]["w"][-200:, 5] = 0
    weights.save(tmp_path / "wide.safetensors", zeros, config, TOKENIZER, {})


@pytest.mark.parametrize(
    ("layer", "tensor", "place", "value"),
    [
        ("embed", "embed.b", 3, 1 << 24),
        ("alone", "alone.b", 3, -(1 << 24)),
        ("after", "after.b", 3, 1 << 24),
        ("begun", "begun.b", 3, -(1 << 24)),
        ("blocks.1.temporal", "blocks.1.temporal.b", 3, 1 << 24),
        ("begun", "earlier", (0, 3), 1 << 24),
        ("begun", "earlier", (15, 3), -(1 << 24)),
        ("embed", "phase", (2, 3), -(1 << 24)),
    ],
)
def test_sums_past_2_to_24_are_refused(path, layer, tensor, place, value):
    def change(flat):
        flat[tensor][place] = value

    with pytest.raises(WeightsError, match=rf"sums of {layer}, channel 3, may reach \d+"):
        weights.load(rewritten(path, change))


@pytest.mark.parametrize(("layer", "more"), [("begun", "earlier"), ("embed", "phase")])
def test_the_finer_unit_counts(path, layer, more):
    """A sum in coarse steps, to which fine ones are added, has to hold both."""

    def change(flat):
        flat[f"{layer}.shift"][3] = 0
        flat[f"{layer}.b"][3] = 1 << 22
        flat[more][:, 3] = 1

    with pytest.raises(WeightsError, match=rf"sums of {layer}, channel 3"):
        weights.load(rewritten(path, change))


def test_every_digit_adds_its_largest(path):
    """One of the four levels of each digit is told: four digits of a quarter are too much, four levels of one are
    not."""
    quarter = 1 << 22

    def plain(flat):
        flat["begun.w"][:, 3], flat["begun.b"][3], flat["begun.shift"][3] = 0, 0, 5  # sums in steps of 2^-10
        flat["earlier"][:, 3] = 0

    def of_one_digit(flat):
        plain(flat)
        flat["earlier"][:4, 3] = quarter

    def of_each_digit(flat):
        plain(flat)
        flat["earlier"][[0, 5, 10, 15], 3] = quarter, -quarter, quarter, -quarter

    weights.load(rewritten(path, of_one_digit))
    with pytest.raises(WeightsError, match=r"sums of begun, channel 3"):
        weights.load(rewritten(path, of_each_digit))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_run_that_diverged_is_not_saved(tmp_path, params, value):
    """Whole numbers have no such values: they would become some weight or other."""
    broken = jax.tree.map(np.copy, params)
    broken["earlier"][5, 2] = value
    with pytest.raises(WeightsError, match=r"earlier holds values that are no numbers"):
        weights.save(tmp_path / "nan.safetensors", broken, CONFIG, TOKENIZER, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("tensor", "value"), [("after.shift", -1), ("after.shift", 15), ("after.w", -128)])
def test_what_the_net_does_not_have(path, tensor, value):
    def change(flat):
        flat[tensor].reshape(-1)[0] = value

    with pytest.raises(WeightsError, match="after holds a weight or a shift"):
        weights.load(rewritten(path, change))


# ---- the shipped file --------------------------------------------------------------------------------------------


def test_shipped_weights():
    """They load, are small enough to ship, name the whole shape of the net, and belong to the shipped tokenizer."""
    shipped, tokenizer = weights.load(), tokenizer_weights.load()
    assert weights.DEFAULT.stat().st_size <= 10e6
    assert shipped.tokenizer == tokenizer.digest
    assert shipped.config.digits == tokenizer.config.digits
    with safetensors.safe_open(str(weights.DEFAULT), framework="numpy") as handle:
        assert json.loads(handle.metadata()["config"]) == dataclasses.asdict(shipped.config)
    assert (shipped.importance > 0).all()
