"""The user's cache: where it is, how large it may grow, and how it is cleared. Nothing here imports JAX.

    tables-*.npz, capacity-*.npz    results for constraint sets (``tk_scone.tables``, ``tk_scone.capacity``)
    xla/                            programs that XLA compiled, written by JAX

Everything in it can be made again. When the files of a kind exceed its limit, the file that was not used for longest is
removed first. Other processes may use the cache at the same time, so any file may vanish at any moment.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

COMPILED_IN = "JAX_COMPILATION_CACHE_DIR"  # the user's own setting of JAX, which is left as it is


@dataclass(frozen=True)
class Kind:
    """One kind of files.

    Attributes:
        name: The name of the kind.
        folder: Its folder within the cache's.
        patterns: Patterns of the files' names, so that nothing else is touched.
        limit: The most bytes in all.
    """

    name: str
    folder: str
    patterns: tuple[str, ...]
    limit: int


# a process that was killed while it wrote leaves a .partial file behind
TABLES = Kind("tables", ".", ("tables-*.npz", "capacity-*.npz", ".*.partial.npz"), 1 << 30)
PROGRAMS = Kind("programs", "xla", ("*-cache", "*-atime"), 1 << 29)
KINDS = (TABLES, PROGRAMS)


def folder() -> Path:
    """Return the cache's folder, which need not exist."""
    return Path(platformdirs.user_cache_dir("helix_jax"))


def compiler_settings() -> dict[str, str | float]:
    """Return the settings of JAX that keep compiled programs here; none where the user has set a folder of their own.

    Programs that compile faster than in a tenth of a second are not worth a file.
    """
    ours = str(folder() / PROGRAMS.folder)
    if os.environ.get(COMPILED_IN, ours) != ours:
        return {}
    return {
        "jax_compilation_cache_dir": ours,
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }


def files(kind: Kind) -> list[tuple[Path, int]]:
    """Return the files of a kind and their bytes, those not used for longest first."""
    used = []
    for pattern in kind.patterns:
        for path in (folder() / kind.folder).glob(pattern):
            with contextlib.suppress(OSError):
                facts = path.stat()
                # JAX does not touch the files that it reads; most file systems note a reading once a day.
                used.append((max(facts.st_mtime_ns, facts.st_atime_ns), path, facts.st_size))
    return [(path, size) for _, path, size in sorted(used)]


def touch(path: str | os.PathLike) -> None:
    """Note that a file is used now."""
    with contextlib.suppress(OSError):
        os.utime(path)


def trim(kind: Kind, keep: Path | None = None) -> None:
    """Remove files not used for longest until the kind is within its limit; ``keep`` was just used and stays."""
    oldest_first = files(kind)
    total = sum(size for _, size in oldest_first)
    for path, size in oldest_first:
        if total <= kind.limit:
            return
        if path != keep:
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size


def clear() -> tuple[int, int]:
    """Remove every file of the cache: (number of files, bytes). Raises OSError where one cannot be removed."""
    count, total = 0, 0
    for kind in KINDS:
        for path, size in files(kind):
            path.unlink(missing_ok=True)
            count, total = count + 1, total + size
    return count, total


def figures() -> dict[str, str | int]:
    """Return what the cache holds, as plain numbers and strings."""
    report: dict[str, str | int] = {"folder": str(folder())}
    for kind in KINDS:
        sizes = [size for _, size in files(kind)]
        report |= {f"{kind.name}_files": len(sizes), f"{kind.name}_bytes": sum(sizes), f"{kind.name}_limit": kind.limit}
    if not compiler_settings():
        report[COMPILED_IN] = f"{os.environ[COMPILED_IN]} (new programs go there; not counted here)"
    return report
