"""A whole clip in a few hundred bytes: fewer and smaller pictures, each of which stands for the frames nearest to it.

Size, number of pictures and CRF are chosen together, by the PSNR of the clip that is shown in their stead: from a guess
on to the best of the neighbouring choices, as long as there is a better one. The stream states its size and its number
of pictures itself, so nothing else is kept; its colours are those of the clip and not stated.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from jaxtyping import UInt8

from helix_jax.stream import av1, coded, obus
from helix_jax.stream.av1 import SMALLEST
from helix_jax.stream.fit import FitError, search
from helix_jax.stream.groups import Source
from helix_jax.stream.obus import StreamError
from helix_jax.video import planes
from helix_jax.video.clip import VideoInfo
from helix_jax.video.signal import UNSPECIFIED, Signal

SCALES = (1, 3 / 4, 1 / 2, 3 / 8, 1 / 4, 3 / 16, 1 / 8, 1 / 12, 1 / 16, 1 / 24)
MOST = 256  # frames of the clip that are looked at, and pictures of a preview
_AREA = 352 * 288  # pixels with which previews are compared with the clip
_COMPARED = 48  # frames with which they are
_PRESETS = (6, 2)  # of the search and of what is kept


@dataclass(frozen=True)
class Preview:
    """A stream that stands for a clip.

    Attributes:
        data: Its bytes, bare OBUs.
        size: Height and width of its pictures.
        frames: Number of its pictures.
        crf: CRF of the encoder.
        psnr: PSNR in dB of what is shown against the clip in RGB, on some of its frames and 352x288 pixels or so.
    """

    data: bytes
    size: tuple[int, int]
    frames: int
    crf: float
    psnr: float


def preview(clip: Source, most_bytes: int, progress: coded.Progress = coded.nothing) -> Preview:
    """Return the best preview of at most ``most_bytes``, in one pass over the clip.

    Args:
        clip: The clip.
        most_bytes: Greatest number of bytes.
        progress: Called with "preview", how many previews have been made, and about how many there will be.

    Raises:
        FitError: Where not even one tiny picture has so few bytes.
    """
    search = _Search(clip, most_bytes)
    sizes, counts = range(len(SCALES)), range(len(search.counts))
    place, found = _start(search, most_bytes), {}
    while True:
        near = [
            (place[0] + down, place[1] + right)
            for down, right in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1))
        ]
        for one in near:
            if one not in found and one[0] in sizes and one[1] in counts:
                found[one] = search.made(SCALES[one[0]], search.counts[one[1]], 60.0, _PRESETS[0])
                progress("preview", len(found), max(24, len(found) + 1))
        within = [one for one in near if found.get(one)]
        if not within:  # smaller and fewer pictures, until some fit
            below = min(place[0] + 1, sizes[-1]), max(place[1] - 1, 0)
            if below == place:
                raise FitError(f"a preview of {most_bytes} bytes is too small for a single picture", "give more bytes")
            place = below
            continue
        best = max(within, key=lambda one: found[one].psnr)
        if best == place:
            break
        place = best
    quick = found[place]
    thorough = search.made(SCALES[place[0]], quick.frames, quick.crf, _PRESETS[1])
    progress("preview", len(found) + 1, len(found) + 1)
    return max(filter(None, (quick, thorough)), key=lambda one: one.psnr)


def _start(search, most_bytes):
    """Return the places of a size and of a number of pictures that are often not far from the best."""
    count = np.searchsorted(search.counts, max(1, most_bytes / 60))
    area = most_bytes * 250 / max(1, most_bytes / 60)
    scale = math.sqrt(area / search.area) if most_bytes < 2000 else 1 / 4
    return int(np.argmin([abs(math.log(scale / other)) for other in SCALES])), min(int(count), len(search.counts) - 1)


class _Search:
    """A clip and the previews that are made of it.

    Args:
        clip: The clip.
        most: Greatest number of bytes.
    """

    def __init__(self, clip: Source, most: int):
        self._clip, self._most, self._total = clip, most, clip.info.frames
        height, width = clip.info.height, clip.info.width
        self.area = height * width
        shrunk = min(1.0, math.sqrt(_AREA / self.area))
        self._size = av1.scaled((height, width), shrunk)
        self._times = _centres(self._total, min(self._total, MOST))
        wanted = set(self._times)
        frames = (frame for number, frame in enumerate(clip.yuv()) if number in wanted)
        self._frames = list(av1.resize(frames, self._size))
        if len(self._frames) != len(self._times):
            raise StreamError(f"the clip has not the {self._total} frames that it states")
        compared = _centres(len(self._frames), min(len(self._frames), _COMPARED))
        self._compared = [(self._times[place], planes.rgb(self._frames[place], clip.signal)) for place in compared]
        doubling = (part * 2**power for power in range(9) for part in (2, 3))
        self.counts = sorted({1, len(self._frames), *(count for count in doubling if count < len(self._frames))})

    def made(self, scale: float, count: int, crf: float, preset: int) -> Preview | None:
        """Return the preview of that size and number of pictures, None if it takes too many bytes."""
        signal = dataclasses.replace(self._clip.signal, primaries=UNSPECIFIED, transfer=UNSPECIFIED, matrix=UNSPECIFIED)
        size = av1.scaled((self._clip.info.height, self._clip.info.width), scale)
        pictures = list(av1.resize((self._frames[place] for place in _centres(len(self._frames), count)), size))

        def attempt(crf):
            return av1.encode(
                pictures, size=size, crf=crf, preset=preset, signal=signal, fps=self._clip.info.fps,
                rules=av1.STILL if count == 1 else av1.SPARSE if count < self._total else "",
            )  # fmt: skip

        crf, data = search(attempt, len, self._most, crf)
        return None if data is None else Preview(data, size, count, crf, self._psnr(data, size, count))

    def _psnr(self, data, size, count):
        signal = self._clip.signal
        frames = av1.resize(av1.decode(data, size=size, frames=count, signal=signal), self._size)
        shown = [planes.rgb(frame, signal).astype(np.int16) for frame in frames]
        squares = [
            float(np.square((rgb - shown[time * count // self._total]).astype(np.float32)).mean())
            for time, rgb in self._compared
        ]
        return coded.psnr(squares, [1] * len(squares))


def _centres(total, count):
    """Return the middle of each of ``count`` equal parts of ``total`` things."""
    return [(2 * part + 1) * total // (2 * count) for part in range(count)]


# ---- showing -------------------------------------------------------------------------------------------------


def frames(data: bytes, info: VideoInfo, signal: Signal) -> Iterator[av.VideoFrame]:
    """Yield the pictures of a preview at the size of the clip, each as often as there are frames for it.

    Args:
        data: The bytes of a preview; any bytes may be given.
        info: The clip.
        signal: The clip's colours.

    Returns:
        ``info.frames`` frames in yuv420p10le. Pictures that are shown several times are the same object.

    Raises:
        StreamError: Where the bytes are no preview of such a clip.
    """
    count = obus.frames_of(data)
    first = next(payload for _, kind, payload in obus.split(data) if kind == obus.SEQUENCE)
    header = obus.sequence(first)
    most = max(info.height, SMALLEST), max(info.width, SMALLEST)
    if header.height > most[0] or header.width > most[1] or count > info.frames:
        raise StreamError(
            f"the preview has {count} pictures of {header.width}x{header.height}, more than its clip of {info.frames} "
            f"frames of {info.width}x{info.height}"
        )
    pictures = av1.decode(data, size=(header.height, header.width), frames=count, signal=signal)
    times = (number * count // info.frames for number in range(info.frames))
    for picture, (_, part) in zip(
        av1.resize(pictures, (info.height, info.width)), itertools.groupby(times), strict=True
    ):
        yield from (picture for _ in part)


def shown(data: bytes, info: VideoInfo, signal: Signal, block: int = 32) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
    """Yield the whole clip as a preview shows it, in RGB blocks of ``block`` frames, of which the last may be shorter.

    The other arguments and the errors are those of ``frames``.
    """
    pictures = (planes.rgb(frame, signal) for frame in frames(data, info, signal))
    while part := list(itertools.islice(pictures, block)):
        yield np.stack(part)
