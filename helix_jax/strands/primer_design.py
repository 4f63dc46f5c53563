"""Design of a library of primer pairs: random candidates, of which those are kept that obey every rule.

The rules are those of ``config.PrimerRules``, and the constraint set of the strands that the primers will stand beside.
What is quick to test for many candidates at once is tested first. The candidates follow from the seed alone, and each
is kept or not for good, so that a larger library of the same seed begins with the smaller one.
"""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import edlib  # pyrefly: ignore [missing-import]
import numpy as np
from jaxtyping import Bool, Int64, UInt8

from helix_jax import files
from helix_jax.config import PrimerRules
from helix_jax.errors import HelixError
from helix_jax.strands import checker
from helix_jax.strands.header_search import Portioned
from helix_jax.strands.library import COLUMNS, Pair
from helix_jax.strands.primers import BASES, alike, reverse_complement
from helix_jax.strands.structure import folding, melting_temperature
from helix_jax.tk_scone.constraints import Constraints

BATCH = 1 << 12  # candidates drawn at once
PART = 512  # strands that a candidate is compared with before it is known whether more are needed
PATIENCE = 1 << 18  # candidates without another pair after which the search ends
END = 5  # bases at the 3' end that the GC clamp is about
FLAGS = {  # the options of each rule
    "gc": "--min-gc or --max-gc",
    "run": "--longest-run",
    "clamp": "--end-gc",
    "dimer": "--dimer-run or --dimer-end",
    "set": "--constraints",
    "tm": "--min-tm or --max-tm",
    "fold": "--fold",
    "cross": "--cross-run or --cross-end",
    "distance": "--distance",
    "near": "--near",
}


@dataclass(frozen=True)
class Library:
    """Primer pairs, and how they were found.

    Attributes:
        pairs: The pairs.
        candidates: Primers that were drawn.
        rejected: Share of the candidates that each rule rejected, among those that the rules before it left.
    """

    pairs: tuple[Pair, ...]
    candidates: int
    rejected: dict[str, float]


class _Tally:
    """How many candidates each rule saw and rejected, since the last pair and in all."""

    def __init__(self):
        self.total: dict[str, np.ndarray] = {}
        self.late: dict[str, np.ndarray] = {}

    def add(self, rule, passed):
        counts = np.array([np.size(passed), np.size(passed) - np.count_nonzero(passed)])
        for table in (self.total, self.late):
            table[rule] = table.get(rule, 0) + counts
        return passed

    @staticmethod
    def shares(table):
        return {rule: float(rejected / max(1, seen)) for rule, (seen, rejected) in table.items()}


