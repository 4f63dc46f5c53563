"""Sound as AV1 pools store it: Opus packets at 48 kHz, in step with the first frame of the picture, cut to its end.

``read`` makes them from the sound of a file, helix_jax/video/muxing.py copies them into a new one, and ``decode`` gives
the samples.
"""

import itertools
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from jaxtyping import Float32

from helix_jax.errors import HelixError
from helix_jax.video.clip import VideoError

RATE = 48000  # samples per second of whatever Opus decodes
LEAST, MOST = 6, 510  # kbit/s
STEREO = 24  # kbit/s from which two channels are kept
DURATIONS = (120, 240, 480, 960, 1920, 2880)  # samples of a packet
_LONGEST_DELAY = RATE  # more than any encoder has
_STEP = Fraction(1, 25)  # of a second: timestamps that leap by more are followed, as sound is missing or too much


class SoundError(HelixError):
    """Stored sound that is not what ``Sound.to_bytes`` writes."""


@dataclass(frozen=True)
class Sound:
    """Opus packets, and what a player has to know of them.

    Attributes:
        channels: 1 or 2.
        pre_skip: How many samples at the start of what the packets give are to be left out.
        samples: How many samples follow, for each channel; what is after them is to be left out too.
        duration: The samples that a packet gives, one of DURATIONS.
        packets: The packets; an empty one stands for silence.
    """

    channels: int
    pre_skip: int
    samples: int
    duration: int
    packets: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """Return the sound in as few bytes as ``from_bytes`` can read.

        The first byte has the channels minus 1 in bit 0 and the place of the duration in DURATIONS in bits 1 to 3; the
        other bits are 0. Then come ``pre_skip``, ``samples`` and the length of each packet as whole numbers of 7 bits
        per byte, the low ones first, of which all bytes but the last have bit 7 set, and then the packets. Their number
        follows from the rest: as many as give ``pre_skip + samples`` samples.
        """
        first = (self.channels - 1) | DURATIONS.index(self.duration) << 1
        numbers = (self.pre_skip, self.samples, *map(len, self.packets))
        return b"".join([bytes([first]), *map(_number, numbers), *self.packets])

    @classmethod
    def from_bytes(cls, data: bytes, most: int) -> "Sound":
        """Return the sound that ``to_bytes`` has written.

        Args:
            data: The bytes.
            most: The greatest number of samples that the clip has room for.

        Raises:
            SoundError: For anything else, before more memory is taken than ``data`` takes.
        """
        if not data or data[0] >> 1 >= len(DURATIONS):
            raise SoundError(f"stored sound of {len(data)} bytes has no valid first byte; decode the pool without it")
        channels, duration = 1 + (data[0] & 1), DURATIONS[data[0] >> 1]
        pre_skip, place = _parsed(data, 1)
        samples, place = _parsed(data, place)
        if not 0 < samples <= most or pre_skip > _LONGEST_DELAY:
            raise SoundError(
                f"stored sound of {samples:,} samples after {pre_skip:,}: the clip has room for {most:,}; "
                "decode the pool without it"
            )
        lengths, count = [], -(-(pre_skip + samples) // duration)
        if count > len(data) - place:
            raise SoundError(
                f"stored sound of {len(data):,} bytes cannot have {count:,} packets; decode the pool without it"
            )
        for _ in range(count):
            length, place = _parsed(data, place)
            lengths.append(length)
        if sum(lengths) != len(data) - place:
            raise SoundError(
                f"stored sound has packets of {sum(lengths):,} bytes in {len(data) - place:,}; "
                "decode the pool without it"
            )
        ends = np.cumsum([place, *lengths]).tolist()
        packets = tuple(data[begin:end] for begin, end in itertools.pairwise(ends))
        for number, packet in enumerate(packets):
            if packet and _lasts(packet) != duration:
                raise SoundError(
                    f"stored sound has a packet (number {number}) of {_lasts(packet)} samples among those of "
                    f"{duration}; decode the pool without it"
                )
        return cls(channels, pre_skip, samples, duration, packets)


def check_rate(kbit: float) -> None:
    """Raise HelixError for a rate that Opus does not have."""
    if not LEAST <= kbit <= MOST:
        raise HelixError(f"sound of {kbit:g} kbit/s: give {LEAST} to {MOST}")


def read(
    path: str | os.PathLike, kbit: float, *, begin: Fraction, duration: Fraction, name: str | None = None
) -> Sound | None:
    """Return the sound of a file, its default stream, as Opus packets.

    Sound before the first frame is cut off, and where it begins later, silence comes first. It has one channel below
    STEREO kbit/s, else two where the file has more than one.

    Args:
        path: The file.
        kbit: The rate to aim at, LEAST to MOST kbit/s.
        begin: When the first frame of the picture is shown, in seconds on the file's own clock.
        duration: Seconds that the picture lasts.
        name: What the user calls the file, ``path`` if not given.

    Returns:
        The sound, no longer than the picture, or None where the file has none in that time.

    Raises:
        HelixError: For a rate that Opus does not have.
        VideoError: For sound that cannot be decoded.
    """
    check_rate(kbit)
    name = str(path) if name is None else name
    try:
        with av.open(str(Path(path).absolute())) as container:
            streams = container.streams.audio
            if not streams:
                return None
            stream = next((stream for stream in streams if stream.disposition & Disposition.default), streams[0])
            if stream.codec_context is None:
                raise VideoError(f"{name}: its sound cannot be decoded here; {_reencode(name)}", "unknown sound")
            channels = 2 if kbit >= STEREO and stream.codec_context.channels > 1 else 1
            most = round(duration * RATE)
            return _encoded(_resampled(_placed(name, container, stream, channels, begin, most), channels), channels,
                            most, kbit)  # fmt: skip
    except av.FFmpegError as error:
        raise VideoError(
            f"{name}: its sound cannot be read ({error.strerror}); {_reencode(name)}", error.strerror
        ) from error


def decode(sound: Sound) -> Float32[np.ndarray, "samples channels"]:
    """Return the samples of a sound, -1 to 1. A packet that cannot be decoded gives silence."""
    context: Any = av.CodecContext.create("libopus", "r")
    context.extradata = head(sound, pre_skip=0)
    context.sample_rate, context.layout = RATE, layout(sound.channels)
    context.options = {"request_sample_fmt": "flt"}
    parts = []
    for packet in sound.packets:
        part = np.zeros((sound.duration, sound.channels), np.float32)
        if packet:
            try:
                found = [_floats(frame) for frame in context.decode(av.Packet(packet))]
            except av.FFmpegError:
                found = []
            if found and (whole := np.concatenate(found)).shape[1] == sound.channels:
                part[: len(whole)] = np.clip(np.nan_to_num(whole[: sound.duration]), -1, 1)
        parts.append(part)
    return np.concatenate(parts)[sound.pre_skip : sound.pre_skip + sound.samples]


def head(sound: Sound, pre_skip: int | None = None) -> bytes:
    """Return the header "OpusHead" (RFC 7845, section 5.1) that decoders and containers need.

    Args:
        sound: The sound.
        pre_skip: Replaces that of the sound.

    Returns:
        19 bytes.
    """
    skip = sound.pre_skip if pre_skip is None else pre_skip
    return (
        b"OpusHead\x01" + bytes([sound.channels]) + skip.to_bytes(2, "little") + RATE.to_bytes(4, "little") + bytes(3)
    )


def layout(channels: int) -> str:
    """Return FFmpeg's name for one or two channels."""
    return "mono" if channels == 1 else "stereo"


# ---- decoding a file's sound ---------------------------------------------------------------


def _placed(name, container, stream, channels, begin, most) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the sound of a stream in blocks without gaps: float32[n, channels], and its samples per second.

    The first block starts at ``begin``, and what is after ``most`` samples at RATE is not decoded.
    """
    mixer, rate, place = None, 0, 0
    for frame in _decoded(name, container, stream):
        if rate and frame.sample_rate != rate:
            raise VideoError(
                f"{name}: its sound changes from {rate} to {frame.sample_rate} Hz; {_reencode(name)}",
                "the rate of the sound changes",
            )
        if rate == 0:
            rate = frame.sample_rate
            place = None
        form = (frame.format.name, frame.layout.name)
        if mixer is None or mixer[0] != form:
            mixer = form, av.AudioResampler(format="flt", layout=layout(channels), rate=rate)
        at = None if frame.pts is None else (frame.pts * frame.time_base - begin) * rate
        frame.pts = None
        block = np.concatenate([_floats(part) for part in mixer[1].resample(frame)])
        if place is None:  # the first frame
            place = round(at or 0)
            if place > 0:
                yield np.zeros((min(place, 1 + most * rate // RATE), channels), np.float32), rate
        elif at is not None and abs(at - place) > _STEP * rate:
            missing = round(at) - place
            if missing > 0:
                yield np.zeros((min(missing, 1 + most * rate // RATE), channels), np.float32), rate
            block = block[max(0, -missing) :]
            place += max(0, missing)
        skipped = min(len(block), max(0, -place))
        place += len(block)
        if skipped < len(block):
            yield block[skipped:], rate
        if place * RATE >= most * rate:
            return


def _decoded(name, container, stream):
    """Yield the frames of a stream of sound. Raises VideoError for damage after the first of them."""
    seconds = None
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            if seconds is None and packet.size:
                continue  # a recording may begin inside a frame
            raise VideoError(
                f"{name}: its sound is damaged after {seconds or 0:.2f} s ({error.strerror}); copy the file again from "
                f"its source, or keep what is there: {_reencode(name)}",
                "damaged sound",
            ) from error
        for frame in frames:
            seconds = (seconds or 0) + frame.samples / frame.sample_rate
            yield frame


def _resampled(blocks, channels):
    """Yield the same sound at RATE: float32[n, channels]."""
    resampler = None
    for block, rate in blocks:
        resampler = resampler or av.AudioResampler(format="flt", layout=layout(channels), rate=RATE)
        yield from map(_floats, resampler.resample(_frame(block, rate)))
    if resampler is not None:
        yield from map(_floats, resampler.resample(None))


def _encoded(blocks, channels, most, kbit):
    """Return a Sound of the first ``most`` samples, or None where there are none."""
    context: Any = av.CodecContext.create("libopus", "w")
    context.sample_rate, context.layout, context.format = RATE, layout(channels), "flt"
    context.bit_rate = round(1000 * kbit)
    length = 60 if kbit < STEREO else 40 if kbit < 96 else 20  # ms; each packet costs two bytes beside the sound
    context.options = {"application": "audio", "vbr": "on", "compression_level": "10", "frame_duration": str(length)}
    context.open()
    duration, samples, packets, rest = RATE * length // 1000, 0, [], np.zeros((0, channels), np.float32)
    for block in blocks:
        block = np.clip(np.nan_to_num(block[: most - samples]), -1, 1)
        samples += len(block)
        rest = np.concatenate([rest, block])
        while len(rest) >= duration:
            packets += context.encode(_frame(rest[:duration], RATE))
            rest = rest[duration:]
    if not samples:
        return None
    pre_skip = int.from_bytes(context.extradata[10:12], "little")
    count = -(-(pre_skip + samples) // duration)
    rest = np.pad(rest, ((0, 2 * duration - len(rest)), (0, 0)))
    for start in (0, duration):
        packets += context.encode(_frame(rest[start : start + duration], RATE))
    packets += context.encode(None)
    return Sound(channels, pre_skip, samples, duration, tuple(bytes(packet) for packet in packets[:count]))


def _frame(block, rate):
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(block.reshape(1, -1)), format="flt", layout=layout(block.shape[1])
    )
    frame.sample_rate = rate
    return frame


def _floats(frame):
    """Return float32[n, channels] of a frame of floats or 16 bits, packed or planar."""
    channels = len(frame.layout.channels)
    values = frame.to_ndarray()
    if values.dtype == np.int16:
        values = values / np.float32(1 << 15)
    return (values.T if frame.format.is_planar else values.reshape(-1, channels)).astype(np.float32)


def _reencode(name):
    target = Path("video" if name == "-" else name)
    target = target.with_name(f"{target.stem}-new.mkv")
    return f"re-encode it with: ffmpeg -i {shlex.quote(name)} -c:v copy -c:a flac {shlex.quote(str(target))}"


# ---- bytes ---------------------------------------------------------------------------------


def _number(value):
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _parsed(data, place):
    """Return a whole number and the place after it."""
    value = 0
    for shift in range(0, 42, 7):
        if place >= len(data):
            raise SoundError(f"stored sound ends after {len(data)} bytes, inside a number; decode the pool without it")
        value |= (data[place] & 127) << shift
        place += 1
        if data[place - 1] < 128:
            return value, place
    raise SoundError(f"stored sound has a number without an end at byte {place}; decode the pool without it")


def _lasts(packet):
    """Return the samples that a packet gives by its first bytes (RFC 6716, section 3), 0 if there are none."""
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        frame = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:
        frame = (480, 960)[config & 1]
    else:
        frame = (120, 240, 480, 960)[config & 3]
    if code < 3:
        return frame * (1, 2, 2)[code]
    return frame * (packet[1] & 63) if len(packet) > 1 else 0
