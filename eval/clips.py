"""The clips that are measured: which files of a folder, how many frames, and whether they are clean."""

import math
import os
import sys
import tempfile
import wave
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from helix_jax import video
from helix_jax.video import sound
from train.data import halve

CLEAN_BITS = 1.0  # bits of the file per pixel; with fewer, an earlier coder has already removed much of the detail


class Clip(video.Clip):
    """A clip in memory with its name.

    Attributes:
        name: name of the clip.
        clean: whether the clip was not compressed much before.
        kbit: kbit/s of its sound, 0 without one.
        heard: its sound as the codec stores it, no bytes without one.
    """

    def __init__(
        self, name: str, frames: UInt8[np.ndarray, "T H W 3"], fps: Fraction, clean: bool, kbit: float = 0
    ) -> None:
        super().__init__(frames, fps)
        self.name, self.clean, self.kbit = name, clean, kbit
        self._sound = voice(self.info.frames / fps, kbit) if kbit else None
        self.heard = self._sound.to_bytes() if self._sound else b""

    def sound(self, kbit: float) -> sound.Sound | None:  # pyrefly: ignore[bad-override]
        """Return the sound, which was made with ``self.kbit``."""
        assert kbit == self.kbit or not self.kbit
        return self._sound


def clips_of(folder: str | os.PathLike, names: Sequence[str]) -> list[Path]:
    """Return the paths of the clips in a folder, or of those with these names (with or without suffix).

    The program exits if one of them does not exist.
    """
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in video.SUFFIXES)
    known = {name for path in paths for name in (path.name, path.stem)}
    missing = ", ".join(name for name in names if name not in known)
    if missing or not paths:
        have = ", ".join(path.name for path in paths) or "no clips: give a folder with videos, such as .mp4 or .y4m"
        sys.exit(f"{folder} has {have}" + (f", and not {missing}: name those with --clips" if paths else ""))
    return [path for path in paths if not names or path.name in names or path.stem in names]


def frames_of(reader: Any, count: int) -> UInt8[np.ndarray, "T H W 3"]:
    """Return the first ``count`` frames of a clip, as ``video.open_video`` gives it; 0 means all frames."""
    blocks, have = [], 0
    for block in reader.blocks():
        blocks.append(block)
        have += len(block)
        if count and have >= count:
            break
    return np.concatenate(blocks)[: count or None]


def name_of(path: str | os.PathLike, half: bool) -> str:
    """Return the name of a clip, at full or at half size."""
    return Path(path).name + (" (half size)" if half else "")


def voice(seconds: Fraction, kbit: float) -> sound.Sound:
    """Return something like a voice as Opus: syllables of gliding harmonics with noise between them, always the same.

    Args:
        seconds: how long it lasts.
        kbit: the rate to aim at in kbit/s.
    """
    times, noise = np.arange(math.ceil(seconds * sound.RATE)) / sound.RATE, np.random.default_rng(0)
    pitch = np.cumsum(130 + 40 * np.sin(2 * np.pi * 0.7 * times)) / sound.RATE
    syllables = np.clip(2 * np.sin(2 * np.pi * 2.3 * times), 0, 1)
    samples = syllables * sum(np.sin(2 * np.pi * number * pitch) / number for number in range(1, 20)) / 4
    samples += 0.03 * (1 - syllables) * noise.normal(size=len(times))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "voice.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, sound.RATE, 0, "NONE", ""))
            file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
        made = sound.read(path, kbit, begin=Fraction(0), duration=seconds)
    assert made is not None
    return made


def load(path: str | os.PathLike, count: int, half: bool = False, kbit: float = 0) -> Clip:
    """Load the first frames of a file.

    A clip counts as clean if it is halved, or if its file has at least CLEAN_BITS per pixel; copies for the web have a
    tenth of that.

    Args:
        path: the file.
        count: number of frames; 0 means all.
        half: whether to halve the size by means of 2 x 2 pixels, which removes most traces of an earlier coder.
        kbit: kbit/s of the ``voice`` that is given to the clip in place of its own sound; 0 means no sound.
    """
    reader = video.open_video(path)
    frames, info = frames_of(reader, count), reader.info
    spent = 8 * Path(path).stat().st_size / (info.frames * info.height * info.width)
    if half:
        frames = halve(frames)
    return Clip(name_of(path, half), frames, info.fps, half or spent >= CLEAN_BITS, kbit)


def generator(seed: int, name: str) -> np.random.Generator:
    """Return the random generator of a clip, which depends on the seed and on the clip's name."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
