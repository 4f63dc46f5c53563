"""With JAX_ENABLE_X64=1 everything is the same to the byte: pools, tokens, pictures, reads, schedules.

The round trips run twice, here and in a process of its own with 64 bits on.
"""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest

from helix_jax import codec, parallel, video
from helix_jax.channel import simulate
from helix_jax.channel.model import Channel, Errors, Quality
from helix_jax.config import CodecConfig, MixingConfig, StrandConfig
from helix_jax.nets import Nets
from helix_jax.prior import weights as prior_weights
from helix_jax.reads import recover
from helix_jax.timing import channel, synthesis
from helix_jax.timing.graph import TALK
from helix_jax.timing.pool import Timing
from helix_jax.timing.scheme import Scheme
from helix_jax.tokenizer import weights

BYTES = np.random.default_rng(1).bytes(60)
PLAIN = CodecConfig(codec="tokens", constraints="strand", strands=StrandConfig(length=60, redundancy=0.0))
# name: what of PLAIN is another
CONFIGS = {
    "raw": {"mode": "raw", "mixing": MixingConfig(kronecker=True)},
    "context": {"mode": "context"},
    "prior": {"mode": "prior", "quality": 5},
}
CHANNEL = Channel("test", "made up", Errors(0.01, 0.005, 0.005, spread=0.2), quality=Quality.flat(20))
SCHEME = Scheme(
    name="test", law=channel.Binomial.uniform(0.98), table=TALK, copies=2, delta=0.1, duration=72, data=61, spacing=24,
    parity=14, index=5, check=8, group=16, redundancy=0.3, beams=(4,),
)  # fmt: skip


def moving_square():
    """A clip of 8 frames of 24 x 28 pixels."""
    y, x, t = np.mgrid[:24, :28, :8]
    pixels = np.where((abs(x - 4 - 2 * t) < 6) & (abs(y - 12) < 8), 220, 40 + 2 * x + y)
    return video.Clip(np.repeat(pixels.transpose(2, 0, 1)[..., None], 3, axis=-1).astype(np.uint8))


CLIP = moving_square()


def pictures(strands, tokenizer, prior):
    _, blocks, report = codec.decode({60: strands}, Nets(tokenizer, prior))
    return np.concatenate(list(blocks)), report


def round_trip(part, *files):
    """{name: SHA-256 of the bytes} of what a part of PARTS writes and reads, in batches as small as the pools are."""
    plain = parallel.map_batches

    def small(*arguments, batch, **options):
        return plain(*arguments, batch=16, **options)

    with mock.patch.object(parallel, "map_batches", small):
        arrays = PARTS[part](*files)
    return {name: hashlib.sha256(np.ascontiguousarray(array)).hexdigest() for name, array in arrays.items()}


def prior_and_schedule(*files):
    """Pools and pictures in mode prior, and bytes by both writers."""
    bases = {"bytes, pool": codec.pack(BYTES, config=PLAIN).strands}
    return in_modes(["prior"], *files) | bases | {"schedule": schedule().durations}


def all_modes_and_reads(*files):
    return in_modes(CONFIGS, *files) | from_reads() | from_copies()


def in_modes(names, tokenizer_file, prior_file):
    """Pools and pictures of the clip."""
    tokenizer, prior = weights.load(tokenizer_file), prior_weights.load(prior_file)
    arrays = {}
    for name in names:
        changes = CONFIGS[name]
        pool = codec.encode(CLIP, Nets(tokenizer, prior), config=dataclasses.replace(PLAIN, **changes))
        arrays[f"{name}, pool"] = pool.strands
        arrays[f"{name}, pictures"] = pictures(pool.strands, tokenizer, prior)[0]
        if name == "raw":
            left = np.delete(pool.strands, np.s_[1::3], axis=0)
            arrays["guessed, pictures"], report = pictures(left, tokenizer, prior)
            assert report.lost_tokens > 0
    return arrays


def from_reads():
    """Bytes from the reads of a simulated sequencer."""
    pool = codec.pack(BYTES, config=PLAIN)
    # four copies of each: one shape for the search
    reads = simulate.read_copies(CHANNEL, pool.strands, np.full(len(pool.strands), 4), jax.random.key(1))
    found, _ = recover.recover(iter([(reads.bases, reads.lengths, reads.qualities)]))
    assert codec.unpack(found)[0] == BYTES
    return {"reads": reads.bases, "qualities": reads.qualities, "strands": found.bases}


def schedule():
    return codec.pack(BYTES, writer=Timing(SCHEME)).schedule


def from_copies():
    """Bytes from simulated copies of the schedule."""
    plan = schedule()
    pmfs = channel.pmf_table(SCHEME.law, SCHEME.table)
    runs = synthesis.simulate(jax.random.key(2), plan.letters, plan.levels(SCHEME.table), pmfs, 4)
    noise = synthesis.Sequencer(substitution=0.001, split=0.001)
    copies, lengths = map(np.asarray, synthesis.to_reads(jax.random.key(3), plan.letters, runs, noise))
    flat = [row[:n] for row, n in zip(copies.reshape(-1, copies.shape[-1]), lengths.reshape(-1), strict=True)]
    assert codec.unpack(flat, writer=Timing(SCHEME))[0] == BYTES
    return {"copies": copies}


PARTS = {"prior and schedule": prior_and_schedule, "all modes and reads": all_modes_and_reads}


@pytest.mark.parametrize(
    "part",
    # everything is compiled twice: in every run what is written in mode prior, and how it is read
    ["prior and schedule", pytest.param("all modes and reads", marks=pytest.mark.slow)],
)
def test_the_same_bytes_with_64_bits(part, weights_file, prior_file):
    command = [sys.executable, "-m", "tests.test_x64", part, str(weights_file), str(prior_file)]
    # pictures are floats, which other optimisations round otherwise
    plain = str(int(jax.config.values["jax_disable_most_optimizations"]))
    settings = {"JAX_ENABLE_X64": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": plain}
    child = subprocess.Popen(command, cwd=Path(__file__).parents[1], env=os.environ | settings, stdout=subprocess.PIPE)
    expected = round_trip(part, weights_file, prior_file)
    printed, _ = child.communicate()
    assert child.returncode == 0
    assert json.loads(printed) == expected


if __name__ == "__main__":
    assert jax.numpy.zeros(1).dtype == np.float64
    print(json.dumps(round_trip(*sys.argv[1:])))
