"""Positions -> coded tokens: the quality, rate or budget that was requested, and the search that ``effort`` allows."""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float32

from helix_jax.coding import ladder, modes, search
from helix_jax.config import CODECS, CodecConfig
from helix_jax.errors import BudgetError, HelixError
from helix_jax.nets import Nets
from helix_jax.strands.layouts import PacketLayout
from helix_jax.tokenizer import update
from helix_jax.writer import Station

Progress = Callable[[str, int, int], None]


def check(config: CodecConfig) -> None:
    """Raise HelixError for a quality, effort, rate or budget out of range, or for two that exclude each other."""
    if not 0 <= config.quality <= ladder.BEST:
        raise HelixError(f"quality {config.quality}: give 0 to {ladder.BEST}")
    if not 0 <= config.effort < len(search.STEPS):
        raise HelixError(f"effort {config.effort}: give 0 to {len(search.STEPS) - 1}")
    if not (0 <= config.rate < math.inf and config.budget >= 0):
        raise HelixError(f"rate {config.rate:g}, budget {config.budget}: give more than 0")
    if not 6 <= config.sound <= 510:
        raise HelixError(f"sound {config.sound:g}: give 6 to 510 kbit/s, or --no-sound")
    if not 0 <= config.preview <= 0.5:
        raise HelixError(f"preview {config.preview:g}: give a share of the nucleotides from 0 to 0.5")
    if config.codec not in CODECS:
        raise HelixError(f"codec {config.codec!r}: give one of {', '.join(CODECS)}")
    if config.quality < ladder.BEST and (config.rate or config.budget):
        raise HelixError("quality, or a rate or a budget: give one of them")


def choose(
    positions: Float32[np.ndarray, "t h w k"],
    video: update.Video,
    config: CodecConfig,
    nets: Nets,
    station: Station,
    progress: Progress | None = None,
) -> tuple[modes.Coding, PacketLayout]:
    """Code the tokenizer's positions with the requested quality (or within the requested rate) and effort.

    Args:
        positions: Positions of all digits, as ``tiles.encode(positions=True)`` gives them.
        video: The clip.
        config: The configuration.
        nets: The tokenizer and its prior.
        station: What will write the pool. It says what a coding costs.
        progress: Called as ``progress(station, done, total)``, where ``done`` is how many more are done.

    Returns:
        The tokens as they are written, and the layout of their packets.

    Raises:
        BudgetError: The rate or budget does not pay for the lowest quality.
        HelixError: The mode is not possible.
    """
    info, prior = video.info, nets.prior
    limited = bool(config.rate or config.budget)
    rungs = ladder.ladder(positions.shape[-1], config.mode != "raw" and prior is not None)

    def laid_out(coded):
        layout = coded.layout(station.plan)
        return layout, station.cost(layout)

    def fits(coded, most):
        with contextlib.suppress(HelixError):  # more than the writer can number at all
            return laid_out(coded)[1] <= most
        return False

    def attempt(rung: ladder.Rung) -> tuple[Any, float]:
        tokens, _ = ladder.tokens_at(rung, positions, prior, progress=progress)
        coded = modes.encode(tokens, config.mode, prior, plan=station.plan, progress=progress)
        if limited and rung != rungs[-1] and not fits(coded, math.inf):
            return None, math.inf  # there may be room for a lower rung
        layout, cost = laid_out(coded)
        return (coded, layout, rung), cost

    def searched(coded, layout, rung, most=math.inf):
        better, _ = search.best(
            coded, positions, video, nets.tokenizer, prior, effort=config.effort, damage=rung.damage,
            fits=lambda coded: fits(coded, most), progress=progress,
        )  # fmt: skip
        return better, layout if better is coded else laid_out(better)[0]

    if not limited:
        result, _ = attempt(ladder.rung_of(rungs, config.quality))
        return searched(*result)
    limits = [config.rate * info.frames * info.height * info.width, config.budget]
    budget = min(limit for limit in limits if limit)
    affordable, least = ladder.best_within(rungs, attempt, int(budget))
    if affordable is None:
        mode = "" if config.mode == "smallest" else f" in mode {config.mode}"
        raise BudgetError(
            f"{int(budget):,} {station.unit}",
            (f"tokens{mode} take {least:,} at the lowest quality",),
            ("less redundancy", "a smaller picture"),
        )
    return searched(*affordable, most=budget)
