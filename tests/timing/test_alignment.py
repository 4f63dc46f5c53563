"""Alignment: exact on strands small enough to try all of them, and measured on simulated copies."""

import functools
import itertools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from helix_jax import parallel
from helix_jax.timing import alignment, beam, capacity, channel, forward_backward, frame, synthesis, window
from helix_jax.timing.alignment import NOTHING, AlignmentError
from helix_jax.timing.channel import TALK_LAW, Binomial
from helix_jax.timing.frame import CHECK, DATA, Frame
from helix_jax.timing.graph import TALK, TimeTable

# ---- all strings, and all ways to read a copy ------------------------------------------------------------------------

SMALL_COPIES, SMALL_READ, SMALL_WINDOW = 3, 16, 32


def exactly(function, *args, **options):
    """The search without the merging of strings that hardly differ, which is no longer exact."""
    with mock.patch.object(beam, "repeated", lambda state, place: jnp.zeros(len(state), bool)):
        return function(*args, **options)


class Small:
    """A strand so short that all strings can be tried: its channel, its layout, and the functions under test.

    least: the floor under the probabilities of run lengths that ``model`` puts where the sequencer errs.
    """

    def __init__(self, law, table, layout, substitution=0.0, least=0.0):
        self.table, self.layout, self.substitution = table, layout, substitution
        self.known = alignment.model(law, table, substitution=substitution)
        pmf = channel.pmf_table(law, table)
        self.pmf = np.where(table.array()[..., None] > 0, np.maximum(pmf, least), 0.0)
        self.chain = capacity.chain(table).probability
        self.strings = self.all_strings()
        beam = sum(len(levels) for levels in self.strings.values())
        options = {"layout": layout, "window": SMALL_WINDOW}
        self.align = jax.jit(functools.partial(exactly, alignment.align, beam=beam, **options))
        self.beginnings = jax.jit(
            functools.partial(exactly, alignment.beginnings, beam=beam, **options), static_argnames=("rounds", "count")
        )
        self.soft_levels = jax.jit(functools.partial(alignment.soft_levels, **options), static_argnames="sweeps")

    def all_strings(self):
        """{letters: [levels, ...]} of all strings that obey the check letters (by ``write``, tested elsewhere)."""
        layout = self.layout
        data = itertools.product(*[range(1, 4)] * layout.data)
        digits = list(itertools.product(range(3), repeat=len(layout.digit_rounds)))
        letters = np.array([np.cumsum(steps) % 4 for steps in data], np.uint8)
        every = [np.repeat(letters, len(digits), axis=0), np.zeros((len(letters) * len(digits), layout.data), np.uint8)]
        strands = frame.write(*every, np.array(digits * len(letters), np.uint8), frame=layout)[0]
        count = [range(self.table.levels) if kind == DATA else (0,) for kind in layout.kinds]
        levels = list(itertools.product(*count))
        return {tuple(strand): levels for strand in np.asarray(strands).tolist()}

    def log_prior(self, letters, levels):
        """Max-entropic chain in data rounds, three letters alike in the others."""
        total = 0.0
        for kind, b, a, level in zip(self.layout.kinds, (0, *letters), letters, levels, strict=False):
            total += np.log(self.chain[b, a, level] if kind == DATA else 1 / 3)
        return total

    def ways(self, read, letters):
        """All run lengths that spell a read: int[ways, R]; and the probability of its misread bases, float64[ways]."""
        longest, runs, chances = self.pmf.shape[-1] - 1, [], []
        piece = (self.substitution / 3, 1 - self.substitution)

        def extend(before, place, chance):
            left = len(letters) - len(before)
            if not left:
                runs.append(before)
                chances.append(chance)
                return
            for run in range(min(longest, len(read) - place) + 1):
                if run:
                    chance *= piece[read[place + run - 1] == letters[len(before)]]
                if chance and len(read) - place - run <= longest * (left - 1):
                    extend((*before, run), place + run, chance)

        extend((), 0, 1.0)
        return np.array(runs, int).reshape(-1, len(letters)), np.array(chances)

    def probability(self, read, letters, every):
        """Probability of a read, given letters and each of some levels: float64[len(every)]."""
        runs, chances = self.ways(read, letters)
        rows, every = self.pmf[(0, *letters)[: len(letters)], letters], np.array(every)
        laws = [row[every[:, j, None], runs[None, :, j]] for j, row in enumerate(rows)]  # [len(every), ways] each
        return (functools.reduce(np.multiply, laws) * chances).sum(axis=1)

    def scores(self, reads):
        """Log probability of each string and the copies, by trying all of them: {(letters, levels): float}."""
        scores = {}
        for letters, every in self.strings.items():
            likely = functools.reduce(np.multiply, (self.probability(r, letters, every) for r in reads if len(r)))
            for levels, value in zip(every, likely, strict=True):
                if value > 0:
                    scores[letters, levels] = self.log_prior(letters, levels) + np.log(value)
        return scores

    def rest(self, read):
        """Log probability of read[place:] under random letters, by place, from ``Model``."""
        law, merge = np.asarray(self.known.run, float), float(self.known.merge)
        runs = [len(list(group)) for _, group in itertools.groupby(read)]
        ends = np.cumsum(runs)
        out = []
        for place in range(len(read)):
            left = ends - np.maximum(ends - runs, place)
            inside = bool(place) and read[place] == read[place - 1]
            out.append(law[np.minimum(left[left > 0], len(law) - 1)].sum() + merge * inside)
        return [*out, 0.0]

    def log_probability(self, reads, letters, levels):
        """Of the beginnings of the copies that the letters may have made, and of what is left of each."""
        total = 0.0
        for read in reads:
            rest = np.exp(self.rest(read)) if len(read) else np.ones(0)
            made = [self.probability(read[:place], letters, [levels])[0] for place in range(len(rest))]
            total += np.log(max(rest @ made, 1e-30)) if len(read) else 0.0
        return total

    def doubt(self, reads, letters, levels):
        """How much likelier other letters were at the check letters, given what is before them."""
        total = 0.0
        for j in np.flatnonzero(self.layout.kinds == CHECK):
            others = {a: ((*letters[:j], a), (*levels[:j], 0)) for a in range(4) if a != (0, *letters)[j]}
            values = {a: self.log_probability(reads, *string) for a, string in others.items()}
            total += max(values.values()) - values[letters[j]]
        return total

    def arrays(self, reads):
        """Reads as ``align`` takes them; what stands past their end is noise."""
        out = np.random.default_rng(len(reads[0])).integers(0, 4, (SMALL_COPIES, SMALL_READ)).astype(np.uint8)
        for row, read in zip(out, reads, strict=True):
            row[: len(read)] = read
        return out, np.array([len(read) for read in reads], np.int32)

    def assert_most_likely(self, reads, tags=None):
        """``align`` finds a most likely string, with its probability. Returns its letters and levels.

        tags: The tags that it must have, by round, -1 for any.
        """
        tags = None if tags is None else np.array(tags, np.int32)
        letters, levels, score, doubt, odds = jax.device_get(self.align(self.known, *self.arrays(reads), tags=tags))
        scores = self.scores(reads) if any(len(read) for read in reads) else {}
        if tags is not None:
            scores = {string: value for string, value in scores.items() if agree(tags_of(string[0]), tags)}
        if not scores:
            assert score == NOTHING
            return None
        found = tuple(letters.tolist()), tuple(levels.tolist())
        assert score == pytest.approx(max(scores.values()), abs=2e-3)
        assert scores[found] == pytest.approx(max(scores.values()), abs=1e-3)
        expected = self.doubt(reads, *found)
        assert min(doubt, 50) == pytest.approx(min(expected, 50), abs=2e-3)
        low, high = self.odds(scores, found[0])
        assert min(low, 50) - 3e-3 <= min(odds, 50) <= min(high, 50) + 3e-3
        return found

    def odds(self, scores, letters):
        """The log odds of letters up to ``settled`` among the 32 likeliest strings, against all else: (least, most).

        The two differ where it is open which of several equally likely strings are among those 32.
        """
        alike = np.array([other[: self.layout.settled] == letters[: self.layout.settled] for other, _ in scores])
        value, bounds = np.array(list(scores.values())), []
        for favour in (-1e-3, 1e-3):
            first = np.argsort(-(value + favour * alike), kind="stable")[:32]
            ours = np.isin(np.arange(len(value)), first) & alike
            parts = [np.logaddexp.reduce(value[part]) if part.any() else -np.inf for part in (ours, ~ours)]
            bounds.append(parts[0] - parts[1])
        return bounds


