"""Scaling figures of a net without blocks on one and two devices; bytes of collectives against counts by hand."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from eval import collectives, scaling
from train import sharding

CONFIG = """
from helix_jax.config import TokenizerConfig
from train.config import DataConfig, TokenizerTraining


def get():
    return TokenizerTraining(
        model=TokenizerConfig(width=4, encoder_blocks=0, decoder_blocks=0, digits=2),
        data=DataConfig(frames=4, size=8, speeds=(1,)),
        batch=2,
        min_digits=1,
    )
"""
PARAMETERS = 2 * 768 * 4 + 4 + 768 + 2 * 4 * 2 + 2 + 4  # embed and unembed, to and from the digits


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(CONFIG)
    return path


@pytest.mark.slow
def test_one_and_two_devices(config, tmp_path, capfd):
    """The command itself, with data that it makes and a process for each number of devices."""
    out = tmp_path / "figures.json"
    options = ["--devices", "1", "2", "--scaling", "weak", "--steps", "2", "--json", str(out)]
    scaling.main(["--config", str(config), *options])
    figures = json.loads(out.read_text())
    one, two = figures["rows"]
    assert figures["parameters"] == PARAMETERS
    assert [(row["scaling"], row["devices"], row["batch"], row["mesh"]) for row in (one, two)] == [
        ("weak", 1, 2, [1, 1]),
        ("weak", 2, 4, [2, 1]),
    ]
    # all-reduce: the gradient, the loss and its one companion, mse, all float32
    assert one["collectives"] == {}
    assert two["collectives"] == {"all-reduce": 4 * (PARAMETERS + 2)}
    assert one["communication_seconds"] == one["left_bytes"] == two["left_bytes"] == 0
    for row in (one, two):
        positive = {name: value for name, value in row.items() if name.endswith(("second", "seconds"))}
        del positive["communication_seconds"]
        assert len(positive) == 7
        assert all(math.isfinite(value) and value > 0 for value in positive.values())
        assert 0 <= row["communication_seconds"] <= row["step_seconds"]
        assert 0 <= row["wait_share"] <= 1
        assert row["mfu"] is None
        assert row["cores"] > 0
        assert row["images_per_second"] == pytest.approx(4 * row["batch"] / row["step_seconds"])
    assert one["efficiency"] == one["ceiling"] == 1
    assert two["efficiency"] == pytest.approx(two["images_per_second"] / one["images_per_second"] / 2)
    assert two["ceiling"] == min(2, figures["cores"]) / 2
    assert two["flops"] == pytest.approx(2 * one["flops"])
    printed, progress = capfd.readouterr()
    for words in ("1x1", "2x1", "all-reduce", f"{4 * (PARAMETERS + 2):,}", "min(N,", f"{PARAMETERS:,} parameters"):
        assert words in printed
    assert "2 devices, weak: compiling" in progress
    assert "compiling" not in printed


# ---- bytes -----------------------------------------------------------------------------------------


def compiled(function, grid, *shapes, spec=("data", "fsdp"), out=()):
    specs = PartitionSpec(*spec)
    mapped = jax.shard_map(function, mesh=grid, in_specs=specs, out_specs=PartitionSpec(*out), check_vma=False)
    places = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(grid, specs)) for shape in shapes]
    return jax.jit(mapped).lower(*places).compile().as_text()


@pytest.fixture
def grid():
    """4 x 2 devices."""
    return sharding.training_mesh(2)


def test_operands_are_counted(grid):
    """Of one device: a share of [8, 6] over (data, fsdp) is [2, 3]."""

    def every(x):
        gathered = jax.lax.all_gather(x, "data", tiled=True)
        return jax.lax.psum(x, ("data", "fsdp")).sum() + jax.lax.psum_scatter(gathered, "data", tiled=True).sum()

    assert collectives.operand_bytes(compiled(every, grid, (8, 6))) == {
        "all-reduce": 4 * 2 * 3,
        "all-gather": 4 * 2 * 3,
        "reduce-scatter": 4 * 8 * 3,
    }


def test_a_loop_counts_as_often_as_it_turns(grid):
    def turn(_, x):
        return jnp.tanh(jax.lax.psum(x, "data"))

    text = compiled(lambda x: jax.lax.fori_loop(0, 7, turn, x), grid, (8, 6), out=("data", "fsdp"))
    assert collectives.operand_bytes(text) == {"all-reduce": 7 * 4 * 2 * 3}


def test_a_group_of_one_moves_nothing():
    grid = jax.make_mesh((8, 1), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    text = compiled(lambda x: jax.lax.all_gather(x, "fsdp", tiled=True), grid, (8, 6), out=("data", "fsdp"))
    assert collectives.operand_bytes(text) == {}


@pytest.mark.parametrize(
    ("groups", "alone"),
    [
        ("{{0},{1}}", True),
        ("{{0,1},{2,3}}", False),
        ("[8,1]<=[8]", True),
        ("[1,8]<=[8]", False),
        ("mesh['a'=4,'b'=1] {'b'}", True),
        ("mesh['a'=4,'b'=2] {'b'}", False),
        ("mesh['a'=4] {'a':(1)2}", False),
    ],
)
def test_ways_to_write_groups(groups, alone):
    """Shapes of accelerators too: a start with a tuple as its result counts its operands, its end nothing."""
    text = f"""HloModule m

