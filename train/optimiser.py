"""The optimiser of every run: Muon for matrices, Adam for the rest (Jordan 2024; ``optax.contrib.muon``)."""

import re

import jax
import jax.numpy as jnp
import optax

from train import sharding


def make(cfg, steps, vectors=()):
    """OptimiserConfig -> optax.GradientTransformation for a run of so many steps.

    vectors: patterns of paths of matrices that stay with Adam as vectors do (into and out of the digits).
    """
    warmup = min(cfg.warmup_steps, steps // 2)  # a short trial run has a shorter one

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


def clipped(gradients, norm, most):
    """Gradients of norm ``norm``, scaled down to ``most`` where that is less (0: never). Keeps no state, so that it can
    be switched on when a run is taken up again."""
    if not most:
        return gradients
    scale = jnp.minimum(1.0, most / jnp.maximum(norm, 1e-12))
    return jax.tree.map(lambda leaf: leaf * scale, gradients)


def matches(patterns, path):
    """Whether one of the patterns is found in the path of a parameter ("encoder.0.spatial.w")."""
    return any(re.search(pattern, sharding.path_name(path)) for pattern in patterns)


def frozen(patterns, params):
    """``params`` with those that are not trained cut from the gradient: their work on the way back is left out."""
    if not patterns:
        return params
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.lax.stop_gradient(leaf) if matches(patterns, path) else leaf, params
    )


def check_frozen(patterns, params):
    """Raise ValueError for a pattern that is none, or that no parameter's path holds: all would be trained."""
    names = [sharding.path_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    for pattern in patterns:
        try:
            found = any(re.search(pattern, name) for name in names)
        except re.error as error:
            raise ValueError(f"optimiser.frozen: {pattern!r} is no pattern: {error}") from error
        if not found:
            raise ValueError(f"optimiser.frozen: {pattern!r} matches no parameter; paths are like {names[0]}")


def apply(patterns, params, updates):
    """Parameters after a step; those that are not trained stay as they were, to the bit."""
    moved = optax.apply_updates(params, updates)
    return jax.tree_util.tree_map_with_path(
        lambda path, new, old: old if matches(patterns, path) else new, moved, params
    )


def averaged(average, params, step, rate):
    """Exponential moving average of the weights; its memory is shorter in the first steps."""
    rate = jnp.minimum(rate, (step + 1) / (step + 10))
    return jax.tree.map(lambda a, p: rate * a + (1 - rate) * p, average, params)
