"""Many clips to many pools: which clips belong to which host, which are done, and the work itself.

A clip's pool is ``OUT/<name>.fasta``, where the name is its path, suffix included, below the folder that all arguments
have in common. So no two clips share an output, and no output depends on which other clips there are.

What is done is known from a record beside each pool, ``<name>.fasta.json``: the settings (model and options), and size,
modification time and SHA-256 of the source and of the pool. A clip is skipped if the settings are the same and both
files are the recorded ones: the same size, and the same time or else the same hash, so that copied files count and no
file is hashed needlessly. Otherwise it is encoded again. The record is written just before its pool takes its name:
whenever the work is cut off, an existing pool has a record, and a pool that does not fit its record is made again. A
pool without a record is somebody else's, and one made from another clip is that clip's: both are refused by name, not
replaced.

Hosts share the list by size alone, whatever is done already, so they need not know of each other, and no file has two
writers. The list must be the same on all of them.
"""

import collections
import concurrent.futures
import dataclasses
import errno
import functools
import hashlib
import heapq
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from helix_jax import codec, files, notes, parallel, video
from helix_jax.config import CodecConfig
from helix_jax.errors import HelixError
from helix_jax.nets import Nets
from helix_jax.strands import fasta, library, primers

FORMAT = 6  # of records; raise it when the same settings give other strands
MOST_AT_ONCE = 8
_UNFINISHED = ".*.partial.fasta.json"  # records that another host is writing, or was killed at (``files.atomic``)


class BatchError(HelixError):
    """A clip, an output or a list that cannot be processed; the message says which and why."""


class _Stopped(Exception):
    """The batch is being stopped."""


@dataclass(frozen=True)
class Clip:
    """A clip to encode.

    Attributes:
        path: The source.
        name: The name of the output below the output folder, without ``.fasta``.
        size: Bytes of the source.
    """

    path: Path
    name: str
    size: int


@dataclass(frozen=True, eq=False)
class Task:
    """What is done to every clip.

    Attributes:
        out: The output folder.
        nets: As for ``codec.encode``.
        config: As for ``codec.encode``.
        motifs: As for ``codec.encode``.
        prepare: What is changed in a clip before it is encoded (see ``video.open_video``).
        pairs: The primers of each clip by its name, or None where all have those of the configuration.
    """

    out: Path
    nets: Nets
    config: CodecConfig
    motifs: tuple[str, ...] = ()
    prepare: video.Preparation = field(default_factory=video.Preparation)
    pairs: Mapping[str, library.Pair] | None = None

    def of(self, clip: Clip) -> "Task":
        """Return the task of one clip, with its primers in the configuration."""
        if self.pairs is None:
            return self
        pair = self.pairs[clip.name]
        strands = dataclasses.replace(self.config.strands, left_primer=pair.left, right_primer=pair.right)
        return dataclasses.replace(self, config=dataclasses.replace(self.config, strands=strands))

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """Everything but the source that a pool depends on, as JSON gives it back."""
        made_with = {
            "model": self.nets.tokenizer.digest.hex(),
            "prior": self.nets.prior.digest.hex() if self.nets.prior else None,
            "forbid": [word.upper() for word in self.motifs],
            "prepare": asdict(self.prepare) | {"fps": self.prepare.fps and str(self.prepare.fps)},
        }
        return json.loads(json.dumps(asdict(self.config) | made_with))

    def output(self, clip: Clip) -> Path:
        """Return the path of the clip's FASTA file."""
        return self.out / f"{clip.name}.fasta"


# ---- which clips -------------------------------------------------------------------------------------------


def find_clips(paths: Iterable[str | os.PathLike]) -> list[Clip]:
    """Find clips among files and folders, in the order of their names.

    Files are taken whatever their name. Folders are searched all the way down for files named like videos
    (``video.SUFFIXES``), hidden ones left out. A file that is found twice counts once. Raises BatchError for a missing
    path, and for a folder without videos.
    """
    files_found, roots = set(), []
    for path in (os.path.abspath(os.fspath(path)) for path in paths):
        if os.path.isdir(path):
            below = _search(path)
            if not below:
                raise BatchError(f"{path}: no file in this folder is named like a video ({' '.join(video.SUFFIXES)})")
            files_found.update(below)
            roots.append(path)
        elif os.path.exists(path):
            files_found.add(path)
            roots.append(os.path.dirname(path))
        else:
            raise BatchError(f"{path}: no such file or folder; check the path")
    if not files_found:
        raise BatchError("no videos: give files or folders")
    root = Path(os.path.commonpath(roots))
    clips = [Clip(path, path.relative_to(root).as_posix(), path.stat().st_size) for path in map(Path, files_found)]
    return sorted(clips, key=lambda clip: clip.name)


