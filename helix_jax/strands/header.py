"""Header: what a decoder must know of a pool <-> strands of the pool itself.

Header strands have a bootstrap layout that depends on the bits K of a strand alone, and one fixed check key, so that
they are found before anything is known of the pool:

    pool tag 16 | symbol index 8 | chunk, whole bytes | check 32 | zeros

The header's bytes are one RaptorQ block of chunks with three times as many repair chunks, at least 16 packets in all
and at most 255. So 7 in 10 of them may be lost (5 in 10 where strands have fewer than 72 bits). The check lets a
garbled or foreign strand through with probability 2**-32, and a CRC-32 in the last 4 bytes covers the whole header.

There are two formats. Format 1 has 112 bytes and one content. Format 2 has sections (``strands.sections``), and takes
112 bytes or more, in steps of 56; a reader tries the lengths, of which the CRC picks one:

    2 | mixing | index bits | check bits | bytes of a symbol (2) | tables hash (8) | key (8) | fields | zeros | CRC

Every release reads all earlier formats.
"""

import hashlib
import struct
import zlib
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, UInt32

from helix_jax.config import MODES, MixingConfig
from helix_jax.strands import outer, raptor, sections
from helix_jax.strands.layouts import HEADER_BYTES, PacketLayout
from helix_jax.strands.outer import Buffer
from helix_jax.strands.packets import pack_fields, unpack_fields
from helix_jax.strands.sections import COLOURS, HeaderError, Section

