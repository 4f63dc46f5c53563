"""Forbidden words as laboratories name them: restriction enzymes and IUPAC codes -> words over A, C, G, T."""

import itertools
import math
from collections.abc import Iterable

from helix_jax.errors import HelixError

MOST_WORDS = 64  # that one motif may stand for: the automata of the constraints grow with them
CODES = {
    **{base: base for base in "ACGT"},
    "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
    "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT",
}  # fmt: skip


class MotifError(HelixError):
    """A motif that is neither a word nor an enzyme, or that stands for too many words; the message names it."""


def expanded(motifs: Iterable[str]) -> tuple[str, ...]:
    """Return motifs as words over A, C, G, T.

    Such words stay as they are. An enzyme stands for its recognition site (by Biopython's copy of REBASE), and an IUPAC
    code for each of its bases. A word whose reverse complement is there already is left out, as forbidding one forbids
    both.

    Raises:
        MotifError: A motif is unknown, or stands for more than MOST_WORDS words.
    """
    words: dict[str, None] = {}
    for motif in motifs:
        if not set(motif.upper()) - set("ACGT"):
            words[motif] = None
            continue
        pattern, name = _pattern(motif)
        count = math.prod(len(CODES[code]) for code in pattern)
        if count > MOST_WORDS:
            raise MotifError(
                f"{name} stands for {count:,} words, and {MOST_WORDS} are the most: forbid a part with fewer codes"
            )
        for word in map("".join, itertools.product(*(CODES[code] for code in pattern))):
            if word.translate(str.maketrans("ACGT", "TGCA"))[::-1] not in words:
                words[word] = None
    return tuple(words)


def _pattern(motif):
    """Return the IUPAC codes of a motif, without the N at its ends, and its name for messages."""
    from Bio import Restriction  # takes a while to import, and few motifs need it

    sites = {str(enzyme): enzyme.site.upper() for enzyme in Restriction.AllEnzymes}
    if motif not in sites and not set(motif.upper()) - set(CODES):
        pattern, name = motif.upper(), motif
    else:
        enzyme = motif if motif in sites else next((name for name in sites if name.lower() == motif.lower()), None)
        if enzyme is None:
            raise MotifError(
                f"motif {motif!r} is neither a word of A, C, G, T and IUPAC codes ({''.join(CODES)}) nor the name of a "
                "restriction enzyme: check the spelling"
            )
        pattern, name = sites[enzyme], f"{enzyme} ({sites[enzyme]})"
    pattern = pattern.strip("N")
    if not pattern:
        raise MotifError(f"{name} stands for any bases: give a word that is not N alone")
    return pattern, name
