"""The layout of a strand: its data rounds, and the rounds in which only the letters carry information.

    data ... data [check] data ... data [check] ... data | parity | index | check check ... check

The data rounds come from the coder (a path of G). After every ``spacing`` of them, if more follow, there is a check
letter: a hash of all letters before it says which of the three other bases comes next. The parity and the index are
base-3 digits, each of which says which of the three others comes next, and the strand ends in more check letters. All
these rounds are written for the shortest time of their transition. The base before the first round is A.

The hash makes the letters a tree code: where copies have lost runs, a decoder that follows several strings of letters
(``alignment``) drops the wrong ones at the next check letter. The hash guards against accidents and has no key.

In a layout with the ``index_first``, a strand that is lost half way still says which one it is, and there are check
letters after every ``spacing`` rounds of all kinds:

    index ... [check] ... data ... data [check] ... data | parity ... [check] ... shared | check check ... check

Some letters of it may be tagged: TAG_BITS bits of the hash, after each of ``tag_rounds``, are not written in the strand
itself, but protected by a code over all strands (``tags``), of which the strand's ``shared`` digits are a part.

A check letter stands between two letters of the path, so the data letter after it may equal it. In that case, the
letter that the path had before the check is written instead (this letter cannot follow in the path), and the reader
reverses the exchange. The same rule holds one data round later, whose letter may equal the one that was written
instead, and so on, and for the first data round after the index. The level is kept as it is. Its time is that of the
transition which is written, so all 12 transitions need the same number of levels.
"""

from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, Int32, Integer, UInt8, UInt32

from helix_jax.errors import HelixError

DATA, DIGIT, CHECK = range(3)  # the kinds of rounds
HASH_START = 0x811C9DC5  # 32-bit FNV-1a, which absorbs one letter per round and is mixed when it is read
_HASH_FACTOR = 0x01000193
TAG_BITS = 2  # four tags are a byte

Arrayish = Array | np.ndarray


class FrameError(HelixError):
    """A strand layout makes no sense; the message names the field."""


@dataclass(frozen=True)
class Frame:
    """The number of rounds in each part of a strand.

    Attributes:
        data: The data rounds.
        spacing: The rounds between two check letters: of all kinds with the index first, and of data otherwise.
        parity: The parity letters.
        index: The letters of the index.
        check: The check letters at the end.
        index_first: Whether the index comes first, and check letters stand in all parts of the strand.
        shared: The letters of the strand's share in the code of the tags, which stand behind the parity; with the index
            first.
        tags: The number of tags.

    Raises:
        FrameError: A number is too small, or there are more tags than rounds.
    """

    data: int
    spacing: int
    parity: int
    index: int
    check: int
    index_first: bool = False
    shared: int = 0
    tags: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("data", 1), ("spacing", 1), ("parity", 0), ("index", 1), ("check", 1), ("shared", 0), ("tags", 0),
        ):  # fmt: skip
            value = getattr(self, name)
            if value < least:
                raise FrameError(f"strand layout: {name} is {value}; give a whole number, at least {least}")
        if (self.shared and not self.index_first) or bool(self.tags) != bool(self.shared):
            raise FrameError(
                f"strand layout: shared is {self.shared} and tags {self.tags}; give both, in a strand whose index "
                "comes first, or neither"
            )
        if self.tags and self.tags > self.digit_rounds[-self.shared]:
            raise FrameError(
                f"strand layout: tags is {self.tags}; at most {self.digit_rounds[-self.shared]}, one for each round "
                "before the shared digits"
            )

    @cached_property
    def kinds(self) -> Int32[np.ndarray, " rounds"]:
        """The kind of each round."""
        if self.index_first:
            parts = [DIGIT] * self.index + [DATA] * self.data + [DIGIT] * (self.parity + self.shared)
            spaced = [kind for j, part in enumerate(parts) for kind in ([CHECK] * _due(j, self.spacing) + [part])]
            return np.array(spaced + [CHECK] * self.check, np.int32)
        spaced = [kind for j in range(self.data) for kind in ([CHECK] * _due(j, self.spacing) + [DATA])]
        return np.array(spaced + [DIGIT] * (self.parity + self.index) + [CHECK] * self.check, np.int32)

    @property
    def rounds(self) -> int:
        """The number of rounds of a strand."""
        return len(self.kinds)

    @cached_property
    def data_rounds(self) -> Int[np.ndarray, " data"]:
        """The numbers of the rounds that hold data."""
        return np.flatnonzero(self.kinds == DATA)

    @cached_property
    def digit_rounds(self) -> Int[np.ndarray, " digits"]:
        """The numbers of the rounds that hold the digits: of parity and index, or of index, parity and share."""
        return np.flatnonzero(self.kinds == DIGIT)

    @cached_property
    def digit_parts(self) -> dict[str, slice]:
        """Where "index", "parity" and "shared" stand among the digits."""
        names = ("index", "parity", "shared") if self.index_first else ("parity", "index", "shared")
        ends = np.cumsum([getattr(self, name) for name in names]).tolist()
        return {name: slice(end - getattr(self, name), end) for name, end in zip(names, ends, strict=True)}

    @property
    def settled(self) -> int:
        """The number of the rounds before the shared digits: what follows is of no use to the payload."""
        return int(self.digit_rounds[-self.shared]) if self.shared else self.rounds

    @cached_property
    def tag_rounds(self) -> Int[np.ndarray, " tags"]:
        """The rounds after which the hash is tagged: evenly spaced, and all before the shared digits."""
        if not self.tags:
            return np.zeros(0, np.int64)
        return np.arange(1, self.tags + 1) * self.digit_rounds[-self.shared] // self.tags - 1


