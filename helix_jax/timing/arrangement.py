"""Which strand of a timing pool holds what, how many strands repair, and which share a code of their levels.

Version 1 of the schemes: the header has strands of its own, which come first; half of them may be lost. Then come the
source strands, and last the repair strands of RaptorQ, a fixed share of them and two more. The strands of the header
are one group of the code of the levels, and every ``group`` of the others are one.

Version 2: up to 255 strands are one Reed-Solomon code, in which each lost strand costs one repair strand. The header
stands in front of the payload in that code (``front``), and so costs no strands of its own. A pool of more strands, or
of sections, has a header in strands of its own, which bear the highest numbers of the index and carry their data in
letters alone, as a group of so few strands could not rely on the code of the levels; more than 255 strands of one block
are RaptorQ, as blocks of 255 would need more repair strands together. The number of repair strands follows
from the scheme's probability ``loss`` that a strand is not read: the pool comes back with probability 1 - FAILURE.
The groups of the code of the levels are of equal size, ``group`` strands at most.
"""

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt8

from helix_jax import keyed
from helix_jax.config import CODED, Survival
from helix_jax.errors import HelixError
from helix_jax.strands import header as headers
from helix_jax.strands import layouts, survival
from helix_jax.timing import paths
from helix_jax.timing.front import front_of, packed_bytes
from helix_jax.timing.scheme import Scheme
from helix_jax.writer import Share

FAILURE = 0.01  # highest probability that more strands are lost than the repair strands of version 2 can replace
HEADER_LOSS = 0.05  # least probability that a strand of letters alone is not read, for which version 2 plans
HEADER_FAILURE = 1e-3  # highest probability that a header in strands of its own is lost
_KEY = b"timing.1"  # the key of the whitening, which makes strands uniform and hides nothing
_AGREED = ("table", "duration", "data", "spacing", "parity", "splitting", "index", "check", "group")


def digest(scheme: Scheme) -> bytes:
    """Return a hash of what the writer and the reader must agree on, which the header states."""
    # what version 1 hashes is the same in every release
    later = ("version", "span", "tags", "shared", "costs") if scheme.version > 1 else ()
    agreed = {field: str(getattr(scheme, field)) for field in _AGREED + later}
    return hashlib.sha256(repr(agreed).encode()).digest()


def symbol_bytes(scheme: Scheme) -> int:
    """Return the number of payload bytes that a strand has room for."""
    return paths.coder(scheme).bits // 8


def plan(
    scheme: Scheme,
    size: int,
    mode: str,
    redundancy: float | int | None,
    multiple: int = 1,
    sections: Sequence[Share] = (),
) -> layouts.PacketLayout:
    """Return the layout of a payload (``writer.Station.plan``).

    Args:
        scheme: The scheme.
        size: Bytes of the payload.
        mode: One of ``coding.modes.MODES``, or "bytes".
        redundancy: Repair strands as a share of the source strands, or None for what the scheme has.
        multiple: The bytes of a packet are a multiple of it.
        sections: The sections of format 2.

    Raises:
        HelixError: The strands are too short, or more than the index of the scheme can number.
    """
    width = symbol_bytes(scheme) // multiple * multiple
    if not width:
        raise HelixError(
            f"scheme {scheme.name}: a strand has room for {symbol_bytes(scheme)} bytes, and whole tokens take "
            f"{multiple}: use a scheme of longer strands"
        )
    if scheme.version == 1:
        if redundancy is None:
            redundancy = scheme.redundancy if mode in ("raw", "bytes") else max(scheme.redundancy, CODED)
        shares = [(bytes_of, _at_least(redundancy, own)) for bytes_of, own in sections]
        parts = tuple(layouts.part_of(*share, width) for share in shares or [(size, redundancy)])
        layout = layouts.wide(width, parts, bool(sections))
    else:
        least = CODED if redundancy is None and mode not in ("raw", "bytes") else 0.0
        wanted = [(bytes_of, _at_least(least, own)) for bytes_of, own in sections or [(size, None)]]
        parts = tuple(_part(scheme, bytes_of, redundancy, own, width, len(wanted)) for bytes_of, own in wanted)
        layout = dataclasses.replace(layouts.wide(width, parts, bool(sections)), reed_solomon=True)
        if not sections:
            layout = _with_front(scheme, layout, size, mode, redundancy, least)
    check_index(scheme, layout, size)
    return numbered(scheme, layout)


def _with_front(scheme, layout, size, mode, redundancy, least):
    """Return the layout with the header in front of the payload, if that fits into one Reed-Solomon code."""
    payload_bytes = size if mode == "bytes" else layout.payload_bytes
    trial = dataclasses.replace(layout, payload_bytes=payload_bytes, header_bytes=packed_bytes(mode == "bytes"))
    bare = front_of(dataclasses.replace(trial, repairs=0))
    if bare is None:
        return layout
    trial = dataclasses.replace(trial, repairs=_repairs(scheme, redundancy, least, bare.layout.sources, 1, 1))
    return layout if front_of(trial) is None else trial


