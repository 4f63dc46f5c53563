import dataclasses
import itertools

import chex
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax.config import TokenizerConfig
from helix_jax.tokenizer import fsq, model, tiles

SMALL = TokenizerConfig(width=16)
TINY = dataclasses.replace(SMALL, tile=(4, 3, 4))
KERNELS = {"_encode_tiles": ("config", "positions"), "_decode_tiles": ("config",)}  # their static arguments


@pytest.fixture(scope="module")
def params():
    return model.init(jax.random.key(0), SMALL)


@pytest.fixture
def count_traces(monkeypatch):
    """At most one compilation of each kernel within the test."""
    chex.clear_trace_counter()
    for name, static in KERNELS.items():
        kernel = chex.assert_max_traces(getattr(tiles, name).__wrapped__, n=1)
        monkeypatch.setattr(tiles, name, jax.jit(kernel, static_argnames=static))


def noise(frames, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def gradient(frames, height, width):
    """Smooth in space and time: 1 level per pixel or frame and less."""
    t, y, x = np.mgrid[:frames, :height, :width]
    return np.stack([60 + x / 2, 60 + y / 2, 200 - (x + y) / 4 - t], axis=-1).astype(np.uint8)


def encode(params, config, clip, size=32, **options):
    blocks = (clip[start : start + size] for start in range(0, len(clip), size))
    return tiles.encode(params, config, blocks, *clip.shape[1:3], **options)


def decode(params, config, levels, shape, **options):
    return np.concatenate(list(tiles.decode(params, config, levels, *shape, **options)))


def unquantised(params, config, clip):
    """The channel values before rounding, each group's whole picture at once."""
    t, h, w = tiles.grid_shape(*clip.shape[:3])
    groups = -(-t // config.tile[0])
    rows = np.minimum(np.arange(h * 8), clip.shape[1] - 1)
    columns = np.minimum(np.arange(w * 8), clip.shape[2] - 1)
    frames = np.minimum(np.arange(groups * config.tile[0] * 4), len(clip) - 1)
    extended = clip[np.ix_(frames, rows, columns)].reshape(groups, -1, len(rows), len(columns), 3)
    z = np.asarray(model.latents(params, model.to_float(extended), config))
    return z.reshape(-1, h, w, config.digits)[:t]


def test_tokens_do_not_depend_on_the_cut(params):
    clip = noise(21, 77, 101)
    whole = unquantised(params, SMALL, clip)
    position = np.asarray(fsq.bound(whole))
    tie = np.abs(position - np.floor(position) - 0.5) < 1e-4  # between two digits: float rounding decides
    assert tie.mean() < 0.01
    for config in (SMALL, TINY):
        digits = encode(params, config, clip)
        assert digits.shape == (6, 10, 13, SMALL.digits)
        assert digits.dtype == np.uint8
        assert not np.any((digits != fsq.quantise(whole)) & ~tie)


def test_pixels_do_not_depend_on_the_cut(params):
    shape = (21, 77, 101)
    digits = np.random.default_rng(1).integers(0, 4, (6, 10, 13, SMALL.digits), dtype=np.uint8)
    one, other = decode(params, SMALL, digits, shape), decode(params, TINY, digits, shape)
    assert one.shape == (*shape, 3)
    assert one.dtype == np.uint8
    assert one.std() > 10
    assert np.abs(one.astype(int) - other).max() <= 1
    for options in ({"batch": 3}, {"batch": 1, "spread": True}):
        assert np.abs(one.astype(int) - decode(params, TINY, digits, shape, **options)).max() <= 1


def seams(params, clip):
    """What cutting a clip adds: (share of tokens that change, largest change of a step across a tile border).

    Steps are measured against the same steps where the whole clip is one tile. Measured against steps
    inside tiles they say little: an untrained net is rough on its own, more in some places than others.
    """
    whole = dataclasses.replace(TINY, tile=(TINY.tile[0], *tiles.grid_shape(*clip.shape[:3])[1:]))
    digits = encode(params, whole, clip)
    changed = np.mean(encode(params, TINY, clip) != digits)
    difference = decode(params, TINY, digits, clip.shape[:3]).astype(int) - decode(
        params, whole, digits, clip.shape[:3]
    )
    worst = 0
    for axis, size in ((1, 8 * TINY.tile[1]), (2, 8 * TINY.tile[2])):
        steps = np.moveaxis(np.diff(difference, axis=axis), axis, 0)
        worst = max(worst, np.abs(steps[size - 1 :: size]).max())
    return changed, worst


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_seams_on_a_gradient(seed):
    changed, step = seams(model.init(jax.random.key(seed), SMALL), gradient(20, 56, 80))
    assert changed < 1e-3
    assert step <= 2  # two roundings


def test_without_the_halo_there_are_seams(params, monkeypatch):
    """The test above can fail: tiles that see nothing of their neighbours do show."""
    monkeypatch.setattr(model, "receptive_halo", lambda blocks: 0)
    for name, static in KERNELS.items():
        monkeypatch.setattr(tiles, name, jax.jit(getattr(tiles, name).__wrapped__, static_argnames=static))
    changed, step = seams(params, gradient(20, 56, 80))
    assert changed > 0.01
    assert step > 20


def test_groups_are_independent(params):
    """A group's tokens and pixels depend on no other group."""
    clip, group = noise(32, 24, 24), 4 * TINY.tile[0]
    changed = clip.copy()
    changed[group:] ^= 255
    digits, other = encode(params, TINY, clip), encode(params, TINY, changed)
    np.testing.assert_array_equal(digits[: TINY.tile[0]], other[: TINY.tile[0]])
    np.testing.assert_array_equal(digits[TINY.tile[0] :], encode(params, TINY, clip[group:]))
    pixels = decode(params, TINY, digits, clip.shape[:3])
    np.testing.assert_array_equal(pixels[group:], decode(params, TINY, digits[TINY.tile[0] :], (16, 24, 24)))


def test_one_compilation_serves_clips_of_any_size(params, count_traces):
    for shape in [(1, 1, 1), (4, 8, 8), (5, 30, 9), (9, 25, 70), (17, 48, 33)]:
        clip = noise(*shape)
        digits = encode(params, TINY, clip, size=3)
        assert digits.shape == (*tiles.grid_shape(*shape), TINY.digits)


def test_one_compilation_of_pictures_serves_clips_of_any_length(params, count_traces):
    for frames in (1, 4, 17):
        shape = (frames, 48, 33)
        digits = np.zeros((*tiles.grid_shape(*shape), TINY.digits), np.uint8)
        assert decode(params, TINY, digits, shape).shape == (*shape, 3)


@pytest.mark.parametrize("size", [(1, 1), (30, 9), (25, 70)])
def test_pictures_of_any_size(params, size):
    """Tiles share them evenly: none is larger than it must be for their number, and the pictures fit."""
    digits = np.zeros((*tiles.grid_shape(3, *size), TINY.digits), np.uint8)
    assert decode(params, TINY, digits, (3, *size)).shape == (3, *size, 3)
    h, w = digits.shape[1:3]
    _, *sides = tiles._evenly(TINY, h, w).tile
    for side, whole, least in zip(sides, (h, w), TINY.tile[1:], strict=True):
        tiles_along = -(-whole // side)
        assert side == -(-whole // tiles_along)
        assert side <= 1.25 * least * 1.5


@given(cuts=st.lists(st.integers(0, 21), max_size=6))
@settings(deadline=None, max_examples=8)
def test_blocks_may_be_cut_anywhere(params, cuts):
    clip = noise(21, 17, 33)
    edges = [0, *sorted(cuts), len(clip)]
    blocks = (clip[start:end] for start, end in itertools.pairwise(edges))
    np.testing.assert_array_equal(tiles.encode(params, TINY, blocks, 17, 33), encode(params, TINY, clip))


def test_edges_repeat(params):
    """Padding by hand, as the docstring says, gives the same tokens."""
    clip = noise(5, 13, 21)
    padded = np.pad(clip, ((0, 3), (0, 3), (0, 3), (0, 0)), mode="edge")
    np.testing.assert_array_equal(encode(params, TINY, clip), encode(params, TINY, padded))


def test_streams_with_bounded_memory(params):
    """No more frames are read ahead than one window; decoded blocks come one at a time."""
    frames_read, lead = [0], []

    def source():
        for _ in range(16):
            frames_read[0] += 4
            yield noise(4, 16, 16)

    finished = [0]

    def progress(count):
        finished[0] += count
        lead.append(frames_read[0] - finished[0])

    digits = tiles.encode(params, TINY, source(), 16, 16, progress=progress)
    assert finished[0] == 64
    assert max(lead) <= 4 * TINY.tile[0]
    counts = []
    blocks = tiles.decode(params, TINY, digits, 63, 16, 16, progress=counts.append)
    assert len(next(blocks)) == 4 * TINY.tile[0]
    assert counts == []
    assert sum(map(len, blocks)) == 63 - 4 * TINY.tile[0]
    assert sum(counts) == 63


@pytest.mark.parametrize(("batch", "spread"), [(3, False), (1, True), (2, True)])
def test_tokens_do_not_depend_on_batch_and_devices(params, batch, spread):
    """Eight devices; the last call is not full, and a call takes tiles of several groups."""
    clip = noise(37, 30, 70)
    digits = encode(params, TINY, clip, batch=batch, spread=spread)
    assert np.mean(digits != encode(params, TINY, clip)) < 1e-3  # float ties


def test_one_compilation_serves_all_devices(params, count_traces):
    for shape in [(1, 8, 8), (17, 48, 33)]:
        encode(params, TINY, noise(*shape), batch=2, spread=True)


def test_levels_between_digits_decode(params, count_traces):
    digits = encode(params, TINY, noise(8, 16, 16))
    exact = decode(params, TINY, digits, (8, 16, 16))
    np.testing.assert_array_equal(decode(params, TINY, digits.astype(np.float32), (8, 16, 16)), exact)
    assert not np.array_equal(decode(params, TINY, np.full(digits.shape, 1.5, np.float32), (8, 16, 16)), exact)


def test_wrong_input_is_named(params):
    with pytest.raises(ValueError, match="no frames"):
        tiles.encode(params, TINY, [], 16, 16)
    with pytest.raises(ValueError, match=r"uint8\[4, 16, 16, 3\]; the clip was announced as uint8\[n, 16, 24, 3\]"):
        tiles.encode(params, TINY, [noise(4, 16, 16)], 16, 24)
    with pytest.raises(ValueError, match="float32"):
        tiles.encode(params, TINY, [noise(4, 16, 16).astype(np.float32)], 16, 16)
    with pytest.raises(ValueError, match=r"\[1, 2, 2, 7\] do not fit: 4 frames of 16x16 .* need \[1, 2, 2, 8\]"):
        tiles.decode(params, TINY, np.zeros((1, 2, 2, 7), np.uint8), 4, 16, 16)
