"""How helix_jax is used in the report: tokens in their modes, and AV1 with its preview; and one pool of each.

A pool is made by ``codec.encode`` and read back by ``codec.decode``. A quality is coded without a preview, which serves
only where strands are lost, and a budget with the preview that is the default.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from eval import lpips, metrics
from eval.clips import Clip
from eval.report import codecs, writers
from helix_jax import codec
from helix_jax.coding.ladder import BEST
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.nets import Nets
from helix_jax.tk_scone import constraints

EVERY = 8  # MS-SSIM and LPIPS are measured on every 8th frame, as in eval.quality
RULES = constraints.named("helix")

Row = dict[str, Any]
Video = UInt8[np.ndarray, "T H W 3"]


@dataclass(frozen=True)
class Way:
    """How helix_jax is used.

    Attributes:
        kind: A mode of tokens, or "av1".
        qualities: The qualities of a curve, the best first.
        effort: ``effort`` of CodecConfig.
    """

    kind: str
    qualities: tuple[int, ...]
    effort: int = 0

    @property
    def name(self) -> str:
        """The name of the method."""
        return f"helix_jax {self.kind}" + (f", effort {self.effort}" if self.effort or self.kind == "av1" else "")

    def config(self, quality: int, redundancy: float, kbit: float, budget: int = 0) -> CodecConfig:
        """Return the configuration of the codec; with a budget, the quality is what that pays for."""
        tokens = self.kind != "av1"
        return CodecConfig(
            codec="tokens" if tokens else "av1",
            mode=self.kind if tokens else CodecConfig.mode,
            quality=BEST if budget else quality,
            budget=budget,
            preview=CodecConfig.preview if budget else 0.0,
            effort=self.effort,
            verify=False,
            constraints=RULES.name,
            strands=StrandConfig(redundancy=redundancy),
            sound=kbit or CodecConfig.sound,
        )


WAYS: tuple[Way, ...] = (  # in mode raw these are 8, 6, and 4 digits; for AV1 CRF 63 - 3.5 quality
    Way("raw", (10, 7, 4)),
    Way("context", (10, 6, 2, 0)),
    Way("raw", (10, 6, 3), 2),
    Way("prior", (10, 5, 2), 2),
    Way("prior", (10, 8, 5, 2, 0)),
    Way("av1", (8, 6, 4, 2, 0), 0),
    Way("av1", (7, 4, 1), 3),
)


@dataclass(frozen=True, eq=False)
class Judged(Nets):
    """The nets that are measured, and the weights of LPIPS, as ``lpips.load`` gives them, or None."""

    lpips: Any = None

    def quality(self, original: Video, shown: Video) -> dict[str, float]:
        """Return {"psnr", "ms_ssim"}, and "lpips" if there are weights."""
        parts = original[::EVERY], shown[::EVERY]
        figures = {"psnr": metrics.psnr(original, shown), "ms_ssim": metrics.ms_ssim(*parts)}
        return figures | ({"lpips": lpips.distance(self.lpips, *parts)} if self.lpips else {})


@dataclass(frozen=True, eq=False)
class Written:
    """A clip on strands, and how it comes back.

    Attributes:
        pool: The pool.
        shown: The decoded clip.
        stream: The stream of an ordinary codec, or None.
    """

    pool: Any
    shown: Video
    stream: codecs.Stream | None = None


def point(clip: Clip, nets: Judged, way: Way, quality: int, redundancy: float) -> tuple[Row, Written]:
    """Measure one quality of helix_jax.

    The times of tokens are measured at the first quality only, in a second run, when everything is compiled; those of
    AV1 at each quality.

    Args:
        clip: The clip.
        nets: The nets.
        way: How helix_jax is used.
        quality: The quality.
        redundancy: Repair packets as a share of the source packets.
    """
    config = way.config(quality, redundancy, clip.kbit)
    pool, shown, times = _there_and_back(clip, nets, config)
    if way.kind != "av1":
        if quality == way.qualities[0]:
            pool, shown, times = _there_and_back(clip, nets, config)
        else:
            times = dict.fromkeys(times)
    row = {
        "method": way.name, "writer": writers.OURS.name, "preset": "", "scale": 1.0, "setting": f"quality {quality}",
        "content_bytes": pool.header.content_bytes, "pool": pool,
    }  # fmt: skip
    return counted(clip, row, writers.OURS) | nets.quality(clip.frames, shown) | times, Written(pool, shown)


def within(clip: Clip, nets: Judged, way: Way, budget: int, redundancy: float) -> Written:
    """Write a clip in at most so many nucleotides."""
    return Written(*_there_and_back(clip, nets, way.config(0, redundancy, clip.kbit, budget))[:2])


def _there_and_back(clip, nets, config):
    begin = time.perf_counter()
    pool = codec.encode(clip, nets, config=config)
    middle = time.perf_counter()
    shown = read(nets, pool.strands)
    return pool, shown, {"encode_s": middle - begin, "decode_s": time.perf_counter() - middle}


def read(nets: Nets, strands: UInt8[np.ndarray, "n L"]) -> Video:
    """Decode strands to a clip. Raises DecodeError if nothing can be shown."""
    _, blocks, _ = codec.decode({strands.shape[1]: strands}, nets)
    return np.concatenate(list(blocks))


def counted(clip: Clip, row: Row, writer: Any) -> Row:
    """Return the row with figures that are counted on the strands, in place of its "pool"."""
    row = dict(row)
    pool = row.pop("pool")
    strands, claims = pool.strands, pool.constraints
    return row | {
        "strands": len(strands),
        "nucleotides": strands.size,
        "nt_per_pixel": strands.size / clip.frames[..., 0].size,
        "gross_bit_per_nt": writer.bits / strands.shape[1],
        "net_bit_per_nt": 8 * row["content_bytes"] / strands.size,
        "break_claims": writers.violations(strands, claims),
        "break_helix": writers.violations(strands, RULES),
    }


def chosen(names: list[str]) -> tuple[Way, ...]:
    """Return the ways with these names, without "helix_jax", or all of them. Raises ValueError for an unknown name."""
    known = {way.name.removeprefix("helix_jax "): way for way in WAYS}
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(f"--ways {' '.join(missing)}: give some of {', '.join(map(repr, known))}")
    return tuple(way for name, way in known.items() if not names or name in names)


def best_of(ways: tuple[Way, ...], kind: str) -> Way | None:
    """Return the last of the ways of this kind that makes no search, or None."""
    return next((way for way in reversed(ways) if way.kind == kind and not way.effort), None)
