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
    """What has been seen so far in n segments: cells int64[n, rows, 3] of p and of n, weights int64[n, k, sets, 3,
    inputs]"""

    def __init__(self, start, count, digits):
        self.p = np.repeat(start.cells[None].astype(np.int64) >> 8, count, axis=0)
        self.n = np.repeat(start.cells[None].astype(np.int64) & 255, count, axis=0)
        weights = start.weights.reshape(1, digits, -1, NODES, start.weights.shape[1])
        self.weights = np.repeat(weights.astype(np.int64), count, axis=0)
        self.lane = np.arange(count)[:, None]
        self.sets = self.weights.shape[2]

    def predict(self, rows, j, logits, doubt):
        """int64[n, 3], 16-bit probabilities of a 1. rows: int64[n, experts], logits: int64[n, 3] or None. doubt:
        int64[n] in 0..DOUBTS - 1, of which each quarter has its weights."""
        experts = stretch()[self.p[self.lane, rows] >> 4].transpose(0, 2, 1).astype(np.int64)
        inputs = [experts, np.full_like(experts[:, :, :1], BIAS)]
        if logits is not None:
            inputs.append(np.clip(logits, -REACH, REACH)[:, :, None])
        self.inputs = np.concatenate(inputs, axis=2)
        self.rows, self.j, self.set = rows, j, doubt * self.sets // DOUBTS
        weights = self.weights[self.lane[:, 0], j, self.set]
        total = (self.inputs * (weights >> 4)).sum(axis=2) >> (WEIGHT_BITS - 4)
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
            mixer = (lanes, self.j, self.set[lanes], at)
            moved = self.weights[mixer] + (self.inputs[lanes, at] * error[:, None] >> RATE_BITS)
            self.weights[mixer] = np.clip(moved, -WEIGHT_LIMIT, WEIGHT_LIMIT)


