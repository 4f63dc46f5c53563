"""The commands `helix-jax timing ...`: simulate, capacity, design, example."""

import enum
import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from helix_jax import files
from helix_jax.cli import options, timing_figures
from helix_jax.cli.console import Json, problems, progress, show, show_rows
from helix_jax.cli.timing_figures import pairs, rounded, transition
from helix_jax.errors import HelixError

TABLE_LIMIT = 1 << 16  # most entries of a state-splitting table that `--splitting best` may choose
DELTAS = (0.005, 0.01, 0.02, 0.05, 0.1)  # rows of the example's table

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="The timing channel of terminator-free enzymatic synthesis (ISIT 2020): the data is both in the choice of the "
    "next base and in the time for which it is written.\n\n"
    "To store a file and read it back: [bold]helix-jax pack FILE --writer timing -o POOL.tsv[/bold], "
    "[bold]helix-jax timing simulate POOL.tsv -o READS.fasta[/bold], "
    "[bold]helix-jax unpack READS.fasta --writer timing -o FILE[/bold]. "
    "Video works the same way, with encode and decode.\n\n"
    "All rates are in bits per time unit.",
)


class LawKind(enum.StrEnum):
    """The law of the length r of a run that is written for a time t: Binomial(t, p), or Poisson with mean * t."""

    BINOMIAL = "binomial"
    POISSON = "poisson"


Overhead = Annotated[
    float, typer.Option(help="Time that every round takes in addition to the writing of its run, in time units.")
]


# ---- commands ----------------------------------------------------------------------------------------


