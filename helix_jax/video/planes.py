"""Decoded frames (PyAV) -> the samples that AV1 pools store, YUV 4:2:0 of 10 bits, and those -> RGB pictures.

YUV samples keep their own matrix, range, primaries and transfer function; only their depth and the number of chroma
samples change. Whatever else there is goes through RGB and becomes BT.709 in limited range: RGB itself, palettes, grey,
what is transparent, and what is tone-mapped. ``signal`` says which colours the samples have in the end.

A chroma sample is taken to lie on the left one of its two columns and between its two rows, as nearly all files have it
and as players take it where nothing is stated. PyAV does not tell where a file has its own; samples that are 4:2:0
already are moved only where the picture is turned.
"""

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from jaxtyping import UInt8, UInt16

from helix_jax.video import pictures
from helix_jax.video.pictures import Look, PictureError
from helix_jax.video.signal import UNSPECIFIED, Signal

FORMAT, _WHOLE = "yuv420p10le", "yuv444p10le"
Samples = tuple[UInt16[np.ndarray, "h w"], UInt16[np.ndarray, "h2 w2"], UInt16[np.ndarray, "h2 w2"]]
# Pictures in which the chroma is halved this way come back 1.5 dB nearer than with the interpolation that shows them.
_HALVED = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_HALVED |= Interpolation.FULL_CHR_H_INP
_RESERVED = (0, 3)  # of primaries, transfer functions and, for what is no RGB, matrices
_BT601 = 6  # what swscale takes 5 and UNSPECIFIED for too


def keeps_colours(frame: av.VideoFrame, look: Look) -> bool:
    """Return whether the samples of a frame are stored in its own colours, and not through RGB."""
    form = frame.format
    is_yuv = len(form.components) > 2 and not (form.is_rgb or form.has_palette or form.name.startswith("xyz"))
    return is_yuv and not (look.blend or look.tone_map)


def signal(frame: av.VideoFrame, look: Look, aspect: Fraction = Fraction(1)) -> Signal:
    """Return the colours that the samples of a frame are stored in.

    Args:
        frame: A decoded frame.
        look: How frames become pictures.
        aspect: Width of a pixel over its height, upright.

    Returns:
        The signal. What the file leaves open stays open, and so does what it states by a reserved number.
    """
    if not keeps_colours(frame, look):
        return Signal(aspect)
    stated = (frame.color_primaries, frame.color_trc, frame.colorspace)
    return Signal(aspect, *(_stated(int(code)) for code in stated), full_range=_full_range(frame))


def samples(frames: Iterator[av.VideoFrame], look: Look, target: Signal) -> Iterator[Samples]:
    """Yield the samples of as many frames as there are, upright: luma, Cb and Cr.

    Args:
        frames: Decoded frames.
        look: How they become pictures.
        target: What ``signal`` says of the first one.

    Raises:
        PictureError: For a frame that cannot be converted, or whose colours are not those of the first one.
    """
    reformatter, own = VideoReformatter(), None
    deep = "rgb48le"
    if look.deinterlace or look.tone_map:
        frames = pictures.filtered(frames, look, deep)
    for frame in frames:
        own = keeps_colours(frame, look) if own is None else own
        if own:
            yield _own(reformatter, frame, look.orientation, target)
        else:
            pixels = deep if pictures.traits(frame).bits > 8 else "rgb24"
            yield from_rgb(pictures.picture(reformatter, frame, look, pixels))


def from_rgb(rgb: UInt8[np.ndarray, "H W 3"] | UInt16[np.ndarray, "H W 3"]) -> Samples:
    """Return the samples of an RGB picture of 8 or 16 bits, in the colours of ``Signal()``."""
    picture = av.VideoFrame.from_ndarray(
        np.ascontiguousarray(rgb), format="rgb24" if rgb.dtype == np.uint8 else "rgb48le"
    )
    luma, cb, cr = _planes(
        VideoReformatter().reformat(
            _sited(picture), format=FORMAT, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG,
            interpolation=_HALVED, threads=1,
        )
    )  # fmt: skip
    return luma, cb, cr


def frame(samples: Samples, colours: Signal, number: int, fps: Fraction) -> av.VideoFrame:
    """Return a new frame with these samples, the tags of a signal, and a number for its timestamp."""
    made = _frame(samples, colours, FORMAT)
    made.color_trc, made.color_primaries = colours.transfer, colours.primaries
    made.pts, made.time_base = number, 1 / fps
    return made


