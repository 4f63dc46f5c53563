"""Figures of the commands ``helix-jax timing``: what tables and schemes carry, as numbers and as a picture."""

from pathlib import Path
from typing import Any, SupportsFloat

from helix_jax import files


def of_chain(table: Any, delta: float, overhead: float) -> dict[str, float]:
    """Return what a table of times carries, rounded."""
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
    return {name: rounded(value) for name, value in figures.items()}


def of_design(
    scheme: Any, levels: Any, splitting: tuple[int, int], unit_seconds: float
) -> dict[str, float | int | str]:
    """Return the rates of a scheme with the Quantizer ``levels``, and those of state splitting with (p, q)."""
    from helix_jax.timing import capacity as rates
    from helix_jax.timing import pool, quantizer

    theorem = rates.theorem_rate(scheme.table, scheme.delta, overhead=scheme.overhead)
    achieved, after_lost_runs = (
        quantizer.achieved_rate(scheme.table, levels.decisions, overhead=scheme.overhead, price=price)
        for price in (0.0, quantizer.PRICE)
    )
    repair = scheme.redundancy if scheme.version == 1 else scheme.loss / (1 - scheme.loss)
    bits = 8 * pool.symbol_bytes(scheme) / (1 + repair)
    carried = bits / scheme.strand_time
    hour = 3600 / unit_seconds
    return {
        "scheme": scheme.name,
        "copies": scheme.copies,
        "delta": scheme.delta,
        "error": rounded(levels.error),
        "capacity": rounded(rates.capacity(scheme.table, overhead=scheme.overhead)),
        "baseline": rounded(rates.letters_capacity(scheme.table, overhead=scheme.overhead)),
        "theorem_rate": rounded(theorem),
        "achieved_rate": rounded(achieved),
        "rate_after_lost_runs": rounded(after_lost_runs),
        "splitting": "{}:{}".format(*splitting),
        "splitting_rate": rounded(splitting[0] / splitting[1]),
        "coder": "state splitting" if scheme.splitting else "range coder",
        "rounds_per_strand": scheme.frame.rounds,
        "bits_per_strand": round(bits, 3),
        "time_units_per_strand": round(scheme.strand_time, 3),
        "scheme_rate": rounded(carried),
        "theorem_bits_per_hour": round(theorem * hour, 3),
        "scheme_bits_per_hour": round(carried * hour, 3),
    }


def draw(path: Path, table: Any) -> None:
    """Draw a PNG of the rates of a table of times against delta."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

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


def pairs() -> list[tuple[int, int]]:
    """Return all transitions as (base before, base after)."""
    return [(b, a) for b in range(4) for a in range(4) if b != a]


def transition(b: int, a: int) -> str:
    """Return the name of a transition."""
    return f"{'ACGT'[b]}->{'ACGT'[a]}"


def rounded(value: SupportsFloat) -> float:
    """Round a figure to the digits that are shown."""
    return round(float(value), 9)