def design(
    count: int,
    *,
    rules: PrimerRules,
    constraints: Constraints,
    seed: int = 0,
    away_from: Sequence[Portioned] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> Library:
    """Design a library.

    Args:
        count: The number of pairs.
        rules: What every primer obeys.
        constraints: The set of the strands; each primer obeys it as far as it can be told without the strand.
        seed: The same seed gives the same library.
        away_from: Strands that no primer is like (``fasta.Strands``).
        progress: Called as progress("pairs", 1, count).

    Returns:
        The library.

    Raises:
        HelixError: There are not as many pairs; the message says how many, and which limit to relax.
    """
    tally, pairs, waiting, candidates, last = _Tally(), [], None, 0, 0
    chosen = np.zeros((0, rules.length), np.uint8)  # of whole pairs
    words: list[str] = []  # of the same, and their reverse complements
    if progress:
        progress("pairs", 0, count)
    for candidates, row in _single(rules, constraints, np.random.default_rng(seed), tally):
        if len(pairs) == count or candidates - last > PATIENCE:
            break
        if row is None:
            continue
        word = _word(row)
        others = [*words, waiting, reverse_complement(waiting)] if waiting else words
        if waiting and not tally.add("dimer", _fit(row, _row(waiting)[None], rules.dimer_run, rules.dimer_end)):
            continue
        if not tally.add("cross", _fit(row, chosen, rules.cross_run, rules.cross_end)):
            continue
        if not tally.add("distance", _far(word, [*others, reverse_complement(word)], rules.distance)):
            continue
        if away_from and not tally.add("near", not _occurs(word, away_from, rules.near)):
            continue
        if waiting is None:
            waiting = word
            continue
        pairs.append(Pair(f"P{len(pairs) + 1:04d}", waiting, reverse_complement(word)))
        chosen = np.concatenate([chosen, _row(waiting)[None], row[None]])
        words += [waiting, reverse_complement(waiting), word, reverse_complement(word)]
        waiting, last = None, candidates
        tally.late.clear()
        if progress:
            progress("pairs", 1, count)
    if len(pairs) < count:
        raise _too_few(len(pairs), count, tally)
    shares = {rule: round(share, 6) for rule, share in tally.shares(tally.total).items()}
    return Library(tuple(pairs), candidates, shares)


def _too_few(found, count, tally):
    """Return the error that names the rule that rejected the largest share of what the rules before it left."""
    shares = tally.shares(tally.late)
    # of two rules that rejected everything, the one that saw more
    rule = max(tally.late, key=lambda name: tally.late[name][1] / (tally.late[name][0] + 1))
    remedy = f"relax {FLAGS[rule]}, which rejected {shares[rule]:.2%} of the primers that the rules before it left"
    fewer = f", or ask for --count {found}" if found else ""
    return HelixError(f"only {found} of {count} pairs of primers obey the rules: {remedy}{fewer}")


# ---- one primer --------------------------------------------------------------------------------------------


def _single(
    rules: PrimerRules, constraints: Constraints, generator: np.random.Generator, tally: _Tally
) -> Iterator[tuple[int, UInt8[np.ndarray, " L"] | None]]:
    """Yield (number of the candidate, candidate) that obey the rules for a primer alone, and None after each batch."""
    drawn = 0
    while True:
        rows = generator.integers(0, 4, (BATCH, rules.length), np.uint8)
        numbers = drawn + np.arange(BATCH)
        drawn += BATCH
        gc = ((rows == 1) | (rows == 2)).mean(axis=1)
        keep = tally.add("gc", (gc >= rules.min_gc) & (gc <= rules.max_gc))
        rows, numbers = rows[keep], numbers[keep]
        keep = tally.add("run", _runs(rows) <= rules.longest_run)
        rows, numbers = rows[keep], numbers[keep]
        if rules.end_gc:
            keep = tally.add("clamp", _clamped(rows, rules.end_gc))
            rows, numbers = rows[keep], numbers[keep]
        keep = tally.add("dimer", _fits(rows, rows, rules.dimer_run, rules.dimer_end))
        for number, row in zip(numbers[keep].tolist(), rows[keep], strict=True):
            word = _word(row)
            if not tally.add("tm", rules.min_tm <= melting_temperature(word) <= rules.max_tm):
                continue
            both = np.stack([row, 3 - row[::-1]])  # a left primer, and the right one that it would become
            if not tally.add("set", not checker.check(both, constraints).violations):
                continue
            if tally.add("fold", folding(word) >= rules.fold):
                yield number, row
        yield drawn, None


def _runs(rows):
    """Return the longest homopolymer run of each row."""
    return _stretches(rows[:, 1:] == rows[:, :-1]).max(axis=1, initial=0) + 1


def _clamped(rows, most):
    strong = (rows == 1) | (rows == 2)
    return strong[:, -1] & (strong[:, -END:].sum(axis=1) <= most)


# ---- two primers -------------------------------------------------------------------------------------------


def pairing(
    first: UInt8[np.ndarray, "n L"], second: UInt8[np.ndarray, "n M"]
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Return how long a run of bases of one primer can pair with bases of another, which runs the other way.

    Args:
        first: Primers from their 5' to their 3' end; bases are 0..3 = A C G T.
        second: For each of them another one, or the same.

    Returns:
        The longest run of each two, and the longest of those runs that hold the last base of either (0 for none).
    """
    length, other = first.shape[1], second.shape[1]
    edge = np.full((len(second), length - 1), 4, np.uint8)
    target = np.concatenate([edge, 3 - second[:, ::-1], edge], axis=1)
    # each shift of the two against one another is a row of windows: bool[n, length + other - 1, length]
    match = np.lib.stride_tricks.sliding_window_view(target, length, axis=1) == first[:, None]
    run = _stretches(match)
    # The second's last base lies at this position of the first, once the shift is such that they overlap there.
    place = np.arange(length) + np.arange(length + other - 1)[:, None] - (length - 1)
    from_end = np.where(run == place + 1, run, 0)  # runs that began with the second's last base
    at_end = np.maximum(run[:, :, -1].max(axis=1), from_end.max(axis=(1, 2)))
    return run.max(axis=(1, 2)), at_end


def _stretches(match: Bool[np.ndarray, "*n L"]) -> Int64[np.ndarray, "*n L"]:
    """Return how many True values in a row end at each position."""
    position = np.arange(match.shape[-1])
    return position - np.maximum.accumulate(np.where(match, -1, position), axis=-1)


def _fits(first, second, most, most_at_end):
    run, at_end = pairing(first, second)
    return (run <= most) & (at_end <= most_at_end)


def _fit(row, others, most, most_at_end):
    """Return whether a primer forms no dimer with any of the others."""
    return bool(_fits(np.broadcast_to(row, others.shape), others, most, most_at_end).all())


def _far(word: str, others: Iterable[str], distance: int) -> bool:
    """Return whether a primer is at least so many edits from every other word."""
    return all(edlib.align(word, other, mode="NW", k=distance - 1)["editDistance"] < 0 for other in others)


def _occurs(word: str, away_from: Sequence[Portioned], near: float | int) -> bool:
    return any(
        alike(part[begin : begin + PART], word, near).any()
        for strands in away_from
        for part in strands.portions()
        for begin in range(0, len(part), PART)
    )


def _word(row: UInt8[np.ndarray, " L"]) -> str:
    return BASES[row].tobytes().decode()


def _row(word: str) -> UInt8[np.ndarray, " L"]:
    return np.array(["ACGT".index(letter) for letter in word], np.uint8)


# ---- the file ----------------------------------------------------------------------------------------------


def write(path: str | os.PathLike, pairs: Iterable[Pair]) -> None:
    """Write a library as CSV, with what people want to know of each primer beside it.

    Raises files.OutputError where the file cannot be written.
    """
    about = ("reverse_primer", "left_tm", "right_tm", "left_gc", "right_gc", "left_fold", "right_fold")
    with files.atomic(path) as temporary, open(temporary, "w", newline="", encoding="ascii") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow((*COLUMNS, *about))
        for pair in pairs:
            both = (pair.left, pair.reverse)
            table.writerow(
                (
                    pair.name,
                    pair.left,
                    pair.right,
                    pair.reverse,
                    *(f"{melting_temperature(word):.1f}" for word in both),
                    *(f"{sum(map(word.count, 'GC')) / len(word):.2f}" for word in both),
                    *(f"{folding(word):.1f}" for word in both),
                )
            )