FORMATS = (1, 2)
SIZE = HEADER_BYTES  # bytes of a header of format 1, CRC included
SIZES = range(SIZE, 2801, SIZE // 2)  # of one of format 2
SHORTEST = 64  # bits of the shortest strand that can carry one byte of the header
_KINDS = ("bytes", "video")
_KEY = b"helixjax"  # check key of every header strand
_TAG_BITS, _SYMBOL_BITS, _CHECK_BITS = 16, 8, 32
MOST_PACKETS = 255  # header strands of a pool
USUAL_NAME = 8  # characters of the name of a constraint set, for which a plan leaves room
_CRC = struct.Struct(">I")
# version kind mode digits mixing index_bits check_bits symbol_bytes | constraints tables_hash key content_bytes digest
# | sources repairs | frames height width fps (2) | model_hash prior_hash update; the last 4 bytes are the CRC-32
_FORMAT = struct.Struct(">7BH16s8s8sQ16s7I8s6sB")


@dataclass(frozen=True)
class Header:
    """Everything that a decoder needs besides the strands and the model.

    Raises HeaderError for a value that does not fit its field or makes no sense.

    Attributes:
        kind: 'bytes' or 'video'.
        constraints: Name of the constraint set, 1 to 16 ASCII characters.
        tables_hash: First 8 bytes of the hash of its coder tables.
        key: 8 bytes, the pool's id.
        content_bytes: Bytes of the content, at most sources * symbol_bytes; the payload of the outer code is filled up
            to whole symbols.
        digest: 16 bytes, ``outer.payload_digest`` of that payload.
        sources: Source packets over all blocks.
        symbol_bytes: As in ``layouts.PacketLayout``.
        index_bits: As in ``layouts.PacketLayout``.
        check_bits: As in ``layouts.PacketLayout``.
        repairs: As in ``layouts.PacketLayout``.
        mixing: The switches of the mixing.
        mode: The coding of tokens: 'raw', 'context' or 'prior'.
        frames: Number of frames. This and the following fields are for video only, and zero otherwise.
        height: Height in pixels.
        width: Width in pixels.
        fps: Frames per second, exact.
        digits: Base-4 digits of a token.
        model_hash: First 8 bytes of the tokenizer's digest.
        prior_hash: First 6 bytes of the prior's digest; zeros in mode raw.
        update: Code of the decoder's update in the last packets (``tokenizer.update``); 0 without an update.
        sections: The sections of format 2, in the order of the payload; empty in format 1. With them ``digest`` is
            zeros and ``repairs`` 0, as each section has its own.
        aspect: Width of a pixel over its height; format 2 only, as is the next field.
        colours: Primaries, transfer function and matrix (code points of ITU-T H.273), and 1 for full range.
        measured: PSNR in 0.01 dB of AV1 and of tokens on the first seconds, where the writer compared them; else ().
    """

    kind: str
    constraints: str
    tables_hash: bytes
    key: bytes
    content_bytes: int
    digest: bytes
    sources: int
    symbol_bytes: int
    index_bits: int
    check_bits: int
    repairs: int
    mixing: MixingConfig
    mode: str = "raw"
    frames: int = 0
    height: int = 0
    width: int = 0
    fps: Fraction = Fraction(0)
    digits: int = 0
    model_hash: bytes = bytes(8)
    prior_hash: bytes = bytes(6)
    update: int = 0
    sections: tuple[Section, ...] = ()
    aspect: Fraction = Fraction(1)
    colours: tuple[int, int, int, int] = COLOURS
    measured: tuple[int, ...] = ()

    def __post_init__(self):
        if self.kind not in _KINDS:
            raise HeaderError(f"header: kind {self.kind!r} is not one of {', '.join(_KINDS)}")
        if self.mode not in MODES:
            raise HeaderError(f"header: mode {self.mode!r} is not one of {', '.join(MODES)}")
        name = self.constraints
        if not (1 <= len(name) <= 16 and name.isascii() and name.isprintable() and name == name.strip()):
            raise HeaderError(f"header: constraint set name {name!r} is not 1 to 16 printable ASCII characters")
        for field, size in (("tables_hash", 8), ("key", 8), ("digest", 16), ("model_hash", 8), ("prior_hash", 6)):
            value = getattr(self, field)
            if len(value) != size:
                raise HeaderError(f"header: {field} {value!r} is not {size} bytes")
        if self.mode == "raw" and any(self.prior_hash):
            raise HeaderError(f"header: prior_hash {self.prior_hash.hex()} in mode raw, which has no use for a prior")
        video = self.kind == "video"
        for field, least, bits in (
            ("content_bytes", 0, 64),
            ("sources", 1, 32),
            ("symbol_bytes", 1, 16),
            ("index_bits", 1, 8),
            ("check_bits", 1, 8),
            ("repairs", 0, 32),
            ("frames", video, 32),
            ("height", video, 32),
            ("width", video, 32),
            ("digits", video and not self.sections, 8),
            ("update", 0, 8),
        ):
            if not least <= getattr(self, field) < 1 << bits:
                raise HeaderError(f"header: {field} {getattr(self, field)} is not {int(least)} to 2^{bits} - 1")
        if self.update and not video:
            raise HeaderError(f"header: update {self.update} in a pool of bytes, which has no decoder")
        fps = Fraction(self.fps)
        if fps < 0 or (video and fps == 0) or max(fps.numerator, fps.denominator) >= 1 << 32:
            raise HeaderError(f"header: {self.fps} frames per second is not a positive fraction of 32-bit numbers")
        if self.content_bytes > self.sources * self.symbol_bytes:
            raise HeaderError(
                f"header: {self.content_bytes} bytes of content are more than "
                f"{self.sources} packets of {self.symbol_bytes} bytes hold"
            )
        parts = [section.part(self.symbol_bytes).sources for section in self.sections]
        if parts and (sum(parts) != self.sources or self.repairs or any(self.digest)):
            raise HeaderError(f"header: sections of {sum(parts)} packets in a payload of {self.sources}")
        if not parts and (self.aspect != 1 or self.colours != COLOURS):
            raise HeaderError("header: aspect and colours in format 1, which does not have them")
        if self.aspect <= 0 or max(self.aspect.numerator, self.aspect.denominator) >= 1 << 32:
            raise HeaderError(f"header: a pixel aspect of {self.aspect}")
        if not all(0 <= code <= 255 for code in self.colours[:3]) or self.colours[3] not in (0, 1):
            raise HeaderError(f"header: colours {self.colours}")

    @property
    def format(self) -> int:
        """The format of the pool, one of FORMATS."""
        return 2 if self.sections else 1

    @property
    def codec(self) -> str:
        """What the picture is stored as: "av1" or "tokens", or "" for a pool without a picture."""
        if any(section.kind == "av1" for section in self.sections):
            return "av1"
        return "tokens" if self.kind == "video" else ""

    @property
    def size(self) -> int:
        """Bytes of the header."""
        return len(self.to_bytes())

    def genuine(self) -> list:
        """Return for each part of the payload the test that ``outer.decode`` makes of it."""
        return [outer.matching(digest) for digest in [s.digest for s in self.sections] or [self.digest]]

    def to_bytes(self) -> bytes:
        """Return the header as bytes, big-endian: ``SIZE`` in format 1, one of ``SIZES`` in format 2."""
        if self.sections:
            return _sealed(sections.to_bytes(self))
        fps = Fraction(self.fps)
        fields = _FORMAT.pack(
            *(1, _KINDS.index(self.kind), MODES.index(self.mode), self.digits, sections.switches_of(self.mixing)),
            *(self.index_bits, self.check_bits, self.symbol_bytes),
            *(self.constraints.encode("ascii"), self.tables_hash, self.key, self.content_bytes, self.digest),
            *(self.sources, self.repairs, self.frames, self.height, self.width, fps.numerator, fps.denominator),
            *(self.model_hash, self.prior_hash, self.update),
        )
        return fields + _CRC.pack(zlib.crc32(fields))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Header":
        """Invert ``to_bytes``. Raises HeaderError for damage, a newer format version, or values that make no sense."""
        if not intact(data):
            raise HeaderError("header: damaged, its CRC does not match")
        if data[0] not in FORMATS:
            raise HeaderError(
                f"header: the pool has format version {data[0]}, this helix_jax reads versions 1 and 2; "
                "use the release that wrote it"
            )
        if data[0] == 2:
            return cls(**sections.from_bytes(bytes(data[: -_CRC.size])))
        if len(data) != SIZE:
            raise HeaderError(f"header: {len(data)} bytes, and format 1 has {SIZE}")
        _, kind, mode, digits, switches, index_bits, check_bits, symbol_bytes, *rest = _FORMAT.unpack_from(data)
        name, tables_hash, key, content_bytes, digest, sources, repairs, frames, height, width, *rest = rest
        numerator, denominator, model_hash, prior_hash, update = rest
        if kind >= len(_KINDS) or mode >= len(MODES) or switches > 7 or denominator == 0:
            raise HeaderError(f"header: kind {kind}, mode {mode}, mixing {switches} or fps /{denominator} is unknown")
        return cls(
            kind=_KINDS[kind],
            constraints=name.rstrip(b"\0").decode("ascii", "replace"),
            tables_hash=tables_hash,
            key=key,
            content_bytes=content_bytes,
            digest=digest,
            sources=sources,
            symbol_bytes=symbol_bytes,
            index_bits=index_bits,
            check_bits=check_bits,
            repairs=repairs,
            mixing=sections.mixing_of(switches),
            mode=MODES[mode],
            frames=frames,
            height=height,
            width=width,
            fps=Fraction(numerator, denominator),
            digits=digits,
            model_hash=model_hash,
            prior_hash=prior_hash,
            update=update,
        )

    def layout(self, bits: int) -> PacketLayout:
        """Return the layout of the pool, given the bits K of a strand; its payload is whole symbols.

        Raises HeaderError when the header does not fit strands of that many bits.
        """
        payload_bytes = self.sources * self.symbol_bytes
        parts = tuple(section.part(self.symbol_bytes) for section in self.sections)
        try:
            return PacketLayout(
                bits, self.symbol_bytes, self.index_bits, self.check_bits, payload_bytes, self.repairs, parts, self.size
            )
        except ValueError as error:
            raise HeaderError(f"header: does not fit strands of {bits} bits: {error}") from error


def usable(bits: int) -> bool:
    """Return whether strands of ``bits`` bits can carry a header."""
    return bits >= SHORTEST


def least_strands(bits: int, size: int = SIZE) -> int:
    """Return how many header strands of ``bits`` bits a decoder needs at least for a header of ``size`` bytes."""
    return _bootstrap(bits, size).sources


def header_strands(bits: int, size: int = SIZE) -> int:
    """Return how many strands of ``bits`` bits a header of ``size`` bytes takes."""
    return _bootstrap(bits, size).packets


def header_packets(header: Header, bits: int) -> UInt32[np.ndarray, "m W"]:
    """Return the words of the 16 to 255 header strands of ``bits`` bits.

    Raises HeaderError when a strand is too short (fewer than 64 bits).
    """
    data = header.to_bytes()
    layout = _bootstrap(bits, len(data))
    chunks = outer.encode(layout, data)
    index = _tag(header.key) << _SYMBOL_BITS | np.arange(len(chunks))
    return pack_fields(bits, _TAG_BITS + _SYMBOL_BITS, _CHECK_BITS, _KEY, index, chunks)


def find_headers(words: UInt32[np.ndarray, "n W"], bits: int) -> tuple[tuple[Header, ...], Bool[np.ndarray, " n"]]:
    """Find the headers among the words of strands in any order, of any number of pools.

    Other strands are ignored, and so are headers of which too little is left, and two pools that share a tag (1 in
    65,536).

    Args:
        words: The words of the strands.
        bits: Bits of a strand.

    Returns:
        The distinct headers in the order of their pool tags, and a mask of the strands that have the form of a header
        strand and pass its check.

    Raises:
        HeaderError: When nothing but headers of another format version or without sense is found, and for strands of
            fewer than 64 bits.
    """
    layout = _bootstrap(bits)
    index, chunks, mask = _fields(layout, words)
    tags, symbols, chunks = index[mask] >> _SYMBOL_BITS, index[mask] % (1 << _SYMBOL_BITS), chunks[mask]
    headers, refused = [], None
    for tag in np.unique(tags):
        data = _decode(bits, symbols[tags == tag], chunks[tags == tag])
        if data is None:
            continue
        try:
            header = Header.from_bytes(data)
        except HeaderError as error:
            refused = refused or error
            continue
        if _tag(header.key) == tag:
            headers.append(header)
    if refused is not None and not headers:
        raise refused
    return tuple(headers), mask


def is_header(words: UInt32[np.ndarray, "n W"], bits: int, key: bytes | None = None) -> Bool[np.ndarray, " n"]:
    """Return a mask of the strands that have the form of a header strand and pass its check.

    None of them does where strands of ``bits`` bits are too short for a header. With a ``key``, those of other pools do
    not count (but for 1 in 65,536 pools).
    """
    if not usable(bits):
        return np.zeros(len(words), bool)
    index, _, mask = _fields(_bootstrap(bits), words)
    return mask if key is None else mask & (index >> _SYMBOL_BITS == _tag(key))


def _fields(layout, words):
    """Return (tag and symbol index int64[n], chunks uint8[n, symbol bytes], mask of header strands bool[n])."""
    index, chunks, ok = unpack_fields(
        layout.bits, layout.index_bits, layout.symbol_bytes, layout.check_bits, _KEY, words
    )
    return index, chunks, ok & (index % (1 << _SYMBOL_BITS) < MOST_PACKETS)


def _bootstrap(bits, size=SIZE):
    """Return the layout of header strands as the outer code sees it (tag and symbol index count as its index)."""
    if not usable(bits):
        raise HeaderError(
            f"strands of {bits} bits are too short for a header, which needs {SHORTEST}: use longer strands"
        )
    chunk = min(SIZE, (bits - _TAG_BITS - _SYMBOL_BITS - _CHECK_BITS) // 8)
    sources = -(-size // chunk)
    if sources > MOST_PACKETS // 2:
        raise HeaderError(
            f"a header of {size} bytes takes {sources} strands of {bits} bits, more than {MOST_PACKETS // 2}: use "
            "longer strands, or fewer sections"
        )
    packets = min(MOST_PACKETS, max(16, 4 * sources))
    return PacketLayout(bits, chunk, _TAG_BITS + _SYMBOL_BITS, _CHECK_BITS, size, packets - sources)


def _tag(key):
    return int.from_bytes(hashlib.sha256(key).digest()[:2], "big")


def _decode(bits, index, chunks):
    """Return the header's bytes from the chunks of one pool, or None.

    One wrong chunk among them (2**-32 each) is tolerated by solving from other chunks; the inner CRC decides.
    """
    index, first = np.unique(index, return_index=True)
    chunks = chunks[first]
    for leave_out in range(-1, len(index)):
        keep = np.arange(len(index)) != leave_out
        for size in _possible(bits, int(keep.sum())):
            layout = _bootstrap(bits, size)
            own = keep & (index < layout.packets)
            data = raptor.solve(layout.sources, index[own], chunks[own])[0] if own.sum() >= layout.sources else None
            if data is not None and intact(data.tobytes()[:size]):
                return data.tobytes()[:size]
    return None


def _possible(bits, received):
    """Yield the sizes of headers that so many strands can give, the usual one first."""
    for size in SIZES:
        if -(-size // _bootstrap(bits).symbol_bytes) > min(received, MOST_PACKETS // 2):
            return
        yield size


def intact(data: Buffer) -> bool:
    """Return whether these are the bytes of a header whose CRC matches."""
    return len(data) in SIZES and _CRC.pack(zlib.crc32(data[: -_CRC.size])) == data[-_CRC.size :]


def _sealed(data):
    """Fill up the bytes of a header of format 2 to one of SIZES, with their CRC at the end."""
    size = next((size for size in SIZES if size >= len(data) + _CRC.size), 0)
    if not size:
        raise HeaderError(f"header: its sections take {len(data):,} bytes, and a header has at most {SIZES[-1]:,}")
    data = data.ljust(size - _CRC.size, b"\0")
    return data + _CRC.pack(zlib.crc32(data))
