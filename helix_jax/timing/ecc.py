"""Level bits -> parity bits, and back: a low-density parity-check code on the duration indices.

The parity is carried in the letters of extra rounds, which have no errors (ISIT 2020, the theorem), and so it is a
*syndrome*: n level bits x, m parity bits A x mod 2 with a sparse A, systematic code rate n / (n + m). The decoder is
sum-product belief propagation (Gallager 1962; MacKay 1999; as a syndrome decoder: Liveris, Xiong and Georghiades,
IEEE Commun. Lett. 6(10), 2002) on log-likelihood ratios that hold the channel and the prior. With the parity free of
errors, m / n must exceed the entropy H of a bit given what was read: H2(p) on a binary symmetric channel.

The columns of A have few ones, by parts that density evolution and simulation chose. Here are the least m / n over
H2(p) for which density evolution converges (without end), and the m / n at which about 1 block of 50,000 bits in 100,
and in 1,000, fails:

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

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from helix_jax import keyed
from helix_jax.errors import HelixError

# parts of the columns by weight, for m / n up to the first number
PARTS = (
    (0.035, ((4, 0.65), (14, 0.35))),
    (0.10, ((3, 0.40), (4, 0.30), (14, 0.30))),
    (0.30, ((3, 0.75), (14, 0.25))),
    (math.inf, ((3, 0.85), (14, 0.15))),
)
THRESHOLDS = (1.25, 1.15, 1.10, 1.13)  # m / n over the entropy for which density evolution converges, for PARTS
OVERHEAD = 7  # parity bits over that, in units of sqrt(m): measured
LIGHT = 4  # two columns of at most this weight share at most one check, where there is room
ROUNDS = 16  # attempts to remove the faults of A
LAST_ROUNDS = 6  # of them, for the grave ones alone
ITERATIONS = 100
DAMPING = 0.7  # part of the new in a message: halves the failures at low m / n, where A has many short cycles
CERTAIN = 1e4  # log-likelihood ratio of a known bit: no sum of messages reaches it
UNKNOWN = 1e-30  # stands for 0 in the logarithm: log tanh of it drives every other message of the check to exactly 0
NARROWEST = 1e-7  # keeps messages below 17


class EccError(HelixError):
    """A code that cannot be built, or arrays that do not fit it; the message names the number."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Code:
    """The sparse matrix A of m checks over n bits. Bits are held in another order inside, by weight of their column.

    order: int32[n], the bit at each inside place. column: int32[m, w], inside places of the bits of each check, n where
    a check has fewer than w. sockets: for each weight d, int32[n_d, d]: where in the flattened ``column`` the bits
    of that weight stand; their n_d add up to n.
    """

    order: np.ndarray
    column: np.ndarray
    sockets: tuple[np.ndarray, ...]


