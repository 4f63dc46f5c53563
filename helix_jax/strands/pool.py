"""Payload <-> pool of strands: repair packets, header, packets, bases; and what became of them.

``write`` puts a payload on strands. ``read_pool`` finds the header among strands (``find_header`` tries the named
constraint sets), reads the packets and repairs what the outer code can.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from helix_jax import parallel
from helix_jax.strands import checker, outer, packets
from helix_jax.strands import header as headers
from helix_jax.tk_scone import coder, constraints, tables

BATCH = 16384  # strands per call of the constrained coder: one compilation serves pools of any size
SMALL_POOL, MOST_MISSING = 1 << 20, 256  # packets, and of larger pools packets for each one received


class DecodeError(ValueError):
    """The pool cannot be decoded; the message says why and what would help."""


@dataclass(frozen=True, eq=False)
class Pool:
    """A written pool.

    strands: uint8[n, L + primers], header strands first. header: what the decoder will read.
    layout: how the bits of a strand are shared out. constraints: the set they obey.
    header_strands: how many of them carry the header.
    """

    strands: np.ndarray
    header: headers.Header
    layout: packets.PacketLayout
    constraints: constraints.Constraints
    header_strands: int


@dataclass(frozen=True)
class Report:
    """What became of a pool's strands; counts of strands, packets and tokens.

    unreadable: strands that break the constraints or fail their check (damaged, or of another pool).
    rejected: packets that passed their check and were found to be wrong by the payload's hash.
    lost_packets of source_packets: past the outer code's reach. lost_tokens: share of tokens concealed.
    lost_update: share of the decoder's update that is lost, 0 where there is none.
    verified: the hash of the whole payload matches.
    """

    strands: int
    header_strands: int
    unreadable: int
    duplicates: int
    packets: int
    packets_received: int
    source_packets: int
    lost_packets: int
    rejected: int
    lost_tokens: float
    verified: bool
    lost_update: float = 0.0


def station(config, motifs, progress):
    """Configuration -> (Constraints, Tables of its strands). motifs, progress: see ``codec.encode``."""
    if progress:
        progress("tables", 0, 1)  # seconds where motifs or a right primer make the automaton large
    primers = config.strands
    chosen = constraints.custom(
        constraints.named(config.constraints), motifs=motifs, left=primers.left_primer, right=primers.right_primer
    )
    table = tables.load(chosen, config.strands.length)
    if progress:
        progress("tables", 1, 1)
    return chosen, table


def write(payload, content_bytes, fields, chosen, table, layout, config, key, progress):
    """Payload uint8[sources, symbol bytes] -> Pool.

    content_bytes: bytes of the content. fields: the rest of the Header's fields. chosen, table: see ``station``.
    layout: packets.PacketLayout of that many sources. config: CodecConfig. key: 8 bytes.
    """
    blob = payload.tobytes()
    layout = dataclasses.replace(layout, payload_bytes=len(blob))
    symbols = outer.encode(layout, blob)
    head = headers.Header(
        constraints=chosen.name,
        tables_hash=table.digest[:8],
        key=key,
        content_bytes=content_bytes,
        digest=outer.payload_digest(blob),
        sources=layout.sources,
        symbol_bytes=layout.symbol_bytes,
        index_bits=layout.index_bits,
        check_bits=layout.check_bits,
        repairs=layout.repairs,
        mixing=config.mixing,
        **fields,
    )
    first = headers.header_packets(head, table.bits)
    words = np.concatenate([first, packets.pack(layout, key, np.arange(len(symbols)), symbols)])
    arrays, shape = coder.on_device(table)
    step = progress and (lambda done: progress("strands", done, len(words)))
    bases = parallel.map_batches(coder.write, arrays, words, batch=BATCH, progress=step, shape=shape)
    left, right = (constraints.to_bases(p, "primer").astype(np.uint8) for p in (chosen.left, chosen.right))
    ends = [np.tile(p, (len(bases), 1)) for p in (left, right)]
    return Pool(np.concatenate([ends[0], bases, ends[1]], axis=1), head, layout, chosen, len(first))


@dataclass(frozen=True, eq=False)
class Received:
    """What ``read_pool`` found: the header, the layout it implies, the payload as far as it goes, and the report."""

    header: headers.Header
    layout: packets.PacketLayout
    constraints: constraints.Constraints
    length: int
    recovered: outer.Recovered
    report: Report


def find_header(strands, *, motifs=(), primers=("", ""), key=None, progress=None):
    """Find the header of a pool by trying the named sets on each strand length.

    Returns (Header, Constraints, Tables, words uint32[n, W] of the readable strands that are not header strands,
    number of distinct strands, number of header strands).
    Raises DecodeError if there is none, or more than one and ``key`` does not pick one.
    """
    found, refused = {}, None
    for total, group in sorted(strands.items(), key=lambda item: -len(item[1])):
        length = total - len(primers[0]) - len(primers[1])
        if length < 1:
            continue
        core = np.unique(group[:, len(primers[0]) : len(primers[0]) + length], axis=0)
        for chosen in _likely_sets(core, motifs, primers):
            try:
                table = tables.load(chosen, length)
                readable = headers.usable(table.bits)
            except constraints.ConstraintError:
                continue
            if not readable:
                continue
            arrays, shape = coder.on_device(table)
            words, ok = parallel.map_batches(coder.read, arrays, core, batch=BATCH, shape=shape)
            try:
                valid, is_header = headers.find_headers(words[ok], table.bits)
            except headers.HeaderError as error:
                refused = error
                continue
            valid = [h for h in valid if h.constraints == chosen.name and h.tables_hash == table.digest[:8]]
            for head in valid:
                found[head.key] = (head, chosen, table, words[ok][~is_header], len(core), int(is_header.sum()))
            if valid:
                break
    if key is not None:
        found = {k: v for k, v in found.items() if k == key}
    if not found and refused:
        raise DecodeError(str(refused)) from refused
    if not found:
        raise DecodeError(
            "no header strand of a helix_jax pool can be read"
            + (f" with key {key.hex()}" if key else "")
            + ": too few strands, other primers or motifs (give the ones used when writing), or not such a pool"
        )
    if len(found) > 1:
        raise DecodeError("several pools are mixed: pick one with --key " + " or --key ".join(k.hex() for k in found))
    return next(iter(found.values()))


def _likely_sets(core, motifs, primers):
    """The named sets in the order worth trying: fewest violations in a sample first, then the tightest rules."""
    sample = core[np.linspace(0, len(core) - 1, min(len(core), 2000)).astype(int)]
    choices = [
        constraints.custom(s, motifs=motifs, left=primers[0], right=primers[1]) for s in constraints.NAMED.values()
    ]
    broken = [checker.check(sample, choice).violations for choice in choices]
    order = sorted(range(len(choices)), key=lambda n: (broken[n], n))
    return [choices[n] for n in order if broken[n] < len(sample)]


def read_pool(strands, *, motifs=(), primers=("", ""), key=None, progress=None) -> Received:
    """Strands -> payload, as far as the outer code reaches; see ``decode``."""
    if not strands:
        raise DecodeError("no strands")
    head, chosen, table, words, distinct, header_strands = find_header(
        strands, motifs=motifs, primers=primers, key=key, progress=progress
    )
    try:
        layout = head.layout(table.bits)
    except headers.HeaderError as error:
        raise DecodeError(f"{error}: forged?") from error
    index, symbols, good = packets.unpack(layout, head.key, words)
    index, symbols = index[good], symbols[good]
    if layout.packets > max(SMALL_POOL, MOST_MISSING * len(index)):
        # memory follows the header's claim, and a stranger's header may claim anything
        raise DecodeError(
            f"the header speaks of {layout.packets:,} packets, and {len(index):,} are there: forged, or nearly all of "
            "the strands are missing"
        )
    step = progress and (lambda _, blocks: progress("repair", 1, blocks))
    recovered = outer.decode(layout, index, symbols, outer.matching(head.digest), step)
    everything = sum(len(group) for group in strands.values())
    report = Report(
        strands=everything,
        header_strands=header_strands,
        unreadable=distinct - header_strands - len(index),
        duplicates=everything - distinct,
        packets=layout.packets,
        packets_received=len(np.unique(index)),
        source_packets=layout.sources,
        lost_packets=int((recovered.lost | recovered.suspect).sum()),
        rejected=len(recovered.rejected),
        lost_tokens=0.0,
        verified=recovered.verified,
    )
    return Received(head, layout, chosen, table.length, recovered, report)
