"""The entropy coder of tokens in NumPy, without JAX: specification, oracle of the tests, archival decoder, and what the
encoder checks every pool with before it is written.

Written from the definitions (``context``'s docstring), token by token, all segments side by side.
"""

import typing

import numpy as np

from helix_jax.prior import segments
from helix_jax.prior.tables import (
    BIAS,
    DOUBTS,
    LIMIT,
    NODES,
    NONE,
    RATE_BITS,
    REACH,
    RECIPROCAL_BITS,
    SIZES,
    WEIGHT_BITS,
    WEIGHT_LIMIT,
    reciprocal,
    squash,
    stretch,
)
from helix_jax.reference import TOTAL, TOTAL_BITS

GROUP = 4  # latent frames of a group of the tokenizer
BATCH = 256  # segments side by side


class _Bits:
    """The reading end of the range coder for n streams at once: see ``helix_jax.range_coder``."""

    def __init__(self, coded):
        longest = max(len(piece) for piece in coded) + 16
        rows = [np.frombuffer(piece.ljust(longest, b"\0"), np.uint8) for piece in coded]
        self.data, self.lane = np.stack(rows).astype(np.int64), np.arange(len(coded))
        self.at = np.zeros(len(coded), np.int64)
        self.width = np.full(len(coded), 1 << 31)
        self.value = self._take(np.full(len(coded), 31))

    def _take(self, count):
        """The next int64[n] bits (at most 32) of each stream; zeros follow its end."""
        first = np.minimum(self.at // 8, self.data.shape[1] - 6)
        window = np.zeros_like(first)
        for n in range(6):
            window = window << 8 | self.data[self.lane, first + n]
        window = window >> (48 - self.at % 8 - count) & ((1 << count) - 1)
        self.at = self.at + count
        return window

    def symbols(self, counts):
        """The next symbol of each stream. counts: int64[n, 3], inner cumulative counts out of TOTAL."""
        bounds = self.width[:, None] * counts >> TOTAL_BITS
        edges = np.concatenate([np.zeros_like(bounds[:, :1]), bounds, self.width[:, None]], axis=1)
        symbol = (self.value[:, None] >= bounds).sum(axis=1)
        low = edges[self.lane, symbol]
        width = edges[self.lane, symbol + 1] - low
        shift = 32 - np.frexp(width.astype(np.float64))[1]
        self.value = self.value - low << shift | self._take(shift)
        self.width = width << shift
        return symbol


class _Model:
    """What has been seen so far in n segments: cells int64[n, rows, 3] of p and of n, weights int64[n, k, 3, inputs]"""

    def __init__(self, start, count, digits):
        self.p = np.repeat(start.cells[None].astype(np.int64) >> 8, count, axis=0)
        self.n = np.repeat(start.cells[None].astype(np.int64) & 255, count, axis=0)
        weights = start.weights.reshape(1, digits, NODES, -1)
        self.weights = np.repeat(weights.astype(np.int64), count, axis=0)
        self.lane = np.arange(count)[:, None]

    def predict(self, rows, j, logits):
        """int64[n, 3], 16-bit probabilities of a 1. rows: int64[n, experts], logits: int64[n, 3] or None."""
        experts = stretch()[self.p[self.lane, rows] >> 4].transpose(0, 2, 1).astype(np.int64)
        inputs = [experts, np.full_like(experts[:, :, :1], BIAS)]
        if logits is not None:
            inputs.append(np.clip(logits, -REACH, REACH)[:, :, None])
        self.inputs = np.concatenate(inputs, axis=2)
        total = (self.inputs * (self.weights[:, j] >> 4)).sum(axis=2) >> (WEIGHT_BITS - 4)
        self.rows, self.j = rows, j
        self.guess = squash()[np.clip(total, -REACH, REACH) + REACH].astype(np.int64)
        return self.guess

    def learn(self, symbol, there):
        """Take note of the digit int64[n] that was coded, in those segments where it is there."""
        lanes = np.flatnonzero(there)
        for node, bit in ((0, symbol >> 1), (1 + (symbol >> 1), symbol & 1)):
            at = np.broadcast_to(node, symbol.shape)[lanes]
            bit = bit[lanes]
            where = (lanes[:, None], self.rows[lanes], at[:, None])
            p, n = self.p[where], self.n[where]
            self.p[where] = p + ((bit[:, None] * 65535 - p) * reciprocal()[n] >> RECIPROCAL_BITS)
            self.n[where] = np.minimum(n + 1, LIMIT)
            error = (bit << 16) - self.guess[lanes, at]
            mixer = (lanes, self.j, at)
            moved = self.weights[mixer] + (self.inputs[lanes, at] * error[:, None] >> RATE_BITS)
            self.weights[mixer] = np.clip(moved, -WEIGHT_LIMIT, WEIGHT_LIMIT)


class Net:
    """The prior's net (``helix_jax.prior.net``) in NumPy: float32, exact since all sums stay below 2^24.

    params: nested dict of arrays, as ``prior.weights`` gives.
    """

    def __init__(self, params):
        def arrays(node):
            return {n: arrays(v) for n, v in node.items()} if isinstance(node, dict) else np.asarray(node, np.float32)

        known: typing.Any = arrays(params)
        self.params: dict[str, typing.Any] = known
        digits = known["within"].shape[0] // 4
        table = np.rint(known["within"].astype(np.float64) * 256).astype(np.int64)
        self.within = table.reshape(digits, 4, digits, NODES)

    def logits(self, digits, frame):
        """int64[n, h, w, k, 3] of one frame, all frames before it known. digits: int[n, t, h, w, k], NONE: unknown."""
        count, t, h, w, k = digits.shape
        digits = np.where(np.arange(t)[:, None, None, None] < frame, digits, NONE)
        past, future = np.full_like(digits, NONE), np.full_like(digits, NONE)
        for n in range(1, t):
            past[:, n] = np.where(digits[:, n - 1] == NONE, past[:, n - 1], digits[:, n - 1])
        for n in range(t - 2, -1, -1):
            future[:, n] = np.where(digits[:, n + 1] == NONE, future[:, n + 1], digits[:, n + 1])
        told = [(d[..., None] == np.arange(4)).reshape(count, t, h, w, 4 * k) for d in (digits, past, future)]
        told += [(digits == other) & (digits != NONE) for other in (past, future)]
        x = self._linear(np.concatenate(told, axis=-1).astype(np.float32), self.params["embed"])
        x = _whole_steps(x + self.params["phase"][np.arange(t) % GROUP][:, None, None], 10, -(2**15), 2**15)
        for n in sorted(self.params["blocks"]):
            block = self.params["blocks"][n]
            a = np.pad(_whole_steps(x, 5, -127, 127), ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
            around = [a[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)]
            b = _whole_steps(self._linear(np.concatenate(around, axis=-1), block["spatial"]), 5, 0, 127)
            b = np.pad(b, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
            b = self._linear(np.concatenate([b[:, i : i + t] for i in range(3)], axis=-1), block["temporal"])
            x = np.clip(x + _whole_steps(b, 10, -(2**15), 2**15), -32, 32)
        x = self._linear(_whole_steps(x[:, frame], 5, -127, 127), self.params["after"])
        return (_whole_steps(x, 8, -REACH, REACH) * 256).astype(np.int64).reshape(count, h, w, k, NODES)

    def _linear(self, x, layer):
        return x @ layer["w"] + layer["b"]


def _whole_steps(x, bits, low, high):
    return np.clip(np.floor(x * np.float32(2**bits) + np.float32(0.5)), low, high) / np.float32(2**bits)


def _counts(p, there):
    """Probabilities int64[n, 3] -> cumulative counts int64[n, 3]; all of it is digit 0's where no token is there."""
    upper = np.clip(p[:, 0] >> 1, 2, TOTAL - 2)
    lower = TOTAL - upper
    one = np.clip(lower * p[:, 1] >> 16, 1, lower - 1)
    three = np.clip(upper * p[:, 2] >> 16, 1, upper - 1)
    return np.where(there[:, None], np.stack([lower - one, lower, TOTAL - three], axis=1), TOTAL)


def expand_clip(prior, mode, plan, digits, coded, progress=None):
    """Bytes of all segments of a clip -> tokens uint8[t, h, w, k]. Arguments as of ``prior.coder.expand``."""
    there = segments.there(plan)
    there[[piece is None for piece in coded]] = False
    parts = []
    for begin in range(0, len(coded), BATCH):
        some = slice(begin, begin + BATCH)
        pieces = [piece or b"" for piece in coded[some]]
        net = Net(prior.params) if mode == "prior" else None
        parts.append(expand(prior.mixed if net else prior.context, plan, digits, pieces, there[some], net))
        if progress:
            progress(len(pieces))
    return segments.join(plan, np.concatenate(parts))


def expand(start, plan, digits, coded, there, net=None):
    """Bytes of n segments -> tokens uint8[n, t, h, w, k], zeros where no token is.

    start: tables.Start. plan: segments.Plan. there: bool[n, t, h, w]. net: Net in mode `prior`.
    """
    count, (t, h, w) = len(coded), plan.shape
    model, bits = _Model(start, count, digits), _Bits(coded)
    first_row = np.cumsum((0, *SIZES[:-1])) * digits
    # digits with a border of NONE all around: one frame before, one row above, one column on either side
    known = np.full((count, t + 1, h + 1, w + 2, digits), NONE)
    given = np.zeros((count, h, w, digits, NODES), np.int64)
    guess, doubt = np.zeros((count, h, w, digits), np.int64), np.zeros((count, h, w), np.int64)
    for f, y, x in np.ndindex(t, h, w):
        if net and y == x == 0:
            given = net.logits(known[:, 1:, 1:, 1:-1], f)
            guess, doubt = _guess(given, net.within)
        here = there[:, f, y, x]
        frame, before = known[:, f + 1], known[:, f]
        past, left, up = before[:, y + 1, x + 1], frame[:, y + 1, x], frame[:, y, x + 1]
        up_left, up_right = frame[:, y, x], frame[:, y, x + 2]
        past_left, past_right, past_up = before[:, y + 1, x], before[:, y + 1, x + 2], before[:, y, x + 1]
        beside = [_steps(_differing(a, b)) for a, b in ((left, past_left), (up, past_up))]
        strayed = np.zeros(count, np.int64)
        token = np.full((count, digits + 2), NONE)  # two places of NONE before the first digit
        for j in range(digits):
            one, two = token[:, j + 1], token[:, j]
            differ = np.where(past[:, 0] == NONE, j, (token[:, 2 : j + 2] != past[:, :j]).sum(axis=1))
            past_one = past[:, j - 1] if j else np.full(count, NONE)
            context = [
                _number(5, past[:, j], left[:, j], up[:, j]),
                _number(5, past[:, j], one, past_one, two),
                _number(5, left[:, j], up[:, j], up_left[:, j], up_right[:, j]),
                _number(4, past[:, j], np.minimum(differ, 3), *beside) * 2 + (f % GROUP == 0),
                _number(5, past[:, j], past_left[:, j], past_right[:, j], past_up[:, j]),
                _number(5, left[:, j], up[:, j], one, two),
            ]
            logits = None
            if net:
                context.append((guess[:, y, x, j] * 3 + np.minimum(strayed, 2)) * DOUBTS + doubt[:, y, x])
                logits = given[:, y, x, j] + sum(net.within[i, token[:, i + 2], j] for i in range(j))
            rows = np.stack([a + j * n + c for a, n, c in zip(first_row, SIZES, context, strict=False)], axis=1)
            symbol = bits.symbols(_counts(model.predict(rows, j, logits), here))
            model.learn(symbol, here)
            token[:, j + 2] = symbol
            strayed += symbol != guess[:, y, x, j]
        known[here, f + 1, y + 1, x + 1] = token[here, 2:]
    tokens = known[:, 1:, 1:, 1:-1]
    return np.where(tokens == NONE, 0, tokens).astype(np.uint8)


def _guess(logits, within):
    """(digits int64[..., k], doubt int64[...]): the net's choice, and the power of 2 of its expected errors."""
    k = logits.shape[-2]
    digits, wrong = np.zeros(logits.shape[:-1], np.int64), np.zeros(logits.shape[:-2], np.int64)
    for j in range(k):
        given = logits[..., j, :] + sum(within[i, digits[..., i], j] for i in range(j))
        given = np.clip(given, -REACH, REACH)
        half = given[..., 0] > 0
        second = np.where(half, given[..., 2], given[..., 1])
        digits[..., j] = 2 * half + (second > 0)
        for margin in (given[..., 0], second):
            wrong = wrong + squash()[REACH - np.abs(margin)].astype(np.int64)
    return digits, np.clip(np.frexp(wrong.astype(np.float64))[1] - 9, 0, DOUBTS - 1)


def _differing(one, other):
    """Digits that differ between tokens int64[n, k]; all of them where one is unknown."""
    count = (one != other).sum(axis=1)
    return np.where((one[:, 0] == NONE) | (other[:, 0] == NONE), one.shape[1], count)


def _number(base, *digits):
    value = digits[0]
    for digit in digits[1:]:
        value = value * base + digit
    return value


def _steps(count):
    return np.where(count == 0, 0, np.where(count <= 2, 1, np.where(count <= 5, 2, 3)))
