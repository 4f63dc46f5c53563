"""Outer code: losses within reach come back bit for bit, wrong packets are found, nothing wrong is called verified."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax.strands import audit, layouts, outer, raptor


def pool(payload_bytes, redundancy, seed, bits=287):
    """(layout, payload, index, symbols, digest, generator) of a random payload."""
    rng = np.random.default_rng(seed)
    layout = layouts.plan(bits, payload_bytes, redundancy)
    payload = rng.bytes(payload_bytes)
    return layout, payload, np.arange(layout.packets), outer.encode(layout, payload), outer.payload_digest(payload), rng


def spoil(symbols, rows, rng):
    """Replace rows by garbage that differs in its tail, as a substituted base leaves it."""
    wrong = symbols.copy()
    start = symbols.shape[1] // 3
    wrong[rows, start:] ^= rng.integers(1, 256, (len(rows), symbols.shape[1] - start), np.uint8)
    return wrong


def survivors(layout, rng, lost_per_block):
    """Rows that stay when each block loses that many of its packets."""
    block, _ = layout.locate(np.arange(layout.packets))
    lost = [rng.choice(np.flatnonzero(block == b), lost_per_block, replace=False) for b in range(layout.blocks)]
    return rng.permutation(np.setdiff1d(np.arange(layout.packets), np.concatenate(lost)))


@pytest.mark.parametrize("extra", ["0", "1", "symbol-1", "symbol", "symbol+1", "9 symbols"])
@pytest.mark.parametrize("redundancy", [0, 0.5])
def test_small_payloads_are_systematic(extra, redundancy):
    width = layouts.plan(287, 1, redundancy).symbol_bytes
    size = {"0": 0, "1": 1, "symbol-1": width - 1, "symbol": width, "symbol+1": width + 1, "9 symbols": 9 * width}[
        extra
    ]
    layout, payload, index, symbols, digest, rng = pool(size, redundancy, 5)
    assert symbols.shape == (layout.packets, layout.symbol_bytes)
    assert symbols[: layout.sources].tobytes() == payload.ljust(layout.sources * layout.symbol_bytes, b"\0")
    result = outer.decode(layout, index, symbols, outer.matching(digest))
    assert (result.payload, result.verified) == (payload, True)
    assert not result.lost.any()
    assert result.lost.shape == result.suspect.shape == (layout.sources,)
    rows = survivors(layout, rng, max(0, layout.repairs - 2))
    result = outer.decode(layout, index[rows], symbols[rows], outer.matching(digest))
    assert (result.payload, result.verified) == (payload, True)


@settings(max_examples=150)
@given(
    payload_bytes=st.integers(1, 6000),
    redundancy=st.floats(0.01, 1.5),
    bits=st.integers(40, 400),
    seed=st.integers(0, 1 << 32),
)
def test_loss_within_reach(payload_bytes, redundancy, bits, seed):
    layout, payload, index, symbols, digest, rng = pool(payload_bytes, redundancy, seed, bits)
    rows = survivors(layout, rng, layout.repairs - 2)
    result = outer.decode(layout, index[rows], symbols[rows], outer.matching(digest))
    assert result.payload == payload
    assert result.verified
    assert not result.lost.any()
    assert not result.suspect.any()
    assert not result.rejected.size


def test_columns_of_any_width_agree_with_the_library():
    """Repair symbols are RaptorQ's own over zero-padded symbols, also where blocks are coded side by side."""
    layout, _, _, symbols, _, _ = pool(300_000, 0.01, 2, bits=8 * 13 + 32)
    assert layout.symbol_bytes == 13
    assert layout.blocks == 3
    block, symbol = layout.locate(np.arange(layout.packets))
    for number, size in enumerate(layout.block_sources):
        data = np.pad(symbols[(block == number) & (symbol < size)], ((0, 0), (0, 3)))
        encoder = raptor.raptorq.Encoder.with_defaults(data.tobytes(), 16)
        for packet in encoder.get_encoded_packets(layout.repairs)[size:]:
            row = layout.index_of(number, int.from_bytes(packet[1:4], "big"))
            assert packet[0] == 0
            assert packet[4:] == symbols[row].tobytes() + bytes(3)


def test_several_blocks_of_3_mib():
    layout, payload, index, symbols, digest, rng = pool(3 << 20, 0.02, 1)
    assert layout.blocks > 10
    rows = survivors(layout, rng, layout.repairs - 2)
    seen = []
    result = outer.decode(
        layout, index[rows], symbols[rows], outer.matching(digest), progress=lambda *done: seen.append(done)
    )
    assert result.payload == payload
    assert result.verified
    assert seen == [(done, layout.blocks) for done in range(1, layout.blocks + 1)]


def test_wide_symbols_stay_one_packet_each():
    layout, payload, index, symbols, digest, rng = pool(400_000, 0.3, 1, bits=20_000)
    rows = survivors(layout, rng, layout.repairs - 2)
    result = outer.decode(layout, index[rows], symbols[rows], outer.matching(digest))
    assert (result.payload, result.verified) == (payload, True)


