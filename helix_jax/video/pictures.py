"""Decoded frames (PyAV) -> uint8 RGB pictures as they are shown: colours, alpha, fields, HDR, orientation.

Colours follow the file's own matrix and range; where the file states none, FFmpeg's guess (BT.601, limited range).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import ColorPrimaries, ColorTrc, Interpolation, VideoReformatter
from jaxtyping import Shaped, UInt, UInt8

# With these flags yuv -> rgb and back is exact within a level or two; without them swscale takes coarse shortcuts.
PRECISE = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
UPRIGHT = (1, 0, 0, 1)
HDR = {16: "PQ", 18: "HLG"}  # transfer functions (H.273) that no SDR screen follows
WIDE = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}  # primaries beyond those of BT.709
_UNSPECIFIED, _RESERVED = 2, (0, 3)
_EXIF = 31  # FFmpeg's AV_FRAME_DATA_EXIF
_TO_BT709 = "out_primaries=bt709:out_transfer=bt709:flags=bilinear+accurate_rnd+full_chroma_int"


class PictureError(ValueError):
    """A frame that cannot be made a picture; the message says why.

    Attributes:
        options: The options that FFmpeg needs to convert the file.
    """

    def __init__(self, message: str, options: str = ""):
        super().__init__(message)
        self.options = options


@dataclass(frozen=True)
class Traits:
    """What a frame has beyond 8-bit SDR pictures.

    Attributes:
        alpha: Whether its format has transparency.
        bits: Bits per sample.
        transfer: "PQ" or "HLG", or "" for the transfer function of SDR video.
        primaries: "BT.2020", ..., or "" for those of SDR video.
    """

    alpha: bool
    bits: int = 8
    transfer: str = ""
    primaries: str = ""


@dataclass(frozen=True)
class Look:
    """How frames become pictures.

    Attributes:
        orientation: (a, b, c, d) of the display matrix.
        blend: Whether to put what is transparent over black.
        deinterlace: "" for no frames, "interlaced" for the frames that are flagged, "all" for every frame.
        tone_map: How to convert to BT.709: "" not at all, else an intent of FFmpeg's filter scale (``intent``).
    """

    orientation: tuple[int, int, int, int] = UPRIGHT
    blend: bool = False
    deinterlace: str = ""
    tone_map: str = ""


def traits(frame: av.VideoFrame) -> Traits:
    """Return the traits of a frame."""
    matrix = frame.colorspace in (9, 10)
    return Traits(
        alpha=frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components),
        bits=max(component.bits for component in frame.format.components),
        transfer=HDR.get(frame.color_trc, ""),
        primaries=WIDE.get(frame.color_primaries, "BT.2020" if matrix else ""),
    )


def intent(traits: Traits) -> str:
    """Return how to convert to BT.709.

    HDR is converted by a curve over luminance that keeps hues and clips nothing, wide colours by keeping those that
    BT.709 has as they are; the result is "" for what is BT.709.
    """
    if traits.transfer:
        return "perceptual"
    return "relative_colorimetric" if traits.primaries else ""


def is_opaque(frame: av.VideoFrame) -> bool:
    """Return whether no pixel of a frame is transparent."""
    return bool((converted(VideoReformatter(), frame, "rgba")[..., 3] == 255).all())


def pictures(frames: Iterator[av.VideoFrame], look: Look) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Yield as many RGB pictures as there are frames. Raises PictureError."""
    reformatter = VideoReformatter()
    if look.deinterlace or look.tone_map:
        frames = filtered(frames, look, "rgb24")
    for frame in frames:
        yield picture(reformatter, frame, look)


