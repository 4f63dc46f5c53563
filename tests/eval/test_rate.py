"""The curve of nucleotides against quality on a tiny clip: what must hold of it, whatever the nets."""

import json
import sys

import pytest

from eval import rate as rate_eval


def test_what_effort_saves():
    """Of each clip; one whose qualities do not overlap has no say."""
    plain = [{"nt_per_pixel": rate, "psnr": psnr} for rate, psnr in ((0.02, 25.0), (0.01, 23.0), (0.005, 21.0))]
    better = [point | {"nt_per_pixel": 0.9 * point["nt_per_pixel"]} for point in plain]
    far = [point | {"psnr": point["psnr"] + 9} for point in plain]
    results = {"raw": {"a": plain, "b": plain}, "raw 1": {"a": better, "b": far}}
    assert rate_eval.saved(results, "raw 1") == pytest.approx([-10])


@pytest.mark.slow
def test_command(tmp_path, make_clip, weights_file, prior_file, monkeypatch, capsys):
    monkeypatch.setattr("helix_jax.parallel.use_all_cores", lambda: None)  # a test session has eight devices
    monkeypatch.setattr(rate_eval, "QUALITIES", (10, 6))
    monkeypatch.setattr(rate_eval, "WAYS", {way: rate_eval.WAYS[way] for way in ("raw", "prior")})
    make_clip(tmp_path / "a.mp4", 12, 32, 48)
    out = tmp_path / "out"
    options = ("--frames", 12, "--effort", 1, "--model", weights_file, "--prior", prior_file, "--out", out)
    monkeypatch.setattr(sys, "argv", ["rate", *map(str, (tmp_path, *options))])
    rate_eval.main()
    told = capsys.readouterr().out
    assert "left to the prior" in told
    assert "raw, effort 1" in told
    results = json.loads((out / "rate.json").read_text())
    raw, coded = results["raw"]["a.mp4"], results["prior"]["a.mp4"]
    assert [point["label"] for point in raw] == [f"{digits} digits" for digits in range(8, 2, -1)]
    assert coded[0]["psnr"] == pytest.approx(raw[0]["psnr"])  # the same tokens, in another mode
    searched = results["raw 1"]["a.mp4"]
    assert [point["label"] for point in searched] == ["8 digits", "6 digits", "4 digits"]
    for point, plain in zip(searched, raw[::2], strict=True):
        assert point["nt_per_pixel"] == plain["nt_per_pixel"]
        assert point["psnr"] > plain["psnr"]
    assert raw[0]["bits_per_token"] == 16
    assert raw[-1]["bits_per_token"] == 6
    assert (coded[0]["dropped"], {point["dropped"] for point in raw}) == (0, {0.0})
    assert coded[1]["dropped"] > 0.5  # the random net's importance is 1, so that it may do anything
    assert coded[1]["nt_per_pixel"] < coded[0]["nt_per_pixel"]
    nucleotides = [point["nt_per_pixel"] for point in raw]
    assert nucleotides == sorted(nucleotides, reverse=True)
    assert raw[0]["nt_per_pixel"] * 12 * 32 * 48 == pytest.approx(round(raw[0]["nt_per_pixel"] * 12 * 32 * 48))
    assert (out / "rate.png").stat().st_size > 5000
