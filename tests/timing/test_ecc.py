"""The code on the level bits: against matrices, peeling, exact marginals, a plain decoder, and density evolution."""

import functools
import hashlib
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from helix_jax import parallel
from helix_jax.timing import ecc


def entropy(p):
    """H2(p), bits."""
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def matrix(code):
    """uint8[m, n]: A in the order of the bits."""
    dense = np.zeros((len(code.column), len(code.order)), np.uint8)
    for check, places in enumerate(code.column):
        for place in places[places < len(code.order)]:
            dense[check, code.order[place]] ^= 1
    return dense


def hand_made(rows, n):
    """A Code from lists of bits, one for each check; every bit must be in one."""
    width = max(map(len, rows))
    column = np.array([[*row, *[n] * (width - len(row))] for row in rows], np.int32)
    sockets = [[int(at) for at in np.flatnonzero(column.reshape(-1) == bit)] for bit in range(n)]
    order = sorted(range(n), key=lambda bit: len(sockets[bit]))
    inside = np.append(np.argsort(order), n)
    weights = sorted({len(s) for s in sockets})
    parts = tuple(np.array([sockets[b] for b in order if len(sockets[b]) == d], np.int32) for d in weights)
    return ecc.Code(np.array(order, np.int32), inside[column].astype(np.int32), parts)


def through(key, n, p):
    """Bits and log-likelihood ratios of a binary symmetric channel: uint8[n], float32[n]; the sent word is random."""
    sent = key.integers(0, 2, n, dtype=np.uint8)
    read = sent ^ (key.random(n) < p)
    return sent, ((1 - 2.0 * read) * math.log((1 - p) / p)).astype(np.float32)


@pytest.fixture(scope="module")
def strong():
    """2000 bits, 700 checks: one compilation for many tests. H2(.02) = .141, H2(.1) = .469, and m / n = .35."""
    return ecc.design(2000, 700)


def failures(code, p, blocks, seed=0):
    """(blocks that are not decoded, blocks that are decoded to other bits)."""
    code, key, lost, wrong = jax.device_put(code), np.random.default_rng(seed), 0, 0
    for _ in range(blocks):
        bits, llr = through(key, len(code.order), p)
        out, ok = ecc.decode(code, llr, ecc.encode(code, bits))
        lost += not ok
        wrong += bool(ok) and not np.array_equal(out, bits)
    return lost, wrong


# ---- the matrix ------------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.integers(1, 200), st.integers(0, 2**64 - 1))
@settings(max_examples=40)
def test_columns_and_checks_are_as_planned(n, m, seed):
    code = ecc.design(n, m, seed)
    load = (code.column < n).sum(axis=1)
    assert load.max() - load.min() <= 1
    assert sorted(code.order) == list(range(n))
    flat = code.column.reshape(-1)
    sockets = np.concatenate([part.reshape(-1) for part in code.sockets])
    assert len(np.unique(sockets)) == len(sockets) == load.sum()
    owners = np.concatenate([np.repeat(flat[part[:, 0]], part.shape[1]) for part in code.sockets])
    np.testing.assert_array_equal(flat[sockets], owners)
    np.testing.assert_array_equal(np.concatenate([flat[part[:, 0]] for part in code.sockets]), np.arange(n))


@pytest.mark.parametrize(("n", "m", "most"), [(1000, 300, 0), (3000, 600, 0), (3000, 250, 0.5), (4000, 120, 1.1)])
def test_no_two_columns_are_alike(n, m, most):
    """most: pairs of light columns that share two checks, over their number in a random matrix; 120 checks are full."""
    code = ecc.design(n, m)
    dense = matrix(code)
    kinds = next(kinds for ratio, kinds in ecc.PARTS if m <= ratio * n)
    weights, counts = np.unique(dense.sum(axis=0), return_counts=True)  # a check twice in a column would cancel
    assert weights.tolist() == [weight for weight, _ in kinds]
    np.testing.assert_allclose(counts / n, [part for _, part in kinds], atol=1 / n)
    assert len({column.tobytes() for column in dense.T}) == n
    light = dense[:, dense.sum(axis=0) <= ecc.LIGHT].astype(np.float32)
    shared = light.T @ light
    pairs = np.triu(shared >= 2, 1).sum()
    drawn = sum(math.comb(int(d), 2) for d in light.sum(axis=0)) ** 2 / 2 / math.comb(m, 2)  # by chance
    assert pairs <= most * drawn


