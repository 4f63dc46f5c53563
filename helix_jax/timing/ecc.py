"""A low-density parity-check code on the duration indices: from level bits to parity bits, and back.

The parity is carried in the letters of extra rounds, which have no errors (ISIT 2020, the theorem), and so it is a
*syndrome*: for n level bits x there are m parity bits A x mod 2 with a sparse matrix A, which is a systematic code of
rate n / (n + m). The decoder is sum-product belief propagation (Gallager 1962; MacKay 1999; as a syndrome decoder:
Liveris, Xiong and Georghiades, IEEE Commun. Lett. 6(10), 2002) on log-likelihood ratios that include the channel and
the prior. As the parity is free of errors, m / n must exceed the entropy H of a bit given what was read; this is H2(p)
on a binary symmetric channel.

The columns of A have few ones, in proportions that were chosen by density evolution and simulation. The table has the
least m / n over H2(p) for which density evolution converges (at infinite length), and the m / n at which about 1 block
of 50,000 bits in 100, and in 1,000, fails:

    m / n       columns of weight               p        H2(p)     density evolution   1e-2     1e-3
    from .30    3: 85 %, 14: 15 %               .1       .4690     1.13                .551     .555
    .10-.30     3: 75 %, 14: 25 %               .02      .1414     1.10                .173     .176
    .035-.10    3: 40 %, 4: 30 %, 14: 30 %      .005     .0454     1.15                .063     .067
    to .035     4: 65 %, 14: 35 %               .0013    .0143     1.25                .0247    .0269
"""

import functools
import itertools
import math
import statistics
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Float64, Integer, Real, UInt8

from helix_jax import keyed
from helix_jax.errors import HelixError

# the shares of the columns by weight, for m / n up to the first number
PARTS = (
    (0.035, ((4, 0.65), (14, 0.35))),
    (0.10, ((3, 0.40), (4, 0.30), (14, 0.30))),
    (0.30, ((3, 0.75), (14, 0.25))),
    (math.inf, ((3, 0.85), (14, 0.15))),
)
THRESHOLDS = (1.25, 1.15, 1.10, 1.13)  # for PARTS, the m / n over the entropy at which density evolution converges
OVERHEAD = 7  # the parity bits beyond that, in units of sqrt(m), as measured
LIGHT = 4  # two columns of at most this weight share at most one check, as far as possible
ROUNDS = 16  # attempts to remove the faults of A
LAST_ROUNDS = 6  # those of the attempts that remove only the grave faults
ITERATIONS = 100
DAMPING = 0.7  # weight of the new message: halves the failures at low m / n, where A has many short cycles
CERTAIN = 1e4  # log-likelihood ratio of a known bit; no sum of messages reaches it
UNKNOWN = 1e-30  # replaces 0 in the logarithm: its log tanh drives every other message of the check to exactly 0
NARROWEST = 1e-7  # keeps messages below 17

Arrayish = Array | np.ndarray


