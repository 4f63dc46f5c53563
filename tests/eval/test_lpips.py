"""LPIPS against a plain computation in NumPy and SciPy, with random weights under the published names."""

import numpy as np
import pytest
import safetensors.numpy
from scipy.signal import correlate2d

from eval import lpips
from helix_jax.files import WeightsError


@pytest.fixture(scope="module")
def weights():
    generator = np.random.default_rng(0)
    found = {}
    for name, shape in lpips.shapes().items():
        spread = 0.1 if name.endswith("bias") else np.sqrt(2 / np.prod(shape[1:]))
        found[name] = generator.normal(0, spread, shape).astype(np.float32)
        if name.startswith("lin"):
            found[name] = np.abs(found[name])
    return found


def pictures(count, height, width, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def plain_distance(weights, a, b):
    """One pair of pictures, channel by channel."""
    total = 0.0
    for place, (one, other) in enumerate(zip(plain_features(weights, a), plain_features(weights, b), strict=True)):
        linear = weights[f"lin{place}.model.1.weight"][0, :, 0, 0].astype(float)
        total += np.mean(np.tensordot(linear, (one - other) ** 2, 1))
    return total


def plain_features(weights, picture):
    x = picture.astype(float).transpose(2, 0, 1) / 255 * 2 - 1
    x = (x - np.array([-0.030, -0.088, -0.188])[:, None, None]) / np.array([0.458, 0.448, 0.450])[:, None, None]
    for number, stride, padding, pooled in ((0, 4, 2, 0), (3, 1, 2, 1), (6, 1, 1, 1), (8, 1, 1, 0), (10, 1, 1, 0)):
        if pooled:
            sizes = [(side - 3) // 2 + 1 for side in x.shape[1:]]
            x = np.stack([
                np.array([[c[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max() for j in range(sizes[1])]
                          for i in range(sizes[0])])
                for c in x
            ])  # fmt: skip
        kernels = weights[f"features.{number}.weight"].astype(float)
        padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
        x = np.stack([
            sum(correlate2d(c, k, "valid") for c, k in zip(padded, kernel, strict=True))[::stride, ::stride]
            for kernel in kernels
        ])  # fmt: skip
        x = np.maximum(x + weights[f"features.{number}.bias"].astype(float)[:, None, None], 0)
        yield x / (np.sqrt((x**2).sum(axis=0)) + 1e-10)


def test_against_a_plain_computation(weights):
    """Narrower layers, as the plain way is slow; a size with a remainder in every stride."""
    narrow = {}
    widths = dict(zip((0, 3, 6, 8, 10), (6, 9, 12, 8, 8), strict=True))
    inputs = dict(zip((0, 3, 6, 8, 10), (3, 6, 9, 12, 8), strict=True))
    for place, number in enumerate(widths):
        narrow[f"features.{number}.weight"] = weights[f"features.{number}.weight"][: widths[number], : inputs[number]]
        narrow[f"features.{number}.bias"] = weights[f"features.{number}.bias"][: widths[number]]
        narrow[f"lin{place}.model.1.weight"] = weights[f"lin{place}.model.1.weight"][:, : widths[number]]
    a, b = pictures(5, 45, 52, 1), pictures(5, 45, 52, 2)
    expected = [plain_distance(narrow, *pair) for pair in zip(a, b, strict=True)]
    assert np.ptp(expected) > 1e-3
    assert lpips.distance(narrow, a, b) == pytest.approx(np.mean(expected), rel=1e-4)


def test_whole_net(weights):
    a = pictures(1, 64, 64, 3)
    near = np.clip(a.astype(int) + 3, 0, 255).astype(np.uint8)
    assert lpips.distance(weights, a, a) == pytest.approx(0, abs=1e-6)
    assert 0 < lpips.distance(weights, a, near) < lpips.distance(weights, a, pictures(1, 64, 64, 4))


def test_smallest_picture(weights):
    lpips.distance(weights, *[pictures(1, lpips.SMALLEST, lpips.SMALLEST, seed) for seed in (0, 1)])
    with pytest.raises(ValueError, match="LPIPS of pictures of 64x30: 31 pixels"):
        lpips.distance(weights, pictures(1, 30, 64, 0), pictures(1, 30, 64, 1))


def test_files(tmp_path, weights):
    path = tmp_path / "alex.safetensors"
    safetensors.numpy.save_file(weights | {"classifier.1.bias": np.zeros(3, np.float32)}, path)
    back = lpips.load(path)
    assert back.keys() == lpips.shapes().keys()
    np.testing.assert_array_equal(back["features.6.weight"], weights["features.6.weight"])
    safetensors.numpy.save_file({name: w for name, w in weights.items() if name != "lin2.model.1.weight"}, path)
    with pytest.raises(
        WeightsError, match=r"needs lin2\.model\.1\.weight of shape \(1, 384, 1, 1\); the file has none"
    ):
        lpips.load(path)
    path.write_bytes(b"no")
    with pytest.raises(WeightsError, match="no safetensors file"):
        lpips.load(path)
    with pytest.raises(WeightsError, match="no safetensors file"):
        lpips.load(tmp_path / "absent")