# ---- the matrix ------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8)
def design(n, m, seed=0):
    """A code of m parity bits for n bits; the same on every machine. 1 to 2 s for n = 100,000.

    Checks have equally many bits, to one. No column equals another, and no two light columns share two checks, as far
    as n columns of m allow that. Raises EccError unless n and m are positive and the seed is in 0..2^64 - 1.
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
    place = np.empty(edges, np.int64)
    place[by_check] = np.arange(edges) - np.repeat(np.cumsum(load) - load, load)  # within its check
    socket = check * load.max() + place
    column = np.full(m * load.max(), n, np.int32)
    column[socket] = np.repeat(np.arange(n), weights)
    sockets = tuple(socket[part].astype(np.int32) for part in columns)
    return Code(_shuffled(key, 0, n).astype(np.int32), column.reshape(m, -1), sockets)


def _column_weights(n, m):
    """Ascending weights of the n columns: int64[n]. Less than planned where m is small."""
    parts = next(parts for most, parts in PARTS if m <= most * n)
    weight, part = np.array(parts).T
    ends = np.floor(np.cumsum(part) * n + 0.5).astype(int)
    weights = np.repeat(weight.astype(int), np.diff(ends, prepend=0))
    return np.minimum(weights, max(1, m // 3))


def _shuffled(key, number, count):
    """A pseudo-random permutation of 0..count - 1, its own for each number."""
    return np.argsort(keyed.stream(key, (number << 32) + np.arange(count)), kind="stable")


def _mended(key, check, columns, m):
    """Move sockets with faults, and as many others, until no fault is left or ROUNDS are over: first all faults, at
    the end the grave ones. check: int64[edges], the check of each socket; returns the same."""
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
    """Sockets to be moved: (grave, others). Grave: a check twice in a column, two columns alike. Others: of two light
    columns that share two checks, one socket."""
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
    """Places of all values that stand in the array before."""
    order = np.argsort(values, kind="stable")
    return order[1:][values[order[1:]] == values[order[:-1]]]


def planned_parity(n, entropy, variance, failure=1e-3):
    """Parity bits m for n bits, so that about 1 block in 1 / failure (or fewer) fails.

    entropy, variance: mean and variance of the ``surprisal`` of a bit (bits, bits squared); the mean is the conditional
    entropy H. Let B = n H + z sqrt(n variance), which 1 block in 1 / failure exceeds (z the normal quantile). Then
    m = T B + 7 sqrt(m), with T of THRESHOLDS and 7 measured: the least m for failure 1e-3 had 3.6 to 6.1 in its place
    at n = 1,000 to 100,000 and crossovers .0013 to .02. Raises EccError for numbers out of range.
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


def surprisal(llr, bits):
    """-log2 of the probability that the true bit was given: llr float[...], bits int[...] in 0, 1 -> float64[...]."""
    signed = np.where(bits, -1.0, 1.0) * np.asarray(llr, np.float64)
    return np.logaddexp(0, -signed) / np.log(2)


# ---- both directions -------------------------------------------------------------------------------------


def encode(code, bits):
    """Parity uint8[m] of bits uint8[n]. Jitted; ``vmap`` it over blocks. Raises EccError for another length."""
    _require(code, bits, len(code.order), "bits")
    return _encode(code, bits)


@jax.jit
def _encode(code, bits):
    inside = jnp.concatenate([bits[code.order], jnp.zeros_like(bits[:1])])
    return (inside[code.column].sum(axis=1, dtype=jnp.uint32) & 1).astype(jnp.uint8)


def decode(code, llr, parity, known=None, *, iterations=ITERATIONS):
    """The most likely bits with this parity, by belief propagation: (bits uint8[n], ok bool).

    llr: float32[n], log of Pr[bit is 0] / Pr[bit is 1] given all that is known of the bit, its prior included; 0 for a
    bit that is lost, +-inf for one that is known. parity: uint8[m]. known: bool[m], which parity bits arrived (None:
    all). iterations: at most so many; it stops at the first that fulfils all known checks.
    ok: every known check is fulfilled and every bit decided. Wrong bits are then very unlikely; but a bit none of whose
    checks arrived is only as sure as its llr. A digest of the data has the last word.
    Jitted; ``vmap`` it over blocks. Raises EccError for other lengths.
    """
    _require(code, llr, len(code.order), "log-likelihood ratios")
    _require(code, parity, len(code.column), "parity bits")
    if known is not None:
        _require(code, known, len(code.column), "flags of parity bits")
    return _decode(code, llr, parity, known, iterations)


