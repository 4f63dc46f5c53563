"""What a decoder must know besides the strands: forbidden motifs and primers, as options or as a comment in FASTA."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8


@runtime_checkable
class AnyPool(Protocol):
    """A pool that can be written to a file, such as ``pool.Pool`` and ``pool.Draft``.

    (They are not named here because their module needs JAX.)
    """

    @property
    def header(self) -> Any:
        """The header: a ``header.Header``."""
        ...

    @property
    def layout(self) -> Any:
        """How the bits of a strand are shared out: a ``layouts.PacketLayout``."""
        ...

    @property
    def constraints(self) -> Any:
        """The set that the strands obey: a ``constraints.Constraints``."""
        ...

    @property
    def header_strands(self) -> int:
        """How many strands carry the header."""
        ...

    def portions(self) -> Iterator[UInt8[np.ndarray, "n L"]]:
        """Yield the strands with their primers, header strands first."""
        ...

    def numbered(self) -> Iterator[tuple[UInt8[np.ndarray, "n L"], Int64[np.ndarray, " n"]]]:
        """Yield the same with the global index of the packet of each strand, -1 for header strands."""
        ...


@dataclass(frozen=True)
class Written:
    """How strands were written, as far as their letters do not tell.

    All fields are empty for a pool in a named constraint set without primers.

    Attributes:
        motifs: Forbidden words.
        left: The left primer.
        right: The right primer.
        primers_exempt: Whether GC windows leave the primers out.
    """

    motifs: tuple[str, ...] = ()
    left: str = ""
    right: str = ""
    primers_exempt: bool = False

    @classmethod
    def given(cls, motifs: Iterable[str], primers: Sequence[str], primers_exempt: bool) -> "Written | None":
        """Return what the caller gives, or None where that is nothing and the file of the strands may tell.

        Args:
            motifs: Forbidden words.
            primers: The left and the right primer.
            primers_exempt: Whether GC windows leave the primers out.

        Returns:
            The options as one object, or None.
        """
        left, right = primers
        written = cls(tuple(motifs), left, right, primers_exempt)
        return None if written == cls() else written

    def comment(self) -> str:
        """Return the text for the comments of header strands, which is empty where there is nothing to state."""
        fields = (
            ("forbid", ",".join(self.motifs)),
            ("left", self.left),
            ("right", self.right),
            ("windows", "strand" if self.primers_exempt else ""),
        )
        return "".join(f" {name}={value.upper() if name != 'windows' else value}" for name, value in fields if value)

    @classmethod
    def from_comment(cls, text: str) -> "Written":
        """Invert ``comment``; fields that are unknown, and words with letters that are no bases, are ignored."""
        fields = dict(word.split("=", 1) for word in text.split() if "=" in word)
        words = [fields.get("left", ""), fields.get("right", ""), *fields.get("forbid", "").split(",")]
        left, right, *motifs = ("" if set(word.upper()) - set("ACGT") else word for word in words)
        return cls(tuple(filter(None, motifs)), left, right, fields.get("windows") == "strand")

    @property
    def ends(self) -> int:
        """Bases of both primers together."""
        return len(self.left) + len(self.right)
