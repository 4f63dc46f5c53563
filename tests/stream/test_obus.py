import pytest

from helix_jax.stream import av1, obus
from helix_jax.stream.obus import StreamError


@pytest.fixture(scope="module")
def stream(yuv_clip, scene, colours):
    """20 pictures of 32x48 (w x h), one group."""
    clip = yuv_clip(scene(20, 48, 32))
    return av1.encode(clip.yuv(), size=(48, 32), crf=40, preset=10, signal=colours, fps=clip.info.fps)


def head(data):
    """The bytes of the sequence header."""
    return 2 + data[1]


def test_a_unit_for_each_frame(stream):
    found = list(obus.units(stream))
    assert b"".join(unit for unit, _ in found) == stream
    assert [is_key for _, is_key in found] == [True] + [False] * 19
    assert obus.frames_of(stream) == 20
    assert list(obus.bounded(stream, (48, 32), 20)) == [unit for unit, _ in found]


def test_groups_one_after_the_other(stream):
    assert [is_key for _, is_key in obus.units(2 * stream)] == 2 * ([True] + [False] * 19)


def test_only_what_has_to_be_stored(stream):
    kinds = [kind for _, kind, _ in obus.split(stream)]
    assert kinds[:2] == [obus.SEQUENCE, obus.FRAME]
    assert set(kinds[2:]) <= {obus.FRAME, obus.HEADER}
    assert obus.sequence(next(iter(obus.split(stream)))[2]) == obus.Sequence(48, 32, False)


def test_bare():
    delimiter, metadata, padding, tiles = b"\x12\0", b"\x2a\2ab", b"\x7a\1a", b"\x22\3abc"
    assert obus.bare(delimiter + metadata + tiles + padding + tiles) == 2 * tiles


SECOND = 31 * "0" + "1" + 27 * "0" + "11001"  # a tick, and 25 of them in a second
TIMINGS = {  # timing_info with its flag and that of the decoder model, the flag of the delay, and the delay
    "equal intervals": ("1" + SECOND + "1" + "1" + "0", "0", ""),
    "intervals of 5 ticks": ("1" + SECOND + "1" + "00101" + "0", "0", ""),
    "unequal intervals": ("1" + SECOND + "0" + "0", "0", ""),
    "delay": ("0", "1", "1" + "1001"),
    "no delay of the only point": ("0", "1", "0"),
    "both": ("1" + SECOND + "0" + "0", "1", "1" + "0000"),
}


def timed(stream, timing, flag, delay):
    """The stream with timing in its sequence header, as other encoders write it."""
    text = "".join(f"{byte:08b}" for byte in stream[2 : head(stream)]).rstrip("0")
    assert text[:7] == 7 * "0"  # no timing, no delay
    assert int(text[24:29], 2) <= 7  # no tier
    text = text[:5] + timing + flag + text[7:29] + delay + text[29:]
    text = text.ljust(-(-len(text) // 8) * 8, "0")
    return bytes([stream[0], len(text) // 8]) + int(text, 2).to_bytes(len(text) // 8, "big") + stream[head(stream) :]


@pytest.mark.parametrize("fields", TIMINGS.values(), ids=TIMINGS)
def test_timing_is_left_out(stream, fields):
    assert obus.bare(timed(stream, *fields)) == stream
    with pytest.raises(StreamError, match="timing or layers"):
        list(obus.units(timed(stream, *fields)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda stream: timed(stream, "1" + SECOND + "0" + "1", "0", ""), "decoder model"),
        (lambda stream: b"\x0a\3\0\x80\0" + stream[head(stream) :], "layers"),
        (lambda stream: b"\x0a\x41" + 65 * b"\1" + stream[head(stream) :], "65 bytes"),
    ],
)
def test_sequences_that_are_not_stored(stream, change, reason):
    with pytest.raises(StreamError, match=reason):
        obus.bare(change(stream))


def test_frames_in_two_obus(stream):
    """A frame header with its tile groups is one unit, as a frame is."""
    units = [unit for unit, _ in obus.units(stream)]
    header = b"\x1a\1\x10"  # a key frame that is shown
    split = units[0] + header + b"\x22\1a" + b"\x22\1b" + header + b"\x22\1c"
    assert list(obus.units(split))[1:] == [(header + b"\x22\1a\x22\1b", True), (header + b"\x22\1c", True)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: b"", "ends before"),
        (lambda data: data[:-1], "bytes at byte"),
        (lambda data: data[: head(data) + 1], "cut short"),
        (lambda data: data[: head(data)], "ends before"),
        (lambda data: b"\x8a" + data[1:], "no OBU at byte 0"),
        (lambda data: b"\x08" + data[1:], "no OBU at byte 0"),
        (lambda data: data[head(data) :], "does not begin with a sequence"),
        (lambda data: data + b"\x12\0", "type 2"),
        (lambda data: data + b"\x42\1a", "type 8"),
        (lambda data: data + b"\x22\1a", "without a frame header"),
        (lambda data: data + b"\x32\1\x80", "shows another"),
        (lambda data: data + b"\x32\0", "an OBU of 0 bytes"),
        (lambda data: data + b"\x32\xff\xff\xff\xff\xff\1", "4 GB"),
        (lambda data: b"\x0a\2\0\0" + data[head(data) :], "header that is cut short"),
        (lambda data: b"\x0a\4\4\0\0\0" + data[head(data) :], "timing or layers"),
    ],
)
def test_malformed(stream, change, reason):
    with pytest.raises(StreamError, match=reason):
        list(obus.units(change(stream)))


@pytest.mark.parametrize(
    ("size", "frames", "reason"),
    [((32, 48), 20, "32x48, not 48x32"), ((48, 32), 19, "more pictures"), ((48, 32), 21, "shows 20 pictures")],
)
def test_not_what_is_stated(stream, size, frames, reason):
    with pytest.raises(StreamError, match=reason):
        list(obus.bounded(stream, size, frames))


def test_hidden_frames_are_bounded(stream):
    hidden = b"\x32\1\x20"
    with pytest.raises(StreamError, match="more pictures"):
        list(obus.bounded(stream + 100 * hidden + b"\x1a\1\x80", (48, 32), 21))


def test_room_for_larger_pictures_is_refused():
    bits = "000" + "0" + "1" + "00000" + "0110" + "0100" + f"{31:07b}" + f"{15:05b}"  # 6 bits would do for 31
    payload = int(bits.ljust(40, "0"), 2).to_bytes(5, "big")
    with pytest.raises(StreamError, match="larger than its 32x16"):
        obus.sequence(payload)
    bits = "000" + "0" + "1" + "00000" + "0100" + "0011" + f"{31:05b}" + f"{15:04b}"
    assert obus.sequence(int(bits.ljust(32, "0"), 2).to_bytes(4, "big")) == obus.Sequence(16, 32, True)