@jax.jit
def _decode(code, llr, parity, known, iterations):
    channel = jnp.clip(llr.astype(jnp.float32)[code.order], -CERTAIN, CERTAIN)
    odd = (parity & 1).astype(bool)[:, None]
    known = jnp.ones_like(odd) if known is None else known.astype(bool)[:, None]

    def look(total):
        """What each check sees of its bits: (totals float32[m, w], whether all is settled)."""
        seen = jnp.concatenate([total, jnp.full_like(total[:1], CERTAIN)])[code.column]
        fulfilled = (_parity(seen < 0) == odd) | ~known
        return seen, fulfilled.all() & (jnp.abs(total) > 0).all()

    def step(state):
        number, message, total, seen, _ = state
        extrinsic = seen - message
        new = jnp.where(known, _check_messages(extrinsic, odd), 0)
        message = message + DAMPING * (new - message)
        flat = message.reshape(-1)
        total = channel + jnp.concatenate([flat[sockets].sum(axis=1) for sockets in code.sockets])
        return number + 1, message, total, *look(total)

    def going(state):
        number, _, _, _, settled = state
        return (number < iterations) & ~settled

    seen, settled = look(channel)
    first = (jnp.zeros_like(settled, jnp.int32), seen * 0, channel, seen, settled)
    _, _, total, _, settled = lax.while_loop(going, step, first)
    bits = (total < 0).astype(jnp.uint8)
    return jnp.zeros_like(bits).at[code.order].set(bits, unique_indices=True), settled


def _parity(flags):
    """bool[m, w] -> bool[m, 1]: whether an odd number is set."""
    return (flags.sum(axis=1, keepdims=True, dtype=jnp.int32) & 1).astype(bool)


def _check_messages(extrinsic, odd):
    """Sum-product at the checks: float32[m, w] log-likelihood ratios of the bits -> those that the others imply.

    tanh(out_i / 2) = +- product over j != i of tanh(in_j / 2), as a sum of logarithms. The greatest term is left out
    by a sum of its own, as taking it from the whole would leave only rounding errors.
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
    """-log tanh(x / 2), its own inverse; 0 where tanh rounds to 1."""
    return jnp.maximum(-jnp.log(jnp.tanh(x / 2)), 0)


def _require(code, array, length, what):
    if np.shape(array) != (length,):
        raise EccError(
            f"{what}: shape {np.shape(array)} does not fit a code of {len(code.column)} parity bits for "
            f"{len(code.order)} bits, which takes ({length},)"
        )


# ---- levels and bits -------------------------------------------------------------------------------------


def labels(count):
    """Bits of each of ``count`` levels: uint8[count, ceil(log2 count)], neighbours differ in one (Gray code)."""
    level = np.arange(count)
    width = int(count - 1).bit_length()
    return ((level ^ (level >> 1))[:, None] >> np.arange(width)[::-1] & 1).astype(np.uint8)


def level_bits(levels, count):
    """Levels int[...] in 0..count - 1 -> uint8[..., ceil(log2 count)]."""
    return labels(count)[levels]


def levels(bits, count):
    """The way back: uint8[..., b] -> uint8[...]; the highest level for bits that belong to none."""
    width = labels(count).shape[1]
    place = np.arange(1 << width)
    number = np.empty(1 << width, np.uint8)
    number[place ^ (place >> 1)] = np.minimum(place, count - 1)
    return number[np.asarray(bits, np.int64) @ (1 << np.arange(width)[::-1])]


def bit_llr(log_likelihood):
    """Log-likelihood ratios of the bits of a level: float32[..., b]; 0 where no level is possible.

    log_likelihood: float[..., levels], log of Pr[level, and what was read] up to a constant, prior included; -inf for a
    level that cannot be.
    """
    log_likelihood = np.asarray(log_likelihood, np.float64)
    bits = labels(log_likelihood.shape[-1]).astype(bool)
    top = log_likelihood.max(axis=-1, keepdims=True)
    likelihood = np.exp(log_likelihood - np.where(np.isneginf(top), 0, top))
    with np.errstate(divide="ignore", invalid="ignore"):
        llr = np.log(likelihood @ ~bits) - np.log(likelihood @ bits)
    return np.nan_to_num(llr, nan=0.0, posinf=np.inf, neginf=-np.inf).astype(np.float32)
