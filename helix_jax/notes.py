"""What a pool knows of the file that went into it: its name, its size and its SHA-256, in a section of kind note.

    SHA-256 (32 bytes) | size | length of the name | name in UTF-8 | what later releases add

The two numbers are written as in ``strands.sections``. A later release may add to a note, but only behind the name, and
in fields of tag, length and value as the header has them; a reader skips the fields that it does not know, which are
all of them today.

A name that comes out of a pool is somebody else's: it is made harmless before anybody sees it (``harmless``).
"""

import hashlib
import io
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helix_jax import contents
from helix_jax.config import CodecConfig
from helix_jax.contents import Content
from helix_jax.errors import DecodeError, HelixError
from helix_jax.strands.sections import HeaderError, Section, numbers, read_numbers
from helix_jax.writer import Received, Station

KIND = "note"
SHARE = 0.02  # of a pool's strands, up to which a note is written without being asked for
LONGEST = 255  # bytes of a name, as file systems have it
DIGEST = 32  # bytes of SHA-256


@dataclass(frozen=True)
class Note:
    """What a pool knows of a file.

    Raises HelixError for values that do not fit.

    Attributes:
        name: Its name without folders, harmless; "" where it has none.
        size: Its size in bytes.
        sha256: The SHA-256 of its bytes.
    """

    name: str
    size: int
    sha256: bytes

    def __post_init__(self):
        if self.name != harmless(self.name) or len(self.name.encode()) > LONGEST:
            raise HelixError(f"note: {self.name!r} is no file name of at most {LONGEST} bytes: give another one")
        if not 0 <= self.size < 1 << 56 or len(self.sha256) != DIGEST:
            raise HelixError(f"note: a file of {self.size} bytes with a digest of {len(self.sha256)} bytes")

    @classmethod
    def of(cls, file: io.BufferedIOBase, name: str) -> "Note":
        """Return the note of an open file that can be rewound; of a path as its name the last part counts."""
        return cls(fitted(name), file.seek(0, os.SEEK_END), sha256(file))

    def to_bytes(self) -> bytes:
        """Return the content of its section."""
        name = self.name.encode()
        return self.sha256 + numbers(self.size, len(name)) + name

    @classmethod
    def from_bytes(cls, data: bytes) -> "Note":
        """Invert ``to_bytes``; what a later release added is skipped. Raises DecodeError for bytes that are no note."""
        try:
            (size, length), rest = read_numbers(data[DIGEST:], 2)
            name = rest[:length].decode()
        except (HeaderError, UnicodeDecodeError) as error:
            raise DecodeError(f"the pool's note makes no sense ({error}): forged?") from error
        if len(rest) < length or length > LONGEST:
            raise DecodeError(f"the pool's note has a name of {length} bytes in {len(rest)}: forged?")
        return cls(harmless(name), size, data[:DIGEST])

    @property
    def figures(self) -> dict[str, Any]:
        """What the commands show of it."""
        return {"name": self.name, "size": self.size, "sha256": self.sha256.hex()}


def of_path(path: str | os.PathLike, name: str) -> Note:
    """Return the note of a regular file, which the user calls ``name``."""
    with open(path, "rb") as file:
        return Note.of(file, name)


def harmless(name: str) -> str:
    """Return what may be used and shown of a name from a pool, "" where nothing is left.

    Folders before it go, and so do ".." and what is not printed: control characters, line breaks, marks that turn the
    direction of text, and what is no character at all.
    """
    last = name.replace("\\", "/").rpartition("/")[2]
    printed = "".join(letter for letter in last if letter.isprintable()).strip()
    return "" if not printed.strip(".") else printed


def fitted(path: str) -> str:
    """Return the name of a file as a note states it: harmless, and of at most LONGEST bytes, suffix included."""
    name = harmless(path)
    data, suffix = name.encode(), Path(name).suffix.encode()[-16:]
    if len(data) > LONGEST:
        data = data[: LONGEST - len(suffix)] + suffix
    return harmless(data.decode(errors="ignore"))


def sha256(file: io.BufferedIOBase) -> bytes:
    """Return the SHA-256 of an open file from its start."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").digest()  # pyrefly: ignore [bad-argument-type]


# ---- writing ---------------------------------------------------------------------------------------------------


def content(note: Note) -> Content:
    """Return the note as a content, which is as well protected as its pool."""
    return Content(KIND, note.to_bytes())


def worth(config: CodecConfig, without: float, within: float) -> bool:
    """Return whether a pool gets its note.

    Args:
        config: The configuration, whose ``note`` may settle it.
        without: What the pool takes without the note, in nucleotides or time units.
        within: What it takes with the note.
    """
    if config.note is not None:
        return config.note
    return within < math.inf and within - without <= SHARE * within


def alone(note: Content, fields: Mapping[str, Any], station: Station) -> float:
    """Return what the note of a clip takes beside a picture that is not known yet, in nucleotides or time units.

    ``fields`` is what the header says of the clip.
    """
    picture, own = (Section.of("av1", 0), None), (note.section, note.redundancy)
    without, within = (
        station.cost(contents.plan(station, every, fields, "av1")) for every in ([picture], [picture, own])
    )
    return within - without


# ---- reading ---------------------------------------------------------------------------------------------------


def received(pool: Received) -> Note | None:
    """Return the note of a pool, or None where it has none or has lost it.

    Raises DecodeError for one that makes no sense.
    """
    part = contents.part(pool, KIND)
    return None if part is None or part.data is None else Note.from_bytes(part.data)


def checked(parts: Iterator[bytes], note: Note | None) -> Iterator[bytes]:
    """Yield the bytes of a file, and raise DecodeError at the end where they are not those of its note."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
        yield part
    if note is not None and digest.digest() != note.sha256:
        raise DecodeError(
            f"the bytes have the SHA-256 {digest.hexdigest()}, and the pool's note says {note.sha256.hex()}: nothing "
            "is returned"
        )
