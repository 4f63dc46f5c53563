"""What a pool of video gives back: pictures, sound, and where they can be copied, the coded pictures themselves."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from helix_jax.notes import Note
from helix_jax.stream import obus
from helix_jax.video import images, muxing
from helix_jax.video.clip import VideoInfo
from helix_jax.video.signal import Signal
from helix_jax.video.sound import Sound
from helix_jax.video.writing import VideoWriter


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
        note: What the pool knows of the clip's file, or None where it has no note or has lost it.
    """

    info: VideoInfo
    signal: Signal
    blocks: Iterator[UInt8[np.ndarray, "n H W 3"]]
    sound: Sound | None
    stream: tuple[bytes, ...] | None
    report: Any
    note: Note | None = None


def check_output(path: str | os.PathLike, lossless: bool = False) -> None:
    """Raise VideoError or OutputError, before any work, for a name to which no film can be written."""
    if images.is_image(path):
        images.check_output(path, lossless)
    else:
        muxing.check_output(path)


def write(path: str | os.PathLike, film: Film, lossless: bool = False) -> str:
    """Write a film to a video file: its coded pictures as they are where it has all of them, else its frames.

    Args:
        path: The file, .mp4, .mkv or .webm; ``-`` is standard output, which gets an MP4. Or an image, or the pattern of
            a sequence of images (``images.write``).
        film: The film, whose frames are used up.
        lossless: Write the decoded frames without loss, also where the coded pictures could be copied.

    Returns:
        The pixel format of the file.

    Raises:
        VideoError: For a path of another kind, or a file that cannot be written.
        DecodeError: The pictures turn out not to be what the pool says.
    """
    if images.is_image(path):
        return images.write(path, film.blocks, film.info.frames)
    if film.stream and not lossless:
        units = (unit for group in film.stream for unit in obus.units(group))
        muxing.remux(path, units, film.info, film.signal, film.sound)
        return "yuv420p10le"
    with VideoWriter(path, film.info, lossless, signal=film.signal, sound=film.sound) as out:
        for block in film.blocks:
            out.write(block)
    return out.pix_fmt
