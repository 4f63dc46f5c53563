"""LPIPS on AlexNet, in JAX: how different two pictures look to a network trained on human judgements.

Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (CVPR
2018), version 0.1 of the authors' package. No weights are shipped: pass one safetensors file with torchvision's AlexNet
features (``features.0.weight``, ``features.0.bias``, and 3, 6, 8, 10) and the linear layers (``lin0.model.1.weight`` to
``lin4.model.1.weight``), all float32 under their published names and in their published shapes.
"""

import os
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jax import lax
from jaxtyping import Array, Float32, UInt8

from helix_jax.files import WeightsError

# (number in torchvision's `features`, output channels, input channels, kernel, stride, padding, pooling before it)
LAYERS = (
    (0, 64, 3, 11, 4, 2, False),
    (3, 192, 64, 5, 1, 2, True),
    (6, 384, 192, 3, 1, 1, True),
    (8, 256, 384, 3, 1, 1, False),
    (10, 256, 256, 3, 1, 1, False),
)
# the package's ScalingLayer, for pictures in [-1, 1]
SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
SCALE = np.array([0.458, 0.448, 0.450], np.float32)
TINY = 1e-10
SMALLEST = 31  # least height and width in pixels; with fewer, the window of the last pooling does not fit
BATCH = 4  # frames at a time

Weights = Mapping[str, Float32[np.ndarray, "..."]]
OnDevice = Mapping[str, Float32[Array, "..."]]


def load(path: str | os.PathLike) -> dict[str, Float32[np.ndarray, "..."]]:
    """Load the weights. Raises WeightsError if the file is not as the module's docstring says."""
    try:
        tensors = safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path}: no safetensors file of LPIPS weights ({error})") from error
    for name, shape in shapes().items():
        have = tensors[name].shape if name in tensors else "none"
        if have != shape:
            raise WeightsError(f"{path}: LPIPS needs {name} of shape {shape}; the file has {have}")
    return {name: tensors[name].astype(np.float32) for name in shapes()}


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights by their names."""
    result: dict[str, tuple[int, ...]] = {}
    for place, (number, outputs, inputs, kernel, *_) in enumerate(LAYERS):
        result[f"features.{number}.weight"] = (outputs, inputs, kernel, kernel)
        result[f"features.{number}.bias"] = (outputs,)
        result[f"lin{place}.model.1.weight"] = (1, outputs, 1, 1)
    return result


def distance(weights: Weights, original: UInt8[np.ndarray, "T H W 3"], decoded: UInt8[np.ndarray, "T H W 3"]) -> float:
    """Return the mean of LPIPS over the frames; it is 0 for equal pictures.

    Args:
        weights: as ``load`` gives them.
        original: the original frames, of at least SMALLEST pixels in height and width.
        decoded: the decoded frames.

    Raises:
        ValueError: if the pictures are too small.
    """
    if min(original.shape[1:3]) < SMALLEST:
        raise ValueError(
            f"LPIPS of pictures of {original.shape[2]}x{original.shape[1]}: {SMALLEST} pixels a side needed"
        )
    parts = []
    for begin in range(0, len(original), BATCH):
        pair = [np.asarray(clip[begin : begin + BATCH]) for clip in (original, decoded)]
        missing = BATCH - len(pair[0])
        padded = [
            np.pad(clip, ((0, missing), (0, 0), (0, 0), (0, 0))) for clip in pair
        ]  # one compilation for each size
        parts.append(np.asarray(_distances(weights, *padded))[: len(pair[0])])
    return float(np.mean(np.concatenate(parts)))


@jax.jit
def _distances(
    weights: OnDevice, original: UInt8[Array, "B H W 3"], decoded: UInt8[Array, "B H W 3"]
) -> Float32[Array, " B"]:
    """Return the LPIPS of each pair of frames."""
    total = jnp.zeros(len(original), jnp.float32)
    for place, (a, b) in enumerate(zip(_features(weights, original), _features(weights, decoded), strict=True)):
        linear = weights[f"lin{place}.model.1.weight"].reshape(1, 1, 1, -1)
        total += jnp.mean(jnp.sum(jnp.square(a - b) * linear, axis=-1), axis=(1, 2))
    return total


def _features(weights: OnDevice, pictures: UInt8[Array, "B H W 3"]) -> list[Float32[Array, "B h w c"]]:
    """Return the five feature maps, normalised to length 1 along the channels."""
    x = (pictures.astype(jnp.float32) / 127.5 - 1 - SHIFT.reshape(1, 1, 1, 3)) / SCALE.reshape(1, 1, 1, 3)
    maps = []
    for number, _, _, _, stride, padding, pooled in LAYERS:
        if pooled:
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
        kernel = weights[f"features.{number}.weight"].transpose(2, 3, 1, 0)
        x = lax.conv_general_dilated(
            x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + weights[f"features.{number}.bias"].reshape(1, 1, 1, -1))
        maps.append(x / (jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True)) + TINY))
    return maps
