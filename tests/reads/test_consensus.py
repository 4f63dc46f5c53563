"""The consensus search against the model's definition: chances worked out by plain recursion, lists by brute force."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helix_jax import arithmetic, parallel
from helix_jax.reads import consensus
from helix_jax.reads.consensus import PAD, Rates
from helix_jax.reference import kernels
from helix_jax.tk_scone import coder, constraints, tables

RATES = Rates(np.float32(0.04), np.float32(0.4))
IMPOSSIBLE = -1e8


@functools.cache
def compiled(shape, beam, band):
    return jax.jit(functools.partial(consensus.candidates, shape=shape, beam=beam, band=band))


def search(copies, automaton, beam, band, doubt=0.05, rates=RATES):
    """Lists for one batch. copies: list (batch) of lists of uint8 arrays. doubt: a number, or arrays like copies."""
    arrays = batch_of(copies, doubt)
    found = compiled(automaton[1], beam, band)((automaton[0], rates), *arrays)
    return tuple(map(np.asarray, found))


def batch_of(copies, doubt):
    count, width = max(map(len, copies)), max(len(read) for group in copies for read in group)
    reads = np.full((len(copies), count, width), PAD, np.uint8)
    lengths = np.zeros((len(copies), count), np.int32)
    doubts = np.full((len(copies), count, width), 0.5, np.float32)  # past the end: not to be looked at
    for i, group in enumerate(copies):
        for j, read in enumerate(group):
            reads[i, j, : len(read)], lengths[i, j] = read, len(read)
            doubts[i, j, : len(read)] = doubt if np.isscalar(doubt) else doubt[i][j]
    return reads, lengths, doubts


def noisy(strand, rate, draw):
    """A copy with a third of the errors each substituted, inserted and deleted; written apart from ``channel``."""
    copy = []
    for base in strand.tolist():
        while draw.random() < rate / 3:
            copy.append(int(draw.integers(4)))
        kind = draw.random()
        if kind < rate / 3:
            continue
        copy.append((base + int(draw.integers(1, 4))) % 4 if kind < 2 * rate / 3 else base)
    return np.array(copy, np.uint8)


# ---- the definition -----------------------------------------------------------------------------------------


def chance(strand, read, doubt, rates=RATES):
    """Probability that a strand gives a read: each base is deleted, or read, right or substituted; before the first
    and after each one, none, one or two bases are inserted. By recursion over what is left, in float64."""
    deletion, insertion = float(rates.deletion), float(rates.insertion)

    @functools.cache
    def inserting(i, j):
        """From base i of the strand and j of the read on, where insertions may come next."""
        total, weight = 0.0, 1.0
        for more in range(3):
            if j + more > len(read):
                break
            if more:
                weight *= insertion / 4 * doubt[j + more - 1]
            total += weight * writing(i, j + more)
        return total

    @functools.cache
    def writing(i, j):
        if i == len(strand):
            return float(j == len(read))
        total = deletion * inserting(i + 1, j)
        if j < len(read):
            same = strand[i] == read[j]
            seen = 1 - doubt[j] if same else (1 - insertion) / 3 * doubt[j]
            total += (1 - deletion) * seen * inserting(i + 1, j + 1)
        return total

    return inserting(0, 0)


def prior(strand, table):
    """Log probability of a strand under the automaton's weights, by the plain twin; 1/4 a base without a table."""
    if table is None:
        return -len(strand) * math.log(4)
    state, edges, advance = kernels.strand_model(table)
    previous, total = table.first_base, 0.0
    for i, base in enumerate(strand):
        symbol = int(base) ^ previous
        cut = edges(state, i)
        share = (cut[symbol + 1] - cut[symbol]) / arithmetic.TOTAL
        if share == 0:
            return -math.inf
        total, state, previous = total + math.log(share), advance(state, i, symbol), int(base)
    return total


def score(strand, reads, doubts, table=None):
    told = prior(strand, table)
    return told + sum(math.log(chance(tuple(strand), tuple(r), tuple(d))) for r, d in zip(reads, doubts, strict=True))


@functools.cache
def goldman(length):
    return tables.load(constraints.named("goldman"), length)