def _search(folder):
    paths = []
    for folder_path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [
            os.path.join(folder_path, name)
            for name in names
            if not name.startswith(".") and _is_video(folder_path, name)
        ]
    return paths


def _is_video(folder, name):
    suffix = os.path.splitext(name)[1].lower()
    return suffix in video.SUFFIXES and os.path.isfile(os.path.join(folder, name))


def share(clips: Iterable[Clip], host: int, hosts: int) -> list[Clip]:
    """Return the clips of one host, largest first: each clip in turn goes to the host that has the fewest bytes.

    Args:
        clips: All clips.
        host: The number of this host, from 0.
        hosts: The number of hosts.

    Returns:
        The clips of this host.
    """
    loads, mine = [(0, 0, number) for number in range(hosts)], []
    for clip in sorted(clips, key=lambda clip: (-clip.size, clip.name)):
        size, count, number = loads[0]
        heapq.heapreplace(loads, (size + clip.size, count + 1, number))
        if number == host:
            mine.append(clip)
    return mine


# ---- what is done ------------------------------------------------------------------------------------------


def is_done(clip: Clip, task: Task) -> bool:
    """Return whether the clip's pool is there, whole, and made from this content with these settings.

    Raises BatchError where the existing output must not be replaced by this clip's encoding.
    """
    output = task.output(clip)
    record = _read_record(output)
    if record is None:
        if output.exists():
            raise BatchError(f"{output} is there already, with no record of how it was made: move it away")
        return False
    if not _is_same(clip.path, record["source"]):
        before = record["source"]["path"]
        if before != str(clip.path) and output.exists():
            raise BatchError(f"{output} was made from another clip, {before}: give another --out, or move it away")
        return False
    return record["settings"] == task.of(clip).settings and _is_same(output, record["output"])


def pairs_of(clips: Sequence[Clip], out: Path, pairs: Mapping[str, library.Pair]) -> dict[str, library.Pair]:
    """Give every clip primers of its own (``library.assign``): those that its record says, or else free ones.

    Args:
        clips: The clips of all hosts.
        out: The output folder. Pairs that a record in it names are taken, whether its clip is among ``clips`` or not.
        pairs: The library.

    Returns:
        The pair of each clip by the clip's name.

    Raises:
        BatchError: A record cannot be read, so that the pair of its clip might be given to another one.
        LibraryError: The library has too few pairs, or others than those of the records.
    """
    taken = {}
    for path in sorted(out.rglob("*.fasta.json")):
        if path.match(_UNFINISHED):
            continue
        output = path.with_suffix("")
        pair = _pair_of(path)
        if pair is not None:
            taken[output.relative_to(out).with_suffix("").as_posix()] = pair
    return library.assign([clip.name for clip in clips], pairs, taken)


def _pair_of(path):
    """Return the pair that a record names, of whatever format, or None."""
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = str(error)
    else:
        if isinstance(record, dict) and record.get("pair") is None:  # its clip has no pair of a library
            return None
        pair = record["pair"] if isinstance(record, dict) else None
        names = {entry.name for entry in dataclasses.fields(library.Pair)}
        if isinstance(pair, dict) and pair.keys() == names and all(isinstance(word, str) for word in pair.values()):
            return library.Pair(**pair)
        reason = "it names no pair of primers as such records do"
    raise BatchError(f"{path} is damaged ({reason}): bring it back, or move it away with its pool")


def _record_path(output):
    return output.with_name(f"{output.name}.json")


def _read_record(output):
    try:
        record = json.loads(_record_path(output).read_text())
    except (FileNotFoundError, ValueError):
        return None
    whole = isinstance(record, dict) and {"source", "settings", "output"} <= record.keys()
    return record if whole and record.get("format") == FORMAT else None


