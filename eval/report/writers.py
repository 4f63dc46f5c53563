"""Three ways to write the words of strands as bases, and pools of bytes that differ in nothing else.

    Screened     two bits per base, and a seed to try again with until the strand looks right (as DNA Fountain screens)
    Ternary      Goldman's rotating code: never the same base twice in a row
    Constrained  ours, ``tk_scone``: constraints at capacity

Each writer has ``bits`` (K of a strand), ``claims`` (the constraints that it means to keep; the checker counts where it
does not), ``write`` (words uint32[n, ceil(K / 32)], first bit most significant, zeros after bit K -> bases uint8[n, L])
and ``read`` (back: words, and ok bool[n], False where a strand cannot have been written so).

``pool_of`` puts bytes on strands: header, packets, RaptorQ repair as ``codec.pack`` has them, whatever the writer.
``read_pool`` says which source packets stay lost when strands are.
"""

import dataclasses
import functools
import hashlib
import math
from dataclasses import dataclass

import numpy as np

from helix_jax import keyed, parallel
from helix_jax.config import MixingConfig
from helix_jax.strands import checker, header, outer, packets
from helix_jax.strands.pool import BATCH
from helix_jax.tk_scone import coder, constraints, tables
from helix_jax.tk_scone.constraints import Constraints


