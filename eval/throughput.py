"""Speed: bits to bases and back, beside the NumPy reference and a plain loop; the timing coders; the tokenizer.

    python -m eval.throughput [--json FILE]

The batch is spread over all local devices (CPU cores are devices here), as the library does it. Each figure is the
best of several runs after one that compiles. The plain programs run in the same process on the same machine.
"""

import argparse
import dataclasses
import json
import resource
import sys
import time
from collections import deque
from dataclasses import dataclass

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from eval.timing import throughput
from helix_jax import parallel
from helix_jax.arithmetic import TOTAL
from helix_jax.config import TokenizerConfig
from helix_jax.reference import kernels
from helix_jax.tk_scone import coder, tables
from helix_jax.tk_scone.constraints import NAMED
from helix_jax.tokenizer import model, tiles, weights

SET, LENGTH = "helix", 150
BATCHES = [1, 100, 1_000, 20_000, 100_000]
SECONDS = 1.5  # of measuring per figure
CLIP = (64, 360, 640)  # frames, height, width of the tokenizer's clip


# ---- a plain per-base loop: mask what is forbidden, share the rest evenly --------------------------


class PlainLoop:
    """Arithmetic coding driven by a rule check per base, in the manner of SCONE: one strand, one base at a time.

    It keeps the last 19 bases' GC bits in a deque, tries the four bases against runs and window, and codes uniformly
    over those that remain. Lower rate than maximum entropy (1.86 bit/nt here), and no proof that a payload fits.
    """

    def __init__(self, constraints):
        self.longest, self.window = constraints.longest_run, constraints.window
        self.low, self.high = (round(share * self.window) for share in constraints.window_gc)

    def allowed(self, recent, gc, last, run):
        """Bases that may follow; the last 19 bases' bits are in ``recent``, their sum is ``gc``."""
        room = self.window - 1 - len(recent)
        bases = []
        for base in range(4):
            if base == last and run == self.longest:
                continue
            count = gc + (base in (1, 2))
            # of a window not yet full, enough places must be left; the same test then holds when it is full
            if count <= self.high and count + room >= self.low:
                bases.append(base)
        return bases

    def edges(self, state, _):
        recent, gc, last, run = state
        bases = self.allowed(recent, gc, last, run)
        share, extra = divmod(TOTAL, len(bases))
        cut = [0]
        for base in range(4):
            cut.append(cut[-1] + (share + (base == bases[0]) * extra if base in bases else 0))
        return cut

    def advance(self, state, _, base):
        recent, gc, last, run = state  # the deque is of this strand alone and moves on in place
        recent.append(base in (1, 2))
        gc += base in (1, 2)
        if len(recent) == self.window:
            gc -= recent.popleft()
        return recent, gc, base, run + 1 if base == last else 1

    def model(self):
        return (deque(), 0, -1, 0), self.edges, self.advance

    def write(self, payload, bits, length):
        return kernels.bits_to_symbols(self.model(), payload, bits, length)

    def read(self, bases, bits):
        return kernels.symbols_to_bits(self.model(), bases, bits)[0]


# ---- measuring -------------------------------------------------------------------------------------


def seconds_per_call(call):
    """Best time of one call, after one call that is not counted."""
    call()
    best, spent = float("inf"), 0.0
    while spent < SECONDS:
        begin = time.perf_counter()
        call()
        elapsed = time.perf_counter() - begin
        best, spent = min(best, elapsed), spent + elapsed
    return best