@functools.cache
def tags_of(letters):
    """The tag after each of some letters: FNV-1a, mixed, of which two bits are taken (as in ``test_frame``)."""
    state, tags = 2166136261, []
    for letter in letters:
        state = (state ^ (letter + 1)) * 16777619 % 2**32
        mixed = (state ^ state >> 15) * 0x2C1B3C6D % 2**32
        mixed = (mixed ^ mixed >> 12) * 0x297A2D39 % 2**32
        tags.append((mixed ^ mixed >> 3) % 4)
    return tags


def agree(found, wanted):
    """Whether tags are those that are wanted, of which -1 means any."""
    return all(w in (-1, f) for f, w in zip(found, wanted, strict=True))


@functools.cache
def talk():
    return Small(TALK_LAW, TALK, Frame(3, 2, 0, 1, 1))


@functools.cache
def misread():
    """Three levels, a sequencer that errs, and a check letter after each data letter."""
    law, table = Binomial.uniform(0.8), TimeTable.uniform((1, 2, 3))
    return Small(law, table, Frame(2, 1, 0, 1, 1), substitution=0.02, least=1e-4)


@functools.cache
def sharing():
    """The index first, and a shared digit behind all that counts."""
    return Small(TALK_LAW, TALK, Frame(2, 2, 0, 1, 1, index_first=True, shared=1, tags=1))


def spelled(letters, runs):
    """A copy: each letter as often as its run length says."""
    return [letter for letter, run in zip(letters, runs, strict=True) for _ in range(run)]


@st.composite
def copies_of(draw, small):
    """A string of the layout and copies of it, as likely as not with lost runs."""
    letters = draw(st.sampled_from(sorted(small.strings)))
    levels = draw(st.sampled_from(small.strings[letters]))
    times = small.table.array()[(0, *letters[:-1]), letters, levels]
    runs = st.tuples(*(st.sampled_from([*range(time + 1), time]) for time in times.tolist()))
    return letters, levels, [spelled(letters, draw(runs)) for _ in range(SMALL_COPIES)]


@settings(max_examples=15)
@given(copies_of(talk()))
def test_most_likely_string(case):
    assert talk().assert_most_likely(case[2]) or not any(case[2])


