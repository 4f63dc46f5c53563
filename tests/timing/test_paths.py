"""Bits <-> data paths: round trips, legal paths of one number of rounds, and what is no path."""

import dataclasses

import numpy as np
import pytest

from helix_jax.timing import channel, paths
from helix_jax.timing.graph import TALK, GraphError, TimeTable
from helix_jax.timing.paths import PathError
from helix_jax.timing.scheme import Scheme
from helix_jax.timing.state_splitting import SplittingError

SCHEME = Scheme(
    name="test", law=channel.Binomial.uniform(0.98), table=TALK, copies=2, delta=0.1, duration=72, data=61, spacing=24,
    parity=14,
)  # fmt: skip
SPLIT = dataclasses.replace(SCHEME, name="split 9:5", splitting=(9, 5))
SHORT = dataclasses.replace(SCHEME, name="split 5:3", splitting=(5, 3), duration=66)
SCHEMES = pytest.mark.parametrize("scheme", [SCHEME, SPLIT, SHORT], ids=lambda scheme: scheme.name)
STRANDS = 50


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Every salt takes a batch, padded."""
    monkeypatch.setattr(paths, "_BATCH", 56)


def payload(coder, strands=STRANDS, seed=0):
    """Random bytes, and the extremes among them."""
    symbols = np.random.default_rng(seed).integers(0, 256, (strands, coder.bits // 8), np.uint8)
    symbols[0], symbols[1] = 0, 255
    return symbols


def times_of(letters, levels):
    """Time of each round by a walk over the table: int64[n, data]."""
    out = np.zeros(letters.shape, np.int64)
    for s, (row, chosen) in enumerate(zip(letters.tolist(), levels.tolist(), strict=True)):
        last = 0
        for j, (a, level) in enumerate(zip(row, chosen, strict=True)):
            out[s, j] = TALK.times[last][a][level]
            last = a
    return out


@SCHEMES
def test_there_and_back(scheme):
    """Legal paths, of one number of rounds, of the time that was asked for; and the same bytes again."""
    coder = paths.coder(scheme)
    symbols, told = payload(coder), []
    letters, levels = paths.write(coder, symbols, told.append)
    assert letters.shape == levels.shape == (STRANDS, scheme.data)
    assert sum(told) == STRANDS
    times = times_of(letters, levels)
    if scheme.splitting:
        assert (times.sum(axis=1) >= coder.units).all()
        assert (times[:, :-1].sum(axis=1) < coder.units).all()
        assert coder.units == scheme.duration // scheme.splitting[1] * scheme.splitting[1]
    else:
        assert (times.sum(axis=1) == scheme.duration).all()
    back, ok = paths.read(coder, letters, levels)
    assert ok.all()
    np.testing.assert_array_equal(back, symbols)
    assert len(np.unique(np.concatenate([letters, levels], axis=1), axis=0)) == STRANDS


@SCHEMES
def test_strands_do_not_depend_on_each_other(scheme, monkeypatch):
    coder = paths.coder(scheme)
    symbols = payload(coder)
    letters, levels = paths.write(coder, symbols)
    monkeypatch.setattr(paths, "_BATCH", 8)
    some = [41, 3, 17]
    few, few_levels = paths.write(coder, symbols[some])
    np.testing.assert_array_equal(few, letters[some])
    np.testing.assert_array_equal(few_levels, levels[some])
    back, ok = paths.read(coder, letters, levels)
    assert ok.all()
    np.testing.assert_array_equal(back, symbols)


def test_bits_of_a_strand():
    """State splitting: p bits a block of q units, but for the blocks that reading looks ahead, and the salt."""
    for scheme, (p, q) in ((SPLIT, (9, 5)), (SHORT, (5, 3))):
        encoder = paths.state_splitting.build(paths.ordinary_graph(TALK), p, q)
        assert paths.coder(scheme).bits == p * (scheme.duration // q - encoder.anticipation) - 8
    # no more than capacity allows, and less than a tenth below it
    assert 0.9 * 72 * 1.815179 < paths.coder(SCHEME).bits < 72 * 1.815179


def test_a_wrong_level_is_no_path():
    """Range coder: the time of the strand is wrong then."""
    coder = paths.coder(SCHEME)
    letters, levels = paths.write(coder, payload(coder))
    for j in (0, 30, SCHEME.data - 1):
        wrong = levels.copy()
        wrong[:, j] ^= 1
        assert not paths.read(coder, letters, wrong)[1].any()


@SCHEMES
def test_what_is_no_path(scheme):
    """A letter twice, a level that does not exist, the shortest and the longest times all along."""
    coder = paths.coder(scheme)
    letters, levels = paths.write(coder, payload(coder))
    twice, missing = letters.copy(), levels.copy()
    twice[:, 20] = twice[:, 19]
    missing[:, 20] = 2
    for wrong in ((twice, levels), (letters, missing), (letters, levels * 0), (letters, levels * 0 + 1)):
        assert not paths.read(coder, *wrong)[1].any()


@pytest.mark.parametrize("scheme", [SPLIT, SHORT], ids=lambda scheme: scheme.name)
def test_the_first_salt_that_fits_is_taken(scheme):
    """Writes each strand with the salts before its own: none gives the number of rounds."""
    coder = paths.coder(scheme)
    symbols = payload(coder, 4)
    letters, levels = paths.write(coder, symbols)
    p, _ = scheme.splitting
    size = coder.bits + 8
    words, _ = paths._read_split(
        (coder.arrays, coder.edges), letters, levels, shape=coder.shape, units=coder.units, bits=size
    )
    salts = np.asarray(words)[:, 0] >> 24
    assert salts.max() > 0
    for symbol, salt in zip(symbols, salts.tolist(), strict=True):
        rows = [np.append(np.uint8(s), paths._salted(symbol[None], s)[0]) for s in range(256)]
        found = paths._write_split(
            (coder.arrays, coder.edges), paths._words(np.stack(rows), size), shape=coder.shape,
            blocks=size // p,
        )  # fmt: skip
        assert int(np.argmax(np.asarray(found[2]) == scheme.data)) == salt


def test_a_number_of_rounds_that_no_salt_gives():
    coder = paths.coder(dataclasses.replace(SPLIT, data=20))
    with pytest.raises(PathError, match="no salt gives 2 strands 20 rounds: choose another"):
        paths.write(coder, payload(coder, 2))


def test_the_last_salt_counts(monkeypatch):
    """With no more salts than a strand needs it is written; with one fewer it is not."""
    coder = paths.coder(SPLIT)
    symbols = payload(coder, 12)
    words, _ = paths._read_split(
        (coder.arrays, coder.edges), *paths.write(coder, symbols), shape=coder.shape, units=coder.units,
        bits=coder.bits + 8,
    )  # fmt: skip
    salts = (np.asarray(words)[:, 0] >> 24).astype(int)
    late, salt = symbols[[salts.argmax()]], salts.max()
    assert salt
    monkeypatch.setattr(paths, "range", lambda count: range(salt + 1), raising=False)
    np.testing.assert_array_equal(paths.read(coder, *paths.write(coder, late))[0], late)
    monkeypatch.setattr(paths, "range", lambda count: range(salt), raising=False)
    with pytest.raises(PathError, match="no salt"):
        paths.write(coder, late)


@pytest.mark.slow
def test_typical_rounds_is_what_most_strands_have():
    """Against the mean time of a round, and against neighbours: few salts are needed."""
    for splitting, duration in (((9, 5), 72), ((5, 3), 66)):
        typical = paths.typical_rounds(TALK, splitting, duration)
        assert 0.78 < typical / duration < 0.95  # mean time of a round by the max-entropic chain: 1.17
        assert typical == paths.typical_rounds(TALK, splitting, duration)
    coder = paths.coder(dataclasses.replace(SPLIT, data=paths.typical_rounds(TALK, (9, 5), 72)))
    words, _ = paths._read_split(
        (coder.arrays, coder.edges), *paths.write(coder, payload(coder)), shape=coder.shape, units=coder.units,
        bits=coder.bits + 8,
    )  # fmt: skip
    assert (np.asarray(words)[:, 0] >> 24).mean() < 12


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"splitting": (2, 1)}, SplittingError, "2"),  # above capacity
        ({"splitting": (9, 5), "duration": 14, "data": 10}, PathError, "14 time units hold no byte at 9:5"),
        ({"duration": 4, "data": 4}, PathError, "test: 4 time units hold no byte"),
        ({"splitting": (9, 5), "data": 72}, PathError, "72 data rounds do not fit"),
        ({"data": 1}, GraphError, "1 round"),  # no path of one round takes 72 units
    ],
)
def test_schemes_without_a_coder(changes, error, words):
    with pytest.raises(error, match=words):
        paths.coder(dataclasses.replace(SCHEME, **changes))


def test_too_short_for_typical_rounds():
    with pytest.raises(PathError, match="4 time units are too short for 9:5"):
        paths.typical_rounds(TALK, (9, 5), 4)


def test_other_tables():
    """Three levels, and one: with a single level a path is letters alone."""
    for table, data in ((TimeTable.uniform((1, 2, 4)), 26), (TimeTable.uniform((1,)), 40)):
        scheme = dataclasses.replace(SCHEME, table=table, duration=40, data=data, parity=0)
        coder = paths.coder(scheme)
        symbols = payload(coder, 9)
        letters, levels = paths.write(coder, symbols)
        assert levels.max() == table.levels - 1
        back, ok = paths.read(coder, letters, levels)
        assert ok.all()
        np.testing.assert_array_equal(back, symbols)
    assert coder.bits == int(40 * np.log2(3))
