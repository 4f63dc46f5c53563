"""Proof that the NumPy reference reads given tokens from given bytes, in a fraction of the time that reading takes.

By induction from digit to digit: told the claimed tokens before a digit, the reference's own net, contexts and counts
say what its range decoder must read there, and it reads the claimed digit. Where that holds of every digit, all that
``token_coder.expand`` ever was told are the claimed tokens, so it returns them. Nothing of the encoder is used. The
claim being known beforehand, the net takes whole frames, and the counts of all digits of a token are had side by side;
only the range decoder goes digit by digit.

Segments are shared out to processes, one for each core, which know NumPy and no JAX.
"""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np

from helix_jax.coding import segments
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
    nothing_known,
    start_of,
    take_up,
)

WORTH = 100_000  # digits from which on another process, which starts in a third of a second, is worth it


def clip_reads(prior, mode, plan, coded, tokens, progress=None):
    """Whether ``token_coder.expand_clip`` makes of these bytes exactly these tokens: bool[segments].

    prior, mode, plan, coded, progress: as of ``coding.coder.expand``, no segment being lost. tokens: uint8[t, h, w, k].
    """
    start = start_of(prior, mode, tokens.shape[-1])
    params = _arrays(prior.params) if mode == "prior" else None
    there, claimed = segments.there(plan), segments.cut(plan, tokens)
    workers = max(1, min(os.cpu_count() or 1, plan.number, tokens.size // WORTH))
    size = min(BATCH, -(-plan.number // workers))
    shares = [slice(begin, begin + size) for begin in range(0, plan.number, size)]
    tasks = [(start, coded[some], claimed[some], there[some], params) for some in shares]
    right = np.zeros(plan.number, bool)
    with ThreadPoolExecutor(workers) as pool:
        running = {
            pool.submit(_in_process if workers > 1 else _of, task): some
            for task, some in zip(tasks, shares, strict=True)
        }
        for done in as_completed(running):
            right[running[done]] = done.result()
            if progress:
                progress(len(right[running[done]]))
    return right


def _of(task):
    start, coded, tokens, there, params = task
    return reads(start, coded, tokens, there, params and Net(params))


def _in_process(task):
    # a command of its own: multiprocessing would run the caller's script again. -P: modules are found where they are
    # here. One thread: small products of threads that take a core from each other are many times slower
    found = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environment = os.environ | {"PYTHONPATH": found, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "helix_jax.coding.proof"]
    done = subprocess.run(command, input=pickle.dumps(task), stdout=subprocess.PIPE, env=environment, check=True)
    return pickle.loads(done.stdout)


def _arrays(node):
    return {name: _arrays(part) for name, part in node.items()} if isinstance(node, dict) else np.asarray(node)


def reads(start, coded, tokens, there, net=None):
    """Whether ``token_coder.expand`` makes of these bytes exactly these tokens: bool[n]. tokens: uint8[n, t, h, w,
    k]."""
    count, places, digits = len(coded), there[0].size, tokens.shape[-1]
    model, bits = Model(start, count, digits), Bits(coded)
    lane, j = np.repeat(np.arange(count), digits), np.tile(np.arange(digits), count)
    asked = [_asked(own, here, net and Net(net.params)) for own, here in zip(tokens, there, strict=True)]

    def steps(part):
        """[places, n * k, ...]: what one step takes lies side by side."""
        return np.stack(part, axis=1).reshape(places, count * digits, *part[0].shape[2:])

    rows, logits, doubt = zip(*asked, strict=True)
    rows, logits, doubt = steps(rows), steps(logits) if net else [None] * places, steps(doubt)
    claimed = np.where(there[..., None], tokens, 0).reshape(count, places, digits).astype(np.int64)
    right, there = np.ones(count, bool), there.reshape(count, places)
    for place in range(places):
        here, claim = np.repeat(there[:, place], digits), claimed[:, place]
        guess = model.predict(lane, j, rows[place], logits[place], doubt[place])
        counts = counts_of(guess, here).reshape(count, digits, NODES)
        model.learn(claim.reshape(-1), here)
        for digit in range(digits):
            right &= bits.symbols(counts[:, digit]) == claim[:, digit]
    return right


def _asked(tokens, there, net):
    """``Tokens.ask`` of all digits of one segment, its tokens uint8[t, h, w, k] being known: (rows [places, k,
    experts], logits [places, k, 3] or None, doubt [places, k])."""
    (t, h, w, digits), asked = tokens.shape, []
    known = nothing_known(1, (t, h, w), digits)
    inner(known)[0, 2:] = np.where(there[..., None], tokens, NONE)
    for f in range(t):
        if net:
            take_up(net, known, f)

        def at(back, dy, dx, f=f):
            return known[:, f + 2 - back, 2 + dy : 2 + dy + h, 2 + dx : 2 + dx + w]

        frame = Tokens(at, digits, f % GROUP == 0, net, net and net.features)
        for j in range(digits):
            asked.append(frame.ask(j))
            frame.tell(j, tokens[f, ..., j][None].astype(np.int64))

    def whole(parts):
        each = np.stack(parts).reshape(t, digits, h * w, *parts[0].shape[3:])
        return np.moveaxis(each, 1, 2).reshape(t * h * w, digits, *parts[0].shape[3:]).astype(np.int32)

    return tuple(None if parts[0] is None else whole(parts) for parts in zip(*asked, strict=True))


if __name__ == "__main__":
    sys.stdout.buffer.write(pickle.dumps(_of(pickle.load(sys.stdin.buffer))))
