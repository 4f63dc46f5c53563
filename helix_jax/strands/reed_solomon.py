"""One block of a Reed-Solomon code over GF(256): source symbols <-> repair symbols, as ``raptor`` has them.

A block has at most MOST_EXACT packets, and any of them, as many as it has source symbols, give it back: the code is
maximum-distance separable. This is the only file that calls the library (field 0x11D, generator 2, first root 1).

The roots of a code with more repair symbols include those of one with fewer. So whoever does not know how many repair
symbols there are can fill in missing symbols all the same (``filled``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import reedsolo
from jaxtyping import Integer, UInt8

from helix_jax.strands.layouts import MOST_EXACT


@dataclass(frozen=True)
class ReedSolomon:
    """The code of one block.

    Attributes:
        repairs: Repair symbols of the block.
    """

    repairs: int

    def repair_symbols(
        self, data: UInt8[np.ndarray, "sources width"], repairs: int | np.integer
    ) -> UInt8[np.ndarray, "r width"]:
        """Return the first ``repairs`` repair symbols of the block."""
        if not self.repairs:
            return data[:0]
        coder = reedsolo.RSCodec(self.repairs, nsize=MOST_EXACT)
        coded = [coder.encode(column.tobytes())[len(data) :] for column in data.T]
        return np.frombuffer(b"".join(coded), np.uint8).reshape(-1, self.repairs).T[:repairs]

    def solve(
        self, sources: int, ids: Integer[np.ndarray, " n"], symbols: UInt8[np.ndarray, "n width"]
    ) -> tuple[UInt8[np.ndarray, "{sources} width"] | None, int]:
        """Solve for the source symbols of the block (``raptor.solve``), from the first packets that are enough."""
        if len(ids) < sources:
            return None, 0
        if ids[sources - 1] == sources - 1:
            return symbols[:sources], sources
        rows = np.zeros((sources + self.repairs, symbols.shape[1]), np.uint8)
        rows[ids[:sources]] = symbols[:sources]
        return filled(rows, np.setdiff1d(np.arange(len(rows)), ids[:sources]).tolist())[:sources], sources


def corrected(
    word: UInt8[np.ndarray, " n"], erased: Sequence[int] | Integer[np.ndarray, " e"], repairs: int
) -> UInt8[np.ndarray, " n"] | None:
    """Return a word of a code with so many repair symbols, in which wrong symbols and erased ones are put right.

    The result is None where the errors, twice, and the erased symbols are more than the repair symbols.
    """
    if len(erased) > repairs:
        return None
    try:
        coder = reedsolo.RSCodec(repairs, nsize=MOST_EXACT)
        return np.frombuffer(bytes(coder.decode(word.tobytes(), erase_pos=list(map(int, erased)))[1]), np.uint8)
    except reedsolo.ReedSolomonError:
        return None


def filled(rows: UInt8[np.ndarray, "packets width"], missing: Sequence[int]) -> UInt8[np.ndarray, "packets width"]:
    """Return all packets of a block in which those that ``missing`` numbers are filled in.

    The block must have as many repair symbols at least; how many it has need not be known. Packets that belong to no
    such block give rows that mean nothing. So do packets after the last: as if they were missing, they come out as
    zeros.
    """
    missing = list(missing)
    if not missing:
        return rows
    coder = reedsolo.RSCodec(len(missing), nsize=MOST_EXACT)
    columns = [coder.decode(column.tobytes(), erase_pos=missing, only_erasures=True)[1] for column in rows.T]
    return np.frombuffer(b"".join(columns), np.uint8).reshape(-1, len(rows)).T
