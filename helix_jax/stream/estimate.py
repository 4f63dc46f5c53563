"""What a clip would take at several qualities, before it is encoded: AV1 of some of its groups, by a quick preset.

The sample is that of ``fit``: about 250 frames, so that of a short clip all are coded. From its bytes follow those of
the whole, in proportion to the frames, and from these the layout of the pool, with the preview at its full share and
the clip's own sound. The estimate is high by what the preset of ``encode`` saves: docs/use.md says how far it was off.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from helix_jax.config import CodecConfig
from helix_jax.contents import Content
from helix_jax.strands.layouts import PacketLayout
from helix_jax.stream import coded, fit, groups, pictures
from helix_jax.stream.coded import Way
from helix_jax.writer import Progress, Station

QUALITIES = (0, 2, 4, 6, 8, 10)
PRESET = 10  # of SVT-AV1
EVERY = 8  # frames of which one is compared with the clip


@dataclass(frozen=True)
class Estimate:
    """A clip at one quality.

    Attributes:
        quality: The quality, as ``CodecConfig.quality`` has it.
        layout: The layout of the pool.
        psnr: PSNR in dB of the sample, in RGB as it is shown.
    """

    quality: int
    layout: PacketLayout
    psnr: float


def ladder(
    video: groups.Source,
    beside: Sequence[Content],
    config: CodecConfig,
    station: Station,
    qualities: Sequence[int] = QUALITIES,
    progress: Progress | None = None,
) -> Iterator[Estimate]:
    """Yield the estimate of each quality.

    Args:
        video: The clip.
        beside: Contents that the pool holds too, such as the sound.
        config: The configuration, of which strands, constraints and preview count here.
        station: What would write the pool.
        qualities: The qualities.
        progress: As for ``codec.encode``.
    """
    info, about = video.info, pictures.fields(video.info, video.signal, None)
    plan = pictures.planned(video, beside, about, config, station)
    chosen = fit.sample(plan.cuts)
    frames = sum(itertools.compress(plan.cuts, chosen))
    way = Way((info.height, info.width), PRESET)
    for quality in qualities:
        crfs = [fit.crf_of(quality) if wanted else None for wanted in chosen]
        sample = coded.encode_groups(video, plan.cuts, crfs, way)
        size = sum(len(group.data) for group in sample if group) * info.frames // frames
        psnr = coded.psnr(coded.errors(video, plan.cuts, sample, way, EVERY), plan.cuts)
        yield Estimate(quality, pictures.foreseen(plan, size, config.preview), psnr)
        if progress:
            progress("qualities", 1, len(qualities))