@app.command(epilog="Example: helix-jax timing simulate pool.tsv -o reads.fasta --copies 5 --seed 1")
def simulate(
    pool: Annotated[Path, typer.Argument(metavar="POOL.tsv", help="The schedule file that encode or pack wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The FASTA file of reads to write.")],
    copies: Annotated[int, typer.Option(help="Number of noisy copies of each strand, N.")] = 5,
    seed: options.Seed = 0,
    scheme: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.json",
            help="The scheme whose law of run lengths is simulated. The default is the scheme that the pool names.",
        ),
    ] = None,
    substitution: Annotated[float, typer.Option(help="Probability that a base is read as another.")] = 0.0,
    split: Annotated[
        float,
        typer.Option(help="Probability that a run of two or more bases is read with a different base inside it."),
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Simulate the synthesis of a schedule in N noisy copies per strand, and their reads, unlabelled and shuffled.

    A copy in which every run is lost is left out. The runs that are lost in all
    copies of a strand are counted separately, as no reader can see them.
    """
    import jax

    from helix_jax.strands import fasta
    from helix_jax.timing import schedule, synthesis
    from helix_jax.timing import scheme as schemes

    with problems(), progress(as_json) as step:
        files.check_paths((pool, _file_of(scheme)), (output,))
        files.check_sequences(output, "FASTA")
        plan = schedule.read(pool)
        used = _scheme_of(plan, pool, scheme)
        if not 1 <= copies <= schemes.MOST_COPIES:
            raise HelixError(f"--copies {copies}: give 1 to {schemes.MOST_COPIES}")
        if not 0 <= seed < 1 << 32:
            raise HelixError(f"--seed {seed}: give 0 to {(1 << 32) - 1}")
        reads, lost, lost_in_all = schedule.simulate(
            jax.random.key(seed), plan, used.law, used.table, copies, synthesis.Sequencer(substitution, split),
            progress=lambda done: step("strands", done, len(plan.letters)),
        )  # fmt: skip
        if not reads:
            raise HelixError("no copy of any strand holds a base: give more --copies, or a scheme of longer runs")
        fasta.write(output, reads, lambda i: f"{len(reads[i])} nt", name="read")
    rounds = plan.letters.size
    figures = {
        "output": str(output),
        "scheme": used.name,
        "strands": len(plan.letters),
        "copies_of_each": copies,
        "copies": len(reads),
        "empty_copies": len(plan.letters) * copies - len(reads),
        "bases": sum(map(len, reads)),
        "rounds": rounds,
        "lost_runs": lost,
        "lost_runs_share": round(lost / (rounds * copies), 6),
        "runs_lost_in_all_copies": lost_in_all,
        "runs_lost_in_all_copies_share": round(lost_in_all / rounds, 6),
    }
    show(figures, as_json)


@app.command(epilog="Example: helix-jax timing capacity --times 'A->C{1,2} C->A{1,3} C->G{1} G->A{2}'")
def capacity(
    scheme: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE.json", help="The scheme whose times are used. The default is talk."),
    ] = None,
    times: Annotated[
        str | None,
        typer.Option(
            help="The allowed times of each transition, instead of a scheme's, in time units: "
            "'A->C{1,2} A->G{1,3} ...'."
        ),
    ] = None,
    overhead: Annotated[
        float | None,
        typer.Option(
            help="Time that every round takes in addition to the writing of its run, in time units. The default is "
            "the scheme's, and 0 with --times."
        ),
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option(
            help="Probability of a wrong level, for the theorem's rate. The default is the scheme's, and 0.02 with "
            "--times."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a table of times carries: its capacity, max-entropic chain, the theorem's rate, and the baselines.

    For a scheme with a Poisson law, the gradient of the capacity in the mean run
    length of each transition is shown too.
    """
    from helix_jax.timing import capacity as rates
    from helix_jax.timing import error_capacity
    from helix_jax.timing import scheme as schemes
    from helix_jax.timing.channel import Poisson
    from helix_jax.timing.graph import TimeTable

    with problems():
        if scheme is not None and times is not None:
            raise HelixError("--scheme and --times: give one of them")
        if times is None:
            chosen = schemes.named("talk" if scheme is None else scheme)
            table = chosen.table
        else:
            chosen, table = None, TimeTable.parse(times)
        overhead = (chosen.overhead if chosen else 0.0) if overhead is None else overhead
        delta = (chosen.delta if chosen else 0.02) if delta is None else delta
        figures = {
            "scheme": chosen.name if chosen else None,
            "times": str(table),
            "overhead": overhead,
            "delta": delta,
            **timing_figures.of_chain(table, delta, overhead),
        }
        alike = {table.times[b][a] for b, a in pairs()}
        if len(alike) == 1:
            figures["precision_resolution"] = rounded(
                rates.precision_resolution_rate(alike.pop(), delta, overhead=overhead)
            )
        gradient = {}
        if chosen and isinstance(chosen.law, Poisson):
            carried, slope = error_capacity.capacity_gradient(table, chosen.law.mean, chosen.copies, overhead=overhead)
            figures["capacity_with_errors"] = rounded(carried)
            gradient = {transition(b, a): rounded(slope[b, a]) for b, a in pairs()}
    if as_json:
        print(json.dumps(figures | ({"gradient": gradient} if gradient else {})))
        return
    show({name: value for name, value in figures.items() if value is not None}, as_json=False)
    if gradient:
        rows = [(name, f"{value:.6f}") for name, value in gradient.items()]
        show_rows("bits per time unit for one base more per time unit and copy", ("transition", "gradient"), rows)


@app.command(epilog="Example: helix-jax timing design --law poisson --parameter 2 --copies 20 -o my.json")
def design(
    law: Annotated[
        LawKind,
        typer.Option(
            help="The law of the length of a run that is written for t time units. binomial: Binomial(t, p). "
            "poisson: Poisson with a mean proportional to t."
        ),
    ],
    parameter: Annotated[
        float | None,
        typer.Option(
            help="The parameter of the law, the same for all transitions: p of the binomial law, or the mean number of "
            "bases per time unit of the Poisson law."
        ),
    ] = None,
    parameters: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file with the parameter of each transition, instead of --parameter: 4 rows of 4 numbers, for "
            "each base (column) after each base (row), in the order A, C, G, T."
        ),
    ] = None,
    copies: Annotated[int, typer.Option(help="Number of copies of each strand that will be read, N.")] = 5,
    delta: Annotated[float, typer.Option(help="Highest acceptable probability of a wrong level.")] = 0.02,
    longest: Annotated[int, typer.Option(help="Longest time for which a base is written, M, in time units.")] = 8,
    levels: Annotated[int, typer.Option(help="Number of different times (levels) of each transition.")] = 2,
    overhead: Overhead = 0.0,
    unit_seconds: Annotated[float, typer.Option(help="Duration of a time unit, in seconds.")] = 60.0,
    splitting: Annotated[
        str | None,
        typer.Option(
            metavar="P:Q|best",
            help="Use the state-splitting coder with P bits per Q time units, or with the best such rate. The default "
            "is the range coder.",
        ),
    ] = None,
    duration: Annotated[int, typer.Option(help="Time of the data rounds of a strand, in time units.")] = 256,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The scheme file to write (JSON).")] = None,
    as_json: Json = False,
) -> None:
    """Design a scheme for a chemistry: its times, its coder, and the bits per hour to expect.

    Among the times that can be told apart with this number of copies and this
    delta, those are chosen that carry the most bits per time unit, after the
    check letters that runs lost in all copies will need. The bits per hour are
    those of one strand: multiply them by the number of strands that are
    written at the same time.
    """
    from helix_jax.timing import quantizer, state_splitting
    from helix_jax.timing import scheme as schemes
    from helix_jax.timing.graph import ordinary_graph

    with problems():
        files.check_paths((parameters,), (output,))
        if not 0 < unit_seconds < math.inf:
            raise HelixError(f"--unit-seconds {unit_seconds}: a time unit lasts more than 0 seconds")
        to_stderr = output is not None and files.is_standard(output)
        name = output.stem if output and not to_stderr else "designed"
        if name in schemes.NAMED:
            raise HelixError(f"{output}: a scheme named {name} is built in; choose another file name")
        chances = schemes.LAWS[law.value](_parameters(parameter, parameters))  # pyrefly: ignore [bad-argument-type]
        pair = None if splitting in (None, "best") else _pair(splitting)
        chosen = schemes.design(
            chances, copies, delta, longest, levels, name=name, overhead=overhead, duration=duration, splitting=pair
        )
        best = pair or state_splitting.best(ordinary_graph(chosen.table), TABLE_LIMIT)
        if splitting == "best":
            chosen = schemes.design(
                chances, copies, delta, longest, levels, name=name, overhead=overhead, duration=duration, splitting=best
            )
        chosen_levels = quantizer.quantizer(chances, chosen.table, copies)
        figures = timing_figures.of_design(chosen, chosen_levels, best, unit_seconds)
        if output:
            schemes.write(output, chosen)
            figures = {"output": str(output)} | figures
    errors = chosen_levels.errors()
    times = [
        {"transition": transition(b, a), "time": t, "error": rounded(error)}
        for b, a in pairs()
        for t, error in zip(chosen_levels.table.times[b][a], errors[b, a], strict=True)
    ]
    if as_json:
        print(json.dumps(figures | {"times": times}), file=sys.stderr if to_stderr else sys.stdout)
        return
    rows = {}
    for row in times:
        rows.setdefault(row["transition"], []).append(f"{row['time']} ({row['error']:.2g})")
    show_rows(
        "times, and the chance that each is misread or lost",
        ("", "times"),
        [(name, ", ".join(row)) for name, row in rows.items()],
        to_stderr,
    )
    show(figures, as_json=False)


