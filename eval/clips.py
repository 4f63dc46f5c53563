"""The clips that are measured: which files of a folder, how many frames, and whether they are clean."""

import sys
import zlib
from pathlib import Path

import numpy as np

from helix_jax import video
from train.data import halve

SUFFIXES = (".mp4", ".y4m")
CLEAN_BITS = 1.0  # of the file, per pixel: with fewer, much of what a later coder has to tell was left out before


class Clip(video.Clip):
    """A clip in memory with its name. clean: not compressed much before."""

    def __init__(self, name, frames, fps, clean):
        super().__init__(frames, fps)
        self.name, self.clean = name, clean


def clips_of(folder, names):
    """Paths of the clips of a folder, or of those named (with or without suffix). Exits where one is not there."""
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix in SUFFIXES)
    known = {name for path in paths for name in (path.name, path.stem)}
    missing = ", ".join(name for name in names if name not in known)
    if missing or not paths:
        have = ", ".join(path.name for path in paths) or "no clips: give a folder with .mp4 or .y4m files"
        sys.exit(f"{folder} has {have}" + (f", and not {missing}: name those with --clips" if paths else ""))
    return [path for path in paths if not names or path.name in names or path.stem in names]


def frames_of(reader, count):
    """The first ``count`` frames of a clip (0: all), uint8[T, H, W, 3]."""
    blocks, have = [], 0
    for block in reader.blocks():
        blocks.append(block)
        have += len(block)
        if count and have >= count:
            break
    return np.concatenate(blocks)[: count or None]


def name_of(path, half):
    """What a clip is called, whole or at half size."""
    return Path(path).name + (" (half size)" if half else "")


def load(path, count, half=False):
    """The first ``count`` frames (0: all) of a file -> Clip.

    half: at half size, the mean of 2 x 2 pixels, which takes most of an earlier coder's traces out. Clean is what was
    halved, or spends CLEAN_BITS on a pixel of its file: copies for the web spend a tenth of that.
    """
    reader = video.open_video(path)
    frames, info = frames_of(reader, count), reader.info
    spent = 8 * Path(path).stat().st_size / (info.frames * info.height * info.width)
    if half:
        frames = halve(frames)
    return Clip(name_of(path, half), frames, info.fps, half or spent >= CLEAN_BITS)


def generator(seed, name):
    """numpy Generator of a clip by its name."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