@dataclass(frozen=True)
class Screened:
    """Two bits per base behind a seed of one byte (4 bases), which is xored in as a keyed stream: the first of the 256
    seeds counts with which the whole strand, seed and all, has runs <= 3 and 45 to 55 % G + C. Those are the limits of
    Erlich and Zielinski ("DNA Fountain enables a robust and efficient storage architecture", Science 2017), whose seeds
    of 4 bytes also say which droplet it is; here the packet says that. Where no seed does, seed 0 is written all the
    same, and the checker counts it. length: L of a strand, in nucleotides.
    """

    length: int = 150
    name: str = "screened"
    title: str = "two bits per base, screened"

    SEEDS = 256
    KEY = b"screened"

    @property
    def bits(self):
        return 2 * self.length - 8

    @property
    def claims(self):
        return constraints.named("strand")

    def write(self, words):
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

    def read(self, bases):
        bits = _from_bases(bases)
        seeds = np.packbits(bits[:, :8], axis=1)[:, 0]
        streams = np.stack([self._stream(seed) for seed in range(self.SEEDS)])
        return _words_of(bits[:, 8:] ^ streams[seeds]), np.ones(len(bases), bool)

    def _with_seed(self, payload, seed):
        first = np.broadcast_to(np.unpackbits(np.array([seed], np.uint8)), (len(payload), 8))
        return _to_bases(np.concatenate([first, payload ^ self._stream(seed)], axis=1))

    def _stream(self, seed):
        number = -(-self.bits // 64)
        stream = keyed.stream(self.KEY, seed * number + np.arange(number))
        return np.unpackbits(stream.astype(">u8").view(np.uint8))[: self.bits]

    def _good(self, bases):
        gc = ((bases == 1) | (bases == 2)).sum(axis=1)
        low, high = 0.45 * self.length - 1e-9, 0.55 * self.length + 1e-9
        same = bases[:, 1:] == bases[:, :-1]
        run_of_four = (same[:, 2:] & same[:, 1:-1] & same[:, :-2]).any(axis=1)
        return (gc >= low) & (gc <= high) & ~run_of_four


@dataclass(frozen=True)
class Ternary:
    """The code of Goldman et al. ("Towards practical, high-capacity, low-maintenance information storage in synthesized
    DNA", Nature 2013): a trit says which of the three bases other than the last one follows, in the order of their
    figure 1 (after A: C G T, after C: G T A, after G: T A C, after T: A C G); before the first base stands an A.

    They make trits of bytes with a ternary Huffman code of 5 or 6 trits a byte, 5.08 on average where all bytes are
    equally likely: 1.575 bit/nt. That is of no fixed length. Here the K = floor(L log2 3) bits of a strand are one
    number in base 3, most significant trit first: 1.58 bit/nt, so this is kinder to the code than its authors' way.
    Their fourfold overlap of strands and their parity trit are left out, as all writers share our outer code.
    """

    length: int = 150
    name: str = "goldman"
    title: str = "Goldman's ternary code"

    TRITS = 20  # in one step: 3^20 is the largest power of three below 2^32

    @property
    def bits(self):
        return math.floor(self.length * math.log2(3))

    @property
    def claims(self):
        return constraints.named("goldman")

    def write(self, words):
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

    def read(self, bases):
        steps = np.diff(bases.astype(np.int64), axis=1, prepend=0) % 4
        ok = (steps > 0).all(axis=1)
        trits = np.maximum(steps - 1, 0).astype(np.uint64)
        trits = np.pad(trits, ((0, 0), (-self.length % self.TRITS, 0)))
        limbs = np.zeros((len(bases), -(-self.bits // 32) + 1), np.uint64)  # one more: 3^L is more than 2^K
        for start in range(0, trits.shape[1], self.TRITS):
            carry = np.zeros(len(bases), np.uint64)
            for trit in trits[:, start : start + self.TRITS].T:
                carry = carry * np.uint64(3) + trit
            for column in range(limbs.shape[1] - 1, -1, -1):
                value = limbs[:, column] * np.uint64(3**self.TRITS) + carry
                limbs[:, column], carry = value & np.uint64(0xFFFFFFFF), value >> np.uint64(32)
        bits = np.unpackbits(limbs.astype(">u4").view(np.uint8), axis=1)
        ok &= ~bits[:, : -self.bits].any(axis=1)
        return _words_of(bits[:, -self.bits :]), ok

    def _right_aligned(self, words):
        """uint32 words, first bit first -> uint64[n, limbs] of 32 bits each, the number at the right."""
        bits = _bits_of(words, self.bits)
        bits = np.pad(bits, ((0, 0), (-self.bits % 32, 0)))
        return np.packbits(bits, axis=1).view(">u4").astype(np.uint64)


@dataclass(frozen=True)
class Constrained:
    """TK-SCONE for a named constraint set: ``helix_jax.tk_scone``."""

    set: str = "helix"
    length: int = 150

    @property
    def name(self):
        return f"tk_scone_{self.set}"

    @property
    def title(self):
        return f"TK-SCONE, {self.set}"

    @property
    def bits(self):
        return self._tables.bits

    @property
    def claims(self):
        return constraints.named(self.set)

    @property
    def _tables(self):
        return _tables(self.set, self.length)

    def write(self, words):
        arrays, shape = coder.on_device(self._tables)
        return np.asarray(parallel.map_batches(coder.write, arrays, words, batch=BATCH, shape=shape))

    def read(self, bases):
        arrays, shape = coder.on_device(self._tables)
        words, ok = parallel.map_batches(coder.read, arrays, bases, batch=BATCH, shape=shape)
        return np.asarray(words), np.asarray(ok)


@functools.cache
def _tables(name, length):
    return tables.load(constraints.named(name), length)


OURS = Constrained()
WRITERS = (Screened(), Ternary(), OURS, Constrained("strand"))  # the last: what Screened claims, at capacity


def _bits_of(words, bits):
    """uint32[n, W] -> uint8[n, bits] of zeros and ones."""
    return np.unpackbits(np.ascontiguousarray(words).astype(">u4").view(np.uint8), axis=1)[:, :bits]


def _words_of(bits):
    """uint8[n, K] of zeros and ones -> uint32[n, ceil(K / 32)]."""
    bits = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 32)))
    return np.packbits(bits, axis=1).view(">u4").astype(np.uint32)


def _to_bases(bits):
    """uint8[n, 2 L] of zeros and ones -> uint8[n, L]: 00 A, 01 C, 10 G, 11 T."""
    return bits[:, ::2] << 1 | bits[:, 1::2]


def _from_bases(bases):
    return np.stack([bases >> 1, bases & 1], axis=2).reshape(len(bases), -1)


# ---- pools -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class BytePool:
    """Bytes on strands. strands: uint8[n, L], header strands first. header_strands: how many. layout, key: of the
    packets in the others. digest: of the payload."""

    writer: Screened | Ternary | Constrained
    strands: np.ndarray
    header_strands: int
    layout: packets.PacketLayout
    key: bytes
    digest: bytes


def pool_of(data, writer, redundancy):
    """Bytes -> BytePool. redundancy: repair packets as a share of the source packets."""
    layout = packets.plan(writer.bits, len(data), redundancy)
    payload = data.ljust(layout.sources * layout.symbol_bytes, b"\0")
    layout = dataclasses.replace(layout, payload_bytes=len(payload))
    symbols, key, digest = (
        outer.encode(layout, payload),
        hashlib.sha256(data).digest()[:8],
        outer.payload_digest(payload),
    )
    head = header.Header(
        kind="bytes", constraints=writer.name, tables_hash=bytes(8), key=key, content_bytes=len(data), digest=digest,
        sources=layout.sources, symbol_bytes=layout.symbol_bytes, index_bits=layout.index_bits,
        check_bits=layout.check_bits, repairs=layout.repairs, mixing=MixingConfig(offset=False),
    )  # fmt: skip
    first = header.header_packets(head, writer.bits)
    words = np.concatenate([first, packets.pack(layout, key, np.arange(len(symbols)), symbols)])
    return BytePool(writer, writer.write(words), len(first), layout, key, digest)


def read_pool(pool, strands):
    """Strands of a pool, uint8[n, L], in any order -> (payload bytes, lost bool[sources]).

    The header is taken to be known: header strands are as good as never lost all (``strands.header``).
    """
    words, ok = pool.writer.read(strands)
    index, symbols, good = packets.unpack(pool.layout, pool.key, words[ok])
    found = outer.decode(pool.layout, index[good], symbols[good], outer.matching(pool.digest))
    return found.payload, found.lost | found.suspect


def most_bytes(writer, strands, redundancy):
    """The most bytes that a pool of so many strands carries, header strands among them; 0: none."""
    low, high = 0, strands * writer.bits // 8
    while low < high:
        middle = (low + high + 1) // 2
        if packets.plan(writer.bits, middle, redundancy).packets + header.header_strands(writer.bits) <= strands:
            low = middle
        else:
            high = middle - 1
    return low


def violations(strands, rules: Constraints):
    """How many strands break one of the rules, by the independent checker."""
    return checker.check(strands, rules).violations