def picture(
    reformatter: VideoReformatter, frame: av.VideoFrame, look: Look, pixels: str = "rgb24"
) -> UInt[np.ndarray, "H W 3"]:
    """Return one RGB picture.

    Args:
        reformatter: Made for these frames.
        frame: A frame that has been through the filters that the look needs (``filtered``).
        look: How it becomes a picture.
        pixels: "rgb24", or "rgb48le" for 16 bits; what is put over black has 8.

    Returns:
        The picture, uint8 or uint16.

    Raises:
        PictureError: For colours that cannot be converted.
    """
    rgb = converted(reformatter, frame, "rgba" if look.blend else pixels)
    if look.blend:
        rgb = ((rgb[..., :3].astype(np.uint16) * rgb[..., 3:] + 127) // 255).astype(np.uint8)
    return upright(rgb, look.orientation)


def orientation(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Return (a, b, c, d) in {-1, 0, 1} of the display matrix: pixel (x, y) is shown at (a x + c y, b x + d y).

    Raises PictureError for a rotation that is no multiple of 90 degrees.
    """
    every: Any
    try:
        every = frame.side_data
    except ValueError:  # PyAV does not know EXIF, which is there beside the matrix that FFmpeg makes of it
        every = _without_exif(frame).side_data
    side_data = cast(Any, every).get(SideData.DISPLAYMATRIX)
    if side_data is None:
        return UPRIGHT
    matrix = np.frombuffer(side_data, np.int32)[[0, 1, 3, 4]] / 65536  # 16.16 fixed point
    rounded = np.round(matrix).astype(int)
    a, b, c, d = (int(value) for value in rounded)
    if (
        np.abs(matrix - rounded).max() > 1e-3
        or sorted((abs(a), abs(b))) != [0, 1]
        or abs(a) != abs(d)
        or abs(b) != abs(c)
    ):
        raise PictureError(f"turned by {frame.rotation} degrees, not a multiple of 90")
    return a, b, c, d


def _without_exif(frame):
    tick = frame.time_base or Fraction(1)
    colours = f"colorspace={int(frame.colorspace)}:range={int(frame.color_range)}"
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add("buffer", f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:"
                  f"time_base={tick.numerator}/{tick.denominator}:{colours}"),
        graph.add("sidedata", f"mode=delete:type={_EXIF}"),
        graph.add("buffersink"),
    ).configure()  # fmt: skip
    graph.vpush(frame)
    return graph.vpull()


def upright(
    picture: Shaped[np.ndarray, "H W *rest"], orientation: tuple[int, int, int, int]
) -> Shaped[np.ndarray, "shown_H shown_W *rest"]:
    """Turn a picture, or one of its planes, from how it is stored to how it is shown."""
    a, b, c, d = orientation
    if a == 0:
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[::d, ::a]


def converted(reformatter: VideoReformatter, frame: av.VideoFrame, pixels: str) -> UInt[np.ndarray, "H W components"]:
    """Return a frame in a format of RGB pixels ("rgb24", "rgba", "rgb48le"), not turned. Raises PictureError."""
    if frame.colorspace in _RESERVED[1:]:  # 0 is RGB
        frame.colorspace = _UNSPECIFIED
    try:
        return reformatter.reformat(frame, format=pixels, interpolation=PRECISE, threads=1).to_ndarray()
    except (av.FFmpegError, ValueError) as error:
        raise PictureError(
            f"its colours ({frame.format.name}, matrix {int(frame.colorspace)} of H.273) cannot be converted here",
            "-vf libplacebo=colorspace=bt709:color_primaries=bt709:color_trc=bt709",
        ) from error


def filtered(frames: Iterator[av.VideoFrame], look: Look, pixels: str) -> Iterator[av.VideoFrame]:
    """Yield the same number of frames, passed through FFmpeg's filters.

    Args:
        frames: Decoded frames.
        look: How they become pictures.
        pixels: The format of RGB pixels that a tone map gives; where something is transparent, it is "rgba".

    Raises:
        PictureError: Where they cannot be filtered.
    """
    graph, form, pixels = None, None, "rgba" if look.blend else pixels
    for frame in frames:
        if look.tone_map:
            _state_colours(frame)
        if graph is None:
            converted(VideoReformatter(), frame, pixels)  # its error says better what is wrong with the colours
            form, graph = frame.format.name, _graph(frame, look, pixels)
        if frame.format.name != form:
            raise PictureError(f"its pixel format changes from {form} to {frame.format.name}")
        yield from _through(graph, frame)
    if graph is not None:
        yield from _through(graph, None)


def _state_colours(frame):
    """State what a tone map has to know and what the file leaves open or reserved."""
    if frame.colorspace in _RESERVED[1:]:
        frame.colorspace = _UNSPECIFIED
    if frame.color_trc in _RESERVED or frame.color_trc not in set(ColorTrc):
        frame.color_trc = ColorTrc.UNSPECIFIED
    if frame.color_primaries in _RESERVED or frame.color_primaries not in set(ColorPrimaries):
        frame.color_primaries = ColorPrimaries.UNSPECIFIED
    if frame.color_primaries == _UNSPECIFIED and (frame.colorspace in (9, 10) or frame.color_trc in HDR):
        frame.color_primaries = ColorPrimaries.BT2020


def _graph(frame, look, pixels):
    graph = av.filter.Graph()
    colours = f"colorspace={int(frame.colorspace)}:range={int(frame.color_range)}"
    tick = frame.time_base
    nodes = [
        graph.add("buffer", f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:"
                  f"time_base={tick.numerator}/{tick.denominator}:{colours}")
    ]  # fmt: skip
    if look.deinterlace:
        nodes.append(graph.add("bwdif", f"mode=send_frame:parity=auto:deint={look.deinterlace}"))
    if look.tone_map:
        nodes += [graph.add("scale", f"{_TO_BT709}:intent={look.tone_map}"), graph.add("format", pixels)]
    try:
        graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    except av.FFmpegError as error:
        raise _unfilterable(frame, error) from error
    return graph


def _through(graph, frame):
    try:
        graph.vpush(frame)
        while True:
            yield graph.vpull()
    except (av.BlockingIOError, av.EOFError):  # the graph needs more frames, or has no more
        return
    except av.FFmpegError as error:
        raise _unfilterable(frame, error) from error


def _unfilterable(frame, error):
    what = f" ({frame.format.name}, {frame.width}x{frame.height})" if frame else ""
    return PictureError(f"its frames{what} cannot be deinterlaced or tone-mapped here: {error.strerror}")
