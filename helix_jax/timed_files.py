"""The files of `--writer timing`: clip or bytes -> schedule file, and FASTA file of reads -> clip or bytes."""

import math

from helix_jax import timed_video
from helix_jax.strands import fasta
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


def decode(path, model, scheme, *, progress=None):
    """FASTA file of reads -> (VideoInfo, blocks, Report, share of tokens concealed), as ``timed_video.decode``."""
    chosen = schemes.named(scheme)
    return timed_video.decode(_reads(path), model, chosen, progress=progress)


def pack(output, data, scheme, *, progress=None):
    """Bytes -> schedule file. Otherwise as ``encode``."""
    chosen = schemes.named(scheme)
    return _write(output, codec.encode(data, chosen, progress=progress), chosen, 8 * len(data))


def unpack(path, scheme, *, progress=None):
    """FASTA file of reads -> (bytes, Report). Raises codec.DecodeError unless all bytes are right."""
    chosen = schemes.named(scheme)
    data, report = codec.decode(_reads(path), chosen, progress=progress)
    timed_video.refuse_video(data)
    return data, report


def _reads(path):
    return [row for group in fasta.read(path).values() for row in group]


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