def _part(scheme, size, redundancy, own, width, parts):
    """Return a part of ``size`` bytes of one of ``parts`` with the repair packets of version 2."""
    sources = max(1, -(-size // width))
    blocks = layouts.blocks_of(layouts.Part(sources, 0), width)
    return layouts.Part(sources, _repairs(scheme, redundancy, own, -(-sources // blocks), blocks, parts))


def _repairs(scheme, redundancy, own, sources, blocks, parts):
    """Return the repair packets of a block: what the loss demands unless a share is given, and what a section wants."""
    if isinstance(own, Survival):
        return layouts.repairs_of(own, sources, blocks)
    number = math.ceil(max(redundancy or 0, own or 0) * sources - 1e-9)
    if redundancy is None:
        number = max(number, survival.enough(scheme.loss, FAILURE / blocks / parts, sources))
    return number + layouts.SPARE if number and sources + number > layouts.MOST_EXACT else number


def _at_least(redundancy, own):
    """Return the redundancy of a section: its own, but that of the pool where it has none or a lower one."""
    return own if isinstance(own, Survival) else max(own or 0, redundancy)


def numbered(scheme: Scheme, layout: layouts.PacketLayout) -> layouts.PacketLayout:
    """Return a layout with the index and the check of the frame's letters, as the bits that these are worth."""
    index_bits = (3**scheme.index - 1).bit_length()
    check_bits = min(32, math.floor(scheme.check * math.log2(3)))
    bits = index_bits + 8 * layout.symbol_bytes + check_bits
    return dataclasses.replace(layout, bits=bits, index_bits=index_bits, check_bits=check_bits)


def check_index(scheme: Scheme, layout: layouts.PacketLayout, size: int) -> None:
    """Raise HelixError where the index cannot number the strands of a pool of so many bytes."""
    strands, most = count(scheme, layout), 3**scheme.index
    if strands > most:
        raise HelixError(
            f"{size} bytes need {strands} strands, more than {most}, which {scheme.index} index letters of the scheme "
            "can number: use a scheme with a longer index"
        )


def count(scheme: Scheme, layout: layouts.PacketLayout) -> int:
    """Return the number of strands of a pool, header included."""
    front = front_of(layout)
    return front.layout.packets if front else header_layout(scheme, layout.header_bytes).packets + layout.packets


def header_layout(scheme: Scheme, size: int = headers.SIZE) -> layouts.PacketLayout:
    """Return the layout of the strands that a header of ``size`` bytes has of its own.

    They are twice as many as it takes in version 1, and follow from the loss in version 2; they have no tags.
    """
    width = symbol_bytes(scheme) if scheme.version == 1 else paths.plain_coder(scheme).bits // 8
    sources = -(-size // width)
    loss = max(scheme.loss, HEADER_LOSS)
    repairs = sources if scheme.version == 1 else survival.enough(loss, HEADER_FAILURE, sources)
    return layouts.PacketLayout(8 * width + 33, width, 32, 1, size, repairs, reed_solomon=scheme.version > 1)


def header_numbers(scheme: Scheme, strands: int) -> Int64[np.ndarray, " strands"]:
    """Return the numbers in the index of the strands of a header that has so many of its own."""
    position = np.arange(strands)
    return position if scheme.version == 1 else 3**scheme.index - 1 - position


def groups(scheme: Scheme, strands: int) -> list[tuple[int, int]]:
    """Return (first strand, number of strands) of each group of so many strands that share a code of their levels."""
    if scheme.version == 1:
        return [(start, min(scheme.group, strands - start)) for start in range(0, strands, scheme.group)]
    number = -(-strands // scheme.group)
    edges = [strands * n // number for n in range(number + 1)]
    return [(start, end - start) for start, end in itertools.pairwise(edges)]


def front_layout(scheme: Scheme, head: headers.Header) -> layouts.PacketLayout | None:
    """Return the layout that a header in front of the payload states; None where it makes no sense."""
    plain, width = head.kind == "bytes", head.symbol_bytes
    if width > symbol_bytes(scheme) or head.sections or head.sources + head.repairs > layouts.MOST_EXACT:
        return None
    size = head.content_bytes if plain else head.sources * width
    if head.sources != max(1, -(-size // width)):
        return None
    layout = layouts.wide(width, (layouts.Part(head.sources, head.repairs),), False)
    layout = dataclasses.replace(layout, reed_solomon=True, header_bytes=packed_bytes(plain), payload_bytes=size)
    return numbered(scheme, layout)


def whitened(symbols: UInt8[np.ndarray, "n s"], index: Int64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n s"]:
    """Xor the symbols of the strands with these numbers with a fixed stream; this is its own inverse."""
    words = -(-symbols.shape[1] // 8)
    stream = keyed.stream(_KEY, (index[:, None] * words + np.arange(words)).reshape(-1))
    return symbols ^ stream.astype(">u8").view(np.uint8).reshape(len(symbols), 8 * words)[:, : symbols.shape[1]]
