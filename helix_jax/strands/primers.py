"""Are the primers unlike the strands? A primer that nearly occurs inside a strand would bind there in PCR."""

import edlib  # pyrefly: ignore [missing-import]
import numpy as np

BASES = np.frombuffer(b"ACGT", np.uint8)
COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")
NEAR = 0.2  # edits per base of the primer up to which a place counts as alike


def alike(strands, primer):
    """Number of strands that hold the primer, or its reverse complement, within NEAR edits per base.

    strands: uint8[n, L], without the primers. primer: string over ACGT; empty gives 0. Alignment by edlib.
    """
    if not primer:
        return 0
    words = [primer.upper(), primer.upper().encode().translate(COMPLEMENT)[::-1].decode()]
    edits = int(NEAR * len(primer))
    letters = BASES[strands]
    return sum(
        any(edlib.align(word, row.tobytes().decode(), mode="HW", k=edits)["editDistance"] >= 0 for word in words)
        for row in letters
    )


def in_pool(pool):
    """Of each primer of a ``codec.Pool``, the number of strands that it nearly occurs in: dict of str -> int."""
    left, right = pool.constraints.left, pool.constraints.right
    core = pool.strands[:, len(left) : pool.strands.shape[1] - len(right)]
    return {primer: alike(core, primer) for primer in (left, right) if primer}
