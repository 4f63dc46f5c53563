"""The record format and the folder of shards."""

import json
import pickle
import struct
import zlib

import numpy as np
import pytest

from train import shards


def piece(number, shape=(3, 16, 12)):
    frames = np.random.default_rng(number).integers(0, 256, (*shape, 3), dtype=np.uint8)
    return shards.Piece(f"folder/clip é{number}.mp4", 7 * number, 1 + number % 2, frames)


@pytest.fixture
def folder(tmp_path):
    """Two shards: pieces 0 to 4, then 5 and 6, of which 6 is the smallest."""
    out = tmp_path / "shards"
    out.mkdir()
    pieces = [piece(number) for number in range(6)] + [piece(6, (2, 9, 10))]
    files = [shards.write(out / f"{name}.arrayrecord", part) for name, part in (("a", pieces[:5]), ("b", pieces[5:]))]
    shards.write_index(out, settings={"seed": 1}, files=files)
    return out


def damage(path, needle):
    """Flip a bit where ``needle`` stands."""
    data = bytearray(path.read_bytes())
    data[data.index(needle)] ^= 1
    path.write_bytes(data)


def same(one, other):
    np.testing.assert_array_equal(one.frames, other.frames)
    return (one.clip, one.start, one.scale) == (other.clip, other.start, other.scale)


def test_record_is_the_documented_bytes():
    one = piece(3)
    name = one.clip.encode()
    body = struct.pack("<BHHHHI", 2, len(name), 3, 16, 12, 21) + name + one.frames.tobytes()
    record = b"HXP1" + struct.pack("<I", zlib.crc32(body)) + body
    assert shards.pack(one) == record
    assert same(shards.unpack(record), one)


def test_every_part_of_a_record_is_checked():
    record = shards.pack(piece(1, (1, 2, 2)))
    for position in range(len(record)):
        damaged = bytearray(record)
        damaged[position] ^= 16
        with pytest.raises(shards.ShardError, match="check sum" if position >= 4 else "another format"):
            shards.unpack(bytes(damaged))
    for length in (0, 5, len(record) - 1):
        with pytest.raises(shards.ShardError, match=r"fewer than its header|check sum"):
            shards.unpack(record[:length])
    body = record[8:] + b"more"
    with pytest.raises(shards.ShardError, match="does not fit its shape"):
        shards.unpack(b"HXP1" + struct.pack("<I", zlib.crc32(body)) + body)


def test_read_in_any_order(folder):
    opened = shards.open_shards(folder)
    assert len(opened) == 7
    assert opened.smallest == (2, 9, 10)
    for index in (6, 0, 5, 4, 0):
        assert same(opened.read(index), piece(index, (2, 9, 10) if index == 6 else (3, 16, 12)))
    assert opened.where(5) == f"{folder}/b.arrayrecord record 0 (folder/clip é5.mp4, frame 35)"
    again = pickle.loads(pickle.dumps(opened))
    assert same(again.read(2), piece(2))


def test_damaged_record_is_named_and_the_others_live(folder):
    damage(folder / "a.arrayrecord", piece(2).frames.tobytes()[:40])
    opened = shards.open_shards(folder)
    for _ in range(2):
        with pytest.raises(shards.ShardError, match=r"a\.arrayrecord record 2 \(folder/clip é2\.mp4, frame 14\)"):
            opened.read(2)
        for index in (1, 3, 6):
            opened.read(index)


def test_record_that_is_not_the_indexed_one(folder):
    index = json.loads((folder / "index.json").read_text())
    index["files"][0]["pieces"][1][1] = 8
    (folder / "index.json").write_text(json.dumps(index))
    opened = shards.open_shards(folder)
    opened.read(0)
    with pytest.raises(shards.ShardError, match=r"record 1 .*index\.json says"):
        opened.read(1)


def test_folders_that_cannot_be_opened(folder, tmp_path):
    with pytest.raises(shards.ShardError, match=r"no finished folder of shards.*train\.prepare VIDEOS --out"):
        shards.open_shards(tmp_path)
    path, index = folder / "b.arrayrecord", (folder / "index.json").read_text()
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(shards.ShardError, match=rf"b\.arrayrecord has {len(whole) - 100} bytes, {len(whole)} were"):
        shards.open_shards(folder)
    path.write_bytes(bytes(len(whole)))
    with pytest.raises(shards.ShardError, match="a shard cannot be read"):
        shards.open_shards(folder)
    path.unlink()
    with pytest.raises(shards.ShardError, match=r"b\.arrayrecord is missing"):
        shards.open_shards(folder)
    path.write_bytes(whole)
    for old, new, words in (
        ('"format": 1', '"format": 2', "format 2, and this program reads format 1"),
        (', ["folder/clip \\u00e96.mp4", 42, 1, 2, 9, 10]', "", r"have 7 records, index\.json has 6"),
    ):
        assert old in index
        (folder / "index.json").write_text(index.replace(old, new))
        with pytest.raises(shards.ShardError, match=words):
            shards.open_shards(folder)
    shards.write_index(folder, settings={}, files=[])
    with pytest.raises(shards.ShardError, match="hold no piece"):
        shards.open_shards(folder)


def test_nothing_written_where_there_is_no_piece(tmp_path):
    assert shards.write(tmp_path / "none.arrayrecord", iter([])) is None
    assert not list(tmp_path.iterdir())


def test_full_disk():
    with pytest.raises(OSError, match=r"cannot write /dev/full: .*No space left"):
        shards.write("/dev/full", map(piece, range(3)))


def test_staging(tmp_path):
    with shards.staging(tmp_path / "out") as folder:
        (folder / "file").write_text("x")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "file"]

    def staged(then):
        with shards.staging(tmp_path / "other") as folder:
            (folder / "file").write_text("x")
            then()

    with pytest.raises(ZeroDivisionError):
        staged(lambda: 1 / 0)
    with pytest.raises(FileExistsError, match="appeared meanwhile"):
        staged((tmp_path / "other").mkdir)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]
    with pytest.raises(FileNotFoundError, match="there is no folder"), shards.staging(tmp_path / "no" / "out"):
        pass
