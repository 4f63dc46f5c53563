"""The channel from strands to reads: what can go wrong, as numbers, and presets.

A strand is written in molecules (``Channel.synthesis``), whose errors all copies of a molecule share. Storage and PCR
lose some strands and favour others. A sequencer reads some of the molecules (``Channel.sequencing``) and says how sure
it is of each base (``Quality``).
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from helix_jax.errors import HelixError

LONGEST_RUN = 8  # longer homopolymer runs count as runs of this length
MOST_PHRED = 60
FACTOR_REACH = 4.5  # standard normal deviates of a read's error factor are clipped to this
_EVEN = tuple(tuple(0.0 if true == read else 1 / 3 for read in range(4)) for true in range(4))


class ChannelError(HelixError):
    """An impossible channel; the message names the field, its value and its range."""


def _check(thing, name, least, most):
    value = getattr(thing, name)
    if not least <= value <= most:
        raise ChannelError(f"{name}: {value}; it lies in {least:g}..{most:g}")


# ---- errors of one pass ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Errors:
    """Error process of one pass over a molecule, writing or reading it. Raises ChannelError.

    Attributes:
        substitution: Substituted *bases* per base of the strand, in 0..0.5. This and the next two are averages over
            uniformly random strands, over positions and over reads; bursts count with all their bases, and a burst
            starts (1 - run) times as often.
        insertion: Inserted bases per base of the strand, in 0..0.5.
        deletion: Deleted bases per base of the strand, in 0..0.5.
        substitutions: [true][read], the sixteen shares of the substitutions, 0 where true == read, which sum to four: a
            row sums to how often that base is hit, relative to the average base.
        homopolymer: Factor on the deletion rate of a base for each further base of its homopolymer run, in 0.1..3 (1:
            no effect); runs past 8 count as 8. Insertions do not follow runs in the reads that preset ``nanopore``
            comes from.
        position: Relative rates at equally spaced positions from the first base to the last, linear between them; kept
            with mean 1. (1.0,) is flat.
        deletion_run: Probability that a burst of deletions goes on by one more base (geometric lengths), in 0..0.9.
        insertion_run: The same for insertions.
        spread: Sigma of the log-normal factor, of mean 1, on all rates of one read, in 0..1.5.
        bad_share: Share of the bases that lie in bad stretches, in 0..0.5 (0: there are none). In such a stretch of a
            strand errors of all kinds are close together. Stretches are drawn anew in each pass; they are the bad state
            of a stationary two-state Markov chain. A read of higher factor has more stretches, not worse ones. No rate
            in them, before position and run, may exceed 0.5.
        bad_errors: Share of the errors that occur in bad stretches on top of those everywhere, in 0..1.
        bad_length: Mean length of bad stretches in bases, in 1..1000.
    """

    substitution: float | int = 0.0
    insertion: float | int = 0.0
    deletion: float | int = 0.0
    substitutions: tuple[tuple[float, ...], ...] = _EVEN
    homopolymer: float | int = 1.0
    position: tuple[float, ...] = (1.0,)
    deletion_run: float | int = 0.0
    insertion_run: float | int = 0.0
    spread: float | int = 0.0
    bad_share: float | int = 0.0
    bad_errors: float | int = 0.0
    bad_length: float | int = 1.0

    def __post_init__(self):
        for name in ("substitution", "insertion", "deletion"):
            _check(self, name, 0, 0.5)
        for name in ("deletion_run", "insertion_run"):
            _check(self, name, 0, 0.9)
        _check(self, "homopolymer", 0.1, 3)
        _check(self, "spread", 0, 1.5)
        self._check_stretches()
        rows = tuple(tuple(map(float, row)) for row in self.substitutions)
        if [len(row) for row in rows] != [4, 4, 4, 4]:
            raise ChannelError(f"substitutions: rows of {[len(row) for row in rows]} numbers; give 4 x 4")
        if any(rows[base][base] for base in range(4)):
            raise ChannelError(f"substitutions: {rows}: a base read as itself is no error; give 0 on the diagonal")
        if not all(0 <= share <= 4 for row in rows for share in row) or abs(sum(map(sum, rows)) - 4) > 1e-3:
            raise ChannelError(f"substitutions: sum {sum(map(sum, rows)):.6g}; give shares of at least 0 that sum to 4")
        rates = tuple(map(float, self.position))
        if not rates or not all(0 <= rate < math.inf for rate in rates) or sum(rates) <= 0:
            raise ChannelError(f"position: {rates}; give one or more rates of at least 0, not all 0")
        mean = (sum(rates) - (rates[0] + rates[-1]) / 2) / (len(rates) - 1) if len(rates) > 1 else rates[0]
        object.__setattr__(self, "substitutions", rows)
        if abs(mean - 1) > 1e-9:  # so that a copy is equal to what it was copied from
            rates = tuple(rate / mean for rate in rates)
        object.__setattr__(self, "position", rates)

    def _check_stretches(self):
        _check(self, "bad_share", 0, 0.5)
        _check(self, "bad_errors", 0, 1)
        _check(self, "bad_length", 1, 1000)
        if not self.bad_share:
            if self.bad_errors:
                raise ChannelError(f"bad_errors: {self.bad_errors} with bad_share 0; give bad_share more than 0")
            return
        for name in ("substitution", "insertion", "deletion"):
            rate = getattr(self, name) * (1 - self.bad_errors + self.bad_errors / self.bad_share)
            if rate > 0.5:
                raise ChannelError(
                    f"{name}: {rate:.3g} in bad stretches, where at most 0.5 may be; raise bad_share, {self.bad_share}"
                )

    @property
    def total(self) -> float | int:
        """Errors per base of the strand: substituted, inserted and deleted bases."""
        return self.substitution + self.insertion + self.deletion


def homopolymer_mean(factor: float | int) -> float:
    """Return the mean of factor^(run - 1) over the bases of a uniformly random strand; runs past 8 count as 8."""
    run = np.arange(1, 60)
    share = run * 0.25 ** (run - 1) * 9 / 16
    return float(np.sum(share * factor ** (np.minimum(run, LONGEST_RUN) - 1.0)) / np.sum(share))


# ---- qualities -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quality:
    """Phred qualities: one distribution for each kind of base, and correlations within a read. Raises ChannelError.

    All of it is a Gaussian copula: a base's standard normal score is mapped to the distribution of its kind. Only the
    errors of sequencing count; the sequencer reads those of synthesis truly.

    Attributes:
        right: Probabilities of Phred 0, 1, ... (at most 60) of right bases. This and the next two are those of all
            reads pooled, and kept normalised.
        wrong: The same of substituted and inserted bases.
        beside: The same of right bases next to an error.
        factor: Correlation of a base's quality with the read's error factor, in 0..1: bad reads know that they are bad.
        read: Correlation with a further level that the bases of a read share, in 0..1; factor^2 + read^2 is at most 1.
        neighbour: Correlation of what is left between neighbours, in 0..0.95.
    """

    right: tuple[float, ...]
    wrong: tuple[float, ...]
    beside: tuple[float, ...]
    factor: float | int = 0.0
    read: float | int = 0.0
    neighbour: float | int = 0.0

    def __post_init__(self):
        for name in ("right", "wrong", "beside"):
            row = tuple(map(float, getattr(self, name)))
            if not 1 <= len(row) <= MOST_PHRED + 1:
                raise ChannelError(f"{name}: {len(row)} probabilities; give 1 to {MOST_PHRED + 1}, of Phred 0 upwards")
            if not all(0 <= chance <= 1 for chance in row) or abs(sum(row) - 1) > 1e-2:
                raise ChannelError(f"{name}: sum {sum(row):.6g}; give probabilities of at least 0 that sum to 1")
            total = sum(row) if abs(sum(row) - 1) > 1e-9 else 1.0  # so that a copy is equal to what it was copied from
            object.__setattr__(self, name, tuple(chance / total for chance in row))
        _check(self, "factor", 0, 1)
        _check(self, "read", 0, 1)
        _check(self, "neighbour", 0, 0.95)
        if self.factor**2 + self.read**2 > 1 + 1e-9:
            raise ChannelError(
                f"factor {self.factor} and read {self.read}: their squares sum to more than 1; lower one"
            )

    @classmethod
    def flat(cls, phred: float | int) -> "Quality":
        """Return the same quality for all bases, which tells nothing."""
        if not (phred == int(phred) and 0 <= phred <= MOST_PHRED):
            raise ChannelError(f"phred: {phred}; give a whole number in 0..{MOST_PHRED}")
        row = (0.0,) * int(phred) + (1.0,)
        return cls(row, row, row)


# ---- the channel ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Channel:
    """The channel from strands to reads. Raises ChannelError.

    Attributes:
        name: What it is called.
        source: Where its numbers come from.
        synthesis: Errors shared by all reads of a molecule: of writing, and of storage and first copies.
        sequencing: Errors of each read on its own. Both kinds run along the strand, also in a reversed read.
        quality: What the sequencer says of each base.
        molecules: Molecules of each strand that reads are drawn from; 0: so many that each read has its own.
        dropout: Share of strands that are lost outright, in 0..0.99. The others get their reads.
        skew: Sigma of the log-normal share of reads that a strand gets, in 0..3; 0: equal, so that counts are Poisson.
        reverse: Share of reads that are the reverse complement.
        truncated: Share of reads cut at a uniformly drawn position, half of them at each end.
        chimera: Share of reads that begin as one strand and go on as another from a uniformly drawn position.
    """

    name: str
    source: str
    synthesis: Errors = Errors()
    sequencing: Errors = Errors()
    quality: Quality = field(default_factory=lambda: Quality.flat(40))
    molecules: int | float = 0
    dropout: float | int = 0.0
    skew: float | int = 0.0
    reverse: float | int = 0.0
    truncated: float | int = 0.0
    chimera: float | int = 0.0

    def __post_init__(self):
        if not self.name or not self.source:
            raise ChannelError(f"name {self.name!r}, source {self.source!r}: neither may be empty; say whose numbers")
        if self.molecules != int(self.molecules) or not 0 <= self.molecules <= 1 << 30:
            raise ChannelError(f"molecules: {self.molecules}; give a whole number in 0..2^30, 0 for no limit")
        _check(self, "dropout", 0, 0.99)
        _check(self, "skew", 0, 3)
        for name in ("reverse", "truncated", "chimera"):
            _check(self, name, 0, 1)

    @property
    def total(self) -> float | int:
        """Errors per base of the strand, of synthesis and sequencing."""
        return self.synthesis.total + self.sequencing.total


def uniform(total: float | int, *, substitution_share: float | int = 1 / 3, **changes: Any) -> Channel:
    """Return a channel with ``total`` errors per base and nothing else, for benchmarks.

    Every read has its own errors, and the quality is flat, the Phred of ``total``.

    Args:
        total: Errors per base, in 0..1.
        substitution_share: Share of the errors that are substitutions, in 0..1; insertions and deletions get equal
            halves of the rest. 1 leaves substitutions only.
        **changes: Other fields of ``Channel``.

    Returns:
        The channel.

    Raises:
        ChannelError: For a number out of its range.
    """
    if not 0 <= total <= 1:
        raise ChannelError(f"total: {total}; it lies in 0..1")
    if not 0 <= substitution_share <= 1:
        raise ChannelError(f"substitution_share: {substitution_share}; it lies in 0..1")
    indel = total * (1 - substitution_share) / 2
    errors = Errors(substitution=total * substitution_share, insertion=indel, deletion=indel)
    phred = 40 if total < 1e-4 else max(1, round(-10 * math.log10(total)))
    plain = Channel("uniform", "equal rates for benchmarks; no data", sequencing=errors, quality=Quality.flat(phred))
    return replace(plain, **changes)


# ---- presets -------------------------------------------------------------------------------------------------


def _counts(text):
    """Return probabilities from counts, for Phred 0 upwards."""
    counts = [int(word) for word in text.split()]
    return tuple(count / sum(counts) for count in counts)


def _levels(*pairs):
    """Return probabilities from (Phred, share) pairs, for sequencers that state only a few qualities."""
    shares = dict(pairs)
    return tuple(shares.get(phred, 0.0) for phred in range(max(shares) + 1))


_DEAMINATED = ((0, 0, 0, 0), (0, 0, 0, 2), (2, 0, 0, 0), (0, 0, 0, 0))  # C -> T, and G -> A from the other strand

_NANOPORE = Channel(
    "nanopore",
    "fitted by channel.fit to 1,215 pairs of itaiorr/Deep-DNA-based-storage (MIT): Oxford Nanopore R9.4.1 reads of "
    "128 nt, errors of synthesis included. They do not show coverage and orientation: skew and reverse are ours",
    sequencing=Errors(
        substitution=0.01277,
        insertion=0.01290,
        deletion=0.02576,
        substitutions=(
            (0.0, 0.0682, 0.951, 0.1085),
            (0.1139, 0.0, 0.0235, 0.629),
            (1.1183, 0.026, 0.0, 0.2),
            (0.0971, 0.588, 0.0766, 0.0),
        ),
        homopolymer=1.471,
        position=(0.5983, 0.9793, 0.9202, 0.9301, 1.107, 1.0136, 1.0648, 1.02, 1.3315),
        deletion_run=0.300,
        insertion_run=0.236,
        spread=0.483,
        bad_share=0.0673,
        bad_errors=0.837,
        bad_length=4.16,
    ),
    quality=Quality(
        right=_counts(
            "0 0 2 21 59 105 164 183 183 187 185 193 194 210 218 226 244 258 265 299 332 384 470 550 653 731 783 "
            "748 676 530 383 242 152 83 44 20 10 5 3 2 1 1"
        ),
        wrong=_counts(
            "0 3 79 509 949 1195 1428 1122 1019 688 543 431 306 252 224 191 115 130 115 106 67 73 55 61 45 67 49 "
            "52 39 27 30 9 15 0 6"
        ),
        beside=_counts(
            "0 1 69 329 691 923 1088 921 672 555 474 407 389 334 322 243 224 225 202 198 184 187 156 187 160 174 "
            "163 143 110 119 58 36 19 15 14 5 4 1"
        ),
        factor=0.245,
        read=0.000,
        neighbour=0.779,
    ),
    skew=0.3,
    reverse=0.5,
)

_ILLUMINA = Channel(
    "illumina",
    "totals as measured on the Illumina reads of qinyunnn/RobuSeqNet: 0.11 % substitutions, 0.11 % deletions, 0.07 % "
    "insertions; how they fall to synthesis and sequencing, qualities, skew and molecules are ours",
    synthesis=Errors(substitution=0.0003, insertion=0.0006, deletion=0.001),
    sequencing=Errors(substitution=0.0008, insertion=0.0001, deletion=0.0001),
    quality=Quality(
        right=_levels((12, 0.01), (25, 0.04), (37, 0.95)),
        wrong=_levels((2, 0.05), (12, 0.5), (25, 0.25), (37, 0.2)),
        beside=_levels((12, 0.03), (25, 0.1), (37, 0.87)),
        neighbour=0.5,
    ),
    molecules=1000,
    skew=0.3,
    reverse=0.5,
)

PRESETS = {
    "clean": Channel("clean", "no errors; coverage is Poisson"),
    "illumina": _ILLUMINA,
    "nanopore": _NANOPORE,
    "enzymatic": replace(
        _NANOPORE,
        name="enzymatic",
        source="sequencing of preset nanopore; synthesis with deletions far ahead, as of Lee et al. 2019 (Nat Commun "
        "10:2383); its magnitudes are ours",
        synthesis=Errors(substitution=0.005, insertion=0.01, deletion=0.06, insertion_run=0.2, spread=0.3),
        molecules=100,
    ),
    "aged": replace(
        _ILLUMINA,
        name="aged",
        source="preset illumina after storage that loses strands, as Heckel, Mikutis and Grass 2019 (Sci Rep 9:9663) "
        "describe, and deaminates cytosine; all magnitudes are ours",
        synthesis=Errors(
            0.0033,
            0.0006,
            0.001,
            tuple(
                tuple((0.3 * even + 3 * aged) / 3.3 for even, aged in zip(*rows, strict=True))
                for rows in zip(_EVEN, _DEAMINATED, strict=True)
            ),
        ),
        molecules=10,
        dropout=0.05,
        skew=0.8,
        truncated=0.01,
    ),
}


def named(name: str) -> Channel:
    """Return the preset of that name. Raises ChannelError for an unknown one."""
    if name not in PRESETS:
        raise ChannelError(f"preset {name!r}: there is none; the presets are {', '.join(PRESETS)}")
    return PRESETS[name]
