"""helix_jax beside other codes for DNA storage, measured in one run.

    python -m eval.peers --out peers.md --json peers.json [--peers NAME ...] [--bytes 65536]
        --interpreter wukong peers-venv/bin/python --checkout wukong storage-d ...

Each peer runs in a process of its own, in the Python that has it; what is missing is skipped with its reason. The
commands that install the peers are printed with the table.
  net        bits of content per nucleotide, with index, header and error correction, without primers
  speed      kB of content per second, in memory where the peer can, at the second call in a process
  coverage   smallest mean number of reads of a strand (Poisson) at which a file comes back, by errors per base: a third
             each substitutions, insertions and deletions, in the direction of the strands. Who has no way from reads to
             strands is given our clusters and our consensus, without constraints, with the true rates and length
  runs, GC   the longest homopolymer run, and the extremes of G and C in 20 nt, as the independent checker sees them
Each row of a peer is followed by ours with its strand length, the nearest set, and as many repair strands as give its
density.
"""

import argparse
import dataclasses
import datetime
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from eval.peers import measure, rows
from helix_jax import files, parallel

HEAD = ("code", "setting", "net bit/nt", "encode kB/s", "decode kB/s")
TAIL = ("longest run", "GC of 20 nt, %", "strands", "nt", "content, B", "reads to strands")


def results(names: list[str], places: dict[str, measure.Place], options: measure.Options) -> Iterator[measure.Result]:
    """Measure the rows of the named peers.

    Args:
        names: names of peers.
        places: where peers are, if not in this Python.
        options: how.

    Yields:
        The result of each row; after a peer's row comes ours of the same density.
    """
    for row in rows.ROWS:
        if row.peer.name not in names:
            continue
        result = _in_folder(row, places.get(row.peer.name, measure.Place()), options)
        yield result
        if row.rules and not isinstance(result.net, str) and rows.OURS in names:
            try:
                dense = as_dense(result, row.rules, options)
            except measure.PeerError as error:
                yield measure.Result(rows.OURS, f"`{row.rules}`, beside {result.peer}", str(error))
            else:
                yield _in_folder(dense, measure.Place(), options)


def _in_folder(row, place, options):
    with tempfile.TemporaryDirectory() as folder:
        return measure.measure(row, place, Path(folder), options)


