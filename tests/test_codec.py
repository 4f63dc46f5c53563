"""The pipeline end to end, through its Python functions: exactness, loss, damage, foreign strands."""

import dataclasses
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from helix_jax import codec, video
from helix_jax.config import CodecConfig, MixingConfig, StrandConfig, TokenizerConfig
from helix_jax.nets import Nets
from helix_jax.strands import checker, fasta
from helix_jax.tk_scone import constraints
from helix_jax.tk_scone.constraints import ConstraintError
from helix_jax.tokenizer import model as nets
from helix_jax.tokenizer import tiles
from helix_jax.tokenizer.weights import Model

SMALL = TokenizerConfig(width=16, encoder_blocks=1, decoder_blocks=1, tile=(4, 8, 8))
FAST = CodecConfig(codec="tokens", constraints="strand", strands=StrandConfig(length=100, redundancy=0.3))


@pytest.fixture(scope="module")
def model():
    return Model(nets.init(jax.random.key(0), SMALL), SMALL, bytes(range(32)))


RATE = Fraction(30000, 1001)


def noise(frames, height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return video.Clip(pixels, RATE)


def grouped(strands):
    return {strands.shape[1]: strands}


def tokens_of(clip, model):
    _, height, width, _ = clip.frames.shape
    return tiles.encode(model.params, model.config, clip.blocks(), height, width)


@pytest.mark.parametrize("shape", [(1, 8, 8), (5, 17, 23), (9, 40, 33)])
@pytest.mark.parametrize("mixing", [MixingConfig(), MixingConfig(False, True, False)])
def test_video_round_trip(model, shape, mixing):
    """Frames, size and rate come back exactly, and the picture is the tokenizer's own, tokens being exact."""
    clip = noise(*shape)
    pool = codec.encode(clip, Nets(model), config=dataclasses.replace(FAST, mixing=mixing))
    info, blocks, report = codec.decode(grouped(pool.strands), Nets(model))
    assert info == clip.info
    assert report.verified
    assert report.lost_packets == report.unreadable == 0
    expected = np.concatenate(list(tiles.decode(model.params, SMALL, tokens_of(clip, model), *shape)))
    np.testing.assert_array_equal(np.concatenate(list(blocks)), expected)


def test_strands_obey_the_constraints(model):
    pool = codec.encode(noise(6, 48, 48), Nets(model), config=FAST)
    assert checker.check(pool.strands, pool.constraints).violations == 0


def test_order_duplicates_and_foreign_strands_do_not_matter(model):
    clip, generator = noise(8, 48, 48), np.random.default_rng(1)
    pool = codec.encode(clip, Nets(model), config=FAST)
    other = codec.encode(noise(8, 48, 48, seed=9), Nets(model), config=FAST)
    foreign = other.strands[other.header_strands :]
    both = generator.permutation(np.concatenate([pool.strands, pool.strands[::3], foreign]))
    _, _, report = codec.decode(grouped(both), Nets(model))
    assert report.verified
    assert report.unreadable == len(foreign)
    assert report.duplicates == len(pool.strands[::3])


def test_two_headers_need_a_key(model):
    first, second = (codec.encode(noise(4, 16, 16, seed=s), Nets(model), config=FAST) for s in (1, 2))
    both = grouped(np.concatenate([first.strands, second.strands]))
    with pytest.raises(codec.DecodeError, match="--key"):
        codec.decode(both, Nets(model))
    info, blocks, report = codec.decode(both, Nets(model), key=second.header.key)
    assert report.verified
    assert info.frames == 4
    assert len(np.concatenate(list(blocks))) == 4


def test_loss_up_to_the_redundancy_is_repaired_bit_for_bit(model):
    clip = noise(16, 64, 64)
    pool = codec.encode(clip, Nets(model), config=FAST)
    data = np.arange(pool.header_strands, len(pool.strands))
    for seed in range(5):
        generator = np.random.default_rng(seed)
        lost = generator.choice(data, pool.layout.repairs - 2, replace=False)
        kept = np.delete(pool.strands, lost, axis=0)
        _, blocks, report = codec.decode(grouped(kept), Nets(model))
        assert report.verified
        assert report.lost_tokens == 0
    shape = clip.frames.shape[:3]
    expected = np.concatenate(list(tiles.decode(model.params, SMALL, tokens_of(clip, model), *shape)))
    np.testing.assert_array_equal(np.concatenate(list(blocks)), expected)


def test_loss_past_the_redundancy_is_concealed_and_reported(model):
    clip = noise(16, 64, 64)
    pool = codec.encode(clip, Nets(model), config=FAST)
    kept = np.random.default_rng(0).permutation(pool.strands)[: len(pool.strands) // 2]
    info, blocks, report = codec.decode(grouped(kept), Nets(model))
    assert info == clip.info
    assert not report.verified
    assert 0.1 < report.lost_tokens < 0.7
    assert report.lost_packets > 0
    assert np.concatenate(list(blocks)).shape == clip.frames.shape


def test_segments_are_protected_better_than_tokens(model, prior_of):
    """At a loss of 14 % mode raw leaves tokens to be guessed, and mode context, unless told otherwise, comes back
    whole: there a packet more would have cost a segment."""
    clip, prior = noise(32, 96, 96), prior_of(SMALL.digits, model.digest)
    lost_tokens = {}
    for mode in ("raw", "context"):
        config = CodecConfig(
            codec="tokens", constraints="strand", mode=mode, verify=False, strands=StrandConfig(length=100)
        )
        pool = codec.encode(clip, Nets(model, prior), config=config)
        data = np.arange(pool.header_strands, len(pool.strands))
        lost = np.random.default_rng(0).choice(data, round(0.14 * len(data)), replace=False)
        _, _, report = codec.decode(grouped(np.delete(pool.strands, lost, axis=0)), Nets(model, prior))
        lost_tokens[mode] = report.lost_tokens
    assert lost_tokens["raw"] > 0.1
    assert lost_tokens["context"] == 0


def test_header_survives_where_data_do_not(model):
    """With only 40 % of the header strands and no data at all the pool is recognised, and refused."""
    pool = codec.encode(noise(4, 16, 16), Nets(model), config=FAST)
    kept = pool.strands[: pool.header_strands][:: 5 // 2]
    with pytest.raises(codec.DecodeError, match="none of the"):
        codec.decode(grouped(kept), Nets(model))


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=20)
def test_bytes_round_trip(data):
    blob = data.draw(st.binary(max_size=600))
    name = data.draw(st.sampled_from(["strand", "goldman", "wide"]))
    length = data.draw(st.sampled_from([90, 120]))
    config = CodecConfig(
        codec="tokens",
        constraints=name,
        strands=StrandConfig(length=length, redundancy=data.draw(st.sampled_from([0, 0.2]))),
    )
    pool = codec.pack(blob, config=config)
    back, report = codec.unpack(grouped(pool.strands))
    assert back == blob
    assert report.verified
    assert checker.check(pool.strands, pool.constraints).violations == 0


def test_bytes_past_repair_are_refused():
    pool = codec.pack(bytes(3000), config=FAST, compress=False)
    kept = pool.strands[: pool.header_strands + pool.layout.sources // 2]
    with pytest.raises(codec.DecodeError, match="more strands are needed"):
        codec.unpack(grouped(kept))


def test_substitutions_become_erasures():
    """A substituted base garbles its strand's tail: found by the automaton or the check, then repaired."""
    blob = np.random.default_rng(0).bytes(4000)
    pool = codec.pack(blob, config=FAST)
    generator = np.random.default_rng(1)
    strands = pool.strands.copy()
    hurt = generator.choice(np.arange(pool.header_strands, len(strands)), pool.layout.repairs // 2, replace=False)
    strands[hurt, generator.integers(0, strands.shape[1], len(hurt))] ^= generator.integers(1, 4, len(hurt)).astype(
        np.uint8
    )
    back, report = codec.unpack(grouped(strands))
    assert back == blob
    assert report.unreadable == len(hurt)


def test_primers_and_motifs(monkeypatch):
    """Joints obey the set, and the pool is read back only with the same primers and motifs."""
    primers = ("ACGTTGCA", "TGACCTGA")
    strands = StrandConfig(length=90, redundancy=0.2, left_primer=primers[0], right_primer=primers[1])
    config = CodecConfig(codec="tokens", constraints="wide", strands=strands)
    pool = codec.pack(b"helix" * 40, config=config, motifs=("GAATTC",), compress=False)
    assert pool.strands.shape[1] == 90 + 16
    core = pool.strands[:, 8:-8]
    assert checker.check(core, pool.constraints).violations == 0
    path_like = grouped(pool.strands)
    assert codec.unpack(path_like, motifs=("GAATTC",), primers=primers)[0] == b"helix" * 40
    # the other sets would be tried too, at the price of their tables
    monkeypatch.setattr(constraints, "NAMED", {"wide": constraints.NAMED["wide"]})
    with pytest.raises(codec.DecodeError, match="motifs"):
        codec.unpack(path_like, primers=primers)


def test_same_input_same_pool(model):
    clip = noise(4, 16, 16)
    np.testing.assert_array_equal(
        codec.encode(clip, Nets(model), config=FAST).strands, codec.encode(clip, Nets(model), config=FAST).strands
    )


def test_rates_stay_below_capacity():
    """Promise 3: gross at most the limit at this length, net below gross."""
    from helix_jax.tk_scone import capacity

    for name in ("strand", "goldman", "wide"):
        config = CodecConfig(codec="tokens", constraints=name, strands=StrandConfig(length=120, redundancy=0))
        pool = codec.pack(bytes(20_000), config=config, compress=False)
        gross, net = codec.densities(pool.nucleotides, pool.layout.bits, 120, 20_000)
        assert net < gross <= capacity.limit(pool.constraints, 120) / 120


def test_wrong_model_is_refused(model):
    pool = codec.encode(noise(4, 16, 16), Nets(model), config=FAST)
    with pytest.raises(codec.DecodeError, match="--model"):
        codec.decode(grouped(pool.strands), Nets(dataclasses.replace(model, digest=bytes(32))))


def test_bytes_and_video_are_told_apart(model):
    with pytest.raises(codec.DecodeError, match="unpack"):
        codec.decode(grouped(codec.pack(b"x", config=FAST).strands), Nets(model))
    with pytest.raises(codec.DecodeError, match="decode"):
        codec.unpack(grouped(codec.encode(noise(1, 8, 8), Nets(model), config=FAST).strands))


def test_bad_settings_are_refused():
    with pytest.raises(ConstraintError, match="strict, helix"):
        codec.pack(b"", config=CodecConfig(codec="tokens", constraints="loose"))
    with pytest.raises(ValueError, match="longer strands"):
        codec.pack(b"x", config=CodecConfig(codec="tokens", constraints="goldman", strands=StrandConfig(length=20)))


def test_fasta_in_any_form(tmp_path):
    """Lower case, wrapped lines, any order."""
    pool = codec.pack(b"any form", config=FAST)
    fasta.write(tmp_path / "a.fasta", pool.strands, lambda i: "")
    lines = (tmp_path / "a.fasta").read_text().split("\n")
    wrapped = [f"{line[:37]}\n{line[37:]}".lower() if line and line[0] != ">" else line for line in lines]
    (tmp_path / "b.fa").write_text("\n".join(wrapped))
    assert codec.unpack(fasta.read(tmp_path / "b.fa"))[0] == b"any form"
