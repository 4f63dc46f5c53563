"""The open bitstream units (OBUs) of AV1: what a byte string claims to be, before a decoder sees it.

A pool stores the "low overhead" format of section 5.2 of the AV1 specification without what a container may drop
(section 7.5): each OBU has its size, and there are only sequence headers, frame headers, tile groups and frames. No
temporal delimiters, metadata, padding, layers or large-scale tiles, which the encoder here does not write and the
reader refuses. What a hostile byte string could ask of the decoder is bounded by these checks: the size of the
pictures, which the sequence header must state with as few bits as it takes, and the number of pictures.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from helix_jax.errors import DecodeError

SEQUENCE, HEADER, TILES, FRAME = 1, 3, 4, 6  # types of OBUs that are stored
DROPPED = (2, 5, 15)  # temporal delimiter, metadata and padding, which need not be stored
_KEY = 0  # a frame_type
_LONGEST_HEADER = 64  # bytes of a sequence header that are looked at; those of encoders have 11 to 25
_AHEAD = 8  # pictures that may wait to be shown, as many as AV1 keeps as references


class StreamError(DecodeError):
    """A byte string that is no AV1 as pools have it, or not the pictures that were stated."""


@dataclass(frozen=True)
class Sequence:
    """What a sequence header says.

    Attributes:
        height: Height of the pictures.
        width: Their width.
        reduced: Whether it is that of a single picture (reduced_still_picture_header), whose frame header is short.
    """

    height: int
    width: int
    reduced: bool


def units(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield (bytes, is_key) of each temporal unit, which has one shown frame; ``is_key``: a key frame.

    Raises:
        StreamError: Where the bytes are malformed; the units before have been yielded by then.
    """
    begin, state = 0, _Unit()
    for start, kind, payload in split(data):
        if state.shown and kind != TILES:
            yield data[begin:start], state.key
            begin, state = start, _Unit(state.sequence)
        state = state.after(kind, payload)
    if not state.shown:
        raise StreamError(f"the AV1 stream of {len(data)} bytes ends before a picture is shown")
    yield data[begin:], state.key


def frames_of(data: bytes) -> int:
    """Return how many frames a byte string shows. Raises StreamError as ``units`` does."""
    return sum(1 for _ in units(data))


def bounded(data: bytes, size: tuple[int, int], frames: int) -> Iterator[bytes]:
    """Yield the temporal units, provided that they are what is stated.

    Args:
        data: A byte string.
        size: Height and width of the pictures.
        frames: Number of shown frames.

    Raises:
        StreamError: Where a sequence header has another size, or there are more or fewer shown frames, or many more
            frames than are shown. Nothing of a unit that breaks a rule is yielded.
    """
    shown = coded = 0
    for unit, _ in units(data):
        for _, kind, payload in split(unit):
            if kind == SEQUENCE:
                header = sequence(payload)
                if (header.height, header.width) != size:
                    raise StreamError(
                        f"the AV1 stream has pictures of {header.width}x{header.height}, not {size[1]}x{size[0]}"
                    )
            coded += kind in (HEADER, FRAME)
        shown += 1
        # each frame that is coded ahead is shown later, or replaced by an overlay
        if shown > frames or coded > 2 * frames + _AHEAD:
            raise StreamError(f"the AV1 stream has more pictures than the {frames} that it should show")
        yield unit
    if shown != frames:
        raise StreamError(f"the AV1 stream shows {shown} pictures, not {frames}")


def bare(data: bytes) -> bytes:
    """Return a temporal unit of an encoder without what need not be stored: some OBUs, and the sequence's timing.

    Raises:
        StreamError: Where the sequence header is not one that an encoder writes.
    """
    starts = [(start, kind, payload) for start, kind, payload in split(data)]
    ends = [start for start, _, _ in starts[1:]] + [len(data)]
    kept = []
    for (start, kind, payload), end in zip(starts, ends, strict=True):
        if kind == SEQUENCE and (untimed := _untimed(payload)) != payload:
            kept.append(bytes([data[start], len(untimed)]) + untimed)
        elif kind not in DROPPED:
            kept.append(data[start:end])
    return b"".join(kept)


