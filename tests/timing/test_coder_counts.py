"""Sharing out the counts, against the definition in exact rationals."""

import math
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from helix_jax.arithmetic import TOTAL
from helix_jax.timing import coder_counts


@given(st.lists(st.lists(st.floats(1e-9, 1) | st.just(0.0), min_size=6, max_size=6), min_size=1, max_size=8))
def test_counts_make_the_greatest_ratio_least(rows):
    weights = np.array(rows).T
    counts = coder_counts.share_counts(weights)
    assert (counts >= 0).all()
    assert not counts[weights == 0].any()
    for weight, count in zip(weights.T, counts.T, strict=True):
        if not weight.any():
            assert not count.any()
            continue
        assert count.sum() == TOTAL
        worst = max(Fraction(int(c)) / Fraction(w) for c, w in zip(count, weight, strict=True) if w)
        # with every ratio below the worst there are not enough counts to share out
        below = worst * (1 - Fraction(1, 10**12))
        assert sum(math.floor(below * Fraction(w)) for w in weight) < TOTAL
