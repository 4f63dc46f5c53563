"""The parity checks of schemes of version 2: each looks at the level bits of a few strands, and not of the whole group.

The levels are decoded before the outer code repairs lost strands, so that the bits of a lost strand are unknown then,
as many as it has. In a code over a whole group, every check sees some of them, and the parity must pay for them all.
Here the ``parity`` checks that are written in one strand see the bits of ``span`` strands: its own, and others that
stand before it (cyclically, by the offsets of RULERS). So a lost strand takes along its own checks and those of
``span`` - 1 others, and the other checks are worth what they always were. A wide span suits many short strands, and a
narrow one few long strands, where one that is lost takes along many checks.

The offsets are a Golomb ruler. So two strands have at most one set of checks in common where a group has more than
twice as many strands as the ruler is long, and nobody's neighbour loses more than one in ``span`` of its checks.
"""

import functools
import math
import statistics

import numpy as np
from jaxtyping import Bool, Integer

from helix_jax import keyed
from helix_jax.timing import ecc

RULERS = {
    2: (0, 1),
    3: (0, 1, 3),
    4: (0, 1, 4, 6),
    5: (0, 1, 4, 9, 11),
    6: (0, 1, 4, 10, 12, 17),
    7: (0, 1, 4, 10, 18, 23, 25),
    8: (0, 1, 4, 9, 15, 22, 32, 34),
}  # by their number of marks
# The shares of the columns by weight. Most level bits are all but certain, and the code works on the few others: the
# m / n that counts is that over the doubtful bits.
LIGHT, HEAVY, HEAVY_SHARE = 4, 14, 0.35
THRESHOLD = 1.1  # parity over entropy that belief propagation needs at least, as measured


