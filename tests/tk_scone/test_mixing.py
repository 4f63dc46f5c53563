"""Mixing: every combination of its parts is undone exactly, neighbours part, only the offset makes digits uniform."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from helix_jax.config import MixingConfig
from helix_jax.tk_scone import mixing

KEY = b"mix this"
SWITCHES = [MixingConfig(*on) for on in itertools.product((False, True), repeat=3)]
GRIDS = [
    (12, 23, 40),
    (8, 18, 22),
    (16, 45, 80),
    (5, 3, 3),
    (2, 36, 44),
]  # latents of real clips, tiny and flat ones too


def digits(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 4, shape, dtype=np.uint8)


# ---- everything is undone ------------------------------------------------------------------


@pytest.mark.parametrize("config", SWITCHES, ids=str)
@hypothesis.given(
    grid=st.tuples(st.integers(1, 7), st.integers(1, 9), st.integers(1, 9)),
    k=st.sampled_from([4, 8]),
    per_strand=st.integers(1, 20),
    key=st.binary(min_size=8, max_size=8),
    seed=st.integers(0, 1000),
)
@hypothesis.settings(max_examples=25)
def test_both_ways(config, grid, k, per_strand, key, seed):
    tokens = digits((*grid, k), seed)
    symbols = mixing.interleave(tokens, per_strand, config)
    assert symbols.shape == (-(-np.prod(grid) // per_strand), per_strand * k)
    assert symbols.dtype == np.uint8
    mixed = mixing.mix(symbols, key, config)
    assert mixed.shape == symbols.shape
    assert mixed.dtype == np.uint8
    assert mixed.max() <= 3
    np.testing.assert_array_equal(mixing.unmix(mixed, key, config), symbols)
    np.testing.assert_array_equal(mixing.deinterleave(symbols, grid, k, config), tokens)
    np.testing.assert_array_equal(mixing.from_bytes(mixing.to_bytes(mixed)), mixed)


@hypothesis.given(st.lists(st.binary(min_size=3, max_size=3), min_size=1, max_size=5))
def test_bytes(rows):
    data = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 3)
    numbers = mixing.from_bytes(data)
    assert numbers.shape == (len(rows), 12)
    assert numbers.max() <= 3
    np.testing.assert_array_equal(mixing.to_bytes(numbers), data)
    for row, blob in zip(numbers, rows, strict=True):  # first digit most significant: the base-4 number itself
        assert int("".join(map(str, row)), 4) == int.from_bytes(blob, "big")


@pytest.mark.parametrize("config", SWITCHES, ids=str)
def test_same_under_jit(config):
    tokens = digits((3, 4, 5, 8))
    symbols = mixing.interleave(tokens, 8, config)
    traced = jax.jit(lambda x: mixing.mix(mixing.interleave(x, 8, config), KEY, config))(tokens)
    np.testing.assert_array_equal(traced, mixing.mix(symbols, KEY, config))
    back = jax.jit(lambda x: mixing.deinterleave(mixing.unmix(x, KEY, config), (3, 4, 5), 8, config))(traced)
    np.testing.assert_array_equal(back, tokens)


def test_a_switch_that_is_off_does_nothing():
    symbols, off = digits((6, 64)), MixingConfig(False, False, False)
    np.testing.assert_array_equal(mixing.mix(symbols, KEY, off), symbols)
    tokens = digits((2, 3, 4, 8))
    np.testing.assert_array_equal(mixing.interleave(tokens, 6, off), tokens.reshape(4, 48))


# ---- interleaver ---------------------------------------------------------------------------


@hypothesis.given(st.integers(1, 500))
def test_axis_permutation(n):
    assert sorted(mixing.axis_permutation(n)) == list(range(n))


@hypothesis.given(
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    per_strand=st.integers(1, 40),
    on=st.booleans(),
)
def test_order_is_a_permutation(grid, per_strand, on):
    """Each token stands once; numbers past the last token are padding."""
    order = mixing.token_order(grid, per_strand, MixingConfig(interleave=on))
    assert order.shape == (-(-np.prod(grid) // per_strand), per_strand)
    np.testing.assert_array_equal(np.sort(order, axis=None), np.arange(order.size))


def shared_strand(grid, per_strand, config):
    """Share of all pairs of neighbours in space and time (26 around each token) that stand in one strand."""
    order = mixing.token_order(grid, per_strand, config)
    strand = np.empty(order.size, int)
    strand[order] = np.arange(len(order))[:, None]
    strand = strand[: np.prod(grid)].reshape(grid)
    shared = pairs = 0
    for step in itertools.product((-1, 0, 1), repeat=3):
        if step > (0, 0, 0):  # each pair once
            one, other = (
                tuple(slice(max(0, sign * s), n + min(0, sign * s)) for s, n in zip(step, grid, strict=True))
                for sign in (1, -1)
            )
            shared += (strand[one] == strand[other]).sum()
            pairs += strand[one].size
    return shared / max(1, pairs)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("per_strand", [8, 11, 16])
def test_neighbours_go_to_different_strands(grid, per_strand):
    """A random permutation would leave a share of 1 / strands together; some grids may have a few times as many."""
    strands = np.prod(grid) / per_strand
    apart = shared_strand(grid, per_strand, MixingConfig(interleave=True))
    row_major = shared_strand(grid, per_strand, MixingConfig(interleave=False))
    assert row_major > 0.05
    assert apart < 7 / strands
    assert apart < row_major


def test_neighbours_of_any_grid():
    """In the mean over grids, fewer together than by a random permutation, and no grid where h * w, a multiple of the
    number of strands, puts one place of all frames into one strand."""
    generator = np.random.default_rng(0)
    worst = []
    for _ in range(60):
        grid = tuple(int(n) for n in generator.integers((1, 8, 8), (20, 40, 50)))
        per_strand = int(generator.integers(6, 17))
        worst.append(shared_strand(grid, per_strand, MixingConfig()) * np.prod(grid) / per_strand)
    assert np.mean(worst) < 1
    assert max(worst) < 8


# ---- Kronecker matrix ----------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 9))
def test_z4_matrix_is_invertible(n):
    matrix, inverse = mixing.z4_matrix(n)
    np.testing.assert_array_equal(matrix @ inverse % 4, np.eye(n, dtype=int))
    assert n == 1 or (matrix != np.eye(n)).any()


def test_kronecker_is_linear_and_stays_in_its_strand():
    config = MixingConfig(False, True, False)
    one, other = digits((5, 64), 1), digits((5, 64), 2)
    together = mixing.mix((one + other) & 3, KEY, config)
    np.testing.assert_array_equal(together, (mixing.mix(one, KEY, config) + mixing.mix(other, KEY, config)) & 3)
    touched = one.copy()
    touched[2, 10] = (touched[2, 10] + 1) & 3
    changed = mixing.mix(touched, KEY, config) != mixing.mix(one, KEY, config)
    assert changed[2].sum() > 4
    assert not changed[[0, 1, 3, 4]].any()


# ---- uniform digits ------------------------------------------------------------------------


def chi_square(numbers):
    """Against four equally likely digits: 3 degrees of freedom, 16.3 once in a thousand."""
    counts = np.bincount(numbers.reshape(-1), minlength=4)
    return np.square(counts - numbers.size / 4).sum() / (numbers.size / 4)


@pytest.mark.parametrize("key", [bytes(8), KEY, bytes(range(8)), b"\xff" * 8])
@pytest.mark.parametrize("kronecker", [False, True])
def test_offset_makes_every_source_uniform(key, kronecker):
    """Digits of an all-zero source, of each strand place, and pairs of successive digits."""
    mixed = mixing.mix(np.zeros((500, 128), np.uint8), key, MixingConfig(True, kronecker, True))
    assert chi_square(mixed) < 20
    assert np.mean([chi_square(column) for column in mixed.T]) == pytest.approx(3, abs=1)
    pairs = np.bincount((4 * mixed[:, :-1].astype(int) + mixed[:, 1:]).reshape(-1), minlength=16)
    assert np.square(pairs / pairs.mean() - 1).sum() * pairs.mean() < 45  # 15 degrees of freedom
    assert len(np.unique(mixed, axis=0)) == 500


@pytest.mark.parametrize("value", [0, 2])
def test_kronecker_alone_keeps_plain_blocks_plain(value):
    """A linear map: an all-zero source stays zero, a constant one is far from uniform."""
    mixed = mixing.mix(np.full((50, 128), value, np.uint8), KEY, MixingConfig(True, True, False))
    assert chi_square(mixed) > 1000
    assert value or not mixed.any()


def test_offset_depends_on_key_and_place():
    one, other = (mixing.offset_digits(key, (40, 128)) for key in (b"pool one", b"pool two"))
    assert abs((one == other).mean() - 0.25) < 0.03
    assert abs((one[1:] == one[:-1]).mean() - 0.25) < 0.03
    np.testing.assert_array_equal(mixing.offset_digits(b"pool one", (80, 64)), one.reshape(80, 64))
    with pytest.raises(ValueError, match="8 bytes"):
        mixing.offset_digits(b"short", (1, 4))
