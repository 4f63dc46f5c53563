"""Ordinary video codecs as one would use them for DNA: H.264, H.265 and AV1 by PyAV.

Each codes one closed group of pictures: an I picture, then P and B as the encoder chooses (no cut detection and no
other key frame), 4:2:0, BT.709, tuned for PSNR. The size is that of the elementary stream, not of a container: the
parameter sets and the coded pictures. Messages that the picture does not need are removed too: the SEI of H.264 and
H.265 (x264 writes its options there), and AV1's temporal delimiters, metadata and padding (the OBUs that a container
may drop by section 7.5 of the AV1 specification). Size in pixels, frame rate and number of frames are in the header
strands that all pools have.

At a low budget a small picture scaled up looks better than a coarse large one; ``compress`` has a scale for that. The
decoder is FFmpeg's (dav1d for AV1); ``damaged`` and ``expand`` say what it can make of a damaged stream.
"""

import dataclasses
import itertools
import math
import os
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from jaxtyping import Bool, UInt8

from helix_jax.stream import av1
from helix_jax.video.pictures import PRECISE

FILLED = 0.98  # share of the allowed bytes at which a stream is large enough
SCALING = Interpolation.LANCZOS | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# Least side of a scaled picture in pixels, one coding tree unit. Below it x265 4.2 may write past its memory.
LEAST = 64
GREY = 128  # level that is shown where no picture was decoded
os.environ.setdefault("SVT_LOG", "1")  # print errors only; otherwise SVT prints a greeting on standard error


@dataclass(frozen=True)
class Codec:
    """One way to code video.

    Attributes:
        name: name in files and rows.
        title: name in tables.
        encoder: FFmpeg's name of the encoder.
        decoder: FFmpeg's name of the decoder.
        presets: a quick and a thorough preset.
        largest: the largest CRF.
        step: least difference of two CRFs.
        halving: increase of the CRF that halves the bytes, approximately.
        ladder: (scale, CRFs) of the points of a curve.
    """

    name: str
    title: str
    encoder: str
    decoder: str
    presets: tuple[str, ...]
    largest: float
    step: float
    halving: float
    ladder: tuple[tuple[float, tuple[float, ...]], ...]

    def options(self, preset: str, crf: float) -> dict[str, str]:
        """Return FFmpeg's options. The number of threads, which changes the streams of x264 and x265, is fixed."""
        value = {"preset": preset}
        if self.encoder == "libx264":
            return value | {"crf": f"{crf:.3f}", "tune": "psnr", "x264-params": "keyint=infinite:scenecut=0:threads=1"}
        if self.encoder == "libx265":
            rules = "keyint=-1:scenecut=0:open-gop=0:info=0:frame-threads=1:log-level=none"
            return value | {"crf": f"{crf:.3f}", "tune": "psnr", "x265-params": rules}
        # tune 1 is PSNR, which is SVT's default too; scd is cut detection; FFmpeg's own option has whole CRFs only
        return value | {"svtav1-params": f"keyint=-1:tune=1:scd=0:lp=1:crf={crf:g}"}

    def scales(self, height: int, width: int) -> tuple[tuple[float, tuple[float, ...]], ...]:
        """Return the part of ``ladder`` that is possible for pictures of that size."""
        return tuple(step for step in self.ladder if step[0] == 1 or step[0] * min(height, width) >= LEAST)

    def bare(self, data: bytes) -> bytes:
        """Return the bytes of one picture, or of parameter sets, without what the picture does not need."""
        if self.encoder == "libsvtav1":
            return _without_obus(data)
        return _without_sei(data, self.decoder)


# From a good picture to as coarse as possible; scaled ones where they are better on some clip.
_TO_51 = ((1.0, (24, 31, 38, 45)), (0.5, (30, 38, 46)), (0.25, (34,)))
_TO_63 = ((1.0, (32, 43, 54, 63)), (0.5, (40, 52, 63)), (0.25, (48,)))
H264 = Codec("h264", "H.264", "libx264", "h264", ("medium", "veryslow"), 51.0, 0.05, 6, _TO_51)
H265 = Codec("h265", "H.265", "libx265", "hevc", ("medium", "slower"), 51.0, 0.05, 6, _TO_51)
AV1 = Codec("av1", "AV1", "libsvtav1", "libdav1d", ("8", "2"), 63.0, 0.25, 8, _TO_63)  # 8 is SVT-AV1's default
CODECS: tuple[Codec, ...] = (H264, H265, AV1)


