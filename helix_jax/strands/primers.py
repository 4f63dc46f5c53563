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


def in_pool(pool):
    """Of each primer of a ``pool.Pool`` or ``pool.Draft``, the numbers of the strands that it nearly occurs in: dict of
    str -> list of int."""
    left, right = pool.constraints.left, pool.constraints.right
    found, first = {primer: [] for primer in (left, right) if primer}, 0
    for part in pool.portions() if found else ():
        core = part[:, len(left) : part.shape[1] - len(right)]
        for primer, numbers in found.items():
            numbers += (first + np.flatnonzero(alike(core, primer))).tolist()
        first += len(part)
    return found
