"""One block of RaptorQ (RFC 6330): source symbols <-> repair symbols. This is the only file that calls the library.

The library wants symbols of a multiple of 8 bytes. As the code works on each byte column by itself, symbols are padded
with zero columns, which stay zero in repair symbols.
"""

import numpy as np
import raptorq
from jaxtyping import Integer, UInt8


def repair_symbols(data: UInt8[np.ndarray, "sources width"], repairs: int | np.integer) -> UInt8[np.ndarray, "r width"]:
    """Return the first ``repairs`` repair symbols of one block."""
    sources, width = data.shape
    data = np.pad(data, ((0, 0), (0, -width % 8)))
    # pyrefly: ignore[missing-attribute]  (a compiled module without stubs)
    encoder = raptorq.Encoder.with_defaults(data.tobytes(), data.shape[1])
    packets = b"".join(encoder.get_encoded_packets(repairs)[sources:])
    return np.frombuffer(packets, np.uint8).reshape(repairs, 4 + data.shape[1])[:, 4 : 4 + width]


def solve(
    sources: int, ids: Integer[np.ndarray, " n"], symbols: UInt8[np.ndarray, "n width"]
) -> tuple[UInt8[np.ndarray, "{sources} width"] | None, int]:
    """Solve for the source symbols of one block.

    Args:
        sources: Number of source symbols.
        ids: Ids of the packets, in ascending order.
        symbols: Their symbols.

    Returns:
        The source symbols and the number of packets used; (None, 0) when the packets do not determine them.
    """
    if len(ids) < sources:
        return None, 0
    if ids[sources - 1] == sources - 1:
        return symbols[:sources], sources
    width = symbols.shape[1]
    padded = width + -width % 8
    packets = np.zeros((len(ids), 4 + padded), np.uint8)  # block number 0, symbol id in 3 bytes, symbol
    packets[:, 1:4] = ids.astype(">u4")[:, None].view(np.uint8)[:, 1:]
    packets[:, 4 : 4 + width] = symbols
    raw = packets.tobytes()
    # pyrefly: ignore[missing-attribute]
    decoder = raptorq.Decoder.with_defaults(sources * padded, padded)
    for used, start in enumerate(range(0, len(raw), 4 + padded), start=1):  # the library takes packets one by one
        data = decoder.decode(raw[start : start + 4 + padded])
        if data is not None:
            return np.frombuffer(data, np.uint8).reshape(sources, padded)[:, :width], used
    return None, 0