@pytest.mark.parametrize(
    ("n", "m", "seed", "digest"),
    [
        (50, 20, 0, "179b5dc636fd79bb"),
        (201, 9, 0, "4faec4c6bbc8be15"),
        (5000, 900, 7, "7dca805a4bc0cc1e"),
        (20000, 700, 2**63, "f46aff348b2f29ac"),
    ],
)
def test_the_same_code_everywhere(n, m, seed, digest):
    code = ecc.design.__wrapped__(n, m, seed)
    arrays = [code.order, code.column, *code.sockets]
    assert all(array.dtype == np.int32 for array in arrays)
    assert hashlib.sha256(b"".join(array.astype("<i4").tobytes() for array in arrays)).hexdigest()[:16] == digest


@given(st.integers(1, 120), st.integers(1, 60), st.data())
@settings(max_examples=30)
def test_parity_is_the_product_with_the_matrix(n, m, data):
    code = ecc.design(60 * (n % 3 + 1), 12 * (m % 3 + 1))  # few shapes: few compilations
    bits = np.array(data.draw(st.lists(st.integers(0, 1), min_size=180, max_size=180)), np.uint8)[: len(code.order)]
    parity = np.asarray(ecc.encode(code, bits))
    assert parity.dtype == np.uint8
    np.testing.assert_array_equal(parity, matrix(code).astype(int) @ bits % 2)


check_messages = jax.jit(ecc._check_messages)


# ---- the decoder against other decoders ------------------------------------------------------------------


@given(arrays(np.float32, (4, 6), elements=st.floats(-30, 30, width=32)), st.booleans())
def test_check_messages_are_products_of_tanh(incoming, odd):
    got = np.asarray(check_messages(incoming, np.full((4, 1), odd)))
    halves = np.tanh(incoming.astype(np.float64) / 2)
    for row, i in np.ndindex(got.shape):
        product = np.prod(np.delete(halves[row], i)) * (-1 if odd else 1)
        exact = 2 * np.arctanh(np.clip(product, -1 + 1e-15, 1 - 1e-15))
        if abs(exact) < 9:
            assert got[row, i] == pytest.approx(exact, rel=2e-3, abs=1e-6)  # tanh near 1 has 24 bits
        else:
            assert got[row, i] * exact > 0
            assert 8.9 < abs(got[row, i]) < 17


def plain_decoder(dense, llr, parity, iterations):
    """The same decoder from the definition, in float64: products of tanh."""
    checks = [np.flatnonzero(row) for row in dense]
    message = np.zeros(dense.shape)
    total = llr.astype(np.float64)
    for _ in range(iterations):
        hard = (total < 0).astype(int)
        if (dense @ hard % 2 == parity).all():
            break
        incoming = total - message
        for j, bits in enumerate(checks):
            for i in bits:
                product = math.prod(math.tanh(incoming[j, k] / 2) for k in bits if k != i) * (-1) ** int(parity[j])
                new = 2 * math.atanh(min(max(product, -1 + 1e-7), 1 - 1e-7))
                message[j, i] += ecc.DAMPING * (new - message[j, i])
        total = llr + message.sum(axis=0)
    hard = (total < 0).astype(int)
    return hard, (dense @ hard % 2 == parity).all()


def test_the_plain_decoder_agrees():
    code, key, decided = ecc.design(120, 48), np.random.default_rng(1), 0
    dense = matrix(code).astype(int)
    for _ in range(30):
        bits, llr = through(key, 120, 0.045)
        llr += key.normal(size=120).astype(np.float32)  # no ties
        parity = np.asarray(ecc.encode(code, bits))
        out, ok = ecc.decode(code, llr, parity, iterations=12)
        plain, fine = plain_decoder(dense, llr, parity, 12)
        assert bool(ok) == fine
        if fine:
            np.testing.assert_array_equal(out, plain)
        decided += fine
    assert 15 <= decided < 30


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_a_chain_is_decoded_by_the_sum_of_its_evidence(seed):
    """Checks of two neighbours each leave two words; a tree, so belief propagation is exact."""
    key = np.random.default_rng(seed)
    code = hand_made([[i, i + 1] for i in range(11)], 12)
    bits = key.integers(0, 2, 12, dtype=np.uint8)
    llr = key.normal(size=12).astype(np.float32)
    out, ok = ecc.decode(code, llr, np.asarray(ecc.encode(code, bits)))
    evidence = ((1 - 2.0 * bits) * llr).sum()  # of the sent word against its complement
    assert ok
    np.testing.assert_array_equal(out, bits if evidence > 0 else 1 - bits)