ENTRY %main (p: bf16[4,8]) -> bf16[4,64] {{
  %p = bf16[4,8]{{1,0:T(8,128)(2,1)}} parameter(0)
  %s = (bf16[4,8]{{1,0:T(8,128)(2,1)}}, bf16[4,64]{{1,0}}) all-gather-start(%p), replica_groups={groups}
  ROOT %d = bf16[4,64]{{1,0}} all-gather-done(%s)
}}
"""
    assert collectives.operand_bytes(text) == ({} if alone else {"all-gather": 2 * 4 * 8})


def test_without_collectives_shapes_stay(grid):
    """The substitutes give each device what is its own; ``parallel`` gets its collectives back."""
    params = {"w": np.arange(12, dtype=np.float32).reshape(2, 6), "b": np.ones(3, np.float32)}
    places = sharding.shardings(params, [("w", (None, "fsdp"))], grid)
    batch = np.ones((8, 6), np.float32)

    def loss(params, rows, key):
        return (rows @ params["w"].T).sum() + params["b"].sum(), {"rows": rows.sum()}

    def text(deterministic):
        function = sharding.gradients(loss, grid, places, 8, deterministic)
        return jax.jit(function).lower(params, batch, jax.random.key(0)).compile().as_text()

    for deterministic in (False, True):
        with collectives.left_out():
            assert collectives.operand_bytes(text(deterministic)) == {}
        assert collectives.operand_bytes(text(deterministic))["all-gather"] > 0
    assert sharding.lax is jax.lax


# ---- wrong use and the cut -------------------------------------------------------------------------


def test_weak_and_strong(config):
    cfg, _ = scaling.configured(config, ["parallel.micro=2", "parallel.fsdp=4"])
    weak, strong = (scaling.cut(cfg, name, 2) for name in scaling.SCALINGS)
    assert (weak.batch, weak.parallel.micro, weak.parallel.fsdp) == (4, 4, 2)
    assert strong == dataclasses.replace(cfg, parallel=dataclasses.replace(cfg.parallel, fsdp=2))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "stepz=3"], "no field 'stepz'; TokenizerTraining has model, data"),
        (["--config", "gone.py"], "gone.py"),
        (["--config", __file__], "has no function get()"),
        (["--devices", "1", "4"], "strong scaling on 4 devices: a batch of 2 cannot be cut in 4"),
        (["--set", "parallel.micro=3"], "weak scaling on 1 devices: a batch of 2 cannot be cut in 3"),
        (["--devices", "0"], "--steps and --devices are 1 or more"),
        (["--steps", "0"], "--steps and --devices are 1 or more"),
        (["--scaling", "sideways"], "sideways"),
        (["--data", "/nowhere"], "/nowhere: no such file or folder"),
    ],
)
def test_wrong_use_is_one_line(config, arguments, words, capsys):
    with pytest.raises(SystemExit) as caught:
        scaling.main(["--config", str(config), "--devices", "1", *arguments])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
