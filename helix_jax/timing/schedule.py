"""A schedule says what the synthesiser does for each strand; this module also has the format of its file.

    # helix_jax timing schedule 1
    # scheme: talk
    # strand  letters  durations
    0	CGTA...	1,2,1,1...

The file has one line per strand, with three columns separated by tabs: the number of the strand, the base of each
round, and the time of each round in time units. The base before the first round is A. The reader ignores all lines that
begin with #, except the first two.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Key, UInt8

from helix_jax import files
from helix_jax.errors import HelixError
from helix_jax.timing import channel, synthesis
from helix_jax.timing.graph import BASES, TimeTable

_BATCH = 1024  # the number of strands that are simulated at a time
_DURATIONS = set(range(1, 256))
_FIRST = "# helix_jax timing schedule 1"
_SCHEME = "# scheme: "


class ScheduleError(HelixError):
    """A file is no schedule, or a schedule is not one of the time table; the message names what does not fit."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """The letters and durations of strands that all have the same number of rounds.

    Attributes:
        letters: The base that each round writes, 0..3.
        durations: The time of each round, in time units.
        scheme: The name of the scheme.
    """

    letters: UInt8[np.ndarray, "n R"]
    durations: UInt8[np.ndarray, "n R"]
    scheme: str

    def time(self, overhead: float | int = 0.0) -> float:
        """Return the time that all strands together take, in time units; every round takes ``overhead`` more."""
        return float(self.durations.sum(dtype=np.int64) + overhead * self.durations.size)

    def levels(self, table: TimeTable) -> UInt8[np.ndarray, "n R"]:
        """Return the level of each round. Raises ScheduleError where the table has no such time."""
        before = np.concatenate([np.zeros_like(self.letters[:, :1]), self.letters[:, :-1]], axis=1)
        matches = table.array()[before, self.letters] == self.durations[..., None]
        if not matches.any(axis=-1).all():
            strand, j = np.argwhere(~matches.any(axis=-1))[0]
            raise ScheduleError(
                f"strand {strand}, round {j}: {BASES[before[strand, j]]}->{BASES[self.letters[strand, j]]} for "
                f"{self.durations[strand, j]} time units is not in the time table; was it written with this scheme?"
            )
        return matches.argmax(axis=-1).astype(np.uint8)


def simulate(
    key: Key[Array, ""],
    schedule: Schedule,
    law: channel.Law,
    table: TimeTable,
    copies: int,
    sequencer: synthesis.Sequencer,
    *,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[UInt8[np.ndarray, " _"]], int, int]:
    """Simulate what a synthesiser and a sequencer make of a schedule: N copies of each strand, unlabelled and shuffled.

    Args:
        key: The source of randomness; the same key gives the same reads.
        schedule: The schedule.
        law: The law of the run lengths.
        table: The time table of the schedule.
        copies: The number N of copies of each strand.
        sequencer: The errors of the sequencer.
        progress: Called with the number of strands that are newly done.

    Returns:
        The reads, without those that hold no base; the number of runs that copies lost; and the number of runs that
        all N copies lost.

    Raises:
        ScheduleError: A time is not in the table.
        channel.ChannelError: Another number is out of range.
    """
    levels, pmfs = schedule.levels(table), channel.pmf_table(law, table)
    order, writing, reading = jax.random.split(key, 3)
    reads, lost, lost_in_all = [], 0, 0
    for start in range(0, len(levels), _BATCH):
        letters = schedule.letters[start : start + _BATCH]
        runs = synthesis.simulate(
            jax.random.fold_in(writing, start), letters, levels[start : start + _BATCH], pmfs, copies
        )
        bases, lengths = synthesis.to_reads(jax.random.fold_in(reading, start), letters, runs, sequencer)
        rows, missing = np.asarray(bases).reshape(len(letters) * copies, -1), np.asarray(runs) == 0
        reads += [row[:n] for row, n in zip(rows, np.asarray(lengths).reshape(-1).tolist(), strict=True) if n]
        lost, lost_in_all = lost + int(missing.sum()), lost_in_all + int(missing.all(axis=1).sum())
        if progress:
            progress(len(letters))
    return [reads[i] for i in np.asarray(jax.random.permutation(order, len(reads)))], lost, lost_in_all


def write(path: str | Path, schedule: Schedule) -> None:
    """Write a schedule to a file, completely or not at all. Raises files.OutputError."""
    letters = np.frombuffer(BASES.encode(), np.uint8)[schedule.letters]
    with files.atomic(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
        print(f"{_FIRST}\n{_SCHEME}{schedule.scheme}\n# strand\tletters\tdurations", file=out)
        for number, (row, times) in enumerate(zip(letters, schedule.durations.tolist(), strict=True)):
            print(number, row.tobytes().decode(), ",".join(map(str, times)), sep="\t", file=out)


def read(path: str | Path) -> Schedule:
    """Read a schedule from a file.

    Raises ScheduleError, which names the file and the line, and OSError where the file cannot be read.
    """
    with files.opened(path) as source:
        lines = source.read().decode("utf-8", "replace").splitlines()
    if len(lines) < 2 or lines[0] != _FIRST or not lines[1].startswith(_SCHEME):
        raise ScheduleError(
            f"{path}: not a timing schedule of format 1, which `helix-jax encode --writer timing` writes"
        )
    letters, durations = [], []
    for number, line in enumerate(lines, start=1):
        if line.startswith("#") or not line.strip():
            continue
        try:
            _, word, times = line.split("\t")
            letters.append([BASES.index(base) for base in word])
            durations.append([int(time) for time in times.split(",")])
            if not len(word) == len(durations[-1]) == len(durations[0]) or not set(durations[-1]) <= _DURATIONS:
                raise ValueError
        except ValueError as error:
            raise ScheduleError(
                f"{path}: line {number} is not number, letters A C G T and as many durations of 1 to 255"
            ) from error
    if not letters:
        raise ScheduleError(f"{path}: no strands")
    return Schedule(np.array(letters, np.uint8), np.array(durations, np.uint8), lines[1][len(_SCHEME) :])
