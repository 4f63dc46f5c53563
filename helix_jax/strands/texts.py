"""The text of FASTA and FASTQ files -> portions of records.

A byte order mark, blank lines and carriage returns are skipped. The libraries that read FASTQ stop at the first odd
record, so the reader is our own.
"""

import re
from collections.abc import Iterator

import numpy as np

from helix_jax.strands.portions import CUT, LONG, LONGEST, MOST_NOTES, Portion, Tally

BOM = b"\xef\xbb\xbf"
_WHITE = b" \t\r\n\v\f"
_BLANK = np.zeros(256, bool)
_BLANK[np.frombuffer(_WHITE, np.uint8)] = True
_NOTE = re.compile(rb"^>[^\n]*? key=([0-9a-f]{16})\b([^\r\n]*)", re.MULTILINE)


# ---- FASTA -------------------------------------------------------------------------------------------------


def fasta(blocks: Iterator[bytes], tally: Tally) -> Iterator[Portion]:
    """Yield the records of FASTA text; those that are left out are counted."""
    rest = b""
    skipping = False  # inside a record that is longer than LONGEST
    for block, last in _with_last(_without_mark(blocks)):
        data = rest + block + (b"\n>" if last else b"")  # the last record ends where another would begin
        if skipping:
            end = data.find(b"\n>")
            if end < 0:
                rest = data[-1:]
                continue
            data, skipping = data[end + 1 :], False
        cut = data.rfind(b"\n>") + 1
        whole, rest = data[:cut], data[cut:]
        if whole and (portion := _fasta_records(whole, tally)):
            yield portion
        if len(rest) > 4 * LONGEST:
            tally.skip(LONG)
            rest, skipping = rest[-1:], True


def _fasta_records(data, tally):
    """Return the records of whole lines, the first of which may be blank."""
    if b" key=" in data:
        for key, note in _NOTE.findall(data):
            comment = key.decode(), note.decode("ascii", "replace").strip()
            if comment in tally.notes or len(tally.notes) < MOST_NOTES:
                tally.notes[comment] += 1
    text = np.frombuffer(data, np.uint8)
    starts = np.append(0, np.flatnonzero(text == 10) + 1)
    starts = starts[starts < len(text)]
    first = text[starts]
    heads = starts[first == ord(">")]
    ends = np.append(starts[1:], len(text))[first == ord(">")]
    if not len(heads):
        return None
    named = np.zeros(len(text) + 1, np.int8)
    named[heads] += 1
    named[ends] -= 1  # which may be the next head
    inside = np.cumsum(named[:-1], dtype=np.int8).astype(bool)
    letter = ~(inside | _BLANK[text])
    letter[: heads[0]] = False
    indices = np.flatnonzero(letter)
    lengths = np.diff(np.searchsorted(indices, np.append(heads, len(text))))
    return tally.kept(text[indices].tobytes(), lengths, None, None)


# ---- FASTQ -------------------------------------------------------------------------------------------------


def fastq(blocks: Iterator[bytes], tally: Tally) -> Iterator[Portion]:
    """Yield the records of FASTQ text; those that are left out are counted."""
    lines, rest, broken = [], b"", False
    for block, last in _with_last(_without_mark(blocks)):
        parts = (rest + block + (b"\n" if last else b"")).split(b"\n")
        # A line without an end is cut: its record is too long, and memory must not grow with it.
        rest = parts.pop()[: 4 * LONGEST]
        lines += parts
        found = [_regular(lines)]
        if found[0]:
            lines, broken = lines[len(lines) // 4 * 4 :], False
        if last or not found[0]:
            rows, used, broken = _any_layout(lines, last, broken, tally)
            found, lines = [*found, rows], lines[used:]
        for names, letters, marks in filter(None, found):
            portion = tally.kept(b"".join(letters), [len(line) for line in letters], b"".join(marks), names)
            if portion:
                yield portion


def _regular(lines):
    """Return (names, letters, qualities) of as many records as fours of lines, or None where the layout is another."""
    used = len(lines) // 4 * 4
    heads, letters, pluses, marks = (lines[row:used:4] for row in range(4))
    count = used // 4
    if (
        b"".join([line[:1] for line in heads]) != b"@" * count
        or b"".join([line[:1] for line in pluses]) != b"+" * count
    ):
        return None
    if [len(line) for line in letters] != [len(line) for line in marks]:
        return None
    for text in (b"".join(letters), b"".join(marks)):
        if len(text.translate(None, _WHITE)) < len(text):
            return None
    return [head[1:] for head in heads], letters, marks


def _any_layout(lines, last, broken, tally):
    """Return ((names, letters, qualities), number of lines used, whether they end inside a broken record)."""
    names, letters, marks, i = [], [], [], 0
    while i < len(lines):
        name = lines[i]
        if not name.strip():
            i += 1
            continue
        if i + 4 > len(lines) and not last:
            break
        if name[:1] == b"@" and i + 4 <= len(lines):
            bases, plus, quality = lines[i + 1].strip(), lines[i + 2], lines[i + 3].strip()
            if plus[:1] == b"+" and len(bases) == len(quality):
                names.append(name[1:].rstrip())
                letters.append(bases)
                marks.append(quality)
                i, broken = i + 4, False
                continue
        if name[:1] == b"@":
            wrapped = _wrapped(lines, i)
            if wrapped is None and not last:
                break
            if wrapped:
                names.append(name[1:].rstrip())
                letters.append(wrapped[0])
                marks.append(wrapped[1])
                i, broken = wrapped[2], False
                continue
        begins = name[:1] == b"@" and i + 2 < len(lines) and lines[i + 2][:1] == b"+"
        if not broken or begins:  # count one record, up to the next that begins
            tally.skip(CUT)
        i, broken = i + 1, True
    return (names, letters, marks), i, broken


def _wrapped(lines, i):
    """Return a FASTQ record over more than four lines, or with blank ones in it: (letters, qualities, next line).

    The result is () where line i begins no such record, and None where its end is not among the lines yet.
    """
    parts, size, j = [], 0, i + 1
    while j < len(lines) and lines[j][:1] != b"+":
        part = lines[j].strip()
        if not (part.isalpha() or not part) or size > LONGEST:
            return ()
        parts, size, j = [*parts, part] if part else parts, size + len(part), j + 1
    if j == len(lines):
        return None if j - i < 2 * LONGEST else ()
    if not size:
        return ()
    marks, j = b"", j + 1
    while j < len(lines) and len(marks) < size:
        marks, j = marks + lines[j].strip(), j + 1
    if len(marks) < size:
        return None
    return (b"".join(parts), marks, j) if len(marks) == size else ()


# ---- both --------------------------------------------------------------------------------------------------


def _with_last(blocks):
    """Yield (block, whether it is the last)."""
    block = next(blocks, None)
    while block is not None:
        following = next(blocks, None)
        yield block, following is None
        block = following


def _without_mark(blocks):
    """Yield blocks of bytes without a byte order mark and without blank lines at the beginning."""
    begun = False
    for block in blocks:
        if not begun:
            block = block.lstrip().removeprefix(BOM).lstrip()
            begun = bool(block)
        if block:
            yield block
