"""The pipeline with coded tokens: the same tokens and pictures as raw, the right prior or none at all, and loss."""

import dataclasses

import jax
import numpy as np
import pytest

from helix_jax import codec, video
from helix_jax.coding import conceal, ladder, modes, segments
from helix_jax.config import CodecConfig, StrandConfig, TokenizerConfig
from helix_jax.nets import Nets
from helix_jax.strands import checker
from helix_jax.strands import header as headers
from helix_jax.tokenizer import model as nets
from helix_jax.tokenizer import tiles
from helix_jax.tokenizer.weights import Model

SMALL = TokenizerConfig(width=16, encoder_blocks=1, decoder_blocks=1, tile=(4, 8, 8))
CONTEXT = CodecConfig(
    codec="tokens", constraints="strand", mode="context", strands=StrandConfig(length=100, redundancy=0.3)
)
DIGEST = bytes(range(32))


def in_mode(mode, redundancy=0.3):
    return dataclasses.replace(CONTEXT, mode=mode, strands=StrandConfig(length=100, redundancy=redundancy))


@pytest.fixture(scope="module")
def model():
    return Model(nets.init(jax.random.key(0), SMALL), SMALL, DIGEST)


@pytest.fixture(scope="module")
def prior(prior_of):
    return prior_of(8, DIGEST)


def moving_square():
    """A still picture in which a square moves, in memory: latents 12 x 8 x 13, two segments in time."""
    y, x = np.mgrid[:60, :100]
    still = np.stack([2 * x, 4 * y, 255 - 2 * x], axis=-1).clip(0, 255).astype(np.uint8)
    pictures = np.repeat(still[None], 45, axis=0)
    for frame in range(45):
        pictures[frame, 10:26, frame : frame + 16] = 200
    return video.Clip(pictures)


CLIP = moving_square()


@pytest.fixture(scope="module")
def pools(model, prior):
    modes = ("raw", "context", "prior", "smallest")
    return {mode: codec.encode(CLIP, Nets(model, prior), config=in_mode(mode)) for mode in modes}


def grouped(strands):
    return {strands.shape[1]: strands}


@pytest.fixture
def seen(monkeypatch):
    """The tokens that the tokenizer's decoder is given; no picture is made of them."""
    given = []
    monkeypatch.setattr(tiles, "decode", lambda params, config, tokens, *_: given.append(tokens) or iter(()))
    return given


# ---- there and back --------------------------------------------------------------------------------------------


def test_pictures_are_those_of_mode_raw(model, prior, pools):
    pictures = {}
    for mode, pool in pools.items():
        info, blocks, report = codec.decode(grouped(pool.strands), Nets(model, prior))
        pictures[mode] = np.concatenate(list(blocks))
        assert info == CLIP.info
        assert report.verified
        assert report.lost_packets == report.lost_tokens == 0
        assert checker.check(pool.strands, pool.constraints).violations == 0
    for mode in ("context", "prior", "smallest"):
        np.testing.assert_array_equal(pictures[mode], pictures["raw"])


def test_header_names_mode_and_prior(prior, pools):
    assert (pools["raw"].header.mode, pools["raw"].header.prior_hash) == ("raw", bytes(6))
    for mode, written in (("context", "context"), ("prior", "prior"), ("smallest", "context")):
        assert (pools[mode].header.mode, pools[mode].header.prior_hash) == (written, prior.digest[:6])
    np.testing.assert_array_equal(pools["smallest"].strands, pools["context"].strands)
    assert pools["context"].header.content_bytes < 0.7 * pools["raw"].header.content_bytes
    assert len(pools["context"].strands) < len(pools["raw"].strands)


def test_smallest_needs_no_prior(model, pools):
    pool = codec.encode(CLIP, Nets(model), config=in_mode("smallest"))
    np.testing.assert_array_equal(pool.strands, pools["raw"].strands)
    for mode in ("context", "prior"):
        with pytest.raises(ValueError, match=f"mode {mode} needs a prior"):
            codec.encode(CLIP, Nets(model), config=in_mode(mode))


def test_verification_changes_nothing(model, prior, pools, monkeypatch):
    def refuse(*_):
        raise AssertionError("verified all the same")

    monkeypatch.setattr(modes.proof, "clip_reads", refuse)
    pool = codec.encode(CLIP, Nets(model, prior), config=dataclasses.replace(CONTEXT, verify=False))
    np.testing.assert_array_equal(pool.strands, pools["context"].strands)


def test_low_quality_in_mode_prior(model, prior, pools, seen):
    """What dropping left of the first digits comes back bit for bit, the others are in the middle."""
    low = dataclasses.replace(in_mode("prior"), quality=2)
    pool = codec.encode(CLIP, Nets(model, prior), config=low)
    assert (pool.header.mode, pool.header.digits) == ("prior", 4)
    assert len(pool.strands) < len(pools["context"].strands)
    _, _, report = codec.decode(grouped(pool.strands), Nets(model, prior))
    assert (report.verified, report.lost_tokens) == (True, 0)
    assert seen[0].shape == (12, 8, 13, 8)
    assert (seen[0][..., 4:] == 1.5).all()
    positions = tiles.encode(model.params, model.config, CLIP.blocks(), 60, 100, positions=True)
    wanted, dropped = ladder.tokens_at(ladder.rung_of(ladder.ladder(8, True), 2), positions, prior)
    np.testing.assert_array_equal(seen[0][..., :4], wanted)
    assert dropped > 0.9


# ---- the right prior, or none at all -------------------------------------------------------------------------------


