"""Parity checks over a few strands: what they see, what a lost strand costs, and how often they fail."""

import itertools

import numpy as np
import pytest

from helix_jax.timing import ecc, local


def test_no_two_strands_share_more_than_one_set_of_checks():
    for span, ruler in local.RULERS.items():
        steps = [later - earlier for earlier, later in itertools.combinations(ruler, 2)]
        assert len(ruler) == span
        assert len(set(steps)) == len(steps)


@pytest.mark.parametrize(
    ("strands", "bits", "parity", "span"),
    [(1, 9, 2, 4), (2, 30, 4, 4), (5, 40, 6, 4), (16, 61, 5, 4), (30, 122, 12, 4), (20, 40, 6, 8), (36, 40, 6, 8)],
)
def test_checks_see_few_strands(strands, bits, parity, span):
    code = local.design(strands, bits, parity, span)
    assert sorted(code.order.tolist()) == list(range(strands * bits))
    assert code.column.shape[0] == strands * parity
    for owner in range(strands):
        inside = code.column[owner * parity : (owner + 1) * parity]
        seen = set((code.order[inside[inside < strands * bits]] // bits).tolist())
        ruler = local.RULERS[span]
        offsets = ruler if strands > ruler[-1] else range(min(span, strands))
        wanted = {(owner - offset) % strands for offset in offsets}
        assert len(wanted) == min(span, strands)
        assert seen == wanted
    load = (code.column < strands * bits).sum(axis=1)
    assert load.max() - load.min() <= 2 * span
    place = [sorted(part.reshape(-1).tolist()) for part in code.sockets]
    assert sum(map(len, place)) == load.sum() == len(set().union(*place))
    for part in code.sockets:  # no check sees a bit twice, where there are enough of them
        check = np.sort(part // code.column.shape[1], axis=1)
        assert parity < 4 or strands < 4 or (np.diff(check, axis=1) > 0).all()


def test_the_code_stays():
    """A golden: pools hold its parity."""
    bits = np.unpackbits(np.arange(80, dtype=np.uint8))
    parity = np.asarray(ecc.encode(local.design(10, 64, 6, 4), bits))
    assert np.packbits(parity).tobytes().hex() == "e8c1bcfdbf3c61e0"


def test_what_a_lost_strand_costs():
    read = np.ones(20, bool)
    read[7] = False
    assert np.flatnonzero(~local.visible(read, 4)).tolist() == [7, 8, 11, 13]
    broken = np.zeros(20, bool)
    broken[9] = True
    assert np.flatnonzero(local.seen(broken, 4)).tolist() == [3, 5, 8, 9]
    assert local.contradictions(2 * broken, 4).tolist() == (2 * local.seen(broken, 4)).tolist()


@pytest.mark.parametrize("lost", [0, 2])
def test_planned_parity_bears_errors_and_lost_strands(lost):
    """Of 6 groups none fails, where a check over all strands would see nothing but lost bits.

    Beside lost strands a strand may have so few checks left that another string of levels fulfils them.
    """
    strands, bits, crossover, share = 30, 300, 0.1, 0.05
    doubtful = -(crossover * np.log2(crossover) + (1 - crossover) * np.log2(1 - crossover))
    entropy, certain = share * doubtful, np.log(1 / crossover - 1)
    square = crossover * np.log2(crossover) ** 2 + (1 - crossover) * np.log2(1 - crossover) ** 2
    parity = local.planned_parity(strands, bits, entropy, share * square - entropy**2, lost, 4)
    assert entropy * bits < parity < 3 * entropy * bits
    code, generator = local.design(strands, bits, parity, 4), np.random.default_rng(lost)
    wrong = []
    for _ in range(6):
        truth = generator.integers(0, 2, (strands, bits), np.uint8)
        unsure = generator.random(truth.shape) < share
        flips = unsure & (generator.random(truth.shape) < crossover)
        llr = np.where(unsure, certain, 12.0) * np.where(truth ^ flips, -1, 1)
        read = np.ones(strands, bool)
        read[generator.permutation(strands)[:lost]] = False
        llr[~read] = 12.0
        known = np.repeat(local.visible(read, 4), parity)
        found, ok = ecc.decode(code, llr.reshape(-1).astype(np.float32), ecc.encode(code, truth.reshape(-1)), known)
        assert ok
        wrong.append(int((np.asarray(found).reshape(truth.shape) != truth)[read].any(axis=1).sum()))
    assert max(wrong) <= (lost > 0)
    assert sum(wrong) <= lost


def test_too_many_lost_strands_are_refused():
    with pytest.raises(ecc.EccError, match="no checks are left"):
        local.planned_parity(12, 100, 0.01, 0.01, 3, 4)
    with pytest.raises(ecc.EccError, match="give positive numbers"):
        local.design(0, 10, 3, 4)
