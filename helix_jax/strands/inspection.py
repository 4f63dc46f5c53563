"""What `helix-jax inspect` reports: constraint violations by the independent checker, histograms, densities."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from helix_jax import compression, notes
from helix_jax.errors import DecodeError
from helix_jax.strands import checker, header_search, layouts, received
from helix_jax.strands.header import Header
from helix_jax.strands.header_search import AnyStrands
from helix_jax.strands.layouts import PacketLayout
from helix_jax.strands.pool import Draft, Pool, densities
from helix_jax.strands.structure import Structure
from helix_jax.strands.written import Written
from helix_jax.tk_scone import capacity, constraints


def inspect(
    strands: AnyStrands,
    *,
    name: str | None = None,
    motifs: Iterable[str] = (),
    primers: Sequence[str] = ("", ""),
    primers_exempt: bool = False,
    key: bytes | None = None,
    stem: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict:
    """Check every strand of a pool and count what it holds.

    Args:
        strands: A dict of length -> uint8[n, length], or ``fasta.Strands``.
        name: The constraint set to check against; None reads it from the pool's header.
        motifs: Forbidden words that the pool was written with, unless its file says them.
        primers: The left and the right primer, likewise.
        primers_exempt: Whether GC windows leave the primers out, likewise.
        key: The pool's id, or None.
        stem: Strands with a longer hairpin stem than this are counted; None for no count.
        progress: Called as progress(station, bases newly checked, bases in all).

    Returns:
        Plain numbers, strings, lists and dicts (what ``--json`` prints).

    Raises:
        DecodeError: When no header can be read, or those of several pools, and no set is named.
    """
    figures = {}
    length = None
    written = Written.given(motifs, primers, primers_exempt)
    everything = sum(part.size for part in header_search.portions(strands))
    if name is None:
        try:
            source = header_search.find_header(strands, written, key, progress=progress)
        except DecodeError as error:
            said = f"{error}. To check the strands alone, name the set with --constraints"
            raise DecodeError(said, error.report) from error
        head, coder, chosen, written = source.header, source.coder, source.coder.constraints, source.written
        layout = head.layout(coder.bits)
        gross, net = densities(everything, coder.bits, coder.length, head.content_bytes)
        figures = {
            "kind": head.kind,
            "key": head.key.hex(),
            "gross_bits_per_nt": round(gross, 4),
            "net_bits_per_nt": round(net, 4),
            "bits_per_strand": coder.bits,
            "payload_bits": 8 * layout.symbol_bytes,
            "index_bits": layout.index_bits,
            "check_bits": layout.check_bits,
            "wasted_bits": layout.unused_bits,
            "source_strands": layout.sources,
            "repair_strands": layout.packets - layout.sources,
            "needs": needs(head, written),
        } | contents(head, layout)
        if any(section.kind == "note" for section in head.sections):
            figures["note"] = _note(strands, source)
        length = source.total
    else:
        noted = [note for text, note in getattr(strands, "notes", ()) if key is None or text == key.hex()]
        written = written or (noted[0] if noted else Written())
        chosen = header_search.as_written(constraints.named(name), written)
    left, right = (constraints.to_bases(primer, "primer") for primer in (written.left, written.right))
    rules, runs, gc, lengths, examples = {}, {}, {}, {}, []
    violations, done, structure = 0, 0, Structure(written, stem)
    for part in header_search.portions(strands):
        total = part.shape[1]
        done += len(part)
        lengths[total] = lengths.get(total, 0) + len(part)
        if progress:
            progress("checking", part.size, everything)
        if total <= written.ends:  # the strands are too short to hold anything between their primers
            violations, rules["primers"] = violations + len(part), rules.get("primers", 0) + len(part)
            continue
        structure.add(part)
        core = part[:, len(left) : total - len(right)]
        bare = (part[:, : len(left)] == left).all(axis=1) & (part[:, total - len(right) :] == right).all(axis=1)
        report = checker.check(core[bare], chosen)
        violations += report.violations + int((~bare).sum())
        if not bare.all():
            rules["primers"] = rules.get("primers", 0) + int((~bare).sum())
        for finding in report.findings:
            rules[finding.rule] = rules.get(finding.rule, 0) + finding.strands
            row_numbers = done - len(part) + np.flatnonzero(bare)
            examples += [
                f"{finding.rule}: strand {row_numbers[e.strand]}, base {e.position}: {e.what}" for e in finding.examples
            ]
        _add(runs, report.longest_runs)
        _add(gc, report.gc_percent)
    examples += [f"{count} strands of {n} nt, not {length}" for n, count in lengths.items() if length and n != length]
    return figures | {
        "constraints": chosen.describe(),
        "strands": done,
        "violations": violations,
        "violations_by_rule": rules,
        "capacity": round(capacity.load(chosen), 4),
        "runs": {str(k): runs[k] for k in sorted(runs)},
        "gc": {f"{k / 100:.2f}": gc[k] for k in sorted(gc)},
        **structure.figures(),
        "examples": examples[:20],
    }


def figures(pool: Pool | Draft, path: str | os.PathLike) -> dict[str, Any]:
    """Return the figures of a pool just written to ``path``, as plain numbers and strings."""
    c = pool.constraints
    length = pool.nucleotides // pool.count - len(c.left) - len(c.right)
    gross, net = densities(pool.nucleotides, pool.layout.bits, length, pool.header.content_bytes)
    return {
        "output": str(path),
        "constraints": c.describe(),
        "strands": pool.count,
        "nucleotides": int(pool.nucleotides),
        "gross_bits_per_nt": round(gross, 4),
        "net_bits_per_nt": round(net, 4),
        "capacity": round(capacity.load(c), 4),
        "key": pool.header.key.hex(),
    } | contents(pool.header, pool.layout)


def contents(head: Header, layout: PacketLayout) -> dict[str, Any]:
    """Return what a pool of format 2 holds, and why; {} for one of format 1, which holds a single content."""
    if not head.sections:
        return {}
    figures: dict[str, Any] = {"codec": head.codec} if head.codec else {}
    if head.measured:
        first, second = (psnr / 100 for psnr in head.measured)
        at_most = "" if head.codec == "tokens" else " at most"
        other = f"tokens {second:.2f} dB{at_most} in as much" if second else "tokens do not go into as much"
        figures["why"] = f"AV1 shows {first:.2f} dB of the first second, and {other}"
    stored = next((section for section in head.sections if section.kind == "file"), None)
    try:
        if stored and (size := compression.original_size(stored)) is not None:
            figures["compressed"] = f"zstd, {size:,} bytes before"
    except DecodeError as error:
        figures["compressed"] = str(error)
    figures["sections"] = [
        {
            "kind": section.kind,
            "bytes": section.size,
            "source_strands": part.sources,
            "repair_strands": layouts.blocks_of(part, layout.symbol_bytes) * (part.repairs - part.unwritten),
        }
        for section, part in zip(head.sections, layout.sections, strict=True)
    ]
    return figures


def needs(head: Header, written: Written) -> dict[str, Any]:
    """Return what decoding needs beside the strands, as far as the strands or the comments of their file say."""
    wanted = {"forbid": list(written.motifs), "left_primer": written.left, "right_primer": written.right}
    if any(head.model_hash):
        wanted |= {"model": head.model_hash.hex(), "prior": head.prior_hash.hex() if any(head.prior_hash) else ""}
    return {name: value for name, value in wanted.items() if value}


def _note(strands, found):
    """Return the figures of a pool's note, or in words why there are none."""
    try:
        note = notes.received(received.read_pool(strands, found=found, key=found.header.key))
    except DecodeError as error:
        return str(error)
    return note.figures if note else "lost"


def _add(total, counts):
    for value, count in enumerate(counts):
        if count:
            total[value] = total.get(value, 0) + int(count)
