"""The bits of one strand <-> its bases: the part of the bases writer that can be exchanged.

``Constrained`` is ours, TK-SCONE. Header, packets, outer code and files stay the same with any other ``StrandCoder``;
``eval.report.writers`` has two, with which the literature writes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8, UInt32

from helix_jax import parallel
from helix_jax.tk_scone import coder
from helix_jax.tk_scone.constraints import Constraints, to_bases
from helix_jax.tk_scone.tables import Tables

BATCH = 16384  # strands per call of the constrained coder: one compilation serves pools of any size

Step = Callable[[int], None]


@runtime_checkable
class StrandCoder(Protocol):
    """Writes K bits as L bases, and reads them back.

    Bit 0 is the most significant bit of word 0; the bits of the last word after K are zero.
    """

    @property
    def name(self) -> str:
        """The name that the header states, 1 to 16 printable ASCII characters."""
        ...

    @property
    def digest(self) -> bytes:
        """At least 8 bytes that change whenever the same words give other bases."""
        ...

    @property
    def bits(self) -> int:
        """K, the bits that every strand carries."""
        ...

    @property
    def length(self) -> int:
        """L, the bases of a strand without primers."""
        ...

    @property
    def constraints(self) -> Constraints:
        """What the strands are meant to obey, with the primers around them."""
        ...

    def write(self, words: UInt32[np.ndarray, "n W"], progress: Step | None = None) -> UInt8[np.ndarray, "n L"]:
        """Write words as strands without primers; ``progress`` is called with how many more are done."""
        ...

    def read(self, bases: UInt8[np.ndarray, "n L"]) -> tuple[UInt32[np.ndarray, "n W"], Bool[np.ndarray, " n"]]:
        """Read strands without primers: their words, and the mask of the strands that ``write`` can have written."""
        ...


def molecules(
    coder: StrandCoder, words: UInt32[np.ndarray, "n W"], progress: Step | None = None
) -> UInt8[np.ndarray, "n P"]:
    """Write words as strands with the primers around them."""
    bases, primers = coder.write(words, progress), (coder.constraints.left, coder.constraints.right)
    left, right = (np.tile(to_bases(primer, "primer").astype(np.uint8), (len(bases), 1)) for primer in primers)
    return np.concatenate([left, bases, right], axis=1)


@dataclass(frozen=True, eq=False)
class Constrained:
    """TK-SCONE: the range coder driven by the automaton of a constraint set (``tk_scone.coder``).

    Attributes:
        constraints: The set.
        table: Its tables for one length of strands.
    """

    constraints: Constraints
    table: Tables

    @property
    def name(self) -> str:
        """The name of the set."""
        return self.constraints.name

    @property
    def digest(self) -> bytes:
        """The hash of the tables."""
        return self.table.digest

    @property
    def bits(self) -> int:
        """K, proven for every payload."""
        return self.table.bits

    @property
    def length(self) -> int:
        """Bases of a strand without primers."""
        return self.table.length

    def write(self, words: UInt32[np.ndarray, "n W"], progress: Step | None = None) -> UInt8[np.ndarray, "n L"]:
        """Write words as strands that obey the set."""
        arrays, shape = coder.on_device(self.table)
        return parallel.map_batches(coder.write, arrays, words, batch=BATCH, progress=progress, shape=shape)

    def read(self, bases: UInt8[np.ndarray, "n L"]) -> tuple[UInt32[np.ndarray, "n W"], Bool[np.ndarray, " n"]]:
        """Read strands; those that break the set are not valid."""
        arrays, shape = coder.on_device(self.table)
        return parallel.map_batches(coder.read, arrays, np.ascontiguousarray(bases), batch=BATCH, shape=shape)
