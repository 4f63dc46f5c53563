"""Which pool strands belong to: the header among them, the constraint set and the tables that read them.

Nothing is known of the strands but their letters, and what ``Written`` says. The named sets are tried, beginning with
those that the strands break least. Header strands pass a check of 32 bits, so that no set is taken by mistake.
"""

import contextlib
import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from helix_jax.errors import DecodeError
from helix_jax.strands import checker
from helix_jax.strands import header as headers
from helix_jax.strands.layouts import PORTION
from helix_jax.strands.strand_coder import Constrained, StrandCoder
from helix_jax.strands.written import Written
from helix_jax.tk_scone import constraints, tables
from helix_jax.writer import Progress

LETTERS = 1 << 24  # letters processed at once
SAMPLE = 2000  # strands that determine which constraint sets are likely
LENGTHS, CHOICES = 8, 16  # how many of the commonest lengths of strands, and of the file's comments, are tried


@runtime_checkable
class Portioned(Protocol):
    """Strands that are read in portions, such as ``fasta.Strands``."""

    def portions(self) -> Iterator[UInt8[np.ndarray, "n L"]]:
        """Yield strands of one length each; bases are 0..3 = A C G T."""
        ...


AnyStrands = dict[int, np.ndarray] | Portioned


@dataclass(frozen=True, eq=False)
class Found:
    """A pool's header, and how its strands are read.

    Attributes:
        header: The header.
        coder: What reads the strands.
        written: The motifs and primers that the strands were written with.
    """

    header: headers.Header
    coder: StrandCoder
    written: Written

    @property
    def total(self) -> int:
        """Bases of a strand with its primers."""
        return self.coder.length + self.written.ends


