"""Contents of a pool <-> the source symbols of its sections (format 2; ``strands.sections`` has the format).

Each content begins with a symbol of its own, and zeros fill up its last one. All symbols are then mixed together, which
makes them uniform; tokens in mode raw have been interleaved before.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from helix_jax.config import MixingConfig, Survival
from helix_jax.strands import header as headers
from helix_jax.strands.layouts import PacketLayout
from helix_jax.strands.sections import Section
from helix_jax.tk_scone import mixing
from helix_jax.writer import Received, Share, Station


@dataclass(frozen=True, eq=False)
class Content:
    """What becomes a section.

    Attributes:
        kind: One of ``sections.KINDS``.
        data: Its bytes.
        redundancy: As for a pool; None stands for that of the whole pool.
        details: What the header says of it besides.
    """

    kind: str
    data: bytes
    redundancy: float | int | Survival | None = None
    details: bytes = b""

    @property
    def section(self) -> Section:
        """The section, without the redundancy in packets and the digest."""
        return Section.of(self.kind, len(self.data), self.details)

    @property
    def share(self) -> Share:
        """What a station plans with."""
        return len(self.data), self.redundancy


def plan(
    station: Station,
    contents: Sequence[tuple[Section, float | int | Survival | None]],
    fields: Mapping[str, Any],
    mode: str,
    multiple: int = 1,
) -> PacketLayout:
    """Lay sections out in packets, with a header that has room to describe them.

    Args:
        station: What will write the pool.
        contents: The sections with their redundancy, in the order of the payload.
        fields: What the header says of the content besides.
        mode: As for ``Station.plan``.
        multiple: As for ``Station.plan``.

    Returns:
        The layout.
    """
    sizes = [(section.size, redundancy) for section, redundancy in contents]
    layout = station.plan(sum(size for size, _ in sizes), mode, multiple, sections=sizes)
    described = tuple(
        dataclasses.replace(section, repairs=part.repairs)
        for (section, _), part in zip(contents, layout.sections, strict=True)
    )
    about: dict[str, Any] = {**fields, "sections": described}
    head = headers.Header(
        **about,
        constraints="x" * headers.USUAL_NAME,
        tables_hash=bytes(8),
        key=bytes(8),
        content_bytes=sum(section.size for section in described),
        digest=bytes(16),
        sources=layout.sources,
        symbol_bytes=layout.symbol_bytes,
        index_bits=layout.index_bits,
        check_bits=layout.check_bits,
        repairs=0,
        mixing=MixingConfig(),
    )
    return dataclasses.replace(layout, header_bytes=head.size)


def symbols(
    contents: Sequence[Content], layout: PacketLayout, key: bytes, config: MixingConfig
) -> UInt8[np.ndarray, "sources symbol_bytes"]:
    """Return the source symbols of all contents, mixed."""
    rows = [
        content.data.ljust(part.sources * layout.symbol_bytes, b"\0")
        for content, part in zip(contents, layout.sections, strict=True)
    ]
    digits = mixing.from_bytes(np.frombuffer(b"".join(rows), np.uint8).reshape(-1, layout.symbol_bytes))
    return mixing.to_bytes(mixing.mix(digits, key, config))


@dataclass(frozen=True, eq=False)
class Part:
    """A section as far as it came back.

    Attributes:
        section: What the header says of it.
        symbols: The digits of its source symbols, four for each byte.
        lost: Mask of the symbols that are lost, or doubtful.
        suspect: Whether one of them is doubtful.
        data: Its bytes, or None where one of them is lost or doubtful, or the digest does not match.
    """

    section: Section
    symbols: UInt8[np.ndarray, "n d"]
    lost: Bool[np.ndarray, " n"]
    suspect: bool
    data: bytes | None


def parts(received: Received) -> list[Part]:
    """Return the sections of a pool of format 2, or the one content of a pool of format 1."""
    return [_part(received, number) for number in range(len(places(received.header)))]


def part(received: Received, kind: str) -> Part | None:
    """Return the first section of a kind, or None where there is none."""
    kinds = [section.kind for section, _ in places(received.header)]
    return _part(received, kinds.index(kind)) if kind in kinds else None


def places(head: headers.Header) -> list[tuple[Section, slice]]:
    """Return the sections of a payload, one in format 1, and the source symbols that each one fills."""
    if not head.sections:
        kind = "tokens" if head.kind == "video" else "file"
        return [(Section.of(kind, head.content_bytes), slice(0, head.sources))]
    ends = np.cumsum([0, *(section.part(head.symbol_bytes).sources for section in head.sections)]).tolist()
    return [(section, slice(*ends[number : number + 2])) for number, section in enumerate(head.sections)]


def _part(received, number):
    head, recovered = received.header, received.recovered
    section, rows = places(head)[number]
    digits = mixing.from_bytes(recovered.symbols[rows])
    digits = mixing.unmix(digits, head.key, head.mixing, rows.start)
    suspect = recovered.suspect[rows]
    lost = recovered.lost[rows] | suspect
    whole = recovered.parts_verified[number] and not lost.any()
    data = mixing.to_bytes(digits).tobytes()[: section.size] if whole else None
    return Part(section, digits, lost, bool(suspect.any()), data)


@dataclass(frozen=True, eq=False)
class Beside:
    """A station whose pools hold further contents beside what it is asked to plan: tokens with their sound.

    Attributes:
        station: What will write the pool.
        contents: The further contents.
        first: Kind of the content that is planned, which comes first.
        fields: What the header says of the clip.
    """

    station: Station
    contents: tuple[Content, ...]
    first: str
    fields: Mapping[str, Any]

    @property
    def unit(self) -> str:
        """The unit of ``cost``."""
        return self.station.unit

    def plan(self, size: int, mode: str, multiple: int = 1, sections: Sequence[Share] = ()) -> PacketLayout:
        """Lay out ``size`` bytes as the first section (``Station.plan``)."""
        assert not sections
        further = [(content.section, content.redundancy) for content in self.contents]
        return plan(self.station, [(Section.of(self.first, size), None), *further], self.fields, mode, multiple)

    def cost(self, layout: PacketLayout) -> int:
        """Return what the pool takes (``Station.cost``)."""
        return self.station.cost(layout)

    def draft(self, *args: Any, **kwargs: Any) -> Any:
        """Make the pool ready for writing (``Station.draft``)."""
        return self.station.draft(*args, **kwargs)
