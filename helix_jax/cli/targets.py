"""Where `unpack` and `decode` write: a file, or a folder in which the file gets the name that its pool knows."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helix_jax import files
from helix_jax.errors import HelixError

if TYPE_CHECKING:
    from helix_jax.notes import Note


@dataclass(frozen=True)
class Target:
    """The value of -o.

    Attributes:
        text: What the user gave.
    """

    text: str

    @property
    def folder(self) -> Path | None:
        """The folder, which may have to be made, or None where a file is named."""
        return Path(self.text) if self.text.endswith(("/", os.sep)) or os.path.isdir(self.text) else None

    @property
    def file(self) -> Path | None:
        """The file, or None where a folder is named."""
        return None if self.folder else Path(self.text)

    def check(self) -> None:
        """Refuse a folder that cannot be written into, before any work. Raises OutputError."""
        files.check_paths(folders=filter(None, [self.folder]))

    def path(self, note: "Note | None", suffixes: Collection[str] = (), others: Collection[Path | None] = ()) -> Path:
        """Return the file to write.

        Args:
            note: What the pool knows of its file. A file of that name is not replaced, as nobody has named it.
            suffixes: Those that the file may have; it gets the first of them in place of another one. Empty: any.
            others: Further outputs of the command; None stands for an option that was not given.

        Raises:
            HelixError: A folder is named, and the pool knows no name, or one that is taken.
        """
        if not self.folder:
            return Path(self.text)
        if note is None or not note.name:
            raise HelixError(f"-o {self.text}: the pool knows no name for its file; give a file name")
        name = Path(note.name.replace("%", "_") if suffixes else note.name)  # a % may make it a sequence of images
        if suffixes and name.suffix.lower() not in suffixes:
            name = name.with_suffix(next(iter(suffixes)))
        path = self.folder / name
        if os.path.lexists(path):
            raise files.OutputError(f"cannot write {path}: it is there already; give -o its name to replace it")
        if os.path.realpath(path) in (os.path.realpath(other) for other in others if other):
            raise files.OutputError(f"cannot write {path}: another output has that name too; give -o a file name")
        self.folder.mkdir(parents=True, exist_ok=True)
        files.check_target(path)
        return path
