"""The Yin-Yang Code of the package Chamaeleo. Setting: segment, the bits of content in each half of a strand.

Its content is whole pairs of segments: one that has no partner, or is filled up with zeros, is written with invented
bits of few letters, in up to twenty strands that no clustering tells apart.
"""

import importlib.metadata
import random

from eval.peers import protocol


def version(request):
    """Return the version of the package, and the bytes of two segments."""
    import Chamaeleo  # noqa: F401  # pyrefly: ignore [missing-import]

    return f"Chamaeleo {importlib.metadata.version('Chamaeleo')}", request.setting["segment"] // 4


def pipeline():
    """Return the code and the pipeline, with the published rule of the package's example."""
    from Chamaeleo.methods.flowed import YinYangCode  # pyrefly: ignore [missing-import]
    from Chamaeleo.utils.pipelines import TranscodePipeline  # pyrefly: ignore [missing-import]

    code = YinYangCode(max_homopolymer=4, max_content=0.6)
    return code, TranscodePipeline(coding_scheme=code, error_correction=None)


def encode(request, data):
    """Return the strands, and what the code has to remember."""
    random.seed(1)
    source = request.folder / "content.bin"
    source.write_bytes(data)
    code, pipe = pipeline()
    made = pipe.transcode(
        direction="t_c", input_path=str(source), segment_length=request.setting["segment"], index=True
    )
    state = {name: getattr(code, name) for name in ("index_length", "total_count", "bit_size", "segment_length")}
    return ["".join(strand) for strand in made["dna"]], state, None


def decode(request, state, received):
    """Return the content."""
    code, pipe = pipeline()
    for name, value in state.items():
        setattr(code, name, value)
    out = request.folder / "content.out"
    pipe.transcode(
        direction="t_s", input_string=[list(each.strand) for each in received], index=True,
        index_length=state["index_length"], output_path=str(out),
    )  # fmt: skip
    return out.read_bytes(), None


if __name__ == "__main__":
    protocol.serve(protocol.Peer(version, encode, decode))
