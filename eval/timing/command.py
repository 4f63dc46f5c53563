"""Measure the timing channel: the talk's example, coders against capacity, curves, and data through the channel.

    python -m eval.timing [--out FOLDER] [--bits N] [--quick] [--json FILE] [--figure FILE]
    python -m eval.timing --pools SCHEME [--count N] [--first SEED] [--bits N] [--json FILE]
    python -m eval.timing --lengths FILE [--json FILE]

The program prints tables; --out also draws the curves into FOLDER. --quick uses small grids and short payloads.
--figure only draws the figure of docs/timing.md. --pools only sends pools of random bytes through a scheme and its
channel and reads them back, unlabelled and shuffled: those of docs/timing.md are `talk-fast` from seed 301 on.
--lengths only measures strands of several lengths and numbers of copies, and draws their rates; it takes an hour.
Of the rest, everything but the end-to-end pools takes about two minutes on two cores.
"""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key
from rich.console import Console
from rich.table import Table

from eval.timing import alignments, curves, end_to_end, figure
from helix_jax import parallel
from helix_jax.cli import console
from helix_jax.timing import (
    block_coder,
    capacity,
    enumerative,
    error_capacity,
    finite_state,
    rounds,
    scheme,
    state_splitting,
    stream_coder,
)
from helix_jax.timing.graph import TALK, ordinary_graph

DELTAS = (0.005, 0.01, 0.02, 0.05, 0.1)
SPLITTING = ((5, 3), (7, 4), (9, 5))
ENUMERATIVE = (20, 128, 512)
BLOCKS = (236, 472, 1024)
STREAM_BITS, STREAM_PATHS = 8192, 32
WIDTH = 150  # width of tables that do not go to a terminal
NEAR = 0.97  # share of the theorem's rate that measured data should reach

Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        grid: the grid of the curves.
        n: level bits of a code.
        rates: n / (n + m) of the codes.
        blocks: number of blocks for each code.
        copies: numbers of copies of the alignment grid.
        losses: losses of the alignment grid.
        aligned: strands in each cell of that grid.
        bits: bits of a payload, end to end.
    """

    grid: dict
    n: int
    rates: tuple[float, ...]
    blocks: int
    copies: tuple[int, ...]
    losses: tuple[float, ...]
    aligned: int
    bits: int


FULL = Size(curves.GRID, 12864, (0.8, 0.83, 0.84, 0.85, 0.86), 40, (3, 5, 8), (0.05, 0.1, 0.2, 0.3), 16, 100_000)
QUICK = Size(curves.QUICK, 2000, (0.8,), 4, (5,), (0.1,), 8, 4_000)


# ---- the talk's example ---------------------------------------------------------------------------------


def example() -> dict[str, Any]:
    """Compute the talk's example: its figures, and in "at" those for each delta."""
    chain = capacity.chain(TALK)

    def at(delta):
        channels = error_capacity.symmetric_channels(TALK, delta)
        return {
            "delta": delta,
            "index_capacity": capacity.index_capacity(delta, 2),
            "theorem": capacity.theorem_rate(TALK, delta),
            "theorem_through_chain": capacity.theorem_rate(TALK, delta, through_chain=True),
            "capacity_with_errors": error_capacity.capacity_with_errors(TALK, channels),
        }

    return {
        "lambda": chain.root,
        "capacity": chain.capacity,
        "baseline": capacity.letters_capacity(TALK),
        "alpha": chain.alpha,
        "bits_per_round": chain.bits_per_round,
        "share_of_longer_times": float(chain.level_share[1]),
        "at": [at(delta) for delta in DELTAS],
    }


# ---- coders ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coder:
    """A coder on the talk's example.

    Attributes:
        name: name of the coder.
        bits_per_time: bits per time unit.
        share: the same as a share of the capacity.
        states: number of states, if it has states.
        anticipation: anticipation in time units, if it has one.
        window: time units that are needed to read a tag, if it has such a window.
        entries: entries of its table.
    """

    name: str
    bits_per_time: float
    share: float
    states: int | None
    anticipation: int | None
    window: int | None
    entries: int


