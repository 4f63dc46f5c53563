"""What a pool of video gives back: pictures, sound, and where they can be copied, the coded pictures themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from helix_jax.video.clip import VideoInfo
from helix_jax.video.signal import Signal
from helix_jax.video.sound import Sound


@dataclass(frozen=True, eq=False)
class Film:
    """A clip that a pool gave back.

    Attributes:
        info: The facts about the clip.
        signal: Its colours and its pixel aspect.
        blocks: Its frames in blocks, which can be read once.
        sound: Its sound, or None where it has none or has lost it.
        stream: All of the picture as bare AV1, group by group, where it has the clip's size and nothing is lost; else
            None. A file of it has no second loss.
        report: What became of the pool (``writer.Report``).
    """

    info: VideoInfo
    signal: Signal
    blocks: Iterator[UInt8[np.ndarray, "n H W 3"]]
    sound: Sound | None
    stream: tuple[bytes, ...] | None
    report: Any
