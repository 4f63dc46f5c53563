"""Clips in memory, of smooth noise."""

import numpy as np
import pytest

from helix_jax.video import Clip, planes
from helix_jax.video.signal import Signal


class YuvClip(Clip):
    """A clip that also says what AV1 is compared with."""

    def shown(self):
        """uint8[T, H, W, 3] of the frames in 4:2:0."""
        return np.stack([planes.rgb(frame, self.signal) for frame in self.yuv()])


@pytest.fixture(scope="session")
def yuv_clip():
    """yuv_clip(frames, fps=25): such a clip."""
    return YuvClip


@pytest.fixture(scope="session")
def scene():
    """scene(frames, height, width, seed=0) -> uint8[T, H, W, 3]: smooth noise that moves, another one for each seed."""

    def make(frames, height, width, seed=0):
        generator = np.random.default_rng(seed)
        coarse = generator.integers(0, 256, (height // 8 + frames // 8 + 3, width // 8 + 3, 3)).astype(np.float32)
        fine = np.repeat(np.repeat(coarse, 8, 0), 8, 1)
        for axis in (0, 1):
            fine = sum(np.roll(fine, step, axis) for step in range(8)) / 8
        return np.stack([fine[t : t + height, :width] for t in range(8, 8 + frames)]).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def colours():
    """The signal of such clips."""
    return Signal()