def test_one_check_flips_the_least_reliable_bit():
    code = hand_made([[0, 1, 2, 3]], 4)
    out, ok = ecc.decode(code, np.array([5, -0.5, 3, -4], np.float32), np.array([1], np.uint8))
    assert ok
    np.testing.assert_array_equal(out, [0, 0, 0, 1])


def peel(dense, lost):
    """Which bits stay lost when every check with one lost bit gives it back: bool[n]."""
    lost = lost.copy()
    while True:
        single = np.flatnonzero(dense[:, lost].sum(axis=1) == 1)
        found = np.zeros_like(lost)
        found[np.flatnonzero((dense[single].any(axis=0)) & lost)] = True
        if not found.any():
            return lost
        lost &= ~found


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.5), st.sampled_from([30, np.inf]))
@settings(max_examples=60)
def test_lost_bits_come_back_exactly_where_peeling_finds_them(seed, share, size):
    code, key = ecc.design(200, 80), np.random.default_rng(seed)
    bits = key.integers(0, 2, 200, dtype=np.uint8)
    lost = key.random(200) < share
    llr = np.where(lost, 0, np.where(bits, -size, size)).astype(np.float32)
    out, ok = ecc.decode(code, llr, np.asarray(ecc.encode(code, bits)), iterations=200)
    stays = peel(matrix(code), lost)
    assert bool(ok) == (not stays.any())
    np.testing.assert_array_equal(np.asarray(out)[~stays], bits[~stays])


def test_parity_that_did_not_arrive_has_no_say(strong):
    code, key = strong, np.random.default_rng(2)
    bits, llr = through(key, 2000, 0.02)
    parity, known = np.asarray(ecc.encode(code, bits)), key.random(700) > 0.05
    out, ok = ecc.decode(code, llr, parity, known)
    other, same = ecc.decode(code, llr, np.where(known, parity, 1 - parity), known)
    assert ok
    assert same
    np.testing.assert_array_equal(out, bits)
    np.testing.assert_array_equal(other, bits)
    assert not ecc.decode(code, llr, np.where(known, parity, 1 - parity))[1]
    hard, ok = ecc.decode(code, llr, parity, np.zeros(700, bool))
    assert ok
    np.testing.assert_array_equal(hard, llr < 0)


def test_known_bits_shorten_the_code(strong):
    key, certain = np.random.default_rng(3), np.arange(2000) % 2 == 0
    bits, llr = through(key, 2000, 0.1)
    parity = np.asarray(ecc.encode(strong, bits))
    assert not ecc.decode(strong, llr, parity)[1]
    short = np.where(certain, (1 - 2.0 * bits) * np.inf, llr).astype(np.float32)
    out, ok = ecc.decode(strong, short, parity)
    assert ok
    np.testing.assert_array_equal(out, bits)
    wrong = np.where(np.arange(2000) == 4, -short, short)  # what is called certain stays, whatever the checks say
    out, ok = ecc.decode(strong, wrong, parity)
    assert not ok
    np.testing.assert_array_equal(np.asarray(out)[certain], wrong[certain] < 0)


def test_what_is_not_a_number_is_not_decoded(strong):
    llr = np.full(2000, 5, np.float32)
    assert ecc.decode(strong, llr, np.zeros(700, np.uint8))[1]
    llr[7] = np.nan
    assert not ecc.decode(strong, llr, np.zeros(700, np.uint8))[1]
    assert not ecc.decode(strong, llr * np.float32(np.nan), np.zeros(700, np.uint8))[1]


# ---- how much it corrects --------------------------------------------------------------------------------


def test_crossover_of_two_percent_at_code_rate_above_080():
    """0.80 is asked; 1 - H2(.02) is .8586, and 1 / (1 + H2) = .876 bounds n / (n + m) when the parity has no errors."""
    code = ecc.design(20000, 4000)
    assert 20000 / 24000 > 0.83
    assert failures(code, 0.02, 25) == (0, 0)


