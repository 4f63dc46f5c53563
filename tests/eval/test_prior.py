"""The evaluation of the prior on a tiny clip: its figures against what they must be, counted another way."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from eval import clips, concealment, metrics
from eval import prior as prior_eval
from helix_jax import video
from helix_jax.coding import conceal, modes
from helix_jax.config import MixingConfig
from helix_jax.prior import net
from helix_jax.prior import weights as prior_weights
from helix_jax.strands import layouts, outer
from helix_jax.tokenizer import tiles, weights

FRAMES = 20  # 5 latent frames: less than a window of the prior, more than a group of the tokenizer
GRID = (8, 12)  # one shape for all tests: what takes time is compiling
causal, masked = prior_eval._causal, prior_eval._masked


@pytest.fixture(autouse=True)
def devices_stay(monkeypatch):
    """The module asks for one device per core; a test session has eight."""
    monkeypatch.setattr("helix_jax.parallel.use_all_cores", lambda: None)


@pytest.fixture(scope="module")
def prior(prior_file):
    return prior_weights.load(prior_file)


# ---- the command -------------------------------------------------------------------------------------


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["prior", *map(str, arguments)])
    prior_eval.main()


@pytest.mark.slow
def test_command(tmp_path, make_clip, weights_file, prior_file, prior, monkeypatch, capsys):
    path = make_clip(tmp_path / "a.mp4", FRAMES + 4, 64, 96)
    make_clip(tmp_path / "b.mp4", 4, 64, 96)
    arguments = [
        tmp_path,
        "--clips",
        "a",
        "--frames",
        FRAMES,
        "--model",
        weights_file,
        "--prior",
        prior_file,
        "--seed",
        3,
    ]
    run(monkeypatch, *arguments, "--out", tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    printed = capsys.readouterr().out
    assert "a.mp4" in printed
    assert "b.mp4" not in printed
    for name in ("calibration", "masks", "concealment", "pictures"):
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")

    model = weights.load(weights_file)
    reader = video.open_video(path)
    frames = next(reader.blocks(FRAMES))
    tokens = tiles.encode(model.params, model.config, [frames], 64, 96)
    number = tokens[..., 0].size
    assert number == 5 * 8 * 12
    (row,) = results["bits"]
    assert row["raw"]["bits_per_token"] == 16
    assert row["raw"]["bytes"] == 2 * number
    for mode in ("context", "prior"):
        coded = modes.encode(tokens, mode, prior)
        layout = coded.layout(layouts.planner(287, 0.1))
        assert row[mode]["bytes"] == coded.symbols(layout, MixingConfig()).size // 4
        assert row[mode]["bytes"] >= coded.content_bytes + 5 * layout.symbol_bytes  # the directory's copies
        assert row[mode]["share_of_raw"] == pytest.approx(row[mode]["bytes"] / row["raw"]["bytes"])

    table = results["calibration"]
    assert np.sum(table["decisions"], axis=1).tolist() == [2 * number] * 8
    assert np.sum(table["ones"], axis=1).tolist() == ((tokens >> 1) + (tokens & 1)).sum(axis=(0, 1, 2)).tolist()

    assert len(results["masks"]) == len(prior_eval.RATIOS)
    (facts,), rows = results["streams"], results["concealment"]
    assert facts["payload_bytes"] == 2 * number
    assert 0.9 * 2 * number < facts["h265_bytes"] <= 2 * number
    assert len(rows) == 2 * len(concealment.SHARES) * len(concealment.METHODS)
    assert {row["seed"] for row in rows} == {3, 4}
    decoded = np.concatenate(list(tiles.decode(model.params, model.config, tokens, FRAMES, 64, 96)))
    assert facts["tokens"]["psnr"] == metrics.psnr(frames, decoded)
    for row in rows:
        whole = facts["h265" if row["method"] == "h265" else "tokens"]
        figures = {key: row[key] for key in whole}
        if row["share"] <= 0.05:
            assert row["tokens_lost"] == 0
            assert figures == whole
        if row["share"] >= 0.2:
            assert row["tokens_lost"] == pytest.approx(row["share"], abs=0.1)
            assert figures != whole
        assert row["psnr"] <= facts["h265"]["psnr"] or row["method"] != "h265"
    for seed in (3, 4):
        lost = [row["tokens_lost"] for row in rows if row["seed"] == seed and row["method"] == "copy"]
        assert lost == sorted(lost)
    for mean in results["concealment_means"]:
        for method in concealment.METHODS:
            of = [row["psnr"] for row in rows if row["share"] == mean["share"] and row["method"] == method]
            assert mean[method]["psnr"] == pytest.approx(np.mean(of))

    again = concealment.measure("a.mp4", frames, reader.info.fps, tokens, model, prior, (287, 0.1), [3, 4])
    assert again[:2] == (facts, rows)


def test_what_is_not_there_is_named(tmp_path, make_clip, prior_file, prior, monkeypatch):
    with pytest.raises(SystemExit, match="no clips: give a folder"):
        clips.clips_of(tmp_path, [])
    make_clip(tmp_path / "a.mp4", 4, 16, 16)
    with pytest.raises(SystemExit, match=r"has a\.mp4, and not foreman"):
        clips.clips_of(tmp_path, ["a", "foreman"])
    with pytest.raises(SystemExit, match=f"belongs to tokenizer {prior.tokenizer[:8].hex()}, not to"):
        run(monkeypatch, tmp_path, "--prior", prior_file)  # with the shipped tokenizer


# ---- calibration and masks ---------------------------------------------------------------------------


def test_calibration_counts_what_the_coder_pays(walk, prior):
    """Whole digits' chances, and not decisions; the second segment is filled up, and knows nothing of the first."""
    tokens = walk((13, *GRID), 8)
    decisions, chances, ones, bits = totals = prior_eval.calibration(prior, tokens)
    assert decisions.sum(axis=1).tolist() == [2 * tokens[..., 0].size] * 8
    assert ones.sum(axis=1).tolist() == ((tokens >> 1) + (tokens & 1)).sum(axis=(0, 1, 2)).tolist()
    middles = (np.arange(prior_eval.BINS) + 0.5) / prior_eval.BINS
    assert (np.abs(chances - decisions * middles) <= decisions * (0.5 / prior_eval.BINS + 1e-9)).all()
    cost = np.zeros(8)
    for part in (tokens[:8], tokens[8:]):
        padded = np.pad(part, ((0, 8 - len(part)), *[(0, 0)] * 3))[None]
        known = np.broadcast_to((np.arange(8) < len(part))[None, :, None, None, None], padded.shape)
        logits = causal(prior.params, padded, known, prior.config)
        spent = -np.log2(np.take_along_axis(np.asarray(net.probabilities(logits)), padded[..., None].astype(int), -1))
        cost += spent[0, : len(part), ..., 0].sum(axis=(0, 1, 2))
    np.testing.assert_allclose(bits.sum(axis=1), cost, rtol=1e-4)
    by_hand = sum(abs(o - c) for o, c in zip(ones.flat, chances.flat, strict=True)) / decisions.sum()
    assert prior_eval.calibration_error(totals) == pytest.approx(by_hand)