def as_dense(result: measure.Result, rules: str, options: measure.Options) -> rows.Row:
    """Return the row of ours that has the density of a result, or no repair strands where that is not reached.

    Args:
        result: a peer's result.
        rules: the named set.
        options: how it was measured.
    """
    bare = rows.ours(rules, result.length, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        data = measure.content(options.bytes, 1, options.seed)
        patient = dataclasses.replace(options, limit=3600)  # the first use of a set at a length builds its tables
        strands, _ = measure.written(bare, measure.Place(), Path(folder), patient, data)
    assert not isinstance(result.net, str)
    net = 8 * len(data) / sum(map(len, strands))
    redundancy = round(max(net / result.net - 1, 0.0), 3)
    label = f"`{rules}`, {result.length} nt, redundancy {redundancy:g}, beside {result.peer}"
    return rows.ours(rules, result.length, redundancy, label)


# ---- output --------------------------------------------------------------------------------------------------


def page(found: list[measure.Result], options: measure.Options, command: str) -> str:
    """Return the results as Markdown: the table, what was skipped, and how the peers are installed."""
    tried = [f"coverage at {errors:.0%} errors" for errors in options.errors]
    lines = [_line((*HEAD, *tried, *TAIL)), _line(["---"] * (len(HEAD) + len(tried) + len(TAIL)))]
    for result in found:
        if result.skipped:
            continue
        coverage = [result.coverage.get(errors, "-") for errors in options.errors]
        window = [cell if isinstance(cell, str) else f"{100 * cell:.0f}" for cell in (result.gc_low, result.gc_high)]
        lines.append(
            _line((
                result.peer, result.label, _figure(result.net, ".3f"), _figure(result.encode, ",.0f"),
                _figure(result.decode, ",.0f"), *(_figure(cell, "g") for cell in coverage),
                _figure(result.longest_run, "g"), " to ".join(window), f"{result.strands:,}", str(result.length),
                f"{result.bytes:,}", "its own" if result.own_reads else "ours, unconstrained",
            ))
        )  # fmt: skip
    versions = dict.fromkeys(result.version for result in found if result.version)
    skipped = {(result.peer, result.label): result.skipped for result in found if result.skipped}
    parts = [
        f"Measured on {datetime.date.today()}, with Python {platform.python_version()} on {os.cpu_count()} cores "
        f"({platform.machine()}): {', '.join(versions)}.",
        f"Coverage: {options.trials} draws of the reads of {options.coverage_bytes:,} random bytes, all of which come "
        f"back; tried were {', '.join(f'{coverage:g}' for coverage in measure.GRID)}. "
        f"A request may take {options.limit:g} s.",
        "\n".join(lines),
        *(f"{name}, {label}, was skipped: {reason}" for (name, label), reason in skipped.items()),
        f"```bash\n{command}\n```",
        "```bash\npython3 -m venv peers-venv\n"
        + "\n".join(f"# {peer.name}: {peer.home}\n{peer.install}" for peer in rows.PEERS.values())
        + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _line(cells):
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _figure(cell, form):
    return cell if isinstance(cell, str) else format(cell, form)


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    plain = measure.Options()
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="write the table to FILE (Markdown)")
    parser.add_argument("--json", type=Path, metavar="FILE", required=True, help="write the same figures to FILE")
    parser.add_argument("--peers", nargs="+", choices=rows.PEERS, default=list(rows.PEERS), help="measure only these")
    parser.add_argument("--bytes", type=int, default=plain.bytes, help=f"random content (default {plain.bytes:,})")
    parser.add_argument(
        "--coverage-bytes", type=int, default=plain.coverage_bytes,
        help=f"random content for the coverage (default {plain.coverage_bytes:,})",
    )  # fmt: skip
    parser.add_argument("--errors", type=float, nargs="+", default=plain.errors, help="errors per base")
    parser.add_argument("--trials", type=int, default=plain.trials, help="draws of the reads that must all come back")
    parser.add_argument("--limit", type=float, default=plain.limit, help="seconds that a request to a peer may take")
    parser.add_argument("--seed", type=int, default=plain.seed)
    for name, what in (("interpreter", "PYTHON"), ("checkout", "FOLDER")):
        parser.add_argument(
            f"--{name}", nargs=2, action="append", default=[], metavar=("PEER", what), help=f"{name} of a peer"
        )
    args = parser.parse_args()
    for name, _ in (*args.interpreter, *args.checkout):
        if name not in rows.PEERS:
            parser.error(f"no peer {name!r}; there are {', '.join(rows.PEERS)}")
    if min(args.bytes, args.coverage_bytes, args.trials) < 1:
        parser.error("--bytes, --coverage-bytes and --trials start at 1")
    pythons = {name: os.path.abspath(path) for name, path in args.interpreter}
    checkouts = {name: Path(path) for name, path in args.checkout}
    places = {
        name: measure.Place(pythons.get(name, sys.executable), checkouts.get(name)) for name in (*pythons, *checkouts)
    }
    options = measure.Options(
        args.bytes, args.coverage_bytes, tuple(args.errors), args.trials, args.limit, args.seed
    )  # fmt: skip
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a running peer ends too
    parallel.use_all_cores()
    parallel.keep_compiled()
    found = []
    for result in results(args.peers, places, options):  # saved after each row
        found.append(result)
        text = page(found, options, " ".join(["python -m eval.peers", *sys.argv[1:]]))
        rows_found = [dataclasses.asdict(each) for each in found]
        for path, written in ((args.out, text), (args.json, json.dumps(rows_found, indent=2))):
            with files.atomic(path) as part:
                Path(part).write_text(written)
        print(f"{result.peer}, {result.label}: {result.skipped or 'measured'}", file=sys.stderr, flush=True)
    print(page(found, options, " ".join(["python -m eval.peers", *sys.argv[1:]])))


if __name__ == "__main__":
    main()
