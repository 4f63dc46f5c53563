"""Constraint sets: what a synthesised strand must obey, and the automata that enforce it.

GC bands are given as shares. They become whole numbers of bases per window or per strand by rounding inwards; a band
that holds no whole number is refused, and never relaxed.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int8, Int64

from helix_jax.tk_scone import automaton
from helix_jax.tk_scone.automaton import Automaton, ConstraintError


@dataclass(frozen=True)
class Constraints:
    """A set of biochemical constraints, all of which hold on every strand.

    Attributes:
        name: "custom" unless it is one of NAMED.
        longest_run: The longest homopolymer run allowed.
        window: Bases in a GC window; 0 for no such rule.
        window_gc: Every window holds a share of G + C in [low, high].
        strand_gc: The share of G + C of the whole strand (primers not counted) lies in [low, high]; None for no rule.
        balance: The count of G + C minus that of A + T, from the start (of the left primer) to any base, stays in
            [-balance, balance]; 0 for no rule. Any window of any length is then within ``balance`` of half.
        motifs: Forbidden words over ACGT; their reverse complements are forbidden with them.
        left: The left primer: fixed bases before the strand. Runs, windows and motifs hold across the joint.
        right: The right primer: fixed bases after the strand. Runs, windows and motifs hold across the joint.
        primers_exempt: Windows and balance count the bases of the strand alone; runs and motifs still hold across the
            joints.
    """

    name: str = "custom"
    longest_run: int = 3
    window: int = 0
    window_gc: tuple[float | int, float | int] = (0.0, 1.0)
    strand_gc: tuple[float | int, float | int] | None = None
    balance: int = 0
    motifs: tuple[str, ...] = ()
    left: str = ""
    right: str = ""
    primers_exempt: bool = False

    def describe(self) -> str:
        """Return the set in words, for people."""
        parts = [f"runs <= {self.longest_run}"]
        if self.window:
            low, high = counts(self.window_gc, self.window)
            parts.append(f"GC of every {self.window} nt in {low}..{high}")
        if self.strand_gc:
            parts.append(f"GC of the strand {self.strand_gc[0]:.0%} to {self.strand_gc[1]:.0%}")
        if self.balance:
            parts.append(f"GC of every window within {self.balance} nt of half (so 40-60 % of every 50 nt)")
        if self.primers_exempt:
            parts.append("primers left out of windows")
        if self.motifs:
            parts.append("without " + ", ".join(self.motifs))
        return f"{self.name}: " + ", ".join(parts)

    @property
    def canonical(self) -> "Constraints":
        """The same rules in one canonical form without a name: sets that differ only in how they are written are equal.

        Words are in upper case. Motifs are sorted and occur once each, and a motif and its reverse complement count as
        one. Raises ConstraintError for letters other than A, C, G, T.
        """
        words = [to_bases(motif, "motif") for motif in self.motifs]
        either = [min(tuple(word), tuple(automaton.reverse_complement(word))) for word in words]
        motifs = tuple("".join(automaton.BASES[base] for base in word) for word in sorted(set(either)))
        return dataclasses.replace(self, name="custom", motifs=motifs, left=self.left.upper(), right=self.right.upper())

    @property
    def positional(self) -> bool:
        """Whether what may follow depends on the position in the strand, and not only on the bases before."""
        return self.strand_gc is not None


# from the tightest to the loosest
NAMED = {
    "goldman": Constraints("goldman", longest_run=1),
    "strict": Constraints("strict", longest_run=3, window=20, window_gc=(0.45, 0.55)),
    "helix": Constraints("helix", longest_run=3, window=20, window_gc=(0.40, 0.60)),
    "wide": Constraints("wide", longest_run=3, balance=5),
    "strand": Constraints("strand", longest_run=3, strand_gc=(0.45, 0.55)),
}


def named(name: str) -> Constraints:
    """Return the named set. Raises ConstraintError, which lists the names, for an unknown one."""
    if name not in NAMED:
        raise ConstraintError(f"no constraint set {name!r}; there are {', '.join(NAMED)}")
    return NAMED[name]


def custom(
    base: Constraints,
    *,
    motifs: Iterable[str] = (),
    left: str = "",
    right: str = "",
    primers_exempt: bool = False,
) -> Constraints:
    """Add forbidden motifs and primers to a set; its name stays when nothing is added.

    Args:
        base: The set to begin with.
        motifs: Forbidden words over ACGT, in either case.
        left: The left primer.
        right: The right primer.
        primers_exempt: Whether windows and balance leave the primers out.

    Returns:
        The new set, or ``base`` itself when nothing is added.

    Raises:
        ConstraintError: For letters other than A, C, G, T, and for an empty motif.
    """
    if not motifs and not left and not right:
        return base
    for word, what in (*((motif, "motif") for motif in motifs), (left, "left primer"), (right, "right primer")):
        to_bases(word, what)
    if not all(motifs):
        raise ConstraintError("a forbidden motif is empty: leave it out")
    exempt = primers_exempt and bool(left or right)
    return dataclasses.replace(
        base, name=base.name + "+", motifs=tuple(motifs), left=left, right=right, primers_exempt=exempt
    )


def counts(band: Sequence[float | int], length: int) -> tuple[int, int]:
    """Return the whole numbers of bases inside a band of shares, rounded inwards: (low, high).

    ``low`` is greater than ``high`` if the band holds no whole number.
    """
    # Shares such as 0.55 are not exact in binary: the 1e-9 keeps 0.55 * 20 at 11.
    return math.ceil(band[0] * length - 1e-9), math.floor(band[1] * length + 1e-9)


def to_bases(word: str, what: str) -> Int64[np.ndarray, " n"]:
    """Convert an "ACGT" string to bases 0..3. Raises ConstraintError, which names ``what``, for other letters."""
    bases = np.array([automaton.BASES.find(letter) for letter in word.upper()], np.int64)
    if (bases < 0).any():
        raise ConstraintError(f"{what} {word!r} holds letters other than A, C, G, T")
    return bases


def build(constraints: Constraints, length: int) -> Automaton:
    """Build the product automaton of a set for strands of ``length`` bases.

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
    if not all(c.motifs):
        raise ConstraintError("a forbidden motif is empty: leave it out")
    first_class = int(automaton.GC[left[-1]]) if len(left) else 0
    runs = [automaton.run_limit(c.longest_run)]
    words = [automaton.forbid([to_bases(m, "motif") for m in c.motifs])] if c.motifs else []
    words += [automaton.last_base()] if len(right) else []
    # The order of the parts numbers the states, and the hash of the tables in a pool's header depends on it.
    if c.primers_exempt:
        window = _window(c, first_class)
        balance = [automaton.gc_balance(c.balance, first_class)] if c.balance else []
        joined = _between(functools.reduce(automaton.product, [*runs, *words]), left, right, c)
        whole = functools.reduce(automaton.product, [joined, *balance, *window])
    else:
        balance = [automaton.gc_balance(c.balance)] if c.balance else []
        whole = functools.reduce(automaton.product, [*runs, *balance, *words, *_window(c)])
        whole = _between(whole, left, right, c)
    if c.strand_gc:
        whole = automaton.product(whole, automaton.strand_gc(length, *counts(c.strand_gc, length), first_class))
    return whole


