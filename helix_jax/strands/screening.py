"""Screening: no strand with a hairpin stem longer than so many bases, without a change of what decodes the pool.

RaptorQ is a fountain: a block comes back from any packets, as many as it has source symbols and SPARE more. So strands
that exceed the limit are left out, and further repair strands are written in their place, as DNA Fountain does
(Erlich & Zielinski 2017, doi:10.1126/science.aaj2038). The header declares as many repair packets as it takes to number
them all, and the pool has as many strands as without the screen. Every release reads it.
"""

import math

import numpy as np
from jaxtyping import Bool, Int64, Integer, UInt8

from helix_jax.errors import HelixError
from helix_jax.strands import stems
from helix_jax.strands.layouts import PacketLayout
from helix_jax.strands.strand_coder import StrandCoder, molecules
from helix_jax.tk_scone.constraints import to_bases

SAMPLE = 1024  # random strands from which the share is estimated; one small batch of the coder
HEADER = 2  # header strands that are left, as a multiple of those that a decoder needs
MOST = 0.25  # share of the strands that may exceed: above it, too few header strands would be left


class ScreenError(HelixError):
    """A screen that strands of this length and set cannot meet; the message names a limit that they can."""


def expected(coder: StrandCoder, stem: int) -> float:
    """Return the share of strands with a longer stem, as an upper estimate from SAMPLE random strands.

    Args:
        coder: What writes the strands.
        stem: The longest stem allowed, in bases; primers count.

    Returns:
        The share, three standard deviations above what was seen.

    Raises:
        ScreenError: More than MOST of the strands exceed, or the primers alone do.
    """
    left, right = (to_bases(word, "primer") for word in (coder.constraints.left, coder.constraints.right))
    between = np.full(stems.LOOP, 9)  # which pairs with nothing
    own = int(stems.longest_hairpins(np.concatenate([left, between, right]).astype(np.uint8)[None])[0])
    if own > stem:
        raise ScreenError(
            f"--screen hairpin={stem}: the primers alone have a stem of {own} bases in every strand; choose other "
            f"primers, or hairpin={own}"
        )
    words = np.random.default_rng(0).integers(1 << 32, size=(SAMPLE, -(-coder.bits // 32)), dtype=np.uint32)
    words[:, -1] &= np.uint32(0xFFFFFFFF << -coder.bits % 32 & 0xFFFFFFFF)
    longest = stems.longest_hairpins(molecules(coder, words))
    over = int((longest > stem).sum())
    if over > MOST * SAMPLE:
        raise impossible(stem, longest)
    return (over + 3 + 3 * math.sqrt(over + 1)) / SAMPLE


def impossible(stem: int, longest: Integer[np.ndarray, " n"]) -> ScreenError:
    """Return the error for a limit that too many strands exceed; ``longest`` are the longest stems of strands."""
    works = int(np.sort(longest)[math.ceil((1 - MOST) * len(longest)) - 1])
    return ScreenError(
        f"--screen hairpin={stem}: {(longest > stem).mean():.1%} of the strands have a longer stem, and at most "
        f"{MOST:.0%} may be left out; hairpin={max(works, stem + 1)} works, and so may shorter strands"
    )


def spare(share: float, needed: int) -> int:
    """Return how many more packets than ``needed`` to number, so that ``needed`` of them pass.

    Bernstein's inequality bounds the failure of one block by exp(-21), about 1e-9.

    Args:
        share: Probability that a packet does not pass, at most 1/2.
        needed: Packets that must pass.
    """
    more = 0
    while True:
        mean = share * (needed + more)
        wanted = math.ceil(mean + 7 + math.sqrt(49 + 42 * mean))
        if wanted <= more:
            return more
        more = wanted


def headers_that_pass(strands: UInt8[np.ndarray, "n L"], stem: int, needed: int) -> Bool[np.ndarray, " n"]:
    """Return which header strands have no longer stem.

    Their number is settled by the format, so those that exceed are left out without a substitute: a header has four
    times as many strands as a decoder needs (``header``), and HEADER times as many must be left. No more is asked for,
    as one key of three leaves less than three times as many where a quarter of the strands exceeds.

    Args:
        strands: The header strands with their primers.
        stem: The longest stem allowed.
        needed: How many of them a decoder needs.

    Raises:
        ScreenError: Fewer are left.
    """
    longest = stems.longest_hairpins(strands)
    if (longest <= stem).sum() < HEADER * needed:
        works = int(np.sort(longest)[HEADER * needed - 1])
        raise ScreenError(
            f"--screen hairpin={stem}: {int((longest <= stem).sum())} of the {len(strands)} header strands have no "
            f"longer stem, and {HEADER * needed} are needed; give another --key, which writes others, or "
            f"hairpin={works}"
        )
    return longest <= stem


class Sieve:
    """Chooses, among the strands of a pool as they are made, those that are written.

    Attributes:
        layout: The layout of the pool.
        stem: The longest stem allowed.
        wanted: How many more strands each block needs.
    """

    def __init__(self, layout: PacketLayout, stem: int):
        self.layout, self.stem = layout, stem
        self.wanted = np.array(layout.block_written, np.int64)

    def keep(self, strands: UInt8[np.ndarray, "n L"], numbers: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Return which of the next strands are written: the first of each block that pass, as many as it needs.

        Args:
            strands: The strands with their primers.
            numbers: The global index of the packet of each, -1 for header strands, which are kept.
        """
        longest = stems.longest_hairpins(strands)
        kept = numbers < 0
        passing = np.flatnonzero((longest <= self.stem) & ~kept)
        block = self.layout.locate(numbers[passing])[0]
        order = np.argsort(block, kind="stable")
        block, passing = block[order], passing[order]
        rank = np.arange(len(block)) - np.searchsorted(block, block)
        chosen = rank < self.wanted[block]
        kept[passing[chosen]] = True
        self.wanted -= np.bincount(block[chosen], minlength=len(self.wanted))
        return kept

    def check(self) -> None:
        """Raise ScreenError where a block has not got the strands that it needs."""
        if self.wanted.any():
            raise ScreenError(
                f"--screen hairpin={self.stem}: {int(self.wanted.max()):,} more strands of a block are needed than "
                f"pass; give another --key, or hairpin={self.stem + 1}"
            )
