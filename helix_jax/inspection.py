"""What `helix-jax inspect` finds: constraint violations by the independent checker, histograms, densities."""

import numpy as np

from helix_jax import codec
from helix_jax.strands import checker, pool
from helix_jax.tk_scone import capacity, constraints


def inspect(strands, *, name=None, motifs=(), primers=("", ""), key=None, progress=None):
    """Check every strand of a pool and count what it holds.

    strands: dict of length -> uint8[n, length]. name: constraint set to check against; None reads it from the pool's
    header.
    Returns a dict of plain numbers, strings, lists and dicts (what ``--json`` prints).
    Raises ValueError when no header can be read and no set is named.
    """
    figures = {}
    length = None
    if name is None:
        try:
            head, chosen, table, *_ = pool.find_header(
                strands, motifs=motifs, primers=primers, key=key, progress=progress
            )
        except pool.DecodeError as error:
            raise ValueError(f"{error}. To check the strands alone, name the set with --constraints") from error
        layout = head.layout(table.bits)
        everything = np.concatenate([group.reshape(-1) for group in strands.values()])
        gross, net = codec.densities(everything, table.bits, table.length, head.content_bytes)
        figures = {
            "kind": head.kind,
            "key": head.key.hex(),
            "gross_bits_per_nt": round(gross, 4),
            "net_bits_per_nt": round(net, 4),
            "bits_per_strand": table.bits,
            "payload_bits": 8 * layout.symbol_bytes,
            "index_bits": layout.index_bits,
            "check_bits": layout.check_bits,
            "wasted_bits": layout.unused_bits,
            "source_strands": layout.sources,
            "repair_strands": layout.packets - layout.sources,
        }
        length = table.length + len(primers[0]) + len(primers[1])
    else:
        chosen = constraints.custom(constraints.named(name), motifs=motifs, left=primers[0], right=primers[1])
    left, right = (constraints.to_bases(primer, "primer") for primer in primers)
    rules, runs, gc, examples = {}, {}, {}, []
    violations = 0
    for total, group in strands.items():
        core = group[:, len(left) : total - len(right)]
        bare = (group[:, : len(left)] == left).all(axis=1) & (group[:, total - len(right) :] == right).all(axis=1)
        report = checker.check(core[bare], chosen)
        violations += report.violations + int((~bare).sum())
        if not bare.all():
            rules["primers"] = rules.get("primers", 0) + int((~bare).sum())
        for finding in report.findings:
            rules[finding.rule] = rules.get(finding.rule, 0) + finding.strands
            examples += [f"{finding.rule}: strand {e.strand}, base {e.position}: {e.what}" for e in finding.examples]
        _add(runs, report.longest_runs)
        _add(gc, report.gc_percent)
        if length and total != length:
            examples.append(f"{len(group)} strands of {total} nt, not {length}")
    return figures | {
        "constraints": chosen.describe(),
        "strands": sum(len(group) for group in strands.values()),
        "violations": violations,
        "violations_by_rule": rules,
        "capacity": round(capacity.capacity(chosen), 4),
        "runs": {str(k): runs[k] for k in sorted(runs)},
        "gc": {f"{k / 100:.2f}": gc[k] for k in sorted(gc)},
        "examples": examples[:20],
    }


def figures(pool, path):
    """Figures of a pool just written to ``path``, as plain numbers and strings."""
    c = pool.constraints
    length = pool.strands.shape[1] - len(c.left) - len(c.right)
    gross, net = codec.densities(pool.strands, pool.layout.bits, length, pool.header.content_bytes)
    return {
        "output": str(path),
        "constraints": c.describe(),
        "strands": len(pool.strands),
        "nucleotides": int(pool.strands.size),
        "gross_bits_per_nt": round(gross, 4),
        "net_bits_per_nt": round(net, 4),
        "capacity": round(capacity.capacity(c), 4),
        "key": pool.header.key.hex(),
    }


def _add(total, counts):
    for value, count in enumerate(counts):
        if count:
            total[value] = total.get(value, 0) + int(count)
