"""Token digits <-> what the packets carry, in three modes.

    raw      The digits as they are. A packet holds whole tokens that lie far apart (``tk_scone.mixing``), so a lost
             strand is a scatter of missing tokens.
    context  Segments (``coding.segments``) that are coded under adaptive counts. A segment fills consecutive packets,
             and is decoded or lost as a whole.
    prior    The same, with the predictions of the masked prior beside the counts.

``coding.payload`` says how segments fill the packets. An update of the decoder (``tokenizer.update``), where there is
one, fills the last packets, in all modes.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from helix_jax.coding import coder, payload, proof, segments
from helix_jax.coding.payload import CodingError
from helix_jax.config import LOOSE, MODES, MixingConfig
from helix_jax.errors import HelixError
from helix_jax.prior.weights import Prior
from helix_jax.strands import layouts
from helix_jax.tk_scone import mixing

Progress = Callable[[str, int, int], None]
Planner = Callable[[int, str, int], layouts.PacketLayout]

# How packets are laid out where no writer says it: in 287 bits, which `helix` carries in 150 nucleotides.
DEFAULT_PLAN: Planner = layouts.planner(287, LOOSE)


@dataclass(frozen=True)
class Coding:
    """Tokens that are ready for packets.

    Attributes:
        mode: One of MODES.
        tokens: The tokens.
        pieces: Bytes of each segment with its CRC at the end; none in mode raw.
        update: Update of the decoder by ``tokenizer.update.fit``, mostly empty.
        code: Code of the update, 0 without one.
    """

    mode: str
    tokens: UInt8[np.ndarray, "t h w k"]
    pieces: tuple[bytes, ...] = ()
    update: bytes = b""
    code: int = 0

    @property
    def content_bytes(self) -> int:
        """Number of bytes that the packets must carry."""
        tokens = sum(map(len, self.pieces)) if self.pieces else -(-self.tokens.size // 4)
        return tokens + len(self.update)

    def layout(self, plan: Planner) -> layouts.PacketLayout:
        """Lay the content out in packets. ``plan`` is that of a writer (``writer.Station.plan``)."""
        digits, size = self.tokens.shape[-1], self.content_bytes
        multiple = 1 if self.pieces else digits // math.gcd(digits, 4)  # bytes, so that a packet holds whole tokens
        while True:  # the size only grows, so that a byte that a wider index takes from the packets stays taken
            layout = plan(size, self.mode, multiple)
            size = self._sources(layout.symbol_bytes) * layout.symbol_bytes
            if size <= layout.parts[0].sources * layout.symbol_bytes:  # tokens are the first of several sections
                return layout if layout.sections else dataclasses.replace(layout, payload_bytes=size)

    def symbols(self, layout: layouts.PacketLayout, config: MixingConfig) -> UInt8[np.ndarray, "sources d"]:
        """Make the digits of the source packets, four for each byte."""
        width, digits = layout.symbol_bytes, self.tokens.shape[-1]
        if self.pieces:
            tokens = mixing.from_bytes(payload.to_rows(self.pieces, width))
        else:
            tokens = mixing.interleave(self.tokens, 4 * width // digits, config)
        if not self.update:
            return tokens
        update = self.update.ljust(update_packets(len(self.update), width) * width, b"\0")
        return np.concatenate([tokens, mixing.from_bytes(np.frombuffer(update, np.uint8).reshape(-1, width))])

    def _sources(self, width: int) -> int:
        """Number of source packets of ``width`` bytes."""
        if self.pieces:
            tokens = len(payload.to_rows(self.pieces, width))
        else:
            tokens = -(-self.tokens[..., 0].size // (4 * width // self.tokens.shape[-1]))
        return tokens + update_packets(len(self.update), width)


def update_packets(size: int, width: int) -> int:
    """Number of packets of ``width`` bytes that an update of ``size`` bytes takes."""
    return -(-size // width)


def read_update(
    size: int, symbols: UInt8[np.ndarray, "sources d"], lost: Bool[np.ndarray, " sources"]
) -> tuple[UInt8[np.ndarray, " {size}"], Bool[np.ndarray, " {size}"]]:
    """Read the update of the decoder in the last packets.

    Args:
        size: Size of the update in bytes.
        symbols: As for ``decode``.
        lost: As for ``decode``.

    Returns:
        The update, and the mask of its bytes that are not lost.
    """
    rows = mixing.to_bytes(symbols[-update_packets(size, symbols.shape[1] // 4) :])
    valid = np.broadcast_to(~lost[-len(rows) :, None], rows.shape)
    return rows.reshape(-1)[:size], valid.reshape(-1)[:size]


def encode(
    tokens: UInt8[np.ndarray, "t h w k"],
    mode: str,
    prior: Prior | None,
    *,
    plan: Planner = DEFAULT_PLAN,
    progress: Progress | None = None,
) -> Coding:
    """Code tokens in a mode.

    Args:
        tokens: The tokens.
        mode: One of MODES, or "smallest" for the one that takes the fewest strands, repair strands included.
        prior: The prior. With None, only mode raw is possible.
        plan: That of the writer (``writer.Station.plan``), by which strands are counted for "smallest".
        progress: Called as ``progress(station, done, total)``, where ``done`` is how many more are done.

    Raises:
        CodingError: The mode is not possible.
    """
    if mode not in (*MODES, "smallest"):
        raise CodingError(f"mode {mode!r}: use {', '.join(MODES)} or smallest")
    raw = Coding("raw", tokens)
    if mode == "raw" or (mode == "smallest" and prior is None):
        return raw
    if mode != "smallest":
        return _coded(tokens, mode, prior, progress)
    codings = [raw]
    for mode in MODES[1:]:
        try:
            codings.append(_coded(tokens, mode, prior, progress))
        except CodingError:
            continue
    return min(codings, key=lambda coding: _size(coding, plan))


def verify(coding: Coding, prior: Prior | None, *, progress: Progress | None = None) -> None:
    """Prove that the NumPy reference decodes every segment to its tokens (``coding.proof``).

    Args:
        coding: The coded tokens. In mode raw there is nothing to prove.
        prior: As for ``encode``.
        progress: As for ``encode``.

    Raises:
        CodingError: The reference reads other tokens.
    """
    if not coding.pieces:
        return
    plan = segments.plan(coding.tokens.shape[:3])
    coded = list(map(payload.opened, coding.pieces))
    step = _at(progress, "verifying", plan.number)
    if not proof.clip_reads(prior, coding.mode, plan, coded, coding.tokens, step).all():
        raise CodingError(f"mode {coding.mode}: the reference decoder reads other tokens; please report this")


def _size(coding: Coding, plan: Planner) -> tuple[float, int]:
    """What modes are compared by: the number of strands, and of equal ones the bytes that are not repair."""
    try:
        layout = coding.layout(plan)
    except HelixError:  # more than the writer can number, or no whole token fits a strand
        return math.inf, coding.content_bytes
    return layout.packets, layout.payload_bytes


def _coded(tokens: UInt8[np.ndarray, "t h w k"], mode: str, prior: Prior | None, progress: Progress | None) -> Coding:
    if prior is None:
        raise CodingError(f"mode {mode} needs a prior that belongs to the tokenizer: give one with --prior")
    plan = segments.plan(tokens.shape[:3])
    coded = coder.compress(prior, mode, plan, tokens, progress=_at(progress, "coding", plan.number))
    pieces = tuple(payload.seal(piece) for piece in coded if piece is not None)
    if len(pieces) < len(coded):
        raise CodingError(f"mode {mode}: a segment takes over an eighth more than its raw digits: use mode raw")
    if max(map(len, pieces)) > payload.MOST:
        raise CodingError(f"mode {mode}: a segment takes more than {payload.MOST:,} bytes: use mode raw")
    return Coding(mode, tokens, pieces)


def decode(
    mode: str,
    grid: tuple[int, ...],
    digits: int,
    symbols: UInt8[np.ndarray, "sources d"],
    lost: Bool[np.ndarray, " sources"],
    config: MixingConfig,
    prior: Prior | None,
    *,
    progress: Progress | None = None,
) -> tuple[UInt8[np.ndarray, "t h w {digits}"], Bool[np.ndarray, "t h w"]]:
    """Decode the digits of the source packets to tokens.

    Args:
        mode: One of MODES.
        grid: (t, h, w) of the clip.
        digits: Number of digits of a token that were sent.
        symbols: Digits of the source packets, four for each byte.
        lost: Which packets are lost.
        config: Which parts of the mixing are switched on.
        prior: As for ``encode``.
        progress: As for ``encode``.

    Returns:
        The tokens, and the mask of the tokens that are lost.

    Raises:
        CodingError: The directory of the segments is lost.
    """
    if mode == "raw":
        tokens = mixing.deinterleave(symbols, grid, digits, config)
        mask = np.broadcast_to(lost[:, None], symbols.shape)
        return tokens, mixing.deinterleave(mask, grid, digits, config)[..., 0]
    assert prior is not None
    plan = segments.plan(grid)
    coded = payload.read_pieces(mixing.to_bytes(symbols), lost, plan.number)
    tokens = coder.expand(prior, mode, plan, digits, coded, progress=_at(progress, "decoding", plan.number))
    missing = np.zeros((plan.number, *plan.shape), bool)
    missing[[piece is None for piece in coded]] = True
    return tokens, segments.join(plan, missing)


def _at(progress: Progress | None, station: str, total: int) -> Callable[[int], None] | None:
    return None if progress is None else lambda done: progress(station, done, total)
