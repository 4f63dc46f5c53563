"""Which pool strands belong to: the header among them, the constraint set and the tables that read them.

Nothing is known of the strands but their letters, and what ``Written`` says. The named sets are tried, those first that
the strands break least; header strands pass a check of 32 bits, so that no set is taken by mistake.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from helix_jax import parallel
from helix_jax.errors import DecodeError
from helix_jax.strands import checker
from helix_jax.strands import header as headers
from helix_jax.strands.written import Written
from helix_jax.tk_scone import coder, constraints, tables

BATCH = 16384  # strands per call of the constrained coder: one compilation serves pools of any size
PORTION = 1 << 16  # strands worked on at once
LETTERS = 1 << 24  # the same in letters
SAMPLE = 2000  # strands that tell which constraint sets are likely
LENGTHS, CHOICES = 8, 16  # commonest lengths of strands, and comments of the file, that are tried


@dataclass(frozen=True, eq=False)
class Found:
    """A pool's header, and how its strands are read: their set and its tables, and what ``Written`` says."""

    header: headers.Header
    constraints: constraints.Constraints
    table: tables.Tables
    written: Written

    @property
    def total(self):
        """Bases of a strand with its primers."""
        return self.table.length + self.written.ends


def portions(strands):
    """Strands -> iterator of uint8[n, length], one length each, PORTION rows at most and mostly as many.

    strands: dict of length -> uint8[n, length], or an object with the method ``portions`` (``fasta.Strands``).
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
            if held > 4 * LETTERS:  # many lengths: the fullest goes
                fullest = max(waiting, key=lambda length: length * sum(map(len, waiting[length])))
                full = np.concatenate(waiting.pop(fullest))
                held -= full.size
                yield full
    for parts in waiting.values():
        if parts:
            yield np.concatenate(parts)


def find_header(strands, written=None, key=None) -> Found:
    """Find the header of a pool by trying the named sets on each strand length, as written and as reverse complements.

    strands: see ``portions``. written: Written, or None where it is not known. What the comments of the file say is
    tried too.
    Raises DecodeError if there is none, or more than one and ``key`` does not pick one.
    """
    counts, samples = _survey(strands)
    noted = [note for text, note in getattr(strands, "notes", ()) if key is None or text == key.hex()]
    noted = list(dict.fromkeys(noted))[:CHOICES]
    given = [] if written is None else [written]
    choices = list(dict.fromkeys([*given, *noted] if given else [*noted, Written()]))
    found, refused = {}, None
    lengths = sorted(counts, key=lambda total: -counts[total])[:LENGTHS]
    # as written before reversed, the commonest length first
    for turn, total, choice in itertools.product((False, True), lengths, choices):
        if (turn and found) or len(found) > 1 or key in found:
            break
        here, error = _find_in(strands, total, counts[total], samples[total], choice, turn, key, total == lengths[0])
        found |= {head.header.key: head for head in here if head.header.key not in found}
        refused = refused or error
    if key is not None:
        found = {k: v for k, v in found.items() if k == key}
    if not found and refused:
        raise DecodeError(str(refused)) from refused
    if not found:
        raise DecodeError(_no_header(choices, key))
    if len(found) > 1:
        raise _mixed(found)
    return next(iter(found.values()))


def _mixed(keys):
    return DecodeError("several pools are mixed: pick one with --key " + " or --key ".join(k.hex() for k in keys))


def _no_header(choices, key):
    which = f" with key {key.hex()}" if key else ""
    if choices == [Written()]:
        more = (
            "nothing is said of motifs and primers, so where the pool was written with --forbid, --left-primer or "
            "--right-primer, give them again"
        )
    else:
        more = "give motifs and primers as they were for writing"
    return (
        f"no header strand of a helix_jax pool can be read{which}: too few strands, or not such a pool; {more}; reads "
        "with errors in FASTA need --reads"
    )


def _survey(strands):
    """(number of strands of each length, a sample of them): two dicts."""
    counts, samples = {}, {}
    for part in portions(strands):
        total = part.shape[1]
        counts[total] = counts.get(total, 0) + len(part)
        samples.setdefault(total, []).append(part[:: max(1, len(part) * 8 // SAMPLE)].copy())  # not a view of all
    thinned = {}
    for total, parts in samples.items():
        some = np.unique(np.concatenate(parts), axis=0)
        thinned[total] = some[np.linspace(0, len(some) - 1, min(len(some), SAMPLE)).astype(int)]
    return counts, thinned


def _find_in(strands, total, count, sample, written, turn, key, every):
    """(list of Found among the strands of one length, the HeaderError of a header that makes no sense or None).

    every: try the sets too that the whole sample breaks, which may be of strands from elsewhere.
    """
    length, refused = total - written.ends, None
    # two bits a base are more than any set carries
    if not headers.usable(2 * length) or count < headers.least_strands(2 * length):
        return [], None
    for chosen in _likely_sets(core(turned(sample) if turn else sample, written), written, every):
        try:
            table = tables.load(chosen, length)
        except constraints.ConstraintError:
            continue
        if not headers.usable(table.bits):
            continue
        seen = []
        for part in portions(strands):
            if part.shape[1] != total:
                continue
            words, ok = words_of(core(turned(part) if turn else part, written), table)
            words = words[ok]
            seen.append(words[headers.is_header(words, table.bits)])
            if not len(seen[-1]):
                continue
            try:
                valid, _ = headers.find_headers(np.concatenate(seen), table.bits)
            except headers.HeaderError as error:
                refused = error
                continue
            valid = [h for h in valid if h.constraints == chosen.name and h.tables_hash == table.digest[:8]]
            if any(key in (None, head.key) for head in valid):
                return [Found(head, chosen, table, written) for head in valid], refused
    return [], refused


def core(strands, written):
    """Strands without their primers."""
    return strands[:, len(written.left) : strands.shape[1] - len(written.right)]


def turned(strands):
    """Reverse complements."""
    return 3 - strands[:, ::-1]


def words_of(core, table):
    """Strands without primers -> (words uint32[n, W], ok bool[n])."""
    arrays, shape = coder.on_device(table)
    return parallel.map_batches(coder.read, arrays, np.ascontiguousarray(core), batch=BATCH, shape=shape)


def _likely_sets(core, written, every):
    """The named sets in the order worth trying: fewest violations in a sample first, then the tightest rules."""
    choices = [as_written(named, written) for named in constraints.NAMED.values()]
    broken = [checker.check(core, choice).violations for choice in choices]
    order = sorted(range(len(choices)), key=lambda n: (broken[n], n))
    return [choices[n] for n in order if every or broken[n] < len(core)]


def check_alone(found, first):
    """Raise DecodeError where the header strands (as bytes of words) tell of another pool of the same set."""
    words = np.array([np.frombuffer(row, np.uint32) for row in sorted(first)], np.uint32)
    valid = headers.find_headers(words, found.table.bits)[0] if len(words) else ()
    keys = {found.header.key} | {h.key for h in valid if h.tables_hash == found.header.tables_hash}
    if len(keys) > 1:
        raise _mixed(sorted(keys))


def as_written(named, written):
    """A named constraint set with the motifs and primers of a ``Written`` added."""
    return constraints.custom(
        named, motifs=written.motifs, left=written.left, right=written.right, primers_exempt=written.primers_exempt
    )