@functools.lru_cache(maxsize=8)
def design(strands: int, bits: int, parity: int, span: int) -> ecc.Code:
    """Design the code of a group, the same on every machine.

    Args:
        strands: Number of strands.
        bits: Level bits of a strand.
        parity: Parity bits of a strand.
        span: Strands that a check sees, one of RULERS.

    Returns:
        The code of ``strands * bits`` bits and ``strands * parity`` parity bits, strand by strand.

    Raises:
        ecc.EccError: A number is not positive.
    """
    if min(strands, bits, parity) < 1:
        raise ecc.EccError(f"a code of {parity} parity bits for {bits} bits, {strands} strands: give positive numbers")
    layers = min(span, strands)
    heavy = round(HEAVY_SHARE * bits)
    most = max(1, layers * parity // 2)
    weights = np.repeat(np.minimum([LIGHT, HEAVY], most), [bits - heavy, heavy])
    edges, per_strand = strands * int(weights.sum()), int(weights.sum())
    bit = np.repeat(np.arange(bits), weights)  # of each edge of a strand; the order of the bits is drawn below
    number = np.arange(per_strand) - np.repeat(np.cumsum(weights) - weights, weights)
    key = b"\0" * 8
    order = np.argsort(keyed.stream(key, np.arange(strands * bits)).reshape(strands, bits), axis=1, kind="stable")
    # Each column begins with a layer of its own, and takes the layers in turn; within a layer, its checks follow one
    # another, so that they differ, and all checks of a layer get as many bits but for one.
    begin = keyed.stream(key, (1 << 40) + np.arange(strands * bits)).reshape(strands, bits) % np.uint64(layers)
    layer = (begin.astype(np.int64)[:, bit] + number) % layers
    rank = keyed.stream(key, (2 << 40) + np.arange(strands * bits * layers)).reshape(strands, bits, layers)
    strand = np.broadcast_to(np.arange(strands)[:, None], layer.shape)
    turn = np.lexsort(
        [x.reshape(-1) for x in (np.broadcast_to(bit, layer.shape), rank[strand, bit, layer], layer, strand)]
    )
    slot = strand * layers + layer
    load = np.bincount(slot.reshape(-1), minlength=strands * layers)
    within = np.empty(edges, np.int64)
    within[turn] = np.arange(edges) - np.repeat(np.cumsum(load) - load, load)
    owner = (strand + np.array(_offsets(strands, span))[layer]) % strands
    check = (owner * parity).reshape(-1) + within % parity
    return _code(strands, bits, parity, order, weights, check)


def visible(read: Bool[np.ndarray, " strands"], span: int) -> Bool[np.ndarray, " strands"]:
    """Return a mask of the strands whose checks can be used: they, and all whose bits the checks see, were read."""
    return np.all([np.roll(read, offset) for offset in _offsets(len(read), span)], axis=0)


def seen(checks: Bool[np.ndarray, " strands"], span: int) -> Bool[np.ndarray, " strands"]:
    """Return a mask of the strands whose bits the checks of any of these strands see."""
    return np.any([np.roll(checks, -offset) for offset in _offsets(len(checks), span)], axis=0)


def contradictions(broken: Integer[np.ndarray, " strands"], span: int) -> Integer[np.ndarray, " strands"]:
    """Return how many broken checks see bits of each strand, given how many of the checks of each strand are broken."""
    return np.sum([np.roll(broken, -offset) for offset in _offsets(len(broken), span)], axis=0)


def planned_parity(
    strands: int,
    bits: int,
    entropy: float | int,
    variance: float | int,
    lost: int,
    span: int,
    failure: float | int = 1e-3,
) -> int:
    """Return the parity bits of a strand with which about 1 group in 1 / failure, or fewer, fails.

    The strands that are read need as many checks as ``ecc.planned_parity`` counts, but at the threshold of a code on
    the doubtful bits alone. Each lost strand takes away ``span`` times the checks of a strand.

    Args:
        strands: Number of strands of a group.
        bits: Level bits of a strand.
        entropy: As for ``ecc.planned_parity``.
        variance: As for ``ecc.planned_parity``.
        lost: The number of strands that may be lost.
        span: Strands that a check sees.
        failure: The share of the groups that may fail.

    Returns:
        The number of parity bits of each strand.

    Raises:
        ecc.EccError: Nothing is left of the group.
    """
    left = strands - span * lost
    if left < 1:
        raise ecc.EccError(f"{lost} lost strands of {strands}: no checks are left; use larger groups")
    quantile = statistics.NormalDist().inv_cdf(1 - failure)
    n = (strands - lost) * bits
    needed = n * entropy + quantile * math.sqrt(n * variance)
    root = ecc.OVERHEAD / 2 + math.sqrt(ecc.OVERHEAD**2 / 4 + THRESHOLD * needed)
    return max(1, math.ceil(root**2 / left))


def _offsets(strands, span):
    """Return the offsets in a group of so many strands; they give different strands however few there are."""
    return RULERS[span] if strands > RULERS[span][-1] else tuple(range(min(span, strands)))


def _code(strands, bits, parity, order, weights, check):
    """Return the Code of which ``check`` says the check of each edge, strand by strand, bit by bit."""
    n, m, edges = strands * bits, strands * parity, len(check)
    by_check = np.argsort(check, kind="stable")
    load = np.bincount(check, minlength=m)
    position = np.empty(edges, np.int64)
    position[by_check] = np.arange(edges) - np.repeat(np.cumsum(load) - load, load)
    socket = (check * load.max() + position).reshape(strands, -1)
    # a Code holds the bits by the weight of their columns: all light ones, then all heavy ones
    ends = np.cumsum(weights)
    place, sockets, start = np.empty((strands, bits), np.int64), [], 0
    for weight in np.unique(weights):
        own = np.flatnonzero(weights == weight)
        place[:, own] = start + np.arange(strands * len(own)).reshape(strands, -1)
        columns = (ends[own] - weight)[:, None] + np.arange(weight)
        sockets.append(socket[:, columns].reshape(-1, weight).astype(np.int32))
        start += strands * len(own)
    column = np.full(m * load.max(), n, np.int32)
    column[socket.reshape(-1)] = np.repeat(place.reshape(-1), np.tile(weights, strands))
    numbers = np.empty(n, np.int32)
    numbers[place.reshape(-1)] = (np.arange(strands)[:, None] * bits + order).reshape(-1)
    return ecc.Code(numbers, column.reshape(m, -1), tuple(sockets))
