"""Clips in memory, and what the readers of files share with them."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from helix_jax.errors import HelixError


class VideoError(HelixError):
    """A clip that cannot be read, or not be kept as it is: names the file and the remedy."""


@dataclass(frozen=True)
class VideoInfo:
    """frames: count; height, width: pixels, upright; fps: frames per second, exact."""

    frames: int
    height: int
    width: int
    fps: Fraction


class Clip:
    """A clip in memory, which can be encoded like a file that ``open_video`` has read.

    frames: uint8[T, H, W, 3] RGB. fps: frames per second, a Fraction or what one is made of.
    Raises VideoError for frames of another type or shape, none at all, or a rate of 0 or less.
    """

    def __init__(self, frames, fps=25):
        frames = np.asarray(frames)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
            raise VideoError(f"frames are {frames.dtype}{list(frames.shape)}: give uint8[T, H, W, 3], none of them 0")
        fps = Fraction(fps)
        if fps <= 0:
            raise VideoError(f"{fps} frames per second: give more than 0")
        self.frames, self.info = frames, VideoInfo(*frames.shape[:3], fps=fps)

    def blocks(self, frames=32):
        """Yield the clip from its start, uint8[n, H, W, 3] with n = ``frames`` but for the last block."""
        for start in range(0, len(self.frames), frames):
            yield self.frames[start : start + frames]
