"""Speed of the timing coders, bits to rounds and back, compared with a plain Python walk through the same tables.

For ``eval.throughput``. Both coders are those of the talk's example: state splitting at 9:5, whose strands have about
as many rounds as those of the other, and the range coder in blocks of 472 time units.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from helix_jax import arithmetic, parallel
from helix_jax.reference import kernels
from helix_jax.timing import block_coder, finite_state, rounds, state_splitting
from helix_jax.timing.graph import TALK, ordinary_graph

P, Q = 9, 5
DURATION = 472
STRANDS = 20_000
PLAIN = 8  # number of strands of the plain walks


@dataclass(frozen=True)
class Speed:
    """Rounds per second in both directions, of one coder on all devices, and of its plain walk on one core."""

    coder: str
    strands: int
    encode: float
    decode: float
    plain_encode: float
    plain_decode: float


def rows(
    seconds_per_call: Callable[[Callable[[], Any]], float], strands: int = STRANDS, plain: int = PLAIN
) -> list[Speed]:
    """Measure both coders.

    Args:
        seconds_per_call: measures the seconds that a call of a function takes.
        strands: number of strands on the devices.
        plain: number of strands of the plain walks.
    """
    return [_splitting(seconds_per_call, strands, plain), _range_coder(seconds_per_call, strands, plain)]


def _random_words(count, bits):
    words = np.random.default_rng(0).integers(0, 1 << 32, (count, -(-bits // 32)), dtype=np.uint32)
    words[:, -1] &= np.uint32((0xFFFFFFFF << (-bits % 32)) & 0xFFFFFFFF)
    return words


def _spread(function, arrays, strands, **static):
    """Spread ``function`` over all devices if their number divides the strands, and else over one."""
    count = len(jax.local_devices())
    devices = tuple(jax.local_devices()[: count if strands % count == 0 else 1])
    call, arrays = parallel.spread(function, devices, **static), jax.device_put(arrays, jax.local_devices()[0])
    if len(devices) == count:
        arrays = parallel.replicate(arrays)
    return lambda *batched: jax.block_until_ready(call(arrays, *batched))


def _check(name, words, back, ok):
    if not (np.asarray(ok).all() and np.array_equal(back, words)):
        raise RuntimeError(f"a payload of the {name} did not come back: the coder is wrong")


# ---- state splitting ---------------------------------------------------------------------------------------


def _write_split(constants, words, *, shape, blocks):
    arrays, edges = constants
    tags = finite_state.to_tags(words, shape=shape, length=blocks)
    return rounds.to_rounds(edges, finite_state.encode(arrays, tags, shape=shape))


def _read_split(constants, letters, levels, count, *, shape, bits):
    arrays, edges = constants
    labels, legal = rounds.from_rounds(edges, letters, levels, count, units=letters.shape[1])
    tags, ok = finite_state.decode(arrays, labels, shape=shape)
    return finite_state.from_tags(tags, shape=shape, bits=bits), ok & legal


def _splitting(seconds_per_call, strands, plain):
    encoder = state_splitting.build(ordinary_graph(TALK), P, Q)
    arrays, shape = finite_state.on_device(encoder)
    constants, blocks = (arrays, rounds.edges_of(TALK)), DURATION // Q - encoder.anticipation
    bits = P * blocks
    write = _spread(_write_split, constants, strands, shape=shape, blocks=blocks)
    read = _spread(_read_split, constants, strands, shape=shape, bits=bits)
    words = _random_words(strands, bits)
    letters, levels, count = write(words)
    name = f"state splitting {P}:{Q}"
    _check(name, words, *read(letters, levels, count))
    total, few = int(np.asarray(count).sum()), int(np.asarray(count)[:plain].sum())

    walk = PlainSplitting(encoder)
    payloads = [kernels.words_to_int(row, bits) for row in words[:plain]]
    paths = [walk.write(payload, blocks) for payload in payloads]
    if [walk.read(path) for path in paths] != payloads or len(paths[0][0]) != int(count[0]):
        raise RuntimeError(f"the plain walk of {name} differs from the coder")
    return Speed(
        f"{name}, {blocks} blocks", strands,
        total / seconds_per_call(lambda: write(words)),
        total / seconds_per_call(lambda: read(letters, levels, count)),
        few / seconds_per_call(lambda: [walk.write(payload, blocks) for payload in payloads]),
        few / seconds_per_call(lambda: [walk.read(path) for path in paths]),
    )  # fmt: skip


class PlainSplitting:
    """A walk through an encoder's tables in Python. A path is (letters, levels), lists with one entry per round."""

    def __init__(self, encoder: Any) -> None:
        self.p, self.q, self.start = encoder.p, encoder.q, encoder.starts[0]
        self.anticipation, self.times = encoder.anticipation, TALK.times
        self.next, self.block = encoder.next.tolist(), encoder.block.tolist()
        self.blocks = [tuple(row) for row in encoder.blocks.tolist()]
        self.edges = TALK.edges().tolist()
        self.number = {(b, a, level): n for n, (b, a, level, _) in enumerate(self.edges)}
        self.ways = [{} for _ in range(encoder.states)]  # for each state: block -> (tag, next state) of its edges
        for at, (following, block) in enumerate(zip(self.next, self.block, strict=True)):
            state, tag = at >> self.p, at & (1 << self.p) - 1
            self.ways[state].setdefault(self.blocks[block], []).append((tag, following))

    def write(self, payload: int, blocks: int) -> tuple[list[int], list[int]]:
        """Return the path of a payload of ``blocks`` tags."""
        state, letters, levels = self.start, [], []
        tags = [payload >> self.p * (blocks - 1 - n) & (1 << self.p) - 1 for n in range(blocks)]
        for tag in tags + [0] * self.anticipation:
            at = state << self.p | tag
            state = self.next[at]
            for label in self.blocks[self.block[at]]:
                if label >= 0:
                    letters.append(self.edges[label][1])
                    levels.append(self.edges[label][2])
        return letters, levels

    def read(self, path: tuple[list[int], list[int]]) -> int:
        """Return the payload of a path."""
        labels, before = [], 0
        for letter, level in zip(*path, strict=True):
            labels += [self.number[before, letter, level]] + [-1] * (self.times[before][letter][level] - 1)
            before = letter
        # all states that the blocks so far lead to, each with the step that leads there
        ends, steps = {self.start}, []
        for n in range(0, len(labels) // self.q * self.q, self.q):
            block, reached = tuple(labels[n : n + self.q]), {}
            for state in ends:
                for tag, following in self.ways[state].get(block, ()):
                    reached[following] = state, tag
            ends = reached.keys()
            steps.append(reached)
        state, payload = next(iter(ends)), 0
        for n, reached in enumerate(reversed(steps)):
            state, tag = reached[state]
            if n >= self.anticipation:
                payload |= tag << self.p * (n - self.anticipation)
        return payload


# ---- range coder ---------------------------------------------------------------------------------------------


def _write_block(arrays, words, *, shape):
    return block_coder.encode_block(arrays, words, shape=shape)


def _read_block(arrays, letters, levels, *, shape):
    return block_coder.decode_block(arrays, letters, levels, shape=shape)


def _range_coder(seconds_per_call, strands, plain):
    block = block_coder.build_block(TALK, block_coder.best_rounds(TALK, DURATION), DURATION)
    arrays, shape = block_coder.block_on_device(block)
    write = _spread(_write_block, arrays, strands, shape=shape)
    read = _spread(_read_block, arrays, strands, shape=shape)
    words = _random_words(strands, block.bits)
    letters, levels = write(words)
    _check("range coder", words, *read(letters, levels))

    model = plain_block(block)
    payloads = [kernels.words_to_int(row, block.bits) for row in words[:plain]]
    paths = [kernels.bits_to_symbols(model, payload, block.bits, block.rounds) for payload in payloads]
    if (np.array(paths) % block.levels != np.asarray(levels)[:plain]).any():
        raise RuntimeError("the plain range coder differs from the coder")
    total, few = strands * block.rounds, plain * block.rounds
    return Speed(
        f"range coder, T = {DURATION}, {block.rounds} rounds", strands,
        total / seconds_per_call(lambda: write(words)),
        total / seconds_per_call(lambda: read(letters, levels)),
        few / seconds_per_call(
            lambda: [kernels.bits_to_symbols(model, payload, block.bits, block.rounds) for payload in payloads]
        ),
        few / seconds_per_call(lambda: [kernels.symbols_to_bits(model, path, block.bits) for path in paths]),
    )  # fmt: skip


def plain_block(block: block_coder.Block) -> tuple[int, Callable, Callable]:
    """Return the model that ``kernels.bits_to_symbols`` takes for the rows of a block coder, unpacked to lists."""
    symbols = 3 * block.levels
    halves = np.stack([block.rows & 0xFFFF, block.rows >> 16], axis=2).reshape(len(block.rows), -1)
    inner = halves[:, : symbols - 1].astype(int)
    cuts = np.pad(np.pad(inner, ((0, 0), (1, 0))), ((0, 0), (0, 1)), constant_values=arithmetic.TOTAL).tolist()
    step = block.step.astype(np.uint32).view(np.int32).tolist()
    start = (block.width - 1) * 4 + block.first_base
    return start, lambda row, _: cuts[row], lambda row, _, symbol: row + step[row & 3][symbol]
