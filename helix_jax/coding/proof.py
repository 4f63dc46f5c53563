"""Proof that the NumPy reference reads given tokens from given bytes, in a fraction of the time that reading takes.

The proof is by induction from digit to digit. Given the claimed tokens before a digit, the reference's own net,
contexts and counts determine what its range decoder reads there, and this must be the claimed digit. If that holds for
every digit, ``token_coder.expand`` has only ever seen the claimed tokens, so it returns them. Nothing of the encoder is
used. Since the claim is known beforehand, the net takes whole frames, and the counts of all digits of a token are
computed side by side; only the range decoder goes digit by digit.

Segments are distributed over processes, one for each core, which import NumPy and no JAX.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8

from helix_jax.coding import segments
from helix_jax.prior.tables import Start
from helix_jax.reference.token_coder import (
    BATCH,
    GROUP,
    NODES,
    NONE,
    Bits,
    Model,
    Net,
    Tokens,
    counts_of,
    inner,
    start_of,
    take_up,
    unknown_tokens,
)

WORTH = 100_000  # number of digits for which another process is worthwhile, which starts in a third of a second


def clip_reads(
    prior: Any,
    mode: str,
    plan: segments.Plan,
    coded: Sequence[bytes],
    tokens: UInt8[np.ndarray, "t h w k"],
    progress: Callable[[int], None] | None = None,
) -> Bool[np.ndarray, " n"]:
    """Prove, segment by segment, that ``token_coder.expand_clip`` decodes these bytes to exactly these tokens.

    Args:
        prior: As for ``coding.coder.expand``.
        mode: As for ``coding.coder.expand``.
        plan: As for ``coding.coder.expand``.
        coded: Bytes of each segment, none of which is lost.
        tokens: The claimed tokens.
        progress: Called with the number of segments that have just been checked.

    Returns:
        Whether each segment is proved.
    """
    start = start_of(prior, mode, tokens.shape[-1])
    params = _arrays(prior.params) if mode == "prior" else None
    valid, claimed = segments.valid(plan), segments.cut(plan, tokens)
    workers = max(1, min(os.cpu_count() or 1, plan.number, tokens.size // WORTH))
    size = min(BATCH, -(-plan.number // workers))
    shares = [slice(begin, begin + size) for begin in range(0, plan.number, size)]
    tasks = [(start, coded[share], claimed[share], valid[share], params) for share in shares]
    right = np.zeros(plan.number, bool)
    with ThreadPoolExecutor(workers) as pool:
        running = {
            pool.submit(_in_process if workers > 1 else _of, task): share
            for task, share in zip(tasks, shares, strict=True)
        }
        for done in as_completed(running):
            right[running[done]] = done.result()
            if progress:
                progress(len(right[running[done]]))
    return right


def _of(task: tuple) -> Bool[np.ndarray, " n"]:
    """Check one share of the segments."""
    start, coded, tokens, valid, params = task
    return reads(start, coded, tokens, valid, params and Net(params))


def _in_process(task: tuple) -> Bool[np.ndarray, " n"]:
    """Check one share of the segments in another process."""
    # This is a command of its own, since multiprocessing would run the caller's script again. With -P, modules are
    # found where this process finds them. It has one thread, since small products are many times slower where threads
    # take the cores from each other.
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environment = os.environ | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "helix_jax.coding.proof"]
    done = subprocess.run(command, input=pickle.dumps(task), stdout=subprocess.PIPE, env=environment, check=True)
    return pickle.loads(done.stdout)


def _arrays(node: Any) -> Any:
    """A nested dict of arrays as NumPy arrays."""
    return {name: _arrays(part) for name, part in node.items()} if isinstance(node, dict) else np.asarray(node)


def reads(
    start: Start,
    coded: Sequence[bytes],
    tokens: UInt8[np.ndarray, "n t h w k"],
    valid: Bool[np.ndarray, "n t h w"],
    net: Net | None = None,
) -> Bool[np.ndarray, " n"]:
    """Prove, segment by segment, that ``token_coder.expand`` decodes these bytes to exactly these tokens.

    Args:
        start: As for ``token_coder.expand``.
        coded: As for ``token_coder.expand``.
        tokens: The claimed tokens.
        valid: As for ``token_coder.expand``.
        net: As for ``token_coder.expand``.

    Returns:
        Whether each segment is proved.
    """
    count, size, digits = len(coded), valid[0].size, tokens.shape[-1]
    model, bits = Model(start, count, digits), Bits(coded)
    lane, j = np.repeat(np.arange(count), digits), np.tile(np.arange(digits), count)
    queries = [_queries(own, mask, net and Net(net.params)) for own, mask in zip(tokens, valid, strict=True)]

    def steps(part):
        """Put what one step takes side by side: [size, n * k, ...]."""
        return np.stack(part, axis=1).reshape(size, count * digits, *part[0].shape[2:])

    rows, logits, doubt = zip(*queries, strict=True)
    rows, logits, doubt = steps(rows), steps(logits) if net else [None] * size, steps(doubt)
    claimed = np.where(valid[..., None], tokens, 0).reshape(count, size, digits).astype(np.int64)
    right, valid = np.ones(count, bool), valid.reshape(count, size)
    for index in range(size):
        mask, claim = np.repeat(valid[:, index], digits), claimed[:, index]
        guess = model.predict(lane, j, rows[index], logits[index], doubt[index])
        counts = counts_of(guess, mask).reshape(count, digits, NODES)
        model.learn(claim.reshape(-1), mask)
        for digit in range(digits):
            right &= bits.symbols(counts[:, digit]) == claim[:, digit]
    return right


def _queries(
    tokens: UInt8[np.ndarray, "t h w k"], valid: Bool[np.ndarray, "t h w"], net: Net | None
) -> tuple[Int[np.ndarray, "size k experts"], Int[np.ndarray, "size k 3"] | None, Int[np.ndarray, "size k"]]:
    """``Tokens.ask`` of all digits of one segment, whose tokens are known: rows, logits and doubt."""
    (t, h, w, digits), answers = tokens.shape, []
    padded = unknown_tokens(1, (t, h, w), digits)
    inner(padded)[0, 2:] = np.where(valid[..., None], tokens, NONE)
    for f in range(t):
        if net:
            take_up(net, padded, f)

        def at(back, dy, dx, f=f):
            return padded[:, f + 2 - back, 2 + dy : 2 + dy + h, 2 + dx : 2 + dx + w]

        frame = Tokens(at, digits, f % GROUP == 0, net, net.features if net else None)
        for j in range(digits):
            answers.append(frame.ask(j))
            frame.tell(j, tokens[f, ..., j][None].astype(np.int64))

    def whole(parts):
        each = np.stack(parts).reshape(t, digits, h * w, *parts[0].shape[3:])
        return np.moveaxis(each, 1, 2).reshape(t * h * w, digits, *parts[0].shape[3:]).astype(np.int32)

    rows, logits, doubt = zip(*answers, strict=True)
    return whole(rows), None if logits[0] is None else whole(logits), whole(doubt)


if __name__ == "__main__":
    sys.stdout.buffer.write(pickle.dumps(_of(pickle.load(sys.stdin.buffer))))