def test_below_the_entropy_every_block_fails_and_says_so(strong):
    assert failures(strong, 0.1, 10) == (10, 0)


def surprisal_moments(probability, llr, bits):
    """Mean and variance (bits, bits squared) of the surprisal under a law given as a list of cases."""
    value = ecc.surprisal(llr, bits)
    mean = (probability * value).sum()
    return mean, (probability * (value - mean) ** 2).sum()


def law(p, q=0.5, lost=0.0):
    """Cases (probability, llr, bit) of a bit that is 1 with probability q, through crossover p, or lost."""
    rows, prior = [], math.log((1 - q) / q)
    for bit in (0, 1):
        chance = q if bit else 1 - q
        for flipped in (0, 1):
            sign = -1 if bit ^ flipped else 1
            part = chance * (p if flipped else 1 - p) * (1 - lost)
            rows.append((part, prior + sign * math.log((1 - p) / p), bit))
        rows.append((chance * lost, prior, bit))
    probability, llr, bits = np.array(rows).T
    return probability, llr.astype(np.float32), bits.astype(np.uint8)


LAWS = {
    "crossover .02": law(0.02),
    "crossover .0013": law(0.0013),
    "crossover .02 and a prior": law(0.02, q=0.15),
    "crossover .0013, a prior, lost bits": law(0.0013, q=0.15, lost=0.02),
}


def planned(cases, n, blocks, seed=0):
    """(parity planned, blocks not decoded, blocks decoded to other bits) for a law."""
    probability, llr, bits = cases
    m = ecc.planned_parity(n, *surprisal_moments(*cases))
    code, key, lost, wrong = jax.device_put(ecc.design(n, m)), np.random.default_rng(seed), 0, 0
    for _ in range(blocks):
        case = key.choice(len(llr), n, p=probability)
        out, ok = ecc.decode(code, llr[case], ecc.encode(code, bits[case]))
        lost += not ok
        wrong += bool(ok) and not np.array_equal(out, bits[case])
    return m, lost, wrong


@pytest.mark.parametrize("name", ["crossover .02 and a prior", "crossover .0013, a prior, lost bits"])
def test_the_planned_parity_suffices(name):
    m, lost, wrong = planned(LAWS[name], 4000, 100)
    mean, _ = surprisal_moments(*LAWS[name])
    assert 4000 * mean < m < 1600
    assert lost <= 1
    assert wrong == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_the_planned_parity_fails_less_than_once_in_a_thousand(name):
    _, lost, wrong = planned(LAWS[name], 4000, 2000)
    assert lost <= 6  # 2 would be expected at 1e-3, and more than 6 in 1 of 200 tries
    assert wrong <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("p", "m"), [(0.02, 8800), (0.005, 3300), (0.0013, 1350)])
def test_figures_of_the_docstring(p, m):
    lost, wrong = failures(ecc.design(50000, m), p, 200)
    assert lost <= 3
    assert wrong == 0


def test_the_prior_is_used(strong):
    """Crossover .1: without its prior a bit has .469 bit left, more than 700 / 2000; with it .2."""
    probability, llr, bits = law(0.1, q=0.05)
    case = np.random.default_rng(4).choice(len(llr), 2000, p=probability)
    parity = ecc.encode(strong, bits[case])
    out, ok = ecc.decode(strong, llr[case], parity)
    assert ok
    np.testing.assert_array_equal(out, bits[case])
    assert not ecc.decode(strong, llr[case] - np.float32(math.log(0.95 / 0.05)), parity)[1]


@pytest.mark.parametrize("size", [12.0, 40.0, 3000.0])
def test_surprisal_of_a_sure_bit_is_small_and_of_a_wrong_one_is_its_llr(size):
    assert ecc.surprisal(np.array([size]), np.array([0]))[0] == pytest.approx(math.exp(-size) / math.log(2), rel=1e-4)
    assert ecc.surprisal(np.array([size]), np.array([1]))[0] == pytest.approx(size / math.log(2), rel=1e-4)
    assert ecc.surprisal(0.0, 1) == 1


# ---- density evolution -----------------------------------------------------------------------------------

STEP, HALF = 1 / 16, 4096  # grid of log-likelihood ratios
FINE, TERMS = 1 / 1024, 1 << 14  # grid of -log tanh |llr / 2|
RATIOS = (np.arange(2 * HALF) - HALF) * STEP


