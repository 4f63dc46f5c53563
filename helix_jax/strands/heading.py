"""A payload -> the header that describes it, for every writer. It imports nothing of the video side."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from helix_jax.config import MixingConfig
from helix_jax.strands import header as headers
from helix_jax.strands import layouts, outer, sections
from helix_jax.strands.layouts import PORTION


def header_of(
    rows: Callable[[int, int], np.ndarray],
    fields: Mapping[str, Any],
    layout: layouts.PacketLayout,
    *,
    constraints: str,
    tables_hash: bytes,
    content_bytes: int,
    mixing: MixingConfig,
    key: bytes,
) -> headers.Header:
    """Make the header of a payload, whose digests are computed in portions.

    Args:
        rows: Function (begin, end) -> payload symbols uint8[end - begin, symbol bytes].
        fields: The other fields of the header. Sections among them get their redundancy from the layout.
        layout: The layout of the payload's symbols.
        constraints: Name of the constraint set.
        tables_hash: First 8 bytes of the hash of its tables.
        content_bytes: Bytes of the content.
        mixing: The mixing that the payload has gone through.
        key: 8 bytes, the pool's id.

    Returns:
        The header.
    """
    about: dict[str, Any] = {**fields, "repairs": layout.repairs}
    digests = digests_of(rows, layout)
    if layout.sections:
        about["sections"] = tuple(
            dataclasses.replace(section, repairs=part.repairs, digest=digest[: sections.DIGEST])
            for section, part, digest in zip(fields["sections"], layout.sections, digests, strict=True)
        )
    return headers.Header(
        **about,
        constraints=constraints,
        tables_hash=tables_hash,
        key=key,
        content_bytes=content_bytes,
        digest=bytes(outer.DIGEST_BYTES) if layout.sections else digests[0],
        sources=layout.sources,
        symbol_bytes=layout.symbol_bytes,
        index_bits=layout.index_bits,
        check_bits=layout.check_bits,
        mixing=mixing,
    )


def digests_of(rows: Callable[[int, int], np.ndarray], layout: layouts.PacketLayout) -> list[bytes]:
    """Return ``outer.payload_digest`` of each part of a payload, of which PORTION rows are in memory at once."""
    digests, start = [], 0
    for part in layout.parts:
        digest, end = hashlib.sha256(), start + part.sources
        for begin in range(start, end, PORTION):
            digest.update(np.ascontiguousarray(rows(begin, min(begin + PORTION, end))).data)
        digests.append(digest.digest()[: outer.DIGEST_BYTES])
        start = end
    return digests
