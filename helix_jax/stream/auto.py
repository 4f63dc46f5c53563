"""``encode --codec auto``: AV1 or tokens, whichever shows the better picture of the clip's first seconds.

Both are made in the same nucleotides (or time units): those that AV1 takes of these seconds at the requested quality,
rate or budget. Where AV1 shows more than tokens do with all of their digits, that is enough, and no tokens
are coded. The PSNR of both is over the 8-bit RGB pictures that are shown.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

from helix_jax.coding import ladder, tokens
from helix_jax.coding.ladder import BEST
from helix_jax.config import CodecConfig
from helix_jax.contents import Content
from helix_jax.errors import BudgetError, HelixError
from helix_jax.nets import Nets
from helix_jax.stream import groups, pictures, showing
from helix_jax.tokenizer import tiles
from helix_jax.video import VideoInfo
from helix_jax.video.signal import Signal
from helix_jax.writer import Progress, Station

SECONDS, LEAST, MOST = 1, 16, 32  # of the clip's beginning, and its frames at least and at most


@dataclass(frozen=True, eq=False)
class Beginning:
    """The first frames of a clip, as a clip.

    Attributes:
        clip: The clip.
        frames: How many.
    """

    clip: Any
    frames: int

    @property
    def info(self) -> VideoInfo:
        """The facts about these frames."""
        return dataclasses.replace(self.clip.info, frames=self.frames)

    @property
    def signal(self) -> Signal:
        """The clip's signal."""
        return self.clip.signal

    def blocks(self, frames: int = 32) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
        """Yield the frames in blocks."""
        left = self.frames
        for block in self.clip.blocks(frames):
            yield block[:left]
            left -= len(block)
            if left <= 0:
                return

    def yuv(self) -> Iterator[av.VideoFrame]:
        """Yield the frames as AV1 takes them."""
        return itertools.islice(self.clip.yuv(), self.frames)


def chosen(
    video: groups.Source,
    heard: tuple[Content, ...],
    nets: Callable[[], Nets],
    config: CodecConfig,
    station: Station,
    progress: Progress | None = None,
) -> tuple[str, tuple[float, float] | None, BudgetError | None]:
    """Choose between AV1 and tokens.

    Args:
        video: The clip.
        heard: Its sound, which the nucleotides pay for too.
        nets: Loads the nets of the tokens.
        config: The configuration. A mode that is not "smallest" asks for tokens.
        station: What will write the pool.
        progress: As for ``codec.encode``.

    Returns:
        "av1" or "tokens"; where both were tried, the PSNR of AV1 and the most that tokens show, in dB, 0 where these do
        not go into as much; and where AV1 does not go into what the clip may take, its error.
    """
    if config.codec != "auto":
        return config.codec, None, None
    if config.mode != "smallest":
        return "tokens", None, None
    seconds = round(SECONDS * video.info.fps)
    begin = Beginning(video, min(video.info.frames, max(LEAST, min(MOST, seconds))))
    step = (lambda: None) if progress is None else lambda: progress("choice", 1, 2)
    quick = dataclasses.replace(config, effort=0, preview=0.0, verify=False)
    try:
        quick = dataclasses.replace(quick, budget=_share(video, begin, heard, config, station), rate=0.0)
        first, cost = _av1(begin, quick, station)
    except HelixError:  # the beginning does not go into its share
        which, refused = _by_trial(video, heard, config, station, progress)
        return which, None, refused
    step()
    quick = dataclasses.replace(quick, codec="tokens", budget=cost, rate=0.0, quality=BEST)
    second = _all_digits(begin, nets())
    if second > first:
        try:
            second = _tokens(begin, nets(), quick, station)
        except HelixError:  # they do not go into as much
            second = 0.0
    step()
    return ("tokens" if second > first else "av1"), (first, second), None


def _share(video, begin, heard, config, station):
    """Return the beginning's part of what the clip may take; 0 where that has no limit.

    Header and sound are paid first, as they do not grow with the picture.
    """
    most = pictures.limit(video.info, config)
    if most is None:
        return 0
    whole, part = (
        pictures.bare(clip, beside, pictures.fields(clip.info, clip.signal, None), config, station)
        for clip, beside in ((video, heard), (begin, ()))
    )
    return max(1, part + (most - whole) * begin.frames // video.info.frames)


def _by_trial(video, heard, config, station, progress):
    """Return ("av1", None) if the whole clip can be written as AV1, else "tokens" and what is too little for AV1."""
    about = pictures.fields(video.info, video.signal, None)
    try:
        pictures.encode(video, heard, about, dataclasses.replace(config, effort=0), station, progress)
    except BudgetError as error:
        return "tokens", error
    except HelixError:
        return "tokens", None
    return "av1", None


def _av1(begin, config, station):
    """Return the PSNR of AV1, and what its pool takes."""
    about = pictures.fields(begin.info, begin.signal, None)
    every, layout = pictures.encode(begin, (), about, config, station)
    shown = showing.shown([content for content in every if content.kind == "av1"], begin.info, begin.signal)
    return psnr(begin.blocks(), shown), station.cost(layout)


def _all_digits(begin, nets):
    """Return the PSNR of tokens of which every digit is written, whatever that takes: the most that they can show."""
    info, model = begin.info, nets.tokenizer
    return _shown(begin, nets, tiles.encode(model.params, model.config, begin.blocks(), info.height, info.width))


def _tokens(begin, nets, config, station):
    """Return the PSNR of tokens."""
    coded, _ = tokens.encode(begin, nets, config, station)
    return _shown(begin, nets, ladder.whole_tokens(coded.tokens, nets.tokenizer.config))


def _shown(begin, nets, digits):
    info, model = begin.info, nets.tokenizer
    return psnr(begin.blocks(), tiles.decode(model.params, model.config, digits, info.frames, info.height, info.width))


def psnr(clip: Iterable[UInt8[np.ndarray, "n H W 3"]], shown: Iterable[UInt8[np.ndarray, "n H W 3"]]) -> float:
    """Return the PSNR in dB of a clip that is shown, over all samples of 8-bit RGB; both come in blocks of any size."""
    error = count = 0
    for one, other in zip(_each(clip), _each(shown), strict=True):
        error += float(np.square(one.astype(np.float32) - other).sum())
        count += one.size
    return float(10 * np.log10(255**2 / max(error / count, 1e-9)))


def _each(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    return itertools.chain.from_iterable(blocks)
