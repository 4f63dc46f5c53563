"""Where the coder starts: counts against a plain count, mixing weights, and the file that the command writes."""

import collections
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helix_jax.coding import coder
from helix_jax.prior import tables
from helix_jax.prior import weights as prior_weights
from helix_jax.tokenizer import weights
from train import context, shards

DIGITS = 2
PIECES, SHAPE = 10, (5, 2, 3)  # the last of ten pieces is held back for the weights


@pytest.fixture(scope="module")
def tokens(walk):
    return np.stack([walk(SHAPE, DIGITS, seed) for seed in range(PIECES)])


@pytest.fixture(scope="module")
def known(prior_of):
    """With a net that is sure of some digits."""
    made = prior_of(DIGITS)
    params = jax.tree.map(jnp.asarray, made.params)  # as from a file
    return dataclasses.replace(made, params=params | {"after": jax.tree.map(lambda leaf: 16 * leaf, params["after"])})


@pytest.fixture(scope="module")
def start(known, tokens):
    return {mode: context.start_of(mode, known, tokens) for mode in tables.EXPERTS}


# ---- counts ----------------------------------------------------------------------------------------


def of_neighbours(tokens, n, f, y, x, j):
    """The row of expert 0 among those of digit j: that digit one frame before, left and above; NONE where none is."""
    row = 0
    for df, dy, dx in ((1, 0, 0), (0, 0, 1), (0, 1, 0)):
        inside = f >= df and y >= dy and x >= dx
        row = 5 * row + (int(tokens[n, f - df, y - dy, x - dx, j]) if inside else tables.NONE)
    return row


def of_the_net(logits, tokens, n, f, y, x, j):
    """The row of expert 6 among those of digit j: the net's choice, how many before were another, and its doubt."""

    def chance(value):
        return round(min(max(65536 / (1 + math.exp(-value / 256)), 16), 65520))

    def chosen(j):
        high, low, top = (int(value) for value in logits[n, f, y, x, j])
        second = top if high > 0 else low
        doubt = int(math.log2((chance(-abs(high)) + chance(-abs(second))) / 32))
        return 2 * (high > 0) + (second > 0), doubt

    choice, doubt = chosen(j)
    strayed = sum(chosen(i)[0] != tokens[n, f, y, x, i] for i in range(j))
    return (choice * 3 + min(strayed, 2)) * tables.DOUBTS + doubt


def cells(tokens, expert, row_of):
    """What the start of an expert must be, int32[rows, 3]: from how often each node was passed, and took its 1."""
    times, ones = collections.Counter(), collections.Counter()
    for at, digit in np.ndenumerate(tokens):  # at: piece, frame, row, column, place in the token
        row = at[-1] * tables.SIZES[expert] + row_of(*at)
        for node, bit in ((0, digit >> 1), (1 + (digit >> 1), digit & 1)):
            times[row, node] += 1
            ones[row, node] += int(bit)
    found = np.zeros((DIGITS * tables.SIZES[expert], tables.NODES), np.int32)
    for row, node in np.ndindex(found.shape):
        p = math.floor(65536 * (ones[row, node] + 0.5) / (times[row, node] + 1))
        found[row, node] = min(max(p, 64), 65471) * 256 + min(times[row, node], context.CONFIDENCE)
    return found


def rows_of(start, expert):
    first = DIGITS * sum(tables.SIZES[:expert])
    return start.cells[first : first + DIGITS * tables.SIZES[expert]]


@pytest.mark.parametrize("mode", ["context", "prior"])
def test_counts_of_neighbours(start, tokens, mode):
    counted = tokens[:9]
    want = cells(counted, 0, lambda *at: of_neighbours(counted, *at))
    np.testing.assert_array_equal(rows_of(start[mode], 0), want)
    assert (want & 255 == context.CONFIDENCE).any()
    assert ((want & 255 > 0) & (want & 255 < context.CONFIDENCE)).any()


@pytest.mark.slow
def test_counts_of_what_the_net_says(start, tokens, known):
    counted = tokens[:9]
    there = np.ones(counted.shape[:-1], bool)
    logits = np.asarray(coder.logits_of_all(known.params, counted, there, known.config))
    want = cells(counted, 6, lambda *at: of_the_net(logits, counted, *at))
    np.testing.assert_array_equal(rows_of(start["prior"], 6), want)
    doubts = np.flatnonzero(want[:, 0] & 255) % tables.DOUBTS
    assert len(np.unique(doubts)) > 3


