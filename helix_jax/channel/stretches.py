"""Positions of errors along strands -> the bad stretches of a read, and how reads differ: maximum likelihood.

A hidden Markov chain says of each base whether it lies in a bad stretch. A factor common to the read (log-normal, by
Gauss-Hermite quadrature) says how many stretches there are and how many errors besides. Given both, bases have errors
independently of one another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Float64, Integer
from scipy.optimize import minimize

NODES = 9  # nodes of the quadrature over the factor of a read
READS = 512  # the number of reads is filled up to a multiple of this
GAIN = 8.0  # nats by which stretches must explain the errors better than none do
# The parameters: share of the bases (logarithm), share of the errors in them, mean length (logarithm), sigma, rate
# (logarithm).
_BEGIN = (np.log(0.1), 0.5, np.log(5.0), 0.4)
_BOUNDS = ((np.log(0.005), np.log(0.5)), (0.0, 0.99), (0.0, np.log(100.0)), (0.0, 1.5), (-20.0, 2.0))


@dataclass(frozen=True)
class Stretches:
    """The fields of ``model.Errors`` of these names; without stretches the first three are 0, 0 and 1."""

    bad_share: float | int = 0.0
    bad_errors: float | int = 0.0
    bad_length: float | int = 1.0
    spread: float | int = 0.0


def of(
    share: float | int, errors: float | int, length: float | int, spread: float | int, most: float | int = 0.0
) -> Stretches:
    """Return stretches of such numbers, brought within what ``model.Errors`` accepts.

    Args:
        share: Share of the bases that lie in stretches.
        errors: Share of the errors in them; there are no stretches where it is below 0.02.
        length: Mean length of stretches in bases.
        spread: Sigma of the factor of a read.
        most: Errors per base of the commonest kind, which may have at most 0.5 in a bad stretch.

    Returns:
        The stretches.
    """
    spread, share = min(max(spread, 0.0), 1.5), min(max(share, 0.005), 0.5)
    errors = min(errors, 0.99, (0.4999 - most) / (most * (1 / share - 1)) if most else 1.0)
    if errors < 0.02:
        return Stretches(spread=spread)
    return Stretches(share, errors, min(max(length, 1.0), 1000.0), spread)


def exposure(
    run: Integer[np.ndarray, "reads W"], position: Sequence[float], homopolymer: float | int, deleting: float | int
) -> Float64[np.ndarray, "reads W"]:
    """Return the relative rate of errors at each base, by its position and its run; 0 past the end of a strand.

    Args:
        run: Length of the homopolymer run of each base, 0 past the end.
        position: As in ``model.Errors``.
        homopolymer: As in ``model.Errors``.
        deleting: The share of deletions, which alone follow runs.

    Returns:
        The rates.
    """
    inside = run > 0
    where = np.arange(run.shape[1]) / np.maximum(np.sum(inside, axis=1, keepdims=True) - 1, 1)
    profile = np.interp(where, np.linspace(0, 1, len(position)), position) if len(position) > 1 else 1.0
    by_run = homopolymer ** (run - 1.0)
    return inside * profile * (1 - deleting + deleting * by_run / by_run[inside].mean())


def estimate(begun: Bool[np.ndarray, "reads W"], exposure: Float[np.ndarray, "reads W"]) -> Stretches:
    """Estimate stretches from the positions of errors by maximum likelihood.

    ``begun`` says whether an error begins at a base. ``exposure`` holds the relative rates known beforehand (from the
    position and the run), 0 past the end of a strand. Stretches are reported only where they raise the likelihood by
    more than chance would (``GAIN``).
    """
    if not begun.any():
        return Stretches()
    exposure = np.maximum(exposure, 1e-3 * (exposure > 0)) / exposure[exposure > 0].mean()
    more = ((0, 0), (0, -len(begun) % READS))  # reads without a base carry no information, and save compilations
    data = jnp.asarray(np.pad(begun.T, more)), jnp.asarray(np.pad(exposure.T, more), jnp.float32)
    rate = np.log(begun.sum() / np.sum(exposure > 0))

    def search(point, bounds):
        def target(point):
            value, slope = _slope(jnp.asarray(point, jnp.float32), *data)
            return float(value) / len(begun), np.asarray(slope, np.float64) / len(begun)

        return minimize(
            target, point, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60, "ftol": 1e-6}
        )

    fixed = [(value, value) for value in (_BEGIN[0], 0.0, _BEGIN[2])]
    none = search([_BEGIN[0], 0.0, *_BEGIN[2:], rate], [*fixed, *_BOUNDS[3:]])
    some = search([*_BEGIN[:3], *none.x[3:]], _BOUNDS)
    if (none.fun - some.fun) * len(begun) < GAIN:
        return Stretches(spread=float(none.x[3]))
    return of(float(np.exp(some.x[0])), float(some.x[1]), float(np.exp(some.x[2])), float(some.x[3]))


def _unlikelihood(point, begun, exposure):
    """Return the negative logarithm of the likelihood: float32[5], bool[W, reads], float32[W, reads] -> float32[]."""
    share, inside, length, sigma, rate = jnp.exp(point[0]), point[1], jnp.exp(point[2]), point[3], jnp.exp(point[4])
    deviate, weight = np.polynomial.hermite_e.hermegauss(NODES)
    factor = jnp.exp(sigma * jnp.asarray(deviate, jnp.float32) - sigma**2 / 2)[:, None, None]
    share = jnp.minimum(share * factor, 0.5)
    anew = jnp.minimum(1 / (length * (1 - share)), 1.0)
    rates = rate * factor * jnp.concatenate([1 - inside + 0 * share, 1 - inside + inside / share], axis=1)
    states = jnp.concatenate([1 - share, share], axis=1)

    def step(carry, here):
        chance, total = carry
        begins, exposed = here
        quiet = jnp.exp(-rates * exposed[None, None])
        chance = (1 - anew) * chance + anew * states * jnp.sum(chance, axis=1, keepdims=True)
        chance *= jnp.where(begins[None, None], 1 - quiet, quiet)
        here = jnp.sum(chance, axis=(0, 1)) + 1e-30
        return (chance / here[None, None], total + jnp.log(here)), None

    weight = jnp.asarray(weight / weight.sum(), jnp.float32)[:, None, None]
    start = jnp.broadcast_to(weight * states, (NODES, 2, begun.shape[1])), jnp.zeros(begun.shape[1], jnp.float32)
    (_, total), _ = lax.scan(step, start, (begun, exposure))
    return -jnp.sum(total)


_slope = jax.jit(jax.value_and_grad(_unlikelihood))
