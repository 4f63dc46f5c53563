"""Clips in memory whose frames are those that the AV1 side takes."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from helix_jax.stream import coded
from helix_jax.video import VideoInfo, pictures
from helix_jax.video.signal import Signal


class YuvClip:
    """uint8[T, H, W, 3] RGB -> frames in yuv420p10le, BT.709 in limited range."""

    def __init__(self, frames, fps=25):
        self.frames, self.signal = frames, Signal()
        self.info = VideoInfo(*frames.shape[:3], fps=Fraction(fps))

    def blocks(self, frames=32):
        for start in range(0, len(self.frames), frames):
            yield self.frames[start : start + frames]

    def shown(self):
        """uint8[T, H, W, 3] of the frames in 4:2:0, which is what AV1 is compared with."""
        reformatter = VideoReformatter()
        return np.stack([coded.rgb(reformatter, frame, self.signal) for frame in self.yuv()])

    def yuv(self):
        reformatter = VideoReformatter()
        for number, rgb in enumerate(self.frames):
            frame = reformatter.reformat(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"), format="yuv420p10le",
                dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, interpolation=pictures.PRECISE,
                threads=1,
            )  # fmt: skip
            frame.pts, frame.time_base = number, 1 / self.info.fps
            yield frame


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