@app.command(epilog="Example: helix-jax timing example --plot talk.png")
def example(
    plot: Annotated[Path | None, typer.Option(help="The PNG file to draw: the example's rate against delta.")] = None,
    as_json: Json = False,
) -> None:
    """Compute the example of the ISIT 2020 talk: its times, chain, capacity, and the theorem's rate."""
    from helix_jax.timing import capacity as rates
    from helix_jax.timing.graph import TALK

    with problems():
        files.check_paths(writes=(plot,))
        if plot is not None:
            files.check_suffix(plot, (".png",), "pictures are written as PNG")
        chain = rates.chain(TALK)
        figures = timing_figures.of_chain(TALK, 0.02, 0.0)
        if plot:
            timing_figures.draw(plot, TALK)
    transitions = [
        {
            "transition": transition(b, a),
            "times": list(TALK.times[b][a]),
            "probability": [rounded(p) for p in chain.probability[b, a, : len(TALK.times[b][a])]],
        }
        for b, a in pairs()
    ]
    theorem = {str(delta): rounded(rates.theorem_rate(TALK, delta)) for delta in DELTAS}
    if as_json:
        print(json.dumps(figures | {"delta": 0.02, "theorem_rates": theorem, "transitions": transitions}))
        return
    rows = [
        (row["transition"], ", ".join(map(str, row["times"])), "  ".join(f"{p:.4f}" for p in row["probability"]))
        for row in transitions
    ]
    show_rows("times, and the chance of each in the max-entropic chain", ("", "times", "chances"), rows)
    show({name: value for name, value in figures.items() if name != "theorem_rate"}, as_json=False)
    rows = [(delta, f"{rate:.4f}", f"{rate / figures['baseline'] - 1:+.1%}") for delta, rate in theorem.items()]
    show_rows("the theorem, bits per time unit", ("delta", "bits/unit", "over baseline"), rows)


# ---- shared --------------------------------------------------------------------------------------------


def _file_of(scheme: str | None) -> Path | None:
    """Return the file of --scheme NAME|FILE.json, and None for a name."""
    return Path(scheme) if scheme is not None and Path(scheme).is_file() else None


def _scheme_of(plan: Any, path: Path, scheme: str | None) -> Any:
    """Return the scheme with which a schedule is synthesised: that of --scheme, or the one that the schedule names."""
    from helix_jax.timing import scheme as schemes

    if scheme is not None:
        return schemes.named(scheme)
    if plan.scheme not in schemes.NAMED:
        raise HelixError(f"{path} was written with scheme {plan.scheme!r}: give its file with --scheme")
    return schemes.NAMED[plan.scheme]


def _parameters(parameter: float | None, path: Path | None) -> tuple[tuple[float, ...], ...]:
    """Turn --parameter or --parameters into 4 x 4 numbers."""
    if path is None and parameter is not None:
        return tuple(tuple(0.0 if a == b else parameter for a in range(4)) for b in range(4))
    if path is None or parameter is not None:
        raise HelixError("give --parameter, the same for all transitions, or --parameters, a JSON file of 4 rows of 4")
    try:
        rows = json.loads(path.read_text(errors="replace"))
        return tuple(tuple(float(value) for value in row) for row in rows)
    except (ValueError, TypeError) as error:
        raise HelixError(f"{path}: not a JSON list of 4 lists of 4 numbers: {error}") from error


def _pair(text: str) -> tuple[int, int]:
    """Turn '9:5' into (9, 5)."""
    p, _, q = text.partition(":")
    if not (p.isdecimal() and q.isdecimal()):
        raise HelixError(f"--splitting {text!r}: give P:Q, for example 9:5, or best")
    return int(p), int(q)
