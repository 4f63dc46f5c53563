"""One video -> its pieces: scenes, stretches of scenes, crops. A frame is in memory at a time, and the crops so far.

A hard cut starts a new scene; a scene is divided into stretches of ``frames`` frames; a stretch gives ``pieces`` crops
at random places, every other one at half size. Stretches in which nothing moves, and the rest of a scene that is
shorter than the smallest piece, are left out and counted. No jax here.
"""

import zlib
from dataclasses import dataclass, field

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from helix_jax.video.pictures import PRECISE
from train import shards
from train.data import halve

THUMB = 32  # pixels a side of the thumbnails that cuts and stillness are measured on
# A cut: thumbnails differ by more than CUT_JUMP + CUT_RATIO * their usual difference (mean absolute luma levels), and
# CUT_SHARE of the pixels go to another of CUT_BINS luma classes: fast motion moves pixels, and keeps the histogram.
# Finds the six cuts that were seen in the training videos; the false ones are flashes, a jump in time, and the first
# frames of whip pans, before the usual difference is known. Cross-fades are no cuts.
CUT_JUMP, CUT_RATIO, CUT_START, CUT_MEMORY = 10.0, 2.0, 4.0, 8
CUT_SHARE, CUT_BINS = 0.12, 8
STILL = 0.1  # mean difference of a stretch, levels; the slowest of the training videos has 0.15


class Broken(Exception):
    """A clip that cannot be decoded from here on; the message is the reason."""


@dataclass(frozen=True)
class Cutting:
    """What to cut. frames, size: of a full piece; smallest: the same of the smallest; pieces: from each stretch;
    seed: of the places of the pieces.
    """

    frames: int
    size: int
    smallest: tuple[int, int]
    pieces: int
    seed: int


@dataclass
class Report:
    """What became of a clip. frames: decoded; scenes; pieces; bytes: of the pieces' samples; seconds; width, height.

    still, short: frames left out because nothing moves, or because too few are left of a scene.
    broken: why decoding ended before the clip did; dropped: why there is no piece; None where that is not so.
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


def _decoded(path, report):
    """Yield the frames of a video (av.VideoFrame), counting them in the report. Raises Broken where they end early."""
    try:
        # absolute: a name such as "pipe:0" must not be taken for a protocol
        with av.open(str(path.absolute())) as container:
            if not container.streams.video:
                raise Broken("no picture")
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # the clips are decoded in parallel already
            rate = float(stream.average_rate or stream.guessed_rate or 25)
            # what edit lists cut away is missing from the index, not from the header's count
            announced = min(stream.frames, len(stream.index_entries) or stream.frames)
            packets, frame_time = 0, None
            for packet in container.demux(stream):
                packets += packet.size > 0
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise Broken("a frame is damaged")
                    if not report.frames:
                        report.width, report.height = frame.width, frame.height
                    if (frame.width, frame.height) != (report.width, report.height):
                        raise Broken(f"the size changes to {frame.width}x{frame.height}")
                    report.frames += 1
                    report.seconds, frame_time = report.frames / rate, frame.time
                    yield frame
                if packet.is_corrupt:
                    raise Broken("the data end inside a frame")
            if packets < announced:
                raise Broken(f"the header announces {announced} frames")
            missing = _duration(stream) - (frame_time or 0.0)
            if missing * rate > 3:
                raise Broken(f"the header announces {missing:.1f} s more")
    except (av.FFmpegError, OSError) as error:
        raise Broken(error.strerror or str(error)) from error
    if not report.frames:
        raise Broken("no frame")


def _duration(stream):
    """Seconds that Matroska and WebM announce in a tag of the stream, hh:mm:ss.fraction; 0 where there is none."""
    try:
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except (KeyError, ValueError):
        return 0.0


@dataclass
class _Stretch:
    """A stretch of one scene while it is read: only its crops are kept. start: number of its first frame.

    places: (scale, y, x, h, w) of each piece, h and w after scaling. crops: for each piece its frames so far.
    moved: sum of the thumbnail differences inside.
    """

    start: int
    places: list
    crops: list = field(default_factory=list)
    length: int = 0
    moved: float = 0.0

    def add(self, rgb):
        taken = []
        for scale, y, x, h, w in self.places:
            part = rgb[None, y : y + scale * h, x : x + scale * w]
            taken.append(halve(part)[0] if scale == 2 else part[0].copy())
        self.crops.append(taken)
        self.length += 1

    def finish(self, clip, cutting, report):
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


def _places(height, width, clip, start, cutting):
    """Random (scale, y, x, h, w) for the pieces of a stretch; none where the video is too small.

    The draw depends on the clip's name and the stretch alone: other videos in the folder change nothing.
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


def cut(path, clip, cutting, report):
    """Yield the Pieces of one video and fill in its report. Memory does not grow with the length of the video."""
    reformatter = VideoReformatter()
    level, last, stretch = CUT_START, None, None
    try:
        for number, frame in enumerate(_decoded(path, report)):
            thumb = reformatter.reformat(
                frame, width=THUMB, height=THUMB, format="gray", interpolation=Interpolation.AREA, threads=1
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
                stretch = _Stretch(number, _places(frame.height, frame.width, clip, number, cutting))
            else:
                stretch.moved += difference
            rgb = reformatter.reformat(frame, format="rgb24", interpolation=PRECISE, threads=1).to_ndarray()
            stretch.add(rgb)
    except (Broken, av.FFmpegError) as error:  # the latter: pixels in a format that cannot be converted
        report.broken = f"broken after {report.frames} frames: {error}"
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
