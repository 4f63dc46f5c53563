"""Network layers that tokenizer and prior share, and the boundary between ``flax.nnx`` and the rest.

NNX classes stay behind ``functional``, a small boundary of pure functions over plain nested dicts of
arrays, so that no NNX type reaches ``jit``, a checkpoint or a weights file.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int


def functional(make: Callable[[nnx.Rngs], nnx.Module]) -> tuple[Callable, Callable]:
    """Turn an NNX constructor into pure functions over a plain dict of parameters.

    Args:
        make: Makes the module, which may hold ``nnx.Param`` only.

    Returns:
        ``(init, apply)``: ``init(key)`` consumes the key and returns the parameters, and
        ``apply(params, *args, method=name)`` calls a method of the module.
    """
    graphdef, abstract, rest = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param, ...)
    assert not jax.tree.leaves(rest), "only parameters: dropout or batch norm does not belong in a codec"

    def init(key):
        return nnx.to_pure_dict(nnx.state(make(nnx.Rngs(key)), nnx.Param))

    def apply(params, *args, method):
        state = jax.tree.map(lambda leaf: leaf, abstract)
        nnx.replace_by_pure_dict(state, params)
        return getattr(nnx.merge(graphdef, state, rest), method)(*args)

    return init, apply


def rms_norm(x: Float[Array | np.ndarray, "*axes"]) -> Float[Array, "*axes"]:
    """Scale the last axis to unit root mean square. The mean is taken in float32 whatever the type of x is."""
    power = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
    return jnp.asarray(x) * jax.lax.rsqrt(power + 1e-6).astype(x.dtype)


class Linear(nnx.Module):
    """``x @ w + b``, where w is float32[d_in, d_out] and initialised with variance 1 / d_in."""

    def __init__(self, d_in: int, d_out: int, rngs: nnx.Rngs):
        self.w = nnx.Param(jax.random.normal(rngs.params(), (d_in, d_out), jnp.float32) / d_in**0.5)
        self.b = nnx.Param(jnp.zeros((d_out,), jnp.float32))

    def __call__(self, x: Float[Array | np.ndarray, "*axes _"]) -> Float[Array, "*axes _"]:
        return jnp.dot(x, self.w[...]) + jnp.reshape(self.b[...], (1,) * (x.ndim - 1) + (-1,))


class CausalBlock(nnx.Module):
    """Residual block on a latent grid: RMS norm, 3x3 spatial conv, GELU, causal 3-tap temporal mix.

    Both kernels are stored as matrices (9d x d and 3d x d), which is how Muon orthogonalises them.
    A conv3d would compute the same and is far slower on XLA. Beyond the borders, the edge repeats in space and the
    first latent frame repeats in time.
    """

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.gain = nnx.Param(jnp.ones((width,), jnp.float32))
        self.spatial = Linear(9 * width, width, rngs)
        self.temporal = Linear(3 * width, width, rngs)

    def __call__(
        self, x: Float[Array | np.ndarray, "B t h w d"], bounds: Int[Array | np.ndarray, "4"] | None
    ) -> Float[Array, "B t h w d"]:
        """Apply the block to a batch of latent grids.

        Args:
            x: The latent grids.
            bounds: The first row, last row, first column and last column of the picture within the grid. What lies
                outside is taken from the picture's edge, as if the grid ended there. With None the picture fills the
                grid.
        """
        batch, t, h, w, d = x.shape
        y = rms_norm(x) * jnp.reshape(self.gain[...], (1, 1, 1, 1, d))
        y = y.reshape(batch * t, h, w, d)
        if bounds is None:
            y = jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        else:
            y = jnp.take(y, jnp.clip(jnp.arange(-1, h + 1, dtype=jnp.int32), bounds[0], bounds[1]), axis=1, mode="clip")
            y = jnp.take(y, jnp.clip(jnp.arange(-1, w + 1, dtype=jnp.int32), bounds[2], bounds[3]), axis=2, mode="clip")
        kernel = self.spatial.w[...].reshape(3, 3, d, d)
        y = jax.lax.conv_general_dilated(y, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        y = jax.nn.gelu(y + jnp.reshape(self.spatial.b[...], (1, 1, 1, d))).reshape(x.shape)
        past = jnp.pad(y, ((0, 0), (2, 0), (0, 0), (0, 0), (0, 0)), mode="edge")
        y = self.temporal(jnp.concatenate([y, past[:, 1:-1], past[:, :-2]], axis=-1))
        return checkpoint_name(x + y, "block")  # training with less memory keeps this
