"""The comparison of joint training: what its arms are, what is lost, how seeds are summed up, and a tiny one whole."""

import json
import shutil

import numpy as np
import pytest

from eval import joint
from tests.train.test_joint import CFG
from train import prepare


def test_separate_arms_share_nothing_but_tokens(tmp_path):
    (first, one), (second, two) = joint.phases("separate", CFG, tmp_path)
    assert one.optimiser.frozen == ("^prior",)
    assert two.optimiser.frozen == ("^tokenizer",)
    assert two.init_from == str(first / "tokenizer.safetensors")
    assert first != second
    for cfg in (one, two):
        assert cfg.rate == cfg.masked == cfg.concealment == cfg.constraint == 0
        assert (cfg.steps, cfg.seed, cfg.model, cfg.prior, cfg.distortion) == (
            CFG.steps, CFG.seed, CFG.model, CFG.prior, CFG.distortion,
        )  # fmt: skip
    assert [cfg for _, cfg in joint.phases("joint", CFG, tmp_path)] == [CFG]


@pytest.mark.parametrize("arm", joint.ABLATED)
def test_ablations_change_one_term(tmp_path, arm):
    ((_, cfg),) = joint.phases(arm, CFG, tmp_path)
    changed = [
        name for name in ("rate", "masked", "concealment", "constraint") if getattr(cfg, name) != getattr(CFG, name)
    ]
    assert changed == [arm.removeprefix("no ")]
    assert (getattr(cfg, changed[0]) == 0) == arm.startswith("no ")


def test_lost_tokens_are_whole_strands_far_apart():
    grid = (8, 18, 22)
    missing = joint.lost_tokens(grid, 0.3, np.random.default_rng(0))
    assert missing.shape == grid
    assert missing.mean() == pytest.approx(0.3, abs=0.01)
    assert missing.sum() % joint.TOKENS_PER_STRAND == 0  # 3,168 tokens are 198 strands
    both = missing[:, :, 1:] & missing[:, :, :-1]
    assert both.mean() < 0.15  # of neighbours that are lost by chance, 0.09; of tiles nearly 0.3
    assert not joint.lost_tokens(grid, 0.0, np.random.default_rng(0)).any()


def result(arm, digits, seed, rate, psnr):
    mean = {"nt_per_pixel": rate, "raw_nt_per_pixel": digits / 1000, "psnr": psnr, "bits": 1.0, "ms_ssim": 0.9}
    return {
        "arm": arm,
        "digits": digits,
        "seed": seed,
        "settled": [0.0],
        "mean": mean | {"lost 10%": psnr, "lost 30%": psnr},
    }


def test_seeds_are_summed_up():
    """Joint takes 10 % fewer nucleotides at one seed and 20 % at the other, for the same quality."""
    results = [
        result(arm, digits, seed, rate * factor, psnr + seed)
        for seed, share in ((0, 0.9), (1, 0.8))
        for arm, factor in (("separate", 1.0), ("joint", share))
        for digits, rate, psnr in ((4, 0.005, 20.0), (6, 0.008, 21.0), (8, 0.011, 21.6))
    ]
    rates = joint.bd_rates(results, "psnr")
    assert rates[0] == pytest.approx(-10, abs=0.1)
    assert rates[1] == pytest.approx(-20, abs=0.1)
    (mean, count) = joint.spread(results, "joint", 6)
    assert count == 2
    assert mean["psnr"] == pytest.approx((21.5, np.std([21, 22], ddof=1)))
    assert joint.gains(results, "psnr") == [(digits, 0.0, 0.0) for digits in (4, 6, 8)]
    assert joint.spread(results, "no rate", 6) is None


@pytest.mark.slow
def test_a_tiny_comparison(tmp_path, make_clip, capsys, monkeypatch):
    """Both arms train, are measured, and are not trained again; other settings are refused by name."""
    monkeypatch.setattr("helix_jax.parallel.use_all_cores", lambda: None)
    (tmp_path / "videos").mkdir()
    for name in "ab":
        make_clip(tmp_path / "videos" / f"{name}.mp4", 20, 48, 64)
    prepare.prepare([tmp_path / "videos"], tmp_path / "shards", frames=16, size=32, smallest=(16, 32), workers=1)
    config = tmp_path / "config.py"
    config.write_text("from tests.train.test_joint import CFG\n\n\ndef get():\n    return CFG\n")
    options = [
        str(tmp_path / "videos"), "--data", str(tmp_path / "shards"), "--out", str(tmp_path / "out"), "--config",
        str(config), "--digits", "3", "--seeds", "1", "--frames", "8", "--clips", "a", "--set", "steps=2",
    ]  # fmt: skip
    joint.main(options)
    told = capsys.readouterr().out
    assert "separate" in told
    assert "mode raw, 30% of strands lost, joint less separate: 3 digits" in told
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [one["arm"] for one in results] == ["separate", "joint"]
    for one in results:
        row = one["clips"]["a.mp4"]
        assert row["raw_nt_per_pixel"] == pytest.approx(
            2 * 3 * 2 * 6 * 8 / joint.joint.bits_per_unit(CFG) / (8 * 48 * 64)
        )
        assert row["psnr"] > 5
        assert row["bits"] > 0
    assert (tmp_path / "out" / "joint.png").exists()
    kept = {path: path.read_bytes() for path in (tmp_path / "out").glob("*/*/log.jsonl")}
    assert len(kept) == 3
    shutil.rmtree(tmp_path / "out" / "joint-3-0" / "joint")  # a result that is there needs no run
    joint.main(options)
    assert all(path.read_bytes() == data for path, data in kept.items() if path.exists())
    with pytest.raises(SystemExit, match="of another config"):
        joint.main([*options[:-1], "steps=3"])
    with pytest.raises(SystemExit, match="of another clips"):
        joint.main([*options[:-6], "--frames", "4", "--clips", "a", "--set", "steps=2"])
