"""Single images, and sequences of them, as clips: which files they are, and decoded pictures -> files.

A sequence is a name with a number in it as C's printf writes it (``frames/%04d.png``), or a folder of images, which are
taken in the order of the numbers in their names. Where only a number distinguishes them, none may be missing.
"""

import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from jaxtyping import UInt8

from helix_jax import files
from helix_jax.video import pictures
from helix_jax.video.clip import SUFFIXES as OF_VIDEOS
from helix_jax.video.clip import VideoError

# How an image is written: encoder, pixel format and options. Only JPEG loses something.
FORMATS: dict[str, tuple[str, str, dict[str, str]]] = {
    ".png": ("png", "rgb24", {}),
    ".tif": ("tiff", "rgb24", {"compression_algo": "deflate"}),
    ".tiff": ("tiff", "rgb24", {"compression_algo": "deflate"}),
    ".webp": ("libwebp", "bgra", {"lossless": "1"}),
    ".jpg": ("mjpeg", "yuvj444p", {"qmin": "1", "qmax": "1", "huffman": "optimal"}),
    ".jpeg": ("mjpeg", "yuvj444p", {"qmin": "1", "qmax": "1", "huffman": "optimal"}),
}
RATE = Fraction(25)  # frames per second, where none is given
_LOSSY = (".jpg", ".jpeg")
_NUMBER = re.compile(r"%(?:0(\d{1,2}))?d")


def is_image(path: str | os.PathLike) -> bool:
    """Return whether a file is named like an image, or is a sequence of those."""
    return Path(path).suffix.lower() in FORMATS


def is_pattern(path: str | os.PathLike) -> bool:
    """Return whether a name stands for the images of a sequence, as there is no file of that name."""
    return is_image(path) and _NUMBER.search(Path(path).name) is not None and not os.path.lexists(path)


def is_clip(path: str | os.PathLike) -> bool:
    """Return whether a file is named like a video or an image, or is a sequence of images."""
    return os.path.isdir(path) or Path(path).suffix.lower() in (*OF_VIDEOS, *FORMATS)


# ---- reading -------------------------------------------------------------------------------


def sequence(path: str | os.PathLike) -> tuple[Path, ...]:
    """Return the files of a sequence in their order; () for what is none.

    Raises VideoError for a sequence without files, or with a hole.
    """
    path = Path(path)
    if path.is_dir():
        found = [one for one in path.iterdir() if is_image(one) and one.is_file() and not one.name.startswith(".")]
        found.sort(key=lambda one: _natural(one.name))
        if not found:
            raise VideoError(f"{path}: this folder has no image ({', '.join(FORMATS)}); name a file, or another folder")
        parts = [re.fullmatch(r"(.*?)(\d+)(\D*)", one.name) for one in found]
        if all(parts) and len({(part[1], part[3].lower()) for part in parts if part}) == 1:
            _check_holes(path, {int(part[2]): one for part, one in zip(parts, found, strict=True) if part})
        return tuple(found)
    if not is_pattern(path):
        return ()
    number = _NUMBER.search(path.name)
    assert number is not None
    digits = rf"(\d{{{number[1]},}})" if number[1] else r"(0|[1-9]\d*)"
    name = re.compile(re.escape(path.name[: number.start()]) + digits + re.escape(path.name[number.end() :]))
    folder = path.parent
    numbered = {
        int(match[1]): folder / match[0]
        for match in map(name.fullmatch, os.listdir(folder) if folder.is_dir() else ())
        if match
    }
    if not numbered:
        raise VideoError(f"{path}: there is no file of such a name; check the folder, and the digits of the numbers")
    _check_holes(path, numbered)
    return tuple(numbered[n] for n in sorted(numbered))


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return what names are ordered by: the numbers in them by their value."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.findall(r"\d+|\D+", name)]


