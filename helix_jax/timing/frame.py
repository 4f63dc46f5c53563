"""Layout of a strand: data rounds, and the rounds whose letters alone carry something.

    data ... data [check] data ... data [check] ... data | parity | index | check check ... check

Data rounds come from the coder (a path of G). After every ``spacing`` of them, if more follow, stands a check letter:
which of the three other bases comes next is a hash of all letters before it. Parity and index are base-3 digits, each
saying which of the three others comes next, and the strand ends in more check letters. All these rounds are written for
the shortest time of their transition; the base before the first round is A.

The hash makes the letters a tree code: where copies have lost runs, a decoder that follows several strings of letters
(``alignment``) drops the wrong ones at the next check letter. It guards against accidents, without a key.

A check letter stands between two letters of the path, so the data letter after it may equal it. Then the letter that
the path had before the check is written instead (that one cannot follow in the path), and the reader turns it back. The
same rule holds one data round later, whose letter may equal what was written instead, and so on. The level is kept as
it is; its time is that of the transition which is written, so all 12 need the same number of levels.
"""

from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from helix_jax.errors import HelixError

DATA, DIGIT, CHECK = range(3)  # kinds of rounds
HASH_START = 0x811C9DC5  # 32-bit FNV-1a: absorb one letter per round, mix when read
_HASH_FACTOR = 0x01000193


class FrameError(HelixError):
    """A strand layout that makes no sense; the message names the field."""


@dataclass(frozen=True)
class Frame:
    """Numbers of rounds of each part of a strand.

    data: data rounds. spacing: data rounds between check letters. parity, index, check: letters at the end.
    Raises FrameError.
    """

    data: int
    spacing: int
    parity: int
    index: int
    check: int

    def __post_init__(self):
        for name, least in (("data", 1), ("spacing", 1), ("parity", 0), ("index", 1), ("check", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise FrameError(f"strand layout: {name} is {value}; give a whole number, at least {least}")

    @cached_property
    def kinds(self):
        """int32[rounds]: kind of each round."""
        spaced = [DATA, *(kind for j in range(1, self.data) for kind in ([CHECK] * (j % self.spacing == 0) + [DATA]))]
        tail = [DIGIT] * (self.parity + self.index) + [CHECK] * self.check
        return np.array(spaced + tail, np.int32)

    @property
    def rounds(self):
        """Rounds of a strand."""
        return len(self.kinds)

    @cached_property
    def data_rounds(self):
        """int64[data]: the rounds that hold data."""
        return np.flatnonzero(self.kinds == DATA)

    @cached_property
    def digit_rounds(self):
        """int64[parity + index]: the rounds that hold parity and index digits."""
        return np.flatnonzero(self.kinds == DIGIT)


def absorb(state, letter):
    """Next hash state: uint32."""
    return (state ^ (letter.astype(jnp.uint32) + 1)) * jnp.uint32(_HASH_FACTOR)


def demanded(state, before):
    """The check letter that must follow ``before`` after ``state``: int32."""
    state = (state ^ (state >> 15)) * jnp.uint32(0x2C1B3C6D)
    state = (state ^ (state >> 12)) * jnp.uint32(0x297A2D39)
    return (before + 1 + ((state >> 8) % jnp.uint32(3)).astype(jnp.int32)) % 4


def _places(frame):
    """For each round, which data letter and which digit it holds (0 where none): int64[rounds] each."""
    data, digit = np.zeros(frame.rounds, np.int64), np.zeros(frame.rounds, np.int64)
    data[frame.data_rounds] = np.arange(len(frame.data_rounds))
    digit[frame.digit_rounds] = np.arange(len(frame.digit_rounds))
    return data, digit


def write(letters, levels, digits, *, frame):
    """Parts of strands -> strands; pure, the caller jits.

    letters, levels: uint8[B, data], paths from base A. digits: uint8[B, parity + index] in 0..2.
    Returns (letters uint8[B, rounds], levels uint8[B, rounds]).
    """
    data, digit = _places(frame)

    def one(letters, levels, digits):
        def step(carry, item):
            before, in_path, state = carry
            kind, letter, digit = item
            written = jnp.where(letter == before, in_path, letter)
            chosen = jnp.stack([written, (before + 1 + digit) % 4, demanded(state, before)])[kind]
            return (chosen, jnp.where(kind == DATA, letter, in_path), absorb(state, chosen)), chosen

        zero = letters[0].astype(jnp.int32) * 0
        start = (zero, zero, zero.astype(jnp.uint32) + jnp.uint32(HASH_START))
        items = (jnp.asarray(frame.kinds), letters.astype(jnp.int32)[data], digits.astype(jnp.int32)[digit])
        strand = lax.scan(step, start, items)[1]
        return strand.astype(jnp.uint8), jnp.where(jnp.asarray(frame.kinds) == DATA, levels[data], 0)

    return jax.vmap(one)(letters, levels, digits)


def read(letters, levels, *, frame):
    """Strands -> parts, the inverse of ``write``; pure, the caller jits.

    letters, levels: uint8[B, rounds]. Returns (letters uint8[B, data], levels uint8[B, data], digits uint8[B, parity +
    index]). A digit of 3 marks a letter that repeats the one before. Check letters are not looked at.
    """

    def one(letters, levels):
        def step(carry, item):
            before, in_path = carry
            kind, letter = item
            meant = jnp.where(letter == in_path, before, letter)
            return (letter, jnp.where(kind == DATA, meant, in_path)), (meant, (letter - before - 1) % 4)

        zero = letters[0].astype(jnp.int32) * 0
        meant, digits = lax.scan(step, (zero, zero), (jnp.asarray(frame.kinds), letters.astype(jnp.int32)))[1]
        parts = meant[frame.data_rounds], levels[frame.data_rounds], digits[frame.digit_rounds]
        return tuple(part.astype(jnp.uint8) for part in parts)

    return jax.vmap(one)(letters, levels)


def bits_to_trits(bits):
    """uint8[B, n] of 0/1 -> base-3 digits uint8[B, trits(n)]: 19 bits in 12 digits, the rest in as few as hold it."""
    pieces = []
    for start in range(0, bits.shape[1], 19):
        part = bits[:, start : start + 19].astype(np.int64)
        number = part @ (1 << np.arange(part.shape[1]))
        pieces.append(number[:, None] // 3 ** np.arange(trits(part.shape[1])) % 3)
    return np.concatenate([np.zeros((len(bits), 0)), *pieces], axis=1).astype(np.uint8)


def trits_to_bits(digits, count):
    """Inverse of ``bits_to_trits``: (uint8[B, count], ok bool[B]); ok is False where the digits are no such number."""
    pieces, ok, place = [], np.ones(len(digits), bool), 0
    for start in range(0, count, 19):
        size = min(19, count - start)
        part = digits[:, place : place + trits(size)].astype(np.int64)
        number = part @ 3 ** np.arange(part.shape[1])
        ok &= (part < 3).all(axis=1) & (number < 1 << size)
        pieces.append(number[:, None] >> np.arange(size) & 1)
        place += trits(size)
    return np.concatenate([np.zeros((len(digits), 0)), *pieces], axis=1).astype(np.uint8), ok


def trits(bits):
    """Base-3 digits that ``bits`` bits take."""
    full, rest = divmod(bits, 19)
    return 12 * full + next(n for n in range(13) if 3**n >= 1 << rest)
