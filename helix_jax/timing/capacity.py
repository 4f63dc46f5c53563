"""How much the timing channel carries if levels are read without error, the chain that reaches it, and the theorem.

Give a transition b -> a the weight 2^(g_ba(R)) at R bits per time unit, with g_ba(R) = log2 sum_i 2^(-R t_i). The
capacity is the R at which the 4 x 4 matrix of weights has Perron root 1 (Shannon 1948, theorem 1; the graph is that of
ISIT 2020, "Framework"). No vertex of G' is needed, so times may be real: every ``overhead`` here is a fixed time that
each round takes besides its own. The log of the Perron root is convex and falling in R (Kingman 1961), hence Newton's
method from R = 0 climbs to the root without a bracket.

All of it is for people: it checks its arguments and works in float64, to 1e-9. Rates are in bits per time unit.
Levels read with errors, and what is jitted and differentiable, are in ``error_capacity``.
"""

import math
from dataclasses import dataclass

import numpy as np

from helix_jax.errors import HelixError
from helix_jax.timing.graph import TimeTable, timing_graph

NEWTON_STEPS = 64  # at most; six to ten are usual


class CapacityError(HelixError):
    """A parameter for which no capacity or rate exists; the message names it, its value and the range."""


# ---- capacity and chain ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Chain:
    """The max-entropic Markov chain on G: long random paths of one duration look like it.

    root: lambda, growth of the number of paths per time unit. capacity: log2 of it, bits per time unit.
    alpha: rounds per time unit. mean_time: E[t] = 1 / alpha, time units per round (overhead included).
    bits_per_round: entropy of a round given its base, capacity * mean_time.
    right: float64[4], right Perron vector of the weights, 1 for A. stationary: float64[4], share of rounds that
        start at each base. probability: float64[4, 4, levels], of (next base a, level i) given base b:
        lambda^-t right[a] / right[b]; 0 where there is no such level. level_share: float64[levels], share of rounds.
    variance: of the number of rounds, per time unit (see ``rounds_in``).
    """

    root: float
    capacity: float
    alpha: float
    mean_time: float
    bits_per_round: float
    right: np.ndarray
    stationary: np.ndarray
    probability: np.ndarray
    level_share: np.ndarray
    variance: float


def capacity(table, *, overhead=0.0):
    """cap(S(G)), bits per time unit, to 1e-9 (ISIT 2020, "Framework").

    table: TimeTable. overhead: time units added to every round, >= 0.
    Raises GraphError for a reducible table, CapacityError for a bad overhead.
    """
    return _solve(checked_times(table, overhead))[0]


def graph_capacity(graph):
    """log2 of the Perron root of a graph's adjacency matrix: bits per edge. For G' it is ``capacity``.

    Raises GraphError for a reducible graph.
    """
    graph.require_irreducible()
    return math.log2(max(np.linalg.eigvals(graph.adjacency.astype(np.float64)).real))


def chain(table, *, overhead=0.0):
    """The max-entropic ``Chain`` of a TimeTable (Shannon 1948; Parry 1964 for G'). Raises as ``capacity`` does."""
    times = checked_times(table, overhead)
    bits, left, right = _solve(times)
    right = right / right[0]
    weight = _weights(bits, times)
    probability = weight * right[None, :, None] / right[:, None, None]
    probability /= probability.sum((1, 2), keepdims=True)  # sums to 1 already, up to rounding
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


def rounds_in(table, duration, *, overhead=0.0):
    """Mean and variance of the number of rounds in a long random path of ``duration`` time units.

    Up to a constant they are alpha * duration and variance * duration: first and second derivative of log lambda when
    every round counts e^theta times (central limit theorem of Markov renewal processes).
    """
    if not duration >= 0:
        raise CapacityError(f"duration {duration}: give 0 or more time units")
    c = chain(table, overhead=overhead)
    return c.alpha * duration, c.variance * duration


def path_counts(table, duration):
    """W_t(b), the number of paths of G from base b that take exactly t time units: W[t][b], t = 0..duration.

    Returns a list of 4-tuples of exact Python ints. Raises CapacityError for a negative or broken duration.
    """
    if not isinstance(duration, int | np.integer) or duration < 0:
        raise CapacityError(f"duration {duration}: give a whole number of time units, 0 or more")
    edges = [[(a, t) for a in range(4) for t in table.times[b][a]] for b in range(4)]
    counts: list[tuple[int, ...]] = [(1, 1, 1, 1)]
    for t in range(1, duration + 1):
        counts.append(tuple(sum(counts[t - u][a] for a, u in edges[b] if u <= t) for b in range(4)))
    return counts


def checked_times(table, overhead):
    """Times with the overhead: float64[4, 4, levels], 0 where there is no such level. Raises as ``capacity`` does."""
    if not (math.isfinite(overhead) and overhead >= 0):
        raise CapacityError(f"overhead {overhead}: give 0 or more time units per round")
    timing_graph(table).require_irreducible()
    times = table.array().astype(np.float64)
    return np.where(times > 0, times + overhead, 0.0)


