"""A decoder's update: where its numbers go, what lost ones do, that it helps, and that a pool carries it."""

import dataclasses

import jax
import numpy as np
import pytest

from helix_jax import codec
from helix_jax.coding import described, ladder, modes, search
from helix_jax.config import CodecConfig, StrandConfig, TokenizerConfig
from helix_jax.nets import Nets
from helix_jax.reference import archive, token_coder
from helix_jax.strands import header as headers
from helix_jax.strands.layouts import planner
from helix_jax.tokenizer import model as nets
from helix_jax.tokenizer import tiles, update
from helix_jax.tokenizer.weights import DEFAULT, Model, load
from tests.coding.test_search import waves
from tests.test_codec import grouped

SMALL = TokenizerConfig(width=12, encoder_blocks=1, decoder_blocks=2, digits=4, tile=(4, 8, 8))
COUNT = 12 + 4 * 12 + 2 * 12


@pytest.fixture(scope="module")
def model():
    return Model(nets.init(jax.random.key(0), SMALL), SMALL, bytes(range(32)))


@pytest.fixture(scope="module")
def clip():
    """19 frames: two groups, the second not full."""
    return waves(19)


def squared(blocks, clip):
    return np.square(np.concatenate(list(blocks)).astype(float) - clip.frames).sum()


def test_sizes():
    assert update.size(SMALL, 4) == COUNT // 2
    assert update.size(load(DEFAULT).config, 8) == 1536 // 2
    assert update.size(load(DEFAULT).config, 3) == (1536 - 5 * 128) // 2
    assert update.size(dataclasses.replace(SMALL, width=13, decoder_blocks=2), 2) == (13 * 5 + 1) // 2


