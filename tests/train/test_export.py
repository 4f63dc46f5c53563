"""From a checkpoint to the weights file of the codec; what rounding a prior's weights costs."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import safetensors

from helix_jax.config import PriorConfig
from helix_jax.prior import net
from helix_jax.prior import weights as prior_weights
from helix_jax.tokenizer import weights
from train import export, loop, prepare, prior, tokenizer
from train.config import DataConfig, PriorTraining, ShardingRule, TokenizerTraining


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny, shards):
    """Four steps, of the program that the tests of the loop compile. test_checkpoint.py restores shared parameters."""
    folder = tmp_path_factory.mktemp("run")
    loop.run(tiny, tokenizer.task(tiny), shards, folder)
    return folder


def test_last_step_is_what_the_run_wrote(run, tmp_path, capsys):
    export.main(["--run", str(run), "--out", str(tmp_path / "w.safetensors")])
    assert capsys.readouterr().out.endswith("w.safetensors: step 4\n")
    one, other = weights.load(tmp_path / "w.safetensors"), weights.load(run / "weights.safetensors")
    assert one.digest == other.digest
    export.main(["--run", str(run), "--out", str(tmp_path / "again.safetensors")])
    assert (tmp_path / "w.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_other_steps_and_weights(run, tmp_path):
    params = []
    for step, which in (("2", "average"), ("4", "average"), ("4", "params")):
        assert export.export(run, tmp_path / "w", step=step, which=which) == (int(step), None)
        params.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(weights.load(tmp_path / "w").params)]))
    assert not np.array_equal(params[0], params[1])
    assert not np.array_equal(params[1], params[2])


def test_what_is_not_whole_is_passed_over(run, tmp_path, capsys):
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / "4" / "run" / "metadata").write_bytes(b"")
    assert export.export(tmp_path, tmp_path / "w", step="last")[0] == 2
    assert "passed over, as they are not whole: checkpoints 4: run/metadata is cut short" in capsys.readouterr().out
    assert export.export(tmp_path, tmp_path / "w", step="best")[0] == 2
    with pytest.raises(ValueError, match=r"checkpoint 4 of .* is not whole \(run/metadata is cut short\): give"):
        export.export(tmp_path, tmp_path / "w", step="4")
    shutil.rmtree(tmp_path / "checkpoints" / "2")
    with pytest.raises(ValueError, match="no whole checkpoint to take as last"):
        export.export(tmp_path, tmp_path / "w")


def test_best_step_goes_by_the_probe(run, tmp_path):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    probed = {line["step"]: line["probe_psnr"] for line in lines if "probe_psnr" in line}
    assert set(probed) == {2, 4}
    assert export.export(run, tmp_path / "w", step="best")[0] == max(probed, key=probed.__getitem__)


def test_wrong_use_is_named(run, tmp_path, capsys):
    for arguments, words in (
        (["--run", str(tmp_path)], "is not the folder of a run: it has no checkpoints"),
        (["--run", str(run), "--step", "3"], "has no checkpoint of step 3, but of 2, 4"),
        (["--run", str(run), "--step", "first"], "step 'first': give last, best"),
        (["--run", str(run), "--int8"], "a tokenizer's run, and --int8 is for a prior's"),
        (["--run", str(run), "--data", "shards"], "--data is what --int8 measures on: add --int8"),
    ):
        with pytest.raises(SystemExit) as caught:
            export.main([*arguments, "--out", str(tmp_path / "x")])
        assert caught.value.code == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_configurations_survive_json(tiny):
    """Nested, with tuples of dataclasses."""
    assert tiny.parallel.sharding == (ShardingRule("spatial.w|temporal.w", (None, "fsdp")),)
    fields = json.loads(json.dumps(dataclasses.asdict(tiny)))
    assert export.from_dict(TokenizerTraining, fields) == tiny
    del fields["parallel"]["donate"]  # as an older version wrote it
    assert export.from_dict(TokenizerTraining, fields) == tiny
    with pytest.raises(ValueError, match=r"TokenizerTraining of another version: fields \['colour'\]"):
        export.from_dict(TokenizerTraining, fields | {"colour": 1})


# ---- the prior's integers ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pieces(videos, tmp_path_factory):
    """Shards of pieces of 16 frames: four latent frames."""
    out = tmp_path_factory.mktemp("pieces") / "shards"
    prepare.prepare([videos], out, frames=16, size=32, smallest=(16, 16), workers=1)
    return out


@pytest.fixture(scope="module")
def prior_run(tmp_path_factory, tiny, weights_file, pieces):
    """Two steps of a tiny prior on eight devices: (configuration, folder)."""
    cfg = PriorTraining(
        model=PriorConfig(width=8, blocks=1, hidden=16, frames=4),
        data=DataConfig(frames=16, size=16, speeds=(1,)),
        optimiser=tiny.optimiser,
        checkpoint=tiny.checkpoint,
        log=tiny.log,
        steps=2,
        batch=8,
        tokenizer=str(weights_file),
    )
    folder = tmp_path_factory.mktemp("prior")
    loop.run(cfg, prior.task(cfg), pieces, folder)
    return cfg, folder


@pytest.fixture
def few(monkeypatch):
    """Eight crops are enough here."""
    monkeypatch.setattr(export, "CROPS", 8)


def notes_of(path):
    with safetensors.safe_open(str(path), framework="numpy") as handle:
        return handle.metadata()


@pytest.mark.slow
def test_integers_are_the_same_bytes_and_their_cost_is_told(prior_run, pieces, tmp_path, few, capsys):
    _, run = prior_run
    for name in ("one", "two"):
        export.main(["--int8", "--run", str(run), "--data", str(pieces), "--out", str(tmp_path / name)])
    one, two = capsys.readouterr().out.splitlines()[:5], tmp_path / "two"
    assert (tmp_path / "one").read_bytes() == two.read_bytes()
    assert prior_weights.load(two).digest == prior_weights.load(run / "weights.safetensors").digest
    noted = json.loads(notes_of(two)["rounding"])
    assert noted["crops"] == 8
    assert one[0].endswith("one: step 2")
    assert one[1] == f"bits per digit, 8 crops of {pieces}:"
    assert one[2].split() == ["float32", "int8", "costs"]
    for line, way in zip(one[3:], ("masked", "causal"), strict=True):
        bits = noted["bits_per_digit"][way]
        assert 0.5 < bits["float32"] < 3
        assert bits["float32"] != bits["int8"] == pytest.approx(bits["float32"], rel=0.05)
        more = 100 * (bits["int8"] / bits["float32"] - 1)
        assert line.split() == [way, f"{bits['float32']:.4f}", f"{bits['int8']:.4f}", f"{more:+.2f}", "%"]


def test_without_data_nothing_is_reported(prior_run, tmp_path, capsys):
    """And without --int8 the same integers are written."""
    _, run = prior_run
    export.main(["--int8", "--run", str(run), "--out", str(tmp_path / "one")])
    assert "costs is not reported: give --data SHARDS" in capsys.readouterr().out
    export.main(["--run", str(run), "--out", str(tmp_path / "two")])
    assert capsys.readouterr().out.endswith("two: step 2\n")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert "rounding" not in notes_of(tmp_path / "one")


@pytest.mark.slow
def test_rounded_weights_cost_nothing_more(prior_run, pieces, few):
    """What the file holds is the net whose bits are given as int8."""
    cfg, run = prior_run
    given = prior_weights.load(run / "weights.safetensors").params
    cost = export.cost_of_rounding(cfg, given, pieces)
    for bits in cost.values():
        assert bits["float32"] == bits["int8"]
    export.export(run, run / "again.safetensors")
    params = prior.task(cfg).init(jax.random.key(0))
    assert export.cost_of_rounding(cfg, params, pieces) != cost


@pytest.mark.slow
def test_bits_of_a_net_that_knows_nothing(prior_run, pieces, few):
    """Two for each digit, whichever are hidden."""
    cfg, _ = prior_run
    zeros = jax.tree.map(np.zeros_like, net.init(jax.random.key(0), cfg.model))
    cost = export.cost_of_rounding(cfg, zeros, pieces)
    assert cost == {way: {"float32": 2.0, "int8": 2.0} for way in ("masked", "causal")}


@pytest.mark.slow
def test_bits_are_those_of_the_hidden_digits(prior_run):
    """Against a plain sum over digits, in one of whose places the net is told to be sure."""
    cfg, _ = prior_run
    params = jax.tree.map(np.zeros_like, net.init(jax.random.key(0), cfg.model))
    params["alone"]["b"] = np.tile(np.float32([-2, 0, 0]), cfg.model.digits)  # below 2, most likely
    params["after"]["b"] = -np.asarray(params["alone"]["b"])
    digits = np.random.default_rng(0).integers(0, 4, (3, 4, 2, 2, cfg.model.digits), np.uint8)
    key = jax.random.key(1)
    known, sent = (
        np.stack(each)
        for each in zip(*(prior.masks.mixture(k, digits.shape[1:]) for k in jax.random.split(key, 3)), strict=True)
    )
    low = [1 + np.log2(1 + np.exp(-2.0)), 1 + np.log2(1 + np.exp(2.0))]  # bits of a digit below 2, and of another
    hidden = sent[:, None, None, None] & ~known
    found = export._bits(params, digits, key, cfg.model)
    assert found["masked"][1] == hidden.sum()
    assert found["causal"][1] == digits.size
    assert found["masked"][0] == pytest.approx(np.where(digits < 2, *low)[hidden].sum(), rel=1e-5)
    assert found["causal"][0] == pytest.approx(np.where(digits < 2, *low[::-1]).sum(), rel=1e-5)


def test_shards_that_do_not_fit_are_named(prior_run, tmp_path, capsys):
    for folder, words in ((tmp_path, "is no finished folder of shards"), ("gone", "is no finished folder of shards")):
        with pytest.raises(SystemExit) as caught:
            export.main(["--int8", "--run", str(prior_run[1]), "--data", str(folder), "--out", str(tmp_path / "x")])
        assert caught.value.code == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
