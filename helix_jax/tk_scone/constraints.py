"""Constraint sets: what a synthesised strand must obey, and their automata.

GC bands are given as shares and become whole numbers of bases per window or strand by rounding inwards;
a band that holds no whole number is refused, never relaxed.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from helix_jax.tk_scone import automaton
from helix_jax.tk_scone.automaton import Automaton, ConstraintError


@dataclass(frozen=True)
class Constraints:
    """A set of biochemical constraints, all of which hold on every strand.

    name: "custom" unless it is one of NAMED.
    longest_run: longest homopolymer run allowed.
    window, window_gc: every window of that many bases holds a share of G + C in [low, high]; 0 = no rule.
    strand_gc: share of G + C of the whole strand (primers not counted), or None.
    balance: the count of G + C minus that of A + T, from the start (of the left primer) to any base, stays in
        [-balance, balance]; 0 = no rule. Any window of any length is then within balance of half.
    motifs: forbidden words over ACGT; their reverse complements are forbidden with them.
    left, right: fixed bases before and after the strand (primers); runs, windows and motifs
        hold across the joints.
    """

    name: str = "custom"
    longest_run: int = 3
    window: int = 0
    window_gc: tuple[float, float] = (0.0, 1.0)
    strand_gc: tuple[float, float] | None = None
    balance: int = 0
    motifs: tuple[str, ...] = ()
    left: str = ""
    right: str = ""

    def describe(self):
        """The set in words, for people."""
        parts = [f"runs <= {self.longest_run}"]
        if self.window:
            low, high = counts(self.window_gc, self.window)
            parts.append(f"GC of every {self.window} nt in {low}..{high}")
        if self.strand_gc:
            parts.append(f"GC of the strand {self.strand_gc[0]:.0%} to {self.strand_gc[1]:.0%}")
        if self.balance:
            parts.append(f"GC of every window within {self.balance} nt of half (so 40-60 % of every 50 nt)")
        if self.motifs:
            parts.append("without " + ", ".join(self.motifs))
        return f"{self.name}: " + ", ".join(parts)

    @property
    def positional(self):
        """True when what may follow depends on the position in the strand, not only on the bases before."""
        return self.strand_gc is not None


# from the tightest to the loosest
NAMED = {
    "goldman": Constraints("goldman", longest_run=1),
    "strict": Constraints("strict", longest_run=3, window=20, window_gc=(0.45, 0.55)),
    "helix": Constraints("helix", longest_run=3, window=20, window_gc=(0.40, 0.60)),
    "wide": Constraints("wide", longest_run=3, balance=5),
    "strand": Constraints("strand", longest_run=3, strand_gc=(0.45, 0.55)),
}


def named(name):
    """The named set. Raises ConstraintError listing the names."""
    if name not in NAMED:
        raise ConstraintError(f"no constraint set {name!r}; there are {', '.join(NAMED)}")
    return NAMED[name]


def custom(base, *, motifs=(), left="", right=""):
    """A named set with forbidden motifs and primers added; the name stays when nothing is added."""
    if not motifs and not left and not right:
        return base
    return dataclasses.replace(base, name=base.name + "+", motifs=tuple(motifs), left=left, right=right)


def counts(band, length):
    """Whole numbers of bases inside a share band, rounded inwards: (low, high); low > high if there is none."""
    # shares such as 0.55 are not exact in binary: 1e-9 keeps 0.55 * 20 at 11
    return math.ceil(band[0] * length - 1e-9), math.floor(band[1] * length + 1e-9)


def to_bases(word, what):
    """ "ACGT" string -> uint8 array. Raises ConstraintError naming ``what``."""
    bases = np.array([automaton.BASES.find(letter) for letter in word.upper()], np.int64)
    if (bases < 0).any():
        raise ConstraintError(f"{what} {word!r} holds letters other than A, C, G, T")
    return bases


def build(constraints, length) -> Automaton:
    """The product automaton of a set for strands of ``length`` bases.

    Raises ConstraintError, with the reason, when the set cannot be met or is too large.
    """
    c = constraints
    if c.longest_run < 1:
        raise ConstraintError(f"longest run {c.longest_run}: at least 1 base is needed")
    if length < 1:
        raise ConstraintError(f"strand length {length}: at least 1 base is needed")
    if c.balance < 0:
        raise ConstraintError(f"balance {c.balance}: at least 1, or 0 for no rule")
    left, right = to_bases(c.left, "left primer"), to_bases(c.right, "right primer")
    parts = [automaton.run_limit(c.longest_run)]
    if c.balance:
        parts.append(automaton.gc_balance(c.balance))
    if c.motifs:
        if not all(c.motifs):
            raise ConstraintError("a forbidden motif is empty: leave it out")
        parts.append(automaton.forbid([to_bases(m, "motif") for m in c.motifs]))
    if len(right):
        parts.append(automaton.last_base())
    if c.window:
        parts.append(automaton.gc_window(c.window, *counts(c.window_gc, c.window)))
    whole = parts[0]
    for part in parts[1:]:
        whole = automaton.product(whole, part)
    whole = _between(whole, left, right, c)
    if c.strand_gc:
        first_class = int(automaton.GC[left[-1]]) if len(left) else 0
        whole = automaton.product(whole, automaton.strand_gc(length, *counts(c.strand_gc, length), first_class))
    return whole


def _between(whole, left, right, constraints):
    """Start after the left context; accept the states from which the right context can follow."""
    start = int(whole.walk(np.array([whole.start]), left, 0)[0])
    if start < 0:
        raise ConstraintError(f"the left primer {constraints.left!r} itself breaks {constraints.describe()}")
    accept = whole.accept
    if len(right):
        accept = np.zeros(whole.states, bool)
        bases = last_bases(whole, start, int(left[-1]) if len(left) else 0)
        for base in range(4):
            states = np.flatnonzero(bases == base)
            accept[states] = whole.walk(states, right, base) >= 0
        if not accept.any():
            raise ConstraintError(f"the right primer {constraints.right!r} itself breaks {constraints.describe()}")
    return Automaton(whole.next, start, accept)


def last_bases(whole, start, first):
    """Last base written on reaching each state, int8[S] (-1 unreached), where the states determine it."""
    bases = np.full(whole.states, -1, np.int8)
    bases[start] = first
    frontier = np.array([start])
    while len(frontier):
        after = whole.next[frontier]
        written = (bases[frontier][:, None] ^ np.arange(4)).astype(np.int8)
        keep = after >= 0
        after, written = after[keep], written[keep]
        fresh = bases[after] < 0
        bases[after[fresh]] = written[fresh]
        frontier = np.unique(after[fresh])
    return bases
