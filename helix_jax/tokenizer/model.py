"""The tokenizer network: pixels <-> base-4 digits, as pure functions ``init``, ``encode`` and ``decode``.

The architecture, which HELIX leaves open, is 3D Haar patches, one latent resolution, causal blocks and FSQ. Random tail
dropout in training orders the digits: the first digits of a token carry the coarse picture, and any prefix of them can
be decoded.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, Key, Num, UInt8

from helix_jax import layers
from helix_jax.config import TokenizerConfig
from helix_jax.tokenizer import fsq, haar

Arrayish = Array | np.ndarray
Bounds = Int[Arrayish, "4"] | None


class Net(nnx.Module):
    """The network. Its functions are called through ``layers.functional``."""

    def __init__(self, config: TokenizerConfig, rngs: nnx.Rngs):
        width = config.width
        self.embed = layers.Linear(haar.CHANNELS, width, rngs)
        self.encoder = nnx.List([layers.CausalBlock(width, rngs) for _ in range(config.encoder_blocks)])
        self.to_digits = layers.Linear(width, config.digits, rngs)
        self.from_digits = layers.Linear(config.digits, width, rngs)
        self.decoder = nnx.List([layers.CausalBlock(width, rngs) for _ in range(config.decoder_blocks)])
        self.unembed = layers.Linear(width, haar.CHANNELS, rngs)

    def encode(self, pixels: Float[Arrayish, "B T H W 3"], bounds: Bounds) -> Float[Array, "B t h w k"]:
        """``latents`` with these parameters."""
        x = self.embed(haar.to_patches(pixels).astype(self.embed.w.dtype))
        for block in self.encoder:
            x = block(x, bounds)
        return self.to_digits(layers.rms_norm(x))

    def decode(self, centred: Float[Arrayish, "B t h w k"], bounds: Bounds) -> Float[Array, "B T H W 3"]:
        """``pixels`` with these parameters."""
        x = self.from_digits(centred)
        for block in self.decoder:
            x = block(x, bounds)
        return haar.from_patches(self.unembed(layers.rms_norm(x)) * haar.band_scale().reshape(1, 1, 1, 1, -1))


@functools.lru_cache(maxsize=8)
def _functional(config: TokenizerConfig) -> tuple[Callable, Callable]:
    return layers.functional(lambda rngs: Net(config, rngs))


def init(key: Key[Array, ""], config: TokenizerConfig) -> dict:
    """Draw random parameters: a nested dict of float32 arrays. The key is consumed."""
    return _functional(config)[0](key)


def to_float(clip: UInt8[Arrayish, "*axes"]) -> Float32[Arrayish, "*axes"]:
    """Convert 8-bit pixels to floats in [-1, 1]."""
    return clip.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(pixels: Float[Arrayish, "*axes"]) -> UInt8[Array, "*axes"]:
    """Convert pixels in [-1, 1] to 8 bits, rounded and clipped."""
    return jnp.clip(jnp.round((pixels + 1.0) * 127.5), 0, 255).astype(jnp.uint8)


def latents(
    params: dict, pixels: Float[Arrayish, "B T H W 3"], config: TokenizerConfig, bounds: Bounds = None
) -> Float[Array, "B t h w k"]:
    """Compute the unquantised channels of a batch of clips.

    Args:
        params: Parameters of the net.
        pixels: Pixels in [-1, 1].
        config: Configuration of the net.
        bounds: Where the picture lies in the grid, as for ``layers.CausalBlock``. With None it fills the grid.
    """
    return _functional(config)[1](params, pixels, bounds, method="encode")


def pixels(
    params: dict, centred: Float[Arrayish, "B t h w k"], config: TokenizerConfig, bounds: Bounds = None
) -> Float[Array, "B T H W 3"]:
    """Compute the pixels of centred levels, which are not clipped to [-1, 1].

    Args:
        params: Parameters of the net.
        centred: Levels as ``fsq.centre`` gives them.
        config: Configuration of the net.
        bounds: As for ``latents``.
    """
    return _functional(config)[1](params, centred, bounds, method="decode")


def encode(
    params: dict, clip: UInt8[Arrayish, "B T H W 3"], config: TokenizerConfig, bounds: Bounds = None
) -> UInt8[Array, "B t h w k"]:
    """Encode whole clips at once, without tiles, to token digits from 0 to 3.

    Args:
        params: Parameters of the net.
        clip: The clips. T is a multiple of 4, and H and W are multiples of 8.
        config: Configuration of the net.
        bounds: As for ``latents``.
    """
    return fsq.digits(positions(params, clip, config, bounds))


def positions(
    params: dict, clip: UInt8[Arrayish, "B T H W 3"], config: TokenizerConfig, bounds: Bounds = None
) -> Float[Array, "B t h w k"]:
    """Compute the positions in (-0.5, 3.5) that ``encode`` rounds to digits.

    Args:
        params: As for ``encode``.
        clip: As for ``encode``.
        config: As for ``encode``.
        bounds: As for ``latents``.
    """
    return fsq.bound(latents(params, to_float(clip), config, bounds))


def decode(
    params: dict, levels: Num[Arrayish, "B t h w k"], config: TokenizerConfig, bounds: Bounds = None
) -> UInt8[Array, "B T H W 3"]:
    """Decode token digits to whole clips at once, without tiles.

    Args:
        params: Parameters of the net.
        levels: Digits, or real values between them.
        config: Configuration of the net.
        bounds: As for ``latents``.
    """
    return to_uint8(pixels(params, fsq.centre(levels, config.silence), config, bounds))


def receptive_halo(blocks: int) -> int:
    """Return how many latents to each side ``blocks`` blocks can see."""
    return blocks
