"""Shards: pieces of video as records of ArrayRecord files, read at random. No jax here.

A *piece* is a few frames of one scene, cropped: uint8[T, H, W, 3] RGB. One record holds one piece (little endian):

    4 bytes   magic b"HXP1": 1 is the version of this format
    uint32    CRC-32 of every byte that follows
    uint8     scale: 1 = pixels of the source, 2 = means of its 2 x 2 blocks
    uint16    length of the clip's name in bytes
    uint16 x3 T, H, W: frames, rows, columns
    uint32    start: number of the first frame, counted from 0 in the source clip
    bytes     the clip's name, UTF-8
    bytes     T * H * W * 3 samples, in the order of uint8[T, H, W, 3]

A folder of shards:

    pieces-00000.arrayrecord ...  the records, one to a chunk so that each is read alone
    index.json                    {"format", "settings", "files": [{"file", "bytes", "pieces": [[clip, start, scale,
                                  T, H, W], ...]}]}: one row to a record, in order
    summary.json                  what train.prepare found; nothing reads it but people and train.prepare

The frames are not compressed. Measured on 32 x 128 x 128 pieces of the training videos, from the page cache: 0.8 ms
of CPU a record, against 1.9 ms with zstd level 1 (0.46 of the size, and 4 times slower to write).
"""

import contextlib
import json
import secrets
import shutil
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from helix_jax.errors import HelixError

FORMAT = 1
_MAGIC = b"HXP1"
_HEAD = struct.Struct("<4sI")
_BODY = struct.Struct("<BHHHHI")
_OPTIONS = "group_size:1,uncompressed"


class ShardError(HelixError):
    """Shards that cannot be read, or a record that is damaged: names the file and what is wrong."""


@dataclass(frozen=True)
class Piece:
    """clip: name of the source; start: its frame number there; scale: 1 or 2; frames: uint8[T, H, W, 3] RGB."""

    clip: str
    start: int
    scale: int
    frames: np.ndarray

    def row(self):
        """The piece's row in the index: [clip, start, scale, T, H, W]."""
        return [self.clip, self.start, self.scale, *self.frames.shape[:3]]


# ---- records -------------------------------------------------------------------------------


def pack(piece):
    """Piece -> the bytes of one record."""
    name = piece.clip.encode()
    body = _BODY.pack(piece.scale, len(name), *piece.frames.shape[:3], piece.start)
    body += name + np.ascontiguousarray(piece.frames).tobytes()
    return _HEAD.pack(_MAGIC, zlib.crc32(body)) + body


def unpack(record):
    """The bytes of one record -> Piece; its frames are a view of the record, read-only.

    Raises ShardError: too short, another format, a wrong check sum, or a length that its shape denies.
    """
    prefix = _HEAD.size + _BODY.size
    if len(record) < prefix:
        raise ShardError(f"the record has {len(record)} bytes, fewer than its header")
    magic, crc = _HEAD.unpack_from(record)
    if magic != _MAGIC:
        raise ShardError(f"the record starts with {magic!r}, not {_MAGIC!r}: another format")
    if zlib.crc32(memoryview(record)[_HEAD.size :]) != crc:
        raise ShardError("the check sum is wrong: the record is damaged")
    scale, length, *shape, start = _BODY.unpack_from(record, _HEAD.size)
    shape = (*shape, 3)
    if len(record) != prefix + length + int(np.prod(shape)):
        raise ShardError(f"the record has {len(record)} bytes, which does not fit its shape {shape}")
    frames = np.frombuffer(record, np.uint8, offset=prefix + length).reshape(shape)
    return Piece(bytes(record[prefix : prefix + length]).decode(), start, scale, frames)


# ---- writing -------------------------------------------------------------------------------


