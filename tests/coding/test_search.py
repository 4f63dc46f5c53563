"""Searching for better tokens: never worse, never further than a level, the same twice, and what the command does."""

import dataclasses

import jax
import numpy as np
import pytest

from helix_jax import codec, video
from helix_jax.cli.demonstration import CLIP
from helix_jax.coding import ladder, modes, search, segments
from helix_jax.config import CodecConfig, StrandConfig, TokenizerConfig
from helix_jax.nets import Nets
from helix_jax.prior import net
from helix_jax.prior import weights as prior_weights
from helix_jax.tokenizer import fsq, tiles, weights
from helix_jax.tokenizer import model as nets
from helix_jax.tokenizer.weights import Model
from tests.test_codec import RATE, grouped

OPTIMISED = True  # see tests/conftest.py

SMALL = TokenizerConfig(width=12, encoder_blocks=1, decoder_blocks=1, digits=4, tile=(4, 8, 8))
STRANDS = StrandConfig(length=100, redundancy=0.0)
BARE = StrandConfig(redundancy=0.0)


@pytest.fixture(scope="module")
def model():
    return Model(nets.init(jax.random.key(0), SMALL), SMALL, bytes(range(32)))


def waves(frames):
    """Clip of 44 x 60, no side a multiple of a token's."""
    y, x, t = np.mgrid[:44, :60, :frames]
    wave = 120 + 80 * np.sin(x / 5 + t / 9) * np.cos(y / 7)
    pixels = np.stack([wave, wave[::-1], 255 - wave], axis=-1).transpose(2, 0, 1, 3)
    noisy = pixels + np.random.default_rng(0).normal(0, 6, pixels.shape)
    return video.Clip(noisy.clip(0, 255).astype(np.uint8), RATE)


@pytest.fixture(scope="module")
def clip():
    """35 frames: two windows, the second nearly empty."""
    return waves(35)


@pytest.fixture(scope="module")
def positions(model, clip):
    return tiles.encode(model.params, SMALL, clip.blocks(), 44, 60, positions=True)


def error(tokens, model, clip):
    """By its definition, of the frames as they are decoded."""
    back = np.concatenate(
        list(tiles.decode(model.params, SMALL, ladder.whole_tokens(tokens, SMALL), *clip.frames.shape[:3]))
    )
    return np.square(back.astype(float) - clip.frames).sum()


def bits(tokens, prior):
    """Under the causal head, segment by segment, from the probabilities that the net says."""
    plan = segments.plan(tokens.shape[:3])
    cut, valid = segments.cut(plan, tokens), segments.valid(plan)
    known = np.broadcast_to(valid[..., None], cut.shape)
    chances = np.asarray(net.probabilities(net.causal_logits(prior.params, cut, known, prior.config)))
    each = -np.log2(np.take_along_axis(chances, cut[..., None].astype(int), axis=-1)[..., 0])
    return each[valid].sum()


def test_squared_error_is_that_of_the_decoded_frames(model, clip, positions, monkeypatch):
    """To the bit, where ``decode`` takes tiles of the same shape: those of another may round a sample otherwise."""
    monkeypatch.setattr(tiles, "_evenly", lambda config, *_: config)
    tokens = np.asarray(fsq.digits(positions))
    found = tiles.squared_error(model.params, SMALL, tokens, clip.blocks(), clip.info)
    assert found == error(tokens, model, clip)


@pytest.mark.parametrize("digits", [4, 3])
def test_the_picture_gets_better_where_bits_do_not_count(model, clip, positions, digits):
    """In both windows; no digit moves further than a level; and the same comes out twice."""
    tokens = np.asarray(fsq.digits(positions))[..., :digits]

    def find():
        places = search.refine(
            positions[..., :digits], clip.blocks(), model, None, damage=0.0, steps=25, key=jax.random.key(1)
        )
        assert places.min() >= 0
        assert places.max() <= 3
        return np.asarray(fsq.digits(places))

    found = find()
    assert found.shape == tokens.shape
    assert np.abs(found.astype(int) - tokens).max() == 1
    assert error(found, model, clip) < 0.97 * error(tokens, model, clip)
    first, last = tokens.copy(), found.copy()
    first[8:], last[8:] = 0, 0  # the first window alone
    assert error(last, model, clip) < error(first, model, clip)
    np.testing.assert_array_equal(find(), found)


@pytest.mark.slow
def test_bits_are_saved_where_they_count(model, clip, positions, prior_of):
    """With a high price the bits fall, counted apart from the search; with a low one the picture gets better."""
    prior = prior_of(4, model.digest)
    tokens = np.asarray(fsq.digits(positions))
    price = error(tokens, model, clip) / clip.frames.size
    found = {
        factor: np.asarray(fsq.digits(search.refine(
            positions, clip.blocks(), model, prior, damage=factor * price, steps=25, key=jax.random.key(1)
        )))
        for factor in (1, 3000)
    }  # fmt: skip
    assert bits(found[3000], prior) < 0.95 * bits(tokens, prior)
    assert bits(found[3000], prior) < 0.95 * bits(found[1], prior)
    assert error(found[1], model, clip) < 0.97 * error(tokens, model, clip)
    assert error(found[1], model, clip) < error(found[3000], model, clip)


