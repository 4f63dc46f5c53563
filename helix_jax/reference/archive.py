"""The archival decoder reads the content of a pool without JAX and without the range coder of the library.

``python -m helix_jax.reference POOL.fasta FILE [PRIOR.safetensors]`` writes the bytes of a pool (out of zstd where that
is what they are in, and compared with the note where there is one) or, for a video of tokens, its token digits
uint8[t, h, w, k] as .npy. It leaves out the update of the decoder (``tokenizer.update``) that a pool of `--effort 3`
may have behind them, and their sound. The prior's weights are needed where the tokens of the pool are coded; the
shipped ones are the default. Of other pools of format 2 it writes the sections, as the files of a ZIP archive: AV1 as
bare OBUs, group by group, which dav1d reads, and Opus packets (``video.sound`` has their format).
"""

import hashlib
import os
import sys
import zipfile
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from helix_jax import compression, files
from helix_jax.coding import payload, segments
from helix_jax.prior import stored
from helix_jax.reference import kernels, token_coder
from helix_jax.strands import fasta, header, outer, packets, sections
from helix_jax.tk_scone import constraints, mixing, tables


def read_pool(
    strands: dict[int, UInt8[np.ndarray, "_ _"]], prior: str | os.PathLike[str] | None = None
) -> bytes | list[tuple[sections.Section, bytes]] | UInt8[np.ndarray, "t h w k"]:
    """Decode the strands of a pool to bytes, to the sections of format 2, or to the token digits of a video.

    Args:
        strands: The strands, without primers, by their length.
        prior: Path of the prior's weights, which are read where tokens are coded. None stands for the shipped ones.

    Raises:
        ValueError: There is no header of a named constraint set, the payload is not complete, or the pool was coded
            with another prior.
    """
    for length, group in strands.items():
        for chosen in constraints.NAMED.values():
            table = tables.load(chosen, length)
            if not header.usable(table.bits):
                continue
            pairs = [kernels.read_strand(table, strand) for strand in group]
            words = np.array([kernels.int_to_words(number, table.bits) for number, ok in pairs if ok])
            if not len(words):
                continue
            headers, is_header = header.find_headers(words, table.bits)
            for head in headers:
                layout = head.layout(table.bits)
                index, symbols, ok = packets.unpack(layout, head.key, words[~is_header])
                recovered = outer.decode(layout, index[ok], symbols[ok], head.genuine())
                if not any(recovered.parts_verified) or not (head.sections or recovered.verified):
                    raise ValueError(f"pool {head.key.hex()}: {int(recovered.lost.sum())} packets are lost past repair")
                rows = np.frombuffer(recovered.payload, np.uint8).reshape(layout.sources, layout.symbol_bytes)
                digits = mixing.unmix(mixing.from_bytes(rows), head.key, head.mixing)
                if head.sections:
                    kinds = [section.kind for section in head.sections]
                    if head.kind == "bytes" and kinds.count("file") == 1:
                        return _file(_sections(head, mixing.to_bytes(digits), recovered.parts_verified))
                    if "tokens" not in kinds:
                        return _sections(head, mixing.to_bytes(digits), recovered.parts_verified)
                    if not recovered.parts_verified[kinds.index("tokens")]:
                        raise ValueError(f"pool {head.key.hex()}: packets of its tokens are lost past repair")
                    begin = sum(part.sources for part in layout.sections[: kinds.index("tokens")])
                    digits = digits[begin : begin + layout.sections[kinds.index("tokens")].sources]
                if head.kind == "bytes":
                    return mixing.to_bytes(digits).tobytes()[: head.content_bytes]
                grid = (-(-head.frames // 4), -(-head.height // 8), -(-head.width // 8))
                if head.mode == "raw":
                    return mixing.deinterleave(digits, grid, head.digits, head.mixing)
                return _expand(head, grid, mixing.to_bytes(digits), prior)
    raise ValueError(
        "no header of a helix_jax pool in a named constraint set: more strands are needed, or it has primers"
    )


def _sections(
    head: header.Header, rows: UInt8[np.ndarray, "sources width"], verified: Sequence[bool]
) -> list[tuple[sections.Section, bytes]]:
    """Return the sections of a pool of format 2 that have come back and their bytes, from those of the packets."""
    found, begin = [], 0
    for section, whole in zip(head.sections, verified, strict=True):
        end = begin + section.part(head.symbol_bytes).sources
        if not whole:
            print(f"section {section.kind} of {section.size} bytes is lost past repair", file=sys.stderr)
            begin = end
            continue
        found.append((section, rows[begin:end].tobytes()[: section.size]))
        begin = end
    return found


def _file(found: list[tuple[sections.Section, bytes]]) -> bytes:
    """Return the bytes of a packed file, which are compared with its note where there is one.

    Raises ValueError where they are lost, are not what the pool states, or do not match the note.
    """
    kinds = {section.kind: (section, data) for section, data in found}
    if "file" not in kinds:
        raise ValueError("packets of the packed file are lost past repair")
    section, data = kinds["file"]
    size = compression.original_size(section)
    if size is not None:
        compression.check_memory(size, "use `helix-jax unpack`")
        data = b"".join(compression.expanded(iter([data]), size))
    if "note" in kinds and hashlib.sha256(data).digest() != kinds["note"][1][:32]:
        raise ValueError("the bytes do not match the SHA-256 of the pool's note")
    return data


def _expand(
    head: header.Header,
    grid: tuple[int, int, int],
    rows: UInt8[np.ndarray, "sources width"],
    path: str | os.PathLike[str] | None,
) -> UInt8[np.ndarray, "t h w k"]:
    """Decode coded tokens from the bytes of the packets."""

    prior = stored.read(path or stored.DEFAULT)
    if prior.digest[:6] != head.prior_hash:
        raise ValueError(f"the pool was coded with prior {head.prior_hash.hex()}, not {prior.digest[:6].hex()}")
    if not 1 <= head.digits <= prior.config.digits:
        raise ValueError(f"the header says {head.digits} digits a token, the prior has {prior.config.digits}: forged?")
    plan = segments.plan(grid)
    coded = payload.read_pieces(rows, np.zeros(len(rows), bool), plan.number)
    if None in coded:
        raise ValueError(f"{coded.count(None)} of {plan.number} segments do not match their checks: forged?")
    return token_coder.expand_clip(prior, head.mode, plan, head.digits, coded)


def main() -> None:
    """Run the archival decoder on the command line's arguments."""
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python -m helix_jax.reference POOL.fasta FILE [PRIOR.safetensors]")
    try:
        content = read_pool(fasta.read(sys.argv[1]), *sys.argv[3:])
    except ValueError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
    with files.atomic(sys.argv[2]) as temporary, open(temporary, "wb") as out:
        if isinstance(content, bytes):
            out.write(content)
        elif isinstance(content, list):
            named = [(f"{n:03d}-{section.kind.replace(' ', '-')}", data) for n, (section, data) in enumerate(content)]
            with zipfile.ZipFile(out, "w") as archive:
                for name, data in named:
                    archive.writestr(name, data)
        else:
            np.save(out, content)
