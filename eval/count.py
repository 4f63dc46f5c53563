"""Exact number N(L) of strands that obey a constraint set, counted without the automata of helix_jax.

    python -m eval.count [--json FILE] [--length 150 200] [SET ...]

There are two formulations, both over absolute GC classes and runs, whereas the library works with differences of bases.
For sets with a GC window there are arrays indexed by the GC bits of the last window - 1 bases, one array for each
length of the current run, and a further base is a few slices. For the others there are dictionaries over (G and C so
far, class, run). Array entries are residues modulo primes below 2^57, which the Chinese remainder theorem combines to
Python integers, so that every count is exact.
"""

import argparse
import concurrent.futures
import json
import math
from collections import defaultdict
from collections.abc import Collection
from fractions import Fraction

import numpy as np
from jaxtyping import Int64
from rich.console import Console
from rich.table import Table

from helix_jax.tk_scone.constraints import NAMED, Constraints

PRIME_BITS = 57  # a step adds at most 4 * (longest run) residues, which fit into 63 bits for runs up to LONGEST_RUN
LONGEST_RUN = 15


def strands(constraints: Constraints, lengths: Collection[int]) -> dict[int, int]:
    """Return {L: N(L)} for these lengths.

    Raises ValueError for sets with motifs, with primers, or with a window and another GC rule: they are not counted
    here.
    """
    c = constraints
    if c.motifs or c.left or c.right or (c.window and (c.balance or c.strand_gc)):
        raise ValueError(f"{c.name}: only sets of a run limit and one GC rule are counted")
    if c.longest_run > LONGEST_RUN or c.window in (1, 2):
        raise ValueError(f"{c.name}: runs up to {LONGEST_RUN} and windows of 3 or more are counted")
    if c.window:
        return _with_window(c.longest_run, c.window, *whole_numbers(c.window_gc, c.window), lengths)
    return {length: _without_window(c, length) for length in lengths}


def whole_numbers(band: tuple[float, float], length: int) -> tuple[int, int]:
    """Return the least and the greatest number of G + C in ``length`` bases whose share lies in the band."""
    return math.ceil(Fraction(str(band[0])) * length), math.floor(Fraction(str(band[1])) * length)


def _without_window(c: Constraints, length: int) -> int:
    ways = {(gc, gc, 1): 2 for gc in (0, 1)}  # (G and C so far, class of the last base, run): number of strands
    for size in range(2, length + 1):
        after = defaultdict(int)
        for (total, last, run), count in ways.items():
            after[total + last, last, 1] += count  # the other base of the class
            after[total + 1 - last, 1 - last, 1] += 2 * count
            if run < c.longest_run:
                after[total + last, last, run + 1] += count
        ways = {key: n for key, n in after.items() if not c.balance or abs(2 * key[0] - size) <= c.balance}
    low, high = whole_numbers(c.strand_gc, length) if c.strand_gc else (0, length)
    return sum(count for (total, _, _), count in ways.items() if low <= total <= high)


def _with_window(longest, window, low, high, lengths):
    primes = _primes(2 * max(lengths))
    with concurrent.futures.ThreadPoolExecutor() as pool:  # NumPy leaves the other cores free
        residues = list(pool.map(lambda p: _modulo(longest, window, low, high, lengths, p), primes))
    modulus = math.prod(primes)
    lifts = [modulus // p * pow(modulus // p, -1, p) for p in primes]
    return {n: sum(r[n] * lift for r, lift in zip(residues, lifts, strict=True)) % modulus for n in lengths}


def _modulo(longest, window, low, high, lengths, prime):
    """Return {L: N(L) mod prime}; ways[run - 1, history] counts strands with that run and these last GC bits."""
    ways = np.zeros((longest, 2), np.int64)
    ways[0] = 2
    counts, valid = {}, _valid(window, low, high)
    for size in range(1, max(lengths) + 1):
        if size > 1:
            if size < window:  # no bit leaves the window yet
                before = np.repeat(ways.reshape(longest, -1, 2, 1), 2, axis=3)
            else:  # oldest bit (which leaves), the bits between, newest bit, and the bit of the next base
                oldest = ways.reshape(longest, 2, -1, 2, 1)
                before = oldest[:, 0] * valid[0] + oldest[:, 1] * valid[1]
            after = np.zeros(before.shape, np.int64)
            after[0] = before.sum(axis=0)
            after[0, :, 0, 1] *= 2  # two bases of the other class
            after[0, :, 1, 0] *= 2
            for bit in (0, 1):  # the same base again, or the other one of its class (counted above)
                after[1:, :, bit, bit] = before[:-1, :, bit, bit]
            ways = (after % prime).reshape(longest, -1)
        if size in lengths:
            counts[size] = int(ways.astype(object).sum()) % prime
    return counts


def _valid(window: int, low: int, high: int) -> Int64[np.ndarray, "2 n 2 2"]:
    """Return [oldest bit, bits between, newest bit, next bit]: 1 where that window holds low to high ones."""
    ones = np.bitwise_count(np.arange(1 << window, dtype=np.int64))
    return ((ones >= low) & (ones <= high)).astype(np.int64).reshape(2, -1, 2, 2)


def _primes(bits):
    """Enough primes below 2^PRIME_BITS for a product above 2^bits."""
    found, candidate = [], (1 << PRIME_BITS) - 1
    while sum(p.bit_length() - 1 for p in found) <= bits:
        if _is_prime(candidate):
            found.append(candidate)
        candidate -= 2
    return found


def _is_prime(n: int) -> bool:
    """Return whether odd n above 37 is prime, by Miller and Rabin's test; these bases are exact below 2^64."""
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        power = pow(base, odd, n)
        if power in (1, n - 1):
            continue
        if not any((power := power * power % n) == n - 1 for _ in range(twos - 1)):
            return False
    return True


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description="Exact number of strands that obey each constraint set.")
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"sets to count, of {', '.join(NAMED)} (default: all)")
    parser.add_argument("--length", type=int, nargs="+", default=[150, 200], help="nucleotides per strand")
    parser.add_argument("--json", metavar="FILE", help="write the same figures to FILE")
    options = parser.parse_args()
    unknown = [name for name in options.sets if name not in NAMED]
    if unknown or min(options.length) < 1:
        parser.error(f"no set {unknown[0]!r}; there are {', '.join(NAMED)}" if unknown else "lengths start at 1")
    table = Table("set", "L", "log2 N(L)", "bit/nt", "N(L)")
    rows = []
    for name in options.sets or NAMED:
        for length, count in strands(NAMED[name], options.length).items():
            bits = math.log2(count)
            rows.append({"set": name, "length": length, "bits": bits, "strands": str(count)})
            table.add_row(name, str(length), f"{bits:.3f}", f"{bits / length:.4f}", f"{count:.6e}")
    Console().print(table)
    if options.json:
        with open(options.json, "w") as out:
            json.dump(rows, out, indent=2)


if __name__ == "__main__":
    main()