class EccError(HelixError):
    """A code cannot be built, or arrays do not fit it; the message names the number."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Code:
    """The sparse matrix A of m checks over n bits, which it holds in an order of its own: by the weight of the column.

    A code is a pytree, so the fields may hold anything that JAX puts into one.

    Attributes:
        order: int32[n], the number of the bit at each internal position.
        column: int32[m, w], the internal positions of the bits of each check; they are n where a check has fewer than w
            bits.
        sockets: For each weight d, int32[n_d, d]: the positions of the bits of that weight in the flattened ``column``.
            The n_d add up to n.
    """

    order: Any
    column: Any
    sockets: Any


# ---- the matrix ------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8)
def design(n: int, m: int, seed: int = 0) -> Code:
    """Design a code of m parity bits for n bits, which is the same on every machine.

    The numbers of bits of two checks differ by at most one. No column equals another, and no two light columns share
    two checks, as far as n columns of m checks allow that. It takes 1 to 2 s for n = 100,000.

    Args:
        n: The number of bits.
        m: The number of parity bits.
        seed: The seed of the pseudo-random matrix, in 0..2^64 - 1.

    Returns:
        The code.

    Raises:
        EccError: n or m is not positive, or the seed is out of range.
    """
    if n < 1 or m < 1 or not 0 <= seed < 1 << 64:
        raise EccError(f"a code of {m} parity bits for {n} bits, seed {seed}: give positive numbers, a seed in 64 bits")
    key = seed.to_bytes(8, "big")
    weights = _column_weights(n, m)
    columns = np.split(np.arange(weights.sum()), np.flatnonzero(np.diff(np.repeat(weights, weights))) + 1)
    columns = [part.reshape(-1, d) for part, d in zip(columns, np.unique(weights), strict=True)]
    edges = int(weights.sum())
    check = (np.arange(edges) * m // edges)[_shuffled(key, 1, edges)]
    check = _mended(key, check, columns, m)
    by_check = np.argsort(check, kind="stable")
    load = np.bincount(check, minlength=m)
    position = np.empty(edges, np.int64)  # within the check
    position[by_check] = np.arange(edges) - np.repeat(np.cumsum(load) - load, load)
    socket = check * load.max() + position
    column = np.full(m * load.max(), n, np.int32)
    column[socket] = np.repeat(np.arange(n), weights)
    sockets = tuple(socket[part].astype(np.int32) for part in columns)
    return Code(_shuffled(key, 0, n).astype(np.int32), column.reshape(m, -1), sockets)


def _column_weights(n, m):
    """Return the ascending weights of the n columns, int64[n]; they are smaller than planned where m is small."""
    parts = next(parts for most, parts in PARTS if m <= most * n)
    weight, part = np.array(parts).T
    ends = np.floor(np.cumsum(part) * n + 0.5).astype(int)
    weights = np.repeat(weight.astype(int), np.diff(ends, prepend=0))
    return np.minimum(weights, max(1, m // 3))


def _shuffled(key, number, count):
    """Return a pseudo-random permutation of 0..count - 1, a different one for each number."""
    return np.argsort(keyed.stream(key, (number << 32) + np.arange(count)), kind="stable")


def _mended(key, check, columns, m):
    """Move the sockets that have faults, and as many others, until no fault is left or ROUNDS are over.

    At first this concerns all faults, and at the end only the grave ones. ``check``: int64[edges], the check of each
    socket; the result is another such array.
    """
    faults = _faults(key, check, columns, m)
    for number in range(ROUNDS):
        kinds = 1 if number >= ROUNDS - LAST_ROUNDS else 2
        sockets = np.concatenate(faults[:kinds])
        if not len(sockets):
            continue
        others = keyed.stream(key, (number + 1 << 32) - 1 - np.arange(len(sockets))) % np.uint64(len(check))
        moved = np.unique(np.concatenate([sockets, others.astype(np.int64)]))
        trial = check.copy()
        trial[moved] = check[moved][_shuffled(key, 2 + number, len(moved))]
        left = _faults(key, trial, columns, m)
        if sum(map(len, left[:kinds])) < len(sockets):
            check, faults = trial, left
    return check


def _faults(key, check, columns, m):
    """Return the sockets to be moved: (grave faults, other faults).

    A fault is grave if a column has a check twice, or if two columns are equal. The other faults are those of two light
    columns that share two checks, for which one socket is given.
    """
    words = keyed.stream(key, (1 << 62) + np.arange(m))
    grave, sums = [], []
    pairs, ends = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for part in columns:
        d = part.shape[1]
        of, which = np.divmod(np.sort(check[part] * d + np.arange(d), axis=1), d)
        socket = part[:, :1] + which
        grave.append(socket[:, 1:][of[:, 1:] == of[:, :-1]])
        sums.append(words[of].sum(axis=1))
        if d <= LIGHT:
            for i, j in itertools.combinations(range(d), 2):
                pairs.append(of[:, i] * m + of[:, j])
                ends.append(socket[:, j])
    grave.append(np.concatenate([part[:, 0] for part in columns])[_again(np.concatenate(sums))])
    others = np.concatenate(ends)[_again(np.concatenate(pairs))]
    return np.unique(np.concatenate(grave)), np.unique(others)


def _again(values):
    """Return the indices of all values that the array already has at a lower index."""
    order = np.argsort(values, kind="stable")
    return order[1:][values[order[1:]] == values[order[:-1]]]


def planned_parity(n: int, entropy: float | int, variance: float | int, failure: float | int = 1e-3) -> int:
    """Return the number m of parity bits for n bits with which about 1 block in 1 / failure, or fewer, fails.

    Let B = n H + z sqrt(n variance), which 1 block in 1 / failure exceeds (z is the normal quantile). Then
    m = T B + 7 sqrt(m), with T from THRESHOLDS and with a measured 7: the least m for failure 1e-3 had 3.6 to 6.1
    instead, at n = 1,000 to 100,000 and crossovers .0013 to .02.

    Args:
        n: The number of bits.
        entropy: The mean of the ``surprisal`` of a bit, in bits: the conditional entropy H.
        variance: The variance of the ``surprisal`` of a bit, in bits squared.
        failure: The share of the blocks that may fail.

    Returns:
        The number of parity bits.

    Raises:
        EccError: A number is out of range.
    """
    if n < 1 or not 0 <= entropy <= 1 or not 0 <= variance < math.inf or not 0 < failure < 0.5:
        raise EccError(
            f"parity for {n} bits of entropy {entropy}, variance {variance}, failure {failure}: n must be positive, "
            "the entropy in 0..1 bit, the variance not negative and the failure between 0 and 0.5"
        )
    quantile = statistics.NormalDist().inv_cdf(1 - failure)
    needed = n * entropy + quantile * math.sqrt(n * variance)
    for most, threshold in zip([most for most, _ in PARTS], THRESHOLDS, strict=True):
        root = OVERHEAD / 2 + math.sqrt(OVERHEAD**2 / 4 + threshold * needed)
        if root**2 <= most * n:
            break
    return math.ceil(root**2)


def surprisal(
    llr: Real[Arrayish, "*n"] | float, bits: Integer[Arrayish, "*n"] | int
) -> Float64[np.ndarray, "*n"] | float:
    """Return -log2 of the probability that a log-likelihood ratio gave to the true bit (0 or 1)."""
    signed = np.where(bits, -1.0, 1.0) * np.asarray(llr, np.float64)
    return np.logaddexp(0, -signed) / np.log(2)


# ---- both directions -------------------------------------------------------------------------------------


def encode(code: Code, bits: Integer[Arrayish, "..."]) -> UInt8[Array, " m"]:
    """Return the m parity bits of n bits; jitted, and mapped over blocks by ``vmap``.

    Raises EccError for another number of bits.
    """
    _require(code, bits, len(code.order), "bits")
    return _encode(code, bits)


@jax.jit
def _encode(code, bits):
    inside = jnp.concatenate([bits[code.order], jnp.zeros_like(bits[:1])])
    return (inside[code.column].sum(axis=1, dtype=jnp.uint32) & 1).astype(jnp.uint8)


def decode(
    code: Code,
    llr: Float[Arrayish, "..."],
    parity: Integer[Arrayish, "..."],
    mask: Bool[Arrayish, "..."] | None = None,
    *,
    iterations: int = ITERATIONS,
) -> tuple[UInt8[Array, " n"], Bool[Array, ""]]:
    """Find the most likely bits that have this parity, by belief propagation; jitted, and mapped by ``vmap``.

    Args:
        code: The code.
        llr: The n log-likelihood ratios, log of Pr[bit is 0] / Pr[bit is 1] given all evidence of the bit and its
            prior. It is 0 for a bit that is lost, and infinite for one that is certain.
        parity: The m parity bits.
        mask: The mask of the parity bits that arrived; None if all did.
        iterations: The largest number of iterations; decoding stops at the first that fulfils all known checks.

    Returns:
        The bits, and whether every known check is fulfilled and every bit decided. If so, wrong bits are very unlikely;
        but a bit of which no check arrived is only as certain as its ratio. A digest of the data has the last word.

    Raises:
        EccError: An array has another length.
    """
    total, settled = beliefs(code, llr, parity, mask, iterations=iterations)
    return (total < 0).astype(jnp.uint8), settled


def beliefs(
    code: Code,
    llr: Float[Arrayish, "..."],
    parity: Integer[Arrayish, "..."],
    mask: Bool[Arrayish, "..."] | None = None,
    *,
    iterations: int = ITERATIONS,
) -> tuple[Float32[Array, " n"], Bool[Array, ""]]:
    """Return what belief propagation holds of each bit in the end, and whether it settled; see ``decode``.

    Returns:
        The log-likelihood ratios of the bits, of which ``decode`` returns the signs; and whether every known check is
        fulfilled and every bit decided.

    Raises:
        EccError: An array has another length.
    """
    _require(code, llr, len(code.order), "log-likelihood ratios")
    _require(code, parity, len(code.column), "parity bits")
    if mask is not None:
        _require(code, mask, len(code.column), "flags of parity bits")
    return _beliefs(code, llr, parity, mask, iterations)


@jax.jit
def _beliefs(code, llr, parity, mask, iterations):
    channel = jnp.clip(llr.astype(jnp.float32)[code.order], -CERTAIN, CERTAIN)
    odd = (parity & 1).astype(bool)[:, None]
    mask = jnp.ones_like(odd) if mask is None else mask.astype(bool)[:, None]

    def look(total):
        """Return what each check sees of its bits: (totals float32[m, w], whether all bits are settled)."""
        seen = jnp.concatenate([total, jnp.full_like(total[:1], CERTAIN)])[code.column]
        fulfilled = (_parity(seen < 0) == odd) | ~mask
        return seen, fulfilled.all() & (jnp.abs(total) > 0).all()

    def step(state):
        number, message, total, seen, _ = state
        extrinsic = seen - message
        new = jnp.where(mask, _check_messages(extrinsic, odd), 0)
        message = message + DAMPING * (new - message)
        flat = message.reshape(-1)
        total = channel + jnp.concatenate([flat[sockets].sum(axis=1) for sockets in code.sockets])
        return number + 1, message, total, *look(total)

    def going(state):
        number, _, _, _, settled = state
        return (number < iterations) & ~settled

    seen, settled = look(channel)
    first = (jnp.zeros_like(settled, jnp.int32), jnp.zeros_like(seen), channel, seen, settled)
    _, _, total, _, settled = lax.while_loop(going, step, first)
    return jnp.zeros_like(total).at[code.order].set(total, unique_indices=True), settled


def _parity(flags):
    """Return whether an odd number of flags is set in each row: bool[m, w] -> bool[m, 1]."""
    return (flags.sum(axis=1, keepdims=True, dtype=jnp.int32) & 1).astype(bool)


def _check_messages(extrinsic, odd):
    """Return the log-likelihood ratio of each bit of a check that the other bits imply (sum-product): float32[m, w].

    tanh(out_i / 2) = +- product over j != i of tanh(in_j / 2), as a sum of logarithms. The sum without the greatest
    term is added up separately, as subtracting that term from the whole sum would leave only rounding errors.
    """
    negative = extrinsic < 0
    loss = _loss(jnp.maximum(jnp.abs(extrinsic), UNKNOWN))
    greatest = loss.max(axis=1, keepdims=True)
    smaller = loss < greatest
    rest = jnp.where(smaller, loss, 0).sum(axis=1, keepdims=True)
    ties = (~smaller).sum(axis=1, keepdims=True, dtype=jnp.int32).astype(jnp.float32)
    others = rest + jnp.where(smaller, ties * greatest - loss, (ties - 1) * greatest)
    size = _loss(jnp.maximum(others, NARROWEST))
    return jnp.where(negative ^ _parity(negative) ^ odd, -size, size)


def _loss(x):
    """Return -log tanh(x / 2), which is its own inverse; it is 0 where tanh rounds to 1."""
    return jnp.maximum(-jnp.log(jnp.tanh(x / 2)), 0)


def _require(code, array, length, what):
    if np.shape(array) != (length,):
        raise EccError(
            f"{what}: shape {np.shape(array)} does not fit a code of {len(code.column)} parity bits for "
            f"{len(code.order)} bits, which takes ({length},)"
        )


# ---- levels and bits -------------------------------------------------------------------------------------


def labels(count: int) -> UInt8[np.ndarray, "levels bits"]:
    """Return the ceil(log2 count) bits of each of ``count`` levels; neighbours differ in one bit (Gray code)."""
    level = np.arange(count)
    width = int(count - 1).bit_length()
    return ((level ^ (level >> 1))[:, None] >> np.arange(width)[::-1] & 1).astype(np.uint8)


def level_bits(levels: Integer[Arrayish, "*n"], count: int) -> UInt8[np.ndarray, "*n bits"]:
    """Convert levels, in 0..count - 1, into ceil(log2 count) bits each."""
    return labels(count)[levels]


def levels(bits: Integer[Arrayish, "*n bits"], count: int) -> UInt8[np.ndarray, "*n"]:
    """Convert bits back into levels; bits that belong to no level become the highest one."""
    width = labels(count).shape[1]
    level = np.arange(1 << width)
    number = np.empty(1 << width, np.uint8)
    number[level ^ (level >> 1)] = np.minimum(level, count - 1)
    return number[np.asarray(bits, np.int64) @ (1 << np.arange(width)[::-1])]


def bit_llr(log_likelihood: Float[Arrayish, "*n levels"]) -> Float32[np.ndarray, "*n bits"]:
    """Return the log-likelihood ratios of the bits of a level; they are 0 where no level is possible.

    ``log_likelihood`` is the logarithm of Pr[level, and what was read] up to a constant, with the prior included; it is
    -inf for an impossible level.
    """
    log_likelihood = np.asarray(log_likelihood, np.float64)
    bits = labels(log_likelihood.shape[-1]).astype(bool)
    top = log_likelihood.max(axis=-1, keepdims=True)
    likelihood = np.exp(log_likelihood - np.where(np.isneginf(top), 0, top))
    with np.errstate(divide="ignore", invalid="ignore"):
        llr = np.log(likelihood @ ~bits) - np.log(likelihood @ bits)
    return np.nan_to_num(llr, nan=0.0, posinf=np.inf, neginf=-np.inf).astype(np.float32)