class Net:
    """The causal half of the prior's net (``helix_jax.prior.net``) in NumPy, from frame to frame of n segments:
    float32, exact since all sums stay below 2^24.

    params: nested dict of arrays, as ``prior.weights`` gives.
    """

    def __init__(self, params):
        def arrays(node):
            return {n: arrays(v) for n, v in node.items()} if isinstance(node, dict) else np.asarray(node, np.float32)

        known: typing.Any = arrays(params)
        self.params: dict[str, typing.Any] = known
        self.digits = known["earlier"].shape[0] // 4
        self.memory = [np.float32(0)] * len(known["blocks"])

    def next_frame(self, before, earlier, f):
        """Takes up frame f. before, earlier: int[n, h, w, k], the two frames before it; NONE: unknown."""
        n, h, w, k = before.shape
        nothing = np.zeros((n, h, w, 4 * k))
        last = (before[..., None] == np.arange(4)).reshape(n, h, w, 4 * k)
        still = (before == earlier) & (before != NONE)
        told = np.concatenate([nothing, last, nothing, nothing[..., : 2 * k], still], axis=-1).astype(np.float32)
        x = _whole_steps(
            self._linear(told, self.params["embed"]) + self.params["phase"][f % GROUP], 10, -(2**15), 2**15
        )
        for m in sorted(self.params["blocks"]):
            block = self.params["blocks"][m]
            a = np.pad(_whole_steps(x, 5, -127, 127), ((0, 0), (1, 1), (1, 1), (0, 0)))
            near = [a[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
            b = _whole_steps(self._linear(np.concatenate(near, axis=-1), block["spatial"]), 5, 0, 127)
            past = np.broadcast_to(self.memory[m], b.shape)
            change = self._linear(np.concatenate([past, b, np.zeros_like(b)], axis=-1), block["temporal"])
            x, self.memory[m] = np.clip(x + _whole_steps(change, 10, -(2**15), 2**15), -32, 32), b
        self.features = _whole_steps(x, 5, -127, 127)

    def begin_token(self, y, x, around, past):
        """Starts the running sum of the token at (y, x). around: six int[n, k], left, up, up left, up right, two to the
        left, two up; past: the first four of them, one frame before."""
        hot = [(token[..., None] == np.arange(4)).reshape(len(token), -1) for token in around]
        stayed = [(one == other) & (one != NONE) for one, other in zip(around, past, strict=False)]
        told = np.concatenate([self.features[:, y, x], *hot, *stayed], axis=1).astype(np.float32)
        self.total = self._linear(told, self.params["begun"])

    def logits(self, j):
        """int64[n, 3] of digit j, in units of 1 / 256."""
        w, b = self.params["after"]["w"][:, 3 * j : 3 * j + 3], self.params["after"]["b"][3 * j : 3 * j + 3]
        x = _whole_steps(self.total, 5, 0, 127) @ w + b
        return (_whole_steps(x, 8, -REACH, REACH) * 256).astype(np.int64)

    def tell(self, j, digit):
        self.total = self.total + self.params["earlier"][4 * j + digit]

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
        start = (prior.mixed if net else prior.context).first(digits, prior.config.digits)
        parts.append(expand(start, plan, digits, pieces, there[some], net))
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
    for f, y, x in np.ndindex(t, h, w):
        here = there[:, f, y, x]
        frame, before = known[:, f + 1], known[:, f]
        if net and y == x == 0:
            earlier = known[:, f - 1] if f else np.full_like(before, NONE)
            net.next_frame(*(_whole(part[:, 1:, 1:-1], net.digits) for part in (before, earlier)), f)
        past, left, up = before[:, y + 1, x + 1], frame[:, y + 1, x], frame[:, y, x + 1]
        up_left, up_right = frame[:, y, x], frame[:, y, x + 2]
        past_left, past_right, past_up = before[:, y + 1, x], before[:, y + 1, x + 2], before[:, y, x + 1]
        beside = [_steps(_differing(a, b)) for a, b in ((left, past_left), (up, past_up))]
        if net:
            left_2 = frame[:, y + 1, x - 1] if x else np.full_like(left, NONE)
            up_2 = frame[:, y - 1, x + 1] if y else np.full_like(up, NONE)
            around = (left, up, up_left, up_right, left_2, up_2)
            past_around = (past_left, past_up, before[:, y, x], before[:, y, x + 2])
            net.begin_token(y, x, *([_whole(a, net.digits) for a in part] for part in (around, past_around)))
        strayed, guess, doubt, logits = np.zeros(count, np.int64), None, np.zeros(count, np.int64), None
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
            if net:
                logits = net.logits(j)
                guess, doubt = _choice(logits)
                context.append((guess * 3 + np.minimum(strayed, 2)) * DOUBTS + doubt)
            rows = np.stack([a + j * n + c for a, n, c in zip(first_row, SIZES, context, strict=False)], axis=1)
            symbol = bits.symbols(_counts(model.predict(rows, j, logits, doubt), here))
            model.learn(symbol, here)
            token[:, j + 2] = symbol
            if net:
                net.tell(j, symbol)
                strayed += symbol != guess
        known[here, f + 1, y + 1, x + 1] = token[here, 2:]
    tokens = known[:, 1:, 1:, 1:-1]
    return np.where(tokens == NONE, 0, tokens).astype(np.uint8)


def _choice(logits):
    """(digit int64[n], doubt int64[n]): the net's choice, and the power of 2 of how probably it is wrong."""
    half = logits[:, 0] > 0
    second = np.where(half, logits[:, 2], logits[:, 1])
    wrong = squash()[REACH - np.abs(logits[:, 0])] + squash()[REACH - np.abs(second)]
    return 2 * half + (second > 0), np.clip(np.frexp(wrong.astype(np.float64))[1] - 6, 0, DOUBTS - 1)


def _whole(tokens, digits):
    """Tokens of which the last digits are not sent -> with NONE in their place."""
    missing = digits - tokens.shape[-1]
    return np.concatenate([tokens, np.full((*tokens.shape[:-1], missing), NONE)], axis=-1)


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
