"""The tokenizer network: pixels <-> base-4 digits, as pure init / encode / decode functions.

Architecture (HELIX leaves it open): 3D Haar patches, one latent resolution, causal
blocks, FSQ. Digits are ordered by random tail dropout in training: the first digits of a token carry
the coarse picture and any prefix of them decodes.
"""

import functools

import chex
import jax.numpy as jnp
from flax import nnx

from helix_jax import layers
from helix_jax.tokenizer import fsq, haar


class Net(nnx.Module):
    def __init__(self, config, rngs):
        width = config.width
        self.embed = layers.Linear(haar.CHANNELS, width, rngs)
        self.encoder = nnx.List([layers.CausalBlock(width, rngs) for _ in range(config.encoder_blocks)])
        self.to_digits = layers.Linear(width, config.digits, rngs)
        self.from_digits = layers.Linear(config.digits, width, rngs)
        self.decoder = nnx.List([layers.CausalBlock(width, rngs) for _ in range(config.decoder_blocks)])
        self.unembed = layers.Linear(width, haar.CHANNELS, rngs)

    def encode(self, pixels, bounds):
        x = self.embed(haar.to_patches(pixels).astype(self.embed.w.dtype))
        for block in self.encoder:
            x = block(x, bounds)
        return self.to_digits(layers.rms_norm(x))

    def decode(self, centred, bounds):
        x = self.from_digits(centred)
        for block in self.decoder:
            x = block(x, bounds)
        return haar.from_patches(self.unembed(layers.rms_norm(x)) * haar.band_scale().reshape(1, 1, 1, 1, -1))


@functools.lru_cache(maxsize=8)
def _functional(config):
    return layers.functional(lambda rngs: Net(config, rngs))


def init(key, config):
    """Random parameters: nested dict of float32 arrays. The key is consumed."""
    return _functional(config)[0](key)


def to_float(clip):
    """uint8 pixels -> float32 in [-1, 1]."""
    return clip.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(pixels):
    """float32 pixels in [-1, 1] -> uint8, rounded and clipped."""
    return jnp.clip(jnp.round((pixels + 1.0) * 127.5), 0, 255).astype(jnp.uint8)


def latents(params, pixels, config, bounds=None):
    """float32[B, T, H, W, 3] in [-1, 1] -> unquantised channels float32[B, t, h, w, k].

    bounds: where the picture lies in the grid, see ``nets.CausalBlock``; None: everywhere.
    """
    return _functional(config)[1](params, pixels, bounds, method="encode")


def pixels(params, centred, config, bounds=None):
    """Centred levels float32[B, t, h, w, k] -> float32[B, 4t, 8h, 8w, 3], not clipped."""
    return _functional(config)[1](params, centred, bounds, method="decode")


def encode(params, clip, config, bounds=None):
    """Pixels -> token digits; no tiling, the whole clip at once.

    clip: uint8[B, T, H, W, 3], T a multiple of 4, H and W of 8. Returns uint8[B, T/4, H/8, W/8, k] in 0..3.
    """
    return fsq.digits(positions(params, clip, config, bounds))


def positions(params, clip, config, bounds=None):
    """What ``encode`` rounds: float32[B, T/4, H/8, W/8, k] in (-0.5, 3.5)."""
    chex.assert_type(clip, jnp.uint8)
    chex.assert_rank(clip, 5)
    return fsq.bound(latents(params, to_float(clip), config, bounds))


def decode(params, levels, config, bounds=None):
    """Token digits -> pixels; no tiling.

    levels: uint8 digits or float32 values between levels, [B, t, h, w, k]. Returns uint8[B, 4t, 8h, 8w, 3].
    """
    chex.assert_rank(levels, 5)
    return to_uint8(pixels(params, fsq.centre(levels), config, bounds))


def receptive_halo(blocks):
    """Latents to each side that ``blocks`` blocks can see."""
    return blocks
