"""One clip as helix_jax and as ordinary codecs write it: nucleotides, quality, times, and what losses leave.

    points    every way at every setting: helix_jax in its modes and qualities through ``codec.encode`` and
              ``codec.decode``; H.264, H.265 and AV1 in their presets, sizes and CRFs, each with every writer of
              ``eval.report.writers``. All strands are really written, read back, and shown to the checker.
    equal     the codecs again, each searched to fill the strands that helix_jax takes at its best quality
    losses    strands lost at random, header strands among them: what is shown of the rest. An ordinary stream is
              read as ``eval.report.codecs.damaged`` says, the parameter sets not lost; where nothing can be shown, a
              grey picture counts. The codecs fill as many strands as mode raw takes; H.265 also with less picture and
              more repair packets in them (MORE).

Times are of this machine, once compiled, and without the check of the coded tokens by the NumPy reference that
``encode`` makes before writing (``verify``).
"""

import itertools
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval import lpips, metrics
from eval.clips import generator
from eval.report import codecs, writers
from helix_jax import codec
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.nets import Nets
from helix_jax.tk_scone import constraints

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)  # of strands lost
EVERY = 8  # frames from one MS-SSIM or LPIPS to the next, as eval.quality
RULES = constraints.named("helix")
MORE = 0.8  # repair packets as a share of the source packets, in the same strands
SAFE = "H.265, 80 % repair"
LOST = 0.2  # share of which pictures are kept
PICTURED = ("helix_jax raw", "helix_jax prior", "H.265")  # the others look like H.265: grey


@dataclass(frozen=True)
class Way:
    """How helix_jax is asked. mode, effort: of CodecConfig. qualities: of CodecConfig, the best first."""

    mode: str
    qualities: tuple[int, ...]
    effort: int = 0

    @property
    def name(self):
        return f"helix_jax {self.mode}" + (f", effort {self.effort}" if self.effort else "")

    def config(self, quality, redundancy):
        return CodecConfig(
            mode=self.mode, quality=quality, effort=self.effort, verify=False, constraints=RULES.name,
            strands=StrandConfig(redundancy=redundancy),
        )  # fmt: skip


WAYS = (  # of mode raw: 8, 7, 6, 5, 4 and 3 digits
    Way("raw", (10, 9, 7, 6, 4, 3)),
    Way("context", (10, 8, 6, 4, 2, 0)),
    Way("raw", (10, 6, 3), 2),
    Way("prior", (10, 5, 2), 2),
    Way("prior", (10, 8, 6, 5, 4, 2, 0)),
)


@dataclass(frozen=True, eq=False)
class Judged(Nets):
    """The nets that are measured, and how pictures are judged. lpips: weights as ``lpips.load`` gives them, or None."""

    lpips: Any = None

    def quality(self, original, shown):
        """Both uint8[T, H, W, 3] -> {"psnr", "ms_ssim"} and "lpips" where there are weights."""
        parts = original[::EVERY], shown[::EVERY]
        found = {"psnr": metrics.psnr(original, shown), "ms_ssim": metrics.ms_ssim(*parts)}
        return found | ({"lpips": lpips.distance(self.lpips, *parts)} if self.lpips else {})


@dataclass(frozen=True, eq=False)
class Written:
    """A clip on strands, and how it comes back. shown: uint8[T, H, W, 3]. stream: codecs.Stream and its pool, or
    None and a codec.Pool."""

    pool: Any
    shown: np.ndarray
    stream: Any = None