def portions(strands: AnyStrands) -> Iterator[UInt8[np.ndarray, "n L"]]:
    """Yield strands of one length each, PORTION rows at most and mostly as many.

    ``strands`` is a dict of length -> uint8[n, length], or an object with the method ``portions`` (``fasta.Strands``).
    """
    waiting, held = {}, 0  # portions of each length, and their letters
    for group in strands.values() if isinstance(strands, dict) else strands.portions():
        total = group.shape[1]
        most = max(1, min(PORTION, LETTERS // total))
        for begin in range(0, len(group), most):
            part = group[begin : begin + most]
            parts = waiting.setdefault(total, [])
            if parts and sum(map(len, parts)) + len(part) > most:
                held -= total * sum(map(len, parts))
                yield np.concatenate(parts)
                parts.clear()
            parts.append(part)
            held += part.size
            if held > 4 * LETTERS:  # there are many lengths: yield the fullest
                fullest = max(waiting, key=lambda length: length * sum(map(len, waiting[length])))
                full = np.concatenate(waiting.pop(fullest))
                held -= full.size
                yield full
    for parts in waiting.values():
        if parts:
            yield np.concatenate(parts)


class MixedError(DecodeError):
    """Strands of several pools, of which one has to be picked.

    Attributes:
        keys: The ids of those that have been found.
        heads: Their headers, where they are known.

    Args:
        keys: As above.
        noted: The ids, as hexadecimal digits, of which only the comments tell.
        heads: As above.
        stated: Whether the caller stated motifs or primers, and all of these pools have others.
    """

    def __init__(
        self, keys: Iterable[bytes], noted: Iterable[str] = (), heads: Iterable[Found] = (), stated: bool = False
    ):
        self.keys, self.heads = tuple(keys), tuple(heads)
        names = list(dict.fromkeys([*(key.hex() for key in self.keys), *noted]))
        listed = " or --key ".join(names[:CHOICES]) + (
            f" and so on, {len(names)} in all" if len(names) > CHOICES else ""
        )
        none = ", and none is found with the motifs and primers that are given" if stated else ""
        super().__init__(f"several pools are mixed{none}: pick one with its primers, or with --key {listed}")


def find_header(
    strands: AnyStrands,
    written: Written | None = None,
    key: bytes | None = None,
    coder: StrandCoder | None = None,
    progress: Progress | None = None,
) -> Found:
    """Find the header of a pool among strands: ``find_headers`` for what must be one.

    Args:
        strands: See ``portions``.
        written: See ``find_headers``.
        key: See ``find_headers``.
        coder: See ``find_headers``.
        progress: See ``find_headers``.

    Raises:
        MixedError: If there is more than one and ``key`` does not pick one.
        DecodeError: If there is no header.
    """
    found = find_headers(strands, written, key, coder, progress)
    if len(found) > 1:
        noted = [text for text, _ in getattr(strands, "notes", ()) if key is None or text == key.hex()]
        foreign = written is not None and not any(agrees(head.written, written) for head in found)
        raise MixedError([head.header.key for head in found], noted, found, foreign)
    return found[0]


def find_headers(
    strands: AnyStrands,
    written: Written | None = None,
    key: bytes | None = None,
    coder: StrandCoder | None = None,
    progress: Progress | None = None,
) -> list[Found]:
    """Find headers by trying the named sets on each strand length, as written and as reverse complements.

    Args:
        strands: See ``portions``.
        written: How the strands were written, or None where it is not known. What the comments of the file say is tried
            too.
        key: The pool's id, or None.
        coder: What wrote the strands, where that is not TK-SCONE with a named set; nothing else is tried then.
        progress: Called as progress("tables", done, total) before and after tables are loaded, or None.

    Returns:
        The headers, one at least, and how their strands are read. Where there are several pools, these are some of
        them: the search ends with the first length, set and primers of which it finds any.

    Raises:
        DecodeError: If there is no header.
    """
    counts, samples = _survey(strands)
    noted = [(text, note) for text, note in getattr(strands, "notes", ()) if key is None or text == key.hex()]
    notes = list(dict.fromkeys(note for _, note in noted))[:CHOICES]
    stages = [[*notes, Written()]]
    if written is not None:
        # Comments that agree with what the caller states know more: the motifs of the pool whose primers are given. The
        # others count only where that is not found: they may be those of other pools.
        agreeing = [note for note in notes if note != written and agrees(note, written)]
        own = [[written], agreeing] if written in notes or not agreeing else [agreeing, [written]]
        stages = [*own, [note for note in notes if note not in [written, *agreeing]]]
    heads_by_key, refused, loaded = {}, None, 0

    def load(chosen: constraints.Constraints, length: int) -> tables.Tables:
        nonlocal loaded
        loaded += 1
        if progress:
            progress("tables", 0, loaded)
        found = tables.load(chosen, length)
        if progress:
            progress("tables", 1, loaded)
        return found

    lengths = sorted(counts, key=lambda total: -counts[total])[:LENGTHS]
    # Strands as written come before reversed ones, and the commonest length comes first.
    for stage in stages:
        for turn, total, choice in itertools.product((False, True), lengths, dict.fromkeys(stage)):
            if (turn and heads_by_key) or len(heads_by_key) > 1 or key in heads_by_key:
                break
            if coder is None:
                likely = _coders(strands, samples[total], counts[total], total, choice, turn, total == lengths[0], load)
            else:
                likely = [coder] if coder.length == total - choice.ends else []
            here, error = _find_in(strands, total, choice, turn, key, likely)
            heads_by_key |= {head.header.key: head for head in here if head.header.key not in heads_by_key}
            refused = refused or error
        if heads_by_key and (key is None or key in heads_by_key):
            break
    if key is not None:
        heads_by_key = {k: v for k, v in heads_by_key.items() if k == key}
    if not heads_by_key and refused:
        raise DecodeError(str(refused)) from refused
    if not heads_by_key:
        raise DecodeError(_no_header(written, notes, key))
    return list(heads_by_key.values())


def agrees(note: Written, written: Written) -> bool:
    """Return whether a comment says what a caller states: its motifs where there are any, likewise its primers."""
    motifs, own = ({word.upper() for word in one.motifs} for one in (note, written))
    ends, own_ends = ((one.left.upper(), one.right.upper()) for one in (note, written))
    return own in (set(), motifs) and own_ends in (("", ""), ends)


def _no_header(written, notes, key):
    """Return what to say where no header is found with what the caller states and what the comments say."""
    which = f" with key {key.hex()}" if key else ""
    told = [*notes, *([written] if written else [])]
    lacking = {}
    if not any(one.motifs for one in told):
        lacking["motifs"] = "--forbid"
    if not any(one.ends for one in told):
        lacking["primers"] = "--left-primer or --right-primer"
    if lacking:
        more = (
            f"nothing is said of {' and '.join(lacking)}, so where the pool was written with "
            f"{' or '.join(lacking.values())}, give that again"
        )
    else:
        more = "give motifs and primers as they were for writing"
    return (
        f"no header strand of a helix_jax pool can be read{which}: too few strands, or not such a pool; {more}; reads "
        "with errors in FASTA need --reads"
    )


def _survey(strands):
    """Return the number of strands of each length, and a sample of them, as two dicts."""
    counts, samples = {}, {}
    for part in portions(strands):
        total = part.shape[1]
        counts[total] = counts.get(total, 0) + len(part)
        # a copy, as a view would keep all strands in memory
        samples.setdefault(total, []).append(part[:: max(1, len(part) * 8 // SAMPLE)].copy())
    thinned = {}
    for total, parts in samples.items():
        some = np.unique(np.concatenate(parts), axis=0)
        thinned[total] = some[np.linspace(0, len(some) - 1, min(len(some), SAMPLE)).astype(int)]
    return counts, thinned


def _coders(strands, sample, count, total, written, turn, every, load):
    """Yield TK-SCONE for the sets that strands of one length may obey, the most likely first.

    ``every`` says whether to try also the sets that the whole sample breaks, which may consist of strands from
    elsewhere.
    """
    length = total - written.ends
    # No set carries more than two bits a base.
    if not headers.usable(2 * length) or count < (least := headers.least_strands(2 * length)):
        return
    rows = turned(sample) if turn else sample
    between = rows[_has_primers(rows, written)]
    # In a mixture, the strands with other primers say nothing of the set.
    for chosen, obeying in _likely_sets(core(between if len(between) >= least else rows, written), written, every):
        # Tables may take many seconds to build, and are of no use where too few strands obey the set for a header.
        if obeying < least and not _obeyed(_cores(strands, total, written, turn), chosen, least):
            continue
        with contextlib.suppress(constraints.ConstraintError):
            yield Constrained(chosen, load(chosen, length))


def _cores(strands, total, written, turn):
    """Yield the strands of one length without their primers."""
    for part in portions(strands):
        if part.shape[1] == total:
            yield core(turned(part) if turn else part, written)


def _find_in(strands, total, written, turn, key, coders):
    """Return the ``Found`` among the strands of one length, and the error of a header that makes no sense, or None."""
    refused = None
    for coder in coders:
        if not headers.usable(coder.bits):
            continue
        seen = []
        for part in _cores(strands, total, written, turn):
            words, ok = coder.read(part)
            words = words[ok]
            seen.append(words[headers.is_header(words, coder.bits)])
            if not len(seen[-1]):
                continue
            try:
                valid, _ = headers.find_headers(np.concatenate(seen), coder.bits)
            except headers.HeaderError as error:
                refused = error
                continue
            valid = [h for h in valid if h.constraints == coder.name and h.tables_hash == coder.digest[:8]]
            if any(key in (None, head.key) for head in valid):
                return [Found(head, coder, written) for head in valid], refused
    return [], refused


def _has_primers(rows, written):
    """Return which strands begin and end with the primers."""
    left, right = (constraints.to_bases(word, "primer") for word in (written.left, written.right))
    return (rows[:, : len(left)] == left).all(axis=1) & (rows[:, rows.shape[1] - len(right) :] == right).all(axis=1)


def core(strands: UInt8[np.ndarray, "n total"], written: Written) -> UInt8[np.ndarray, "n L"]:
    """Return the strands without their primers."""
    return strands[:, len(written.left) : strands.shape[1] - len(written.right)]


def turned(strands: UInt8[np.ndarray, "n L"]) -> UInt8[np.ndarray, "n L"]:
    """Return the reverse complements of strands."""
    return 3 - strands[:, ::-1]


def _likely_sets(core, written, every):
    """Return (named set, strands of a sample that obey it) in the order worth trying.

    The sets with the fewest violations come first, and among those the tightest rules.
    """
    choices = [as_written(named, written) for named in constraints.NAMED.values()]
    broken = [checker.check(core, choice).violations for choice in choices]
    order = sorted(range(len(choices)), key=lambda n: (broken[n], n))
    return [(choices[n], len(core) - broken[n]) for n in order if every or broken[n] < len(core)]


def _obeyed(cores, chosen, least):
    """Return whether ``least`` strands obey a set, read no further than that takes."""
    obeying = 0
    for part in cores:
        obeying += len(part) - checker.check(part, chosen).violations
        if obeying >= least:
            return True
    return False


def check_alone(found: Found, first: Collection[bytes]) -> None:
    """Raise DecodeError where the header strands (as bytes of words) belong to another pool of the same set."""
    words = np.array([np.frombuffer(row, np.uint32) for row in sorted(first)], np.uint32)
    valid = headers.find_headers(words, found.coder.bits)[0] if len(words) else ()
    keys = {found.header.key} | {h.key for h in valid if h.tables_hash == found.header.tables_hash}
    if len(keys) > 1:
        raise MixedError(sorted(keys))


def as_written(named: constraints.Constraints, written: Written) -> constraints.Constraints:
    """Add the motifs and primers of a ``Written`` to a named constraint set."""
    return constraints.custom(
        named, motifs=written.motifs, left=written.left, right=written.right, primers_exempt=written.primers_exempt
    )