def loss(x):
    return np.log1p(2 / np.expm1(np.clip(x, 1e-6, 80)))


def on_grid(x, weight, step, offset, size):
    """Masses on a grid, each shared by its two neighbours so that the mean stays."""
    at = np.clip(x / step + offset, 0, size - 1.001)
    low = at.astype(int)
    return np.bincount(low, weight * (1 - at + low), size) + np.bincount(low + 1, weight * (at - low), size)


def converges(parts, p, ratio, iterations=300):
    """Whether belief propagation corrects crossover p in an endless code of these parts with m / n = ratio.

    Richardson and Urbanke, IEEE Trans. IT 47(2), 2001, on densities over a grid: for the bits a convolution of
    log-likelihood ratios, for the checks one of (sign, -log tanh).
    """
    weights = np.array([weight for weight, _ in parts])
    edges = np.array([float(weight * part) for weight, part in parts])
    degree = edges.sum() / ratio
    edges /= edges.sum()
    few = math.floor(degree)
    many = (degree - few) * (few + 1) / degree  # share of edges at checks of few + 1 bits
    size = math.log((1 - p) / p)
    channel = on_grid(np.array([size, -size]), np.array([1 - p, p]), STEP, HALF, 2 * HALF)
    channel_spectrum = np.fft.rfft(np.roll(channel, -HALF))
    terms = np.append(loss(np.maximum(np.arange(TERMS) * FINE, FINE / 8)), np.full(TERMS, 1e-7))
    density, errors = channel, [p]
    for _ in range(iterations):
        plus = on_grid(loss(np.abs(RATIOS)), np.where(RATIOS > 0, density, 0), FINE, 0, TERMS)
        minus = on_grid(loss(np.abs(RATIOS)), np.where(RATIOS < 0, density, 0), FINE, 0, TERMS)
        plus[-1] += density[HALF] / 2
        minus[-1] += density[HALF] / 2
        even, odd = np.fft.rfft(plus + minus, 2 * TERMS), np.fft.rfft(plus - minus, 2 * TERMS)
        both = [np.fft.irfft((1 - many) * s ** (few - 1) + many * s**few, 2 * TERMS) for s in (even, odd)]
        right, wrong = np.maximum(both[0] + both[1], 0) / 2, np.maximum(both[0] - both[1], 0) / 2
        sent = on_grid(np.append(terms, -terms), np.append(right, wrong), STEP, HALF, 2 * HALF)
        spectrum = np.fft.rfft(np.roll(sent / sent.sum(), -HALF))
        mixed = (edges * spectrum[:, None] ** (weights - 1)).sum(axis=1)
        density = np.maximum(np.roll(np.fft.irfft(channel_spectrum * mixed), HALF), 0)
        density /= density.sum()
        errors.append(density[:HALF].sum() + density[HALF] / 2)
        if errors[-1] < p / 15:
            return True
        if len(errors) > 12 and errors[-1] > 0.999 * errors[-8]:
            return False
    return False


def test_density_evolution_has_the_known_threshold_of_3_6_codes():
    """Richardson and Urbanke: regular (3, 6), crossover .084."""
    assert converges([(3, 1)], 0.083, 0.5)
    assert not converges([(3, 1)], 0.0855, 0.5)


@pytest.mark.parametrize(("p", "part"), [(0.0013, 0), (0.005, 1), (0.02, 2), (0.1, 3)])
def test_thresholds_are_those_of_density_evolution(p, part):
    ratio = ecc.THRESHOLDS[part] * entropy(p)
    most, parts = ecc.PARTS[part]
    assert ratio < most
    assert converges(parts, p, 1.01 * ratio)
    assert not converges(parts, p, 0.98 * ratio)


# ---- roads to the device, levels, errors -----------------------------------------------------------------


def decode_all(code, llr, parity):
    return jax.vmap(functools.partial(ecc.decode, iterations=50), (None, 0, 0))(code, llr, parity)


