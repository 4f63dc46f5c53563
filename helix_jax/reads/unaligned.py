"""Reads -> an unaligned BAM file, as a basecaller writes it."""

import array
from collections.abc import Sequence

import numpy as np

from helix_jax.files import PathLike, atomic
from helix_jax.reads.fastq import Arrays

_GROUP = "1"
_HEADER = {
    "HD": {"VN": "1.6", "SO": "unsorted"},
    "RG": [{"ID": _GROUP, "SM": "helix_jax", "DS": "simulated reads"}],
}
_LETTERS = np.frombuffer(b"ACGTN", np.uint8)


def write(path: PathLike, mates: Sequence[Arrays], names: Sequence[str]) -> None:
    """Write reads, or pairs of them, as an unaligned BAM file, all or nothing.

    Args:
        path: The file.
        mates: (bases uint8[n, W], lengths int[n], qualities uint8[n, W]) as ``fastq.write`` takes them: the reads, or
            the first reads of the pairs and the second ones.
        names: n names.
    """
    import pysam

    flags = (pysam.FUNMAP,)
    if len(mates) > 1:
        paired = pysam.FUNMAP | pysam.FPAIRED | pysam.FMUNMAP
        flags = (paired | pysam.FREAD1, paired | pysam.FREAD2)
    with atomic(path) as temporary, pysam.AlignmentFile(str(temporary), "wb", header=_HEADER) as out:
        for number, name in enumerate(names):
            for flag, (bases, lengths, qualities) in zip(flags, mates, strict=True):
                length = int(lengths[number])
                record = pysam.AlignedSegment(out.header)
                record.query_name, record.flag = name, flag
                record.query_sequence = _LETTERS[bases[number, :length]].tobytes().decode()
                record.query_qualities = array.array("B", qualities[number, :length].tobytes())
                record.set_tag("RG", _GROUP)
                out.write(record)