def _due(number, spacing):
    """Return whether a check letter stands before the round of that number, not counting check letters."""
    return number > 0 and number % spacing == 0


def absorb(state: UInt32[Arrayish, "*strings"], letter: Integer[Arrayish, "*strings"]) -> UInt32[Arrayish, "*strings"]:
    """Return the state of the hash after one more letter."""
    return (state ^ (letter.astype(jnp.uint32) + 1)) * jnp.uint32(_HASH_FACTOR)


def mixed(state: UInt32[Arrayish, "*strings"]) -> UInt32[Arrayish, "*strings"]:
    """Return a state of the hash with its bits mixed, so that its digits can be read off."""
    state = (state ^ (state >> 15)) * jnp.uint32(0x2C1B3C6D)
    return (state ^ (state >> 12)) * jnp.uint32(0x297A2D39)


def tag(state: UInt32[Arrayish, "*strings"]) -> Int32[Arrayish, "*strings"]:
    """Return the tag of the letters that led to this state: TAG_BITS bits that no check letter depends on."""
    state = mixed(state)
    return ((state ^ (state >> 3)) & jnp.uint32((1 << TAG_BITS) - 1)).astype(jnp.int32)


def demanded(state: UInt32[Arrayish, "*strings"], before: Int32[Arrayish, "*strings"]) -> Int32[Arrayish, "*strings"]:
    """Return the check letter that must follow the letter ``before`` if the hash has the given state."""
    state = mixed(state)
    return (before + 1 + ((state >> 8) % jnp.uint32(3)).astype(jnp.int32)) % 4


def tags(letters: Integer[Arrayish, "B rounds"], *, frame: Frame) -> Int32[Array, "B tags"]:
    """Return the tags of strands; pure, and jitted by the caller.

    Args:
        letters: The letters of all rounds.
        frame: The layout.
    """

    def step(state, letters):
        state = absorb(state, letters)
        return state, tag(state)

    start = jnp.full(len(letters), HASH_START, jnp.uint32)
    return jnp.asarray(lax.scan(step, start, letters.T)[1]).T[:, frame.tag_rounds]


def _contents(frame):
    """Return which data letter and which digit each round holds (0 where it holds none): int64[rounds] each."""
    data, digit = np.zeros(frame.rounds, np.int64), np.zeros(frame.rounds, np.int64)
    data[frame.data_rounds] = np.arange(len(frame.data_rounds))
    digit[frame.digit_rounds] = np.arange(len(frame.digit_rounds))
    return data, digit


