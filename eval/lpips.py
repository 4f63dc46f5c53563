"""LPIPS on AlexNet, in JAX: how different two pictures look to a network trained on human judgements.

Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (CVPR
2018), version 0.1 of the authors' package. No weights are shipped: give one safetensors file with torchvision's AlexNet
features (``features.0.weight``, ``features.0.bias``, and 3, 6, 8, 10) and the linear layers (``lin0.model.1.weight`` to
``lin4.model.1.weight``), all float32 under their published names and in their published shapes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jax import lax

from helix_jax.files import WeightsError

# (number in torchvision's `features`, output channels, input channels, kernel, stride, padding); pooled before or not
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
SMALLEST = 31  # pixels a side: with fewer the last pooling has no place
BATCH = 4  # frames at a time


def load(path):
    """File -> dict of float32 arrays. Raises WeightsError where it is not what the module's docstring says."""
    try:
        tensors = safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path}: no safetensors file of LPIPS weights ({error})") from error
    for name, shape in shapes().items():
        have = tensors[name].shape if name in tensors else "none"
        if have != shape:
            raise WeightsError(f"{path}: LPIPS needs {name} of shape {shape}; the file has {have}")
    return {name: tensors[name].astype(np.float32) for name in shapes()}


def shapes():
    """Names of the weights -> their shapes."""
    found: dict[str, tuple[int, ...]] = {}
    for place, (number, outputs, inputs, kernel, *_) in enumerate(LAYERS):
        found[f"features.{number}.weight"] = (outputs, inputs, kernel, kernel)
        found[f"features.{number}.bias"] = (outputs,)
        found[f"lin{place}.model.1.weight"] = (1, outputs, 1, 1)
    return found


def distance(weights, original, decoded):
    """Mean over frames of LPIPS; 0 for equal pictures. weights: as ``load`` gives. Both uint8[T, H, W, 3], a side
    SMALLEST pixels at least."""
    if min(original.shape[1:3]) < SMALLEST:
        raise ValueError(
            f"LPIPS of pictures of {original.shape[2]}x{original.shape[1]}: {SMALLEST} pixels a side needed"
        )
    parts = []
    for begin in range(0, len(original), BATCH):
        here = [np.asarray(clip[begin : begin + BATCH]) for clip in (original, decoded)]
        missing = BATCH - len(here[0])
        padded = [np.pad(clip, ((0, missing), (0, 0), (0, 0), (0, 0))) for clip in here]  # one compilation a size
        parts.append(np.asarray(_distances(weights, *padded))[: len(here[0])])
    return float(np.mean(np.concatenate(parts)))


@jax.jit
def _distances(weights, original, decoded):
    """uint8[B, H, W, 3] twice -> float32[B]."""
    total = jnp.zeros(len(original), jnp.float32)
    for place, (a, b) in enumerate(zip(_features(weights, original), _features(weights, decoded), strict=True)):
        linear = weights[f"lin{place}.model.1.weight"].reshape(1, 1, 1, -1)
        total += jnp.mean(jnp.sum(jnp.square(a - b) * linear, axis=-1), axis=(1, 2))
    return total


def _features(weights, pictures):
    """uint8[B, H, W, 3] -> five maps float32[B, h, w, c], of length 1 along the channels."""
    x = (pictures.astype(jnp.float32) / 127.5 - 1 - SHIFT.reshape(1, 1, 1, 3)) / SCALE.reshape(1, 1, 1, 3)
    found = []
    for number, _, _, _, stride, padding, pooled in LAYERS:
        if pooled:
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
        kernel = weights[f"features.{number}.weight"].transpose(2, 3, 1, 0)
        x = lax.conv_general_dilated(
            x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + weights[f"features.{number}.bias"].reshape(1, 1, 1, -1))
        found.append(x / (jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True)) + TINY))
    return found
