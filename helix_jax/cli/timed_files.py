"""The files of `--writer timing`: clip or bytes -> schedule file, and FASTA file of reads -> clip or bytes."""

import math

from helix_jax import timed_video
from helix_jax.reads import fastq
from helix_jax.strands import records
from helix_jax.timing import capacity, codec, schedule
from helix_jax.timing import scheme as schemes
from helix_jax.tokenizer import tiles


def encode(output, reader, model, scheme, *, progress=None):
    """Video -> schedule file. scheme: name, or JSON file. Returns figures as plain numbers and strings.

    Raises ValueError with the reason, files.OutputError.
    """
    chosen = schemes.named(scheme)
    plan = timed_video.encode(reader, model, chosen, progress=progress)
    tokens = math.prod(tiles.grid_shape(reader.info.frames, reader.info.height, reader.info.width))
    return _write(output, plan, chosen, 2 * tokens * model.config.digits)


def read(path):
    """FASTA or FASTQ file of reads -> (list of uint8 arrays, bases 0..3; figures of the reads that were left out).

    Raises records.RecordsError for a file without reads."""
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


def decode(copies, model, scheme, *, progress=None):
    """Reads -> (VideoInfo, blocks, Report, share of tokens concealed), as ``timed_video.decode``."""
    chosen = schemes.named(scheme)
    return timed_video.decode(copies, model, chosen, progress=progress)


def pack(output, data, scheme, *, progress=None):
    """Bytes -> schedule file. Otherwise as ``encode``."""
    chosen = schemes.named(scheme)
    return _write(output, codec.encode(data, chosen, progress=progress), chosen, 8 * len(data))


def unpack(copies, scheme, *, progress=None):
    """Reads -> (bytes, Report). Raises codec.DecodeError unless all bytes are right."""
    chosen = schemes.named(scheme)
    data, report = codec.decode(copies, chosen, progress=progress)
    timed_video.refuse_video(data)
    return data, report


def _write(output, plan, scheme, bits):
    """bits: of the content."""
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
