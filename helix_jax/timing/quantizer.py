"""Quantisers: from the run lengths of N copies to the allowed time that was used; and the choice of those times.

ISIT 2020, "Framework", asks for times t^(1) < t^(2) < ... of each transition and a quantiser with
Pr[wrong level | time t^(i)] <= delta for every i. The talk does not say how they are found; what follows is ours.

The rule of one transition is in ``decision``. Here are the rules of all transitions, as tables for the devices, and the
search for the times.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Float64, Int, Int32, Integer, UInt8

from helix_jax.timing import capacity
from helix_jax.timing.channel import Law, pmf_table
from helix_jax.timing.decision import BISECTIONS, Decision, QuantizerError, check_copies, transitions
from helix_jax.timing.graph import BASES, TimeTable

SETS_LIMIT = 5000
CONTENDERS = 12  # the number of sets of times of one transition that ``design`` compares in full
# The bits of letters that a reader with a beam needs for each bit of doubt. Measured: the rates at which the strands of
# two pairs of tables were read differ as ``achieved_rate`` says at a price of 4, and of 7 (docs/timing.md, "What a lost
# run costs").
PRICE = 5.0
NO_LEVEL = -1e9  # the log-likelihood of a level that does not exist

Arrayish = Array | np.ndarray


# ---- all transitions -----------------------------------------------------------------------------------------------


class Arrays(NamedTuple):
    """The tables for ``quantise`` and ``log_likelihoods``.

    Attributes:
        scores: The scores, by (b, a, run length, level).
        weights: The weights, by (b, a, level).
        levels: The number of levels, by (b, a).
        log_likelihoods: Natural logarithms, by (b, a, run length, level).
    """

    scores: Int32[Arrayish, "4 4 runs levels"]
    weights: Int32[Arrayish, "4 4 levels"]
    levels: Int32[Arrayish, "4 4"]
    log_likelihoods: Float32[Arrayish, "4 4 runs levels"]


@dataclass(frozen=True, eq=False)
class Quantizer:
    """A time table with its decision rules.

    Attributes:
        law: The law of the run lengths.
        table: The time table.
        copies: The number N of copies.
        decisions: The rule of each transition at [b][a], None where the transition is not used.
    """

    law: Law
    table: TimeTable
    copies: int
    decisions: tuple[tuple[Decision | None, ...], ...]

    @property
    def error(self) -> float:
        """The largest error of any level: the delta that this quantiser keeps."""
        return max(decision.error for row in self.decisions for decision in row if decision)

    def errors(self) -> Float64[np.ndarray, "4 4 levels"]:
        """Return the error of each level, 0 where there is no such level."""
        out = np.zeros((4, 4, self.table.levels))
        for b, a in np.ndindex(4, 4):
            if decision := self.decisions[b][a]:
                out[b, a, : len(decision.times)] = decision.errors
        return out

    def arrays(self, misread: float | int = 1e-4) -> Arrays:
        """Return the tables for the kernels.

        ``misread`` is the probability that a copy shows a run length for another reason than the law (sequencer,
        alignment). It is added to every pmf in the log-likelihoods only, and bounds the evidence of one copy.
        Raises QuantizerError unless it lies between 0 and 1.
        """
        if not 0 < misread < 1:
            raise QuantizerError(f"misread: {misread} is no chance between 0 and 1")
        pmfs = pmf_table(self.law, self.table)
        used = [(b, a, d) for b, row in enumerate(self.decisions) for a, d in enumerate(row) if d]
        width = max(pmfs.shape[3], *(d.scores.shape[1] for _, _, d in used))
        pmfs = np.pad(pmfs, [(0, 0)] * 3 + [(0, width - pmfs.shape[3])])
        scores = np.zeros((4, 4, width, self.table.levels), np.int32)
        weights, levels = np.zeros((4, 4, self.table.levels), np.int32), np.zeros((4, 4), np.int32)
        logs = np.full(scores.shape, NO_LEVEL, np.float32)
        for b, a, decision in used:
            count = len(decision.times)
            # a run that is longer than the law allows is equivalent to the longest that it allows
            run = np.minimum(np.arange(width), np.flatnonzero(pmfs[b, a].any(axis=0))[-1])
            scores[b, a, :, :count] = decision.scores[:, np.minimum(run, decision.scores.shape[1] - 1)].T
            weights[b, a, :count], levels[b, a] = decision.weights, count
            logs[b, a, :, :count] = np.log(pmfs[b, a, :count][:, run] + misread).T
        return Arrays(scores, weights, levels, logs)


def quantizer(law: Law, table: TimeTable, copies: int) -> Quantizer:
    """Return the quantiser for a given time table, whatever its errors are.

    Args:
        law: The law of the run lengths.
        table: The time table.
        copies: The number N of copies.

    Returns:
        The quantiser.

    Raises:
        QuantizerError: The number of copies is wrong.
        channel.ChannelError: The law lacks a time.
    """
    check_copies(copies)
    rules = transitions(law, copies, table.longest)

    def decision(b, a):
        return rules[b, a].decide(table.times[b][a]) if table.times[b][a] else None

    return Quantizer(law, table, copies, _square(decision, None))


def _square(function, diagonal):
    """Return function(b, a) for b != a as 4 x 4 tuples."""
    return tuple(tuple(diagonal if a == b else function(b, a) for a in range(4)) for b in range(4))


def _over_copies(table, runs, b, a, levels):
    """Return the sum over copies of table[b, a, run], [..., levels], and the mask of the existing levels, likewise."""
    rows = jnp.asarray(table)[b[..., None], a[..., None], jnp.clip(runs, 0, table.shape[2] - 1)]
    total = jnp.sum(jnp.where(runs[..., None] >= 0, rows, jnp.zeros_like(rows)), axis=-2, dtype=rows.dtype)
    level = lax.broadcasted_iota(jnp.int32, total.shape, total.ndim - 1)
    return total, level < jnp.asarray(levels)[b, a][..., None]


@jax.jit
def quantise(
    runs: Int[Arrayish, "*rounds N"],
    b: Integer[Arrayish, "*rounds"],
    a: Integer[Arrayish, "*rounds"],
    arrays: Arrays,
) -> UInt8[Array, "*rounds"]:
    """Decide the level of each round.

    Args:
        runs: The run lengths in the copies; -1 where a copy is missing, which then has no influence.
        b: The base before each round.
        a: The base that each round writes.
        arrays: The tables of the quantiser.

    Returns:
        The levels.
    """
    total, exists = _over_copies(arrays.scores, runs, b, a, arrays.levels)
    total += jnp.asarray(arrays.weights)[b, a]
    return jnp.argmax(jnp.where(exists, total, jnp.iinfo(jnp.int32).min), axis=-1).astype(jnp.uint8)


@jax.jit
def log_likelihoods(
    runs: Int[Arrayish, "*rounds N"],
    b: Integer[Arrayish, "*rounds"],
    a: Integer[Arrayish, "*rounds"],
    arrays: Arrays,
) -> Float32[Array, "*rounds levels"]:
    """Return log Pr[runs | level] for each level: the natural logarithm, without a prior.

    Args:
        runs: As for ``quantise``.
        b: As for ``quantise``.
        a: As for ``quantise``.
        arrays: As for ``quantise``.

    Returns:
        The log-likelihoods, which are -1e9 for levels that do not exist.
    """
    total, exists = _over_copies(arrays.log_likelihoods, runs, b, a, arrays.levels)
    return jnp.where(exists, total, jnp.float32(NO_LEVEL))


# ---- the choice of times -------------------------------------------------------------------------------------------


def achieved_rate(
    table: TimeTable,
    decisions: Sequence[Sequence[Decision | None]],
    *,
    overhead: float | int = 0.0,
    price: float | int = 0.0,
) -> float:
    """Return the rate of a time table with its parity, where the largest error e of each transition is its own:

        cap / (1 + alpha P),   P = mean over rounds of ((1/C_{e,l} - 1) log2(l) + price * doubt) / letters_capacity

    This is the theorem of ISIT 2020 as in ``capacity.theorem_rate``, with the achieved errors in place of delta. For 12
    equal transitions of shortest time t_1 it is cap / (1 + alpha (1/C - 1) log_3(l) t_1). A transition of one level has
    no index and needs no parity. One whose index carries nothing (e is 1 - 1/l or more) makes the rate 0.

    The doubt is that of the letters, which the theorem takes as read without error (``letters_in_doubt``). The letters
    that pay for it count as read without error, so the rate is too high where most runs are lost.

    Args:
        table: The time table.
        decisions: The rule of each transition at [b][a], as in ``Quantizer``.
        overhead: The time units that are added to every round.
        price: The bits of letters that a reader needs for each bit of that doubt.

    Returns:
        The rate in bits per time unit.

    Raises:
        QuantizerError: The price is no number of bits.
    """
    _check_price(price)
    c = capacity.chain(table, overhead=overhead)
    share = c.stationary[:, None] * c.probability.sum(axis=2)
    extra = sum(share[b, a] * _parity(decisions[b][a]) for b, a in np.argwhere(share > 0))
    extra += price * mean_doubt(c, decisions)
    return float(c.capacity / (1 + c.alpha * extra / capacity.letters_capacity(table, overhead=overhead)))


def mean_doubt(chain: capacity.Chain, decisions: Sequence[Sequence[Decision | None]]) -> float:
    """Return the mean of ``letters_in_doubt`` over the rounds, in bits.

    Args:
        chain: The chain of the time table.
        decisions: The rule of each transition at [b][a], as in ``Quantizer``.
    """
    share = chain.stationary[:, None, None] * chain.probability
    return sum(
        float(share[b, a, : len(decision.times)] @ letters_in_doubt(np.array(decision.lost)))
        for b, row in enumerate(decisions)
        for a, decision in enumerate(row)
        if decision
    )


def letters_in_doubt(lost: Float64[np.ndarray, "*rounds"]) -> Float64[np.ndarray, "*rounds"]:
    """Return the bits of doubt that a round leaves about the letters, given the probability that all copies lose it.

    Lost runs leave no trace, so that a reader has to guess where they are. Rare events of probability q have an entropy
    of q log2(e / q) for each round. What else is in doubt (which letter was lost, and the order of runs that only some
    copies lost) is part of what ``PRICE`` was measured for.
    """
    lost = np.maximum(lost, 0.0)  # as a difference of sums, it may fall below
    return lost * np.log2(math.e / np.maximum(lost, 1e-300))


def _parity(decision):
    """Return the bits of parity per round of a transition."""
    levels = len(decision.times)
    if decision.error >= 1 - 1 / levels:
        return 0.0 if levels == 1 else math.inf
    return (1 / capacity.index_capacity(decision.error, levels) - 1) * math.log2(levels)


def design(
    law: Law,
    copies: int,
    delta: float | int,
    longest: int,
    levels: int,
    *,
    overhead: float | int = 0.0,
    fewest: int = 1,
    price: float | int = 0.0,
) -> Quantizer:
    """Choose the times of each transition that keep every error within delta and make ``achieved_rate`` greatest.

    A set is tried only if its shorter times alone keep delta. First, each transition takes the set with the largest sum
    of 2^(-R (t_i + time of parity and doubt)); for the R with Perron root 1, this would be the best table if the inputs
    were matched to these too. From there, single transitions, and all those that the law treats alike, take another of
    their best CONTENDERS, or their best set with another shortest time, while that raises the rate.

    Args:
        law: The law of the run lengths.
        copies: The number N of copies.
        delta: The highest error of a level, between 0 and 1.
        longest: The greatest allowed time M, in time units.
        levels: The largest number of times of a transition.
        overhead: The time units of a round beside those of its run.
        fewest: The smallest number of times of a transition.
        price: As for ``achieved_rate``.

    Returns:
        The quantiser, whose ``table`` has the times.

    Raises:
        QuantizerError: A number is out of range, or no times meet the demand; the message has the delta that is
            possible.
    """
    _check_demand(copies, delta, longest, levels, overhead, fewest, price)
    rules = transitions(law, copies, longest)
    candidates = {}  # equal transitions are searched once
    for where, transition in rules.items():
        if id(transition) not in candidates:
            candidates[id(transition)] = _candidates(transition, delta, longest, levels, fewest, where)
    sets = _contenders({where: candidates[id(transition)] for where, transition in rules.items()}, overhead, price)
    chosen = {where: options[0] for where, options in sets.items()}
    best = _rate_of(chosen, overhead, price)
    alike = [
        [one for one in rules if rules[one] is rule] for rule in {id(rule): rule for rule in rules.values()}.values()
    ]
    moves = [dict.fromkeys(group, option) for group in alike for option in sets[group[0]]]
    moves += [{where: option} for where, options in sets.items() for option in options]
    before = 0.0
    while best > before:
        before = best
        for move in moves:
            trial = _rate_of(chosen | move, overhead, price)
            if trial > best + 1e-12:
                chosen, best = chosen | move, trial
    return Quantizer(law, _table_of(chosen), copies, _square(lambda b, a: chosen[b, a], None))


def _check_demand(copies, delta, longest, levels, overhead, fewest, price):
    check_copies(copies)
    if not 0 < delta < 1:
        raise QuantizerError(f"delta: {delta}; an error probability between 0 and 1, both excluded")
    for name, value in (("longest", longest), ("levels", levels), ("fewest", fewest)):
        if value != int(value) or value < 1:
            raise QuantizerError(f"{name}: {value}; give a whole number, at least 1")
    if not fewest <= levels <= longest:
        raise QuantizerError(f"{levels} levels, at least {fewest}, of {longest} times: fewest <= levels <= longest")
    if not 0 <= overhead < math.inf:
        raise QuantizerError(f"overhead: {overhead}; time units, at least 0")
    _check_price(price)
    if sum(math.comb(longest, n) for n in range(1, levels + 1)) > SETS_LIMIT:
        raise QuantizerError(f"{levels} of {longest} times can be chosen in over {SETS_LIMIT} ways; lower one of them")


def _check_price(price):
    if not 0 <= price < math.inf:
        raise QuantizerError(f"price: {price}; bits of letters for each bit of doubt, at least 0")


def _candidates(transition, delta, longest, levels, fewest, where):
    """Return all decisions of a transition that keep delta. Raises QuantizerError if there is none."""
    times = transition.times(longest)
    out, grow = [], [()]
    while grow:
        start = grow.pop()
        for t in times:
            if t > (start[-1] if start else 0):
                decision = transition.decide((*start, t))
                if decision.error <= delta:
                    out.append(decision)
                    if len(decision.times) < levels:
                        grow.append(decision.times)
    out = [decision for decision in out if len(decision.times) >= fewest and _parity(decision) < math.inf]
    if not out:
        raise QuantizerError(_refusal(transition, times, delta, longest, fewest, where))
    return out


def _refusal(transition, times, delta, longest, fewest, where):
    name = f"{BASES[where[0]]}->{BASES[where[1]]}"
    if len(times) < fewest:
        return f"{name}: the law's table has {len(times)} times up to {longest}, not {fewest}; measure more of them"
    best = min((transition.decide(s) for s in itertools.combinations(times, fewest)), key=lambda d: d.error)
    if best.error <= delta:
        return f"{name}: with delta {delta} {fewest} times carry no index; ask for a smaller delta or fewer levels"
    level = int(np.argmax(best.errors))
    what = "a time" if fewest == 1 else f"{fewest} times"
    return (
        f"{name}: delta {delta} cannot be had with {what} up to {longest} and {transition.copies} copies: of the best, "
        f"{{{','.join(map(str, best.times))}}}, level {level} is wrong with {best.error:.4g}; allow delta "
        f"{best.error * 1.00001:.6g}, longer times, more copies or fewer levels"
    )


def _contenders(sets, overhead, price):
    """Return the best decisions of each transition, best first, at the R that ``design`` describes."""
    shortest = TimeTable(_square(lambda b, a: (min(d.times[0] for d in sets[b, a]),), ()))
    letters = capacity.letters_capacity(shortest, overhead=overhead)
    most = max(len(d.times) for options in sets.values() for d in options)

    def cost(decision):
        extra = _parity(decision) + price * letters_in_doubt(np.array(decision.lost))
        padding = [math.inf] * (most - len(decision.times))
        return [*(np.array(decision.times) + overhead + extra / letters), *padding]

    costs = {where: np.array([cost(d) for d in options]) for where, options in sets.items()}
    low, high = 0.0, math.log2(3 * most) + 1
    for _ in range(BISECTIONS):
        middle, best = (low + high) / 2, np.zeros((4, 4))
        for where, rows in costs.items():
            best[where] = (2.0 ** (-middle * rows)).sum(axis=1).max()
        low, high = (middle, high) if abs(np.linalg.eigvals(best)).max() > 1 else (low, middle)
    out = {}
    for where, rows in costs.items():
        order = np.argsort(-(2.0 ** (-low * rows)).sum(axis=1), kind="stable")
        first = np.unique([sets[where][n].times[0] for n in order], return_index=True)[1]
        chosen = [*order[:CONTENDERS], *order[first[first >= CONTENDERS]]]
        out[where] = [sets[where][n] for n in chosen]
    return out


def _table_of(chosen):
    return TimeTable(_square(lambda b, a: chosen[b, a].times, ()))


def _rate_of(chosen, overhead, price):
    rules = _square(lambda b, a: chosen[b, a], None)
    return achieved_rate(_table_of(chosen), rules, overhead=overhead, price=price)
