"""The entropy coder of tokens in NumPy, without JAX: specification, oracle of the tests, archival decoder, and what the
encoder checks every pool with before it is written.

Written from the definitions (``context``'s docstring), token by token, all segments side by side.
"""

import typing

import numpy as np

from helix_jax.arithmetic import TOTAL, TOTAL_BITS
from helix_jax.coding import segments
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

GROUP = 4  # latent frames of a group of the tokenizer
BATCH = 64  # segments side by side


class Bits:
    """The reading end of the range coder for n streams at once: see ``helix_jax.range_coder``."""

    def __init__(self, coded):
        longest = max(len(piece) for piece in coded) + 16
        rows = [np.frombuffer(piece.ljust(longest, b"\0"), np.uint8) for piece in coded]
        data, self.lane = np.stack(rows).astype(np.int64), np.arange(len(coded))
        self.windows = np.zeros_like(data[:, 5:])  # the 48 bits that begin with each byte
        for n in range(6):
            self.windows = self.windows << 8 | data[:, n : n + self.windows.shape[1]]
        self.at = np.zeros(len(coded), np.int64)
        self.width = np.full(len(coded), 1 << 31)
        self.value = self._take(np.full(len(coded), 31))

    def _take(self, count):
        """The next int64[n] bits (at most 32) of each stream; zeros follow its end."""
        first = np.minimum(self.at >> 3, self.windows.shape[1] - 1)
        window = self.windows[self.lane, first] >> (48 - (self.at & 7) - count) & ((1 << count) - 1)
        self.at = self.at + count
        return window

    def symbols(self, counts):
        """The next symbol of each stream. counts: int64[n, 3], inner cumulative counts out of TOTAL."""
        edges = np.zeros((len(counts), 5), np.int64)
        edges[:, 1:4] = self.width[:, None] * counts >> TOTAL_BITS
        edges[:, 4] = self.width
        symbol = (self.value[:, None] >= edges[:, 1:4]).sum(axis=1)
        low = edges[self.lane, symbol]
        width = edges[self.lane, symbol + 1] - low
        shift = 32 - np.frexp(width.astype(np.float64))[1]
        self.value = self.value - low << shift | self._take(shift)
        self.width = width << shift
        return symbol


class Model:
    """What has been seen so far in n segments. cells: int64[n * rows, 3], p * 256 + n; weights: int64[n * k * sets, 3,
    inputs].

    Digit j of a token has cells and weights of its own, so digits may be asked for one by one, or all of a token side
    by side where they are known: m digits, each int64 of ``lane``, its segment, and of ``j``.
    """

    def __init__(self, start, count, digits):
        self.rows, self.digits = len(start.cells), digits
        self.sets = len(start.weights) // (digits * NODES)
        self.cells = np.tile(start.cells.astype(np.int64), (count, 1))
        weights = start.weights.astype(np.int64).reshape(-1, NODES, start.weights.shape[1])
        self.weights = np.tile(weights, (count, 1, 1))

    def predict(self, lane, j, rows, logits, doubt):
        """int64[m, 3], 16-bit probabilities of a 1. rows: int64[m, experts], logits: int64[m, 3] or None. doubt:
        int64[m] in 0..DOUBTS - 1, of which each quarter has its weights."""
        self.at = lane[:, None] * self.rows + rows
        self.mixer = (lane * self.digits + j) * self.sets + doubt * self.sets // DOUBTS
        self.seen = self.cells[self.at]
        self.inputs = np.full((len(rows), NODES, self.weights.shape[2]), BIAS)
        self.inputs[..., : rows.shape[1]] = stretch()[self.seen >> 12].transpose(0, 2, 1)
        if logits is not None:
            self.inputs[..., -1] = np.clip(logits, -REACH, REACH)
        self.mixed = self.weights[self.mixer]
        total = (self.inputs * (self.mixed >> 4)).sum(axis=2) >> (WEIGHT_BITS - 4)
        self.guess = squash()[np.clip(total, -REACH, REACH) + REACH].astype(np.int64)
        return self.guess

    def learn(self, symbol, there):
        """Take note of the digits int64[m] that were coded, where they are there."""
        bit = np.stack([symbol >> 1, symbol & 1, symbol & 1], axis=1)
        asked = np.stack([there, there & (symbol < 2), there & (symbol > 1)], axis=1)
        p, n = self.seen >> 8, self.seen & 255
        p = p + ((bit[:, None] * 65535 - p) * reciprocal()[n] >> RECIPROCAL_BITS)
        self.cells[self.at] = np.where(asked[:, None], p << 8 | np.minimum(n + 1, LIMIT), self.seen)
        error = np.where(asked, (bit << 16) - self.guess, 0)
        moved = self.mixed + (self.inputs * error[..., None] >> RATE_BITS)
        self.weights[self.mixer] = np.clip(moved, -WEIGHT_LIMIT, WEIGHT_LIMIT)


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

    def begin(self, features, around, past):
        """The running sum of tokens before their first digit: float32[..., hidden]. features: float32[..., d] of their
        places. around: six int[..., k], left, up, up left, up right, two to the left, two up; past: the first four of
        them, one frame before."""
        hot = [(token[..., None] == np.arange(4)).reshape(*token.shape[:-1], -1) for token in around]
        stayed = [(one == other) & (one != NONE) for one, other in zip(around, past, strict=False)]
        told = np.concatenate([features, *hot, *stayed], axis=-1).astype(np.float32)
        return self._linear(told, self.params["begun"])

    def logits(self, total, j):
        """int64[..., 3] of digit j, in units of 1 / 256."""
        w, b = self.params["after"]["w"][:, 3 * j : 3 * j + 3], self.params["after"]["b"][3 * j : 3 * j + 3]
        x = _whole_steps(total, 5, 0, 127) @ w + b
        return (_whole_steps(x, 8, -REACH, REACH) * 256).astype(np.int64)

    def tell(self, total, j, digit):
        """The running sum once digit j int[...] is known."""
        return total + self.params["earlier"][4 * j + digit]

    def _linear(self, x, layer):
        flat = x.reshape(-1, x.shape[-1]) @ layer["w"] + layer["b"]  # one product: NumPy multiplies stacks one by one
        return flat.reshape(*x.shape[:-1], -1)


