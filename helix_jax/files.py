"""Files of the user: what may be written where, standard input and output, and outputs that are whole or absent.

``check_paths`` is called before any work. ``atomic`` writes under a temporary name and renames. The name ``-`` stands
for standard input where a file is read, and for standard output where one is written.
"""

import contextlib
import errno
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from helix_jax.errors import HelixError

PathLike = str | os.PathLike

STANDARD = "-"
# suffixes that neither FASTA nor FASTQ should have
_OTHER = (
    *(".bz2", ".xz", ".zst", ".zip", ".7z", ".tar", ".bam", ".sam", ".cram", ".csv", ".tsv", ".xlsx"),
    *(".mp4", ".mov", ".mkv", ".webm", ".avi"),
)
_FULL = {errno.ENOSPC: "no space left", errno.EDQUOT: "quota exceeded", errno.EFBIG: "file too large for the disk"}


class OutputError(HelixError, OSError):
    """An output file cannot be written (an OSError too, so callers that expect one still catch it)."""


class WeightsError(HelixError):
    """A weights file that is missing, damaged, or of another model."""


def safetensors_bytes(tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """Return NumPy arrays and notes, both by name, as a safetensors file: the same ones give the same bytes.

    The library writes the notes in any order; here they are sorted.
    """
    import safetensors.numpy  # imported here, as most commands read no weights

    blob = safetensors.numpy.save(dict(tensors), metadata=dict(metadata))
    end = 8 + int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8:end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + blob[end:]


# ---- before any work ---------------------------------------------------------------------------------------


def is_standard(path: PathLike) -> bool:
    """Return whether a path is ``-``: standard input or output."""
    return str(path) == STANDARD


def check_paths(
    reads: Iterable[PathLike | None] = (),
    writes: Iterable[PathLike | None] = (),
    folders: Iterable[PathLike] = (),
) -> None:
    """Refuse outputs that cannot be written, or that would destroy an input, before anything is read.

    Two names are the same file if they lead to the same inode: by a symbolic link, by a hard link, or through a
    redirection of standard input.

    Args:
        reads: Input files. None stands for an option that was not given, and ``-`` for standard input.
        writes: Output files. None stands for an option that was not given, and ``-`` for standard output.
        folders: Output folders, which may be missing.

    Raises:
        OutputError: If an output cannot be written, or is an input.
        HelixError: Where ``-`` is read twice.
    """
    reads, writes = ([path for path in paths if path is not None] for paths in (reads, writes))
    if any(map(is_standard, reads)) and os.path.lexists(STANDARD):
        raise HelixError("- is standard input, and a file of that name is in this folder too: give its full path")
    if sum(map(is_standard, reads)) > 1:
        raise HelixError("standard input (-) can be read only once: give a file for one of the inputs")
    identities = {}
    for path in reads:
        identity = _identity(path, sys.stdin)
        if identity is not None:
            identities[identity] = path
    taken = {}
    for path in writes:
        target = STANDARD if is_standard(path) else str(check_target(path))
        if target in taken:
            raise OutputError(f"cannot write {path}: another output has that name too; give each a name of its own")
        taken[target] = path
        identity = _identity(path, sys.stdout)
        if identity in identities:
            raise OutputError(
                f"cannot write {_named(path, 'standard output')}: it is the input "
                f"{_named(identities[identity], 'standard input')}, which would be destroyed; give another name"
            )
    for folder in folders:
        _check_folder(folder)


def _identity(path, standard):
    """Return (device, inode) of a regular file, None of anything else.

    ``standard`` is the stream that ``-`` stands for.
    """
    try:
        facts = os.fstat(standard.fileno()) if is_standard(path) else os.stat(path)
    except (OSError, ValueError, AttributeError):  # a missing file, or a stream without a file behind it
        return None
    return (facts.st_dev, facts.st_ino) if stat.S_ISREG(facts.st_mode) else None


def check_suffix(path: PathLike, suffixes: Collection[str], what: str) -> None:
    """Raise OutputError unless a file's name has one of the suffixes, in any case; ``what`` says what is written."""
    if Path(path).suffix.lower() not in suffixes:
        raise OutputError(f"cannot write {path}: {what}; give a name that ends in {' or '.join(suffixes)}")


def check_sequences(path: PathLike, what: str) -> None:
    """Raise OutputError for a file name that promises another format than plain or gzip FASTA or FASTQ.

    ``what`` says which of the two is written.
    """
    if Path(path).suffix.lower() in _OTHER:
        raise OutputError(
            f"cannot write {path}: it becomes {what}, plain or gzip; give a name that ends in .{what.lower()} or "
            f".{what.lower()}.gz"
        )


def _named(path, standard):
    return standard if is_standard(path) else path


def check_target(path: PathLike) -> Path:
    """Return the file that ``path`` leads to, links followed. Raises OutputError where no file can be written there."""
    target = Path(os.path.realpath(path))
    folder = target.parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {folder}; create it first")
    if target.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; name a file")
    if target.exists() and not target.is_file():
        raise OutputError(
            f"cannot write {path}: it is a device or a pipe, not a regular file; name a file, or - for standard output"
        )
    if target.exists() and not os.access(target, os.W_OK):
        raise OutputError(f"cannot write {path}: it is write-protected; choose another name")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write {path}: the folder {folder} is write-protected; choose another folder")
    return target


def check_room(path: PathLike, size: int) -> None:
    """Raise OutputError where fewer than ``size`` bytes are free for a file."""
    # what goes to standard output is in a temporary file before
    folder = tempfile.gettempdir() if is_standard(path) else Path(os.path.realpath(path)).parent
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OutputError(
            f"cannot write {path}: it has {size:,} bytes as the input states, and {free:,} are free in {folder}; free "
            "some or choose another disk"
        )


def _check_folder(path):
    folder = Path(os.path.realpath(path))
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"cannot write into {path}: it is a file; name a folder")
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write into {path}: {folder} is no folder that can be written to; choose another")