@contextlib.contextmanager
def staging(out):
    """Context manager for making the folder ``out`` in one step: yields an empty Path beside it.

    The folder is renamed to ``out`` when the block ends, and deleted when the block raises.
    Raises OSError where the parent is missing or not writable, or ``out`` exists by then.
    """
    out = Path(out).absolute()
    if not out.parent.is_dir():
        raise FileNotFoundError(f"cannot write {out}: there is no folder {out.parent}; create it first")
    temporary = out.parent / f".{out.name}.{secrets.token_hex(6)}.partial"
    temporary.mkdir()
    try:
        yield temporary
        if out.exists():  # rename would replace an empty folder without a word
            raise FileExistsError(f"cannot write {out}: it appeared meanwhile")
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write(path, pieces):
    """Write one shard from an iterable of Pieces, a piece in memory at a time.

    Returns the file's entry of the index, or None where there was no piece and so no file. Raises OSError where it
    cannot be written, for example on a full disk.
    """
    path = Path(path)
    rows, writer = [], None
    try:
        for piece in pieces:
            writer = writer or ArrayRecordWriter(str(path), _OPTIONS)
            writer.write(pack(piece))
            rows.append(piece.row())
        if writer:
            writer.close()
    except RuntimeError as error:  # array_record's, at close at the latest
        raise OSError(f"cannot write {path}: {error}") from error
    finally:
        if writer and writer.is_open():
            with contextlib.suppress(RuntimeError):
                writer.close()
    return {"file": path.name, "bytes": path.stat().st_size, "pieces": rows} if rows else None


def write_index(folder, *, settings, files):
    """Write index.json, which completes a folder of shards. settings: dict for JSON; files: entries of ``write``."""
    index = {"format": FORMAT, "settings": settings, "files": files}
    (Path(folder) / "index.json").write_text(json.dumps(index) + "\n")


# ---- reading -------------------------------------------------------------------------------


def read_index(folder):
    """index.json of a folder of shards as a dict. Raises ShardError where there is none, or of another format."""
    path = Path(folder) / "index.json"
    try:
        index = json.loads(path.read_text())
        version = index["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ShardError(
            f"{folder} is no finished folder of shards (no readable index.json); "
            f"make one: python -m train.prepare VIDEOS --out {folder}"
        ) from error
    if version != FORMAT:
        raise ShardError(f"{path}: format {version}, and this program reads format {FORMAT}; prepare the videos again")
    return index


class Shards:
    """Random access to the pieces of a folder, made by ``open_shards``; can be pickled, opens its files when read.

    rows: list of [clip, start, scale, T, H, W], one for each record. smallest: (T, H, W), the least of each.
    """

    def __init__(self, folder, index):
        self.folder = Path(folder)
        self.files = [(entry["file"], len(entry["pieces"])) for entry in index["files"]]
        self.rows = [row for entry in index["files"] for row in entry["pieces"]]
        self.smallest = tuple(min(row[axis] for row in self.rows) for axis in (3, 4, 5))
        try:
            self._source = ArrayRecordDataSource([str(self.folder / name) for name, _ in self.files])
        except (RuntimeError, ValueError) as error:
            raise ShardError(f"{self.folder}: a shard cannot be read ({error}); prepare the videos again") from error
        if len(self._source) != len(self.rows):
            raise ShardError(
                f"{self.folder}: the shards have {len(self._source)} records, index.json has {len(self.rows)}; "
                f"prepare the videos again"
            )

    def __len__(self):
        return len(self.rows)

    def where(self, index):
        """Name of a record for people: its file, its place there and its source."""
        clip, start = self.rows[index][:2]
        for name, records in self.files:
            if index < records:
                return f"{self.folder / name} record {index} ({clip}, frame {start})"
            index -= records
        raise IndexError(index)

    def read(self, index):
        """Record ``index`` as a Piece. Raises ShardError, naming the record, where it is damaged or not the indexed."""
        try:
            piece = unpack(self._source[index])
        except (RuntimeError, OSError, ValueError) as error:  # array_record raises RuntimeError for what it finds
            raise ShardError(f"{self.where(index)}: {error}") from error
        if piece.row() != self.rows[index]:
            raise ShardError(f"{self.where(index)}: holds {piece.row()}, index.json says {self.rows[index]}")
        return piece


def open_shards(folder):
    """Open a folder of shards. Returns Shards.

    Raises ShardError: no finished folder, another format, no piece, or a file that is missing, cut short or unreadable.
    """
    index = read_index(folder)
    for entry in index["files"]:
        path = Path(folder) / entry["file"]
        size = path.stat().st_size if path.is_file() else None
        if size != entry["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes, {entry['bytes']} were written"
            raise ShardError(f"{path} {found}; copy it again, or prepare the videos again")
    if not index["files"]:
        raise ShardError(f"{folder}: the shards hold no piece")
    return Shards(folder, index)