def rgb(frame: av.VideoFrame, colours: Signal) -> UInt8[np.ndarray, "H W 3"]:
    """Return the picture that a frame of YUV samples shows, converted as ``VideoReader.blocks`` converts.

    Args:
        frame: A frame, for example one that an AV1 decoder gave. Its own tags are not looked at.
        colours: The colours of its samples.

    Returns:
        The picture: HDR and wide colours are not converted.
    """
    if colours.full_range and frame.format.name == FORMAT:
        luma, *chroma = _planes(frame)
        # swscale takes 1020 for white, four times what it is in 8 bits, and H.273 takes 1023.
        scaled = ((luma.astype(np.uint32) * 2040 + 1023) // 2046).astype(np.uint16)
        frame = _frame((scaled, *chroma), colours, FORMAT)
    frame = _sited(frame)
    frame.colorspace, frame.color_range = colours.matrix, _range(colours)
    return pictures.converted(VideoReformatter(), frame, "rgb24")


def _frame(samples, colours, form):
    made = av.VideoFrame(samples[0].shape[1], samples[0].shape[0], form)
    for plane, values in zip(_planes(made), samples, strict=True):
        plane[:] = values
    made.colorspace, made.color_range = colours.matrix, _range(colours)
    return made


def _stated(code):
    return code if 0 < code < 256 and code not in _RESERVED else UNSPECIFIED


def _full_range(frame):
    return frame.color_range == ColorRange.JPEG or (
        frame.format.name.startswith("yuvj") and frame.color_range == ColorRange.UNSPECIFIED
    )


def _range(colours):
    return ColorRange.JPEG if colours.full_range else ColorRange.MPEG


def _own(reformatter, frame, orientation, target):
    """Return the samples of a YUV frame as they are stored, in its own colours and upright."""
    matrix = _stated(int(frame.colorspace))
    if (_shown_as(matrix), _full_range(frame)) != (_shown_as(target.matrix), target.full_range):
        raise PictureError(
            f"its colours change from matrix {target.matrix} ({_named(target.full_range)}) to {matrix} "
            f"({_named(_full_range(frame))})"
        )
    shallow = max(component.bits for component in frame.format.components) == 8
    frame.colorspace, frame.color_range = matrix, _range(target)
    # Half a row of chroma turned is no half a column, so what is to be turned gets all rows and columns first.
    turned = orientation != pictures.UPRIGHT
    luma, cb, cr = _planes(_reformatted(reformatter, frame, _WHOLE if turned else FORMAT, target))
    if target.full_range and shallow:
        luma = luma | luma >> 8  # 255 becomes 1023, which swscale sees to in some formats only
    if turned:
        upright = [pictures.upright(plane, orientation) for plane in (luma, cb, cr)]
        luma, cb, cr = _planes(_reformatted(reformatter, _frame(upright, target, _WHOLE), FORMAT, target))
    return luma, cb, cr


def _reformatted(reformatter, frame, form, colours):
    try:
        return reformatter.reformat(
            _sited(frame), format=form, dst_color_range=_range(colours), interpolation=_HALVED, threads=1
        )
    except (av.FFmpegError, ValueError) as error:
        raise PictureError(f"its samples ({frame.format.name}) cannot be converted to 10 bits here") from error


def _sited(frame):
    """Return a frame of the same samples that says where its chroma lies, or will lie once it is halved."""
    tick = frame.time_base or Fraction(1)
    colours = f"colorspace={int(frame.colorspace)}:range={int(frame.color_range)}"
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add("buffer", f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:"
                  f"time_base={tick.numerator}/{tick.denominator}:{colours}"),
        graph.add("setparams", "chroma_location=left"),
        graph.add("buffersink"),
    ).configure()  # fmt: skip
    graph.vpush(frame)
    return graph.vpull()


def _shown_as(matrix):
    return _BT601 if matrix in (UNSPECIFIED, 5) else matrix


def _named(full_range):
    return "full range" if full_range else "limited range"


def _planes(frame):
    """Return views of the samples of a frame of FORMAT."""
    return tuple(
        np.frombuffer(plane, np.uint16).reshape(plane.height, plane.line_size // 2)[:, : plane.width]
        for plane in frame.planes
    )
