"""Sections of a pool of format 2, and the bytes that describe them in its header.

A pool of format 2 is a header and sections. Each section has a kind, a length, a digest and a redundancy of its own,
and fills whole source symbols: it is a part of the payload (``layouts.Part``) with its own blocks of the outer code.

The header names its contents in fields that follow one another: tag (1 byte), length (a number), value. Numbers are
written in 7 bits a byte, the low ones first, with the highest bit set in all bytes but the last (LEB128). Room is left
for later releases by two rules: a reader skips a field whose tag is 128 or more if it does not know it, and refuses any
other unknown one; and it skips a section of an unknown kind, whose packets take part in the index all the same.
"""

import struct
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from helix_jax.config import MODES, MixingConfig
from helix_jax.errors import HelixError
from helix_jax.strands.layouts import Part

KINDS = ("tokens", "update", "av1", "preview", "sound", "file", "note")  # the number in a header is the index + 1
DIGEST = 8  # bytes
MOST = 1 << 56  # the greatest number of a field
CONSTRAINTS, VIDEO, TOKENS, SECTION, END = 1, 2, 3, 4, 0  # tags
OPTIONAL = MEASURED = 128  # tags from here on may be skipped
COLOURS = (1, 1, 1, 0)  # primaries, transfer function and matrix of BT.709 (ITU-T H.273), limited range
_START = struct.Struct(">4BH8s8s")  # what precedes the fields
_TOKENS = struct.Struct(">3B8s6s")  # mode digits update | model_hash prior_hash

if typing.TYPE_CHECKING:
    from helix_jax.strands import header


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


def to_bytes(head: "header.Header") -> bytes:
    """Return a header of format 2 as bytes, without the zeros and the CRC at its end."""
    start = _START.pack(
        *(2, switches_of(head.mixing), head.index_bits, head.check_bits, head.symbol_bytes),
        *(head.tables_hash, head.key),
    )
    parts = [start, field(CONSTRAINTS, head.constraints.encode("ascii"))]
    if head.kind == "video":
        fps, aspect = Fraction(head.fps), head.aspect
        clip = [head.frames, head.height, head.width, fps.numerator, fps.denominator]
        if (aspect, head.colours) != (1, COLOURS):
            clip += [aspect.numerator, aspect.denominator, *head.colours]
        parts.append(field(VIDEO, numbers(*clip)))
    if head.digits:
        codes = MODES.index(head.mode), head.digits, head.update
        parts.append(field(TOKENS, _TOKENS.pack(*codes, head.model_hash, head.prior_hash)))
    if head.measured:
        parts.append(field(MEASURED, numbers(*head.measured)))
    return b"".join([*parts, *(field(SECTION, section.to_bytes()) for section in head.sections)])


def from_bytes(data: bytes) -> dict[str, Any]:
    """Return the fields of a ``header.Header`` of format 2, from its bytes without the CRC.

    Raises HeaderError for what makes no sense, and for what this release does not know and must.
    """
    _, switches, index_bits, check_bits, symbol_bytes, tables_hash, key = _START.unpack_from(data)
    if switches > 7 or not symbol_bytes:
        raise HeaderError(f"header: mixing {switches} or symbols of {symbol_bytes} bytes make no sense")
    found, names = [], []
    values: dict[str, Any] = {"kind": "bytes"}
    for tag, value in fields(data[_START.size :]):
        if tag == CONSTRAINTS:
            names.append(value.decode("ascii", "replace"))
        elif tag == VIDEO:
            values |= _video_of(value)
        elif tag == TOKENS:
            values |= _tokens_of(value)
        elif tag == SECTION:
            found.append(Section.from_bytes(value))
        elif tag == MEASURED:
            values["measured"] = tuple(read_numbers(value, 2)[0])
        elif tag < OPTIONAL:
            raise HeaderError(f"header: field {tag} is unknown: use a newer release of helix_jax")
    if not found or len(names) != 1:
        raise HeaderError(f"header: {len(found)} sections and {len(names)} constraint sets")
    return values | {
        "constraints": names[0],
        "tables_hash": tables_hash,
        "key": key,
        "content_bytes": sum(section.size for section in found),
        "digest": bytes(16),
        "sources": sum(section.part(symbol_bytes).sources for section in found),
        "symbol_bytes": symbol_bytes,
        "index_bits": index_bits,
        "check_bits": check_bits,
        "repairs": 0,
        "mixing": mixing_of(switches),
        "sections": tuple(found),
    }


def switches_of(mixing: MixingConfig) -> int:
    """Return the switches of the mixing as bits."""
    return mixing.interleave | mixing.kronecker << 1 | mixing.offset << 2


def mixing_of(switches: int) -> MixingConfig:
    """Invert ``switches_of``."""
    return MixingConfig(bool(switches & 1), bool(switches & 2), bool(switches & 4))


def _video_of(value):
    """Return the fields of the header that describe a clip. What later releases add behind them is skipped."""
    (frames, height, width, numerator, denominator), rest = read_numbers(value, 5)
    if not denominator:
        raise HeaderError(f"header: fps /{denominator} is unknown")
    fps = Fraction(numerator, denominator)
    fields: dict[str, Any] = {"kind": "video", "frames": frames, "height": height, "width": width, "fps": fps}
    if rest:
        (above, below, *colours), _ = read_numbers(rest, 6)
        if not below:
            raise HeaderError(f"header: pixel aspect /{below} is unknown")
        fields |= {"aspect": Fraction(above, below), "colours": tuple(colours)}
    return fields


def _tokens_of(value):
    """Return the fields of the header that describe tokens."""
    if len(value) < _TOKENS.size:
        raise HeaderError("header: the field of the tokens is cut short")
    mode, digits, update, model_hash, prior_hash = _TOKENS.unpack_from(value)
    if mode >= len(MODES):
        raise HeaderError(f"header: mode {mode} is unknown")
    return {
        "mode": MODES[mode], "digits": digits, "update": update, "model_hash": model_hash, "prior_hash": prior_hash,
    }  # fmt: skip


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
