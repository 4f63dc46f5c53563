"""How large a preview should be: layouts as ``encode`` has them, and what is shown from them."""

import json
import sys

import numpy as np
import pytest

from eval import preview
from eval.preview import Rule, expected, pool_of
from helix_jax import codec
from helix_jax.config import CodecConfig
from helix_jax.video import Clip

CURVES = {
    "picture": [(1000, 25.0), (4000, 31.0), (16000, 37.0)],
    "preview": [(50, 15.0), (800, 23.0)],
    "grey": 10.0,
    "frames": (32,),
    "info": [32, 288, 352, "30"],
}
INFO, FRAMES = preview._info(CURVES), (32,)


def test_pools_are_those_of_encode():
    """A small clip within a budget: its blocks are those that are planned here, where the picture fills its bytes."""
    clip = Clip(np.random.default_rng(0).integers(0, 256, (6, 64, 96, 3), np.uint8))  # which no budget satisfies
    config = CodecConfig(codec="av1", budget=24_000, preview=0.2, effort=0)
    made = codec.encode(clip, config=config)
    mine = pool_of(clip.info, (6,), 24_000, Rule(0.2))
    small, picture = made.layout.parts
    assert made.header_strands == sum(mine.blocks[0])
    assert abs(small.sources - mine.blocks[1][0]) <= 1  # encode plans it beside an empty picture, with wider packets
    assert small.repairs == preview._repairs(Rule(0.2).survival, small.sources)
    assert 0.9 * mine.blocks[2][0] <= picture.sources <= mine.blocks[2][0] + 2 * sum(mine.blocks[1])
    assert sum(map(sum, mine.blocks)) * 150 <= 24_000


def test_a_block_comes_back_or_not():
    assert preview.back(10, 5, 100, 0) == pytest.approx(1)
    assert preview.back(10, 5, 15, 5) == pytest.approx(1 - 1 / 256)  # exactly as many as sources
    assert preview.back(10, 5, 15, 6) == 0


def test_what_is_shown():
    bare, small = (pool_of(INFO, FRAMES, 75_000, rule) for rule in (Rule(0.0), Rule(0.05)))
    assert bare.small == 0 < small.small
    assert bare.picture > small.picture
    whole = np.interp(np.log(bare.picture), np.log([4000, 16000]), [31, 37])
    assert expected(bare, CURVES, 0.0) == pytest.approx(whole, abs=0.01)
    assert expected(bare, CURVES, 0.4) == pytest.approx(10, abs=0.01)
    shown = np.interp(np.log(small.small), np.log([50, 800]), [15, 23])
    assert expected(small, CURVES, 0.4) == pytest.approx(shown, abs=0.05)
    assert 10 < expected(small, CURVES, 0.6) < shown
    assert expected(bare, CURVES, 0.9) == pytest.approx(10)


def test_a_floor_counts_in_small_pools_only():
    none, floor = Rule(0.04), Rule(0.04, floor=128, ceiling=0.15)
    assert pool_of(INFO, FRAMES, 30_000, none).small == 0
    assert pool_of(INFO, FRAMES, 30_000, floor).small == 128
    assert pool_of(INFO, FRAMES, 200_000, floor) == pool_of(INFO, FRAMES, 200_000, none)


def test_tables(tmp_path, make_clip, monkeypatch, capsys):
    make_clip(tmp_path / "a.mp4", 4, 64, 64)
    monkeypatch.setattr(preview, "PREVIEWS", (100, 400))
    monkeypatch.setattr(preview, "SHARES", (0.0, 0.1))
    monkeypatch.setattr(preview, "FLOORS", ((64, 0.2),))
    keep = tmp_path / "curves.json"
    arguments = [tmp_path, "--frames", 4, "--budgets", 15_000, "--effort", 0, "--keep", keep, "--best", 1]
    monkeypatch.setattr(sys, "argv", ["preview", *map(str, arguments)])
    preview.main()
    text = capsys.readouterr().out
    assert "15,000 nucleotides, means over 1 clips" in text
    assert "| no preview | 0 | 0.0% |" in text
    assert set(json.loads(keep.read_text())["a.mp4"]) == set(CURVES)
    monkeypatch.setattr(preview, "measure", None)  # nothing is measured again
    preview.main()
    assert capsys.readouterr().out == text[text.index("\n") + 1 :]
