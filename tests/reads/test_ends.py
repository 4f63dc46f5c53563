"""Primers that nobody stated: found among strands of several pools in both directions, with keys where headers are."""

import numpy as np
import pytest

from helix_jax import codec
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.reads import ends
from helix_jax.strands import header_search

PRIMERS = (
    ("AGGTCTGGATTTCCAAGGTC", "CCCTTAGCTGTCTGTTACGC"),
    ("TCACAACCTTCCCGACTACC", "CTGATGAGGCTACTCGTGTG"),
)


@pytest.fixture(scope="module")
def pools():
    made = []
    for number, (left, right) in enumerate(PRIMERS):
        strands = StrandConfig(length=100, left_primer=left, right_primer=right)
        content = np.random.default_rng(number).bytes(300 + 100 * number)
        made.append(codec.pack(content, config=CodecConfig(constraints="strand", strands=strands)))
    return made


def mixed(parts, noise=0.0):
    """Strands in random order, half of them turned, with a share of the bases changed."""
    draw = np.random.default_rng(1)
    rows = draw.permutation(np.concatenate(parts))
    rows[::2] = header_search.turned(rows[::2])
    wrong = draw.random(rows.shape) < noise
    return np.where(wrong, (rows + draw.integers(1, 4, rows.shape, np.uint8)) % 4, rows).astype(np.uint8)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_the_primers_of_each_pool(pools, noise):
    found = ends.shared(mixed([pool.strands for pool in pools], noise))
    assert {(one.left, one.right) for one in found} == set(PRIMERS)
    assert [one.strands for one in found] == sorted((one.strands for one in found), reverse=True)
    if not noise:
        assert sorted(one.strands for one in found) == sorted(len(pool.strands) for pool in pools)


def test_none_where_there_are_none(pools):
    cores = [header_search.core(pool.strands, written_of(pool)) for pool in pools]
    assert ends.shared(mixed(cores)) == []
    assert ends.shared(np.random.default_rng(0).integers(0, 4, (300, 140), np.uint8)) == []
    assert ends.shared(np.zeros((0, 140), np.uint8)) == []
    assert ends.advice([]) == ""


def written_of(pool):
    return header_search.Written((), pool.constraints.left, pool.constraints.right)


@pytest.mark.usefixtures("cheap_sets")
def test_the_keys(pools):
    found = ends.pools(mixed([pool.strands for pool in pools]), ())
    assert {(one.left, one.right): one.key for one in found} == {
        primers: pool.header.key for primers, pool in zip(PRIMERS, pools, strict=True)
    }
    words = ends.advice(found)
    assert words.startswith("several pools are mixed")
    for (left, right), pool in zip(PRIMERS, pools, strict=True):
        assert f"--left-primer {left} --right-primer {right} (key {pool.header.key.hex()})" in words
    assert ends.advice(found[:1]).startswith("the strands have primers: give --left-primer")
    few = [pools[0].strands[pools[0].header_strands :], pools[1].strands]
    [without] = [one for one in ends.pools(mixed(few), ()) if one.left == PRIMERS[0][0]]
    assert without.key is None
