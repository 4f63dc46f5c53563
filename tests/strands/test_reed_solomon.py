"""Reed-Solomon blocks: any packets, as many as source symbols, give the block back, and one less is refused."""

import dataclasses
import itertools

import numpy as np
import pytest

from helix_jax.strands import layouts, outer, reed_solomon
from helix_jax.strands.reed_solomon import ReedSolomon

WIDTH = 5


def block(sources, repairs, seed=0):
    """(code, all packets of a block)."""
    data = np.random.default_rng(seed).integers(0, 256, (sources, WIDTH), np.uint8)
    code = ReedSolomon(repairs)
    return code, np.concatenate([data, code.repair_symbols(data, repairs)])


def test_any_packets_suffice():
    code, packets = block(4, 3)
    for kept in itertools.combinations(range(7), 4):
        data, used = code.solve(4, np.array(kept), packets[list(kept)])
        np.testing.assert_array_equal(data, packets[:4])
        assert used == 4
    assert code.solve(4, np.arange(4, 7), packets[4:]) == (None, 0)


@pytest.mark.parametrize(("sources", "repairs"), [(1, 1), (1, 30), (254, 1), (235, 20)])
def test_blocks_of_any_size(sources, repairs):
    code, packets = block(sources, repairs)
    kept = np.sort(np.random.default_rng(1).permutation(sources + repairs)[:sources])
    np.testing.assert_array_equal(code.solve(sources, kept, packets[kept])[0], packets[:sources])


def test_missing_packets_are_filled_in_by_whoever_does_not_know_the_repairs():
    """As long as there are as many; packets past the last come out as zeros."""
    _, packets = block(9, 4)
    for gone in ([], [0], [3, 12], [0, 1, 2, 3]):
        damaged = packets.copy()
        damaged[gone] = 7
        np.testing.assert_array_equal(reed_solomon.filled(damaged, gone), packets)
    longer = np.concatenate([packets, np.full((2, WIDTH), 9, np.uint8)])
    longer[1] = 0
    found = reed_solomon.filled(longer, [1, 13, 14])
    np.testing.assert_array_equal(found, np.concatenate([packets, np.zeros((2, WIDTH), np.uint8)]))


@pytest.mark.parametrize(
    ("errors", "erased"), [(0, 0), (0, 1), (0, 6), (1, 0), (3, 0), (1, 4), (2, 1), (2, 2), (0, 5), (1, 3)]
)
def test_errors_count_twice_and_erased_symbols_once(errors, erased):
    """Six repair symbols; what stands in place of an erased symbol does not matter."""
    for seed in range(5):
        word = block(9, 6, seed)[1][:, 0]
        generator = np.random.default_rng(seed)
        places = generator.permutation(15)
        gone, wrong = places[:erased], places[erased : erased + errors]
        damaged = word.copy()
        damaged[wrong] ^= generator.integers(1, 256, errors, np.uint8)
        damaged[gone] = generator.integers(0, 256, erased, np.uint8)
        found = reed_solomon.corrected(damaged, gone, 6)
        np.testing.assert_array_equal(found, word)
        assert found.dtype == np.uint8


@pytest.mark.parametrize(("errors", "erased"), [(0, 7), (4, 0), (3, 1), (1, 5), (2, 3), (5, 2)])
def test_a_word_with_more_errors_is_not_corrected(errors, erased):
    """There is none, or, by a rare chance, another word of the code: never a word that is none."""
    found = []
    for seed in range(20):
        word = block(9, 6, seed)[1][:, 0]
        generator = np.random.default_rng(seed)
        places = generator.permutation(15)
        damaged = word.copy()
        damaged[places[erased : erased + errors]] ^= generator.integers(1, 256, errors, np.uint8)
        found.append(reed_solomon.corrected(damaged, places[:erased].tolist(), 6))
        if found[-1] is not None:
            assert (found[-1] != word).any()
            np.testing.assert_array_equal(ReedSolomon(6).repair_symbols(found[-1][:9, None], 6)[:, 0], found[-1][9:])
    assert sum(each is None for each in found) >= 16 * (erased < 5) + 20 * (erased > 6)


def test_the_packets_of_a_block_stay():
    """A golden: field, generator and roots are a format."""
    data = np.arange(15, dtype=np.uint8).reshape(3, 5)
    assert ReedSolomon(2).repair_symbols(data, 2).tobytes().hex() == "05001f3e110a0c163812"


@pytest.mark.parametrize("spare", [0, 1, 2, 3])
def test_pools_of_reed_solomon_blocks(spare):
    """Each lost packet costs one; wrong ones are found as long as there are two more to spare than wrong ones."""
    layout = dataclasses.replace(layouts.plan(287, 3000, 0.1), reed_solomon=True)
    assert layout.exact(layout.sources, layout.repairs)
    generator = np.random.default_rng(spare)
    payload = generator.bytes(3000)
    packets = outer.encode(layout, payload)
    genuine = outer.matching(outer.payload_digest(payload))
    kept = generator.permutation(layout.packets)[: layout.sources + spare]
    result = outer.decode(layout, kept, packets[kept], genuine)
    assert (result.payload, result.verified) == (payload, True)
    one_less = kept[: layout.sources - 1]
    result = outer.decode(layout, one_less, packets[one_less], genuine)
    assert not result.verified
    assert result.lost.sum() == layout.sources - np.count_nonzero(one_less < layout.sources)
    wrong = packets.copy()
    wrong[kept[0]] ^= generator.integers(1, 256, wrong.shape[1], np.uint8)
    result = outer.decode(layout, kept, wrong[kept], genuine)
    if spare >= 2:
        assert (result.payload, result.rejected.tolist()) == (payload, [kept[0]])
    else:
        assert result.verified == (result.payload == payload)