@pytest.mark.parametrize("mode", ["raw", pytest.param("prior", marks=pytest.mark.slow)])
def test_what_is_found_is_kept_only_where_it_is_better(model, clip, positions, prior_of, monkeypatch, mode):
    prior = prior_of(4, model.digest)
    coded = modes.encode(np.asarray(fsq.digits(positions)), mode, prior)
    options = {"effort": 1, "damage": 1e5}
    better = search.improve(coded, positions, clip, model, prior, **options)
    assert better.mode == mode
    assert (better.tokens != coded.tokens).any()
    if mode == "raw":
        assert error(better.tokens, model, clip) < error(coded.tokens, model, clip)
    monkeypatch.setattr(ladder, "tokens_at", lambda *_, **__: (coded.tokens, 0.0))
    assert search.improve(better, positions, clip, model, prior, **options) is better


def test_encode_with_effort(model, clip, prior_of):
    """Another picture, nearer to the clip, in as many nucleotides of mode raw; the decoder is told nothing."""
    prior, told = prior_of(4, model.digest), []
    errors, sizes = [], []
    for effort in (0, 1):
        config = CodecConfig(codec="tokens", constraints="strand", mode="raw", effort=effort, strands=STRANDS)
        pool = codec.encode(clip, Nets(model, prior), config=config, progress=lambda *step: told.append(step))
        _, blocks, report = codec.decode(grouped(pool.strands), Nets(model))
        assert report.verified
        errors.append(np.square(np.concatenate(list(blocks)).astype(float) - clip.frames).sum())
        sizes.append(pool.strands.shape)
    assert errors[1] < 0.98 * errors[0]
    assert sizes[1] == sizes[0]
    searched = [(done, total) for station, done, total in told if station == "search"]
    assert sum(done for done, _ in searched) == searched[0][1] == 2 * search.STEPS[1]


@pytest.mark.slow
@pytest.mark.parametrize("quality", [10, 6, 3])
def test_effort_never_takes_more(quality):
    """With the shipped weights: no more nucleotides, and a better picture for them, at all qualities."""
    model, prior = weights.load(), prior_weights.load()
    part = video.Clip(np.concatenate(list(video.open_video(CLIP).blocks()))[:32, :64, :64], RATE)
    config, errors, sizes = (
        CodecConfig(codec="tokens", mode="prior", verify=False, quality=quality, strands=BARE),
        [],
        [],
    )
    for effort in (0, 2):
        pool = codec.encode(part, Nets(model, prior), config=dataclasses.replace(config, effort=effort))
        _, blocks, _ = codec.decode(grouped(pool.strands), Nets(model, prior))
        errors.append(np.square(np.concatenate(list(blocks)).astype(float) - part.frames).sum())
        sizes.append(pool.strands.size)
    assert sizes[1] <= sizes[0]
    assert errors[1] < 0.99 * errors[0]


def test_a_dearer_search_where_the_first_takes_too_much(model, clip, positions, prior_of, monkeypatch):
    """Tokens that take more bytes are refused, whatever the picture, and looked for again at three and nine times the
    price; if that does not help, all stays as it is."""
    prior = prior_of(4, model.digest)
    coded = modes.encode(np.zeros((9, 6, 8, 4), np.uint8), "context", prior)
    asked = []

    def refine_(places, *_, damage, **__):
        asked.append(damage)
        return np.random.default_rng(0).uniform(0, 3, places.shape).astype(np.float32)

    monkeypatch.setattr(search, "refine", refine_)
    monkeypatch.setattr(ladder, "tokens_at", lambda rung, places, *_, **__: (np.asarray(fsq.digits(places)), 0.0))
    assert search.improve(coded, positions, clip, model, prior, effort=1, damage=0.0) is coded
    np.testing.assert_allclose(np.array(asked) / asked[0], (1, 3, 9))


def test_groups_that_do_not_share_a_segments_frames(clip):
    """Groups of 16 latent frames are longer than a segment."""
    config = dataclasses.replace(SMALL, tile=(16, 8, 8))
    model = Model(nets.init(jax.random.key(0), config), config, bytes(range(32)))
    asked = CodecConfig(codec="tokens", constraints="strand", mode="raw", effort=1, strands=STRANDS)
    pool = codec.encode(clip, Nets(model), config=asked)
    assert codec.decode(grouped(pool.strands), Nets(model))[2].verified


@pytest.mark.parametrize("effort", [-1, 4])
def test_efforts_that_there_are_not(model, clip, effort):
    with pytest.raises(ValueError, match=f"effort {effort}: give 0 to 3"):
        codec.encode(clip, Nets(model), config=CodecConfig(codec="tokens", effort=effort))


@pytest.mark.slow
def test_the_command(tmp_path, make_clip, run_cli, weights_file):
    """`encode --effort 1` writes what `decode` reads; a search that found nothing would write the same pool."""
    make_clip(tmp_path / "clip.mp4", 9, 40, 48)
    model = weights.load(weights_file)
    assert model.config.digits
    pools = []
    for effort in (0, 1):
        out = tmp_path / f"{effort}.fasta"
        done = run_cli(
            "encode", tmp_path / "clip.mp4", "-o", out, "--effort", effort, "--mode", "raw", "--model", weights_file,
            "--constraints", "strand", "--strand-length", 100,
        )  # fmt: skip
        assert done.exit_code == 0
        pools.append(out.read_text())
        assert run_cli("decode", out, "-o", tmp_path / "back.mp4", "--model", weights_file).exit_code == 0
    assert pools[0] != pools[1]
