"""The files of `--writer timing`: a clip or bytes to a schedule file, and a file of reads to a clip or bytes."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helix_jax import timed_video
from helix_jax.reads import fastq
from helix_jax.strands import records
from helix_jax.timing import capacity, codec, schedule
from helix_jax.timing import scheme as schemes
from helix_jax.tokenizer import tiles, weights
from helix_jax.video import VideoInfo

Progress = Callable[[str, int, int], None] | None


def encode(
    output: str | Path, reader: Any, model: weights.Model, scheme: str, *, progress: Progress = None
) -> dict[str, Any]:
    """Write a video as a schedule file, and return the figures to show.

    Args:
        output: the file to write.
        reader: a clip, as ``video.open_video`` gives it.
        model: the tokenizer.
        scheme: name of a scheme, or a JSON file.
        progress: called as progress(station, done, total).

    Raises:
        HelixError: with the reason; OutputError if the file cannot be written.
    """
    chosen = schemes.named(scheme)
    plan = timed_video.encode(reader, model, chosen, progress=progress)
    tokens = math.prod(tiles.grid_shape(reader.info.frames, reader.info.height, reader.info.width))
    return _write(output, plan, chosen, 2 * tokens * model.config.digits)


def read(path: str | os.PathLike) -> tuple[list[np.ndarray], dict[str, dict[str, int]]]:
    """Read a FASTA or FASTQ file of reads: a uint8 array of bases 0..3 for each, and a figure of those left out.

    Raises RecordsError for a file without reads.
    """
    copies = []
    with records.opened(path) as source:
        for bases, lengths, _ in fastq.chunks(source):
            rows = [row[:length] for row, length in zip(bases, lengths, strict=True)]
            whole = [row for row in rows if row.max() < records.UNKNOWN]
            if len(whole) < len(rows):
                source.left_out[records.LETTERS] += len(rows) - len(whole)
            copies += whole
        if not copies:
            raise records.RecordsError(f"{source.name} holds no reads: {source.told() or 'it is empty'}")
    return copies, {"left_out": dict(source.left_out)} if source.left_out else {}


def decode(
    copies: Sequence[np.ndarray], model: weights.Model, scheme: str, *, progress: Progress = None
) -> tuple[VideoInfo, Iterator[np.ndarray], codec.Report, float]:
    """Decode reads to a video: its VideoInfo, blocks of frames, Report, and the share of tokens that were concealed.

    Args:
        copies: the bases of each read.
        model: the tokenizer.
        scheme: name of a scheme, or a JSON file.
        progress: called as progress(station, done, total).

    Raises:
        HelixError: as ``timed_video.decode``.
    """
    chosen = schemes.named(scheme)
    return timed_video.decode(copies, model, chosen, progress=progress)


def pack(output: str | Path, data: bytes, scheme: str, *, progress: Progress = None) -> dict[str, Any]:
    """Write ``data`` as a schedule file, and return the figures to show; the other parameters are as in ``encode``."""
    chosen = schemes.named(scheme)
    return _write(output, codec.encode(data, chosen, progress=progress), chosen, 8 * len(data))


def unpack(copies: Sequence[np.ndarray], scheme: str, *, progress: Progress = None) -> tuple[bytes, codec.Report]:
    """Decode reads to bytes and a Report; the parameters are as in ``decode``.

    Raises DecodeError unless all bytes are right.
    """
    chosen = schemes.named(scheme)
    data, report = codec.decode(copies, chosen, progress=progress)
    timed_video.refuse_video(data)
    return data, report


def _write(output: str | Path, plan: schedule.Schedule, scheme: schemes.Scheme, bits: int) -> dict[str, Any]:
    """Write a schedule that holds ``bits`` bits of content, and return the figures to show."""
    schedule.write(output, plan)
    time = plan.time(scheme.overhead)
    return {
        "output": str(output),
        "scheme": scheme.name,
        "strands": len(plan.letters),
        "rounds_per_strand": plan.letters.shape[1],
        "time_units": round(time, 6),
        "content_bytes": -(-bits // 8),
        "net_bits_per_time_unit": round(bits / time, 4),
        "capacity": round(capacity.capacity(scheme.table, overhead=scheme.overhead), 4),
    }