def measure(clip, nets, redundancy, seeds, step):
    """clip: clips.Clip. redundancy: repair packets as a share of the source packets. seeds: list of int, of losses.
    step: called as step(station, done, total). Returns (figures, pictures, videos).

    figures: {"points", "equal", "losses"}, lists of dicts. pictures: dict of title -> uint8[H, W, 3], the middle frame.
    videos: dict of name -> uint8[T, H, W, 3] at equal nucleotides, the original first.
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
    contenders = {name: best[name] for name in (raw, coded)}  # mode context loses what prior loses
    for kind in codecs.CODECS:
        for budget in (coded, raw):
            most = len(best[budget].pool.strands)
            written = filled(clip, kind, points, most, redundancy)
            if written is None:
                continue
            if budget == raw:
                contenders[kind.title] = written
                if kind == codecs.CODECS[1]:  # what one would do who expects losses: a worse picture, and more repair
                    safe = filled(clip, kind, points, most, MORE)
                    contenders |= {SAFE: safe} if safe else {}
            else:
                videos[kind.title] = written.shown
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


def helix_point(clip, nets, way, quality, redundancy):
    """One quality of helix_jax -> (row, Written). Times at the first quality only, where all is compiled first."""
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
        "content_bytes": pool.header.content_bytes, "pool": pool, "claims": pool.constraints,
    }  # fmt: skip
    return _point(clip, row, writers.OURS) | nets.quality(clip.frames, shown) | times, Written(pool, shown)


def read_helix(nets, strands):
    """Strands uint8[n, L] -> uint8[T, H, W, 3]. Raises DecodeError where nothing can be shown."""
    _, blocks, _ = codec.decode({strands.shape[1]: strands}, nets)
    return np.concatenate(list(blocks))


def codec_points(clip, nets, kind, preset, scale, crf, redundancy):
    """One setting of an ordinary codec, with every writer: a list of rows, which show the same."""
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
        payload, gone = writers.read_pool(pool, pool.strands)
        times = {"encode_s": encode + middle - begin, "decode_s": decode + time.perf_counter() - middle}
        if gone.any() or payload[: len(data)] != data:
            raise AssertionError(f"{kind.title}, {writer.name}: other bytes come back; please report this")
        row = {"method": kind.title, "writer": writer.name, **_setting(stream, preset), "content_bytes": len(data)}
        rows.append(_point(clip, row | {"pool": pool, "claims": writer.claims}, writer) | quality | times)
    return rows


def _setting(stream, preset=None):
    found = {"scale": stream.scale, "setting": f"CRF {stream.crf:g}"}
    return {"preset": preset, **found} if preset else found


def _point(clip, row, writer):
    """What can be counted on the strands themselves, in place of "pool" and "claims"."""
    row = dict(row)
    strands, claims = row.pop("pool").strands, row.pop("claims")
    return row | {
        "strands": len(strands),
        "nucleotides": strands.size,
        "nt_per_pixel": strands.size / clip.frames[..., 0].size,
        "gross_bit_per_nt": writer.bits / strands.shape[1],
        "net_bit_per_nt": 8 * row["content_bytes"] / strands.size,
        "break_claims": writers.violations(strands, claims),
        "break_helix": writers.violations(strands, RULES),
    }


def _row(name, strands, quality):
    return {"method": name, "nucleotides": strands.size, **quality}


# ---- equal nucleotides, and losses -----------------------------------------------------------------------


def filled(clip, kind, points, most, redundancy):
    """A codec in at most so many strands, by our writer -> Written; None where it never gets so small.

    Thorough preset, the scale that promises the best PSNR between the measured points, and the CRF searched.
    """
    size, found = writers.most_bytes(writers.OURS, most, redundancy), []
    for scale, crfs in kind.scales(*clip.frames.shape[1:3]):
        wanted = (kind.title, writers.OURS.name, kind.presets[-1], scale)
        here = [p for p in points if (p["method"], p["writer"], p["preset"], p["scale"]) == wanted]
        here = sorted((p["content_bytes"], p["psnr"], crf) for p, crf in zip(here, crfs, strict=True))
        sizes = [np.log(bytes_) for bytes_, _, _ in here]
        if size < 1 or np.log(size) < sizes[0]:
            continue
        promise, crf = (float(np.interp(np.log(size), sizes, [p[n] for p in here])) for n in (1, 2))
        found.append((promise, scale, float(round(crf)) if kind.step == 1 else crf))
    if not found:
        return None
    _, scale, crf = max(found)
    stream = codecs.fit(clip.frames, clip.info.fps, size, kind, kind.presets[-1], scale, crf)
    shown, _ = codecs.expand(stream, clip.frames.shape[:3])
    return Written(writers.pool_of(stream.to_bytes(), writers.OURS, redundancy), shown, stream)


def lost(clip, nets, written, share, seed):
    """What is shown where a share of all strands is lost: (uint8[T, H, W, 3], whether every byte came back).

    From one seed, what a smaller share loses is among what a larger one loses.
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
    _, gone = writers.read_pool(written.pool, left)
    stream = written.stream
    gone = np.repeat(gone, written.pool.layout.symbol_bytes)[len(stream.header) : stream.size]
    if not gone.any():
        return written.shown, True
    tries = [codecs.expand(some, clip.frames.shape[:3])[0] for some in codecs.damaged(stream, gone, 1)]
    return max(tries, key=lambda shown: metrics.psnr(clip.frames, shown)), False
