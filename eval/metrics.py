"""Picture quality: PSNR and MS-SSIM of clips, computed for each frame and averaged over the frames."""

import numpy as np
from jaxtyping import UInt8
from skimage.metrics import structural_similarity

# Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality assessment" (2003), table 1
SCALE_WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])
# BT.601 luma of RGB
LUMA = np.array([0.299, 0.587, 0.114])


Clip = UInt8[np.ndarray, "T H W 3"]


def psnr(original: Clip, decoded: Clip) -> float:
    """Return the mean PSNR of the frames in dB; equal frames count as 100 dB."""
    error = np.square(original.astype(np.float64) - decoded.astype(np.float64)).mean(axis=(1, 2, 3))
    return float(np.mean(10 * np.log10(255.0**2 / np.maximum(error, 255.0**2 * 1e-10))))


def ms_ssim(original: Clip, decoded: Clip) -> float:
    """Return the mean multi-scale SSIM of the luma of the frames.

    There are five scales, and fewer for pictures that are too small for the 11-tap window at the coarsest one (the
    weights are then scaled to sum to one). Contrast and structure count at every scale, luminance at the coarsest one.
    """
    return float(np.mean([_ms_ssim_frame(a @ LUMA, b @ LUMA) for a, b in zip(original, decoded, strict=True)]))


def _ms_ssim_frame(a, b):
    scales = int(np.clip(np.floor(np.log2(min(a.shape) / 11)) + 1, 1, len(SCALE_WEIGHTS)))
    weights = SCALE_WEIGHTS[:scales] / SCALE_WEIGHTS[:scales].sum()
    product = 1.0
    for scale, weight in enumerate(weights):
        if scale:
            a, b = _halve(a), _halve(b)
        last = scale == scales - 1
        value = structural_similarity(a, b, **_GAUSSIAN) if last else _contrast_structure(a, b)
        product *= max(value, 0.0) ** weight
    return product


_GAUSSIAN = {"data_range": 255.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


def _contrast_structure(a, b):
    """Return the contrast-structure term: the SSIM of the two pictures lifted so far that the luminance term is one."""
    # the luminance term (2 m n + c) / (m^2 + n^2 + c) is 1 to 1e-8 for |m - n| < 256 around 1e6; the rest ignores means
    lift = 1e6
    return structural_similarity(a + lift, b + lift, **_GAUSSIAN)


def _halve(a):
    height, width = a.shape[0] // 2 * 2, a.shape[1] // 2 * 2
    a = a[:height, :width]
    return (a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2]) / 4