def test_every_expert_counts_every_digit(known, tokens, monkeypatch):
    """With no limit to the confidence, the counts of each come to all digits that were seen."""
    monkeypatch.setattr(context, "CONFIDENCE", 255)
    few = tokens[:1]
    rows = DIGITS * sum(tables.SIZES)
    counted = tables.Start(context._counted("prior", known, few, rows), np.zeros(0))
    for expert in range(tables.EXPERTS["prior"]):
        seen = rows_of(counted, expert) & 255
        assert seen[:, 0].sum() == seen[:, 1:].sum() == few.size


def test_the_held_back_are_not_counted(known, tokens, start):
    other = np.concatenate([tokens[:9], 3 - tokens[9:]])
    again = context.start_of("context", known, other)
    np.testing.assert_array_equal(again.cells, start["context"].cells)
    assert (again.weights != start["context"].weights).any()


# ---- weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["context", "prior"])
def test_starts_are_the_same_again_and_have_the_shape_of_fresh_ones(start, known, tokens, mode):
    for one, other, fresh in zip(
        start[mode], context.start_of(mode, known, tokens), tables.fresh(mode, DIGITS), strict=True
    ):
        np.testing.assert_array_equal(one, other)
        assert (one.shape, one.dtype) == (fresh.shape, fresh.dtype)
        assert (one != fresh).any()
    assert np.abs(start[mode].weights).max() <= tables.WEIGHT_LIMIT


# ---- the command -----------------------------------------------------------------------------------


def cut(folder, count, shape):
    """Shards of so many pieces, blobs that move, all of one shape (T, H, W)."""
    folder.mkdir()
    t, y, x = np.mgrid[tuple(slice(size) for size in shape)]
    pieces = []
    for n in range(count):
        light = 128 + 100 * np.sin((x + n * t) / 3) * np.cos((y - t) / (2 + n % 3))
        frames = np.repeat(light[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)
        pieces.append(shards.Piece(f"{n}.mp4", 0, 1, frames))
    shards.write_index(folder, settings={}, files=[shards.write(folder / "pieces-00000.arrayrecord", pieces)])
    return folder


def main(*arguments):
    context.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def written(tmp_path_factory, weights_file, prior_file):
    folder = tmp_path_factory.mktemp("context")
    data = cut(folder / "shards", PIECES, (16, 16, 24))
    main("--data", data, "--prior", prior_file, "--tokenizer", weights_file, "--out", folder / "a.safetensors")
    return data, folder / "a.safetensors"


def test_the_file_is_a_prior_that_begins_where_the_tokens_say(written, weights_file, prior_file, capsys):
    data, path = written
    found, given, tokenizer = prior_weights.load(path), prior_weights.load(prior_file), weights.load(weights_file)
    assert (found.config, found.tokenizer) == (given.config, tokenizer.digest)
    assert found.digest != given.digest
    for one, other in zip(jax.tree.leaves(found.params), jax.tree.leaves(given.params), strict=True):
        np.testing.assert_array_equal(one, other)
    tokens = context.tokens_of(data, tokenizer, PIECES)
    assert tokens.shape == (PIECES, 4, 2, 3, 8)
    for start, mode in ((found.context, "context"), (found.mixed, "prior")):
        for one, other in zip(start, context.start_of(mode, given, tokens), strict=True):
            np.testing.assert_array_equal(one, other)


def test_fewer_pieces_are_spread_over_the_shards(written, weights_file):
    tokenizer = weights.load(weights_file)
    every = context.tokens_of(written[0], tokenizer, 1200)
    np.testing.assert_array_equal(context.tokens_of(written[0], tokenizer, 4), every[[0, 3, 6, 9]])


def test_bad_input_is_named(written, weights_file, prior_file, tmp_path, capsys):
    data, _ = written
    for arguments, words in (
        (("--data", tmp_path, "--prior", prior_file, "--tokenizer", weights_file), "is no finished folder of shards"),
        (("--data", data, "--prior", tmp_path / "gone"), "no weights file"),
        (("--data", data, "--prior", weights_file), "is not a weights file of helix_jax's prior"),
        (("--data", data, "--prior", prior_file, "--tokenizer", prior_file), "is not a tokenizer weights file"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(*arguments, "--out", tmp_path / "x")
        assert caught.value.code == 2
        assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "x").exists()
