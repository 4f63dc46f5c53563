"""Picture quality: PSNR and MS-SSIM of clips, per frame, then the mean over frames."""

import numpy as np
from skimage.metrics import structural_similarity

# Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality assessment" (2003), table 1
SCALE_WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])
# BT.601 luma of RGB
LUMA = np.array([0.299, 0.587, 0.114])


def psnr(original, decoded):
    """Mean over frames of the PSNR in dB. Both uint8[T, H, W, 3]; equal frames count 100 dB."""
    error = np.square(original.astype(np.float64) - decoded.astype(np.float64)).mean(axis=(1, 2, 3))
    return float(np.mean(10 * np.log10(255.0**2 / np.maximum(error, 255.0**2 * 1e-10))))


def ms_ssim(original, decoded):
    """Mean over frames of the multi-scale SSIM of the luma, both uint8[T, H, W, 3].

    Five scales, fewer for pictures too small for the 11-tap window at the coarsest (the weights are then
    scaled to sum to one). Contrast and structure at every scale, luminance at the coarsest.
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
    """The contrast-structure term: SSIM of the two pictures moved so far up that the luminance term is one."""
    # luminance term (2 m n + c) / (m^2 + n^2 + c) is 1 to 1e-8 for |m - n| < 256 around 1e6; the rest ignores the mean
    lift = 1e6
    return structural_similarity(a + lift, b + lift, **_GAUSSIAN)


def _halve(a):
    height, width = a.shape[0] // 2 * 2, a.shape[1] // 2 * 2
    a = a[:height, :width]
    return (a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2]) / 4
