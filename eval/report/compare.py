"""One clip as helix_jax and as ordinary codecs write it: nucleotides, quality, times, and what losses leave.

    points    every way at every setting: helix_jax in its ways and qualities (``eval.report.ways``); H.264, H.265 and
              AV1 in their presets, sizes and CRFs, each with every writer of ``eval.report.writers``. All strands are
              actually written, read back, and passed to the checker.
    equal     AV1 of helix_jax and the codecs again, each with the settings that fill the strands that tokens take at
              their best quality in mode prior
    losses    strands lost at random, including header strands, and what is shown from the rest. An ordinary stream is
              read as ``eval.report.codecs.damaged`` says, and its parameter sets are not lost; if nothing can be shown,
              a grey picture counts. AV1 of helix_jax and the codecs fill as many strands as mode raw takes; H.265 is
              also measured with a worse picture and more repair packets in these strands (MORE).

Without tokens RATE says how many nucleotides per pixel are filled. The sound of a clip that has some is stored by all:
the codecs store the same packets after the picture.

Times are those of this machine, once compiled, and without the check of the coded tokens by the NumPy reference that
``encode`` makes before writing (``verify``).
"""

import hashlib
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from eval import metrics
from eval.clips import Clip, generator
from eval.report import codecs, ways, writers
from eval.report.ways import Judged, Row, Video, Way, Written, best_of, counted
from helix_jax import codec
from helix_jax.errors import HelixError

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # shares of lost strands
MORE = 0.8  # repair packets as a share of the source packets, in the same strands
SAFE = "H.265, 80 % repair"
CODERS: tuple[Any, ...] = writers.WRITERS  # which write the streams of the codecs
LOST = 0.2  # share for which pictures are kept
PICTURED = ("helix_jax raw", "helix_jax prior", "helix_jax av1, effort 3", "H.265")  # the others are grey too
RATE = 0.02  # nucleotides per pixel that are filled where the tokens in modes prior or raw are not measured


def measure(
    clip: Clip,
    nets: Judged,
    chosen: Sequence[Way],
    redundancy: float,
    seeds: Sequence[int],
    step: Callable[[str, int, int], Any],
    quick: bool = False,
) -> tuple[dict[str, list[Row]], dict[str, UInt8[np.ndarray, "H W 3"]], dict[str, Video]]:
    """Measure one clip.

    Args:
        clip: The clip.
        nets: The nets.
        chosen: How helix_jax is used.
        redundancy: Repair packets as a share of the source packets.
        seeds: Seeds of the losses.
        step: Called as step(station, done, total).
        quick: Measure points only.

    Returns:
        The rows {"points", "equal", "losses"}; pictures of the middle frame by their titles; and videos at equal
        nucleotides by their names, the original first.
    """
    points, best = [], {}
    total = sum(len(way.qualities) for way in chosen)
    for way in chosen:
        for quality in way.qualities:
            row, written = ways.point(clip, nets, way, quality, redundancy)
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
    if quick:
        return {"points": points, "equal": [], "losses": []}, {}, {"original": clip.frames}
    equal, losses = {}, {}
    made: dict[int, dict[str, Written]] = {}
    for kind, contenders in (("prior", equal), ("raw", losses)):
        way = best_of(tuple(chosen), kind)
        if way:
            contenders[way.name] = best[way.name]
        most = _strands(contenders) or round(RATE * clip.frames[..., 0].size / writers.OURS.length)
        if most not in made:
            made[most] = contenders_of(clip, nets, chosen, points, most, redundancy)
        contenders |= made[most]
    coded = best_of(tuple(chosen), "prior")
    if coded:
        losses[coded.name] = best[coded.name]  # mode context loses the same
    if (safe := filled(clip, codecs.CODECS[1], points, _strands(losses), MORE)) is not None:
        losses[SAFE] = safe  # as if losses were expected: a worse picture, and more repair
    middle = len(clip.frames) // 2
    videos = {"original": clip.frames} | {name: written.shown for name, written in equal.items()}
    pictures = {title: shown[middle] for title, shown in videos.items()}
    rows, judged = [], {}
    for name, written in losses.items():
        for share, seed in itertools.product(SHARES, seeds):
            shown, whole = lost(clip, nets, written, share, seed)
            step("losses", 1, len(losses) * len(SHARES) * len(seeds))
            if (same := _digest(shown)) not in judged:  # most are whole, or grey
                judged[same] = nets.quality(clip.frames, shown)
            rows.append(_row(name, written.pool.strands, judged[same]) | {"share": share, "seed": seed, "whole": whole})
            if share == LOST and seed == seeds[0] and name in PICTURED:
                pictures[f"{name}, {share:.0%} lost"] = shown[middle]
    compared = [
        _row(name, written.pool.strands, nets.quality(clip.frames, written.shown))
        | (_setting(written.stream) if written.stream else {})
        for name, written in equal.items()
    ]
    return {"points": points, "equal": compared, "losses": rows}, pictures, videos