# ---- reading -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: PathLike) -> Iterator[BinaryIO]:
    """Open an input once, as a binary stream; a context manager. ``-`` is standard input.

    Raises HelixError for a folder or a missing file, and OSError for what the system refuses.
    """
    if is_standard(path):
        if sys.stdin is None:
            raise HelixError("standard input is closed: give a file, or open it")
        yield sys.stdin.buffer
        return
    try:
        stream = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError as error:
        raise HelixError(f"{path}: no such file; check the path") from error
    except IsADirectoryError as error:
        raise HelixError(f"{path}: it is a folder; name a file in it") from error
    with stream:
        yield stream


@contextlib.contextmanager
def local(path: PathLike) -> Iterator[Path]:
    """Give the path of a regular file with the bytes of ``path``, for libraries that open files themselves.

    This is a context manager. A regular file, or a missing one, stands for itself. Standard input (``-``) and pipes are
    copied to a temporary file that is deleted at the end.
    """
    if not is_standard(path) and (Path(path).is_file() or not Path(path).exists() or Path(path).is_dir()):
        yield Path(path)
        return
    with opened(path) as source, tempfile.TemporaryDirectory(prefix="helix-jax-") as folder:
        copy = Path(folder) / "input"
        with open(copy, "wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        yield copy


# ---- writing -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic(path: PathLike) -> Iterator[Path]:
    """Write the file ``path`` in one step; a context manager.

    It yields a temporary Path in the same folder with the same suffixes, so that libraries still guess the format from
    the name. The temporary file is renamed onto ``path`` when the block ends, and deleted when the block raises: what
    was at ``path`` before then stays as it was. A symbolic link is followed, not replaced. Where ``path`` is ``-``,
    what was written goes to standard output when the block ends.

    Raises OutputError when the folder is missing or not writable, when ``path`` is a folder or a device, and when the
    disk fills up while writing. Other exceptions of the block pass unchanged.
    """
    if is_standard(path):
        if sys.stdout is None:
            raise OutputError("cannot write to standard output: it is closed; give a file")
        with tempfile.TemporaryDirectory(prefix="helix-jax-") as folder:
            temporary = Path(folder) / "output"
            yield temporary
            with open(temporary, "rb") as done:
                shutil.copyfileobj(done, sys.stdout.buffer, 1 << 20)
            sys.stdout.buffer.flush()
        return
    target = check_target(path)
    temporary = target.parent / f".{secrets.token_hex(6)}.partial{''.join(target.suffixes[-2:])}"
    try:
        # Created here, and not by mkstemp, so that the file gets the permissions that umask asks for.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        if error.errno in _FULL:
            raise OutputError(f"cannot write {path}: {_FULL[error.errno]}; free some or choose another disk") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