def _stamp(path):
    """Return what distinguishes one content of a file from another."""
    facts = path.stat()
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"path": str(path), "bytes": facts.st_size, "modified_ns": facts.st_mtime_ns, "sha256": digest}


def _is_same(path, stamp):
    try:
        facts = path.stat()
    except FileNotFoundError:
        return False
    if facts.st_size != stamp["bytes"]:
        return False
    return facts.st_mtime_ns == stamp["modified_ns"] or _stamp(path)["sha256"] == stamp["sha256"]


# ---- the work ----------------------------------------------------------------------------------------------


def encode_clip(clip: Clip, task: Task, progress: Callable[[str, int, int], None] | None = None) -> dict[str, Any]:
    """Encode one clip, and write its pool and its record.

    Args:
        clip: The clip.
        task: What is done to it.
        progress: As for ``codec.encode``; called first as progress("open", frames, frames).

    Returns:
        The record.

    Raises:
        ValueError: With the reason.
        OSError: With the reason.
    """
    task, output = task.of(clip), task.output(clip)
    source = _stamp(clip.path)
    reader = video.open_video(clip.path, task.prepare)
    if progress:
        progress("open", reader.info.frames, reader.info.frames)
    note = notes.Note(notes.fitted(clip.path.name), source["bytes"], bytes.fromhex(source["sha256"]))
    pool = codec.encode(reader, task.nets, config=task.config, motifs=task.motifs, note=note, progress=progress)
    if clip.path.stat().st_mtime_ns != source["modified_ns"]:
        raise BatchError(f"{clip.path}: changed while it was read; run again")
    output.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(output) as temporary:
        fasta.write_pool(temporary, pool)
        record = {
            "format": FORMAT,
            "source": source,
            "output": _stamp(temporary) | {"path": str(output)},
            "settings": task.settings,
            "pair": None if task.pairs is None else asdict(task.pairs[clip.name]),
            "key": pool.header.key.hex(),
            "frames": reader.info.frames,
            "strands": len(pool.strands),
            "nucleotides": int(pool.strands.size),
            "sound": any(section.kind == "sound" for section in pool.header.sections),
            "not_kept": sorted(reader.losses[pool.header.codec]),
            "near_primers": {primer: len(near) for primer, near in primers.in_pool(pool).items()},
        }
        _write_json(_record_path(output), record)
    return record


