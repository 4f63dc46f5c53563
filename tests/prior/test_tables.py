"""The shared numbers: right to a unit, monotone, and frozen, since old pools depend on every one."""

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest

from helix_jax.prior import tables
from helix_jax.prior.tables import LIMIT, REACH, UNIT

# first 16 hex digits of the SHA-256: a difference here means that old pools cannot be read
GOLDEN = {
    "stretch": "3cde83e6c336252a",
    "squash": "4b0d4077323fc283",
    "reciprocal": "7b028366510dda0f",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_tables_are_frozen(name):
    table = getattr(tables, name)()
    assert table.dtype == np.int32
    assert hashlib.sha256(table.astype("<i4").tobytes()).hexdigest()[:16] == GOLDEN[name]


def test_stretch_equals_the_logarithm():
    p = (np.arange(4096) + 0.5) / 4096
    exact = [UNIT * math.log(x / (1 - x)) for x in p]
    assert np.abs(tables.stretch() - exact).max() <= 0.5 + 1e-9
    assert (np.diff(tables.stretch()) >= 0).all()
    np.testing.assert_array_equal(tables.stretch(), -tables.stretch()[::-1])
    assert tables.stretch().max() <= REACH


def test_squash_equals_the_exponential():
    exact = np.array([65536 / (1 + math.exp(-x / UNIT)) for x in range(-REACH, REACH + 1)])
    table = tables.squash()
    assert np.abs(table - exact.clip(16, 65520)).max() <= 0.5 + 1e-9
    assert (np.diff(table) >= 0).all()
    np.testing.assert_array_equal(table + table[::-1], 65536)
    assert (table.min(), table.max()) == (16, 65520)  # neither digit of a pair ever costs more than 12 bits


def test_squash_undoes_stretch():
    """As far as a whole number of stretch tells: half a unit of it, at the slope of squash."""
    p = 16 * np.arange(4096) + 8
    back = tables.squash()[tables.stretch() + REACH]
    slope = p * (65536 - p) / 65536 / UNIT
    assert (np.abs(back - p.clip(16, 65520)) <= 0.5 * slope * 1.01 + 1).all()


def test_reciprocals():
    """An even cell that sees only ones comes as near to one as the mean of what it saw."""
    wanted = [math.floor(2**tables.RECIPROCAL_BITS / (n + Fraction(3, 2))) for n in range(LIMIT + 1)]
    assert tables.reciprocal().tolist() == wanted
    p = 32768
    for n in range(LIMIT):
        p += (65535 - p) * wanted[n] >> tables.RECIPROCAL_BITS
        assert abs(p / 65535 - (n + 1.25) / (n + 1.5)) < 0.002
    assert 0 < p < 65536


@pytest.mark.parametrize("digits", [1, 4, 15])
def test_starts_to_arrays_and_back(digits):
    """Every value that a cell or a weight can have."""
    generator = np.random.default_rng(digits)

    def drawn(start):
        cells = generator.integers(0, 65536, start.cells.shape) << 8 | generator.integers(
            0, LIMIT + 1, start.cells.shape
        )
        weights = generator.integers(-tables.WEIGHT_LIMIT, tables.WEIGHT_LIMIT + 1, start.weights.shape)
        return tables.Start(cells.astype(np.int32), weights.astype(np.int32))

    starts = [drawn(tables.fresh(mode, digits)) for mode in ("context", "prior")]
    arrays = tables.to_arrays(*starts)
    assert {name: (a.dtype.name, a.shape) for name, a in arrays.items()} == {
        f"{mode}.{name}": (kind, a.shape)
        for mode, start in zip(("context", "mixed"), starts, strict=True)
        for name, kind, a in (
            ("p", "uint16", start.cells),
            ("n", "uint8", start.cells),
            ("weights", "int32", start.weights),
        )
    }
    for start, wanted in zip(tables.from_arrays(arrays), starts, strict=True):
        np.testing.assert_array_equal(start.cells, wanted.cells)
        np.testing.assert_array_equal(start.weights, wanted.weights)
        assert (start.cells.dtype, start.weights.dtype) == (np.int32, np.int32)


@pytest.mark.parametrize(("mode", "sets", "more"), [("context", 1, 1), ("prior", 4, 2)])
def test_starts_have_a_row_for_every_context(mode, sets, more):
    """And an input of the mixer for every expert, for the constant, and for the net's logit in mode `prior`, which has
    weights for each quarter of its doubt."""
    start, experts = tables.fresh(mode, 8), tables.EXPERTS[mode]
    assert start.cells.shape == (8 * sum(tables.SIZES[:experts]), 3)
    assert start.weights.shape == (8 * sets * 3, experts + more)
    assert (start.cells == 32768 << 8).all()
    assert (start.weights[:, experts:] == 0).all()


@pytest.mark.parametrize("mode", ["context", "prior"])
@pytest.mark.parametrize("digits", [1, 3, 4])
def test_start_of_fewer_digits(mode, digits):
    """Of every expert, and of the mixer, what the first digits have; nothing moves from one digit to another."""
    fresh = tables.fresh(mode, 4)
    numbers = [np.arange(part.size, dtype=np.int32).reshape(part.shape) for part in fresh]
    fewer = tables.Start(*numbers).first(digits, 4)
    for found, shape in zip(fewer, tables.fresh(mode, digits), strict=True):
        assert (found.shape, found.dtype) == (shape.shape, shape.dtype)
    begin, begin_fewer = 0, 0
    for size in tables.SIZES[: tables.EXPERTS[mode]]:
        for j in range(digits):
            for n in (0, size - 1):
                row = fewer.cells[begin_fewer + j * size + n]
                np.testing.assert_array_equal(row, numbers[0][begin + j * size + n])
        begin, begin_fewer = begin + 4 * size, begin_fewer + digits * size
    for found, whole in zip(
        fewer.weights.reshape(digits, -1, 3, fewer.weights.shape[1]),
        numbers[1].reshape(4, -1, 3, fewer.weights.shape[1]),
        strict=False,
    ):
        np.testing.assert_array_equal(found, whole)