def _weights(bits, times):
    """2^(-bits * time) of each level, 0 where there is none."""
    return np.where(times > 0, 2.0 ** (-bits * times), 0.0)


def _solve(times):
    """Capacity, and left and right Perron vectors of the weights at it (float64[4] each)."""
    bits = 0.0
    for _ in range(NEWTON_STEPS):
        weight = _weights(bits, times)
        value, right = _perron_right(weight.sum(2))
        _, left = _perron_right(weight.sum(2).T)
        step = math.log2(value) * value * (left @ right) / (left @ (weight * times).sum(2) @ right)
        bits += step
        if abs(step) <= 1e-13 * bits:
            break
    one_cycle = (times > 0).sum() == 4  # nothing to choose: 0, and not 1e-16
    return 0.0 if one_cycle else float(bits), left, right


def _perron_right(matrix):
    """Perron root and right vector of an irreducible matrix."""
    values, vectors = np.linalg.eig(matrix)
    best = int(values.real.argmax())
    return float(values[best].real), np.abs(vectors[:, best].real)


def _time_variance(probability, times, stationary):
    """Limit of the variance of the time of n rounds, divided by n (fundamental matrix of the chain)."""
    mean = (stationary[:, None, None] * probability * times).sum()
    apart = np.where(times > 0, times - mean, 0.0)
    ones = np.ones((4, 4)) * stationary
    fundamental = np.linalg.inv(np.eye(4) - probability.sum(2) + ones) - ones
    first = probability * apart
    one_round = (stationary[:, None, None] * first * apart).sum()
    later_rounds = (stationary @ first.sum(2)) @ fundamental @ first.sum((1, 2))
    return float(one_round + 2 * later_rounds)


# ---- the theorem and the baselines -------------------------------------------------------------------------------


def index_capacity(delta, levels):
    """C_{delta, l}: capacity of the symmetric channel with l inputs and error delta, in l-ary symbols (ISIT 2020).

    1 for one level, which says nothing. Raises CapacityError unless 0 <= delta < 1 - 1/l, where it reaches 0.
    """
    if levels < 1:
        raise CapacityError(f"levels {levels}: give 1 or more")
    limit = 1.0 if levels == 1 else 1 - 1 / levels
    if not 0 <= delta < limit:
        raise CapacityError(f"delta {delta}: the error of {levels} levels must be at least 0 and under {limit:.6g}")
    if levels == 1 or delta == 0:
        return 1.0
    return 1 + (delta * math.log(delta / (levels - 1)) + (1 - delta) * math.log(1 - delta)) / math.log(levels)


def letters_capacity(table, *, overhead=0.0):
    """The baseline "transitions only": capacity of the letters, each written in its shortest time.

    log2(3) / (t_1 + overhead) if all 12 transitions have the shortest time t_1. Raises as ``capacity`` does.
    """
    shortest = TimeTable(tuple(tuple(times[:1] for times in row) for row in table.times))
    return capacity(shortest, overhead=overhead)


def theorem_rate(table, delta, *, overhead=0.0, through_chain=False):
    """The rate of the theorem of ISIT 2020, in bits per time unit, if every level is misread with at most ``delta``.

        cap / (1 + alpha (1/C - 1) P),   C = index_capacity(delta, l), l = table.levels

    P is the time of a parity symbol of log2(l) bits. The parity is written in the letters of further rounds, which are
    read without error: P = log2(l) / letters_capacity, that is log_3(l) * t_1 for 12 transitions of shortest time t_1
    (we multiply by t_1; the talk has 1). through_chain: the parity goes through the constrained code too, P =
    log2(l) / cap: the other reading of the talk's logarithm, base lambda.
    Raises as ``capacity`` and ``index_capacity`` do, and CapacityError if the letters cannot carry parity.
    """
    c = chain(table, overhead=overhead)
    redundancy = 1 / index_capacity(delta, table.levels) - 1
    if redundancy == 0:
        return c.capacity
    carrier = c.capacity if through_chain else letters_capacity(table, overhead=overhead)
    if carrier == 0:
        raise CapacityError(f"time table {table}: no letter can be chosen, so parity has no place; add transitions")
    return c.capacity / (1 + c.alpha * redundancy * math.log2(table.levels) / carrier)


def synthesis_time(table, bits, delta, *, overhead=0.0, through_chain=False):
    """Time units in which ``bits`` uniform bits, many of them, can be written (the theorem of ISIT 2020).

    The rest as for ``theorem_rate``; a table of capacity 0 takes for ever (inf).
    """
    if not bits >= 0:
        raise CapacityError(f"{bits} bits: give 0 or more")
    bits_per_time = theorem_rate(table, delta, overhead=overhead, through_chain=through_chain)
    return bits / bits_per_time if bits_per_time else math.inf


def precision_resolution_rate(times, delta, *, overhead=0.0):
    """The baseline without memory (Schwartz and Bruck 2010): one set of times common to all 12 transitions.

    times: ascending tuple of integer times. Bits per time unit, the parity counted as in ``theorem_rate``.
    """
    return theorem_rate(TimeTable.uniform(times), delta, overhead=overhead)
