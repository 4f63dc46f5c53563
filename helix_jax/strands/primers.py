"""Are the primers unlike the strands? A primer that nearly occurs inside a strand would bind there in PCR."""

import edlib  # pyrefly: ignore [missing-import]
import numpy as np
from jaxtyping import Bool, UInt8

from helix_jax.config import PrimerRules
from helix_jax.strands.written import AnyPool
from helix_jax.tk_scone.constraints import Constraints

BASES = np.frombuffer(b"ACGT", np.uint8)
COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")


def reverse_complement(word: str) -> str:
    """Return the reverse complement of a word over A, C, G, T."""
    return word.encode().translate(COMPLEMENT)[::-1].decode()


def alike(
    strands: UInt8[np.ndarray, "n L"], primer: str, near: float | int = PrimerRules.near
) -> Bool[np.ndarray, " n"]:
    """Return which strands hold the primer, or its reverse complement, within ``near`` edits per base of the primer.

    The strands are without their primers. An empty primer occurs in none of them. edlib computes the alignments.
    """
    if not primer:
        return np.zeros(len(strands), bool)
    words = [primer.upper(), reverse_complement(primer.upper())]
    edits = int(near * len(primer))
    return np.array(
        [
            any(edlib.align(word, row.tobytes().decode(), mode="HW", k=edits)["editDistance"] >= 0 for word in words)
            for row in BASES[strands]
        ],
        bool,
    )


class Watch:
    """Looks for the primers in the strands of a pool as they are written.

    Attributes:
        left: The left primer.
        right: The right primer.
        near_strands: The numbers of the strands that each primer nearly occurs in.
    """

    def __init__(self, constraints: Constraints):
        self.left, self.right, self._first = constraints.left, constraints.right, 0
        self.near_strands: dict[str, list[int]] = {primer: [] for primer in (self.left, self.right) if primer}

    def __call__(self, part: UInt8[np.ndarray, "n L"]) -> None:
        """Take in the next strands, with their primers."""
        core = part[:, len(self.left) : part.shape[1] - len(self.right)]
        for primer, numbers in self.near_strands.items():
            numbers += (self._first + np.flatnonzero(alike(core, primer))).tolist()
        self._first += len(part)


def in_pool(pool: AnyPool) -> dict[str, list[int]]:
    """Return the numbers of the strands of a whole ``pool.Pool`` that each primer nearly occurs in."""
    watch = Watch(pool.constraints)
    for part in pool.portions():
        watch(part)
    return watch.near_strands
