"""What vendors look at besides the constraints: hairpins, self-dimers, repeats, and how primers melt.

Stems and repeats are counted in every strand (``stems``). Words that several strands share are looked for among the
first SAMPLE strands, and the energy of folding is computed for FOLDED of them, as it takes up to some
seconds each, and only of strands of at most LONGEST_FOLDED bases.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from helix_jax.strands import stems
from helix_jax.strands.written import Written

SAMPLE = 10_000  # strands that are compared with each other
FOLDED = 5  # strands whose energy is computed
SHARED = 20  # bases of the words that strands should not share: about those of a primer
LONGEST = 1000  # bases of a strand that is examined, as the time grows with the square
LONGEST_FOLDED = 300  # bases of a strand whose energy is computed, as the time grows with the cube
PRIMER_NM, SODIUM_MM = 250, 50  # what the melting temperature is for
CELSIUS = 37.0  # what the folding energy is for


class Structure:
    """Counts of what pairs and repeats in a pool, as its strands come by.

    Attributes:
        written: The primers of the pool.
        stem: The longest hairpin stem that is asked for, None for any.
        examined: Strands seen so far that have at most LONGEST bases.
        over: How many of them have a longer stem.
    """

    def __init__(self, written: Written, stem: int | None = None):
        self.written, self.stem = written, stem
        self.examined = self.over = 0
        self._longest: dict[str, dict[int, int]] = {"hairpins": {}, "dimers": {}, "repeats": {}}
        self._sample: list[np.ndarray] = []
        self._sampled = 0

    def add(self, part: UInt8[np.ndarray, "n L"]) -> None:
        """Take in strands of one length, with their primers."""
        if part.shape[1] > LONGEST:
            return
        self.examined += len(part)
        for name, longest in (
            ("hairpins", stems.longest_hairpins),
            ("dimers", stems.longest_dimers),
            ("repeats", stems.longest_repeats),
        ):
            found, counts = np.unique(longest(part), return_counts=True)
            for length, count in zip(found.tolist(), counts.tolist(), strict=True):
                self._longest[name][length] = self._longest[name].get(length, 0) + count
                self.over += count if name == "hairpins" and self.stem is not None and length > self.stem else 0
        if self._sampled < SAMPLE:
            self._sample.append(part[: SAMPLE - self._sampled].copy())
            self._sampled += len(self._sample[-1])

    def figures(self) -> dict[str, Any]:
        """Return the counts, as plain numbers: strands by the length of their longest stem, dimer and repeat."""
        found: dict[str, Any] = {
            name: {str(length): counts[length] for length in sorted(counts)} for name, counts in self._longest.items()
        }
        if self.stem is not None:
            found["strands_over_screen"] = self.over
        cores = [
            part[:, len(self.written.left) : part.shape[1] - len(self.written.right)]
            for part in self._sample
            if part.shape[1] >= SHARED + self.written.ends
        ]
        if cores:
            found |= {"strands_sharing_a_word": int(sharing(cores).sum()), "of_strands_compared": sum(map(len, cores))}
        return found | self._energies() | melting(self.written)

    def _energies(self) -> dict[str, Any]:
        """Return the energies with which strands fold, of FOLDED strands from all over the sample; {} for long ones."""
        parts = [part for part in self._sample if part.shape[1] <= LONGEST_FOLDED]
        step = max(1, sum(map(len, parts)) // FOLDED)
        rows = [row for part in parts for row in part[::step]][:FOLDED]
        energies = [round(folding("".join("ACGT"[base] for base in row)), 1) for row in rows]
        return {"folding_kcal_per_mol": sorted(energies)} if rows else {}


def folding(word: str) -> float:
    """Return the free energy of the best fold in kcal/mol at 37 degrees Celsius (seqfold), 0.0 if none is possible."""
    import seqfold  # takes a while to import

    energy = float(seqfold.dg(word, temp=CELSIUS))
    return energy if math.isfinite(energy) else 0.0


def sharing(parts: list[np.ndarray]) -> Bool[np.ndarray, " n"]:
    """Return which strands share a word of SHARED bases with another one; ``parts`` are uint8[n, L] of any lengths."""
    words, owners, first = [], [], 0
    for part in parts:
        places = part.shape[1] - SHARED + 1
        codes = np.zeros((len(part), places), np.uint64)
        for shift in range(SHARED):
            codes = codes << np.uint64(2) | part[:, shift : shift + places].astype(np.uint64)
        words.append(codes.reshape(-1))
        owners.append(np.repeat(np.arange(first, first + len(part)), places))
        first += len(part)
    word, owner = np.concatenate(words), np.concatenate(owners)
    order = np.argsort(word, kind="stable")
    word, owner = word[order], owner[order]
    pairs = np.flatnonzero((word[1:] == word[:-1]) & (owner[1:] != owner[:-1]))
    found = np.zeros(first, bool)
    found[owner[pairs]] = found[owner[pairs + 1]] = True
    return found


def melting(written: Written) -> dict[str, float | str]:
    """Return the melting temperatures of the primers in degrees Celsius, and what they are for; {} without primers."""
    named = {"left": written.left, "right": written.right}
    found: dict[str, float | str] = {
        f"{side}_primer_melts_at": round(melting_temperature(primer), 1)
        for side, primer in named.items()
        if len(primer) > 1
    }
    return found | ({"melting_for": f"{PRIMER_NM} nM of primer, {SODIUM_MM} mM Na+"} if found else {})


def melting_temperature(word: str) -> float:
    """Return the melting temperature of a primer in degrees Celsius, for PRIMER_NM of it and SODIUM_MM of Na+.

    Biopython computes it by nearest neighbours, with the values of Allawi and SantaLucia (1997). That of the reverse
    complement is the same.
    """
    from Bio.SeqUtils import MeltingTemp  # takes a while to import

    return float(MeltingTemp.Tm_NN(word, dnac1=PRIMER_NM, dnac2=0, Na=SODIUM_MM))