@pytest.mark.parametrize("wrong", [1, 2, 5, 20])
@pytest.mark.parametrize("spare", ["all", "some"])
def test_wrong_packets_are_located(wrong, spare):
    layout, payload, index, symbols, digest, rng = pool(20_000, 0.1, wrong)
    bad = np.sort(rng.choice(layout.sources, wrong, replace=False))
    bad[-1] = layout.packets - 1 if wrong > 1 else bad[-1]
    symbols = spoil(symbols, bad, rng)
    rows = rng.permutation(layout.packets)
    if spare == "some":
        rows = np.union1d(survivors(layout, rng, layout.repairs - wrong - 4), bad)
    result = outer.decode(layout, index[rows], symbols[rows], outer.matching(digest))
    assert result.payload == payload
    assert result.verified
    assert result.rejected.tolist() == bad.tolist()
    assert not result.lost.any()
    assert not result.suspect.any()


@pytest.mark.parametrize("seed", range(12))
def test_one_wrong_packet_with_two_to_spare(seed):
    """The least surplus that the promise leaves: the code alone cannot always tell, the digest decides."""
    layout, payload, index, symbols, digest, rng = pool(9_000, 0.05, seed)
    rows = survivors(layout, rng, layout.repairs - 2)
    bad = rng.choice(rows[rows < layout.sources])
    symbols = spoil(symbols, [bad], rng)
    result = outer.decode(layout, index[rows], symbols[rows], outer.matching(digest))
    assert result.payload == payload
    assert result.verified
    assert result.rejected.tolist() == [bad]


def test_one_wrong_packet_with_one_to_spare_in_a_small_block():
    layout, payload, index, symbols, digest, rng = pool(600, 0.05, 3)
    rows = np.arange(layout.sources + 1)
    symbols = spoil(symbols, [4], rng)
    result = outer.decode(layout, index[rows], symbols[rows], outer.matching(digest))
    assert (result.payload, result.verified, result.rejected.tolist()) == (payload, True, [4])


def test_wrong_packets_are_named_where_one_more_was_needed():
    """As many packets as sources fail to solve a block about once in 300; one more is then used."""
    layout, _, _, symbols, _, rng = pool(300, 2.0, 3)
    assert layout.blocks == 1
    while True:
        ids = np.sort(rng.choice(layout.packets, layout.sources + 6, replace=False))
        used = raptor.solve(layout.sources, ids, symbols[ids])[1]
        if used > layout.sources:
            break
    for bad in ids[:used]:
        (finding,) = audit.audit(layout.sources, ids, spoil(symbols, [bad], rng)[ids], layout.symbol_bytes)
        assert finding.rejected == (bad,)
        assert finding.data.tobytes() == symbols[: layout.sources].tobytes()


def test_packets_without_effect_are_not_blamed():
    """With one packet to spare, a wrong one shows unless its coefficient is zero (1 in 256)."""
    layout, _, _, symbols, _, rng = pool(33 * 600, 0.01, 3)
    ids = np.arange(layout.sources + 1)
    wrong, rank = audit._blame(
        layout.sources, ids, layout.sources, ids[-1:], np.ones((1, layout.symbol_bytes), np.uint8)
    )
    assert rank == 1
    silent = np.setdiff1d(ids, wrong)
    assert 1 <= silent.size <= 12
    for bad in silent:
        (finding,) = audit.audit(layout.sources, ids, spoil(symbols, [bad], rng)[ids], layout.symbol_bytes)
        assert (finding.rejected, finding.surplus) == ((), 1)


def test_wrong_packets_in_two_blocks():
    layout, payload, index, symbols, digest, rng = pool(30_000 * 8, 0.01, 3, bits=8 * 8 + 16 + 16)
    assert layout.blocks > 2
    bad = np.array([7, layout.block_sources[0] + 3, layout.packets - 1])
    symbols = spoil(symbols, bad, rng)
    result = outer.decode(layout, index, symbols, outer.matching(digest))
    assert (result.payload, result.verified) == (payload, True)
    # a wrong packet that nothing is solved from need not be found, but this one is: its block was searched anyway
    assert result.rejected.tolist() == bad.tolist()


def test_wrong_packet_is_found_where_another_block_is_lost():
    layout, payload, index, symbols, digest, rng = pool(20_000 * 8, 0.01, 3, bits=8 * 8 + 16 + 16)
    size = layout.block_sources[0]
    dropped = rng.choice(size, layout.repairs + 1, replace=False)
    bad = size + 11
    symbols = spoil(symbols, [bad], rng)
    rows = np.setdiff1d(index, dropped)
    result = outer.decode(layout, rows, symbols[rows], outer.matching(digest))
    assert not result.verified
    assert np.flatnonzero(result.lost).tolist() == sorted(dropped)
    assert not result.suspect.any()
    assert result.rejected.tolist() == [bad]
    wanted = np.frombuffer(payload, np.uint8).reshape(-1, layout.symbol_bytes).copy()
    wanted[dropped] = 0
    assert result.payload == wanted.tobytes()