def peak_memory():
    """Highest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@dataclass(frozen=True)
class Speed:
    """Nucleotides per second of one program, both ways."""

    program: str
    batch: int
    write_nt_per_s: float
    read_nt_per_s: float


def coder_rows():
    """One Speed per program and batch, the plain loop first."""
    table = tables.load(NAMED[SET], LENGTH)
    generator = np.random.default_rng(0)
    payloads = [int.from_bytes(generator.bytes(40), "big") >> (320 - table.bits) for _ in range(20)]
    rows = [_plain_row(payloads, table.bits), _reference_row(payloads, table)]
    return rows + [_device_row(table, batch, generator) for batch in BATCHES]


def _plain_row(payloads, bits):
    # 287 bits are more than it can carry in every strand: only its speed is of interest, and none is compared
    loop = PlainLoop(NAMED[SET])
    strands = [loop.write(p, bits, LENGTH) for p in payloads]
    write = seconds_per_call(lambda: [loop.write(p, bits, LENGTH) for p in payloads])
    read = seconds_per_call(lambda: [loop.read(s, bits) for s in strands])
    nucleotides = len(payloads) * LENGTH
    return Speed("plain per-base loop", 1, nucleotides / write, nucleotides / read)


def _reference_row(payloads, table):
    strands = [kernels.write_strand(table, p) for p in payloads]
    write = seconds_per_call(lambda: [kernels.write_strand(table, p) for p in payloads])
    read = seconds_per_call(lambda: [kernels.read_strand(table, s) for s in strands])
    nucleotides = len(payloads) * LENGTH
    return Speed("reference.py", 1, nucleotides / write, nucleotides / read)


def _device_row(table, batch, generator):
    """One batch through helix_jax, on as many devices as divide it."""
    count = len(jax.local_devices())
    count = count if batch % count == 0 else 1
    devices = tuple(jax.local_devices()[:count])
    arrays, shape = coder.on_device(table)
    write = parallel.spread(coder.write, devices, shape=shape)
    read = parallel.spread(coder.read, devices, shape=shape)
    words = generator.integers(0, 1 << 32, (batch, -(-table.bits // 32)), dtype=np.uint32)
    words[:, -1] &= np.uint32((0xFFFFFFFF << (-table.bits % 32)) & 0xFFFFFFFF)
    if count > 1:
        arrays = parallel.replicate(arrays)
    strands = write(arrays, words)
    back, ok = read(arrays, strands)
    if not np.asarray(ok).all() or not np.array_equal(back, words):
        raise RuntimeError(f"a payload of a batch of {batch} did not come back: the coder is wrong")
    writing = seconds_per_call(lambda: jax.block_until_ready(write(arrays, words)))
    reading = seconds_per_call(lambda: jax.block_until_ready(read(arrays, strands)))
    program = f"helix_jax, {count} {jax.default_backend()} device{'s' * (count > 1)}"
    return Speed(program, batch, batch * LENGTH / writing, batch * LENGTH / reading)


def tokenizer_row():
    """What was coded, and frames per second to tokens and back: a clip of noise, one tile after the other."""
    if weights.DEFAULT.exists():
        shipped = weights.load()
        params, config, origin = shipped.params, shipped.config, "shipped weights"
    else:
        config = TokenizerConfig()
        params = model.init(jax.random.key(0), config)
        origin = "random weights"
    frames, height, width = CLIP
    clip = np.random.default_rng(0).integers(0, 256, (*CLIP, 3), dtype=np.uint8)
    digits = tiles.encode(params, config, [clip], height, width)
    encode = seconds_per_call(lambda: tiles.encode(params, config, [clip], height, width))
    decode = seconds_per_call(lambda: list(tiles.decode(params, config, digits, frames, height, width)))
    return f"{frames} frames of {width}x{height}, {origin}", frames / encode, frames / decode


def main():
    parser = argparse.ArgumentParser(description="Nucleotides and frames per second, with plain programs beside.")
    parser.add_argument("--json", metavar="FILE", help="write the same figures to FILE")
    options = parser.parse_args()
    parallel.use_all_cores()
    clip, encode, decode = tokenizer_row()
    memory = peak_memory()  # of the tokenizer: the coders come after
    rows = coder_rows()
    timed = throughput.rows(seconds_per_call)
    console = Console()
    table = Table(*["program", "batch", "bits to bases, nt/s", "over plain", "bases to bits, nt/s", "over plain"])
    for row in rows:
        table.add_row(
            row.program, f"{row.batch:,}",
            f"{row.write_nt_per_s:,.0f}", f"{row.write_nt_per_s / rows[0].write_nt_per_s:,.1f}",
            f"{row.read_nt_per_s:,.0f}", f"{row.read_nt_per_s / rows[0].read_nt_per_s:,.1f}",
        )  # fmt: skip
    console.print(f"{NAMED[SET].describe()}; {LENGTH} nt", highlight=False)
    console.print(table)
    rounds = Table("timing coder", "strands", "encode, rounds/s", "over plain", "decode, rounds/s", "over plain")
    for row in timed:
        rounds.add_row(
            row.coder, f"{row.strands:,}",
            f"{row.encode:,.0f}", f"{row.encode / row.plain_encode:,.1f}",
            f"{row.decode:,.0f}", f"{row.decode / row.plain_decode:,.1f}",
        )  # fmt: skip
    console.print(rounds)
    console.print("plain: the same code by a walk through its tables in Python, one strand at a time", highlight=False)
    frames = Table("tokenizer", "encode, frames/s", "decode, frames/s", "peak memory")
    frames.add_row(clip, f"{encode:.1f}", f"{decode:.1f}", f"{memory / 2**30:.2f} GiB")
    console.print(frames)
    if options.json:
        with open(options.json, "w") as out:
            speeds = [dataclasses.asdict(row) for row in rows]
            tokenizer = {"clip": clip, "encode_frames_per_s": encode, "decode_frames_per_s": decode}
            timing = [dataclasses.asdict(row) for row in timed]
            figures = {"set": SET, "length": LENGTH, "coder": speeds, "timing": timing, "tokenizer": tokenizer}
            json.dump(figures | {"peak_memory_bytes": memory}, out, indent=2)


if __name__ == "__main__":
    main()