def _check_holes(path, numbered):
    numbers = sorted(numbered)
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    if missing:
        first = next(a + 1 for a, b in itertools.pairwise(numbers) if b != a + 1)
        more = f" and {missing - 1} more" if missing > 1 else ""
        raise VideoError(
            f"{path}: number {first}{more} of {numbers[0]} to {numbers[-1]} is missing; add it, or number the "
            "images without a hole"
        )


# ---- writing -------------------------------------------------------------------------------


def check_output(path: str | os.PathLike, lossless: bool = False) -> None:
    """Raise OutputError where a sequence would be mixed with images that are there, or a JPEG is to lose nothing."""
    if lossless and Path(path).suffix.lower() in _LOSSY:
        raise files.OutputError(
            f"cannot write {path} with --lossless: a JPEG always loses something; give a name that ends in .png, .tif "
            "or .webp"
        )
    if is_pattern(path):
        folder = Path(path).parent
        if not folder.is_dir():
            raise files.OutputError(f"cannot write {path}: there is no folder {folder}; create it first")
        try:
            there = sequence(path)
        except VideoError as error:
            if "no file" in str(error):
                return
            raise
        raise files.OutputError(f"cannot write {path}: {there[0].name} is there already; empty the folder first")


def write(path: str | os.PathLike, blocks: Iterator[UInt8[np.ndarray, "n H W 3"]], count: int) -> str:
    """Write decoded pictures, each to an image file of its own: all of them or none.

    Args:
        path: The file of a single picture, or a pattern, whose numbers begin with 1.
        blocks: The pictures.
        count: How many.

    Returns:
        The pixel format of the files.

    Raises:
        VideoError: There are several pictures, and the name is no pattern.
        OutputError: A file cannot be written.
    """
    every, suffix = itertools.chain.from_iterable(blocks), Path(path).suffix.lower()
    if not is_pattern(path):
        if count != 1:
            raise VideoError(
                f"{path}: the pool has {count} pictures; name a sequence, such as "
                f"{Path(path).with_name(f'%04d{suffix}')}, or a video file"
            )
        with files.atomic(path) as temporary:
            temporary.write_bytes(_encoded(next(every), suffix))
        return FORMATS[suffix][1]
    check_output(path)
    folder, name = Path(path).parent, Path(path).name
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as aside:
        made = []
        for number, picture in enumerate(every, 1):
            made.append(_NUMBER.sub(lambda match, n=number: f"{n:0{match[1] or 1}d}", name, count=1))
            with files.atomic(Path(aside) / made[-1]) as temporary:
                temporary.write_bytes(_encoded(picture, suffix))
        placed = []
        try:
            for one in made:
                _place(Path(aside) / one, folder / one)
                placed.append(folder / one)
        except BaseException:
            for one in placed:
                one.unlink(missing_ok=True)
            raise
    return FORMATS[suffix][1]


def _place(source, target):
    """Give a new file its name, unless a file has it. Raises OutputError."""
    try:
        os.link(source, target)
        return
    except FileExistsError:
        pass
    except OSError:  # the file system has no links
        if not os.path.lexists(target):
            shutil.move(source, target)
            return
    raise files.OutputError(f"cannot write {target}: it is there already; empty the folder first")


def _encoded(picture, suffix):
    """Return a picture as the bytes of an image file."""
    encoder, pixels, options = FORMATS[suffix]
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    colours: dict[str, Any] = {}
    if encoder == "mjpeg":
        colours = {"dst_colorspace": Colorspace.ITU601, "dst_color_range": ColorRange.JPEG}
    frame = VideoReformatter().reformat(frame, format=pixels, interpolation=pictures.PRECISE, threads=1, **colours)
    context: Any = av.CodecContext.create(encoder, "w")
    context.width, context.height, context.pix_fmt = frame.width, frame.height, pixels
    context.time_base, context.options = Fraction(1, 25), options
    try:
        return b"".join(map(bytes, [*context.encode(frame), *context.encode(None)]))
    except av.FFmpegError as error:
        raise VideoError(
            f"a picture of {frame.width}x{frame.height} cannot be written as {suffix} ({error.strerror})"
        ) from error