def test_another_prior_is_refused_before_any_picture(model, prior, pools, seen):
    strands = grouped(pools["context"].strands)
    other = dataclasses.replace(prior, digest=bytes(32))
    for given, words in ((None, "none was given"), (other, f"not {bytes(6).hex()}")):
        with pytest.raises(codec.DecodeError, match=f"prior {prior.digest[:6].hex()}, {words}.*--prior"):
            codec.decode(strands, Nets(model, given))
    assert not seen


def test_prior_and_tokenizer_belong_together(model, prior, pools, seen):
    foreign = dataclasses.replace(prior, tokenizer=bytes(32))
    for call in (
        lambda: codec.encode(CLIP, Nets(model, foreign), config=CONTEXT),
        lambda: codec.decode(grouped(pools["context"].strands), Nets(model, foreign)),
        lambda: codec.decode(grouped(pools["raw"].strands), Nets(model, foreign)),
    ):
        with pytest.raises(ValueError, match=rf"belongs to tokenizer {bytes(8).hex()}, not to {DIGEST[:8].hex()}"):
            call()
    other = dataclasses.replace(model, digest=bytes(32))
    with pytest.raises(codec.DecodeError, match="--model"):
        codec.decode(grouped(pools["context"].strands), Nets(other, foreign))
    assert not seen


def test_raw_needs_no_prior_and_minds_none(model, prior, pools, seen):
    for given in (None, prior, dataclasses.replace(prior, digest=bytes(32))):
        codec.decode(grouped(pools["raw"].strands), Nets(model, given))
    assert len(seen) == 3


def test_a_header_that_does_not_fit_the_model_is_refused(model, prior, pools, monkeypatch):
    """Though its check is right."""
    head = headers.find_headers
    for digits in (9, 16, 255):

        def forged(words, bits, digits=digits):
            found, is_header = head(words, bits)
            return tuple(dataclasses.replace(one, digits=digits) for one in found), is_header

        monkeypatch.setattr(headers, "find_headers", forged)
        for mode in ("raw", "context"):
            with pytest.raises(codec.DecodeError, match=f"{digits} digits"):
                codec.decode(grouped(pools[mode].strands), Nets(model, prior))


def test_a_header_that_does_not_fit_the_payload_is_refused(model, prior, pools, monkeypatch):
    head = headers.find_headers

    def forged(words, bits):
        found, is_header = head(words, bits)
        return tuple(dataclasses.replace(one, frames=2**31) for one in found), is_header

    monkeypatch.setattr(headers, "find_headers", forged)
    for mode in ("raw", "context"):
        with pytest.raises(codec.DecodeError, match="forged"):
            codec.decode(grouped(pools[mode].strands), Nets(model, prior))


# ---- loss --------------------------------------------------------------------------------------------------------


def kept_tokens(model, prior, pool, seen, lost):
    """Tokens and report with these data strands lost."""
    strands = np.delete(pool.strands, pool.header_strands + np.array(sorted(lost)), axis=0)
    _, _, report = codec.decode(grouped(strands), Nets(model, prior))
    return seen[-1], report


def test_loss_up_to_the_redundancy_is_repaired_bit_for_bit(model, prior, pools, seen):
    pool = pools["context"]
    codec.decode(grouped(pool.strands), Nets(model, prior))
    for seed in range(3):
        data = len(pool.strands) - pool.header_strands
        lost = np.random.default_rng(seed).choice(data, pool.layout.repairs - 2, replace=False)
        tokens, report = kept_tokens(model, prior, pool, seen, lost)
        assert report.verified
        assert report.lost_tokens == 0
        np.testing.assert_array_equal(tokens, seen[0])


@pytest.fixture(scope="module")
def bare(model, prior):
    """A pool without repair strands."""
    return codec.encode(CLIP, Nets(model, prior), config=in_mode("context", redundancy=0))


def test_loss_past_repair_costs_whole_segments_and_is_told(model, prior, bare, seen):
    codec.decode(grouped(bare.strands), Nets(model, prior))
    plan = segments.plan(seen[0].shape[:3])
    assert plan.number == 2
    last = bare.layout.sources - 1
    tokens, report = kept_tokens(model, prior, bare, seen, {last})
    assert (report.lost_packets, report.verified) == (1, False)
    assert report.lost_tokens == pytest.approx(4 / 12)  # the second segment: four latent frames of twelve
    np.testing.assert_array_equal(tokens[:8], seen[0][:8])
    guessed = conceal.fill_lost(seen[0], np.repeat(np.arange(12) >= 8, 8 * 13).reshape(12, 8, 13), prior)
    np.testing.assert_array_equal(tokens, guessed)
    assert ((tokens[8:] >= 0) & (tokens[8:] <= 3)).all()


def test_copies_of_the_directory(model, prior, bare, seen):
    """Four of five packets that say the same: nothing is lost. All five, or both segments: nothing can be shown."""
    codec.decode(grouped(bare.strands), Nets(model, prior))
    tokens, report = kept_tokens(model, prior, bare, seen, {0, 1, 2, 3})
    assert (report.lost_packets, report.lost_tokens) == (4, 0)
    np.testing.assert_array_equal(tokens, seen[0])
    with pytest.raises(codec.DecodeError, match="directory of segments are lost: more strands"):
        kept_tokens(model, prior, bare, seen, range(5))
    with pytest.raises(codec.DecodeError, match="every segment has lost some of its packets"):
        kept_tokens(model, prior, bare, seen, {5, bare.layout.sources - 1})
