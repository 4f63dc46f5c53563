"""The user's cache: where it is, how large it may grow, and how it is cleared. Nothing here imports JAX.

    tables-*.npz, capacity-*.npz    what constraint sets were worked out to (``tk_scone.tables``, ``tk_scone.capacity``)
    xla/                            programs that XLA compiled, written by JAX

Everything in it can be made again. Past the limit of its kind the file that was not used for longest goes first.
Other processes may use the cache at the same time, so any file may vanish at any moment.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

COMPILED_IN = "JAX_COMPILATION_CACHE_DIR"  # the user's own setting of JAX, which is left as it is


@dataclass(frozen=True)
class Kind:
    """One kind of files. folder: within the cache's. patterns: of their names, so that nothing else is touched.
    limit: most bytes in all."""

    name: str
    folder: str
    patterns: tuple[str, ...]
    limit: int


# a process that was killed while it wrote leaves a .partial file behind
TABLES = Kind("tables", ".", ("tables-*.npz", "capacity-*.npz", ".*.partial.npz"), 1 << 30)
PROGRAMS = Kind("programs", "xla", ("*-cache", "*-atime"), 1 << 29)
KINDS = (TABLES, PROGRAMS)


def folder():
    """The cache's folder, which need not exist (pathlib.Path)."""
    return Path(platformdirs.user_cache_dir("helix_jax"))


def compiler_settings():
    """Settings of JAX that keep compiled programs here: dict of name -> value; empty where the user has
    set a folder of their own.

    Programs that compile faster than in a tenth of a second are not worth a file.
    """
    ours = str(folder() / PROGRAMS.folder)
    if os.environ.get(COMPILED_IN, ours) != ours:
        return {}
    return {
        "jax_compilation_cache_dir": ours,
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }


def files(kind):
    """The files of a kind, those not used for longest first: list of (Path, bytes)."""
    found = []
    for pattern in kind.patterns:
        for path in (folder() / kind.folder).glob(pattern):
            with contextlib.suppress(OSError):
                facts = path.stat()
                # JAX does not touch what it reads; most file systems note a reading once a day
                found.append((max(facts.st_mtime_ns, facts.st_atime_ns), path, facts.st_size))
    return [(path, size) for _, path, size in sorted(found)]


def touch(path):
    """Note that a file is used now."""
    with contextlib.suppress(OSError):
        os.utime(path)


def trim(kind, keep=None):
    """Remove files not used for longest until the kind is within its limit. keep: the file just used, which stays."""
    found = files(kind)
    total = sum(size for _, size in found)
    for path, size in found:
        if total <= kind.limit:
            return
        if path != keep:
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size


def clear():
    """Remove every file of the cache: (number of files, bytes). Raises OSError where one cannot be removed."""
    count, total = 0, 0
    for kind in KINDS:
        for path, size in files(kind):
            path.unlink(missing_ok=True)
            count, total = count + 1, total + size
    return count, total


def figures():
    """What the cache holds, as plain numbers and strings."""
    found = {"folder": str(folder())}
    for kind in KINDS:
        sizes = [size for _, size in files(kind)]
        found |= {f"{kind.name}_files": len(sizes), f"{kind.name}_bytes": sum(sizes), f"{kind.name}_limit": kind.limit}
    if not compiler_settings():
        found[COMPILED_IN] = f"{os.environ[COMPILED_IN]} (new programs go there; not counted here)"
    return found
