"""Token digits <-> what the packets carry, in three modes.

    raw      the digits as they are. A packet holds whole tokens that lie far apart (``tk_scone.mixing``), so a lost
             strand is a scatter of missing tokens.
    context  segments (``coding.segments``) coded under adaptive counts. A segment fills consecutive packets, and stands
             or falls as one.
    prior    the same with the masked prior's predictions beside the counts.

``coding.payload`` says how segments fill the packets. An update of the decoder (``tokenizer.update``), where there is
one, fills the last packets, in all modes.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from helix_jax.coding import coder, payload, proof, segments
from helix_jax.coding.payload import CodingError
from helix_jax.strands import packets
from helix_jax.tk_scone import mixing

MODES = ("raw", "context", "prior")
COMPARED = 32  # bytes of a packet, about what 150 nucleotides hold


@dataclass(frozen=True)
class Coding:
    """Tokens ready for packets. mode: one of MODES. tokens: uint8[t, h, w, k]. pieces: bytes of each segment, its CRC
    at the end; none in mode raw. update, code: of the decoder, ``tokenizer.update.fit``; mostly empty, and 0."""

    mode: str
    tokens: np.ndarray
    pieces: tuple[bytes, ...] = ()
    update: bytes = b""
    code: int = 0

    @property
    def content_bytes(self):
        """Bytes that the packets must carry."""
        tokens = sum(map(len, self.pieces)) if self.pieces else -(-self.tokens.size // 4)
        return tokens + len(self.update)

    @property
    def packed_bytes(self):
        """The same with the directory, at the default strand's packet size: what modes are compared by."""
        if not self.pieces:
            return self.content_bytes
        return payload.to_rows(self.pieces, COMPARED).size

    def layout(self, bits, redundancy):
        """packets.PacketLayout for strands of ``bits`` bits."""
        digits, size = self.tokens.shape[-1], self.content_bytes
        whole = 1 if self.pieces else digits // math.gcd(digits, 4)  # tokens to a packet
        while True:  # it only grows, so that a byte that a wider index takes from the packets never comes back
            found = packets.plan(bits, size, redundancy, multiple=whole)
            size = self._sources(found.symbol_bytes) * found.symbol_bytes
            if size <= found.sources * found.symbol_bytes:
                return dataclasses.replace(found, payload_bytes=size)

    def symbols(self, layout, config):
        """Digits uint8[sources, 4 * symbol bytes] of the source packets. config: MixingConfig."""
        width, digits = layout.symbol_bytes, self.tokens.shape[-1]
        if self.pieces:
            tokens = mixing.from_bytes(payload.to_rows(self.pieces, width))
        else:
            tokens = mixing.interleave(self.tokens, 4 * width // digits, config)
        if not self.update:
            return tokens
        update = self.update.ljust(update_packets(len(self.update), width) * width, b"\0")
        return np.concatenate([tokens, mixing.from_bytes(np.frombuffer(update, np.uint8).reshape(-1, width))])

    def _sources(self, width):
        """Source packets of ``width`` bytes."""
        if self.pieces:
            tokens = len(payload.to_rows(self.pieces, width))
        else:
            tokens = -(-self.tokens[..., 0].size // (4 * width // self.tokens.shape[-1]))
        return tokens + update_packets(len(self.update), width)


def update_packets(size, width):
    """How many packets of ``width`` bytes an update of ``size`` bytes takes."""
    return -(-size // width)


def read_update(size, symbols, lost):
    """The update in the last packets -> (data uint8[size], there: bool[size], False where a byte is lost).

    size: of the update in bytes. symbols, lost: as in ``decode``."""
    rows = mixing.to_bytes(symbols[-update_packets(size, symbols.shape[1] // 4) :])
    there = np.broadcast_to(~lost[-len(rows) :, None], rows.shape)
    return rows.reshape(-1)[:size], there.reshape(-1)[:size]


def encode(tokens, mode, prior, *, progress=None):
    """Tokens uint8[t, h, w, k] -> Coding.

    mode: one of MODES, or "smallest": what takes the fewest bytes. prior: prior.weights.Prior, or None where only raw
    is possible. progress: called as progress(station, done, total).
    Raises CodingError for a mode that is not possible.
    """
    if mode not in (*MODES, "smallest"):
        raise CodingError(f"mode {mode!r}: use {', '.join(MODES)} or smallest")
    raw = Coding("raw", tokens)
    if mode == "raw" or (mode == "smallest" and prior is None):
        return raw
    if mode != "smallest":
        return _coded(tokens, mode, prior, progress)
    found = [raw]
    for mode in MODES[1:]:
        try:
            found.append(_coded(tokens, mode, prior, progress))
        except CodingError:
            continue
    return min(found, key=lambda coding: coding.packed_bytes)


def verify(coding, prior, *, progress=None):
    """Prove that the NumPy reference decodes every segment to its tokens (``coding.proof``). Raises
    CodingError if it reads other tokens."""
    if not coding.pieces:
        return
    plan = segments.plan(coding.tokens.shape[:3])
    coded = list(map(payload.opened, coding.pieces))
    step = _at(progress, "verifying", plan.number)
    if not proof.clip_reads(prior, coding.mode, plan, coded, coding.tokens, step).all():
        raise CodingError(f"mode {coding.mode}: the reference decoder reads other tokens; please report this")


def _coded(tokens, mode, prior, progress):
    if prior is None:
        raise CodingError(f"mode {mode} needs a prior that belongs to the tokenizer: give one with --prior")
    plan = segments.plan(tokens.shape[:3])
    coded = coder.compress(prior, mode, plan, tokens, progress=_at(progress, "coding", plan.number))
    if any(piece is None for piece in coded):
        raise CodingError(f"mode {mode}: a segment takes over an eighth more than its raw digits: use mode raw")
    pieces = tuple(map(payload.seal, coded))
    if max(map(len, pieces)) > payload.MOST:
        raise CodingError(f"mode {mode}: a segment takes more than {payload.MOST:,} bytes: use mode raw")
    return Coding(mode, tokens, pieces)


def decode(mode, grid, digits, symbols, lost, config, prior, *, progress=None):
    """Digits of the source packets -> (tokens uint8[t, h, w, k], missing bool[t, h, w]).

    symbols: uint8[sources, 4 * symbol bytes]; lost: bool[sources]. config: MixingConfig. prior: as in ``encode``.
    Raises CodingError when the directory is lost.
    """
    if mode == "raw":
        tokens = mixing.deinterleave(symbols, grid, digits, config)
        where = np.broadcast_to(lost[:, None], symbols.shape)
        return tokens, mixing.deinterleave(where, grid, digits, config)[..., 0]
    plan = segments.plan(grid)
    coded = payload.read_pieces(mixing.to_bytes(symbols), lost, plan.number)
    tokens = coder.expand(prior, mode, plan, digits, coded, progress=_at(progress, "decoding", plan.number))
    gone = np.zeros((plan.number, *plan.shape), bool)
    gone[[piece is None for piece in coded]] = True
    return tokens, segments.join(plan, gone)


def _at(progress, station, total):
    return progress and (lambda done: progress(station, done, total))
