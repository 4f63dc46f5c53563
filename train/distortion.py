"""Differentiable measures of distortion for training: squared error, MS-SSIM and Haar coefficients, in JAX.

``eval.metrics`` has the measures for evaluation. Pixels are in [-1, 1], and the results are means over each example.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from helix_jax.tokenizer import haar
from train.config import DistortionWeights

Pixels = Float[Array, "B T H W 3"]
Target = Pixels | Float[np.ndarray, "B T H W 3"]
PerExample = Float[Array, " B"]

MSE_FLOOR = 1e-4  # in units of [-1, 1], 46 dB: smaller errors are not worth reducing further
LUMA = (0.299, 0.587, 0.114)  # BT.601
# Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality assessment" (2003), table 1
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
TAPS, SIGMA = 11, 1.5  # size and standard deviation of the window, in pixels
STABLE = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)


def mse(decoded: Pixels, target: Target) -> PerExample:
    """Return the mean squared error."""
    return jnp.mean(jnp.square(decoded - target), axis=(1, 2, 3, 4))


def log_mse(decoded: Pixels, target: Target) -> PerExample:
    """Return the logarithm of the mean squared error, as PSNR has it: an easy clip weighs as much as a hard one."""
    return jnp.log(mse(decoded, target) + MSE_FLOOR)


def haar_l1(decoded: Pixels, target: Target) -> PerExample:
    """Return the mean absolute error of the Haar coefficients.

    Each coefficient is in units of its band (``haar.band_scale``), so that fine detail counts as much as coarse.
    """
    error = haar.to_patches(decoded - target) / haar.band_scale().reshape(1, 1, 1, 1, -1)
    return jnp.mean(jnp.abs(error), axis=(1, 2, 3, 4))


def ms_ssim(decoded: Pixels, target: Target) -> PerExample:
    """Return the multi-scale SSIM of the luma, averaged over frames.

    It is that of ``eval.metrics.ms_ssim``, with as many scales as fit into the picture.
    """
    luma = jnp.asarray(LUMA, jnp.float32)
    a, b = (((x + 1) * 127.5) @ luma for x in (decoded, target))
    batch, frames, *size = a.shape
    a, b = (x.reshape(batch * frames, *size) for x in (a, b))
    scales = int(np.clip(np.floor(np.log2(min(size) / TAPS)) + 1, 1, len(SCALE_WEIGHTS)))
    weights = np.array(SCALE_WEIGHTS[:scales]) / sum(SCALE_WEIGHTS[:scales])
    product = jnp.float32(1)
    for scale, weight in enumerate(weights):
        if scale:
            a, b = _halved(a), _halved(b)
        light, rest = _similarity(a, b)
        value = jnp.mean(light * rest if scale == scales - 1 else rest, axis=(1, 2))
        product = product * jnp.maximum(value, 1e-3) ** weight  # the slope of the power at 0 is infinite
    return jnp.mean(product.reshape(batch, frames), axis=1)


def _similarity(a, b):
    """Return (luminance term, contrast-structure term) at each position where the whole window fits."""
    mean_a, mean_b = _blurred(a), _blurred(b)
    of_a, of_b, both = _blurred(a * a) - mean_a**2, _blurred(b * b) - mean_b**2, _blurred(a * b) - mean_a * mean_b
    first, second = STABLE
    light = (2 * mean_a * mean_b + first) / (mean_a**2 + mean_b**2 + first)
    return light, (2 * both + second) / (of_a + of_b + second)


def _blurred(x):
    """Blur float32[n, H, W] with the Gaussian window, only where all of it fits."""
    offset = np.arange(TAPS) - TAPS // 2
    window = np.exp(-(offset**2) / (2 * SIGMA**2))
    window = (window / window.sum()).tolist()
    height, width = x.shape[1] - TAPS + 1, x.shape[2] - TAPS + 1
    parts = jnp.stack([x[:, n : n + height] * share for n, share in enumerate(window)])
    x = jnp.sum(parts, axis=0)
    return jnp.sum(jnp.stack([x[:, :, n : n + width] * share for n, share in enumerate(window)]), axis=0)


def _halved(x):
    n, height, width = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return jnp.mean(x.reshape(n, height // 2, 2, width // 2, 2), axis=(2, 4))


def weighted(decoded: Pixels, target: Target, weights: DistortionWeights) -> PerExample:
    """Return log MSE plus the other measures, multiplied by their weights.

    Args:
        decoded: the decoded clips.
        target: the originals.
        weights: weights of the other measures; a measure of weight 0 is not computed.
    """
    total = log_mse(decoded, target)
    if weights.ms_ssim:
        total = total + weights.ms_ssim * (1 - ms_ssim(decoded, target))
    if weights.haar:
        total = total + weights.haar * haar_l1(decoded, target)
    return total
