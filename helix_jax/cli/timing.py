"""The commands `helix-jax timing ...`: simulate, capacity, design, example."""

import enum
import json
import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from helix_jax import files
from helix_jax.cli.console import Json, problems, progress, show, show_rows
from helix_jax.errors import HelixError

TABLE_LIMIT = 1 << 16  # entries of the state-splitting tables that --splitting best may choose
DELTAS = (0.005, 0.01, 0.02, 0.05, 0.1)  # of the example's table

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="The timing channel of terminator-free enzymatic synthesis (ISIT 2020): data lies in which base comes next, "
    "and in how long it is written.\n\n"
    "There and back: [bold]helix-jax pack FILE --writer timing -o POOL.tsv[/bold], "
    "[bold]helix-jax timing simulate POOL.tsv -o READS.fasta[/bold], "
    "[bold]helix-jax unpack READS.fasta --writer timing -o FILE[/bold]. "
    "Video likewise, with encode and decode.\n\n"
    "All rates are in bits per time unit.",
)


class LawKind(enum.StrEnum):
    """Law of the run length r at time t. binomial: r ~ Binomial(t, p). poisson: r ~ Poisson(mean t)."""

    BINOMIAL = "binomial"
    POISSON = "poisson"


Overhead = Annotated[float, typer.Option(help="Time units that every round takes beside that of its run.")]


# ---- commands ----------------------------------------------------------------------------------------


@app.command(epilog="Example: helix-jax timing simulate pool.tsv -o reads.fasta --copies 5 --seed 1")
def simulate(
    pool: Annotated[Path, typer.Argument(metavar="POOL.tsv", help="Schedule that encode or pack wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="FASTA file of reads to write.")],
    copies: Annotated[int, typer.Option(help="Copies of each strand, N.")] = 5,
    seed: Annotated[int, typer.Option(help="The same seed gives the same reads.")] = 0,
    scheme: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.json", help="Scheme whose law of run lengths is used; default: the one the pool names."
        ),
    ] = None,
    substitution: Annotated[float, typer.Option(help="Chance of each base to be read as another.")] = 0.0,
    split: Annotated[
        float, typer.Option(help="Chance of each run of two bases or more to be read with a foreign base inside.")
    ] = 0.0,
    as_json: Json = False,
):
    """Synthesise a schedule in N noisy copies per strand, and read them: unlabelled, in random order.

    A copy in which every run is lost is left out. Runs lost in all copies are those that no reader can see.
    """
    import jax

    from helix_jax.strands import fasta
    from helix_jax.timing import channel, schedule
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
            jax.random.key(seed), plan, used.law, used.table, copies, channel.Sequencer(substitution, split),
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
        str | None, typer.Option(metavar="NAME|FILE.json", help="Scheme whose times are used; default: talk.")
    ] = None,
    times: Annotated[
        str | None, typer.Option(help="Times of the transitions instead of a scheme's: 'A->C{1,2} A->G{1,3} ...'.")
    ] = None,
    overhead: Annotated[
        float | None,
        typer.Option(help="Time units that every round takes beside its run; default: the scheme's, or 0."),
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option(help="Probability of a wrong level, for the theorem; default: the scheme's, or 0.02."),
    ] = None,
    as_json: Json = False,
):
    """What a table of times carries: capacity, max-entropic chain, the theorem's rate, and the baselines.

    For a scheme with a Poisson law also the gradient of the capacity in the mean run length of each transition.
    """
    from helix_jax.timing import capacity as rates
    from helix_jax.timing import error_capacity
    from helix_jax.timing import scheme as schemes
    from helix_jax.timing.channel import Poisson
    from helix_jax.timing.graph import TimeTable

    with problems():
        if scheme is not None and times is not None:
            raise HelixError("--scheme and --times: give one of them")
        chosen = None if times is not None else schemes.named("talk" if scheme is None else scheme)
        table = chosen.table if chosen else TimeTable.parse(times)
        overhead = (chosen.overhead if chosen else 0.0) if overhead is None else overhead
        delta = (chosen.delta if chosen else 0.02) if delta is None else delta
        figures = {
            "scheme": chosen.name if chosen else None,
            "times": str(table),
            "overhead": overhead,
            "delta": delta,
            **_chain_figures(table, delta, overhead),
        }
        alike = {table.times[b][a] for b, a in _pairs()}
        if len(alike) == 1:
            figures["precision_resolution"] = _round(
                rates.precision_resolution_rate(alike.pop(), delta, overhead=overhead)
            )
        gradient = {}
        if chosen and isinstance(chosen.law, Poisson):
            carried, slope = error_capacity.capacity_gradient(table, chosen.law.mean, chosen.copies, overhead=overhead)
            figures["capacity_with_errors"] = _round(carried)
            gradient = {_name(b, a): _round(slope[b, a]) for b, a in _pairs()}
    if as_json:
        print(json.dumps(figures | ({"gradient": gradient} if gradient else {})))
        return
    show({name: value for name, value in figures.items() if value is not None}, as_json=False)
    if gradient:
        rows = [(name, f"{value:.6f}") for name, value in gradient.items()]
        show_rows("bits per time unit for one base more per time unit and copy", ("transition", "gradient"), rows)