def _window(constraints: Constraints, first_class: int = 0) -> list[Automaton]:
    """Return the automaton of the GC window in a list, which is empty where there is no window.

    ``first_class`` is the GC class of the base before the window's first.
    """
    if not constraints.window:
        return []
    low, high = counts(constraints.window_gc, constraints.window)
    if first_class and low + high != constraints.window:
        raise ConstraintError(
            f"a window of {low} to {high} G or C in {constraints.window} is not symmetric and cannot leave out a left "
            "primer that ends in C or G: let the primers count, or choose another"
        )
    return [automaton.gc_window(constraints.window, low, high)]


def _between(whole, left, right, constraints):
    """Start after the left context, and accept the states from which the right context can follow."""
    start = int(whole.walk(np.array([whole.start]), left, 0)[0])
    if start < 0:
        raise ConstraintError(_broken_primer("left", constraints))
    accept = whole.accept
    if len(right):
        accept = np.zeros(whole.states, bool)
        bases = last_bases(whole, start, int(left[-1]) if len(left) else 0)
        for base in range(4):
            states = np.flatnonzero(bases == base)
            accept[states] = whole.walk(states, right, base) >= 0
        if not accept.any():
            raise ConstraintError(_broken_primer("right", constraints))
    return Automaton(whole.next, start, accept)


def _broken_primer(side, constraints):
    """Return the message for a primer that no strand can have: which rule it breaks, and where."""
    from helix_jax.strands import checker  # it shares no code with the automata

    primer = constraints.left if side == "left" else constraints.right
    bare = dataclasses.replace(constraints, left="", right="", strand_gc=None)
    if constraints.primers_exempt:
        bare = dataclasses.replace(bare, window=0, balance=0)
    broken = [finding for finding in checker.check([primer], bare).findings if finding.strands]
    text = f"the {side} primer {primer!r} itself breaks {constraints.describe()}"
    if not broken:
        return f"{text}: no strand can be followed by it; choose another primer or another set"
    example = broken[0].examples[0]
    text += f": {broken[0].rule}, but from base {example.position + 1} on there is {example.what}"
    windowed = not constraints.primers_exempt and any("G or C" in f.rule or "G + C" in f.rule for f in broken)
    return f"{text}; choose another primer or another set" + (
        ", or leave primers out of the windows with --exempt-primers" if windowed else ""
    )


def last_bases(whole: Automaton, start: int, first: int) -> Int8[np.ndarray, " S"]:
    """Return the last base written on reaching each state, where the states determine it.

    Args:
        whole: The automaton.
        start: Its state before the first base.
        first: The base before that.

    Returns:
        The base for each state, -1 for a state that is not reached.
    """
    bases = np.full(whole.states, -1, np.int8)
    bases[start] = first
    frontier = np.array([start])
    while len(frontier):
        after = whole.next[frontier]
        written = (bases[frontier][:, None] ^ np.arange(4)).astype(np.int8)
        keep = after >= 0
        after, written = after[keep], written[keep]
        unseen = bases[after] < 0
        bases[after[unseen]] = written[unseen]
        frontier = np.unique(after[unseen])
    return bases
