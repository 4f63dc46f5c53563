"""One clip as helix_jax and as ordinary codecs write it: nucleotides, quality, times, and what losses leave.

    points    every way at every setting: helix_jax in its modes and qualities through ``codec.encode`` and
              ``codec.decode``; H.264, H.265 and AV1 in their presets, sizes and CRFs, each with every writer of
              ``eval.report.writers``. All strands are actually written, read back, and passed to the checker.
    equal     the codecs again, each with the settings that fill the strands that helix_jax takes at its best quality
    losses    strands lost at random, including header strands, and what is shown from the rest. An ordinary stream is
              read as ``eval.report.codecs.damaged`` says, and its parameter sets are not lost; if nothing can be shown,
              a grey picture counts. The codecs fill as many strands as mode raw takes; H.265 is also measured with a
              worse picture and more repair packets in these strands (MORE).

Times are those of this machine, once compiled, and without the check of the coded tokens by the NumPy reference that
``encode`` makes before writing (``verify``).
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from eval import lpips, metrics
from eval.clips import Clip, generator
from eval.report import codecs, writers
from helix_jax import codec
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.nets import Nets
from helix_jax.tk_scone import constraints

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)  # shares of lost strands
EVERY = 8  # MS-SSIM and LPIPS are measured on every 8th frame, as in eval.quality
RULES = constraints.named("helix")
MORE = 0.8  # repair packets as a share of the source packets, in the same strands
SAFE = "H.265, 80 % repair"
LOST = 0.2  # share for which pictures are kept
PICTURED = ("helix_jax raw", "helix_jax prior", "H.265")  # the others look like H.265: grey

Row = dict[str, Any]
Video = UInt8[np.ndarray, "T H W 3"]


@dataclass(frozen=True)
class Way:
    """How helix_jax is used: ``mode`` and ``effort`` of CodecConfig, and its ``qualities``, the best first."""

    mode: str
    qualities: tuple[int, ...]
    effort: int = 0

    @property
    def name(self) -> str:
        """The name of the method."""
        return f"helix_jax {self.mode}" + (f", effort {self.effort}" if self.effort else "")

    def config(self, quality: int, redundancy: float) -> CodecConfig:
        """Return the configuration of the codec."""
        return CodecConfig(
            codec="tokens", mode=self.mode, quality=quality, effort=self.effort, verify=False, constraints=RULES.name,
            strands=StrandConfig(redundancy=redundancy),
        )  # fmt: skip


WAYS = (  # in mode raw these are 8, 7, 6, 5, 4 and 3 digits
    Way("raw", (10, 9, 7, 6, 4, 3)),
    Way("context", (10, 8, 6, 4, 2, 0)),
    Way("raw", (10, 6, 3), 2),
    Way("prior", (10, 5, 2), 2),
    Way("prior", (10, 8, 6, 5, 4, 2, 0)),
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
        pool: the pool.
        shown: the decoded clip.
        stream: the stream of an ordinary codec, or None.
    """

    pool: Any
    shown: Video
    stream: codecs.Stream | None = None