@app.command(epilog="Example: helix-jax timing design --law poisson --parameter 2 --copies 20 -o my.json")
def design(
    law: Annotated[LawKind, typer.Option(help="Law of the run lengths: Binomial(t, p) or Poisson(mean t).")],
    parameter: Annotated[
        float | None, typer.Option(help="p of the binomial, or mean bases per time unit; of all transitions.")
    ] = None,
    parameters: Annotated[
        Path | None,
        typer.Option(help="JSON file of 4 rows of 4: the parameter of each base (column) after each base (row), ACGT."),
    ] = None,
    copies: Annotated[int, typer.Option(help="Copies of each strand that will be read, N.")] = 5,
    delta: Annotated[float, typer.Option(help="Highest probability of a wrong level.")] = 0.02,
    longest: Annotated[int, typer.Option(help="Longest time of a round, M, in time units.")] = 8,
    levels: Annotated[int, typer.Option(help="Times of each transition.")] = 2,
    overhead: Overhead = 0.0,
    unit_seconds: Annotated[float, typer.Option(help="Seconds that a time unit lasts.")] = 60.0,
    splitting: Annotated[
        str | None,
        typer.Option(
            metavar="P:Q|best", help="State-splitting coder of P bits per Q time units; default: the range coder."
        ),
    ] = None,
    duration: Annotated[int, typer.Option(help="Time units of the data rounds of a strand.")] = 256,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Scheme file to write (JSON).")] = None,
    as_json: Json = False,
):
    """From the law of a chemistry to times, a coder, and the bits per hour to expect.

    The times carry most per time unit among those that can be told apart with the given copies and delta.
    Bits per hour are those of one strand being written: multiply by the strands that are written at once.
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
        found = quantizer.quantizer(chances, chosen.table, copies)
        figures = _design_figures(chosen, found, best, unit_seconds)
        if output:
            schemes.write(output, chosen)
            figures = {"output": str(output)} | figures
    errors = found.errors()
    times = [
        {"transition": _name(b, a), "time": t, "error": _round(error)}
        for b, a in _pairs()
        for t, error in zip(found.table.times[b][a], errors[b, a], strict=True)
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
    plot: Annotated[Path | None, typer.Option(help="PNG to draw: the example's rate against delta.")] = None,
    as_json: Json = False,
):
    """The example of the ISIT 2020 talk, computed: its times, chain, capacity, and the theorem's rate."""
    from helix_jax.timing import capacity as rates
    from helix_jax.timing.graph import TALK

    with problems():
        files.check_paths(writes=(plot,))
        if plot is not None:
            files.check_suffix(plot, (".png",), "pictures are written as PNG")
        chain = rates.chain(TALK)
        figures = _chain_figures(TALK, 0.02, 0.0)
        if plot:
            _draw(plot, TALK)
    transitions = [
        {
            "transition": _name(b, a),
            "times": list(TALK.times[b][a]),
            "probability": [_round(p) for p in chain.probability[b, a, : len(TALK.times[b][a])]],
        }
        for b, a in _pairs()
    ]
    theorem = {str(delta): _round(rates.theorem_rate(TALK, delta)) for delta in DELTAS}
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


def _file_of(scheme):
    """--scheme NAME|FILE.json -> the file, None for a name."""
    return Path(scheme) if scheme is not None and Path(scheme).is_file() else None


def _scheme_of(plan, path, scheme):
    """The scheme by which a schedule is synthesised: the one given, or the one that it names."""
    from helix_jax.timing import scheme as schemes

    if scheme is not None:
        return schemes.named(scheme)
    if plan.scheme not in schemes.NAMED:
        raise HelixError(f"{path} was written with scheme {plan.scheme!r}: give its file with --scheme")
    return schemes.NAMED[plan.scheme]