def coders(key: Key[Array, ""], step: Step | None = None) -> list[Coder]:
    """Return all coders, with their bits per time unit counted, or measured on random payloads."""
    limit, rows = capacity.capacity(TALK), []
    total = len(SPLITTING) + len(ENUMERATIVE) + len(BLOCKS) + 1

    def add(name, bits_per_time, entries, states=None, anticipation=None, window=None):
        share = bits_per_time / limit
        rows.append(Coder(name, float(bits_per_time), float(share), states, anticipation, window, entries))
        if step:
            step("coders", 1, total)

    for p, q in SPLITTING:
        encoder = state_splitting.build(ordinary_graph(TALK), p, q)
        window = encoder.window and encoder.window * q
        add(f"state splitting {p}:{q}", p / q, encoder.entries, encoder.states, encoder.anticipation * q, window)
        key, key_tags = jax.random.split(key)
        _come_back(encoder, key_tags)
    for duration in ENUMERATIVE:
        tables = enumerative.build(TALK, duration)
        add(f"enumerative, T = {duration}", tables.bits / duration, tables.ends.size)
    for duration in BLOCKS:
        block = block_coder.build_block(TALK, block_coder.best_rounds(TALK, duration), duration)
        add(f"range coder, T = {duration}, {block.rounds} rounds", block.bits / duration, block.rows.size)
    stream = stream_coder.build_stream(TALK)
    arrays, shape = stream_coder.stream_on_device(stream, STREAM_BITS)
    words = jax.random.bits(key, (STREAM_PATHS, STREAM_BITS // 32), np.uint32)
    letters, levels, count = jax.jit(partial(stream_coder.encode_stream, shape=shape))(arrays, words)
    back, ok = jax.jit(partial(stream_coder.decode_stream, shape=shape))(arrays, letters, levels, count)
    if not (np.asarray(ok).all() and np.array_equal(back, words)):
        raise RuntimeError("a payload of the stream coder did not come back: the coder is wrong")
    inside = np.arange(shape.rounds) < np.asarray(count)[:, None]
    before = np.concatenate([np.zeros((STREAM_PATHS, 1), np.uint8), np.asarray(letters)[:, :-1]], axis=1)
    time = (TALK.array()[before, letters, levels] * inside).sum()
    add(f"range coder, stream of {STREAM_BITS} bits", STREAM_PATHS * STREAM_BITS / time, stream.rows.size)
    return rows


def _come_back(encoder: Any, key: Key[Array, ""]) -> None:
    """Raise RuntimeError unless random tags come back through letters and levels."""
    arrays, shape = finite_state.on_device(encoder)
    edges = rounds.edges_of(TALK)

    @jax.jit
    def there_and_back(arrays, tags):
        labels = finite_state.encode(arrays, tags, shape=shape)
        again, legal = rounds.from_rounds(edges, *rounds.to_rounds(edges, labels), units=labels.shape[1])
        back, ok = finite_state.decode(arrays, again, shape=shape)
        return back, ok & legal

    tags = jax.random.randint(key, (8, 64), 0, 1 << encoder.p, np.int32)
    back, ok = there_and_back(arrays, tags)
    if not (np.asarray(ok).all() and np.array_equal(back, tags)):
        raise RuntimeError(f"tags did not come back from the {encoder.p}:{encoder.q} encoder: it is wrong")


# ---- printing --------------------------------------------------------------------------------------------


def show(out: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; the first column is flush left, the others are flush right.

    Args:
        out: where to print.
        title: the title.
        columns: names of the columns.
        rows: cells of each row: strings, numbers, or None.
    """
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, str) else "" if cell is None else f"{cell:,}" for cell in row))
    out.print(table)


def show_example(out: Console, figures: dict[str, Any]) -> None:
    """Print the talk's example."""
    names = {
        "lambda": "lambda", "capacity": "capacity, bits per time unit", "baseline": "letters alone, log2 3",
        "alpha": "alpha, rounds per time unit", "bits_per_round": "bits per round",
        "share_of_longer_times": "share of rounds with the longer time",
    }  # fmt: skip
    show(out, "the talk's example", ("", "value"), [(text, f"{figures[name]:.9f}") for name, text in names.items()])
    columns = ("delta", "C", "theorem", "parity through the chain", "capacity with errors")
    rows = [(str(row["delta"]), *(f"{value:.5f}" for value in list(row.values())[1:])) for row in figures["at"]]
    show(out, "bits per time unit against delta, talk's example", columns, rows)


def show_coders(out: Console, rows: Sequence[Coder]) -> None:
    """Print the coders."""
    columns = ("coder", "bits per time unit", "of capacity", "states", "anticipation", "window", "table entries")
    cells = [
        (r.name, f"{r.bits_per_time:.5f}", f"{r.share:.4%}", r.states, r.anticipation, r.window, r.entries)
        for r in rows
    ]
    show(out, "coders against capacity, talk's example; anticipation and window in time units", columns, cells)


def show_curves(out: Console, measured: dict[str, list[curves.Point]]) -> None:
    """Print the curves."""
    for varied, points in measured.items():
        columns = ("law", varied, *(label for label, _ in curves.CURVES.values()))
        cells = [
            (p.law, f"{getattr(p, varied):g}", *(_number(getattr(p, curve)) for curve in curves.CURVES)) for p in points
        ]
        fixed = ", ".join(f"{name} {value:g}" for name, value in curves.AT.items() if name != varied)
        show(out, f"bits per time unit against {varied}; {fixed}; best times up to 6, up to 3 levels", columns, cells)
    out.print(
        "'letters alone' takes letters as read without error, at any delta and any number of copies; the designed "
        "times and the common time set count a run that all copies lost as an error, and keep that within delta too."
    )


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def show_corrections(out: Console, rows: Sequence[end_to_end.Correction]) -> None:
    """Print the error-correcting codes."""
    columns = ("channel", "n", "m", "level bits wrong", "H per bit", "n / (n + m)", "1 / (1 + H)", "1 - H", "failed")
    cells = [
        (
            r.channel, r.n, r.m, f"{r.share_wrong:.5f}", f"{r.entropy:.5f}", f"{r.rate:.4f}", f"{r.limit:.4f}",
            f"{1 - r.entropy:.4f}", f"{r.failures} of {r.blocks}",
        )
        for r in rows
    ]  # fmt: skip
    show(out, "error-correcting code: n level bits, m parity bits in letters", columns, cells)


def show_alignments(out: Console, rows: Sequence[alignments.Aligned]) -> None:
    """Print the alignment grid."""
    cells = [(str(r.copies), f"{r.loss:g}", f"{r.right} of {r.strands}") for r in rows]
    columns = ("copies", "loss of a run of time 1", "strands right")
    show(out, f"alignment, {alignments.BEAM} strings followed, layout of talk", columns, cells)


def show_trials(out: Console, rows: Sequence[end_to_end.Trial]) -> None:
    """Print the pools, end to end."""
    parts = [name for name, _ in rows[0].parts]
    titles = [f"{r.scheme}, no run lost in all" if r.mended else r.scheme for r in rows]
    cells = [(name, *(f"{r.parts[n][1]:.4f}" for r in rows)) for n, name in enumerate(parts)]
    show(out, "end to end: bits per time unit with each part and those above it", ("with", *titles), cells)

    def line(name, value):
        return (name, *(value(r) for r in rows))

    facts = [
        line("bits per time unit, all in", lambda r: f"{r.bits_per_time:.4f}"),
        line("theorem at the scheme's delta", lambda r: f"{r.theorem:.4f}"),
        line(f"{NEAR:.0%} of it", lambda r: f"{NEAR * r.theorem:.4f}"),
        line("capacity with index errors of delta", lambda r: f"{r.with_errors:.4f}"),
        line("letters alone, no errors", lambda r: f"{r.letters:.4f}"),
        line("payload bits", lambda r: r.bits),
        line("runs lost in a copy", lambda r: f"{r.lost:.3%}"),
        line("runs lost in all copies", lambda r: "mended" if r.mended else f"{r.lost_in_all:.3%}"),
        line("strands not aligned", lambda r: f"{'-' if r.failed is None else r.failed} of {r.strands}"),
        line("repair strands", lambda r: r.repairs),
        line("payload came back", lambda r: "yes" if r.back else "no"),
        line("chance that a pool fails", lambda r: "-" if r.pool_fails is None else f"{r.pool_fails:.2g}"),
        line("encode, s", lambda r: f"{r.encode_s:.1f}"),
        line("decode, s", lambda r: f"{r.decode_s:.1f}"),
    ]
    show(out, "end to end: figures", ("", *titles), facts)
    for r in rows:
        if r.message:
            out.print(f"{r.scheme}: {r.message}")
    out.print(
        "The theorem takes letters as read without error. At N = 5 with a fifth of the runs lost per copy they are "
        "not: two strings of letters can explain the same copies. Check letters and repair strands pay for that, the "
        "parity pays for the levels. Strands that are not aligned are left to the repair strands; 'chance that a pool "
        "fails' takes their share as measured here."
    )


def lengths(out: Console, key: Key[Array, ""]) -> list[alignments.Length]:
    """Measure strands of several lengths and numbers of copies, and print their rates."""
    rows = []
    with console.progress(False) as step:
        for number, series in enumerate(alignments.SERIES):
            rows += alignments.lengths(jax.random.fold_in(key, number), series, step)
    columns = (
        "scheme",
        "copies",
        "time",
        "check letter after",
        "bits",
        "parity",
        "strands right",
        "bits per time unit",
    )
    cells = [
        (
            r.scheme, r.copies, None if r.time is None else f"{r.time:.0f}", r.spacing, r.bits, r.parity,
            f"{r.right} of {r.strands}", f"{r.rate:.3f}",
        )
        for r in rows
    ]  # fmt: skip
    show(out, "strands by their length; an ideal code over strands, without tags", columns, cells)
    return rows


def pools(out: Console, known: scheme.Scheme, seeds: Sequence[int], bits: int) -> list[end_to_end.Trial]:
    """Read pools of these seeds, and print a line for each as it is done, and one for all of them."""
    rows = []
    for seed in seeds:
        rows.append(end_to_end.trial(jax.random.key(seed), known, bits // 8))
        each = rows[-1]
        lost = "-" if each.failed is None else each.failed
        out.print(
            f"{known.name}, seed {seed}: {each.bits_per_time:.4f} bits per time unit, {lost} of {each.strands} strands "
            f"not read, {'back' if each.back else 'NOT BACK: ' + each.message}, {each.decode_s:.0f} s"
        )
    out.print(
        f"{sum(each.back for each in rows)} of {len(rows)} pools came back, with "
        f"{min(each.bits_per_time for each in rows):.4f} bits per time unit or more"
    )
    return rows


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="draw the curves into FOLDER")
    parser.add_argument("--bits", type=int, help=f"bits of a payload, end to end (default {FULL.bits:,})")
    parser.add_argument("--quick", action="store_true", help="small grids and short payloads")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the same figures to FILE")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--figure", metavar="FILE", help="only draw the figure of docs/timing.md")
    only.add_argument("--lengths", metavar="FILE.png", type=Path, help="only draw the rate by the strands' length")
    only.add_argument("--pools", metavar="SCHEME", help="only read pools of this scheme, a name or a file")
    parser.add_argument("--count", metavar="N", type=int, default=20, help="pools to read (default 20)")
    parser.add_argument("--first", metavar="SEED", type=int, default=301, help="the seed of the first (default 301)")
    options = parser.parse_args()
    if options.lengths and not (options.lengths.suffix == ".png" and options.lengths.parent.is_dir()):
        parser.error(f"--lengths {options.lengths}: give a .png file in a folder that exists")
    parallel.use_all_cores()
    if options.figure:
        figure.draw(options.figure)
        return
    out = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    if options.lengths:
        rows = lengths(out, jax.random.key(0))
        if options.json:
            options.json.write_text(json.dumps(rows, indent=2, default=dataclasses.asdict))
        alignments.draw(options.lengths, rows)
        return
    if options.pools:
        seeds = range(options.first, options.first + options.count)
        rows = pools(out, scheme.named(options.pools), seeds, options.bits or FULL.bits)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=2, default=dataclasses.asdict))
        return
    size, known, key = QUICK if options.quick else FULL, scheme.TALK_SCHEME, jax.random.key(0)
    schemes = list(scheme.NAMED.values())
    figures: dict[str, Any] = {"example": example()}
    show_example(out, figures["example"])
    with console.progress(False) as step:
        figures["coders"] = coders(key, step)
        show_coders(out, figures["coders"])
        figures["curves"] = curves.measure(size.grid, step)
        show_curves(out, figures["curves"])
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            curves.plot(figures["curves"], options.out)
        corrections = end_to_end.correction(key, size.n, size.rates, size.blocks, step)
        corrections += [end_to_end.correction_of(key, one, size.blocks) for one in schemes]
        figures["corrections"] = [row for row in corrections if row]
        show_corrections(out, figures["corrections"])
        figures["alignments"] = alignments.grid(key, known, size.copies, size.losses, size.aligned, step)
        show_alignments(out, figures["alignments"])
        figures["trials"] = end_to_end.trials(key, schemes, (options.bits or size.bits) // 8, step)
        show_trials(out, figures["trials"])
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2, default=dataclasses.asdict))
