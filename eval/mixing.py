"""What each part of the mixing does to the default model's tokens: ``python -m eval.mixing [CLIP] [--json FILE]``.

For each combination of interleaver, Kronecker matrix and keyed offset the program prints:
  runs, windows   the share of 150-nt strands that break runs <= 3, and of 20-nt windows outside GC 40-60 %, if each
                  digit is written as a base *without constraints*. TK-SCONE itself never breaks these rules; the
                  figures show how uniform the mixed digits are.
  spread          for one lost strand, the mean distance in latents from a lost token to the nearest other one, and the
                  share of its tokens that touch another (26-neighbourhood).
  damage          the digits and tokens that change if one digit of a strand is substituted.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from rich.console import Console
from rich.table import Table

from helix_jax import parallel, video
from helix_jax.cli import demonstration
from helix_jax.config import MixingConfig
from helix_jax.strands import checker
from helix_jax.tk_scone import constraints, mixing
from helix_jax.tokenizer import tiles, weights

KEY = bytes(range(8))
PER_STRAND = 16  # tokens of 8 digits in the 32-byte payload of a 150-nt strand of `helix`


def unconstrained(symbols: UInt8[np.ndarray, "n digits"]) -> tuple[float, float]:
    """Write the digits directly as bases of 150-nt strands: the shares of strands and of 20-nt windows at fault."""
    bases = symbols.reshape(-1)
    strands = bases[: len(bases) // 150 * 150].reshape(-1, 150)
    report = checker.check(strands, constraints.Constraints(longest_run=3))
    gc = np.isin(strands, (1, 2))
    counts = np.lib.stride_tricks.sliding_window_view(gc, 20, axis=1).sum(axis=-1)
    return report.violations / len(strands), np.mean((counts < 8) | (counts > 12))


def spread(grid: tuple[int, ...], config: MixingConfig) -> tuple[float, float]:
    """Lose one strand: the mean nearest distance and the share of tokens with a lost neighbour, over all strands."""
    order = mixing.token_order(grid, PER_STRAND, config)
    full = order[(order < np.prod(grid)).all(axis=1)]
    places = np.stack(np.unravel_index(full, grid), axis=-1)
    apart = np.abs(places[:, :, None] - places[:, None]).max(axis=-1).astype(float)
    apart[:, np.arange(PER_STRAND), np.arange(PER_STRAND)] = np.inf
    nearest = apart.min(axis=-1)
    return nearest.mean(), (nearest <= 1).mean()


def damage(symbols: UInt8[np.ndarray, "n digits"], config: MixingConfig, digits: int) -> np.ndarray:
    """Return the mean number of (digits, tokens) that one substituted digit changes, over 200 random positions.

    Args:
        symbols: the digits of each strand.
        config: which parts of the mixing are on.
        digits: digits of a token.
    """
    generator = np.random.default_rng(0)
    mixed = np.asarray(mixing.mix(symbols, KEY, config))
    clean = np.asarray(mixing.unmix(mixed, KEY, config))
    counts = []
    for _ in range(200):
        row, column = generator.integers(len(mixed)), generator.integers(mixed.shape[1])
        damaged = mixed.copy()
        damaged[row, column] = (damaged[row, column] + generator.integers(1, 4)) & 3
        changed = np.asarray(mixing.unmix(damaged, KEY, config)) != clean
        counts.append((changed.sum(), changed.reshape(-1, digits).any(axis=1).sum()))
    return np.mean(counts, axis=0)


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", default=demonstration.CLIP, help="the video (default: the shipped clip)")
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()
    parallel.use_all_cores()
    model = weights.load()
    reader = video.open_video(args.clip)
    tokens = tiles.encode(model.params, model.config, reader.blocks(), reader.info.height, reader.info.width)
    digits = tokens.shape[-1]
    rows = []
    for interleave, kronecker, offset in itertools.product((False, True), repeat=3):
        config = MixingConfig(interleave=interleave, kronecker=kronecker, offset=offset)
        symbols = mixing.interleave(tokens, PER_STRAND, config)
        runs, windows = unconstrained(np.asarray(mixing.mix(symbols, KEY, config)))
        distance, touching = spread(tokens.shape[:3], config)
        damaged_digits, damaged_tokens = damage(symbols, config, digits)
        rows.append(
            {
                "interleave": interleave,
                "kronecker": kronecker,
                "offset": offset,
                "runs": runs,
                "windows": windows,
                "nearest": float(distance),
                "touching": float(touching),
                "damaged_digits": float(damaged_digits),
                "damaged_tokens": float(damaged_tokens),
            }
        )
    table = Table(title=f"mixing on {Path(args.clip).name}, {tokens[..., 0].size} tokens")
    for name in (
        "interleave",
        "Kronecker",
        "offset",
        "runs",
        "windows",
        "nearest",
        "touching",
        "digits changed",
        "tokens changed",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        values = list(row.values())
        table.add_row(*("x" if v else "" for v in values[:3]), *(f"{v:.3f}" for v in values[3:]))
    Console().print(table)
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