def write(
    letters: Integer[Arrayish, "B data"],
    levels: Integer[Arrayish, "B data"],
    digits: Integer[Arrayish, "B digits"],
    *,
    frame: Frame,
) -> tuple[UInt8[Array, "B rounds"], Integer[Array, "B rounds"]]:
    """Assemble strands from their parts; pure, and jitted by the caller.

    Args:
        letters: The letters of the paths, which start from base A.
        levels: The levels of the paths.
        digits: The digits, 0..2 (``Frame.digit_parts``).
        frame: The layout.

    Returns:
        The letters and the levels of all rounds.
    """
    data, digit = _contents(frame)

    def assemble(letters, levels, digits):
        def step(carry, item):
            before, in_path, state = carry
            kind, letter, digit = item
            written = jnp.where(letter == before, in_path, letter)
            chosen = jnp.stack([written, (before + 1 + digit) % 4, demanded(state, before)])[kind]
            state = absorb(state, chosen)
            return (chosen, jnp.where(kind == DATA, letter, in_path), state), chosen

        start = (jnp.int32(0), jnp.int32(0), jnp.uint32(HASH_START))
        items = (jnp.asarray(frame.kinds), letters.astype(jnp.int32)[data], digits.astype(jnp.int32)[digit])
        strand = lax.scan(step, start, items)[1]
        return strand.astype(jnp.uint8), jnp.where(jnp.asarray(frame.kinds) == DATA, levels[data], 0)

    return jax.vmap(assemble)(letters, levels, digits)


def read(
    letters: Integer[Arrayish, "B rounds"], levels: Integer[Arrayish, "B rounds"], *, frame: Frame
) -> tuple[UInt8[Array, "B data"], UInt8[Array, "B data"], UInt8[Array, "B digits"]]:
    """Take strands apart, as the inverse of ``write``; pure, and jitted by the caller.

    Args:
        letters: The letters of all rounds.
        levels: The levels of all rounds.
        frame: The layout.

    Returns:
        The letters and the levels of the paths, and the digits. A digit of 3 marks a letter that
        repeats the one before it. The check letters are ignored.
    """

    def take_apart(letters, levels):
        def step(carry, item):
            before, in_path = carry
            kind, letter = item
            meant = jnp.where(letter == in_path, before, letter)
            return (letter, jnp.where(kind == DATA, meant, in_path)), meant

        start = (jnp.int32(0), jnp.int32(0))
        meant = lax.scan(step, start, (jnp.asarray(frame.kinds), letters.astype(jnp.int32)))[1]
        return meant[frame.data_rounds].astype(jnp.uint8), levels[frame.data_rounds].astype(jnp.uint8)

    path, path_levels = jax.vmap(take_apart)(letters, levels)
    return path, path_levels, jnp.asarray(digits(letters, frame=frame))


def digits(letters: Integer[Arrayish, "B rounds"], *, frame: Frame) -> UInt8[Arrayish, "B digits"]:
    """Return the digits of strands, which are NumPy or JAX arrays as the letters are.

    Args:
        letters: The letters of all rounds.
        frame: The layout.

    Returns:
        The digits, or 3 for a letter that repeats the one before it.
    """
    letters, rounds = letters.astype(np.uint8), frame.digit_rounds
    before = letters[:, rounds - 1] * (rounds > 0)[None]
    return letters[:, rounds] - before + 3 & 3


def bits_to_trits(bits: Integer[np.ndarray, "B n"]) -> UInt8[np.ndarray, "B digits"]:
    """Convert n bits (0 or 1) into ``trits(n)`` base-3 digits.

    Every 19 bits go into 12 digits, and the rest into as few as hold it.
    """
    pieces = []
    for start in range(0, bits.shape[1], 19):
        part = bits[:, start : start + 19].astype(np.int64)
        number = part @ (1 << np.arange(part.shape[1]))
        pieces.append(number[:, None] // 3 ** np.arange(trits(part.shape[1])) % 3)
    return np.concatenate([np.zeros((len(bits), 0)), *pieces], axis=1).astype(np.uint8)


def trits_to_bits(
    digits: Integer[np.ndarray, "B digits"], count: int
) -> tuple[UInt8[np.ndarray, "B bits"], Bool[np.ndarray, " B"]]:
    """Convert base-3 digits back into ``count`` bits, as the inverse of ``bits_to_trits``.

    The second result is False where the digits are not those of any bits.
    """
    pieces, ok, position = [], np.ones(len(digits), bool), 0
    for start in range(0, count, 19):
        size = min(19, count - start)
        part = digits[:, position : position + trits(size)].astype(np.int64)
        number = part @ 3 ** np.arange(part.shape[1])
        ok &= (part < 3).all(axis=1) & (number < 1 << size)
        pieces.append(number[:, None] >> np.arange(size) & 1)
        position += trits(size)
    return np.concatenate([np.zeros((len(digits), 0)), *pieces], axis=1).astype(np.uint8), ok


def trits(bits: int) -> int:
    """Return the number of base-3 digits that ``bits`` bits take."""
    full, rest = divmod(bits, 19)
    return 12 * full + next(n for n in range(13) if 3**n >= 1 << rest)
