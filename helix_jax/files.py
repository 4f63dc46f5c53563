"""Output files that are either whole or absent: write under a temporary name, then rename. And files' errors."""

import contextlib
import errno
import json
import os
import secrets
from pathlib import Path

import safetensors.numpy

_FULL = {errno.ENOSPC: "no space left", errno.EDQUOT: "quota exceeded", errno.EFBIG: "file too large for the disk"}


class OutputError(OSError):
    """An output file cannot be written (an OSError, so callers that expect one still catch it)."""


class WeightsError(ValueError):
    """A weights file is missing, damaged, or of another model."""


def safetensors_bytes(tensors, metadata):
    """Arrays and notes (dicts by name) -> a safetensors file: the same ones give the same bytes. The library writes the
    notes in any order; here they are sorted."""
    blob = safetensors.numpy.save(tensors, metadata=metadata)
    end = 8 + int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8:end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + blob[end:]


@contextlib.contextmanager
def atomic(path):
    """Context manager for writing the file ``path`` in one step.

    Yields a temporary Path in the same folder with the same suffixes, so that libraries still guess the
    format from the name. It is renamed onto ``path`` when the block ends, and deleted when the block raises:
    whatever stood at ``path`` before then stays as it was. A symbolic link is followed, not replaced.

    Raises OutputError when the folder is missing or not writable, when ``path`` is a folder or a device, and
    when the disk fills up while writing. Other exceptions of the block pass unchanged.
    """
    target = Path(os.path.realpath(path))
    folder = target.parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {folder}; create it first")
    if target.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; name a file")
    if target.exists() and not target.is_file():
        raise OutputError(f"cannot write {path}: it is a device or a pipe, not a regular file; name a file")
    temporary = folder / f".{secrets.token_hex(6)}.partial{''.join(target.suffixes[-2:])}"
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
