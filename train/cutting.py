"""Cut one video into pieces: scenes, stretches of scenes, and crops of stretches.

A hard cut starts a new scene, a scene is divided into stretches of ``frames`` frames, and a stretch gives ``pieces``
crops at random positions, every other one at half size. Stretches in which nothing moves are left out and counted, and
so is the rest of a scene that is shorter than the smallest piece. Only one frame at a time is in memory, besides the
crops of the current stretch. This module does not use jax.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from helix_jax import video
from train import shards
from train.data import halve

THUMB = 32  # side of the thumbnails that cuts and stillness are measured on, in pixels
# At a cut the thumbnails differ by more than CUT_JUMP + CUT_RATIO * their usual difference (mean absolute luma levels),
# and CUT_SHARE of the pixels change to another of CUT_BINS luma classes. Fast motion moves pixels, but keeps
# the histogram. This finds the six cuts that were seen in the training videos. The false positives are flashes, a jump
# in time, and the first frames of whip pans, before the usual difference is known. Cross-fades are not cuts.
CUT_JUMP, CUT_RATIO, CUT_START, CUT_MEMORY = 10.0, 2.0, 4.0, 8
CUT_SHARE, CUT_BINS = 0.12, 8
STILL = 0.1  # mean difference below which a stretch is still, in levels; the slowest of the training videos has 0.15


@dataclass(frozen=True)
class Cutting:
    """What to cut.

    Attributes:
        frames: frames of a full piece.
        size: height and width of a full piece, in pixels.
        smallest: (frames, size) of the smallest piece.
        pieces: number of pieces from each stretch.
        seed: seed of the positions of the pieces.
    """

    frames: int
    size: int
    smallest: tuple[int, int]
    pieces: int
    seed: int


@dataclass
class Report:
    """What became of a clip.

    Attributes:
        clip: name of the clip.
        frames: number of decoded frames.
        seconds: their duration.
        width: width of the video, in pixels.
        height: height of the video, in pixels.
        scenes: number of scenes.
        still: frames that were left out because nothing moves.
        short: frames that were left out because the rest of their scene is too short.
        pieces: number of pieces.
        bytes: size of the samples of all pieces.
        broken: the reason why decoding ended before the clip did, or None.
        dropped: the reason why there is no piece, or None.
    """

    clip: str
    frames: int = 0
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    scenes: int = 0
    still: int = 0
    short: int = 0
    pieces: int = 0
    bytes: int = 0
    broken: str | None = None
    dropped: str | None = None


@dataclass
class _Stretch:
    """A stretch of one scene while it is read; only its crops are kept.

    Attributes:
        start: number of its first frame.
        places: (scale, y, x, h, w) of each piece, with h and w after scaling.
        crops: for each frame so far, the crops of all pieces.
        length: number of frames so far.
        moved: sum of the differences between its thumbnails.
    """

    start: int
    places: list
    crops: list = field(default_factory=list)
    length: int = 0
    moved: float = 0.0

    def add(self, rgb: UInt8[np.ndarray, "H W 3"]) -> None:
        """Take the crops of the next frame."""
        taken = []
        for scale, y, x, h, w in self.places:
            part = rgb[None, y : y + scale * h, x : x + scale * w]
            taken.append(halve(part)[0] if scale == 2 else part[0].copy())
        self.crops.append(taken)
        self.length += 1

    def finish(self, clip: str, cutting: Cutting, report: Report) -> Iterator[shards.Piece]:
        """Yield the pieces, or count in the report why there are none."""
        if self.length < cutting.smallest[0]:
            report.short += self.length
        elif self.moved < STILL * (self.length - 1):
            report.still += self.length
        else:
            for (scale, *_), crops in zip(self.places, zip(*self.crops, strict=True), strict=True):
                piece = shards.Piece(clip, self.start, scale, np.stack(crops))
                report.pieces += 1
                report.bytes += piece.frames.nbytes
                yield piece


def _places(height: int, width: int, clip: str, start: int, cutting: Cutting) -> list[tuple[int, int, int, int, int]]:
    """Draw (scale, y, x, h, w) for the pieces of a stretch; none if the video is too small.

    The draw depends only on the seed, the clip's name and the stretch, so that other videos in the folder change
    nothing.
    """
    generator = np.random.default_rng([cutting.seed, zlib.crc32(clip.encode()), start])
    scales = [scale for scale in (1, 2) if min(height, width) // scale >= cutting.smallest[1]]
    places = []
    for number in range(cutting.pieces if scales else 0):
        scale = scales[number % len(scales)]
        h, w = min(cutting.size, height // scale), min(cutting.size, width // scale)
        y, x = (int(generator.integers(0, n - scale * m + 1)) for n, m in ((height, h), (width, w)))
        places.append((scale, y, x, h, w))
    return places


def cut(path: Path, clip: str, cutting: Cutting, report: Report) -> Iterator[shards.Piece]:
    """Yield the pieces of one video; the memory used does not depend on its length.

    Args:
        path: the video file.
        clip: its name.
        cutting: what to cut.
        report: the report to fill in.
    """
    reformatter = VideoReformatter()
    level, last, stretch = CUT_START, None, None
    try:
        for number, frame in enumerate(video.frames(path)):
            height, width, _ = frame.rgb.shape
            report.frames, report.seconds, report.height, report.width = number + 1, frame.seconds, height, width
            # as it is stored: how much thumbnails and histograms differ does not depend on the orientation
            thumb = reformatter.reformat(
                frame.decoded, width=THUMB, height=THUMB, format="gray", interpolation=Interpolation.AREA, threads=1
            )
            thumb = thumb.to_ndarray().astype(np.int16)
            histogram = np.bincount(thumb.ravel() * CUT_BINS // 256, minlength=CUT_BINS) / thumb.size
            if last is None:
                difference, is_cut = 0.0, True
            else:
                difference = float(np.abs(thumb - last[0]).mean())
                limit = CUT_JUMP + CUT_RATIO * level
                is_cut = difference > limit and np.abs(histogram - last[1]).sum() / 2 > CUT_SHARE
                level += (min(difference, limit) - level) / CUT_MEMORY
            last = thumb, histogram
            report.scenes += bool(is_cut)
            if stretch and (is_cut or stretch.length == cutting.frames):
                yield from stretch.finish(clip, cutting, report)
                stretch = None
            if stretch is None:
                stretch = _Stretch(number, _places(height, width, clip, number, cutting))
            else:
                stretch.moved += difference
            stretch.add(frame.rgb)
    except video.VideoError as error:
        report.broken = f"broken after {report.frames} frames: {error.reason}"
    if stretch:
        yield from stretch.finish(clip, cutting, report)
    if not report.pieces:
        frames, size = cutting.smallest
        if report.frames and min(report.width, report.height) < size:
            report.dropped = f"{report.width}x{report.height} pixels, smaller than {size}x{size}"
        else:
            report.dropped = report.broken or (
                "nothing moves" if report.still else f"no scene of {frames} frames or more"
            )
