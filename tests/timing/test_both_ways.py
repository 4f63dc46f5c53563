"""Alignment from both ends, measured on simulated copies: clean, with losses, and where it must refuse."""

import functools

import jax
import numpy as np
import pytest

from helix_jax.timing import alignment, both_ways, channel, frame, synthesis
from helix_jax.timing.channel import TALK_LAW, Binomial
from helix_jax.timing.frame import DATA, Frame
from helix_jax.timing.graph import TALK
from helix_jax.timing.window import NOTHING

LAYOUT = Frame(40, 6, 0, 4, 9, reversible=True)
STRANDS, MOST_COPIES, LONGEST, WINDOW = 8, 6, 128, 24


@functools.cache
def strands(seed):
    """Letters and levels uint8[STRANDS, R]."""
    rng = np.random.default_rng(seed)
    letters = (np.cumsum(rng.integers(1, 4, (STRANDS, LAYOUT.data)), axis=1) % 4).astype(np.uint8)
    levels = (rng.random(letters.shape) < 0.15).astype(np.uint8)
    digits = rng.integers(0, 3, (STRANDS, LAYOUT.index)).astype(np.uint8)
    return tuple(map(np.array, jax.jit(functools.partial(frame.write, frame=LAYOUT))(letters, levels, digits)))


def copies_of(law, strand, copies, seed, lose=()):
    """Reads uint8[STRANDS, MOST_COPIES, LONGEST] and their lengths, 0 for copies that are not there."""
    letters, levels = strand
    runs = np.array(synthesis.simulate(jax.random.key(seed), letters, levels, channel.pmf_table(law, TALK), copies))
    runs[:, :, list(lose)] = 0
    reads, lengths = np.zeros((STRANDS, MOST_COPIES, LONGEST), np.uint8), np.zeros((STRANDS, MOST_COPIES), np.int32)
    for i, n in np.ndindex(runs.shape[:2]):
        read = np.repeat(letters[i], runs[i, n])
        reads[i, n, : len(read)], lengths[i, n] = read, len(read)
    return reads, lengths


@functools.cache
def aligner(way):
    align = functools.partial(getattr(both_ways, way), layout=LAYOUT, count=40, window=WINDOW)
    return jax.jit(jax.vmap(align, in_axes=(None, 0, 0)))


def found(way, law, reads, lengths):
    return jax.device_get(aligner(way)(alignment.model(law, TALK), reads, lengths))


WAYS = pytest.mark.parametrize("way", ["one_way", "both_ways"])


@WAYS
def test_without_loss_one_copy_is_enough(way):
    law = Binomial.uniform(1.0)
    letters, levels, score, doubt = found(way, law, *copies_of(law, strands(1), 1, seed=1))
    np.testing.assert_array_equal(letters, strands(1)[0])
    np.testing.assert_array_equal(levels, strands(1)[1])
    assert (score > NOTHING / 2).all()
    assert (doubt < 1e-2).all()


@WAYS
def test_talk(way):
    letters, _, score, doubt = found(way, TALK_LAW, *copies_of(TALK_LAW, strands(2), 6, seed=2))
    accepted, right = (score > NOTHING / 2) & (doubt < 12), (letters == strands(2)[0]).all(axis=1)
    assert (accepted & right).mean() >= 0.8
    assert (accepted & ~right).sum() <= 1


@pytest.mark.parametrize("place", [12, 30])
def test_a_run_lost_in_every_copy_is_located(place):
    """Only the check letters can tell, from whichever end they are read."""
    assert LAYOUT.kinds[place] == DATA
    law = Binomial.uniform(0.93)
    copies = copies_of(law, strands(3), 5, seed=place, lose=[place])
    letters, _, score, _ = found("both_ways", law, *copies)
    accepted, right = score > NOTHING / 2, (letters == strands(3)[0]).all(axis=1)
    assert (accepted & right).mean() >= 0.8
    one, _, score, _ = found("one_way", law, *copies)
    one_right = (score > NOTHING / 2) & (one == strands(3)[0]).all(axis=1)
    assert (accepted & right).sum() >= one_right.sum()


@WAYS
def test_copies_of_other_strands_are_refused(way):
    law = Binomial.uniform(0.95)
    reads, lengths = copies_of(law, strands(4), 4, seed=4)
    reads[:, 0], lengths[:, 0] = np.roll(reads[:, 0], 1, axis=0), np.roll(lengths[:, 0], 1)
    _, _, score, _ = found(way, law, reads, lengths)
    assert (score <= NOTHING / 2).mean() >= 0.9
    _, _, score, _ = found(way, law, reads, lengths * 0)
    assert (score <= NOTHING / 2).all()