def _untimed(payload: bytes) -> bytes:
    """Return a sequence header without timing and display delay, to which no frame header refers as long as no decoder
    model follows (sections 5.5.1, 5.5.3 and 5.9.2): the pool states the times of the pictures."""
    if len(payload) > _LONGEST_HEADER:
        raise StreamError(f"the AV1 stream has a sequence header of {len(payload)} bytes, at most {_LONGEST_HEADER}")
    bits = _Bits(payload)
    bits.read(4)
    if bits.read(1):  # reduced_still_picture_header
        return payload
    first = bits.text[: bits.place]
    if bits.read(1):  # timing_info_present_flag
        bits.read(64)  # num_units_in_display_tick, time_scale
        if bits.read(1):  # equal_picture_interval, with num_ticks_per_picture_minus_1 as Exp-Golomb
            zeros = 0
            while not bits.read(1):
                zeros += 1
            bits.read(zeros)
        if bits.read(1):
            raise StreamError("the AV1 stream has a decoder model, which pools do not store")
    delayed, begin = bits.read(1), bits.place  # initial_display_delay_present_flag
    if bits.read(5 + 12):  # operating points, and which layers the first has
        raise StreamError("the AV1 stream has layers, which pools do not store")
    if bits.read(5) > 7:  # level
        bits.read(1)  # tier
    level = bits.text[begin : bits.place]
    if delayed and bits.read(1):
        bits.read(4)  # initial_display_delay_minus_1
    kept = first + "00" + level + bits.text[bits.place :].rstrip("0")  # which ends with the trailing one bit
    return int(kept.ljust(-(-len(kept) // 8) * 8, "0"), 2).to_bytes(-(-len(kept) // 8), "big")


def sequence(payload: bytes) -> Sequence:
    """Return what a sequence header says (section 5.5.1).

    Raises:
        StreamError: Where it is not as the encoder writes it.
    """
    bits = _Bits(payload)
    bits.read(4)  # profile and still_picture, the decoder's concern
    reduced = bool(bits.read(1))
    if reduced:
        bits.read(5)  # level
    elif bits.read(1 + 1 + 5 + 12):  # timing, delay, number of operating points, and which layers the first has
        raise StreamError("the AV1 stream has timing or layers, which pools do not store")
    elif bits.read(5) > 7:  # level
        bits.read(1)  # tier
    widths = bits.read(4) + 1, bits.read(4) + 1
    width, height = (bits.read(count) + 1 for count in widths)
    if widths != tuple(max(1, (side - 1).bit_length()) for side in (width, height)):
        raise StreamError(f"the AV1 stream leaves room for pictures larger than its {width}x{height}")
    return Sequence(height, width, reduced)


@dataclass(frozen=True)
class _Unit:
    """What is known of a temporal unit while it is read."""

    sequence: Sequence | None = None  # the last one, which may be that of an earlier unit
    shown: bool = False
    key: bool = False
    tiles: bool = False  # whether a tile group may follow

    def after(self, kind: int, payload: bytes) -> "_Unit":
        """Return the state after one more OBU."""
        if kind == SEQUENCE:
            return _Unit(sequence(payload), self.shown, self.key)
        if self.sequence is None:
            raise StreamError("the AV1 stream does not begin with a sequence header")
        if kind == TILES:
            if not self.tiles:
                raise StreamError("the AV1 stream has a tile group without a frame header")
            return self
        if kind not in (HEADER, FRAME):
            raise StreamError(f"the AV1 stream has an OBU of type {kind}, which pools do not store")
        if self.sequence.reduced:
            return _Unit(self.sequence, True, True, kind == HEADER)
        existing, key, shown = payload[0] >> 7, payload[0] >> 5 & 3 == _KEY, payload[0] >> 4 & 1
        if existing:
            if kind == FRAME:
                raise StreamError("the AV1 stream has a frame that shows another one")
            return _Unit(self.sequence, True)
        return _Unit(self.sequence, bool(shown), bool(key and shown), kind == HEADER)


class _Bits:
    """Reads bits from the first, most significant one on."""

    def __init__(self, data: bytes):
        self.text, self.place = "".join(f"{byte:08b}" for byte in data[:_LONGEST_HEADER]), 0

    def read(self, count: int) -> int:
        part = self.text[self.place : self.place + count]
        if len(part) < count:
            raise StreamError("the AV1 stream has a sequence header that is cut short")
        self.place += count
        return int(part or "0", 2)


def split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (start, type, payload) of each OBU. Raises StreamError where there is none."""
    place = 0
    while place < len(data):
        start, first = place, data[place]
        if first & 0x85 or not first & 2:  # forbidden and reserved bits, extension; has_size_field
            raise StreamError(f"the AV1 stream has no OBU at byte {start}")
        size = 0
        for number in range(5):  # leb128, up to 32 bits
            place += 1
            if place == len(data):
                raise StreamError(f"the AV1 stream is cut short at byte {place}")
            size |= (data[place] & 127) << 7 * number
            if data[place] < 128:
                break
        else:
            raise StreamError(f"the AV1 stream has an OBU of more than 4 GB at byte {start}")
        place += 1
        kind = first >> 3 & 15
        if size > len(data) - place or (not size and kind not in DROPPED):
            raise StreamError(f"the AV1 stream has an OBU of {size} bytes at byte {start} of {len(data)}")
        yield start, kind, data[place : place + size]
        place += size
