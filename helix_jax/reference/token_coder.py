"""The entropy coder of tokens in NumPy, without JAX.

It is the specification, the test oracle and the archival decoder, and the encoder checks every pool with it before the
pool is written. It is written from the definitions in the docstring of ``coding.context``, token by token, with all
segments side by side.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int, Integer, UInt8

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
    Start,
    reciprocal,
    squash,
    stretch,
)

GROUP = 4  # latent frames of a group of the tokenizer
BATCH = 64  # segments side by side


class Bits:
    """The decoding side of the range coder (``helix_jax.range_coder``) for n streams at once."""

    def __init__(self, coded: Sequence[bytes]):
        longest = max(len(piece) for piece in coded) + 16
        rows = [np.frombuffer(piece.ljust(longest, b"\0"), np.uint8) for piece in coded]
        data, self.lane = np.stack(rows).astype(np.int64), np.arange(len(coded))
        self.windows = np.zeros_like(data[:, 5:])  # the 48 bits that begin with each byte
        for n in range(6):
            self.windows = self.windows << 8 | data[:, n : n + self.windows.shape[1]]
        self.at = np.zeros(len(coded), np.int64)
        self.width = np.full(len(coded), 1 << 31)
        self.value = self._take(np.full(len(coded), 31))

    def _take(self, count: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Read the next ``count`` bits of each stream, at most 32. Zeros follow the end of a stream."""
        first = np.minimum(self.at >> 3, self.windows.shape[1] - 1)
        window = self.windows[self.lane, first] >> (48 - (self.at & 7) - count) & ((1 << count) - 1)
        self.at = self.at + count
        return window

    def symbols(self, counts: Int[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
        """Decode the next symbol of each stream from its inner cumulative counts out of TOTAL."""
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
    """The adaptive model of n segments, with what it has seen so far.

    The cells are int64[n * rows, 3], each p * 256 + n, and the weights are int64[n * k * sets, 3, inputs]. Digit j of a
    token has cells and weights of its own, so digits may be predicted one by one, or all digits of a token side by side
    where they are known: m digits, each with the index ``lane`` of its segment and its index ``j`` in the token.
    """

    def __init__(self, start: Start, count: int, digits: int):
        self.rows, self.digits = len(start.cells), digits
        self.sets = len(start.weights) // (digits * NODES)
        self.cells = np.tile(start.cells.astype(np.int64), (count, 1))
        weights = start.weights.astype(np.int64).reshape(-1, NODES, start.weights.shape[1])
        self.weights = np.tile(weights, (count, 1, 1))

    def predict(
        self,
        lane: Int[np.ndarray, " m"],
        j: int | Int[np.ndarray, " m"],
        rows: Int[np.ndarray, "m experts"],
        logits: Int[np.ndarray, "m 3"] | None,
        doubt: Int[np.ndarray, " m"],
    ) -> Int[np.ndarray, "m 3"]:
        """Compute the 16-bit probabilities of a 1 of each digit's three nodes.

        Args:
            lane: Index of the segment of each digit.
            j: Index of each digit in its token.
            rows: Row of each expert, as ``Tokens.ask`` returns them.
            logits: Logits of the net, or None in mode `context`.
            doubt: From 0 to DOUBTS - 1, of which each quarter has its own weights.
        """
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

    def learn(self, symbol: Int[np.ndarray, " m"], valid: Bool[np.ndarray, " m"]) -> None:
        """Update the model with the digits of the last prediction, except for those of the padding."""
        bit = np.stack([symbol >> 1, symbol & 1, symbol & 1], axis=1)
        used = np.stack([valid, valid & (symbol < 2), valid & (symbol > 1)], axis=1)
        p, n = self.seen >> 8, self.seen & 255
        p = p + ((bit[:, None] * 65535 - p) * reciprocal()[n] >> RECIPROCAL_BITS)
        self.cells[self.at] = np.where(used[:, None], p << 8 | np.minimum(n + 1, LIMIT), self.seen)
        error = np.where(used, (bit << 16) - self.guess, 0)
        moved = self.mixed + (self.inputs * error[..., None] >> RATE_BITS)
        self.weights[self.mixer] = np.clip(moved, -WEIGHT_LIMIT, WEIGHT_LIMIT)


class Net:
    """The causal half of the prior's net (``helix_jax.prior.net``) in NumPy, from frame to frame of n segments.

    It computes in float32, which is exact since all sums stay below 2^24. Its parameters are a nested dict of arrays,
    as ``prior.weights`` gives them.
    """

    def __init__(self, params: dict):
        def arrays(node):
            return {n: arrays(v) for n, v in node.items()} if isinstance(node, dict) else np.asarray(node, np.float32)

        copies: Any = arrays(params)
        self.params: dict[str, Any] = copies
        self.digits = self.params["earlier"].shape[0] // 4
        self.memory: list[Any] = [np.float32(0)] * len(self.params["blocks"])

    def next_frame(
        self, before: Integer[np.ndarray, "n h w k"], earlier: Integer[np.ndarray, "n h w k"], f: int
    ) -> None:
        """Compute ``features`` of frame f from the two frames before it, whose unknown digits are NONE."""
        n, h, w, k = before.shape
        nothing = np.zeros((n, h, w, 4 * k))
        last = (before[..., None] == np.arange(4)).reshape(n, h, w, 4 * k)
        still = (before == earlier) & (before != NONE)
        inputs = np.concatenate([nothing, last, nothing, nothing[..., : 2 * k], still], axis=-1).astype(np.float32)
        x = _whole_steps(
            self._linear(inputs, self.params["embed"]) + self.params["phase"][f % GROUP], 10, -(2**15), 2**15
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

    def begin(
        self,
        features: Float32[np.ndarray, "*axes d"],
        around: Sequence[Integer[np.ndarray, "*axes k"]],
        past: Sequence[Integer[np.ndarray, "*axes k"]],
    ) -> Float32[np.ndarray, "*axes hidden"]:
        """Compute the running sum of tokens before their first digit.

        Args:
            features: Features at the positions of the tokens.
            around: Six neighbours: left, up, up left, up right, two to the left, and two up.
            past: The first four of these positions, one frame before.
        """
        hot = [(token[..., None] == np.arange(4)).reshape(*token.shape[:-1], -1) for token in around]
        stayed = [(now == before) & (now != NONE) for now, before in zip(around, past, strict=False)]
        inputs = np.concatenate([features, *hot, *stayed], axis=-1).astype(np.float32)
        return self._linear(inputs, self.params["begun"])

    def logits(self, total: Float32[np.ndarray, "*axes hidden"], j: int) -> Int[np.ndarray, "*axes 3"]:
        """Compute the logits of digit j in units of 1 / 256."""
        w, b = self.params["after"]["w"][:, 3 * j : 3 * j + 3], self.params["after"]["b"][3 * j : 3 * j + 3]
        x = _whole_steps(total, 5, 0, 127) @ w + b
        return (_whole_steps(x, 8, -REACH, REACH) * 256).astype(np.int64)

    def tell(
        self, total: Float32[np.ndarray, "*axes hidden"], j: int, digit: Integer[np.ndarray, "*axes"]
    ) -> Float32[np.ndarray, "*axes hidden"]:
        """Add digit j to the running sum, once its value is known."""
        return total + self.params["earlier"][4 * j + digit]

    def _linear(self, x: Float32[np.ndarray, "*axes d_in"], layer: dict) -> Float32[np.ndarray, "*axes d_out"]:
        flat = x.reshape(-1, x.shape[-1]) @ layer["w"] + layer["b"]  # one product: NumPy multiplies stacks one by one
        return flat.reshape(*x.shape[:-1], -1)


def _whole_steps(x: Float32[np.ndarray, "*axes"], bits: int, low: int, high: int) -> Float32[np.ndarray, "*axes"]:
    """Round x to steps of 2^-bits, and clip it to ``low`` and ``high`` steps before the division."""
    return np.clip(np.floor(x * np.float32(2**bits) + np.float32(0.5)), low, high) / np.float32(2**bits)


def counts_of(p: Int[np.ndarray, "n 3"], valid: Bool[np.ndarray, " n"]) -> Int[np.ndarray, "n 3"]:
    """Convert probabilities to cumulative counts, which give everything to digit 0 in the padding."""
    upper = np.clip(p[:, 0] >> 1, 2, TOTAL - 2)
    lower = TOTAL - upper
    one = np.clip(lower * p[:, 1] >> 16, 1, lower - 1)
    three = np.clip(upper * p[:, 2] >> 16, 1, upper - 1)
    return np.where(valid[:, None], np.stack([lower - one, lower, TOTAL - three], axis=1), TOTAL)


class Tokens:
    """Tokens of some segments, int64[..., k], which are coded digit after digit, and their contexts.

    Args:
        at: at(frame, y, x) -> int64[..., k], the tokens at an offset in space, ``frame`` frames before (0: in the same
            frame).
        digits: Number of digits of a token.
        begins: Whether the frame begins a group of the tokenizer.
        net: The net in mode `prior`.
        features: The net's features at the positions of the tokens, in mode `prior`.
    """

    def __init__(
        self,
        at: Callable[[int, int, int], np.ndarray],
        digits: int,
        begins: bool,
        net: Net | None = None,
        features: Float32[np.ndarray, "*axes d"] | None = None,
    ):
        self.begins, self.net, self.digits = begins, net, digits
        self.past, self.left, self.up = at(1, 0, 0), at(0, 0, -1), at(0, -1, 0)
        self.up_left, self.up_right = at(0, -1, -1), at(0, -1, 1)
        self.past_left, self.past_right, self.past_up = at(1, 0, -1), at(1, 0, 1), at(1, -1, 0)
        self.beside = [_steps(_differing(a, b)) for a, b in ((self.left, self.past_left), (self.up, self.past_up))]
        shape = self.past.shape[:-1]
        self.token = np.full((*shape, digits + 2), NONE)  # two entries of NONE before the first digit
        self.strayed, self.differ = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        if net:
            assert features is not None
            around = (self.left, self.up, self.up_left, self.up_right, at(0, 0, -2), at(0, -2, 0))
            past = (self.past_left, self.past_up, at(1, -1, -1), at(1, -1, 1))
            self.total = net.begin(features, *([_whole(a, net.digits) for a in part] for part in (around, past)))

    def ask(
        self, j: int
    ) -> tuple[Int[np.ndarray, "*axes experts"], Int[np.ndarray, "*axes 3"] | None, Int[np.ndarray, "*axes"]]:
        """Find what ``Model.predict`` needs of digit j: rows, logits (None in mode `context`) and doubt."""
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

    def tell(self, j: int, digit: Int[np.ndarray, "*axes"]) -> None:
        """Enter digit j, once its value is known."""
        self.token[..., j + 2] = digit
        self.differ += digit != self.past[..., j]
        if self.net:
            self.total = self.net.tell(self.total, j, digit)
            self.strayed += digit != self.guess


def expand_clip(
    prior: Any,
    mode: str,
    plan: segments.Plan,
    digits: int,
    coded: Sequence[bytes | None],
    progress: Callable[[int], None] | None = None,
) -> UInt8[np.ndarray, "t h w {digits}"]:
    """Decode the segments of a clip, as ``coding.coder.expand`` does.

    Args:
        prior: ``prior.weights.Prior`` or ``prior.stored.Stored``.
        mode: "context" or "prior".
        plan: How the clip is cut into segments.
        digits: Number of digits of a token that were sent.
        coded: The bytes of each segment, or None for a lost one, whose tokens then are zeros.
        progress: Called with the number of segments that have just been decoded.
    """
    valid = segments.valid(plan)
    valid[[piece is None for piece in coded]] = False
    parts = []
    for begin in range(0, len(coded), BATCH):
        batch = slice(begin, begin + BATCH)
        pieces = [piece or b"" for piece in coded[batch]]
        net = Net(prior.params) if mode == "prior" else None
        parts.append(expand(start_of(prior, mode, digits), plan, digits, pieces, valid[batch], net))
        if progress:
            progress(len(pieces))
    return segments.join(plan, np.concatenate(parts))


def start_of(prior: Any, mode: str, digits: int) -> Start:
    """Find where the model of a mode starts, if tokens are sent with ``digits`` digits.

    Args:
        prior: As for ``expand_clip``.
        mode: As for ``expand_clip``.
        digits: As for ``expand_clip``.
    """
    return (prior.mixed if mode == "prior" else prior.context).first(digits, prior.config.digits)


def expand(
    start: Start,
    plan: segments.Plan,
    digits: int,
    coded: Sequence[bytes],
    valid: Bool[np.ndarray, "n t h w"],
    net: Net | None = None,
) -> UInt8[np.ndarray, "n t h w {digits}"]:
    """Decode n segments to tokens, which are zeros in the padding.

    Args:
        start: Where the model starts.
        plan: How the clip is cut into segments.
        digits: Number of digits of a token.
        coded: The bytes of each segment.
        valid: Mask of the tokens that are not padding.
        net: The net in mode `prior`.
    """
    count, lane = len(coded), np.arange(len(coded))
    model, bits, padded = Model(start, count, digits), Bits(coded), unknown_tokens(count, plan.shape, digits)
    for f, y, x in np.ndindex(*plan.shape):
        mask, features = valid[:, f, y, x], None
        if net:
            if y == x == 0:
                take_up(net, padded, f)
            features = net.features[:, y, x]

        def at(back, dy, dx, f=f, y=y, x=x):
            return padded[:, f + 2 - back, y + 2 + dy, x + 2 + dx]

        tokens = Tokens(at, digits, f % GROUP == 0, net, features)
        for j in range(digits):
            rows, logits, doubt = tokens.ask(j)
            symbol = bits.symbols(counts_of(model.predict(lane, j, rows, logits, doubt), mask))
            model.learn(symbol, mask)
            tokens.tell(j, symbol)
        padded[mask, f + 2, y + 2, x + 2] = tokens.token[mask, 2:]
    tokens = inner(padded)[:, 2:]
    return np.where(tokens == NONE, 0, tokens).astype(np.uint8)


def unknown_tokens(count: int, shape: tuple[int, ...], digits: int) -> Int[np.ndarray, "{count} t h w {digits}"]:
    """Make an array for the digits of segments, all NONE, with a border of NONE.

    The border is two frames before the first one, and two rows and columns on every side.

    Args:
        count: Number of segments.
        shape: (t, h, w) of a segment.
        digits: Number of digits of a token.
    """
    t, h, w = shape
    return np.full((count, t + 2, h + 4, w + 4, digits), NONE)


def inner(padded: Int[np.ndarray, "n t H W k"]) -> Int[np.ndarray, "n t h w k"]:
    """Return the view of such an array without the border of rows and columns."""
    return padded[:, :, 2:-2, 2:-2]


def take_up(net: Net, padded: Int[np.ndarray, "n t H W k"], f: int) -> None:
    """Let the net compute its features of frame f from what ``padded`` holds of the frames before it."""
    before, earlier = (_whole(inner(padded)[:, f + 2 - back], net.digits) for back in (1, 2))
    net.next_frame(before, earlier, f)


def _choice(logits: Int[np.ndarray, "*axes 3"]) -> tuple[Int[np.ndarray, "*axes"], Int[np.ndarray, "*axes"]]:
    """The net's choice of a digit, and its doubt: by powers of two, how probably the choice is wrong."""
    half = logits[..., 0] > 0
    second = np.where(half, logits[..., 2], logits[..., 1])
    wrong = squash()[REACH - np.abs(logits[..., 0])] + squash()[REACH - np.abs(second)]
    return 2 * half + (second > 0), np.clip(np.frexp(wrong.astype(np.float64))[1] - 6, 0, DOUBTS - 1)


def _whole(tokens: Integer[np.ndarray, "*axes k"], digits: int) -> Integer[np.ndarray, "*axes {digits}"]:
    """Fill up tokens, whose last digits are not sent, with NONE."""
    missing = digits - tokens.shape[-1]
    return np.concatenate([tokens, np.full((*tokens.shape[:-1], missing), NONE)], axis=-1)


def _differing(left: Int[np.ndarray, "*axes k"], right: Int[np.ndarray, "*axes k"]) -> Int[np.ndarray, "*axes"]:
    """Number of digits that differ between two tokens, which is all of them if one token is unknown."""
    count = (left != right).sum(axis=-1)
    return np.where((left[..., 0] == NONE) | (right[..., 0] == NONE), left.shape[-1], count)


def _number(base: int, *digits: Any) -> Any:
    """The number with these digits in this base."""
    value = digits[0]
    for digit in digits[1:]:
        value = value * base + digit
    return value


def _steps(count: Int[np.ndarray, "*axes"]) -> Int[np.ndarray, "*axes"]:
    """Map the counts 0, 1 to 2, 3 to 5, and more to 0, 1, 2 and 3."""
    return np.where(count == 0, 0, np.where(count <= 2, 1, np.where(count <= 5, 2, 3)))