@settings(max_examples=10)
@given(copies_of(misread()), st.integers(0, SMALL_READ - 1), st.integers(0, 3))
def test_most_likely_string_with_misread_bases(case, place, base):
    reads = case[2]
    if place < len(reads[0]):
        reads[0][place] = base
    assert misread().assert_most_likely(reads) or not any(reads)


@settings(max_examples=10)
@given(st.lists(st.lists(st.integers(0, 3), max_size=7), min_size=SMALL_COPIES, max_size=SMALL_COPIES))
def test_any_reads_are_explained_or_refused(reads):
    talk().assert_most_likely(reads)


def test_neighbours_of_a_lost_run_merge():
    """A-C-A -> AA where C is lost in a copy: two runs of one base, not one of two; and where it is lost in all."""
    small = talk()
    letters = next(s for s in sorted(small.strings) if s[1] == s[3])  # a data letter, the check letter, data again
    levels = (0,) * len(letters)
    whole, merged = spelled(letters, (1, 1, 1, 1, 1, 1)), spelled(letters, (1, 1, 0, 1, 1, 1))
    assert merged[1] == merged[2]
    assert small.assert_most_likely([whole, merged, whole]) == (letters, levels)
    assert small.assert_most_likely([merged] * 3)
    # a copy of length 0 is no copy: the others decide
    assert small.assert_most_likely([merged, [], whole]) == (letters, levels)
    assert small.assert_most_likely([[], [], []]) is None


def test_levels_come_from_run_lengths():
    small = talk()
    letters = sorted(small.strings)[-1]
    times = small.table.array()[(0, *letters[:-1]), letters]
    for levels in small.strings[letters]:
        runs = times[np.arange(len(letters)), levels]
        assert small.assert_most_likely([spelled(letters, runs)] * 3) == (letters, levels)


@settings(max_examples=10)
@given(copies_of(talk()), st.lists(st.sampled_from([-1, -1, -1, 0, 1, 2, 3]), min_size=6, max_size=6))
def test_most_likely_string_of_those_with_some_tags(case, tags):
    talk().assert_most_likely(case[2], tags)


def test_the_right_tags_change_nothing_and_a_wrong_one_rules_the_string_out():
    """But for the odds, as other strings have gone."""
    small = talk()
    runs = (2, 0, 1, 1, 1, 1), (1, 0, 1, 2, 1, 1), (1, 0, 0, 1, 0, 1)  # one is lost in all copies
    reads = [spelled(sorted(small.strings)[40], each) for each in runs]
    letters, levels = small.assert_most_likely(reads)
    plain = jax.device_get(small.align(small.known, *small.arrays(reads)))
    right = tags_of(letters)
    assert small.assert_most_likely(reads, right) == small.assert_most_likely(reads, [-1] * 6) == (letters, levels)
    tagged = jax.device_get(small.align(small.known, *small.arrays(reads), tags=np.array(right, np.int32)))
    for part, known in zip(tagged[:4], plain[:4], strict=True):
        np.testing.assert_array_equal(part, known)
    assert tagged[4] > plain[4]
    for place in range(6):
        wrong = [-1] * 6
        wrong[place] = (right[place] + 1) % 4
        found = small.assert_most_likely(reads, wrong)
        assert found is None or found[0] != letters


@settings(max_examples=10)
@given(copies_of(sharing()))
def test_most_likely_string_with_a_shared_digit(case):
    assert sharing().assert_most_likely(case[2]) or not any(case[2])


def test_strings_that_differ_only_after_what_is_settled_are_no_rivals():
    """All copies have lost the shared digit and the check letter behind it, so that nobody knows these."""
    small = sharing()
    assert (small.layout.settled, small.layout.rounds) == (4, 6)
    letters = sorted(small.strings)[69]
    reads = [spelled(letters, (1, 2, 1, 2, 0, 0))] * SMALL_COPIES
    found, _ = small.assert_most_likely(reads)
    assert found[:4] == letters[:4]
    odds = float(small.align(small.known, *small.arrays(reads))[4])
    scores = small.scores(reads)
    unsettled = np.logaddexp.reduce([value for (other, _), value in scores.items() if other == found])
    unsettled -= np.logaddexp.reduce([value for (other, _), value in scores.items() if other != found])
    assert unsettled < 0
    assert odds > 2


# ---- beginnings ------------------------------------------------------------------------------------------------------


@settings(max_examples=5)
@given(copies_of(talk()))
def test_the_first_beginning_is_the_likeliest(case):
    small, rounds = talk(), 3
    reads = case[2] if any(map(len, case[2])) else [[1], [], []]
    strings = jax.device_get(small.beginnings(small.known, *small.arrays(reads), rounds=rounds, count=4))
    assert (strings.shape, strings.dtype) == ((4, rounds), np.uint8)
    values = {}
    for letters, every in small.strings.items():
        for levels in every:
            string = letters[:rounds], levels[:rounds]
            if string not in values:
                values[string] = small.log_prior(*string) + small.log_probability(reads, *string)
    found = tuple(strings[0].tolist())
    best = max(value for (letters, _), value in values.items() if letters == found)
    assert best == pytest.approx(max(values.values()), abs=1e-3)


# ---- soft levels -----------------------------------------------------------------------------------------------------


