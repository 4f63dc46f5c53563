"""Independent checker: does every strand obey its constraint set?

It is written from the words of the rules by plain scanning of the strings. It shares no code with the automata, the
tables or the coder that make the strands, so that a mistake there cannot hide here. Even the whole numbers of G and C
that a band of shares allows are computed anew, in exact fractions of the shares' decimal digits.

Rules are checked on the molecule as written: left primer, strand, right primer. The GC share of the whole strand leaves
the primers out, and so do windows and balance where the set says so (``primers_exempt``).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Int64

from helix_jax.tk_scone.constraints import Constraints

LETTERS = "ACGT"
CHUNK = 1 << 14  # strands checked at a time: a few megabytes, whatever the size of the pool
EXAMPLES = 3  # kept of each rule


@dataclass(frozen=True)
class Example:
    """One position where a rule is broken.

    Attributes:
        strand: Row number.
        position: Position of the first base of the offending piece, counted from the strand's first base (negative in
            the left primer).
        what: The piece and its figures, for people.
    """

    strand: int
    position: int
    what: str


@dataclass(frozen=True)
class Finding:
    """How one rule is kept.

    Attributes:
        rule: The rule, in words.
        strands: How many strands break it.
        examples: The first few positions where it is broken.
    """

    rule: str
    strands: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, eq=False)
class Report:
    """What the checker found.

    Attributes:
        strands: How many strands were checked.
        length: Nucleotides of each strand, without primers.
        violations: Strands that break at least one rule.
        findings: One finding per rule, kept rules included.
        longest_runs: Number of strands by their longest homopolymer run (primers included).
        gc_percent: Number of strands by the GC share of the strand alone, in whole percent rounded down.
    """

    strands: int
    length: int
    violations: int
    findings: tuple[Finding, ...]
    longest_runs: Int64[np.ndarray, " runs"]
    gc_percent: Int64[np.ndarray, "101"]


def check(strands: np.ndarray | Sequence[str], constraints: Constraints) -> Report:
    """Check every strand against every rule.

    Args:
        strands: uint8[n, L] in 0..3 = A C G T, or a sequence of n strings of L letters (in either case).
        constraints: The set, of which only the fields are read.

    Returns:
        The report.

    Raises:
        ValueError: For other letters or values and for strings of unequal length; it names the strand.
    """
    bases = _as_bases(strands)
    count, length = bases.shape
    left, right = _word(constraints.left), _word(constraints.right)
    tallies = [_Tally(rule) for rule in _rules(constraints, length)]
    longest_runs = np.zeros(len(left) + length + len(right) + 1, np.int64)
    gc_percent = np.zeros(101, np.int64)
    violations = 0
    for begin in range(0, count, CHUNK):
        part = bases[begin : begin + CHUNK]
        sides = [np.broadcast_to(primer, (len(part), len(primer))) for primer in (left, right)]
        written = _Written(np.concatenate([sides[0], part, sides[1]], axis=1), len(left), length)
        longest_runs += np.bincount(written.run.max(axis=1), minlength=len(longest_runs))
        gc_percent += np.bincount(100 * written.strand_gc.astype(np.int64) // length, minlength=101)
        broken = np.zeros(len(part), bool)
        for tally in tallies:
            broken |= tally.add(written, begin)
        violations += int(broken.sum())
    findings = tuple(Finding(tally.rule.words, tally.strands, tuple(tally.examples)) for tally in tallies)
    last = int(np.flatnonzero(longest_runs).max(initial=0))
    return Report(count, length, violations, findings, longest_runs[: last + 1], gc_percent)


class _Written:
    """A chunk of molecules as written, with what several rules need.

    Attributes:
        bases: uint8[n, P], the bases with primers.
        run: int32[n, P], the length of the run that ends at each base.
        gc_before: int32[n, P + 1], the number of G and C before each position.
        strand_gc: int32[n], the number of G and C of the strand alone.
        offset: Position of the strand's first base.
        length: Bases of the strand.
    """

    def __init__(self, bases, offset, length):
        self.bases, self.offset, self.length = bases, offset, length
        count, positions = bases.shape
        position = np.arange(positions, dtype=np.int32)
        changed = np.zeros((count, positions), bool)
        np.not_equal(bases[:, 1:], bases[:, :-1], out=changed[:, 1:])
        start = np.maximum.accumulate(np.where(changed, position, np.int32(0)), axis=1)
        self.run = position - start + np.int32(1)
        self.gc_before = np.zeros((count, positions + 1), np.int32)
        np.cumsum((bases == 1) | (bases == 2), axis=1, dtype=np.int32, out=self.gc_before[:, 1:])
        self.strand_gc = self.gc_before[:, offset + length] - self.gc_before[:, offset]


@dataclass(frozen=True)
class _Rule:
    """A rule: its words for people, where it is broken, and the piece that breaks it.

    Attributes:
        words: The rule for people.
        bad: Function that returns bool[n, positions], True where the rule is broken.
        span: Function (written, row, position) -> (first, length, note) of the piece that breaks it.
    """

    words: str
    bad: Callable[[_Written], Bool[np.ndarray, "n positions"]]
    span: Callable[..., tuple]


class _Tally:
    """How many strands break a rule, and the first few examples."""

    def __init__(self, rule):
        self.rule, self.strands, self.examples = rule, 0, []

    def add(self, written, begin):
        """Count the strands of a chunk that break the rule, and return their mask; ``begin`` is its first strand."""
        bad = self.rule.bad(written)
        broken = bad.any(axis=1)
        rows = np.flatnonzero(broken)
        self.strands += len(rows)
        for row in rows[: EXAMPLES - len(self.examples)]:
            first, length, note = self.rule.span(written, row, int(np.argmax(bad[row])))
            piece = "".join(LETTERS[base] for base in written.bases[row, first : first + length])
            self.examples.append(Example(begin + int(row), first - written.offset, f"{note}: {piece}"))
        return broken


def _rules(constraints, length):
    c = constraints
    rules = [_run_rule(c.longest_run)]
    exempt = c.primers_exempt
    if c.window:
        rules.append(_window_rule(c.window, *_bounds(c.window_gc, c.window), exempt))
    if c.strand_gc is not None:
        rules.append(_strand_rule(length, *_bounds(c.strand_gc, length)))
    if c.balance:
        # Within `balance` of half in every window is 40-60 % of a window of 10 balance: 50 bases for `wide`.
        rules += [_balance_rule(c.balance, exempt), _window_rule(10 * c.balance, 4 * c.balance, 6 * c.balance, exempt)]
    for motif in c.motifs:
        word = _word(motif)
        reverse = np.array([3 - base for base in word[::-1]], np.uint8)
        rules.append(_motif_rule(motif.upper(), word))
        if not np.array_equal(word, reverse):
            rules.append(_motif_rule(f"{motif.upper()} reversed and complemented", reverse))
    return rules


def _run_rule(longest):
    def bad(written):
        return written.run > longest

    def span(written, row, position):
        # The first offending base is the run's base number longest + 1: show the run as far as it goes.
        first = position - longest
        end = position + 1
        while end < written.bases.shape[1] and written.bases[row, end] == written.bases[row, first]:
            end += 1
        return first, end - first, f"run of {end - first}"

    return _Rule(f"no run longer than {longest}", bad, span)


def _counted(written, exempt):
    """Return the G and C before each position that counts, and the first such position: all, or the strand alone."""
    if not exempt:
        return written.gc_before, 0
    inside = written.gc_before[:, written.offset : written.offset + written.length + 1]
    return inside - inside[:, :1], written.offset


def _window_rule(width, low, high, exempt):
    def bad(written):
        before, _ = _counted(written, exempt)
        gc = before[:, width:] - before[:, :-width]
        return (gc < low) | (gc > high)

    def span(written, row, position):
        before, first = _counted(written, exempt)
        gc = before[row, position + width] - before[row, position]
        return first + position, width, f"{gc} G or C in {width}"

    return _Rule(f"{low} to {high} G or C in every {width} bases", bad, span)


def _strand_rule(length, low, high):
    def bad(written):
        return ((written.strand_gc < low) | (written.strand_gc > high))[:, None]

    def span(written, row, _):
        return written.offset, length, f"{written.strand_gc[row]} G or C in {length}"

    return _Rule(f"{low} to {high} G or C in the {length} bases of the strand", bad, span)


def _balance_rule(balance, exempt):
    def imbalance(written):
        before, _ = _counted(written, exempt)
        return 2 * before - np.arange(before.shape[1], dtype=np.int32)

    def bad(written):
        # This covers every window: the greatest and the least imbalance before it differ by at most 2 balance.
        lead = imbalance(written)
        wide = np.maximum.accumulate(lead, axis=1) - np.minimum.accumulate(lead, axis=1) > 2 * balance
        return (np.abs(lead) > balance) | wide

    def span(written, row, position):
        first = _counted(written, exempt)[1]
        return first, position, f"G + C less A + T is {imbalance(written)[row, position]} after {position} bases"

    return _Rule(f"G + C less A + T within {balance} from the first base to any", bad, span)


def _motif_rule(words, word):
    def bad(written):
        positions = written.bases.shape[1] - len(word) + 1
        match = np.ones((len(written.bases), max(positions, 1)), bool)
        if positions < 1:
            return ~match
        for shift, base in enumerate(word):
            match &= written.bases[:, shift : shift + positions] == base
        return match

    def span(_, __, position):
        return position, len(word), "forbidden"

    return _Rule(f"without {words}", bad, span)


def _bounds(band, length):
    """Return the least and the greatest whole number whose share of ``length`` lies in the band.

    The shares are taken by their decimals as written.
    """
    low, high = (Fraction(str(share)) * length for share in band)
    return math.ceil(low), math.floor(high)


def _word(text):
    values = [LETTERS.find(letter) for letter in text.upper()]
    if -1 in values:
        raise ValueError(f"{text!r} holds letters other than A, C, G, T")
    return np.array(values, np.uint8)


def _as_bases(strands):
    if isinstance(strands, np.ndarray) and strands.dtype == np.uint8:
        if strands.ndim != 2 or strands.shape[1] < 1:
            raise ValueError(f"strands have shape {strands.shape}: uint8[n, L] with L of at least 1 is needed")
        wrong = np.flatnonzero((strands > 3).any(axis=1))
        if len(wrong):
            raise ValueError(f"strand {wrong[0]} holds {strands[wrong[0]].max()}: bases are 0..3 for A, C, G, T")
        return strands
    strands = list(strands)
    length = len(strands[0]) if strands else 1
    for number, strand in enumerate(strands):
        if len(strand) != length or not length:
            raise ValueError(
                f"strand {number} has {len(strand)} nt, the first has {length}: check one length at a time"
            )
    values = np.full(256, 255, np.uint8)
    for value, letter in enumerate(LETTERS):
        values[ord(letter)] = values[ord(letter.lower())] = value
    text = "".join(strands).encode("ascii", "replace")
    bases = values[np.frombuffer(text, np.uint8)].reshape(len(strands), length)
    wrong = np.argwhere(bases > 3)
    if len(wrong):
        row, position = wrong[0]
        raise ValueError(f"strand {row} holds {strands[row][position]!r} at {position}: only A, C, G, T are bases")
    return bases
