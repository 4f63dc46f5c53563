"""Three ways to write the words of strands as bases, each a ``StrandCoder`` for the library's writer ``Bases``.

    Screened     two bits per base, with a seed that is changed until the strand is acceptable (screening, as in DNA
                 Fountain)
    Ternary      Goldman's rotating code, which never repeats a base
    Constrained  ours, ``tk_scone``: constraints at capacity

The ``constraints`` of each are those that it is meant to obey; the checker counts violations. Header, packets and
RaptorQ repair are the same for all.
"""

import functools
import hashlib
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8, UInt32, UInt64

from helix_jax import keyed, packing
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.strands import checker, header, layouts, strand_coder
from helix_jax.strands.bases import Bases as Writer
from helix_jax.strands.pool import Pool
from helix_jax.strands.strand_coder import Step, StrandCoder
from helix_jax.tk_scone import constraints, tables
from helix_jax.tk_scone.constraints import Constraints

Words = UInt32[np.ndarray, "n words"]
Bases = UInt8[np.ndarray, "n L"]
Bits = UInt8[np.ndarray, "n bits"]
Valid = Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class Screened:
    """Two bits per base after a seed of one byte (4 bases), whose keyed stream is xored with them.

    The first of the 256 seeds is used with which the whole strand, including the seed, has runs <= 3 and 45 to 55 % G +
    C. Those are the limits of Erlich and Zielinski ("DNA Fountain enables a robust and efficient storage architecture",
    Science 2017), whose seeds of 4 bytes also identify the droplet; here the packet does that. If no seed is
    acceptable, seed 0 is written nevertheless, and the checker counts the strand. ``length`` is L, the nucleotides of a
    strand.
    """

    length: int = 150
    name: str = "screened"
    title: str = "two bits per base, screened"

    SEEDS = 256
    KEY = b"screened"

    @property
    def bits(self) -> int:
        """K, the bits of a strand."""
        return 2 * self.length - 8

    @property
    def digest(self) -> bytes:
        """A hash of what decides the bases."""
        return hashlib.sha256(repr(self).encode()).digest()

    @property
    def constraints(self) -> Constraints:
        """The constraints that the strands are meant to obey."""
        return constraints.named("strand")

    def write(self, words: Words, progress: Step | None = None) -> Bases:
        """Write words as strands."""
        payload = _bits_of(words, self.bits)
        bases = self._with_seed(payload, 0)
        left = np.flatnonzero(~self._good(bases))
        for seed in range(1, self.SEEDS):
            if not left.size:
                break
            trial = self._with_seed(payload[left], seed)
            good = self._good(trial)
            bases[left[good]] = trial[good]
            left = left[~good]
        return bases

    def read(self, bases: Bases) -> tuple[Words, Valid]:
        """Read the words of strands, and return a mask of the strands that are valid."""
        bits = _from_bases(bases)
        seeds = np.packbits(bits[:, :8], axis=1)[:, 0]
        streams = np.stack([self._stream(seed) for seed in range(self.SEEDS)])
        return _words_of(bits[:, 8:] ^ streams[seeds]), np.ones(len(bases), bool)

    def _with_seed(self, payload: Bits, seed: int) -> Bases:
        first = np.broadcast_to(np.unpackbits(np.array([seed], np.uint8)), (len(payload), 8))
        return _to_bases(np.concatenate([first, payload ^ self._stream(seed)], axis=1))

    def _stream(self, seed: int) -> UInt8[np.ndarray, " bits"]:
        number = -(-self.bits // 64)
        stream = keyed.stream(self.KEY, seed * number + np.arange(number))
        return np.unpackbits(stream.astype(">u8").view(np.uint8))[: self.bits]

    def _good(self, bases: Bases) -> Valid:
        gc = ((bases == 1) | (bases == 2)).sum(axis=1)
        low, high = 0.45 * self.length - 1e-9, 0.55 * self.length + 1e-9
        same = bases[:, 1:] == bases[:, :-1]
        run_of_four = (same[:, 2:] & same[:, 1:-1] & same[:, :-2]).any(axis=1)
        return (gc >= low) & (gc <= high) & ~run_of_four


@dataclass(frozen=True)
class Ternary:
    """The rotating ternary code of Goldman et al.

    ("Towards practical, high-capacity, low-maintenance information storage in synthesized DNA", Nature 2013.) A trit
    says which of the three bases other than the last one follows, in the order of their figure 1 (after A: C G T, after
    C: G T A, after G: T A C, after T: A C G); the first base follows an imaginary A.

    They turn bytes into trits with a ternary Huffman code of 5 or 6 trits per byte, 5.08 on average if all bytes are
    equally likely, which is 1.575 bit/nt, but has no fixed length. Here the K = floor(L log2 3) bits of a strand are
    one number in base 3, most significant trit first, with 1.58 bit/nt, which favours the code over its authors'
    version. Their fourfold overlap of strands and their parity trit are left out, as all writers share our outer code.
    """

    length: int = 150
    name: str = "goldman"
    title: str = "Goldman's ternary code"

    TRITS = 20  # trits in one step: 3^20 is the largest power of three below 2^32

    @property
    def bits(self) -> int:
        """K, the bits of a strand."""
        return math.floor(self.length * math.log2(3))

    @property
    def digest(self) -> bytes:
        """A hash of what decides the bases."""
        return hashlib.sha256(repr(self).encode()).digest()

    @property
    def constraints(self) -> Constraints:
        """The constraints that the strands are meant to obey."""
        return constraints.named("goldman")

    def write(self, words: Words, progress: Step | None = None) -> Bases:
        """Write words as strands."""
        limbs = self._right_aligned(words)
        trits = np.zeros((len(words), -(-self.length // self.TRITS) * self.TRITS), np.uint8)
        for end in range(trits.shape[1], 0, -self.TRITS):
            rest = np.zeros(len(words), np.uint64)
            for column in range(limbs.shape[1]):  # long division
                value = rest << np.uint64(32) | limbs[:, column]
                limbs[:, column], rest = np.divmod(value, np.uint64(3**self.TRITS))
            for place in range(end - 1, end - 1 - self.TRITS, -1):
                rest, trit = np.divmod(rest, np.uint64(3))
                trits[:, place] = trit
        steps = trits[:, trits.shape[1] - self.length :] + np.uint8(1)
        return (np.cumsum(steps, axis=1, dtype=np.int64) % 4).astype(np.uint8)

    def read(self, bases: Bases) -> tuple[Words, Valid]:
        """Read the words of strands, and return a mask of the strands that are valid."""
        steps = np.diff(bases.astype(np.int64), axis=1, prepend=0) % 4
        ok: Valid = np.all(steps > 0, axis=1)
        trits = np.maximum(steps - 1, 0).astype(np.uint64)
        trits = np.pad(trits, ((0, 0), (-self.length % self.TRITS, 0)))
        limbs = np.zeros((len(bases), -(-self.bits // 32) + 1), np.uint64)  # one limb more, as 3^L is more than 2^K
        for start in range(0, trits.shape[1], self.TRITS):
            carry = np.zeros(len(bases), np.uint64)
            for trit in trits[:, start : start + self.TRITS].T:
                carry = carry * np.uint64(3) + trit
            for column in range(limbs.shape[1] - 1, -1, -1):
                value = limbs[:, column] * np.uint64(3**self.TRITS) + carry
                limbs[:, column], carry = value & np.uint64(0xFFFFFFFF), value >> np.uint64(32)
        bits = np.unpackbits(limbs.astype(">u4").view(np.uint8), axis=1)
        ok &= ~np.any(bits[:, : -self.bits], axis=1)
        return _words_of(bits[:, -self.bits :]), ok

    def _right_aligned(self, words: Words) -> UInt64[np.ndarray, "n limbs"]:
        """Return words as numbers in limbs of 32 bits each, aligned at the right."""
        bits = _bits_of(words, self.bits)
        bits = np.pad(bits, ((0, 0), (-self.bits % 32, 0)))
        return np.packbits(bits, axis=1).view(">u4").astype(np.uint64)


@dataclass(frozen=True)
class Constrained:
    """TK-SCONE for a named constraint set: ``helix_jax.tk_scone``."""

    set: str = "helix"
    length: int = 150

    @property
    def name(self) -> str:
        """The name in files and rows."""
        return f"tk_scone_{self.set}"

    @property
    def title(self) -> str:
        """The name in tables."""
        return f"TK-SCONE, {self.set}"

    @property
    def bits(self) -> int:
        """K, the bits of a strand."""
        return self._coder.bits

    @property
    def digest(self) -> bytes:
        """A hash of what decides the bases."""
        return hashlib.sha256(repr(self).encode()).digest()

    @property
    def constraints(self) -> Constraints:
        """The constraints that the strands are meant to obey."""
        return constraints.named(self.set)

    @property
    def _coder(self) -> strand_coder.Constrained:
        return _coder(self.set, self.length)

    def write(self, words: Words, progress: Step | None = None) -> Bases:
        """Write words as strands."""
        return self._coder.write(words, progress)

    def read(self, bases: Bases) -> tuple[Words, Valid]:
        """Read the words of strands, and return a mask of the strands that are valid."""
        return self._coder.read(bases)


@functools.cache
def _coder(name: str, length: int) -> strand_coder.Constrained:
    chosen = constraints.named(name)
    return strand_coder.Constrained(chosen, tables.load(chosen, length))


OURS = Constrained()
WRITERS = (
    Screened(),
    Ternary(),
    OURS,
    Constrained("strand"),
)  # the last one obeys what Screened is meant to, at capacity


def _bits_of(words: Words, bits: int) -> Bits:
    """Return the first bits of words as zeros and ones."""
    return np.unpackbits(np.ascontiguousarray(words).astype(">u4").view(np.uint8), axis=1)[:, :bits]


def _words_of(bits: Bits) -> Words:
    """Return zeros and ones as words, padded with zeros."""
    bits = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 32)))
    return np.packbits(bits, axis=1).view(">u4").astype(np.uint32)


def _to_bases(bits: Bits) -> Bases:
    """Return a base for each two bits: 00 A, 01 C, 10 G, 11 T."""
    return bits[:, ::2] << 1 | bits[:, 1::2]


def _from_bases(bases: Bases) -> Bits:
    return np.stack([bases >> 1, bases & 1], axis=2).reshape(len(bases), -1)


# ---- pools -----------------------------------------------------------------------------------------------


def pool_of(data: bytes, coder: StrandCoder, redundancy: float) -> Pool:
    """Write bytes as a pool.

    Args:
        data: the bytes.
        coder: what writes the words as bases.
        redundancy: repair packets as a share of the source packets.
    """
    config = CodecConfig(strands=StrandConfig(redundancy=redundancy))
    return packing.pack(data, config=config, writer=Writer(coder), compress=False)


def read_pool(strands: Bases, coder: StrandCoder) -> tuple[bytes, Bool[np.ndarray, " bytes"]]:
    """Read some strands of a pool, in any order: its bytes, and a mask of the bytes that are lost.

    Raises DecodeError where the header is lost, which practically never happens (``strands.header``).
    """
    received = Writer(coder).read({strands.shape[1]: strands})
    data, recovered = b"".join(packing.contents(received)), received.recovered
    missing = np.repeat(recovered.lost | recovered.suspect, received.header.symbol_bytes)
    return data, missing[: len(data)]


def most_bytes(coder: StrandCoder, strands: int, redundancy: float) -> int:
    """Return the greatest number of bytes that fits into a pool.

    Args:
        coder: what writes the words as bases.
        strands: number of strands, including header strands.
        redundancy: repair packets as a share of the source packets.
    """
    low, high = 0, strands * coder.bits // 8
    while low < high:
        middle = (low + high + 1) // 2
        if layouts.plan(coder.bits, middle, redundancy).packets + header.header_strands(coder.bits) <= strands:
            low = middle
        else:
            high = middle - 1
    return low


def violations(strands: Bases, rules: Constraints) -> int:
    """Return how many strands break one of the rules, by the independent checker."""
    return checker.check(strands, rules).violations