def test_no_surplus_no_trust():
    """A complete systematic block is not believed when the digest says otherwise."""
    layout, payload, index, symbols, digest, rng = pool(5_000, 0, 4)
    wrong = spoil(symbols, [17], rng)
    result = outer.decode(layout, index, wrong, outer.matching(digest))
    assert not result.verified
    assert result.suspect.all()
    assert not result.lost.any()
    assert result.payload == wrong.tobytes()[:5_000] != payload


def test_too_many_wrong_packets_are_not_verified():
    layout, _, index, symbols, digest, rng = pool(5_000, 0.1, 4)
    bad = rng.choice(layout.sources, layout.repairs + 5, replace=False)
    symbols = spoil(symbols, bad, rng)
    rows = np.setdiff1d(index, [np.setdiff1d(np.arange(layout.sources), bad)[0]])
    result = outer.decode(layout, rows, symbols[rows], outer.matching(digest))
    assert not result.verified
    np.testing.assert_array_equal(np.flatnonzero(result.lost), np.setdiff1d(np.arange(layout.sources), rows))
    assert (result.suspect == ~result.lost).all()


def test_beyond_reach_keeps_what_was_received():
    layout, _, index, symbols, digest, rng = pool(10_000, 0.1, 6)
    rows = rng.permutation(layout.packets)[: layout.sources - 1]
    result = outer.decode(layout, index[rows], symbols[rows], outer.matching(digest))
    here = np.isin(np.arange(layout.sources), rows)
    np.testing.assert_array_equal(result.lost, ~here)
    assert not result.verified
    assert not result.suspect.any()
    wanted = symbols[: layout.sources] * here[:, None].astype(np.uint8)
    assert result.payload == wanted.tobytes()[:10_000]
    nothing = outer.decode(layout, index[:0], symbols[:0], outer.matching(digest))
    assert nothing.lost.all()
    assert nothing.payload == bytes(10_000)


def test_copies_of_an_index():
    layout, payload, index, symbols, digest, rng = pool(3_000, 0.1, 8)
    other = spoil(symbols, index, rng)
    # index 1: two good, one wrong; index 2: one good, one wrong; index 3: two alike; index 5: two wrong, one good
    rows = np.concatenate([index, [1, 3, 1, 2, 5, 5]])
    received = np.concatenate([symbols, symbols[[1, 3]], other[[1, 2, 5, 5]]])
    order = rng.permutation(len(rows))
    result = outer.decode(layout, rows[order], received[order], outer.matching(digest))
    assert (result.payload, result.verified) == (payload, True)
    assert result.rejected.tolist() == [1, 2, 5]
    bare = layouts.plan(287, 3_000, 0)
    tie = outer.decode(
        bare,
        np.append(np.arange(bare.packets), 2),
        np.append(symbols[: bare.packets], other[2:3], axis=0),
        outer.matching(digest),
    )
    assert np.flatnonzero(tie.lost).tolist() == [2]
    assert not tie.verified


@settings(max_examples=60)
@given(data=st.data(), seed=st.integers(0, 1 << 32))
def test_never_wrong_and_verified(data, seed):
    layout, payload, index, symbols, digest, rng = pool(
        data.draw(st.integers(1, 3000)),
        data.draw(st.sampled_from([0, 0.05, 0.3])),
        seed,
        data.draw(st.integers(40, 300)),
    )
    bad = rng.choice(layout.packets, data.draw(st.integers(0, min(6, layout.packets))), replace=False)
    symbols = spoil(symbols, bad, rng)
    rows = rng.choice(layout.packets, data.draw(st.integers(0, layout.packets)))
    result = outer.decode(layout, index[rows], symbols[rows], outer.matching(digest))
    assert result.payload == payload or not result.verified
    assert len(result.payload) == len(payload)
    assert not (result.lost & result.suspect).any()
    assert not (result.verified and (result.lost.any() or result.suspect.any()))


def test_refuses():
    layout, payload, index, symbols, digest, _ = pool(100, 0, 0)
    with pytest.raises(ValueError, match="planned for 100"):
        outer.encode(layout, payload + b"x")
    with pytest.raises(ValueError, match="out of range"):
        outer.decode(layout, index + 1, symbols, outer.matching(digest))
    with pytest.raises(ValueError, match="symbols"):
        outer.decode(layout, index, symbols[1:], outer.matching(digest))


def test_the_least_proven_block_is_doubted():
    """Nothing contradicts itself and the digest fails: a wrong packet hides where the fewest others would show it."""
    layout, _, index, symbols, _, rng = pool(20_000 * 8, 0.01, 3, bits=8 * 8 + 16 + 16)
    block, number = layout.locate(index)
    spare = np.flatnonzero((block == 1) & (number >= layout.block_sources[1]))[1:]  # one of them is left
    rows = rng.permutation(np.setdiff1d(index, spare))
    assert (block == 0).sum() >= layout.block_sources[0] + 3
    result = outer.decode(layout, rows, symbols[rows], outer.matching(bytes(16)))
    assert not result.verified
    assert not result.lost.any()
    np.testing.assert_array_equal(result.suspect, block[: layout.sources] == 1)