def run(
    clips: Sequence[Clip],
    task: Task,
    *,
    host: int = 0,
    hosts: int = 1,
    at_once: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Encode the clips that are not done; write and return the summary, ``OUT/summary-<host>.json``.

    A clip that fails is listed in the summary under ``failures``, {path: reason}. Ctrl-C ends the clips in work at
    their next group of frames; the summary then says ``interrupted``, and how many clips are ``left``. Times are those
    of the clips encoded here: ``seconds`` from the first to the last, and ``startup_seconds`` before, for tables and
    compilation.

    Args:
        clips: The clips of this host, in the order of the work (``share``).
        task: What is done to every clip.
        host: The number of this host.
        hosts: The number of hosts.
        at_once: Clips in work at once, so that some are read and written while others compute; None: as many as there
            are cores, up to MOST_AT_ONCE.
        progress: Called as progress(station, done, total) with clips and frames; the total of the frames is a guess
            until all clips are open.

    Returns:
        The summary.

    Raises:
        ConstraintError: For settings that suit no clip.
        ValueError: For settings that suit no clip.
        OutputError: Where the disk is full.
    """
    files_made, failures = [], {}
    task.out.mkdir(parents=True, exist_ok=True)
    todo = []
    for clip in clips:
        try:
            if not is_done(clip, task):
                todo.append(clip)
        except (HelixError, OSError) as error:
            failures[str(clip.path)] = _reason(clip, error)
    skipped = len(clips) - len(todo) - len(failures)
    begin = time.perf_counter()
    if todo:
        _start_up(task.of(todo[0]))
    ready = time.perf_counter()
    meter = _Meter(todo, progress)
    stop = threading.Event()

    def encode_one(clip):
        def step(station, done, total):
            if stop.is_set():
                raise _Stopped
            meter.step(clip, station, done)

        try:
            step("clips", 0, 1)
            files_made.append(encode_clip(clip, task, step))
        except _Stopped:
            return
        except Exception as error:  # whatever is wrong with one clip, the others go on
            if isinstance(error, files.OutputError) and _disk_is_full(error):
                raise
            failures[str(clip.path)] = _reason(clip, error)
        meter.step(clip, "clips", 1)

    interrupted = False
    with concurrent.futures.ThreadPoolExecutor(at_once or min(MOST_AT_ONCE, os.cpu_count() or 1)) as threads:
        work = [threads.submit(encode_one, clip) for clip in todo]
        try:
            for future in concurrent.futures.as_completed(work):
                future.result()
        except KeyboardInterrupt:
            interrupted = True
        finally:
            stop.set()
            threads.shutdown(cancel_futures=True)
    seconds = time.perf_counter() - ready if files_made else 0.0
    summary = {
        "out": str(task.out),
        "host": host,
        "hosts": hosts,
        "clips": len(clips),
        "done": len(files_made),
        "skipped": skipped,
        "failed": len(failures),
        "left": len(clips) - skipped - len(files_made) - len(failures),
        "interrupted": interrupted,
        **_rates(files_made, seconds),
        "seconds": round(seconds, 3),
        "startup_seconds": round(ready - begin, 3),
        "with_sound": sum(record["sound"] for record in files_made),
        "not_kept": dict(sorted(collections.Counter(kind for r in files_made for kind in r["not_kept"]).items())),
        "near_primers": _sums(record["near_primers"] for record in files_made),
        "primed_strands": _sums(dict.fromkeys(record["near_primers"], record["strands"]) for record in files_made),
        "failures": dict(sorted(failures.items())),
        "settings": task.settings,
    }
    _write_json(task.out / f"summary-{host}.json", summary)
    return summary


class _Meter:
    """The progress of all clips, from any thread. Frames of clips not yet open are guessed from their bytes."""

    def __init__(self, clips, progress):
        self.progress, self.lock, self.clips = progress, threading.Lock(), len(clips)
        self.closed_bytes = sum(clip.size for clip in clips)
        self.open_bytes = self.frames = 0

    def step(self, clip, station, done):
        if not self.progress:
            return
        with self.lock:
            if station == "clips":
                self.progress("clips", done, self.clips)
            elif station == "open":
                self.frames += done
                self.open_bytes += clip.size
                self.closed_bytes -= clip.size
            elif station in ("tokens", "av1"):
                guess = self.frames + round(self.frames * self.closed_bytes / max(self.open_bytes, 1))
                self.progress("frames", done, guess)


def _start_up(task):
    """Build the tables, compile for every size, and find out now whether the settings suit no clip at all."""
    if task.config.codec != "av1":
        smallest = video.Clip(np.zeros((1, 8, 8, 3), np.uint8))
        config = dataclasses.replace(task.config, codec="tokens")
        codec.encode(smallest, task.nets, config=config, motifs=task.motifs)
    # A strand carries at most two bits per nucleotide, so this makes enough strands for the large shape.
    data = bytes(parallel.SMALL_BATCH * task.config.strands.length // 4 + 1)
    codec.pack(data, config=task.config, motifs=task.motifs, compress=False)


def _rates(records, seconds):
    """Return the counts of what was encoded, and each per second, and per second and device."""
    devices = parallel.mesh().size
    figures: dict[str, int | float] = {"devices": devices}
    for name in ("frames", "strands", "nucleotides"):
        figures[name] = sum(record[name] for record in records)
    for name in ("frames", "nucleotides"):
        rate = figures[name] / seconds if seconds else 0.0
        figures[f"{name}_per_second"] = round(rate, 2)
        figures[f"{name}_per_second_per_device"] = round(rate / devices, 2)
    return figures


def _sums(counts):
    total = {}
    for record in counts:
        for name, count in record.items():
            total[name] = total.get(name, 0) + count
    return total


def _reason(clip, error):
    """Return the reason in one line, without the clip's name, which is shown beside it."""
    text = " ".join(str(error).split()).removeprefix(f"{clip.path}: ")
    if isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    return text if isinstance(error, (HelixError, OSError)) else f"{type(error).__name__}: {text}"


def _disk_is_full(error):
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)


def _write_json(path, value):
    with files.atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n")