def soft_by_trying(small, letters, reads, sweeps=1):
    """Log likelihoods of levels, float64[R, levels], -inf where impossible; run lengths [N, R] with their margins."""
    rounds = range(len(letters))
    before = (0, *letters)
    prior = np.array([
        small.chain[before[j], letters[j]] if small.layout.kinds[j] == DATA else np.eye(small.table.levels)[0]
        for j in rounds
    ])  # fmt: skip
    prior = prior / prior.sum(1, keepdims=True)
    weights = [prior] * len(reads)
    rows = small.pmf[before[:-1], letters]
    for _ in range(sweeps):
        by_copy, found = np.zeros((len(reads), *prior.shape)), []
        for n, read in enumerate(reads):
            if not len(read):
                found.append(None)
                continue
            mixed = (weights[n][..., None] * rows).sum(1)  # [R, r + 1]
            likelihood, by_run = np.zeros(prior.shape), np.zeros(mixed.shape)
            for runs, chance in zip(*small.ways(read, letters), strict=True):
                laws = mixed[rounds, runs]
                for j in rounds:
                    others = chance * np.prod(np.delete(laws, j))
                    likelihood[j] += others * rows[j, :, runs[j]]
                    by_run[j, runs[j]] += others * laws[j]
            with np.errstate(divide="ignore"):
                by_copy[n] = np.log(likelihood)
            found.append(by_run)
        weights = []
        for n in range(len(reads)):  # what the other copies say of the levels
            likely = np.maximum(prior, 1e-30) * np.exp(sum(by_copy[m] for m in range(len(reads)) if m != n))
            weights.append(likely / likely.sum(1, keepdims=True))
    return by_copy.sum(0), found


IMPOSSIBLE = -40.0  # nats: float32 has no likelihoods below ``window.LEAST``, e ** -69, times that of the best level


def assert_soft_levels(small, letters, reads, sweeps=1):
    string = np.array(letters, np.uint8)
    soft, runs = jax.device_get(small.soft_levels(small.known, string, *small.arrays(reads), sweeps=sweeps))
    total, found = soft_by_trying(small, letters, reads, sweeps=sweeps)
    for row, known in zip(soft, total, strict=True):
        if np.isfinite(known).any():
            relative = np.maximum(known - known.max(), IMPOSSIBLE)
            np.testing.assert_allclose(np.maximum(row - row.max(), IMPOSSIBLE), relative, atol=4e-3)
    np.testing.assert_allclose(soft.sum(1), 0, atol=1e-3)
    for row, known in zip(runs, found, strict=True):
        if known is None:
            assert (row == -1).all()
        else:
            likely = np.take_along_axis(known, row[:, None], axis=1)[:, 0]
            assert (likely >= known.max(1) * (1 - 1e-4)).all()


@settings(max_examples=15)
@given(copies_of(talk()))
def test_soft_levels(case):
    assert_soft_levels(talk(), *case[::2])


@settings(max_examples=8)
@given(copies_of(misread()))
def test_soft_levels_with_misread_bases(case):
    assert_soft_levels(misread(), *case[::2])


@pytest.mark.parametrize("sweeps", [2, 3])
def test_soft_levels_in_sweeps(sweeps):
    """Copies hear what the others say of the levels, and not their own say."""
    small = misread()
    generator, changed = np.random.default_rng(12), 0
    for _ in range(4):
        letters = sorted(small.strings)[generator.integers(len(small.strings))]
        levels = small.strings[letters][generator.integers(len(small.strings[letters]))]
        times = small.table.array()[(0, *letters[:-1]), letters, levels]
        reads = [spelled(letters, generator.binomial(times, 0.5)) for _ in range(SMALL_COPIES)]
        assert_soft_levels(small, letters, reads, sweeps)
        totals = [soft_by_trying(small, letters, reads, sweeps=n)[0] for n in (1, sweeps - 1, sweeps)]
        changed += all(abs(total - totals[2]).max() > 0.006 for total in totals[:2])
    assert changed >= 2


@settings(max_examples=8)
@given(copies_of(talk()))
def test_soft_levels_in_two_sweeps(case):
    assert_soft_levels(talk(), *case[::2], sweeps=2)


def test_levels_that_do_not_exist_are_nothing():
    table = TimeTable.parse(str(TALK).replace("A->C{1,2}", "A->C{1}"))
    known = alignment.model(Binomial.uniform(0.8), table)
    letters = np.array([1, 0, 1, 2, 3, 0], np.uint8)
    reads, lengths = np.tile(letters, (2, 1)), np.array([6, 6], np.int32)
    reads, lengths = np.pad(reads, ((0, 1), (0, SMALL_READ - 6))), np.append(lengths, 0).astype(np.int32)
    soft, runs = jax.device_get(talk().soft_levels(known, letters, reads, lengths))
    np.testing.assert_array_equal(soft[[0, 2]], [[0, NOTHING]] * 2)  # A->C
    assert (abs(soft[[1, 3, 4, 5]]) < 100).all()
    assert (runs[:2] == 1).all()
    assert (runs[2] == -1).all()


# ---- the parts of a step, each by loops in float64 -------------------------------------------------------------------


def drawn(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).random(shape), jnp.float32)


def test_cut_reaches_beyond_both_ends():
    row = np.arange(1, 6, dtype=np.float32)
    padded = jnp.pad(row, (4, 8))
    for start in range(-4, 9):
        expected = [row[i] if 0 <= i < 5 else 0 for i in range(start, start + 4)]
        np.testing.assert_array_equal(window.cut(padded, jnp.int32(start), 4), expected)