def test_calibration_error_does_not_cancel_between_digits():
    totals = np.zeros((4, 2, prior_eval.BINS))
    totals[0, :, 10], totals[1, :, 10], totals[2, :, 10] = 100, 52, (72, 32)
    assert prior_eval.calibration_error(totals) == pytest.approx(0.2)


def test_guesses_see_the_known_tokens_alone(walk, prior):
    """In windows as the concealment takes them; the hidden digits' own values change nothing but the score."""
    tokens = walk((11, *GRID), 8)
    found = prior_eval.guesses(prior, tokens, 0.4, np.random.default_rng(5))
    hidden = np.random.default_rng(5).random(tokens.shape[:3]) < 0.4
    assert found["hidden"] == hidden.sum()
    right, bits = np.zeros(8), np.zeros(8)
    for part in (slice(0, 8), slice(8, 11)):
        shown = np.where(hidden[part][..., None], 3 - tokens[part], tokens[part])
        known = np.zeros((1, 8, *GRID, 8), bool)
        known[0, : len(shown)] = ~hidden[part][..., None]
        padded = np.zeros(known.shape, np.uint8)
        padded[0, : len(shown)] = shown
        chances = np.asarray(masked(prior.params, padded, known, prior.config))[0]
        for place in zip(*np.nonzero(hidden[part]), strict=True):
            truth = tokens[part][place]
            right += chances[place].argmax(axis=-1) == truth
            bits -= np.log2(chances[place][np.arange(8), truth])
    assert found["right"].tolist() == right.tolist()
    np.testing.assert_allclose(found["bits"], bits, rtol=1e-4)
    same = conceal.fill_lost(tokens, hidden) == tokens
    assert found["copied"].tolist() == [int(same[..., n][hidden].sum()) for n in range(8)]


# ---- losses ------------------------------------------------------------------------------------------------


def test_the_outer_code_holds_as_far_as_it_reaches():
    layout = layouts.plan(287, 32 * 1000, 0.1)
    layout = dataclasses.replace(layout, payload_bytes=layout.sources * layout.symbol_bytes)
    payload = np.random.default_rng(0).bytes(layout.payload_bytes)
    coded, genuine = outer.encode(layout, payload), outer.matching(outer.payload_digest(payload))

    def lost(share):
        return concealment.lost_packets(layout, coded, genuine, share, clips.generator(1, "clip"))

    reach = layout.repairs / layout.packets
    assert reach == pytest.approx(0.1 / 1.1, abs=0.003)
    assert not lost(0.99 * reach).any()
    first, more = lost(1.05 * reach), lost(0.4)
    assert first.mean() == pytest.approx(1.05 * reach, abs=0.02)
    assert more.mean() == pytest.approx(0.4, abs=0.04)
    assert (more | ~first).all()  # nested
    order = clips.generator(1, "clip").permutation(layout.packets)
    gone = order[: round(0.4 * layout.packets)]
    assert np.flatnonzero(more).tolist() == sorted(gone[gone < layout.sources])


def test_concealed_keeps_what_is_known(walk, prior):
    tokens = walk((5, *GRID), 8)
    missing = np.random.default_rng(0).random(tokens.shape[:3]) < 0.5
    for method in ("prior", "copy", "mean"):
        levels = concealment.concealed(method, tokens, missing, prior)
        np.testing.assert_array_equal(levels[~missing], tokens[~missing])
        assert (levels[missing] != tokens[missing]).any()
    assert (concealment.concealed("mean", tokens, missing, prior)[missing] == 1.5).all()
