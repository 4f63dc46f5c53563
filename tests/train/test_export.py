"""From a checkpoint to the weights file of the codec."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from helix_jax import weights
from train import export, loop, tokenizer
from train.config import ShardingRule, TokenizerTraining


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny, shards):
    """Four steps with parameters shared out over eight devices."""
    cfg = dataclasses.replace(tiny, parallel=dataclasses.replace(tiny.parallel, fsdp=8))
    folder = tmp_path_factory.mktemp("run")
    loop.run(cfg, tokenizer.task(cfg), shards, folder)
    return folder


def test_last_step_is_what_the_run_wrote(run, tmp_path, capsys):
    export.main(["--run", str(run), "--out", str(tmp_path / "w.safetensors")])
    assert capsys.readouterr().out.endswith("w.safetensors: step 4\n")
    one, other = weights.load(tmp_path / "w.safetensors"), weights.load(run / "weights.safetensors")
    assert one.digest == other.digest


def test_other_steps_and_weights(run, tmp_path):
    params = []
    for step, which in (("2", "average"), ("4", "average"), ("4", "params")):
        assert export.export(run, tmp_path / "w", step=step, which=which) == int(step)
        params.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(weights.load(tmp_path / "w").params)]))
    assert not np.array_equal(params[0], params[1])
    assert not np.array_equal(params[1], params[2])


def test_best_step_goes_by_the_probe(run, tmp_path):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    probed = {line["step"]: line["probe_psnr"] for line in lines if "probe_psnr" in line}
    assert set(probed) == {2, 4}
    assert export.export(run, tmp_path / "w", step="best") == max(probed, key=probed.__getitem__)


def test_wrong_use_is_named(run, tmp_path, capsys):
    for arguments, words in (
        (["--run", str(tmp_path)], "is not the folder of a run: it has no checkpoints"),
        (["--run", str(run), "--step", "3"], "has no checkpoint of step 3, but of 2, 4"),
        (["--run", str(run), "--step", "first"], "step 'first': give last, best"),
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