def test_run_likelihoods_by_loops():
    """The same letter n times before a position, and none before the window; misread bases count as such."""
    known = misread().known
    bases = np.array([1, 1, 2, 2, 2, window.PAD], np.uint8)
    match = window.base_likelihoods(known, jnp.asarray(bases))
    tails = window.run_likelihoods(match, 3)
    for letter, run, position in itertools.product(range(4), range(4), range(len(bases))):
        chance = 1.0 if run <= position + 1 else 0.0
        for back in range(min(run, position + 1)):
            base = bases[position - back]
            chance *= 0 if base == window.PAD else 0.98 if base == letter else 0.02 / 3
        assert tails[run][letter, position] == pytest.approx(chance, rel=1e-5)


def test_log_remainders_by_groups():
    small, read = talk(), [1, 1, 1, 3, 0, 0, 2]
    reads = window.pad_reads(np.array([[*read, 0, 0]], np.uint8), np.array([7], np.int32))
    found = window.log_remainders(small.known, reads)[0]
    np.testing.assert_allclose(found[:8], small.rest(read), rtol=1e-5)
    np.testing.assert_array_equal(found[8:], 0)


def test_follow_moves_the_windows_to_the_likeliest_position():
    forward, offset, wide = drawn(0, 2, 3, 12) ** 20, jnp.array([2, 0], jnp.int32), 12
    future = jnp.asarray(np.random.default_rng(1).normal(size=(2, 60)), jnp.float32)
    moved, after, middle = beam.follow(forward, offset, future)
    for n in range(2):
        rest = np.array(future[n, offset[n] + wide : offset[n] + 2 * wide], float)
        weight = np.array(forward[n, 0], float) * np.exp(rest)
        likely = round(float(weight @ np.arange(wide) / weight.sum()))
        shift = max(likely - wide // 3, 0)
        assert (after[n], middle[n]) == (offset[n] + shift, likely - shift)
        np.testing.assert_array_equal(moved[n], np.pad(forward[n, :, shift:], ((0, 0), (0, shift))))


@pytest.mark.slow
def test_gains_by_loops():
    """``run_gains`` and ``log_gains`` together: every run of every level, from each position, with its worth."""
    known = misread().known
    emission = np.asarray(known.emission, float)
    levels, runs, copies, wide = emission.shape[2], emission.shape[3], 2, 9
    tails, rest = [drawn(n, copies, 4, wide) for n in range(runs)], drawn(10, copies, wide)
    forward, before = drawn(11, copies, 3, wide), jnp.array([2, 0, 3], jnp.int32)
    present = np.array([True, False])
    found = beam.log_gains(forward, beam.run_gains(known, tails, rest), before, present)
    for string, a, level in itertools.product(range(3), range(4), range(levels)):
        total = 0.0
        for at, run in itertools.product(range(wide), range(runs)):
            if at + run < wide:
                chance = emission[before[string], a, level, run] * float(rest[0, at + run])
                total += float(forward[0, string, at]) * chance * float(tails[run][0, a, at + run])
        assert found[string, a, level] == pytest.approx(np.log(max(total, 1e-30)), rel=1e-4)


def test_disprove_holds_letters_against_the_hash():
    priority, doubt = drawn(1, 3, 4, 2), drawn(2, 3)
    demanded = np.array([1, 3, 0], np.int32)
    same, doubts = beam.disprove(priority, doubt, demanded, jnp.bool_(False))
    np.testing.assert_array_equal(same, priority)
    np.testing.assert_array_equal(doubts, np.tile(doubt[:, None], 4))
    held, doubts = beam.disprove(priority, doubt, demanded, jnp.bool_(True))
    for string, letter in np.ndindex(3, 4):
        right = letter == demanded[string]
        np.testing.assert_array_equal(held[string, letter], priority[string, letter] if right else [NOTHING] * 2)
        more = priority[string].max() - priority[string, letter].max()
        assert doubts[string, letter] == pytest.approx(float(doubt[string] + more), rel=1e-6)


def test_rank_is_a_sort():
    priority = drawn(4, 5, 4, 3)
    string, letter, level = beam.rank(priority)
    best = np.argsort(-np.array(priority).reshape(-1))[:5]
    np.testing.assert_array_equal(string * 12 + letter * 3 + level, best)


def test_advance_by_loops():
    copies, strings, wide, runs = 2, 3, 8, 4
    forward, tails, emission = drawn(5, copies, strings, wide), drawn(6, runs, copies, strings, wide), drawn(7, 3, runs)
    found, logs = beam.advance(forward, list(tails), emission)
    expected = np.zeros(forward.shape)
    for n, string, at, run in itertools.product(range(copies), range(strings), range(wide), range(runs)):
        if at + run < wide:
            chance = float(tails[run, n, string, at + run]) * float(emission[string, run])
            expected[n, string, at + run] += float(forward[n, string, at]) * chance
    np.testing.assert_allclose(found, expected / expected.sum(axis=-1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(logs, np.log(expected.sum(axis=-1)), rtol=1e-5)


def test_nothing_advances_to_nothing():
    found, logs = beam.advance(jnp.zeros((1, 1, 4)), [jnp.zeros((1, 1, 4))] * 2, jnp.ones((1, 2)))
    np.testing.assert_array_equal(found, 0)
    assert logs == pytest.approx(np.log(window.LEAST))


@pytest.mark.parametrize("strings", [3, beam._PART, 3 * beam._PART, beam._PART + 1])
def test_parts_are_the_whole(strings):
    """Results have the copies first, and one of them a window."""
    value, other = drawn(10, strings), drawn(11, strings, 2)

    def function(strings):
        value, other = strings
        return jnp.stack([value, 2 * value]), value[None, :, None] + other[None]

    for found, expected in zip(beam.in_parts(function, (value, other)), function((value, other)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_places_are_the_mean_positions_of_all_copies():
    forward = np.zeros((2, 5, 8), np.float32)
    for string, means in enumerate([(3, 6), (3.2, 5.8), (3, 5), (2, 6), (6, 3)]):
        for n, mean in enumerate(means):
            forward[n, string, int(mean)], forward[n, string, int(mean) + 1] = 1 - mean % 1, mean % 1
    found = beam.places(jnp.asarray(forward)).tolist()
    assert found[0] == found[1]
    assert len(set(found)) == 4


def test_repeated_spares_the_likeliest():
    rng = np.random.default_rng(8)
    state, place = rng.integers(0, 3, (2, 40)).astype(np.uint32)
    pairs = list(zip(state.tolist(), place.tolist(), strict=True))
    expected = [pair in pairs[:n] for n, pair in enumerate(pairs)]
    np.testing.assert_array_equal(beam.repeated(jnp.asarray(state), jnp.asarray(place)), expected)


def test_repeated_spares_all_that_differ():
    """With hundreds of strings, some share a slot: of these a repeated one may be missed, and none is taken for one."""
    rng = np.random.default_rng(9)
    state, place = rng.integers(0, 30, (2, 800)).astype(np.uint32)
    pairs = list(zip(state.tolist(), place.tolist(), strict=True))
    expected = np.array([pair in pairs[:n] for n, pair in enumerate(pairs)])
    found = np.asarray(beam.repeated(jnp.asarray(state), jnp.asarray(place)))
    assert not (found & ~expected).any()
    assert (expected & ~found).sum() < 0.15 * expected.sum()
    assert 100 < expected.sum() < 700


def test_close_asks_where_the_copies_end():
    strings = beam.start(3, 2, 6)
    strings = strings._replace(
        forward=drawn(9, 3, 2, 6), score=jnp.array([-1, -2], jnp.float32), offset=jnp.array([4, 0, 7], jnp.int32)
    )
    lengths, present = np.array([6, 0, 12], np.int32), np.array([True, False, True])
    expected = strings.score + np.log(strings.forward[0, :, 2]) + np.log(strings.forward[2, :, 5])
    np.testing.assert_allclose(beam.close(strings, lengths, present), expected, rtol=1e-5)
    assert (beam.close(strings, lengths + 9, present) <= NOTHING).all()
    assert (beam.close(strings, lengths * 0, present & False) <= NOTHING).all()


def test_trace_back_follows_the_parents():
    parents, symbols = np.random.default_rng(9).integers(0, 4, (2, 7, 4)).astype(np.int32)
    string, expected = 2, []
    for step in range(6, -1, -1):
        expected.append(symbols[step, string])
        string = parents[step, string]
    found = beam.trace_back(jnp.int32(2), jnp.asarray(parents), jnp.asarray(symbols))
    np.testing.assert_array_equal(found, expected[::-1])


def test_forwards_and_backwards_by_loops():
    """One round each way in a window that stays: positions, runs and levels in three loops."""
    small, wide, letter = misread(), 12, 1
    read = np.full(3 * wide + 8, window.PAD, np.uint8)
    read[wide : wide + 5] = [1, 1, 2, 1, 3]
    emission = np.asarray(small.known.emission, float)[0, letter]
    levels, runs = emission.shape
    each = forward_backward.Round(jnp.int32(letter), drawn(1, runs), jnp.asarray(emission, jnp.float32))
    forward, backward = drawn(2, wide) * (np.arange(wide) < 3), drawn(3, wide)  # early: the window does not move
    options = {"model": small.known, "read": jnp.asarray(read), "positions": jnp.arange(wide, dtype=jnp.int32)}
    at = forward_backward.Position(forward, jnp.int32(0))
    flat = jnp.zeros(len(read) + 1, jnp.float32)
    after, before = forward_backward.advance(at, each, future=flat, **options)
    assert after.offset == before.offset == 0
    np.testing.assert_array_equal(before.forward, forward)
    last = forward_backward.Position(backward, jnp.int32(0))
    back, (log_likelihood, run_length) = forward_backward.retreat(last, (each, before), **options)

    chance = [0 if base == window.PAD else 0.98 if base == letter else 0.02 / 3 for base in read[wide:]]
    forth, come, reach = np.zeros(wide), np.zeros(wide), np.zeros(runs)
    for start, run in itertools.product(range(wide), range(runs)):
        if start + run < wide:
            spelled_so = np.prod(chance[start : start + run])
            forth[start + run] += float(forward[start]) * float(each.mixed[run]) * spelled_so
            come[start] += float(backward[start + run]) * float(each.mixed[run]) * spelled_so
            reach[run] += float(forward[start]) * float(backward[start + run]) * spelled_so
    np.testing.assert_allclose(after.forward, forth / forth.sum(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(back.forward, come / come.max(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(log_likelihood, np.log(np.maximum(emission @ reach, 1e-30)), rtol=1e-5)
    assert run_length == np.argmax(np.asarray(each.mixed) * reach)
    assert log_likelihood.shape == (levels,)


def test_combine_is_a_sum_about_the_mean_of_what_exists():
    emission = np.array([[[0.5, 0.5], [0.1, 0.9], [0, 0]]], np.float32)
    by_copy = np.array([[[-1, -2, -9]], [[-3, -1, -9]]], np.float32)
    found = alignment.combine(jnp.asarray(by_copy), jnp.asarray(emission))
    np.testing.assert_allclose(found, [[-0.5, 0.5, NOTHING]])


# ---- simulated copies ------------------------------------------------------------------------------------------------

LAYOUT = Frame(60, 6, 0, 6, 8)
STRANDS, MOST_COPIES, LONGEST = 24, 10, 256


@functools.cache
def aligner(beam=64):
    """One compilation for all that follows: fewer copies are copies of length 0."""

    def every(known, reads, lengths):
        return lax.map(
            lambda pair: alignment.align(known, *pair, layout=LAYOUT, beam=beam, window=24), (reads, lengths)
        )

    return jax.jit(every)


def strands(seed):
    """Random strands (letters, levels uint8[STRANDS, R]) of the layout, data by the max-entropic chain."""
    rng = np.random.default_rng(seed)
    chain = capacity.chain(TALK).probability.reshape(4, 8)
    letters, levels = np.zeros((2, STRANDS, LAYOUT.data), np.uint8)
    before = np.zeros(STRANDS, int)
    for j in range(LAYOUT.data):
        symbol = [rng.choice(8, p=chain[b]) for b in before]
        letters[:, j], levels[:, j] = np.divmod(symbol, 2)
        before = letters[:, j]
    digits = rng.integers(0, 3, (STRANDS, LAYOUT.index)).astype(np.uint8)
    return tuple(map(np.array, writer()(letters, levels, digits)))


@functools.cache
def writer():
    return jax.jit(functools.partial(frame.write, frame=LAYOUT))


def simulated(law, strand, copies, seed):
    """Run lengths int[STRANDS, copies, R] of copies of (letters, levels)."""
    runs = synthesis.simulate(jax.random.key(seed), *strand, channel.pmf_table(law, TALK), MOST_COPIES)
    return np.array(runs)[:, :copies]  # copy n is the same however many there are


def reads_of(letters, runs):
    """Reads uint8[STRANDS, MOST_COPIES, LONGEST] and their lengths, 0 for copies that are not there."""
    reads, lengths = np.zeros((STRANDS, MOST_COPIES, LONGEST), np.uint8), np.zeros((STRANDS, MOST_COPIES), np.int32)
    for i, n in np.ndindex(runs.shape[:2]):
        read = np.repeat(letters[i], runs[i, n])
        reads[i, n, : len(read)], lengths[i, n] = read, len(read)
    return reads, lengths


def share_right(law, copies, seed, lose=()):
    """Share of strands with all letters right, and wrong ones accepted. lose: rounds that every copy loses."""
    letters, levels = strands(seed)
    runs = simulated(law, (letters, levels), copies, seed)
    runs[:, :, list(lose)] = 0
    found, _, score, *_ = jax.device_get(aligner()(alignment.model(law, TALK), *reads_of(letters, runs)))
    accepted, right = score > NOTHING / 2, (found == letters).all(axis=1)
    return (accepted & right).mean(), (accepted & ~right).sum()


def test_costs_say_how_frequent_the_times_are_and_nothing_else():
    costs = TimeTable.uniform((3, 4))
    plain, known = (alignment.model(TALK_LAW, TALK, costs=each, overhead=0.5) for each in (None, costs))
    chain = capacity.chain(costs, overhead=0.5).probability
    exists = chain > 0
    np.testing.assert_allclose(np.exp(np.asarray(known.prior[0], float))[exists], chain[exists], rtol=1e-5)
    assert abs(np.exp(plain.prior[0]) - chain).max() > 0.01
    np.testing.assert_array_equal(known.prior[1], plain.prior[1])
    np.testing.assert_array_equal(known.emission, plain.emission)


def test_beginnings_are_those_of_the_strands():
    """Of easy copies: the first string begins as the strand that ``align`` finds."""
    letters, levels = strands(2)
    reads, lengths = reads_of(letters, simulated(Binomial.uniform(0.97), (letters, levels), 4, 2))
    known = alignment.model(Binomial.uniform(0.97), TALK)

    def every(reads, lengths):
        options = {"layout": LAYOUT, "beam": 32, "window": 24, "rounds": 17, "count": 9}
        return lax.map(lambda pair: alignment.beginnings(known, *pair, **options), (reads, lengths))

    found = jax.device_get(jax.jit(every)(reads[:6], lengths[:6]))
    assert (found.shape, found.dtype) == ((6, 9, 17), np.uint8)
    np.testing.assert_array_equal(found[:, 0], letters[:6, :17])
    np.testing.assert_array_equal(found[:, 0], jax.device_get(aligner()(known, reads, lengths)[0])[:6, :17])
    assert any(len(np.unique(strings, axis=0)) > 1 for strings in found)  # others differ in levels alone


def test_without_loss_one_copy_is_enough():
    assert share_right(Binomial.uniform(1.0), 1, seed=1) == (1, 0)


def test_little_loss():
    assert share_right(Binomial.uniform(0.97), 4, seed=2) == (1, 0)


@pytest.mark.parametrize(("copies", "least"), [(10, 0.95), (8, 0.95), (5, 0.7)])
def test_talk(copies, least):
    right, accepted = share_right(TALK_LAW, copies, seed=copies)
    assert right >= least
    assert accepted <= 1


@pytest.mark.parametrize("place", [24, 45])
def test_a_run_lost_in_every_copy_is_located(place):
    """Only the check letters and the number of rounds can tell; wider beams do better (256: over 90 %)."""
    assert LAYOUT.kinds[place] == DATA
    right, accepted = share_right(Binomial.uniform(0.93), 5, seed=30 + place, lose=[place])
    assert right >= 0.6
    assert accepted <= 1


def test_levels_in_doubt_do_not_crowd_out_other_letters():
    """A->C shows nothing of its level, about eight times a strand: 2^8 strings that differ in levels alone."""
    pmfs = tuple(
        tuple(() if a == b else ((0.05, 0.95), (0.05, 0.95)) if (b, a) == (0, 1) else ((0.05, 0.95),) for a in range(4))
        for b in range(4)
    )
    law = channel.Tabulated(pmfs)
    table = TimeTable(
        tuple(tuple(() if a == b else (1, 2) if (b, a) == (0, 1) else (1,) for a in range(4)) for b in range(4))
    )
    layout, count = Frame(120, 6, 0, 6, 8), 24
    rng = np.random.default_rng(7)
    letters = np.zeros((count, layout.data), np.uint8)
    for j in range(layout.data):  # A->C as often as not
        before = letters[:, j - 1] if j else np.zeros(count, np.uint8)
        other = (before + rng.integers(1, 4, count)) % 4
        letters[:, j] = np.where((before == 0) & (rng.random(count) < 0.5), 1, other)
    digits = rng.integers(0, 3, (count, layout.index)).astype(np.uint8)
    letters, levels = map(np.array, frame.write(letters, letters * 0, digits, frame=layout))
    runs = np.array(synthesis.simulate(jax.random.key(8), letters, levels, channel.pmf_table(law, table), 4))
    runs[:, :, 100] = 0  # lost in every copy: only the check letters tell
    reads, lengths = np.zeros((count, 4, 192), np.uint8), runs.sum(axis=2).astype(np.int32)
    for i, n in np.ndindex(runs.shape[:2]):
        reads[i, n, : lengths[i, n]] = np.repeat(letters[i], runs[i, n])
    known = alignment.model(law, table)

    def every(reads, lengths):
        return lax.map(lambda pair: alignment.align(known, *pair, layout=layout, beam=64, window=24), (reads, lengths))

    found = np.array(jax.jit(every)(reads, lengths)[0])
    right = (found == letters).all(axis=1)
    assert right.mean() >= 0.6, right.mean()


def test_wrong_reads_are_refused():
    letters, levels = strands(5)
    reads, lengths = reads_of(letters, simulated(TALK_LAW, (letters, levels), 6, seed=5))
    mixed, mixed_lengths = reads.copy(), lengths.copy()
    mixed[:, 0], mixed_lengths[:, 0] = np.roll(reads[:, 0], 1, axis=0), np.roll(lengths[:, 0], 1)
    rng = np.random.default_rng(6)
    garbage, garbage_lengths = rng.integers(0, 4, reads.shape).astype(np.uint8), lengths
    longer = np.where(lengths > 0, LONGEST, 0)
    none = lengths * 0
    for case in ((mixed, mixed_lengths), (garbage, garbage_lengths), (reads, longer), (reads, none)):
        found, level, score, *_ = jax.device_get(aligner()(alignment.model(TALK_LAW, TALK), *case))
        assert (score == NOTHING).all()
        assert found.max() <= 3
        assert level.max() <= 1


def test_same_alone_in_a_batch_and_over_devices():
    small = talk()
    rng = np.random.default_rng(8)
    cases = []
    for _ in range(8):
        letters = sorted(small.strings)[rng.integers(len(small.strings))]
        cases.append(small.arrays([spelled(letters, rng.integers(0, 3, len(letters))) for _ in range(SMALL_COPIES)]))
    reads, lengths = map(np.stack, zip(*cases, strict=True))
    alone = [jax.device_get(small.align(small.known, *case)) for case in cases]
    soft = [
        jax.device_get(small.soft_levels(small.known, found[0], *case))
        for found, case in zip(alone, cases, strict=True)
    ]

    def batch(known, reads, lengths):
        letters, levels, *numbers = jax.vmap(small.align, in_axes=(None, 0, 0))(known, reads, lengths)
        soft = jax.vmap(small.soft_levels, in_axes=(None, 0, 0, 0))(known, letters, reads, lengths)
        return letters, levels, *numbers, *soft

    expected = [np.stack(part) for part in (*zip(*alone, strict=True), *zip(*soft, strict=True))]
    spread = parallel.spread(batch, tuple(jax.devices()[:2]))
    for found in (jax.jit(batch)(small.known, reads, lengths), spread(small.known, reads, lengths)):
        for part, known in zip(found, expected, strict=True):
            assert part.dtype == known.dtype
            if part.dtype == np.float32:
                np.testing.assert_allclose(part, known, rtol=1e-5, atol=1e-4)
            else:
                np.testing.assert_array_equal(part, known)


def test_beam_and_window_are_checked_by_name():
    small = talk()
    reads, lengths = small.arrays([[1, 2]] * 3)
    for strings, positions in ((0, 24), (8, 4)):
        with pytest.raises(AlignmentError, match=f"beam {strings}, window {positions}: .* 5 for the longest run"):
            alignment.align(small.known, reads, lengths, layout=small.layout, beam=strings, window=positions)
    letters = np.array([1, 2, 3, 1, 2, 3], np.uint8)
    with pytest.raises(AlignmentError, match="window 4: give at least 5"):
        alignment.soft_levels(small.known, letters, reads, lengths, layout=small.layout, window=4)
