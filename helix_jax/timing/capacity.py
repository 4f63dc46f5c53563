"""The capacity of the timing channel if levels are read without error, the chain that reaches it, and the theorem.

A transition b -> a gets the weight 2^(g_ba(R)) at R bits per time unit, with g_ba(R) = log2 sum_i 2^(-R t_i). The
capacity is the R at which the 4 x 4 matrix of the weights has Perron root 1 (Shannon 1948, theorem 1; the graph is that
of ISIT 2020, "Framework"). No vertex of G' is needed, so times may be real: every ``overhead`` here is a fixed time
that each round takes besides its own. The logarithm of the Perron root is convex and falling in R (Kingman 1961), hence
Newton's method climbs from R = 0 to the root without a bracket.

All functions here are meant to be called by people: they check their arguments and work in float64, to 1e-9. Rates are
in bits per time unit. Levels that are read with errors, and what is jitted and differentiated, are in
``error_capacity``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from helix_jax.errors import HelixError
from helix_jax.timing.graph import Graph, TimeTable, timing_graph

NEWTON_STEPS = 64  # the largest number of steps; six to ten are usual


class CapacityError(HelixError):
    """There is no capacity or rate for a parameter; the message names it, its value and the range."""


# ---- capacity and chain ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Chain:
    """The max-entropic Markov chain on G, which long random paths of one duration look like.

    Attributes:
        root: lambda, the growth of the number of paths per time unit.
        capacity: The base-2 logarithm of ``root``, in bits per time unit.
        alpha: The number of rounds per time unit.
        mean_time: E[t] = 1 / alpha, the time units per round, overhead included.
        bits_per_round: The entropy of a round given its base, which is capacity * mean_time.
        right: The right Perron vector of the weights, scaled so that it is 1 for A.
        stationary: The share of the rounds that start at each base.
        probability: The probability of (next base a, level i) given base b, at [b, a, i]:
            lambda^-t right[a] / right[b], and 0 where there is no such level.
        level_share: The share of the rounds that have each level.
        variance: The variance of the number of rounds, per time unit (see ``rounds_in``).
    """

    root: float
    capacity: float
    alpha: float
    mean_time: float
    bits_per_round: float
    right: Float64[np.ndarray, "4"]
    stationary: Float64[np.ndarray, "4"]
    probability: Float64[np.ndarray, "4 4 levels"]
    level_share: Float64[np.ndarray, " levels"]
    variance: float


def capacity(table: TimeTable, *, overhead: float | int = 0.0) -> float:
    """Return cap(S(G)) in bits per time unit, to 1e-9 (ISIT 2020, "Framework").

    The ``overhead`` is the number of time units, at least 0, that are added to every round.
    Raises GraphError for a reducible table, and CapacityError for a bad overhead.
    """
    return _solve(checked_times(table, overhead))[0]


def graph_capacity(graph: Graph) -> float:
    """Return the base-2 logarithm of the Perron root of a graph's adjacency matrix, in bits per edge.

    For G' this is the ``capacity`` of the table.
    Raises GraphError for a reducible graph.
    """
    graph.require_irreducible()
    return math.log2(max(np.linalg.eigvals(graph.adjacency.astype(np.float64)).real))


def chain(table: TimeTable, *, overhead: float | int = 0.0) -> Chain:
    """Return the max-entropic chain of a time table (Shannon 1948; Parry 1964 for G').

    The parameters and the errors are those of ``capacity``.
    """
    times = checked_times(table, overhead)
    bits, left, right = _solve(times)
    right = right / right[0]
    weight = _weights(bits, times)
    probability = weight * right[None, :, None] / right[:, None, None]
    probability /= probability.sum((1, 2), keepdims=True)  # the sum is 1 already, up to rounding
    stationary = left * right / (left @ right)
    share = stationary[:, None, None] * probability
    mean_time = float((share * times).sum())
    return Chain(
        root=2.0**bits,
        capacity=bits,
        alpha=1 / mean_time,
        mean_time=mean_time,
        bits_per_round=bits * mean_time,
        right=right,
        stationary=stationary,
        probability=probability,
        level_share=share.sum((0, 1)),
        variance=_time_variance(probability, times, stationary) / mean_time**3,
    )


def rounds_in(table: TimeTable, duration: float | int, *, overhead: float | int = 0.0) -> tuple[float, float]:
    """Return the mean and the variance of the number of rounds in a long random path.

    Up to a constant they are alpha * duration and variance * duration: the first and the second derivative of
    log lambda when every round counts e^theta times (central limit theorem of Markov renewal processes).

    Args:
        table: The time table.
        duration: The time units of the path, at least 0.
        overhead: As for ``capacity``.

    Returns:
        The mean, and the variance.

    Raises:
        GraphError: The table is reducible.
        CapacityError: The duration or the overhead is out of range.
    """
    if not duration >= 0:
        raise CapacityError(f"duration {duration}: give 0 or more time units")
    c = chain(table, overhead=overhead)
    return c.alpha * duration, c.variance * duration


def path_counts(table: TimeTable, duration: float | int | np.integer) -> list[tuple[int, ...]]:
    """Return W_t(b), the number of paths of G from base b that take exactly t time units, for t = 0..duration.

    The count is at [t][b] of a list of 4-tuples; all are exact integers.
    Raises CapacityError for a duration that is negative or not a whole number.
    """
    if not isinstance(duration, int | np.integer) or duration < 0:
        raise CapacityError(f"duration {duration}: give a whole number of time units, 0 or more")
    edges = [[(a, t) for a in range(4) for t in table.times[b][a]] for b in range(4)]
    counts: list[tuple[int, ...]] = [(1, 1, 1, 1)]
    for t in range(1, duration + 1):
        counts.append(tuple(sum(counts[t - u][a] for a, u in edges[b] if u <= t) for b in range(4)))
    return counts


def checked_times(table: TimeTable, overhead: float | int) -> Float64[np.ndarray, "4 4 levels"]:
    """Return the times with the overhead added, and 0 where there is no such level. Raises as ``capacity`` does."""
    if not (math.isfinite(overhead) and overhead >= 0):
        raise CapacityError(f"overhead {overhead}: give 0 or more time units per round")
    timing_graph(table).require_irreducible()
    times = table.array().astype(np.float64)
    return np.where(times > 0, times + overhead, 0.0)


def _weights(bits, times):
    """Return 2^(-bits * time) for each level, and 0 where there is none."""
    return np.where(times > 0, 2.0 ** (-bits * times), 0.0)


def _solve(times):
    """Return the capacity, and the left and right Perron vectors of the weights at it (float64[4] each)."""
    bits = 0.0
    for _ in range(NEWTON_STEPS):
        weight = _weights(bits, times)
        value, right = _perron_right(weight.sum(2))
        _, left = _perron_right(weight.sum(2).T)
        step = math.log2(value) * value * (left @ right) / (left @ (weight * times).sum(2) @ right)
        bits += step
        if abs(step) <= 1e-13 * bits:
            break
    one_cycle = (times > 0).sum() == 4  # there is no choice: the capacity is 0, and not 1e-16
    return 0.0 if one_cycle else float(bits), left, right


def _perron_right(matrix):
    """Return the Perron root and the right Perron vector of an irreducible matrix."""
    values, vectors = np.linalg.eig(matrix)
    best = int(values.real.argmax())
    return float(values[best].real), np.abs(vectors[:, best].real)


def _time_variance(probability, times, stationary):
    """Return the limit of the variance of the time of n rounds, divided by n (by the chain's fundamental matrix)."""
    mean = (stationary[:, None, None] * probability * times).sum()
    apart = np.where(times > 0, times - mean, 0.0)
    ones = np.ones((4, 4)) * stationary
    fundamental = np.linalg.inv(np.eye(4) - probability.sum(2) + ones) - ones
    first = probability * apart
    one_round = (stationary[:, None, None] * first * apart).sum()
    later_rounds = (stationary @ first.sum(2)) @ fundamental @ first.sum((1, 2))
    return float(one_round + 2 * later_rounds)


# ---- the theorem and the baselines -------------------------------------------------------------------------------


def index_capacity(delta: float | int, levels: int) -> float:
    """Return C_{delta, l}, the capacity of the symmetric channel with l inputs and error delta (ISIT 2020).

    The unit is the l-ary symbol. The result is 1 for a single level, which carries nothing.
    Raises CapacityError unless 0 <= delta < 1 - 1/l, where the capacity reaches 0.
    """
    if levels < 1:
        raise CapacityError(f"levels {levels}: give 1 or more")
    limit = 1.0 if levels == 1 else 1 - 1 / levels
    if not 0 <= delta < limit:
        raise CapacityError(f"delta {delta}: the error of {levels} levels must be at least 0 and under {limit:.6g}")
    if levels == 1 or delta == 0:
        return 1.0
    return 1 + (delta * math.log(delta / (levels - 1)) + (1 - delta) * math.log(1 - delta)) / math.log(levels)


def letters_capacity(table: TimeTable, *, overhead: float | int = 0.0) -> float:
    """Return the baseline "transitions only": the capacity of the letters, each written in its shortest time.

    It is log2(3) / (t_1 + overhead) if all 12 transitions have the shortest time t_1.
    The parameters and the errors are those of ``capacity``.
    """
    shortest = TimeTable(tuple(tuple(times[:1] for times in row) for row in table.times))
    return capacity(shortest, overhead=overhead)


def theorem_rate(
    table: TimeTable, delta: float | int, *, overhead: float | int = 0.0, through_chain: bool = False
) -> float:
    """Return the rate of the theorem of ISIT 2020, in bits per time unit.

        cap / (1 + alpha (1/C - 1) P),   C = index_capacity(delta, l), l = table.levels

    P is the time of a parity symbol of log2(l) bits. The parity is written in the letters of further rounds, which are
    read without error: P = log2(l) / letters_capacity, which is log_3(l) * t_1 for 12 transitions of shortest time t_1.
    (We multiply by t_1; the talk has 1.)

    Args:
        table: The time table.
        delta: The highest probability that a level is misread.
        overhead: As for ``capacity``.
        through_chain: The parity goes through the constrained code too: P = log2(l) / cap, which is the other reading
            of the talk's logarithm, with base lambda.

    Returns:
        The rate in bits per time unit.

    Raises:
        GraphError: The table is reducible.
        CapacityError: ``delta`` or ``overhead`` is out of range, or the letters cannot carry parity.
    """
    c = chain(table, overhead=overhead)
    redundancy = 1 / index_capacity(delta, table.levels) - 1
    if redundancy == 0:
        return c.capacity
    carrier = c.capacity if through_chain else letters_capacity(table, overhead=overhead)
    if carrier == 0:
        raise CapacityError(f"time table {table}: no letter can be chosen, so parity has no place; add transitions")
    return c.capacity / (1 + c.alpha * redundancy * math.log2(table.levels) / carrier)


def synthesis_time(
    table: TimeTable,
    bits: float | int,
    delta: float | int,
    *,
    overhead: float | int = 0.0,
    through_chain: bool = False,
) -> float:
    """Return the time in which many uniform bits can be written (the theorem of ISIT 2020).

    Args:
        table: The time table.
        bits: The number of bits, at least 0.
        delta: As for ``theorem_rate``.
        overhead: As for ``theorem_rate``.
        through_chain: As for ``theorem_rate``.

    Returns:
        The time in time units; infinity for a table of capacity 0.

    Raises:
        GraphError: The table is reducible.
        CapacityError: As for ``theorem_rate``, or ``bits`` is negative.
    """
    if not bits >= 0:
        raise CapacityError(f"{bits} bits: give 0 or more")
    bits_per_time = theorem_rate(table, delta, overhead=overhead, through_chain=through_chain)
    return bits / bits_per_time if bits_per_time else math.inf


def precision_resolution_rate(times: Sequence[int], delta: float | int, *, overhead: float | int = 0.0) -> float:
    """Return the rate of the baseline without memory: one set of times for all transitions (Schwartz and Bruck 2010).

    Args:
        times: The integer times of all 12 transitions, ascending.
        delta: As for ``theorem_rate``.
        overhead: As for ``theorem_rate``.

    Returns:
        The rate in bits per time unit, with the parity counted as in ``theorem_rate``.

    Raises:
        GraphError: The times are wrong.
        CapacityError: As for ``theorem_rate``.
    """
    return theorem_rate(TimeTable.uniform(times), delta, overhead=overhead)
