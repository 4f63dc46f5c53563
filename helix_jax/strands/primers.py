"""Are the primers unlike the strands? A primer that nearly occurs inside a strand would bind there in PCR."""

import edlib  # pyrefly: ignore [missing-import]
import numpy as np

BASES = np.frombuffer(b"ACGT", np.uint8)
COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")
NEAR = 0.2  # edits per base of the primer up to which a place counts as alike


def alike(strands, primer):
    """Which strands hold the primer, or its reverse complement, within NEAR edits per base: bool[n].

    strands: uint8[n, L], without the primers. primer: string over ACGT; none of them for an empty one. Alignment by
    edlib.
    """
    if not primer:
        return np.zeros(len(strands), bool)
    words = [primer.upper(), primer.upper().encode().translate(COMPLEMENT)[::-1].decode()]
    edits = int(NEAR * len(primer))
    return np.array(
        [
            any(edlib.align(word, row.tobytes().decode(), mode="HW", k=edits)["editDistance"] >= 0 for word in words)
            for row in BASES[strands]
        ],
        bool,
    )


class Watch:
    """Looks at the strands of a pool as they are written; called with each part, uint8[n, L] with the primers.

    constraints: the pool's. found: of each primer, the numbers of the strands that it nearly occurs in: dict of str ->
    list of int.
    """

    def __init__(self, constraints):
        self.left, self.right, self._first = constraints.left, constraints.right, 0
        self.found = {primer: [] for primer in (self.left, self.right) if primer}

    def __call__(self, part):
        core = part[:, len(self.left) : part.shape[1] - len(self.right)]
        for primer, numbers in self.found.items():
            numbers += (self._first + np.flatnonzero(alike(core, primer))).tolist()
        self._first += len(part)


def in_pool(pool):
    """``Watch.found`` of a whole ``pool.Pool``."""
    watch = Watch(pool.constraints)
    for part in pool.portions():
        watch(part)
    return watch.found