def quick(codec: Codec) -> Codec:
    """Return a codec with its thorough preset, and AV1 with both, at full size."""
    presets = codec.presets if codec is AV1 else codec.presets[-1:]
    return dataclasses.replace(codec, presets=presets, ladder=codec.ladder[:1])


@dataclass(frozen=True)
class Stream:
    """A clip as one codec writes it.

    Attributes:
        codec: the codec.
        header: the parameter sets (AV1 has them with its first picture).
        pictures: (number of the frame, bytes) in the order of the stream.
        crf: CRF of the encoder.
        scale: scale of height and width before coding.
    """

    codec: Codec
    header: bytes
    pictures: tuple[tuple[int, bytes], ...]
    crf: float
    scale: float = 1.0

    @property
    def size(self) -> int:
        """The number of bytes, including the header."""
        return len(self.header) + sum(len(data) for _, data in self.pictures)

    def to_bytes(self) -> bytes:
        """Return the elementary stream."""
        return self.header + b"".join(data for _, data in self.pictures)


# ---- coding ----------------------------------------------------------------------------------------------


def compress(
    frames: UInt8[np.ndarray, "T H W 3"],
    fps: Fraction,
    crf: float,
    codec: Codec = H265,
    preset: str = "medium",
    scale: float = 1.0,
) -> Stream:
    """Code a clip. Pictures of odd size are padded with the last row or column.

    Args:
        frames: the clip.
        fps: its frame rate.
        crf: CRF of the encoder.
        codec: the codec.
        preset: preset of the encoder.
        scale: factor of height and width before coding.
    """
    _, height, width, _ = frames.shape
    if scale == 1:
        frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        height, width = frames.shape[1:3]
    else:
        height, width = (2 * max(8, round(scale * side / 2)) for side in (height, width))
    context: Any = av.CodecContext.create(codec.encoder, "w")
    context.height, context.width = height, width
    context.pix_fmt, context.time_base, context.framerate = "yuv420p", 1 / fps, fps
    if codec.encoder != "libsvtav1":
        context.flags |= Flags.global_header  # the parameter sets separate from the pictures
    context.options = codec.options(preset, crf)
    reformatter, packets = VideoReformatter(), []
    for number, rgb in enumerate(frames):
        frame = reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"), width, height,
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG,
            interpolation=PRECISE if scale == 1 else SCALING, threads=1,
        )  # fmt: skip
        frame.pts, frame.time_base = number, 1 / fps
        packets += context.encode(frame)
        if not number:
            av1.ordinary_threads()
    packets += context.encode(None)
    pictures = tuple((packet.pts, codec.bare(bytes(packet))) for packet in packets)
    return Stream(codec, codec.bare(context.extradata or b""), pictures, crf, scale)


def fit(
    frames: UInt8[np.ndarray, "T H W 3"],
    fps: Fraction,
    most: int,
    codec: Codec = H265,
    preset: str = "medium",
    scale: float = 1.0,
    crf: float = 32.0,
) -> Stream:
    """Return a stream of at most ``most`` bytes, and less than that by at most 2 % or one step of CRF.

    Args:
        frames: the clip.
        fps: its frame rate.
        most: greatest number of bytes.
        codec: the codec.
        preset: preset of the encoder.
        scale: factor of height and width before coding.
        crf: CRF to begin the search with.

    Raises:
        ValueError: if even the largest CRF takes more bytes.
    """
    low, high, best = 0.0, codec.largest, None
    if codec.encoder == "libsvtav1":
        crf = round(crf / codec.step) * codec.step
    while best is None or (best.size < FILLED * most and high - low > codec.step):
        stream = compress(frames, fps, crf, codec, preset, scale)
        if stream.size > most and crf == codec.largest:
            raise ValueError(
                f"{codec.title} takes {stream.size} bytes at CRF {codec.largest:g}, and there are {most}: "
                "give a longer or larger clip"
            )
        if stream.size <= most:
            high, best = crf, stream
        else:
            low = crf
        # the bytes halve with some steps of CRF; outside the bounds, bisection is used instead
        crf += codec.halving * math.log2(stream.size / (0.99 * most))
        if best is None:
            crf = min(max(crf, low + 0.5), codec.largest)
        elif not low < crf < high:
            crf = (low + high) / 2
        if codec.encoder == "libsvtav1":  # which rounds by itself
            crf = (math.ceil if best is None else math.floor)(crf / codec.step) * codec.step
    return best


