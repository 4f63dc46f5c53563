"""The optimiser of every run: Muon for matrices, Adam for the rest (Jordan 2024; ``optax.contrib.muon``)."""

import re
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from train import sharding
from train.config import OptimiserConfig


def make(cfg: OptimiserConfig, steps: int, vectors: Sequence[str] = ()) -> optax.GradientTransformation:
    """Return the optimiser of a run.

    Args:
        cfg: its options.
        steps: number of steps of the run.
        vectors: regular expressions for the paths of matrices that Adam trains, as it does vectors (those that lead to
            and from the digits).
    """
    warmup = min(cfg.warmup_steps, steps // 2)  # a short trial run has a shorter warm-up

    def schedule(peak):
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps)

    def matrices(params):
        def choose(path, leaf):
            adam = leaf.ndim != 2 or matches(vectors, path)
            return None if adam else optax.contrib.MuonDimensionNumbers()

        return jax.tree_util.tree_map_with_path(choose, params)

    return optax.contrib.muon(
        schedule(cfg.muon_learning_rate),
        adam_learning_rate=schedule(cfg.adam_learning_rate),
        muon_weight_dimension_numbers=matrices,
    )


def clipped(gradients: PyTree, norm: Float[Array, ""], most: float) -> PyTree:
    """Scale gradients down if their norm is too large.

    This keeps no state, so that it can be switched on when a run is resumed.

    Args:
        gradients: the gradients.
        norm: their norm.
        most: the greatest norm; 0 means no limit.
    """
    if not most:
        return gradients
    scale = jnp.minimum(1.0, most / jnp.maximum(norm, 1e-12))
    return jax.tree.map(lambda leaf: leaf * scale, gradients)


def matches(patterns: Iterable[str], path: tuple) -> bool:
    """Return whether one of the patterns is found in the key path of a parameter ("encoder.0.spatial.w")."""
    return any(re.search(pattern, sharding.path_name(path)) for pattern in patterns)


def frozen(patterns: Sequence[str], params: PyTree) -> PyTree:
    """Return ``params`` without gradients for those that match a pattern, whose backward pass is thus not computed."""
    if not patterns:
        return params
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.lax.stop_gradient(leaf) if matches(patterns, path) else leaf, params
    )


def check_frozen(patterns: Iterable[str], params: PyTree) -> None:
    """Raise ValueError for an invalid pattern, or for one that matches no parameter, which would freeze nothing."""
    names = [sharding.path_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    for pattern in patterns:
        try:
            is_found = any(re.search(pattern, name) for name in names)
        except re.error as error:
            raise ValueError(f"optimiser.frozen: {pattern!r} is no pattern: {error}") from error
        if not is_found:
            raise ValueError(f"optimiser.frozen: {pattern!r} matches no parameter; paths are like {names[0]}")


def apply(patterns: Iterable[str], params: PyTree, updates: PyTree) -> PyTree:
    """Return the parameters after a step.

    Args:
        patterns: patterns of the frozen parameters, which stay as they are, to the bit.
        params: the parameters before.
        updates: what the optimiser adds to them.
    """
    moved = optax.apply_updates(params, updates)
    return jax.tree_util.tree_map_with_path(
        lambda path, new, old: old if matches(patterns, path) else new, moved, params
    )


def averaged(average: PyTree, params: PyTree, step: Array | int, rate: float) -> PyTree:
    """Return the exponential moving average of the weights after a step; its memory is shorter in the first steps.

    Args:
        average: the average before.
        params: the parameters after the step.
        step: number of steps done before.
        rate: decay rate.
    """
    decay = jnp.minimum(rate, (step + 1) / (step + 10))
    return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