def _whole_steps(x, bits, low, high):
    return np.clip(np.floor(x * np.float32(2**bits) + np.float32(0.5)), low, high) / np.float32(2**bits)


def counts_of(p, there):
    """Probabilities int64[n, 3] -> cumulative counts int64[n, 3]; all of it is digit 0's where no token is there."""
    upper = np.clip(p[:, 0] >> 1, 2, TOTAL - 2)
    lower = TOTAL - upper
    one = np.clip(lower * p[:, 1] >> 16, 1, lower - 1)
    three = np.clip(upper * p[:, 2] >> 16, 1, upper - 1)
    return np.where(there[:, None], np.stack([lower - one, lower, TOTAL - three], axis=1), TOTAL)


class Tokens:
    """Tokens of some segments, int64[..., k], digit after digit: what the model is asked of each.

    at(frame, y, x): int64[..., k], what ``frame`` (0: their own, 1 and so on: so many before it) has beside them.
    begins: whether the frame begins a group. features: of the net at their places, in mode `prior`.
    """

    def __init__(self, at, digits, begins, net=None, features=None):
        self.begins, self.net, self.digits = begins, net, digits
        self.past, self.left, self.up = at(1, 0, 0), at(0, 0, -1), at(0, -1, 0)
        self.up_left, self.up_right = at(0, -1, -1), at(0, -1, 1)
        self.past_left, self.past_right, self.past_up = at(1, 0, -1), at(1, 0, 1), at(1, -1, 0)
        self.beside = [_steps(_differing(a, b)) for a, b in ((self.left, self.past_left), (self.up, self.past_up))]
        shape = self.past.shape[:-1]
        self.token = np.full((*shape, digits + 2), NONE)  # two places of NONE before the first digit
        self.strayed, self.differ = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        if net:
            around = (self.left, self.up, self.up_left, self.up_right, at(0, 0, -2), at(0, -2, 0))
            past = (self.past_left, self.past_up, at(1, -1, -1), at(1, -1, 1))
            self.total = net.begin(features, *([_whole(a, net.digits) for a in part] for part in (around, past)))

    def ask(self, j):
        """(rows int64[..., experts], logits int64[..., 3] or None, doubt int64[...]) of digit j."""
        past, left, up, one, two = (a[..., j] for a in (self.past, self.left, self.up, self.token[..., 1:], self.token))
        past_one = self.past[..., j - 1] if j else np.full_like(past, NONE)
        context = [
            _number(5, past, left, up),
            _number(5, past, one, past_one, two),
            _number(5, left, up, self.up_left[..., j], self.up_right[..., j]),
            _number(4, past, np.minimum(self.differ, 3), *self.beside) * 2 + self.begins,
            _number(5, past, self.past_left[..., j], self.past_right[..., j], self.past_up[..., j]),
            _number(5, left, up, one, two),
        ]
        logits, doubt = None, np.zeros_like(self.strayed)
        if self.net:
            logits = self.net.logits(self.total, j)
            self.guess, doubt = _choice(logits)
            context.append((self.guess * 3 + np.minimum(self.strayed, 2)) * DOUBTS + doubt)
        first_row = np.cumsum((0, *SIZES[:-1])) * self.digits
        rows = [a + j * n + c for a, n, c in zip(first_row, SIZES, context, strict=False)]
        return np.stack(rows, axis=-1), logits, doubt

    def tell(self, j, digit):
        """Digit j is known: int64[...]."""
        self.token[..., j + 2] = digit
        self.differ += digit != self.past[..., j]
        if self.net:
            self.total = self.net.tell(self.total, j, digit)
            self.strayed += digit != self.guess


