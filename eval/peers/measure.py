"""Measure one setting of a peer: its density, its speed, what its strands look like, and the reads that it needs."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, UInt8

from eval.peers import rows
from helix_jax import parallel
from helix_jax.channel import model as channels
from helix_jax.channel import simulate
from helix_jax.reads import clustering, consensus
from helix_jax.strands import checker
from helix_jax.strands.records import PAD
from helix_jax.tk_scone.constraints import Constraints

REPOSITORY = Path(__file__).parents[2]
GRID = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30)  # coverages that are tried
WINDOW = 20  # nucleotides of a GC window
COPIES, BEAM, BAND, BATCH = 16, 32, 24, 64  # of the consensus: reads of a strand, and as in ``consensus.candidates``

Cell = float | str  # a figure, or the reason why there is none


class PeerError(Exception):
    """A peer did not answer; the message says why."""


class TooSlow(PeerError):
    """A peer was stopped at the time limit."""


@dataclass(frozen=True)
class Place:
    """Where a peer is.

    Attributes:
        python: the Python that has it.
        checkout: folder of its repository, or None.
    """

    python: str = sys.executable
    checkout: Path | None = None


@dataclass(frozen=True)
class Options:
    """How peers are measured.

    Attributes:
        bytes: content for density and speed.
        coverage_bytes: content for the smallest coverage.
        errors: errors per base, a third each substitutions, insertions and deletions.
        trials: draws of the reads, all of which must come back.
        limit: seconds that a request to a peer may take.
        seed: seed of the content and the reads.
    """

    bytes: int = 65_536
    coverage_bytes: int = 16_384
    errors: tuple[float, ...] = (0.01, 0.05, 0.1)
    trials: int = 2
    limit: float = 600.0
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """What was measured of a row. Every cell is a figure or the reason why there is none.

    Attributes:
        peer: name of the peer.
        label: the setting in words.
        skipped: why nothing was measured, or "".
        version: the peer's version.
        bytes: bytes of content.
        strands: number of strands.
        length: nucleotides of a strand, the most where they differ.
        net: bits of content per nucleotide.
        encode: kB of content per second.
        decode: kB of content per second, from strands without errors.
        coverage: smallest mean number of reads of a strand by errors per base.
        longest_run: longest homopolymer run.
        gc_low: least G and C in a window of WINDOW nucleotides, as a share.
        gc_high: most G and C in a window, as a share.
        own_reads: whether the peer turns reads into strands itself.
    """

    peer: str
    label: str
    skipped: str = ""
    version: str = ""
    bytes: int = 0
    strands: int = 0
    length: int = 0
    net: Cell = "-"
    encode: Cell = "-"
    decode: Cell = "-"
    coverage: dict[float, Cell] = field(default_factory=dict)
    longest_run: Cell = "-"
    gc_low: Cell = "-"
    gc_high: Cell = "-"
    own_reads: bool = False


# ---- requests ------------------------------------------------------------------------------------------------


def ask(row: rows.Row, place: Place, action: str, folder: Path, limit: float, calls: int = 1) -> dict[str, Any]:
    """Send a request to a peer, in a process of its own.

    Args:
        row: peer and setting.
        place: where the peer is.
        action: one of ``protocol.ACTIONS``.
        folder: folder of the files.
        limit: seconds that it may take.
        calls: how often the peer's function is called.

    Returns:
        The answer.

    Raises:
        TooSlow: if it takes longer.
        PeerError: if it fails, with the last line of what it says.
    """
    answer, said = folder / "answer", folder / "said"
    answer.unlink(missing_ok=True)
    checkout = place.checkout.resolve() if place.checkout else ""
    command = [place.python, row.peer.script, action, ".", str(calls), json.dumps(row.setting), checkout]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with open(said, "w") as out:
        try:
            child = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            raise PeerError(f"{place.python}: {error.strerror}") from error
        try:
            status = child.wait(limit)
        except subprocess.TimeoutExpired as error:
            raise TooSlow(f"not done in {limit:g} s") from error
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)  # with the programs that it has started
                child.wait()
    if status or not answer.exists():
        lines = said.read_text(errors="replace").strip().splitlines() or [f"exit status {status}"]
        raise PeerError(lines[-1][:200])
    return json.loads(answer.read_text())


# ---- one row -------------------------------------------------------------------------------------------------


def measure(row: rows.Row, place: Place, folder: Path, options: Options) -> Result:
    """Measure a row.

    Args:
        row: peer and setting.
        place: where the peer is.
        folder: an empty folder for its files.
        options: how.

    Returns:
        The result; its ``skipped`` says why if the peer is missing.
    """
    result = Result(row.peer.name, row.label)
    if row.peer.checkout and not place.checkout:
        return dataclasses.replace(result, skipped=f"no checkout was named (--checkout {row.peer.name} FOLDER)")
    try:
        about = ask(row, place, "version", folder, options.limit)
    except PeerError as error:
        return dataclasses.replace(result, skipped=str(error))
    result = dataclasses.replace(result, version=about["version"], own_reads=about["reads"])
    data = content(min(options.bytes, row.most_bytes), about["unit"], options.seed)
    result = dataclasses.replace(result, bytes=len(data))
    try:
        strands, seconds = written(row, place, folder, options, data, calls=2)
    except PeerError as error:
        return dataclasses.replace(result, encode=str(error))
    run, low, high = extremes(strands)
    result = dataclasses.replace(
        result, strands=len(strands), length=max(map(len, strands)), encode=len(data) / seconds / 1e3,
        net=8 * len(data) / sum(map(len, strands)), longest_run=run, gc_low=low, gc_high=high,
    )  # fmt: skip
    try:
        lines = [f"{strand} 1 {strand}" for strand in np.random.default_rng(options.seed).permutation(strands)]
        seconds = read_back(row, place, folder, options, "decode", lines, data, calls=2)
    except PeerError as error:
        return dataclasses.replace(result, decode=str(error))
    result = dataclasses.replace(result, decode=len(data) / seconds / 1e3)
    few = content(min(options.coverage_bytes, row.most_bytes), about["unit"], options.seed + 1)
    try:
        strands, _ = written(row, place, folder, options, few)
    except PeerError as error:
        return dataclasses.replace(result, coverage=dict.fromkeys(options.errors, str(error)))
    needed = {
        errors: smallest_coverage(row, place, folder, options, strands, few, errors, about["reads"])
        for errors in options.errors
    }
    return dataclasses.replace(result, coverage=needed)


def content(size: int, unit: int, seed: int) -> bytes:
    """Return random bytes: as many units of the peer's as fit into a size, and at least one."""
    return np.random.default_rng(seed).bytes(max(size // unit, 1) * unit)


def written(
    row: rows.Row, place: Place, folder: Path, options: Options, data: bytes, calls: int = 1
) -> tuple[list[str], float]:
    """Return the strands that the peer writes, and the seconds. Raises PeerError."""
    (folder / "data").write_bytes(data)
    seconds = ask(row, place, "encode", folder, options.limit, calls)["seconds"]
    strands = (folder / "strands").read_text().split()
    if not strands:
        raise PeerError("no strands")
    return strands, seconds


def read_back(
    row: rows.Row, place: Place, folder: Path, options: Options, action: str, lines: list[str], data: bytes,
    calls: int = 1,
) -> float:  # fmt: skip
    """Return the seconds in which a peer decodes ``received``. Raises PeerError unless the content comes back."""
    (folder / "back").unlink(missing_ok=True)
    (folder / "received").write_text("".join(f"{line}\n" for line in lines))
    seconds = ask(row, place, action, folder, options.limit, calls)["seconds"]
    if (folder / "back").read_bytes() != data:
        raise PeerError("other bytes came back")
    return seconds


def extremes(strands: list[str]) -> tuple[Cell, Cell, Cell]:
    """Return the longest run, and the least and most G and C of a window, as ``strands.checker`` sees the strands.

    The checker says yes or no to a band of GC, which is therefore narrowed until it says no.
    """
    groups = [[strand for strand in strands if len(strand) == length] for length in sorted(set(map(len, strands)))]
    longest = max(len(checker.check(group, Constraints()).longest_runs) - 1 for group in groups)
    long = [group for group in groups if len(group[0]) >= WINDOW]
    if not long:
        reason = f"strands are shorter than {WINDOW} nt"
        return longest, reason, reason

    def kept(low, high):
        shares = (round(low / WINDOW, 2), round(high / WINDOW, 2))
        rules = Constraints(longest_run=max(map(len, strands)), window=WINDOW, window_gc=shares)
        return not any(checker.check(group, rules).violations for group in long)

    least = max(low for low in range(WINDOW + 1) if kept(low, WINDOW))
    most = min(high for high in range(WINDOW + 1) if kept(0, high))
    return longest, least / WINDOW, most / WINDOW


# ---- reads ---------------------------------------------------------------------------------------------------


def smallest_coverage(
    row: rows.Row, place: Place, folder: Path, options: Options, strands: list[str], data: bytes, errors: float,
    own_reads: bool,
) -> Cell:  # fmt: skip
    """Return the smallest coverage of GRID at which the content comes back in all trials, or why there is none.

    More reads are taken never to hurt, so that half of what is left of GRID is ruled out by each coverage.
    """
    if len(set(map(len, strands))) > 1:
        return "strands of several lengths"
    bases = np.array([["ACGT".index(letter) for letter in strand] for strand in strands], np.uint8)
    low, high, slow = 0, len(GRID), ""
    while low < high:
        middle = (low + high) // 2
        seeds = range(options.seed, options.seed + options.trials)
        try:
            back = all(
                _comes_back(row, place, folder, options, bases, data, errors, GRID[middle], seed, own_reads)
                for seed in seeds
            )
        except TooSlow as error:  # more reads may make it faster
            back, slow = False, f" ({error} at {GRID[middle]:g})"
        low, high = (low, middle) if back else (middle + 1, high)
    return float(GRID[low]) if low < len(GRID) else f"not at {GRID[-1]:g}{slow}"


def _comes_back(row, place, folder, options, bases, data, errors, coverage, seed, own_reads):
    """Return whether the content comes back from reads of one draw. Raises TooSlow."""
    reads = simulate.reads_of(channels.uniform(errors), bases, coverage, jax.random.key(seed))
    if own_reads:
        texts = _texts(reads.bases, reads.lengths)
        lines = [f"{text} 1 {text}" for text in texts if text]
    else:
        lines = consensus_lines(reads.bases, reads.lengths, bases.shape, errors)
    try:
        read_back(row, place, folder, options, "reads" if own_reads else "decode", lines, data)
    except TooSlow:
        raise
    except PeerError:
        return False
    return True


def consensus_lines(
    reads: UInt8[np.ndarray, "n R"], lengths: Int[np.ndarray, " n"], shape: tuple[int, int], errors: float
) -> list[str]:
    """Return what a peer without a way from reads to strands is given: lines of ``received``.

    They are of the same clusters and the same consensus as ours, without its constraints, and of as many of the largest
    clusters as there are strands. The consensus knows the strands' number and length, and the channel's rates.

    Args:
        reads: reads, in the direction of the strands.
        lengths: their lengths.
        shape: number and length of the strands.
        errors: errors per base, a third of each kind.
    """
    number, length = shape
    labels = clustering.cluster(reads, lengths)
    clusters = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    clusters = [rows for rows in sorted(clusters, key=len, reverse=True)[:number] if lengths[rows].max()]
    if not clusters:
        return []
    chosen = np.full((len(clusters), COPIES), -1)
    for row, cluster in zip(chosen, clusters, strict=True):
        nearest = cluster[np.argsort(np.abs(lengths[cluster] - length), kind="stable")[:COPIES]]
        row[: len(nearest)] = nearest
    wrong = 2 * errors / 3  # substituted or inserted
    rates = consensus.Rates(np.float32(errors / 3), np.float32(0.5))
    tables, automaton = consensus.unconstrained(length)
    width = max(reads.shape[1], length + length // 2)  # the same for most draws, so that few programs are compiled
    padded = np.pad(reads, ((0, 0), (0, width - reads.shape[1])), constant_values=PAD)
    strands = parallel.map_batches(
        consensus.candidates, (tables, rates), padded[chosen],
        np.where(chosen >= 0, lengths[chosen], 0).astype(np.int32),
        np.full((*chosen.shape, width), wrong, np.float32), batch=BATCH, shape=automaton, beam=BEAM, band=BAND,
    )[0]  # fmt: skip
    texts = _texts(strands[:, 0], np.full(len(strands), length))
    single = _texts(reads[chosen[:, 0]], lengths[chosen[:, 0]])
    return [
        f"{text} {len(cluster)} {read}" for text, cluster, read in zip(texts, clusters, single, strict=True) if read
    ]


def _texts(bases, lengths):
    """Return rows of bases as strings."""
    letters = np.frombuffer(b"ACGT", np.uint8)[np.minimum(bases, 3)]
    return [row[:length].tobytes().decode() for row, length in zip(letters, lengths, strict=True)]