def test_each_number_goes_to_its_parameter(model):
    """In the order of the format, each alone; the others stay."""
    places = [("from_digits", "b", n) for n in range(12)]
    places += [("from_digits", "w", n) for n in range(48)]
    places += [("decoder", block, n) for block in range(2) for n in range(12)]
    assert len(places) == COUNT
    whole = np.ones(COUNT // 2, bool)
    for number, (part, name, n) in enumerate(places):
        data = np.full(COUNT // 2, 0x88, np.uint8)
        data[number // 2] = 0x8F if number % 2 else 0xF8  # 7, in the low or the high half
        found = update.applied(model.params, SMALL, 4, data, whole, 3)
        change = jax.tree.map(lambda after, before: np.asarray(after - before), found, model.params)
        leaf = change["decoder"][name]["gain"] if part == "decoder" else change[part][name]
        np.testing.assert_allclose(leaf.reshape(-1)[n], 7 / 8, atol=1e-6)
        assert sum(np.count_nonzero(one) for one in jax.tree.leaves(change)) == 1


def test_lost_bytes_change_nothing(model):
    data = np.random.default_rng(0).integers(0, 256, COUNT // 2, dtype=np.uint8)
    valid = np.arange(COUNT // 2) % 3 > 0
    part = update.applied(model.params, SMALL, 4, data, valid, 4)
    same = update.applied(model.params, SMALL, 4, np.where(valid, data, 0x88).astype(np.uint8), valid | True, 4)
    jax.tree.map(np.testing.assert_array_equal, part, same)
    none = update.applied(model.params, SMALL, 4, data, valid & False, 4)
    jax.tree.map(np.testing.assert_array_equal, none, model.params)


@pytest.mark.parametrize("count", [6, 7])
def test_numbers_are_rounded_and_cut(count):
    change = np.array([0.3, -0.3, 9.0, -9.0, 0.125, 0.0, 0.26][:count], np.float32)
    halves = [10, 6, 15, 0, 9, 8, 10][:count] + [8] * (count % 2)
    expected = [16 * high + low for high, low in zip(halves[::2], halves[1::2], strict=True)]
    np.testing.assert_array_equal(update.quantised(change, 3), expected)


def test_a_fit_shows_the_clip_better(model, clip, monkeypatch):
    """Better than no change, and as good as the best code alone; twice the same."""
    levels = tiles.encode(model.params, SMALL, clip.blocks(), 44, 60).astype(np.float32)
    told = []
    data, code, squares = update.fit(levels, 4, clip, model, lambda *step: told.append(step))
    assert data.shape == (update.size(SMALL, 4),)
    assert sum(done for done, _ in told) == told[0][1] == update.STEPS

    def error(data, code):
        params = update.applied(model.params, SMALL, 4, data, np.ones(len(data), bool), code)
        return squared(tiles.decode(params, SMALL, levels, 19, 44, 60), clip)

    none = squared(tiles.decode(model.params, SMALL, levels, 19, 44, 60), clip)
    assert error(data, code) == squares < 0.9 * none
    again, same, _ = update.fit(levels, 4, clip, model)
    np.testing.assert_array_equal(again, data)
    assert same == code
    for one in update.CODES:
        monkeypatch.setattr(update, "CODES", (one,))
        assert update.fit(levels, 4, clip, model)[2] >= squares


def test_a_small_clip_is_read_once(model, clip, monkeypatch):
    """One that is larger is read in every pass and for every code, with the same result to the bit."""
    levels = tiles.encode(model.params, SMALL, clip.blocks(), 44, 60).astype(np.float32)
    readings = []

    class Counted:
        info = clip.info

        def blocks(self):
            readings.append(self)
            return clip.blocks()

    monkeypatch.setattr(update, "STEPS", 6)
    monkeypatch.setattr(update, "KEPT", clip.frames.nbytes)
    data, *kept = update.fit(levels, 4, Counted(), model)
    assert len(readings) == 1
    monkeypatch.setattr(update, "KEPT", clip.frames.nbytes - 1)
    again, *walked = update.fit(levels, 4, Counted(), model)
    assert len(readings) == 1 + 6 // 2 + len(update.CODES)
    np.testing.assert_array_equal(again, data)
    assert walked == kept


def test_digits_that_are_not_sent_are_not_updated(model, clip, monkeypatch):
    """Their rows are not in the update, and stay."""
    levels = ladder.whole_tokens(tiles.encode(model.params, SMALL, clip.blocks(), 44, 60)[..., :2], SMALL)
    data, code, squares = update.fit(levels, 2, clip, model)
    assert len(data) == update.size(SMALL, 2) == update.size(SMALL, 4) - 12
    params = update.applied(model.params, SMALL, 2, data, np.ones(len(data), bool), code)
    monkeypatch.setattr(tiles, "_evenly", lambda config, *_: config)  # the tiles that the error was measured with
    assert squared(tiles.decode(params, SMALL, levels, 19, 44, 60), clip) == squares
    assert squares < 0.95 * squared(tiles.decode(model.params, SMALL, levels, 19, 44, 60), clip)
    changed = np.asarray(params["from_digits"]["w"] != model.params["from_digits"]["w"]).any(axis=1)
    np.testing.assert_array_equal(changed, [True, True, False, False])


@pytest.mark.parametrize("mode", ["raw", pytest.param("prior", marks=pytest.mark.slow)])
def test_a_pool_carries_it(model, clip, prior_of, monkeypatch, mode):
    """Encoded with effort 3, decoded better than without the update; the archival decoder reads the same tokens."""
    prior = prior_of(4, model.digest)
    monkeypatch.setattr(search, "STEPS", (0, 3, 3, 3))
    strands = StrandConfig(length=100, redundancy=0.3)
    config = CodecConfig(codec="tokens", constraints="strand", mode=mode, effort=3, verify=False, strands=strands)
    told, kept = [], []
    encode = modes.Coding.symbols
    monkeypatch.setattr(modes.Coding, "symbols", lambda self, *a: kept.append(self) or encode(self, *a))
    pool = codec.encode(clip, Nets(model, prior), config=config, progress=lambda *step: told.append(step))
    (coded,) = kept
    assert pool.header.update in update.CODES
    assert len(coded.update) == update.size(SMALL, 4)
    assert sum(done for station, done, _ in told if station == "tuning") == update.STEPS
    packets = -(-len(coded.update) // pool.layout.symbol_bytes)
    bare = dataclasses.replace(coded, update=b"", code=0).layout(planner(pool.layout.bits, 0.3))
    assert pool.header.sources == bare.sources + packets
    assert pool.header.content_bytes == coded.content_bytes

    _, blocks, report = codec.decode(grouped(pool.strands), Nets(model, prior))
    assert report.verified
    shown = squared(blocks, clip)
    levels = ladder.whole_tokens(coded.tokens, SMALL)
    assert shown < 0.95 * squared(tiles.decode(model.params, SMALL, levels, 19, 44, 60), clip)

    if mode == "prior":
        monkeypatch.setattr(  # a random prior has no file
            archive, "_expand", lambda head, grid, rows, _: _expanded(head, grid, rows, prior)
        )
    np.testing.assert_array_equal(archive.read_pool(grouped(pool.strands)), coded.tokens)


def _expanded(head, grid, rows, prior):
    from helix_jax.coding import payload, segments

    plan = segments.plan(grid)
    pieces = payload.read_pieces(rows, np.zeros(len(rows), bool), plan.number)
    return token_coder.expand_clip(prior, head.mode, plan, head.digits, pieces)


def test_losses_take_a_part_of_it(model, clip, monkeypatch):
    """Past the repair packets' reach the picture gets worse, and is shown."""
    monkeypatch.setattr(search, "STEPS", (0, 3, 3, 3))
    config = CodecConfig(
        codec="tokens", constraints="strand", mode="raw", effort=3, strands=StrandConfig(length=100, redundancy=0.0)
    )  # fmt: skip
    pool = codec.encode(clip, Nets(model), config=config)
    packets = -(-update.size(SMALL, 4) // pool.layout.symbol_bytes)
    assert packets > 1
    errors = []
    for gone in (0, 1, packets):
        kept = pool.strands[: len(pool.strands) - gone]
        _, blocks, report = codec.decode(grouped(kept), Nets(model))
        assert report.lost_packets == gone
        assert report.lost_tokens == 0
        assert (report.lost_update > 0) == (gone > 0)
        assert (report.lost_update == 1) == (gone == packets)
        errors.append(squared(blocks, clip))
    assert errors[0] < errors[1] < errors[2]


def test_an_update_that_is_not_worth_its_bits_is_left_out(model, clip, monkeypatch):
    monkeypatch.setattr(search, "STEPS", (0, 3, 3, 3))
    monkeypatch.setattr(search, "SLOPE", 1e9)
    config = CodecConfig(codec="tokens", constraints="strand", mode="raw", effort=3, strands=StrandConfig(length=100))
    assert codec.encode(clip, Nets(model), config=config).header.update == 0


def test_a_budget_that_it_does_not_fit_leaves_it_out(model, clip, monkeypatch):
    monkeypatch.setattr(search, "STEPS", (0, 3, 3, 3))
    strands = StrandConfig(length=100, redundancy=0.0)
    config = CodecConfig(codec="tokens", constraints="strand", mode="raw", strands=strands)
    size = codec.encode(clip, Nets(model), config=config).strands.size
    for spare, update_there in ((0, False), (10_000, True)):
        pool = codec.encode(clip, Nets(model), config=dataclasses.replace(config, effort=3, budget=size + spare))
        assert (pool.header.update > 0) == update_there
        assert pool.strands.size <= size + spare


def test_a_header_that_promises_an_update_for_which_there_is_no_room(model, clip):
    config = CodecConfig(codec="tokens", constraints="strand", mode="raw", strands=StrandConfig(length=100))
    pool = codec.encode(clip, Nets(model), config=config)
    forged = dataclasses.replace(pool.header, update=4)
    with pytest.raises(codec.DecodeError, match="has room for"):
        described.info_of(forged, Nets(model), forged.sources)
    few = dataclasses.replace(forged, mode="context", prior_hash=b"prior!", sources=1, content_bytes=1)
    with pytest.raises(codec.DecodeError, match="of 1 packets hold an update"):
        described.info_of(few, Nets(model), few.sources)
    assert headers.Header.from_bytes(forged.to_bytes()) == forged


def test_the_command_tells_what_was_lost(tmp_path, make_clip, run_cli, weights_file, monkeypatch):
    """Status 3 and a warning, though no token is lost."""
    monkeypatch.setattr(search, "STEPS", (0, 3, 3, 3))
    monkeypatch.setattr(search, "SLOPE", 0.0)
    make_clip(tmp_path / "clip.mp4", 9, 40, 48)
    out = tmp_path / "pool.fasta"
    common = ("--model", weights_file)
    done = run_cli(
        "encode", tmp_path / "clip.mp4", "-o", out, "--effort", 3, "--mode", "raw", "--redundancy", 0, *common,
        "--constraints", "strand", "--strand-length", 100,
    )  # fmt: skip
    assert done.exit_code == 0
    assert run_cli("decode", out, "-o", tmp_path / "back.mp4", *common).exit_code == 0
    lines = out.read_text().splitlines()
    out.write_text("\n".join(lines[:-2]) + "\n")
    done = run_cli("decode", out, "-o", tmp_path / "back.mp4", *common)
    assert done.exit_code == 3
    assert "of the decoder's update were lost" in done.stderr
    assert "tokens were lost" not in done.stderr