def expand_clip(prior, mode, plan, digits, coded, progress=None):
    """Bytes of all segments of a clip -> tokens uint8[t, h, w, k]. Arguments as of ``coding.coder.expand``."""
    there = segments.there(plan)
    there[[piece is None for piece in coded]] = False
    parts = []
    for begin in range(0, len(coded), BATCH):
        some = slice(begin, begin + BATCH)
        pieces = [piece or b"" for piece in coded[some]]
        net = Net(prior.params) if mode == "prior" else None
        parts.append(expand(start_of(prior, mode, digits), plan, digits, pieces, there[some], net))
        if progress:
            progress(len(pieces))
    return segments.join(plan, np.concatenate(parts))


def start_of(prior, mode, digits):
    """tables.Start of tokens that are sent with ``digits`` digits."""
    return (prior.mixed if mode == "prior" else prior.context).first(digits, prior.config.digits)


def expand(start, plan, digits, coded, there, net=None):
    """Bytes of n segments -> tokens uint8[n, t, h, w, k], zeros where no token is.

    start: tables.Start. plan: segments.Plan. there: bool[n, t, h, w]. net: Net in mode `prior`.
    """
    count, lane = len(coded), np.arange(len(coded))
    model, bits, known = Model(start, count, digits), Bits(coded), nothing_known(count, plan.shape, digits)
    for f, y, x in np.ndindex(*plan.shape):
        here, features = there[:, f, y, x], None
        if net:
            if y == x == 0:
                take_up(net, known, f)
            features = net.features[:, y, x]

        def at(back, dy, dx, f=f, y=y, x=x):
            return known[:, f + 2 - back, y + 2 + dy, x + 2 + dx]

        tokens = Tokens(at, digits, f % GROUP == 0, net, features)
        for j in range(digits):
            rows, logits, doubt = tokens.ask(j)
            symbol = bits.symbols(counts_of(model.predict(lane, j, rows, logits, doubt), here))
            model.learn(symbol, here)
            tokens.tell(j, symbol)
        known[here, f + 2, y + 2, x + 2] = tokens.token[here, 2:]
    tokens = inner(known)[:, 2:]
    return np.where(tokens == NONE, 0, tokens).astype(np.uint8)


def nothing_known(count, shape, digits):
    """Digits of segments, all NONE, with a border of NONE all around: two frames before, two rows and columns."""
    t, h, w = shape
    return np.full((count, t + 2, h + 4, w + 4, digits), NONE)


def inner(known):
    return known[:, :, 2:-2, 2:-2]


def take_up(net, known, f):
    net.next_frame(*(_whole(inner(known)[:, f + 2 - back], net.digits) for back in (1, 2)), f)


def _choice(logits):
    """(digit int64[...], doubt int64[...]): the net's choice, and the power of 2 of how probably it is wrong."""
    half = logits[..., 0] > 0
    second = np.where(half, logits[..., 2], logits[..., 1])
    wrong = squash()[REACH - np.abs(logits[..., 0])] + squash()[REACH - np.abs(second)]
    return 2 * half + (second > 0), np.clip(np.frexp(wrong.astype(np.float64))[1] - 6, 0, DOUBTS - 1)


def _whole(tokens, digits):
    """Tokens of which the last digits are not sent -> with NONE in their place."""
    missing = digits - tokens.shape[-1]
    return np.concatenate([tokens, np.full((*tokens.shape[:-1], missing), NONE)], axis=-1)


def _differing(one, other):
    """Digits that differ between tokens int64[..., k]; all of them where one is unknown."""
    count = (one != other).sum(axis=-1)
    return np.where((one[..., 0] == NONE) | (other[..., 0] == NONE), one.shape[-1], count)


def _number(base, *digits):
    value = digits[0]
    for digit in digits[1:]:
        value = value * base + digit
    return value


def _steps(count):
    return np.where(count == 0, 0, np.where(count <= 2, 1, np.where(count <= 5, 2, 3)))