def contenders_of(
    clip: Clip, nets: Judged, chosen: Sequence[Way], points: Sequence[Row], most: int, redundancy: float
) -> dict[str, Written]:
    """Write a clip by AV1 of helix_jax and by the codecs in at most ``most`` strands, as far as they get so small."""
    found = {}
    for way in chosen:
        if way.kind == "av1":
            try:
                found[way.name] = ways.within(clip, nets, way, most * writers.OURS.length, redundancy)
            except HelixError:
                continue  # it does not get so small
    for kind in codecs.CODECS:
        written = filled(clip, kind, points, most, redundancy)
        if written is not None:
            found[kind.title] = written
    return found


def _digest(shown):
    return hashlib.sha256(shown.tobytes()).digest()


def _strands(contenders):
    return max((len(written.pool.strands) for written in contenders.values()), default=0)


# ---- points ----------------------------------------------------------------------------------------------


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
    quality, data, rows = nets.quality(clip.frames, shown), stream.to_bytes() + clip.heard, []
    for writer in CODERS:
        begin = time.perf_counter()
        pool = writers.pool_of(data, writer, redundancy)
        middle = time.perf_counter()
        payload, missing = writers.read_pool(pool.strands, writer)
        times = {"encode_s": encode + middle - begin, "decode_s": decode + time.perf_counter() - middle}
        if missing.any() or payload != data:
            raise AssertionError(f"{kind.title}, {writer.name}: other bytes come back; please report this")
        row = {"method": kind.title, "writer": writer.name, **_setting(stream, preset), "content_bytes": len(data)}
        rows.append(counted(clip, row | {"pool": pool}, writer) | quality | times)
    return rows


def _setting(stream: codecs.Stream, preset: str | None = None) -> Row:
    setting = {"scale": stream.scale, "setting": f"CRF {stream.crf:g}"}
    return {"preset": preset, **setting} if preset else setting


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
    size, candidates = writers.most_bytes(writers.OURS, most, redundancy) - len(clip.heard), []
    for scale, crfs in kind.scales(*clip.frames.shape[1:3]):
        wanted = (kind.title, writers.OURS.name, kind.presets[-1], scale)
        rows = [p for p in points if (p["method"], p["writer"], p["preset"], p["scale"]) == wanted]
        more = len(clip.heard)
        curve = sorted((p["content_bytes"] - more, p["psnr"], crf) for p, crf in zip(rows, crfs, strict=True))
        sizes = [np.log(bytes_) for bytes_, _, _ in curve]
        if size < 1 or np.log(size) < sizes[0]:
            continue
        promise, crf = (float(np.interp(np.log(size), sizes, [p[n] for p in curve])) for n in (1, 2))
        candidates.append((promise, scale, crf))
    if not candidates:
        return None
    _, scale, crf = max(candidates)
    stream = codecs.fit(clip.frames, clip.info.fps, size, kind, kind.presets[-1], scale, crf)
    shown, _ = codecs.expand(stream, clip.frames.shape[:3])
    return Written(writers.pool_of(stream.to_bytes() + clip.heard, writers.OURS, redundancy), shown, stream)


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
            shown = ways.read(nets, left)
        except codec.DecodeError:
            return grey, False
        return shown, bool(np.array_equal(shown, written.shown))
    stream = written.stream
    missing = writers.read_pool(left, writers.OURS)[1][len(stream.header) : stream.size]
    if not missing.any():
        return written.shown, True
    tries = [codecs.expand(some, clip.frames.shape[:3])[0] for some in codecs.damaged(stream, missing, 1)]
    return max(tries, key=lambda shown: metrics.psnr(clip.frames, shown)), False