def damaged(stream: Stream, lost: Bool[np.ndarray, " n"], width: int) -> list[Stream]:
    """Return the two streams that a receiver can use after a loss.

    The first has the pictures before the first one that lost a byte, the second all pictures that lost none.

    Args:
        stream: the stream, whose header is not lost.
        lost: mask of the lost packets of the pictures' bytes.
        width: bytes of a packet.
    """
    kept = ~np.repeat(lost, width)[: stream.size - len(stream.header)]
    ends = np.cumsum([len(data) for _, data in stream.pictures])[:-1]
    whole = np.array([part.all() for part in np.split(kept, ends)])
    return [
        dataclasses.replace(stream, pictures=tuple(itertools.compress(stream.pictures, chosen)))
        for chosen in (np.logical_and.accumulate(whole), whole)
    ]


def expand(stream: Stream, shape: tuple[int, ...]) -> tuple[UInt8[np.ndarray, "T H W 3"], int]:
    """Decode a stream, or some of its pictures, to a clip of ``shape`` = (T, H, W).

    Returns the clip, in which a missing picture repeats the one before, and the number of pictures that were decoded.
    """
    count, height, width = shape
    context = av.CodecContext.create(stream.codec.decoder, "r")
    assert isinstance(context, VideoCodecContext)
    context.extradata = stream.header
    context.thread_count = 1  # with several, the result after a missing picture may depend on their timing
    reformatter, decoded = VideoReformatter(), {}
    for number, data in (*stream.pictures, (0, None)):
        packet = None
        if data is not None:
            packet = av.Packet(data)
            packet.pts = number
        try:
            frames = context.decode(packet)
        except av.error.InvalidDataError:
            continue  # the picture cannot be decoded, as its references are missing: that is what is measured here
        for frame in frames:
            rgb = reformatter.reformat(
                frame, *((None, None) if stream.scale == 1 else (width, height)), format="rgb24",
                src_colorspace=Colorspace.ITU709, src_color_range=ColorRange.MPEG,
                interpolation=PRECISE if stream.scale == 1 else SCALING, threads=1,
            )  # fmt: skip
            decoded[frame.pts] = rgb.to_ndarray()[:height, :width]
    shown, last = [], np.full((height, width, 3), GREY, np.uint8)
    for number in range(count):
        last = decoded.get(number, last)
        shown.append(last)
    return np.stack(shown), len(decoded)


# ---- what a picture does not need ------------------------------------------------------------------------


def _without_sei(data: bytes, decoder: str) -> bytes:
    """Return NAL units of Annex B (H.264 and H.265) without supplemental enhancement information."""
    starts = [match.start() for match in re.finditer(b"\x00?\x00\x00\x01", data)]
    kept = []
    for begin, end in itertools.pairwise([*starts, len(data)]):
        unit = data[begin:end]
        first = unit[unit.index(1) + 1]
        # H.264 table 7-1: 6. H.265 table 7-1: 39 and 40
        sei = first & 31 == 6 if decoder == "h264" else first >> 1 & 63 in (39, 40)
        if not sei:
            kept.append(unit)
    return b"".join(kept)


def _without_obus(data: bytes) -> bytes:
    """Return a temporal unit of AV1 without temporal delimiter (OBU type 2), metadata (5) and padding (15).

    Every OBU contains its size (section 5.3), as FFmpeg's encoders write them.
    """
    kept, place = [], 0
    while place < len(data):
        begin = place
        kind, extended = data[place] >> 3 & 15, data[place] >> 2 & 1
        place += 1 + extended
        size = shift = 0
        while True:  # leb128
            byte = data[place]
            size |= (byte & 127) << shift
            place, shift = place + 1, shift + 7
            if byte < 128:
                break
        place += size
        if kind not in (2, 5, 15):
            kept.append(data[begin:place])
    return b"".join(kept)
