"""Shards: pieces of video as records of ArrayRecord files, with random access. This module does not use jax.

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

    pieces-00000.arrayrecord ...  the records, one in each chunk, so that each can be read on its own
    index.json                    {"format", "settings", "files": [{"file", "bytes", "pieces": [[clip, start, scale,
                                  T, H, W], ...]}]}: one row for each record, in order
    summary.json                  what train.prepare found, for people; only train.prepare reads it

The frames are not compressed. Measured on 32 x 128 x 128 pieces of the training videos, from the page cache, a record
takes 0.8 ms of CPU time, against 1.9 ms with zstd level 1 (which has 0.46 of the size, and is 4 times slower to write).
"""

import contextlib
import json
import os
import secrets
import shutil
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from jaxtyping import UInt8

from helix_jax.errors import HelixError

FORMAT = 1
_MAGIC = b"HXP1"
_HEAD = struct.Struct("<4sI")
_BODY = struct.Struct("<BHHHHI")
_OPTIONS = "group_size:1,uncompressed"


class ShardError(HelixError):
    """Shards cannot be read, or a record is damaged; the message names the file and what is wrong."""


@dataclass(frozen=True)
class Piece:
    """A few frames of one scene, cropped.

    Attributes:
        clip: name of the source clip.
        start: number of the first frame there.
        scale: 1 for pixels of the source, 2 for means of its 2 x 2 blocks.
        frames: the pixels, RGB.
    """

    clip: str
    start: int
    scale: int
    frames: UInt8[np.ndarray, "T H W 3"]

    def row(self) -> list[Any]:
        """Return the piece's row in the index: [clip, start, scale, T, H, W]."""
        return [self.clip, self.start, self.scale, *self.frames.shape[:3]]


# ---- records -------------------------------------------------------------------------------


def pack(piece: Piece) -> bytes:
    """Return the bytes of the record that holds a piece."""
    name = piece.clip.encode()
    body = _BODY.pack(piece.scale, len(name), *piece.frames.shape[:3], piece.start)
    body += name + np.ascontiguousarray(piece.frames).tobytes()
    return _HEAD.pack(_MAGIC, zlib.crc32(body)) + body


def unpack(record: bytes) -> Piece:
    """Return the piece that a record holds; its frames are a read-only view of the record.

    Raises ShardError if the record is too short, damaged or in another format, or if its length does not fit its shape.
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
def staging(out: str | os.PathLike) -> Iterator[Path]:
    """Context manager that makes the folder ``out`` in one step: it yields an empty folder beside it.

    That folder is renamed to ``out`` when the block ends, and deleted if the block raises an error. Raises OSError if
    the parent is missing or not writable, or if ``out`` exists by then.
    """
    out = Path(out).absolute()
    if not out.parent.is_dir():
        raise FileNotFoundError(f"cannot write {out}: there is no folder {out.parent}; create it first")
    temporary = out.parent / f".{out.name}.{secrets.token_hex(6)}.partial"
    temporary.mkdir()
    try:
        yield temporary
        if out.exists():  # rename would silently replace an empty folder
            raise FileExistsError(f"cannot write {out}: it appeared meanwhile")
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write(path: str | os.PathLike, pieces: Iterable[Piece]) -> dict[str, Any] | None:
    """Write one shard, with one piece at a time in memory.

    Returns the entry of the file in the index, or None if there was no piece and thus no file. Raises OSError if the
    file cannot be written, for example on a full disk.
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
    except RuntimeError as error:  # from array_record, at the latest when it is closed
        raise OSError(f"cannot write {path}: {error}") from error
    finally:
        if writer and writer.is_open():
            with contextlib.suppress(RuntimeError):
                writer.close()
    return {"file": path.name, "bytes": path.stat().st_size, "pieces": rows} if rows else None


def write_index(folder: str | os.PathLike, *, settings: dict[str, Any], files: Sequence[dict[str, Any]]) -> None:
    """Write index.json, which completes a folder of shards.

    Args:
        folder: the folder.
        settings: what the shards were made with, for JSON.
        files: the entries that ``write`` returned.
    """
    index = {"format": FORMAT, "settings": settings, "files": files}
    (Path(folder) / "index.json").write_text(json.dumps(index) + "\n")


# ---- reading -------------------------------------------------------------------------------


def read_index(folder: str | os.PathLike) -> dict[str, Any]:
    """Return the index.json of a folder of shards. Raises ShardError if there is none, or if its format is another."""
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
    """Random access to the pieces of a folder, made by ``open_shards``.

    It can be pickled, and opens its files when they are read.

    Attributes:
        folder: the folder.
        files: (name, number of records) of each file.
        rows: [clip, start, scale, T, H, W] of each record.
        smallest: the least T, the least H and the least W of all records.
    """

    def __init__(self, folder: str | os.PathLike, index: dict[str, Any]) -> None:
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

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int) -> str:
        """Return the name of a record for messages: its file, its position there and its source."""
        clip, start = self.rows[index][:2]
        for name, records in self.files:
            if index < records:
                return f"{self.folder / name} record {index} ({clip}, frame {start})"
            index -= records
        raise IndexError(index)

    def read(self, index: int) -> Piece:
        """Return the piece of a record. Raises ShardError, naming the record, if it is damaged or not as indexed."""
        try:
            piece = unpack(self._source[index])
        except (RuntimeError, OSError, ValueError) as error:  # array_record raises RuntimeError
            raise ShardError(f"{self.where(index)}: {error}") from error
        if piece.row() != self.rows[index]:
            raise ShardError(f"{self.where(index)}: holds {piece.row()}, index.json says {self.rows[index]}")
        return piece


def open_shards(folder: str | os.PathLike) -> Shards:
    """Open a folder of shards.

    Raises ShardError if the folder is incomplete, in another format or without a piece, or if a file is missing,
    truncated or unreadable.
    """
    index = read_index(folder)
    for entry in index["files"]:
        path = Path(folder) / entry["file"]
        size = path.stat().st_size if path.is_file() else None
        if size != entry["bytes"]:
            fault = "is missing" if size is None else f"has {size} bytes, {entry['bytes']} were written"
            raise ShardError(f"{path} {fault}; copy it again, or prepare the videos again")
    if not index["files"]:
        raise ShardError(f"{folder}: the shards hold no piece")
    return Shards(folder, index)