def _chain_figures(table, delta, overhead):
    from helix_jax.timing import capacity as rates

    chain = rates.chain(table, overhead=overhead)
    figures = {
        "lambda": chain.root,
        "capacity": chain.capacity,
        "alpha": chain.alpha,
        "mean_time": chain.mean_time,
        "bits_per_round": chain.bits_per_round,
        "baseline": rates.letters_capacity(table, overhead=overhead),
        "theorem_rate": rates.theorem_rate(table, delta, overhead=overhead),
    }
    return {name: _round(value) for name, value in figures.items()}


def _design_figures(scheme, found, splitting, unit_seconds):
    """Rates of a scheme. found: its Quantizer. splitting: (p, q) to tell of."""
    from helix_jax.timing import capacity as rates
    from helix_jax.timing import codec, quantizer

    theorem = rates.theorem_rate(scheme.table, scheme.delta, overhead=scheme.overhead)
    bits = 8 * codec.symbol_bytes(scheme) / (1 + scheme.redundancy)
    carried = bits / scheme.strand_time
    hour = 3600 / unit_seconds
    return {
        "scheme": scheme.name,
        "copies": scheme.copies,
        "delta": scheme.delta,
        "error": _round(found.error),
        "capacity": _round(rates.capacity(scheme.table, overhead=scheme.overhead)),
        "baseline": _round(rates.letters_capacity(scheme.table, overhead=scheme.overhead)),
        "theorem_rate": _round(theorem),
        "achieved_rate": _round(quantizer.achieved_rate(scheme.table, found.decisions, overhead=scheme.overhead)),
        "splitting": "{}:{}".format(*splitting),
        "splitting_rate": _round(splitting[0] / splitting[1]),
        "coder": "state splitting" if scheme.splitting else "range coder",
        "rounds_per_strand": scheme.frame.rounds,
        "bits_per_strand": round(bits, 3),
        "time_units_per_strand": round(scheme.strand_time, 3),
        "scheme_rate": _round(carried),
        "theorem_bits_per_hour": round(theorem * hour, 3),
        "scheme_bits_per_hour": round(carried * hour, 3),
    }


def _parameters(parameter, path):
    """--parameter or --parameters -> 4 x 4 numbers."""
    if (parameter is None) == (path is None):
        raise HelixError("give --parameter, the same for all transitions, or --parameters, a JSON file of 4 rows of 4")
    if path is None:
        return [[0.0 if a == b else parameter for a in range(4)] for b in range(4)]
    try:
        rows = json.loads(path.read_text(errors="replace"))
        return [[float(value) for value in row] for row in rows]
    except (ValueError, TypeError) as error:
        raise HelixError(f"{path}: not a JSON list of 4 lists of 4 numbers: {error}") from error


def _pair(text):
    """'9:5' -> (9, 5)."""
    p, _, q = text.partition(":")
    if not (p.isdecimal() and q.isdecimal()):
        raise HelixError(f"--splitting {text!r}: give P:Q, for example 9:5, or best")
    return int(p), int(q)


def _draw(path, table):
    """PNG of what the table carries against delta."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    from helix_jax import files
    from helix_jax.timing import capacity as rates
    from helix_jax.timing import error_capacity

    deltas = np.linspace(0, 0.1, 41)
    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    exact = [
        error_capacity.capacity_with_errors(table, error_capacity.symmetric_channels(table, delta)) for delta in deltas
    ]
    axis.axhline(rates.capacity(table), color="black", linewidth=1, label="capacity without errors")
    axis.plot(deltas, exact, color="tab:green", label="capacity with index errors")
    axis.plot(deltas, [rates.theorem_rate(table, delta) for delta in deltas], color="tab:blue", label="theorem")
    axis.axhline(rates.letters_capacity(table), color="tab:red", linestyle="--", label="letters alone")
    axis.set(
        xlabel="delta, probability of a wrong level", ylabel="bits per time unit", title="times of the ISIT 2020 talk"
    )
    axis.legend()
    with files.atomic(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)


def _pairs():
    return [(b, a) for b in range(4) for a in range(4) if b != a]


def _name(b, a):
    return f"{'ACGT'[b]}->{'ACGT'[a]}"


def _round(value):
    return round(float(value), 9)