@functools.cache
def uneven():
    """Tables of 12 bases whose weights depend on the state, 4 by head rows and 8 by those of the tail."""
    table = tables.build(constraints.Constraints(longest_run=2, window=6, window_gc=(0.34, 0.67)), 12)
    assert 0 < table.head < 12
    return table


def copies_with_doubts(length, count, seed):
    draw = np.random.default_rng(seed)
    strand = draw.integers(0, 4, length, dtype=np.uint8)
    reads = [noisy(strand, 0.25, draw) for _ in range(count)]
    return reads, [draw.uniform(0.01, 0.4, len(read)).astype(np.float32).astype(float) for read in reads]


@pytest.mark.parametrize("constrained", [False, True])
def test_scores_are_those_of_the_definition(constrained):
    table = uneven() if constrained else None
    automaton = coder.on_device(table) if constrained else consensus.unconstrained(12)
    groups = [copies_with_doubts(12, 2, seed) for seed in range(6)]
    assert len({len(read) for reads, _ in groups for read in reads}) > 2
    strands, scores, _ = search([r for r, _ in groups], automaton, 16, 64, [d for _, d in groups])
    for i, (reads, doubts) in enumerate(groups):
        assert len({row.tobytes() for row in strands[i]}) == 16
        assert (np.diff(scores[i]) <= 0).all()
        expected = [score(row, reads, doubts, table) for row in strands[i]]
        np.testing.assert_allclose(scores[i], expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("constrained", [False, True])
def test_a_beam_that_holds_everything_is_brute_force(constrained):
    """All 256 strings of 4 bases, of which goldman allows 108; the ends of shorter strings too."""
    table = goldman(4) if constrained else None
    automaton = coder.on_device(table) if constrained else consensus.unconstrained(4)
    reads, doubts = copies_with_doubts(4, 2, 3)
    strands, scores, ends = (array[0] for array in search([reads], automaton, 256, 32, [doubts]))
    known = {text: score(text, reads, doubts, table) for text in itertools.product(range(4), repeat=4)}
    allowed = {text: value for text, value in known.items() if value > -math.inf}
    assert len(allowed) == (108 if constrained else 256)
    possible = scores > IMPOSSIBLE
    found = {tuple(row): value for row, value in zip(strands[possible].tolist(), scores[possible], strict=True)}
    assert found.keys() == allowed.keys()
    for text, value in found.items():
        assert value == pytest.approx(allowed[text], abs=1e-3)
        assert not constrained or all(one != two for one, two in itertools.pairwise(text))
    ranked = sorted(allowed.values(), reverse=True)
    np.testing.assert_allclose(scores[possible], ranked, rtol=0, atol=1e-3)
    assert tuple(strands[0]) in {text for text, value in allowed.items() if value > ranked[0] - 1e-3}
    if not constrained:
        for length in range(1, 5):
            best = max(score(text, reads, doubts) for text in itertools.product(range(4), repeat=length))
            assert ends[length - 1] == pytest.approx(best, abs=1e-3)


# ---- the parts of a step, each by loops in float64 ----------------------------------------------------------


def forward_of(draw, copies, beam, band):
    forward = draw.random((copies, beam, band)).astype(np.float32)
    return forward / forward.sum(axis=-1, keepdims=True)


def test_emissions_by_loops():
    draw = np.random.default_rng(0)
    length, band, lengths = 9, 6, np.array([11, 0, 7], np.int32)
    reads = draw.integers(0, 4, (3, 12), dtype=np.uint8)
    doubt = draw.uniform(0.01, 0.9, reads.shape).astype(np.float32)
    shown = jax.device_get(consensus.emissions(RATES, reads, lengths, doubt, length=length, band=band))
    assert shown.base.shape == (length + 1, 3, band)
    deletion, insertion = map(float, RATES)
    for step, n in itertools.product(range(length + 1), range(3)):
        assert shown.offset[step, n] == round(step * int(lengths[n]) / length) - band // 2
        for w in range(band):
            position = shown.offset[step, n] + w
            found = shown.match[step, n, w], shown.mismatch[step, n, w], shown.inserted[step, n, w]
            if not 0 <= position < lengths[n]:
                assert found == (0, 0, 0)
                continue
            wrong = doubt[n, position]
            written = 1 - deletion
            expected = written * (1 - wrong), written * (1 - insertion) / 3 * wrong, insertion / 4 * wrong
            assert found == pytest.approx(expected, rel=1e-6)
            assert shown.base[step, n, w] == reads[n, position]


def test_base_gains_by_loops():
    """With a worth of 1 the gain is the log probability of the consumed bases; a copy that is absent adds nothing."""
    draw = np.random.default_rng(1)
    copies, beam, band, deletion = 3, 4, 5, np.float32(0.04)
    forward, moving = forward_of(draw, copies, beam, band), draw.random((copies, beam, 4, band)).astype(np.float32)
    present, worth = np.array([True, False, True]), np.exp(draw.normal(size=band + 1)).astype(np.float32)
    gains = consensus.base_gains(forward, moving, deletion=deletion, present=present, worth=worth)
    for b, base in itertools.product(range(beam), range(4)):
        total = 0.0
        for n in (0, 2):
            stay = sum(forward[n, b, w] * worth[w] for w in range(band))
            move = sum(moving[n, b, base, w] * worth[w + 1] for w in range(band))
            total += math.log(deletion * stay + move)
        assert gains[b, base] == pytest.approx(total, rel=1e-5)


def test_automaton_scores_strands_as_its_plain_twin():
    """Along strands that are allowed, through the rows of the head, the joint and the tail; and it forbids the rest."""
    table = uneven()
    (arrays, shape), draw = coder.on_device(table), np.random.default_rng(2)
    row, previous = np.full(8, shape.start, np.uint32), np.full(8, shape.first_base, np.int32)
    strands, total = np.zeros((8, 0), np.int32), np.zeros(8)
    for i in range(shape.length):
        priors = np.asarray(consensus.base_log_priors(arrays, row, previous))
        for strand, log_prior, each in zip(strands, priors, total, strict=True):
            for base in range(4):
                twin = prior([*strand, base], table)
                assert log_prior[base] == consensus.NOTHING if twin == -math.inf else log_prior[base] > -20
                assert twin == -math.inf or each + log_prior[base] == pytest.approx(twin, abs=1e-5)
        base = np.array([draw.choice(np.flatnonzero(each > -20)) for each in priors], np.int32)
        total += np.take_along_axis(priors, base[:, None], axis=1)[:, 0]
        row = consensus.advance_rows(arrays, row, previous, base, np.bool_(i + 1 == shape.head))
        strands, previous = np.append(strands, base[:, None], axis=1), base


def test_rank_is_a_sort():
    draw = np.random.default_rng(3)
    score, priority = draw.normal(size=(2, 6, 4)).astype(np.float32)
    parent, base, kept = consensus.rank(jnp.asarray(score), jnp.asarray(priority))
    best = np.argsort(-priority.reshape(-1))[:6]
    np.testing.assert_array_equal(np.asarray(parent) * 4 + base, best)
    np.testing.assert_array_equal(kept, score.reshape(-1)[best])


def test_advance_band_by_loops():
    """A band in which nothing is lost: each position comes from a deletion, a base, and then up to two insertions."""
    draw = np.random.default_rng(4)
    copies, beam, band, deletion = 3, 2, 12, np.float32(0.1)
    forward = forward_of(draw, copies, beam, band)
    match = draw.random((copies, beam, band)).astype(np.float32)
    inserted = (0.1 * draw.random((copies, 1, band))).astype(np.float32)
    shift = np.array([0, 1, 3], np.int32)
    found = consensus.advance_band(forward, match, inserted, shift, deletion=deletion)
    for n, b in itertools.product(range(copies), range(beam)):
        after = [
            deletion * forward[n, b, w] + (forward[n, b, w - 1] * match[n, b, w - 1] if w else 0) for w in range(band)
        ]
        after = np.array(after, float) / sum(after)
        more = after.copy()
        for w in range(1, band):
            more[w] += after[w - 1] * inserted[n, 0, w - 1]
            more[w] += after[w - 2] * inserted[n, 0, w - 2] * inserted[n, 0, w - 1] if w > 1 else 0
        expected = np.append(more[shift[n] :], np.zeros(shift[n]))
        np.testing.assert_allclose(found[n, b], expected, rtol=1e-5)


def test_close_by_loops():
    """An end outside the band is as good as impossible; without it in both ways the same."""
    draw = np.random.default_rng(5)
    score, forward = draw.normal(size=3).astype(np.float32), forward_of(draw, 4, 3, 5)
    present = np.array([True, True, False, True])
    inside, outside = np.array([0, 4, 2, 3], np.int32), np.array([0, 5, 9, 3], np.int32)
    finished, ended = consensus.close(score, forward, inside, present=present)
    expected = [score[b] + sum(math.log(forward[n, b, inside[n]]) for n in (0, 1, 3)) for b in range(3)]
    np.testing.assert_allclose(finished, expected, rtol=1e-5)
    np.testing.assert_array_equal(finished, ended)
    finished, ended = consensus.close(score, forward, outside, present=present)
    rest = np.array([score[b] + math.log(forward[n, b, outside[n]]) for n in (0, 3) for b in range(3)]).reshape(2, 3)
    rest = rest.sum(axis=0) - score
    np.testing.assert_allclose(finished, rest + math.log(1e-30), rtol=1e-5)
    np.testing.assert_allclose(ended, rest + consensus.AMISS, rtol=1e-5)


def test_trace_back_follows_the_parents():
    draw = np.random.default_rng(6)
    parents, bases = draw.integers(0, 4, (2, 7, 4)).astype(np.int32)
    order = np.array([2, 0, 3, 1], np.int32)
    found = consensus.trace_back(order, parents, bases)
    for row, end in zip(np.asarray(found), order, strict=True):
        strand = []
        for step in range(6, -1, -1):
            strand.append(bases[step, end])
            end = parents[step, end]
        np.testing.assert_array_equal(row, strand[::-1])


# ---- what it finds ------------------------------------------------------------------------------------------


def random_strands(count, length, seed=0):
    return np.random.default_rng(seed).integers(0, 4, (count, length), dtype=np.uint8)


def test_copies_without_errors_give_the_strand():
    strands = random_strands(5, 40)
    automaton = consensus.unconstrained(40)
    found = search([[row] for row in strands], automaton, 8, 16)[0][:, 0]
    np.testing.assert_array_equal(found, strands)
    runs = np.repeat(np.arange(8, dtype=np.uint8) % 4, 5)[None]  # five of each base
    np.testing.assert_array_equal(search([[row] * 3 for row in runs], automaton, 8, 16)[0][:, 0], runs)


def test_the_length_is_told_by_the_ends():
    room = consensus.unconstrained(48)
    draw = np.random.default_rng(5)
    for length in (30, 41, 48):
        strands = random_strands(4, length, seed=length)
        copies = [[noisy(row, 0.04, draw) for _ in range(6)] for row in strands]
        ends = search(copies, room, 16, 48)[2]
        assert ends.shape == (4, 48)
        assert 1 + np.argmax(ends.sum(axis=0)) == length


def test_batches_jit_and_devices_agree():
    automaton = consensus.unconstrained(30)
    draw = np.random.default_rng(1)
    copies = [[noisy(row, 0.1, draw) for _ in range(3)] for row in random_strands(8, 30)]
    arrays = batch_of(copies, 0.08)
    options = {"shape": automaton[1], "beam": 16, "band": 20}
    constants = (automaton[0], RATES)
    whole = tuple(map(np.asarray, compiled(*options.values())(constants, *arrays)))
    gap = np.diff(whole[1][:, :4], axis=1)
    assert (np.abs(gap) > 1e-4).all()  # no ties among those compared
    alone = [compiled(*options.values())(constants, *(array[i : i + 1] for array in arrays)) for i in range(8)]
    plain = consensus.candidates(constants, *arrays, **options)  # not jitted
    for other in (
        tuple(np.concatenate(parts) for parts in zip(*alone, strict=True)),
        plain,
        parallel.spread(consensus.candidates, tuple(jax.local_devices()[:1]), **options)(constants, *arrays),
        parallel.spread(consensus.candidates, tuple(jax.local_devices()), **options)(
            parallel.replicate(constants), *arrays
        ),
    ):
        np.testing.assert_array_equal(np.asarray(other[0])[:, :4], whole[0][:, :4])
        np.testing.assert_allclose(other[1], whole[1], rtol=0, atol=1e-3)
        np.testing.assert_allclose(other[2], whole[2], rtol=0, atol=1e-3)


@pytest.mark.slow
def test_eight_copies_at_five_percent(tables_of):
    """At least 57 of 60. A wrong base needs that half of 8 copies err alike there: by deletion 70 * (0.05 / 3)**4, or
    5e-6 a base, some times that in runs and among ties, so about one strand in 500. 95 % leaves room for the beam; a
    vote that lost the copies' phase would get a few strands at most."""
    table = tables_of("strand", 100)
    automaton = coder.on_device(table)
    draw = np.random.default_rng(11)
    words = draw.integers(0, 1 << 32, (60, -(-table.bits // 32)), dtype=np.uint32)
    words[:, -1] &= np.uint32((0xFFFFFFFF << (-table.bits % 32)) & 0xFFFFFFFF)
    strands = np.asarray(jax.jit(functools.partial(coder.write, shape=automaton[1]))(automaton[0], words))
    copies = [[noisy(row, 0.05, draw) for _ in range(8)] for row in strands]
    rates = Rates(np.float32(0.05 / 3), np.float32(0.5))
    right = {}
    for name, chosen in (("free", consensus.unconstrained(100)), ("led", automaton)):
        found, scores, _ = search(copies, chosen, 16, 24, 0.1 / 3, rates)
        right[name] = int((found[:, 0] == strands).all(axis=1).sum())
        if name == "led":
            listed = found[scores > IMPOSSIBLE]
            ok = jax.jit(functools.partial(coder.read, shape=chosen[1]))(chosen[0], listed)[1]
            assert np.asarray(ok).all()
    assert right["free"] >= 57
    assert right["led"] >= right["free"]


def test_the_automaton_helps_where_copies_are_few():
    """One copy at 6 %: what breaks the rules is not read, so that more strands are right."""
    table = goldman(24)
    automaton = coder.on_device(table)
    draw = np.random.default_rng(2)
    strands = np.zeros((64, 24), np.uint8)
    for row in strands:
        row[:] = np.cumsum(draw.integers(1, 4, 24)) % 4
    copies = [[noisy(row, 0.06, draw)] for row in strands]
    led, free = (
        int((search(copies, chosen, 32, 24)[0][:, 0] == strands).all(axis=1).sum())
        for chosen in (automaton, consensus.unconstrained(24))
    )
    assert led > free


def test_an_absent_copy_changes_nothing():
    automaton = consensus.unconstrained(30)
    draw = np.random.default_rng(3)
    copies = [[noisy(row, 0.1, draw) for _ in range(2)] for row in random_strands(3, 30)]
    without = search(copies, automaton, 8, 20)
    empty = np.zeros(0, np.uint8)
    for place in (0, 1, 2):
        more = [[*group[:place], empty, *group[place:]] for group in copies]
        found = search(more, automaton, 8, 20)
        np.testing.assert_array_equal(found[0], without[0])
        np.testing.assert_allclose(found[1], without[1], rtol=0, atol=1e-4)
    again = search([[*group, group[0]] for group in copies], automaton, 8, 20)
    assert (np.abs(again[1] - without[1]).max(axis=1) > 1).all()  # a copy that is there does change something


def test_doubtful_bases_are_outvoted():
    """Two copies say the wrong base and one the right one: the doubts decide, either way."""
    automaton = consensus.unconstrained(21)
    strand = random_strands(1, 21, seed=8)[0]
    wrong = strand.copy()
    wrong[10] = (wrong[10] + 2) % 4
    low, high = np.full(21, 0.01), np.full(21, 0.01)
    low[10], high[10] = 0.001, 0.6
    copies = [[wrong, wrong, strand]] * 2
    found = search(copies, automaton, 8, 16, [[high, high, low], [low, low, high]])[0][:, 0]
    np.testing.assert_array_equal(found, [strand, wrong])
