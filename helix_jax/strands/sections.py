"""Sections of a pool of format 2, and the bytes that describe them in its header.

A pool of format 2 is a header and sections. Each section has a kind, a length, a digest and a redundancy of its own,
and fills whole source symbols: it is a part of the payload (``packets.Part``) with its own blocks of the outer code.

The header names its contents in fields that follow one another: tag (1 byte), length (a number), value. Numbers are
written in 7 bits a byte, the low ones first, with the highest bit set in all bytes but the last (LEB128). Room is left
for later releases by two rules: a reader skips a field whose tag is 128 or more if it does not know it, and refuses any
other unknown one; and it skips a section of an unknown kind, whose packets take part in the index all the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from helix_jax.errors import HelixError
from helix_jax.strands.packets import Part

KINDS = ("tokens", "update", "av1", "preview", "sound", "file", "note")  # the number in a header is the index + 1
DIGEST = 8  # bytes
MOST = 1 << 56  # the greatest number of a field
CONSTRAINTS, VIDEO, TOKENS, SECTION, END = 1, 2, 3, 4, 0  # tags
OPTIONAL = MEASURED = 128  # tags from here on may be skipped


class HeaderError(HelixError):
    """A header that cannot be written or read; the message names the field."""


@dataclass(frozen=True)
class Section:
    """One section of a pool.

    Raises HeaderError for a value that does not fit its field.

    Attributes:
        number: Number of its kind, 1 to 255. KINDS has the names of those that this release knows.
        size: Bytes of its content, which is filled up to whole symbols with zeros.
        repairs: Repair packets of each of its source blocks.
        digest: First 8 bytes of the SHA-256 of its source symbols, as the packets hold them.
        details: What the kind says of itself: for av1 and preview, the number of pictures.
    """

    number: int
    size: int
    repairs: int = 0
    digest: bytes = bytes(DIGEST)
    details: bytes = b""

    def __post_init__(self):
        if not 1 <= self.number <= 255:
            raise HeaderError(f"header: section of kind {self.number}, which is not 1 to 255")
        if not 0 <= self.size < MOST or not 0 <= self.repairs < 1 << 24 or len(self.digest) != DIGEST:
            raise HeaderError(f"header: section of {self.size} bytes with {self.repairs} repair packets a block")

    @classmethod
    def of(cls, kind: str, size: int, details: bytes = b"") -> "Section":
        """Return a section of a known kind, whose redundancy and digest are not known yet."""
        return cls(KINDS.index(kind) + 1, size, details=details)

    @property
    def kind(self) -> str:
        """The name of its kind: one of KINDS, or for example "unknown 99"."""
        return KINDS[self.number - 1] if self.number <= len(KINDS) else f"unknown {self.number}"

    def part(self, symbol_bytes: int) -> Part:
        """Return its part of a payload of symbols of that many bytes."""
        return Part(max(1, -(-self.size // symbol_bytes)), self.repairs)

    def to_bytes(self) -> bytes:
        """Return the value of its field."""
        return bytes([self.number]) + numbers(self.size, self.repairs) + self.digest + self.details

    @classmethod
    def from_bytes(cls, value: bytes) -> "Section":
        """Invert ``to_bytes``. Raises HeaderError for a value that is cut short or makes no sense."""
        if not value:
            raise HeaderError("header: an empty section field")
        (size, repairs), rest = read_numbers(value[1:], 2)
        if len(rest) < DIGEST:
            raise HeaderError("header: a section field is cut short")
        return cls(value[0], size, repairs, rest[:DIGEST], rest[DIGEST:])


def field(tag: int, value: bytes) -> bytes:
    """Return a field: its tag, the length of its value, and the value."""
    return bytes([tag]) + numbers(len(value)) + value


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (tag, value) of each field up to END. Raises HeaderError where one is cut short."""
    while data and data[0] != END:
        tag = data[0]
        (length,), data = read_numbers(data[1:], 1)
        if length > len(data):
            raise HeaderError(f"header: field {tag} of {length} bytes is cut short")
        yield tag, data[:length]
        data = data[length:]


def numbers(*values: int) -> bytes:
    """Return whole numbers >= 0 as bytes, the low 7 bits first."""
    out = bytearray()
    for value in values:
        while value >= 128:
            out.append(value & 127 | 128)
            value >>= 7
        out.append(value)
    return bytes(out)


def read_numbers(data: bytes, count: int) -> tuple[list[int], bytes]:
    """Read ``count`` numbers, and return them and the rest of the bytes.

    Raises HeaderError where one is cut short, is MOST or more, or is longer than it must be.
    """
    values, position = [], 0
    for _ in range(count):
        value = shift = 0
        while True:
            if position == len(data):
                raise HeaderError("header: a number is cut short")
            byte = data[position]
            value |= (byte & 127) << shift
            position, shift = position + 1, shift + 7
            if byte < 128:
                break
            if shift > 49:
                raise HeaderError("header: a number is too large")
        if byte == 0 and shift > 7:
            raise HeaderError("header: a number is longer than it must be")
        values.append(value)
    return values, data[position:]
