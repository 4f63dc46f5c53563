"""Measure speed: bits to bases and back, compared with plain programs; the timing coders; the tokenizer.

    python -m eval.throughput [--json FILE]

The batch is spread over all local devices (CPU cores are devices here), as in the library. Each figure is the best of
several runs, after one that compiles. The plain programs, the NumPy reference and a loop over the bases, run in the
same process on the same machine.
"""

import argparse
import dataclasses
import json
import resource
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
from helix_jax.tk_scone.constraints import NAMED, Constraints
from helix_jax.tokenizer import model, tiles, weights

SET, LENGTH = "helix", 150
BATCHES = [1, 100, 1_000, 20_000, 100_000]
SECONDS = 1.5  # measuring time of each figure
CLIP = (64, 360, 640)  # frames, height, width of the tokenizer's clip


# ---- a plain per-base loop: exclude what is forbidden, and give the rest equal probabilities -------


class PlainLoop:
    """Arithmetic coding with a rule check for each base, in the manner of SCONE: one strand, one base at a time.

    It keeps the GC bits of the last 19 bases in a deque, checks the four bases against runs and window, and codes
    uniformly over those that remain. Its rate is lower than that of maximum entropy (1.86 bit/nt here), and there is no
    proof that a payload fits.
    """

    def __init__(self, constraints: Constraints) -> None:
        self.longest, self.window = constraints.longest_run, constraints.window
        self.low, self.high = (round(share * self.window) for share in constraints.window_gc)

    def allowed(self, recent: deque, gc: int, last: int, run: int) -> list[int]:
        """Return the bases that may follow.

        Args:
            recent: GC bits of the last 19 bases.
            gc: their sum.
            last: the last base.
            run: length of its run.
        """
        room = self.window - 1 - len(recent)
        bases = []
        for base in range(4):
            if base == last and run == self.longest:
                continue
            count = gc + (base in (1, 2))
            # a window that is not yet full must have enough positions left; this is also the test for a full one
            if count <= self.high and count + room >= self.low:
                bases.append(base)
        return bases

    def edges(self, state: tuple, _: Any) -> list[int]:
        """Return the boundaries of the bases' intervals in a state, from 0 to TOTAL."""
        recent, gc, last, run = state
        bases = self.allowed(recent, gc, last, run)
        share, extra = divmod(TOTAL, len(bases))
        cut = [0]
        for base in range(4):
            cut.append(cut[-1] + (share + (base == bases[0]) * extra if base in bases else 0))
        return cut

    def advance(self, state: tuple, _: Any, base: int) -> tuple:
        """Return the state after a base."""
        recent, gc, last, run = state  # the deque belongs to this strand only, and is changed in place
        recent.append(base in (1, 2))
        gc += base in (1, 2)
        if len(recent) == self.window:
            gc -= recent.popleft()
        return recent, gc, base, run + 1 if base == last else 1

    def model(self) -> tuple:
        """Return the model that ``kernels.bits_to_symbols`` takes."""
        return (deque(), 0, -1, 0), self.edges, self.advance

    def write(self, payload: int, bits: int, length: int) -> Any:
        """Return a strand of ``length`` bases that holds the bits of a payload."""
        return kernels.bits_to_symbols(self.model(), payload, bits, length)

    def read(self, bases: Any, bits: int) -> Any:
        """Return the payload of a strand."""
        return kernels.symbols_to_bits(self.model(), bases, bits)[0]


# ---- measuring -------------------------------------------------------------------------------------


def seconds_per_call(call: Callable[[], Any]) -> float:
    """Return the best time of a call, after one call that is not counted."""
    call()
    best, spent = float("inf"), 0.0
    while spent < SECONDS:
        begin = time.perf_counter()
        call()
        elapsed = time.perf_counter() - begin
        best, spent = min(best, elapsed), spent + elapsed
    return best


def peak_memory() -> int:
    """Return the peak of this process's resident memory so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@dataclass(frozen=True)
class Speed:
    """The speed of one program, in nucleotides per second in both directions."""

    program: str
    batch: int
    write_nt_per_s: float
    read_nt_per_s: float


def coder_rows() -> list[Speed]:
    """Return the speed of each program and batch, the plain loop first."""
    table = tables.load(NAMED[SET], LENGTH)
    generator = np.random.default_rng(0)
    payloads = [int.from_bytes(generator.bytes(40), "big") >> (320 - table.bits) for _ in range(20)]
    rows = [_plain_row(payloads, table.bits), _reference_row(payloads, table)]
    return rows + [_device_row(table, batch, generator) for batch in BATCHES]


def _plain_row(payloads, bits):
    # 287 bits are more than it can carry in every strand: only its speed matters, and the payloads are not compared
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
    """Measure one batch of helix_jax, on all devices if their number divides the batch, and else on one."""
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


def tokenizer_row() -> tuple[str, float, float]:
    """Return what was coded (a clip of noise), and the frames per second to tokens and back."""
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


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description="Nucleotides and frames per second, compared with plain programs.")
    parser.add_argument("--json", metavar="FILE", help="write the same figures to FILE")
    options = parser.parse_args()
    parallel.use_all_cores()
    clip, encode, decode = tokenizer_row()
    memory = peak_memory()  # that of the tokenizer, as the coders run later
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