def test_the_same_bits_alone_in_a_batch_and_over_devices():
    code, key = ecc.design(500, 150), np.random.default_rng(5)
    pairs = [through(key, 500, 0.02) for _ in range(20)]
    bits, llr = np.stack([b for b, _ in pairs]), np.stack([x for _, x in pairs])
    parity = np.asarray(jax.vmap(ecc.encode, (None, 0))(code, bits))
    np.testing.assert_array_equal(parity, np.stack([ecc.encode(code, b) for b in bits]))
    batch, fine = decode_all(code, llr, parity)
    spread, also = parallel.map_batches(decode_all, code, llr, parity, batch=16)
    alone = [ecc.decode(code, x, s, iterations=50) for x, s in zip(llr, parity, strict=True)]
    assert np.asarray(fine).sum() >= 15
    np.testing.assert_array_equal(fine, also)
    np.testing.assert_array_equal(fine, [ok for _, ok in alone])
    solved = np.asarray(fine)
    np.testing.assert_array_equal(np.asarray(batch)[solved], bits[solved])
    np.testing.assert_array_equal(spread[solved], bits[solved])
    np.testing.assert_array_equal(np.stack([b for b, _ in alone])[solved], bits[solved])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 13])
def test_levels_and_bits(count):
    table = ecc.labels(count)
    assert table.shape == (count, math.ceil(math.log2(count)))
    assert (np.abs(np.diff(table.astype(int), axis=0)).sum(axis=1) == 1).all()
    numbers = np.random.default_rng(6).integers(0, count, (7, 5))
    bits = ecc.level_bits(numbers, count)
    assert bits.shape == (7, 5, table.shape[1])
    np.testing.assert_array_equal(ecc.levels(bits, count), numbers)
    every = np.array(list(np.ndindex(*[2] * table.shape[1])), np.uint8)
    assert ecc.levels(every, count).max() == count - 1


@given(st.integers(2, 6), st.data())
def test_level_likelihoods_become_bit_ratios(count, data):
    values = st.one_of(st.floats(-20, 3), st.just(-math.inf))
    logs = data.draw(st.lists(values, min_size=count, max_size=count))
    got = ecc.bit_llr(np.array(logs, np.float32))
    assert got.dtype == np.float32
    for k, value in enumerate(got):
        zero = sum(math.exp(v) for v, label in zip(logs, ecc.labels(count), strict=True) if not label[k])
        one = sum(math.exp(v) for v, label in zip(logs, ecc.labels(count), strict=True) if label[k])
        if zero and one:
            assert value == pytest.approx(math.log(zero / one), abs=1e-4)
        else:
            assert value == (math.inf if zero else -math.inf if one else 0)


def test_far_apart_likelihoods_stay_finite_or_certain():
    np.testing.assert_allclose(ecc.bit_llr(np.array([[-5000.0, -5003.0], [0.0, -700.0]])), [[3.0], [700.0]])
    np.testing.assert_array_equal(ecc.bit_llr(np.array([[0.0, -np.inf], [-np.inf, -np.inf]])), [[np.inf], [0.0]])


@pytest.mark.parametrize(("n", "m", "seed"), [(0, 5, 0), (5, 0, 0), (-3, 2, 0), (5, 5, -1), (5, 5, 2**64)])
def test_codes_that_cannot_be(n, m, seed):
    with pytest.raises(ecc.EccError, match=f"{m} parity bits for {n} bits"):
        ecc.design(n, m, seed)


@pytest.mark.parametrize("change", [{"n": 0}, {"entropy": 1.2}, {"variance": -1.0}, {"failure": 0.7}])
def test_plans_that_cannot_be(change):
    with pytest.raises(ecc.EccError, match=r"entropy in 0\.\.1"):
        ecc.planned_parity(**({"n": 1000, "entropy": 0.1, "variance": 0.5} | change))


def test_arrays_that_do_not_fit():
    code = ecc.design(100, 40)
    with pytest.raises(ecc.EccError, match=r"bits: shape \(99,\)"):
        ecc.encode(code, np.zeros(99, np.uint8))
    with pytest.raises(ecc.EccError, match="ratios: shape"):
        ecc.decode(code, np.zeros((1, 100), np.float32), np.zeros(40, np.uint8))
    with pytest.raises(ecc.EccError, match="parity bits: shape"):
        ecc.decode(code, np.zeros(100, np.float32), np.zeros(41, np.uint8))
    with pytest.raises(ecc.EccError, match="flags of parity bits: shape"):
        ecc.decode(code, np.zeros(100, np.float32), np.zeros(40, np.uint8), np.zeros(3, bool))
