"""Clips in memory, and what the readers of files share with them."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

from helix_jax.errors import HelixError
from helix_jax.video import planes
from helix_jax.video.signal import Signal

# The suffixes that are searched for in folders. A file that is passed itself may have any suffix.
SUFFIXES = (
    ".3gp", ".asf", ".avi", ".flv", ".gif", ".h264", ".hevc", ".ivf", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg",
    ".mpg", ".mts", ".mxf", ".nut", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m",
)  # fmt: skip


class VideoError(HelixError):
    """A clip that cannot be read, or cannot be kept as it is; the message names the file and the remedy.

    Attributes:
        reason: What is wrong, in a few words without the file and the remedy where there are such, else the message.
    """

    def __init__(self, message: str, reason: str | None = None):
        super().__init__(message)
        self.reason = message if reason is None else reason


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a clip.

    Attributes:
        frames: Number of frames.
        height: Height in pixels, upright.
        width: Width in pixels, upright.
        fps: Frames per second, exact.
    """

    frames: int
    height: int
    width: int
    fps: Fraction


class Clip:
    """A clip in memory, which can be encoded like a file that ``open_video`` has read.

    Args:
        frames: uint8[T, H, W, 3] RGB.
        fps: Frames per second, a Fraction or what a Fraction can be made of.

    Raises:
        VideoError: For frames of another type or shape, no frames at all, or a rate of 0 or less.

    Attributes:
        frames: The frames.
        info: Size, frames and rate.
        signal: The colours that ``yuv`` gives them: BT.709 in limited range, and square pixels.
    """

    signal = Signal()

    def __init__(self, frames: Any, fps: Fraction | int | float | str = 25):
        frames = np.asarray(frames)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
            raise VideoError(f"frames are {frames.dtype}{list(frames.shape)}: give uint8[T, H, W, 3], none of them 0")
        fps = Fraction(fps).limit_denominator(100_000) if isinstance(fps, float) else Fraction(fps)
        if not fps > 0 or max(fps.numerator, fps.denominator) >= 1 << 31:
            raise VideoError(f"{fps} frames per second: give more than 0, as a fraction of numbers of 31 bits")
        self.frames, self.info = frames, VideoInfo(*frames.shape[:3], fps=fps)

    def blocks(self, frames: int = 32) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
        """Yield the clip from its start in blocks of ``frames`` frames, of which the last may be shorter."""
        for start in range(0, len(self.frames), frames):
            yield self.frames[start : start + frames]

    def yuv(self) -> Iterator[av.VideoFrame]:
        """Yield the clip from its start as frames of YUV 4:2:0 with 10 bits, whose timestamps count them from 0."""
        for number, picture in enumerate(self.frames):
            yield planes.frame(planes.from_rgb(picture), self.signal, number, self.info.fps)

    def sound(self, kbit: float) -> None:
        """Return None: a clip in memory has no sound."""


class Complete:
    """Any clip that has ``info`` and ``blocks``, with all that a pool may keep of one.

    Args:
        clip: The clip. Where it has no ``yuv``, its pictures are taken for BT.709, and where it has no ``sound``, it is
            silent.

    Attributes:
        info: Size, frames and rate.
        signal: The colours that ``yuv`` gives.
        blocks: The clip's own function.
    """

    def __init__(self, clip: Any):
        self.clip, self.info, self.blocks = clip, clip.info, clip.blocks
        self.signal = clip.signal if hasattr(clip, "yuv") else Signal()

    def yuv(self) -> Iterator[av.VideoFrame]:
        """Yield the clip from its start as ``Clip.yuv`` does."""
        if hasattr(self.clip, "yuv"):
            yield from self.clip.yuv()
            return
        number = 0
        for block in self.clip.blocks():
            for picture in block:
                yield planes.frame(planes.from_rgb(picture), self.signal, number, self.info.fps)
                number += 1

    def sound(self, kbit: float) -> Any:
        """Return the clip's sound, or None."""
        return self.clip.sound(kbit) if hasattr(self.clip, "sound") else None
