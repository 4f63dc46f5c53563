"""What the user names -> the files to read, in order: files, folders with their subfolders, patterns, standard input.

Of a folder those files are read whose name says that they hold strands or reads. A sequencer's run folder also has
reads that failed its quality check, in folders such as ``fastq_fail``, and may have the same reads twice, as FASTQ and
as BAM: such folders are left out, and said. Files of the first and of the second reads of pairs are found by their
names.
"""

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from helix_jax import files
from helix_jax.errors import HelixError

PathLike = str | os.PathLike

_NAMED = re.compile(r"\.(fasta|fas|fa|fna|fastq|fq|sam|bam|cram)(\.(gz|bgz|bgzf|bz2|xz|zst))?$", re.IGNORECASE)
_SIGNALS = (".pod5", ".fast5")
_FAILED = re.compile(r"(^|_)fail(ed)?$", re.IGNORECASE)  # MinKNOW: fastq_fail, bam_fail, pod5_fail
_TWICE = ("bam_pass", "fastq_pass")  # where MinKNOW writes both, they hold the same reads
# Illumina's names (S1_L001_R1_001.fastq.gz) and those of the sequence archives (SRR1_1.fastq)
_MATE = re.compile(
    r"^(?P<before>(?:.*[._-])?R|.*[._-])(?P<end>[12])(?P<after>(?:_\d{3})?(?:\.[A-Za-z]\w*)*?\.(?:fastq|fq)(?:\.\w+)?)$"
)


@dataclass(frozen=True)
class Inputs:
    """The files to read.

    Attributes:
        files: In order; two in a tuple hold the first and the second reads of pairs.
        warnings: What was left out or is doubtful, as sentences without a full stop.
    """

    files: tuple[PathLike | tuple[PathLike, PathLike], ...]
    warnings: tuple[str, ...] = ()

    @property
    def paths(self) -> list[PathLike]:
        """All files, one after the other."""
        return [path for entry in self.files for path in (entry if isinstance(entry, tuple) else (entry,))]


def found(named: PathLike | Sequence[PathLike]) -> Inputs:
    """Return the files that the user means.

    Args:
        named: Files, folders, patterns as in ``run/*.fastq.gz`` (``**`` stands for any subfolders), and ``-`` for
            standard input. A file that there is not stays as it is, for its reader to tell.

    Raises:
        HelixError: For a pattern that no file matches, and for a folder without files to read.
    """
    named = [named] if isinstance(named, str | os.PathLike) else list(named)
    paths, warnings = [], []
    for name in named:
        for path in _matching(name):
            paths += _in_folder(Path(path), warnings) if os.path.isdir(path) else [path]
    return Inputs(tuple(_paired(_once(paths, warnings), warnings)), tuple(warnings))


def _matching(name):
    """Return what a pattern stands for; what is no pattern stands for itself."""
    if files.is_standard(name) or os.path.lexists(name) or not glob.has_magic(str(name)):
        return [name]
    matching = sorted(glob.glob(str(name), recursive=True))
    if not matching:
        raise HelixError(f"{name}: no file matches this pattern; check the path")
    if any(not os.path.isdir(path) for path in matching):  # run/* means the files of the folder
        matching = [path for path in matching if not os.path.isdir(path)]
    return [Path(path) for path in matching]


def _in_folder(folder, warnings):
    """Return the files of a folder and its subfolders that hold strands or reads."""
    here, signals, failed, been = [], 0, 0, set()

    def unread(error):
        warnings.append(f"{error.filename} cannot be read ({error.strerror}): what is in it is left out")

    for place, folders, names in os.walk(folder, onerror=unread, followlinks=True):
        kept = {sub for sub in folders if not sub.startswith(".")}
        if os.path.realpath(place) in been:  # a link that leads back
            folders.clear()
            continue
        been.add(os.path.realpath(place))
        if kept.issuperset(_TWICE) and any(_count(Path(place) / _TWICE[1])):
            kept.remove(_TWICE[0])
            warnings.append(f"{Path(place) / _TWICE[0]} is left out: {_TWICE[1]} beside it holds the same reads")
        for sub in sorted(kept):
            if _FAILED.search(sub):
                kept.remove(sub)
                failed += sum(_count(Path(place) / sub))
                if any(_count(Path(place) / sub)):
                    warnings.append(
                        f"{Path(place) / sub} is left out: its reads failed the sequencer's quality check; name the "
                        "folder to read them too"
                    )
        folders[:] = sorted(kept)
        here += [Path(place) / name for name in sorted(names) if _NAMED.search(name) and not name.startswith(".")]
        signals += sum(name.endswith(_SIGNALS) for name in names)
    if here:
        return here
    if signals:
        raise HelixError(f"{folder} holds {signals:,} files of raw signals and no reads: call their bases first")
    raise HelixError(
        f"{folder} holds no file of strands or reads"
        + (f" but {failed:,} that failed the sequencer's quality check" if failed else "")
        + ": the names of such files end in .fasta, .fastq, .sam, .bam or .cram, with or without .gz, .bz2, .xz or .zst"
    )


def _count(folder):
    """Yield 1 for each file of strands or reads in a folder and its subfolders."""
    for _, _, names in os.walk(folder):
        yield from (1 for name in names if _NAMED.search(name))


def _once(paths, warnings):
    """Return the paths without those that lead to a file which came before."""
    seen, kept = {}, []
    for path in paths:
        try:
            facts = os.stat(path)
            identity = (facts.st_dev, facts.st_ino) if os.path.isfile(path) and not files.is_standard(path) else None
        except (OSError, ValueError):
            identity = None
        if identity and identity in seen:
            warnings.append(f"{path} is the file {seen[identity]}, and is read once")
            continue
        seen[identity] = path
        kept.append(path)
    return kept


def _paired(paths, warnings):
    """Return the paths with those of first and second reads in one tuple, in the place of the first of the two."""
    named = {os.path.abspath(path): path for path in paths}
    done, entries = set(), []
    for path in paths:
        if os.path.abspath(path) in done:
            continue
        end, other = _mate(path)
        key = other and os.path.abspath(other)
        if key in named:
            done.add(key)
            entries.append((path, named[key]) if end == 1 else (named[key], path))
            continue
        entries.append(path)
        if other and os.path.isfile(other):
            warnings.append(f"{other} lies beside {path} and was not named: give both, so that pairs are merged")
    return entries


def _mate(path):
    """Return which reads of pairs a file holds by its name, 1 or 2, and the name of the file with the others.

    The result is (0, None) for a file without such a name.
    """
    mate = _MATE.match(os.path.basename(path))
    if not mate:
        return 0, None

    def numbered(number):
        return os.path.join(os.path.dirname(path), f"{mate['before']}{number}{mate['after']}")

    # A sequencer that numbers its files from 0 on has a 1 and a 2 among them, which are no pair.
    if not mate["before"].endswith("R") and (os.path.exists(numbered(0)) or os.path.exists(numbered(3))):
        return 0, None
    end = int(mate["end"])
    return end, numbered(3 - end)