def measure(
    clip: Clip, nets: Judged, redundancy: float, seeds: Sequence[int], step: Callable[[str, int, int], Any]
) -> tuple[dict[str, list[Row]], dict[str, UInt8[np.ndarray, "H W 3"]], dict[str, Video]]:
    """Measure one clip.

    Args:
        clip: the clip.
        nets: the nets.
        redundancy: repair packets as a share of the source packets.
        seeds: seeds of the losses.
        step: called as step(station, done, total).

    Returns:
        The rows {"points", "equal", "losses"}; pictures of the middle frame by their titles; and videos at equal
        nucleotides by their names, the original first.
    """
    points, best = [], {}
    total = sum(len(way.qualities) for way in WAYS)
    for way in WAYS:
        for quality in way.qualities:
            row, written = helix_point(clip, nets, way, quality, redundancy)
            points.append(row)
            best.setdefault(way.name, written)
            step("helix_jax", 1, total)
    size = clip.frames.shape[1:3]
    total = sum(len(kind.presets) * len(crfs) for kind in codecs.CODECS for _, crfs in kind.scales(*size))
    for kind in codecs.CODECS:
        for preset, (scale, crfs) in itertools.product(kind.presets, kind.scales(*size)):
            for crf in crfs:
                points += codec_points(clip, nets, kind, preset, scale, crf, redundancy)
                step("codecs", 1, total)
    middle = len(clip.frames) // 2
    coded, raw = PICTURED[1], PICTURED[0]
    videos, equal = {"original": clip.frames, coded: best[coded].shown}, []
    equal.append(_row(coded, best[coded].pool.strands, nets.quality(clip.frames, best[coded].shown)))
    contenders = {name: best[name] for name in (raw, coded)}  # mode context loses the same as prior
    for kind in codecs.CODECS:
        for budget in (coded, raw):
            most = len(best[budget].pool.strands)
            written = filled(clip, kind, points, most, redundancy)
            if written is None:
                continue
            if budget == raw:
                contenders[kind.title] = written
                if kind == codecs.CODECS[1]:  # as if losses were expected: a worse picture, and more repair
                    safe = filled(clip, kind, points, most, MORE)
                    contenders |= {SAFE: safe} if safe else {}
            else:
                videos[kind.title] = written.shown
                assert written.stream is not None  # it is one of ``filled``
                row = _row(kind.title, written.pool.strands, nets.quality(clip.frames, written.shown))
                equal.append(row | _setting(written.stream))
    pictures = {title: shown[middle] for title, shown in videos.items()}
    losses = []
    for name, written in contenders.items():
        for share, seed in itertools.product(SHARES, seeds):
            shown, whole = lost(clip, nets, written, share, seed)
            step("losses", 1, len(contenders) * len(SHARES) * len(seeds))
            quality = nets.quality(clip.frames, shown)
            losses.append(_row(name, written.pool.strands, quality) | {"share": share, "seed": seed, "whole": whole})
            if share == LOST and seed == seeds[0] and name in PICTURED:
                pictures[f"{name}, {share:.0%} lost"] = shown[middle]
    return {"points": points, "equal": equal, "losses": losses}, pictures, videos


# ---- points ----------------------------------------------------------------------------------------------


def helix_point(clip: Clip, nets: Judged, way: Way, quality: int, redundancy: float) -> tuple[Row, Written]:
    """Measure one quality of helix_jax. Times are measured at the first quality only, in a second run.

    Args:
        clip: the clip.
        nets: the nets.
        way: how helix_jax is used.
        quality: the quality.
        redundancy: repair packets as a share of the source packets.
    """
    config = way.config(quality, redundancy)

    def there_and_back():
        begin = time.perf_counter()
        pool = codec.encode(clip, nets, config=config)
        middle = time.perf_counter()
        shown = read_helix(nets, pool.strands)
        return pool, shown, {"encode_s": middle - begin, "decode_s": time.perf_counter() - middle}

    pool, shown, times = there_and_back()
    if quality == way.qualities[0]:
        pool, shown, times = there_and_back()
    else:
        times = dict.fromkeys(times)
    row = {
        "method": way.name, "writer": writers.OURS.name, "preset": "", "scale": 1.0, "setting": f"quality {quality}",
        "content_bytes": pool.header.content_bytes, "pool": pool,
    }  # fmt: skip
    return _point(clip, row, writers.OURS) | nets.quality(clip.frames, shown) | times, Written(pool, shown)


def read_helix(nets: Nets, strands: UInt8[np.ndarray, "n L"]) -> Video:
    """Decode strands to a clip. Raises DecodeError if nothing can be shown."""
    _, blocks, _ = codec.decode({strands.shape[1]: strands}, nets)
    return np.concatenate(list(blocks))


