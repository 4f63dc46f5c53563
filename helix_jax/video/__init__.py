"""Video files <-> uint8 RGB frames or YUV frames and Opus for AV1 pools, and clips in memory.

A clip is anything with ``info`` (a VideoInfo) and ``blocks(n)``, which yields its frames from the start each time it is
called: ``open_video`` gives the clip of a file, ``Clip`` that of an array. ``frames`` reads a file only once, and
without the promise that all of it can be read.
"""

from helix_jax.config import Preparation
from helix_jax.video.clip import SUFFIXES, Clip, Complete, VideoError, VideoInfo
from helix_jax.video.images import is_clip
from helix_jax.video.muxing import check_output, remux
from helix_jax.video.reading import Frame, VideoReader, frames, open_video
from helix_jax.video.signal import Signal
from helix_jax.video.sound import Sound
from helix_jax.video.writing import VideoWriter

__all__ = [
    "SUFFIXES",
    "Clip",
    "Complete",
    "Frame",
    "Preparation",
    "Signal",
    "Sound",
    "VideoError",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "check_output",
    "frames",
    "is_clip",
    "open_video",
    "remux",
]
