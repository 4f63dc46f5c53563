"""Libraries of primer pairs: CSV files in which each pair has a name, and which file of a batch gets which pair."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from helix_jax import files
from helix_jax.errors import HelixError
from helix_jax.strands.primers import reverse_complement

COLUMNS = ("name", "left", "right")  # of each library; further columns are for people
NAMES = 12  # names that a message lists


class LibraryError(HelixError):
    """A library that cannot be used, or a pair that it does not have; the message says what is wrong."""


@dataclass(frozen=True)
class Pair:
    """Two primers of a pool.

    Attributes:
        name: The name of the pair in its library.
        left: The bases before every strand, and the forward primer of a PCR.
        right: The bases after every strand. The reverse primer of a PCR is their reverse complement.
    """

    name: str
    left: str
    right: str

    @property
    def reverse(self) -> str:
        """The reverse primer, as it is ordered."""
        return reverse_complement(self.right)


def read(path: str | os.PathLike) -> dict[str, Pair]:
    """Read a library: a CSV file whose header line names at least COLUMNS.

    Args:
        path: The file; ``-`` is standard input.

    Returns:
        The pairs by their names, in the order of the file.

    Raises:
        LibraryError: The file is no library, or a line of it is wrong; the message names the line.
    """
    name = "standard input" if files.is_standard(path) else str(path)
    with files.opened(path) as source:
        data = source.read()
    try:
        lines = list(
            csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), skipinitialspace=True, strict=True)
        )
    except (UnicodeDecodeError, csv.Error) as error:
        raise LibraryError(f"{name} is no CSV file of primers ({error}): make one with `helix-jax primers`") from error
    if not data.strip():
        raise LibraryError(f"{name} is empty: make a library with `helix-jax primers`")
    if not lines:
        raise LibraryError(f"{name} holds no pairs below its first line, which names the columns {', '.join(COLUMNS)}")
    missing = [column for column in COLUMNS if column not in lines[0]]
    if missing:
        raise LibraryError(
            f"{name}: no column {', '.join(missing)}; the first line must name {', '.join(COLUMNS)}, separated by "
            "commas, as `helix-jax primers` writes it"
        )
    pairs, seen = {}, {}
    for number, line in enumerate(lines, 1):
        pair = _pair(f"{name}, pair {number}", line)
        if pair.name in pairs:
            raise LibraryError(f"{name}: two pairs have the name {pair.name}; give each a name of its own")
        # The other strand of the DNA has the two primers too, in turn.
        for ends in ((pair.left, pair.right), (pair.reverse, reverse_complement(pair.left))):
            if ends in seen:
                raise LibraryError(f"{name}: {seen[ends]} and {pair.name} are the same pair of primers; remove one")
        pairs[pair.name] = pair
        seen[pair.left, pair.right] = pair.name
    return pairs


def _pair(where: str, line: Mapping[str, str | None]) -> Pair:
    """Return the pair of a line. Raises LibraryError for missing names and other letters."""
    name, left, right = ((line[column] or "").strip() for column in COLUMNS)
    if not name:
        raise LibraryError(f"{where}: it has no name; give it one")
    for side, word in (("left", left), ("right", right)):
        if not word:
            raise LibraryError(f"{where} ({name}): the {side} primer is missing; a pair has two")
        if set(word.upper()) - set("ACGT"):
            raise LibraryError(f"{where} ({name}): the {side} primer {word!r} holds letters other than A, C, G, T")
    return Pair(name, left.upper(), right.upper())


def pick(path: str | os.PathLike, name: str) -> Pair:
    """Return one pair of a library. Raises LibraryError as ``read`` does, and for an unknown name, listing the names.

    Args:
        path: The library.
        name: The name of the pair.
    """
    pairs = read(path)
    if name not in pairs:
        listed = ", ".join(list(pairs)[:NAMES]) + (f", ... ({len(pairs)} in all)" if len(pairs) > NAMES else "")
        raise LibraryError(f"{path} has no pair {name!r}; there are {listed}")
    return pairs[name]


def assign(names: Sequence[str], library: Mapping[str, Pair], taken: Mapping[str, Pair]) -> dict[str, Pair]:
    """Give each file a pair of its own.

    A file keeps the pair that it has. The others get those that are free, both in their order, so that hosts that share
    the files find the same pairs, whichever of the files are done when they look.

    Args:
        names: The files.
        library: The pairs by their names.
        taken: The pair of each file that has one, whether it is among the names or not.

    Returns:
        The pair of each of the names.

    Raises:
        LibraryError: The library has too few pairs, or others than the files were written with.
    """
    for name, pair in taken.items():
        if library.get(pair.name) != pair:
            raise LibraryError(
                f"{name} was written with pair {pair.name}, {pair.left} and {pair.right}, which this library does not "
                "have: give the library that was used then, or another --out"
            )
    used = {pair.name for pair in taken.values()}
    waiting = sorted(set(names) - set(taken))
    free = [pair for pair in library.values() if pair.name not in used]
    if len(free) < len(waiting):
        raise LibraryError(
            f"{len(waiting)} files need a pair of primers each, and the library has {len(free)} that are free"
            + (f" ({len(used)} are taken already)" if used else "")
            + ": make a larger library with `helix-jax primers --count`"
        )
    return {name: taken[name] for name in names if name in taken} | dict(zip(waiting, free, strict=False))