def codec_points(
    clip: Clip, nets: Judged, kind: codecs.Codec, preset: str, scale: float, crf: float, redundancy: float
) -> list[Row]:
    """Measure one setting of an ordinary codec: a row for each writer, all with the same picture.

    Args:
        clip: the clip.
        nets: the nets.
        kind: the codec.
        preset: preset of the encoder.
        scale: factor of height and width before coding.
        crf: CRF of the encoder.
        redundancy: repair packets as a share of the source packets.
    """
    begin = time.perf_counter()
    stream = codecs.compress(clip.frames, clip.info.fps, crf, kind, preset, scale)
    encode = time.perf_counter() - begin
    begin = time.perf_counter()
    shown, _ = codecs.expand(stream, clip.frames.shape[:3])
    decode = time.perf_counter() - begin
    quality, data, rows = nets.quality(clip.frames, shown), stream.to_bytes(), []
    for writer in writers.WRITERS:
        begin = time.perf_counter()
        pool = writers.pool_of(data, writer, redundancy)
        middle = time.perf_counter()
        payload, missing = writers.read_pool(pool.strands, writer)
        times = {"encode_s": encode + middle - begin, "decode_s": decode + time.perf_counter() - middle}
        if missing.any() or payload != data:
            raise AssertionError(f"{kind.title}, {writer.name}: other bytes come back; please report this")
        row = {"method": kind.title, "writer": writer.name, **_setting(stream, preset), "content_bytes": len(data)}
        rows.append(_point(clip, row | {"pool": pool}, writer) | quality | times)
    return rows


def _setting(stream: codecs.Stream, preset: str | None = None) -> Row:
    setting = {"scale": stream.scale, "setting": f"CRF {stream.crf:g}"}
    return {"preset": preset, **setting} if preset else setting


def _point(clip: Clip, row: Row, writer: Any) -> Row:
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


def _row(name: str, strands: UInt8[np.ndarray, "n L"], quality: dict[str, float]) -> Row:
    return {"method": name, "nucleotides": strands.size, **quality}


# ---- equal nucleotides, and losses -----------------------------------------------------------------------


def filled(clip: Clip, kind: codecs.Codec, points: Sequence[Row], most: int, redundancy: float) -> Written | None:
    """Write a clip by a codec in a limited number of strands, with our writer; None if it does not get so small.

    It uses the thorough preset and the scale with the best PSNR by interpolation between the measured points, and
    searches the CRF.

    Args:
        clip: the clip.
        kind: the codec.
        points: the measured points.
        most: greatest number of strands.
        redundancy: repair packets as a share of the source packets.
    """
    size, candidates = writers.most_bytes(writers.OURS, most, redundancy), []
    for scale, crfs in kind.scales(*clip.frames.shape[1:3]):
        wanted = (kind.title, writers.OURS.name, kind.presets[-1], scale)
        rows = [p for p in points if (p["method"], p["writer"], p["preset"], p["scale"]) == wanted]
        curve = sorted((p["content_bytes"], p["psnr"], crf) for p, crf in zip(rows, crfs, strict=True))
        sizes = [np.log(bytes_) for bytes_, _, _ in curve]
        if size < 1 or np.log(size) < sizes[0]:
            continue
        promise, crf = (float(np.interp(np.log(size), sizes, [p[n] for p in curve])) for n in (1, 2))
        candidates.append((promise, scale, float(round(crf)) if kind.step == 1 else crf))
    if not candidates:
        return None
    _, scale, crf = max(candidates)
    stream = codecs.fit(clip.frames, clip.info.fps, size, kind, kind.presets[-1], scale, crf)
    shown, _ = codecs.expand(stream, clip.frames.shape[:3])
    return Written(writers.pool_of(stream.to_bytes(), writers.OURS, redundancy), shown, stream)


def lost(clip: Clip, nets: Judged, written: Written, share: float, seed: int) -> tuple[Video, bool]:
    """Lose a share of all strands, and return what is shown, and whether every byte came back.

    With the same seed, the strands lost at a smaller share are among those lost at a larger one.

    Args:
        clip: the clip.
        nets: the nets.
        written: the clip on strands.
        share: share of the strands that is lost.
        seed: seed of the loss.
    """
    strands = written.pool.strands
    order = generator(seed, clip.name).permutation(len(strands))
    left = strands[np.sort(order[round(share * len(strands)) :])]
    grey = np.full(clip.frames.shape, codecs.GREY, np.uint8)
    if written.stream is None:
        try:
            shown = read_helix(nets, left)
        except codec.DecodeError:
            return grey, False
        return shown, bool(np.array_equal(shown, written.shown))
    stream = written.stream
    missing = writers.read_pool(left, writers.OURS)[1][len(stream.header) :]
    if not missing.any():
        return written.shown, True
    tries = [codecs.expand(some, clip.frames.shape[:3])[0] for some in codecs.damaged(stream, missing, 1)]
    return max(tries, key=lambda shown: metrics.psnr(clip.frames, shown)), False
