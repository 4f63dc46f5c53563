"""Broken and hostile input: files of random and damaged bytes, pools of strands nobody wrote, headers that lie.

What comes out is right, or an error of our own classes; never other bytes, never memory or time without bound.
"""

import dataclasses
import gzip
import json
import os
import resource
import subprocess
import sys
import time
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helix_jax import codec
from helix_jax.config import CodecConfig, MixingConfig, StrandConfig
from helix_jax.nets import Nets
from helix_jax.prior import weights as prior_weights
from helix_jax.reads import fastq
from helix_jax.strands import fasta, outer, packets, records
from helix_jax.strands import header as headers
from helix_jax.strands.records import RecordsError
from helix_jax.tk_scone import coder, constraints, tables
from helix_jax.tokenizer import weights

BLOB = np.random.default_rng(7).bytes(600)
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def packed(blob=BLOB, key=None, redundancy=0.3):
    config = CodecConfig(codec="tokens", constraints="strand", strands=StrandConfig(length=100, redundancy=redundancy))
    return codec.pack(blob, config=config, key=key)


@pytest.fixture(scope="module")
def pool():
    return packed()


# ---- files -----------------------------------------------------------------------------------------------------

FASTA = b"".join(b">strand_%d x\n%s\n" % (i, b"ACGTTGCA"[i % 8 :] + b"ACGGT" * (1 + i % 3)) for i in range(12))
FASTQ = b"".join(b"@r%d\n%s\n+\n%s\n" % (i, b"ACGTN" * (1 + i % 4), b"!I5~#" * (1 + i % 4)) for i in range(12))


def read_fasta(path):
    """How many strands; every value is in range."""
    pool = fasta.read(path)
    assert pool
    for length, rows in pool.items():
        assert rows.dtype == np.uint8
        assert rows.shape == (len(rows), length)
        assert rows.size
        assert rows.max() <= 3
    return sum(map(len, pool.values()))


def read_fastq(path):
    total = 0
    for bases, lengths, qualities in fastq.read(path, chunk=5):
        assert 1 <= len(bases) == len(lengths) <= 5
        assert 1 <= lengths.min() <= lengths.max() == bases.shape[1]
        real = np.arange(bases.shape[1])[None] < lengths[:, None]
        assert bases[real].max() <= records.UNKNOWN
        assert (bases[~real] == records.PAD).all()
        assert qualities is None or (qualities.shape == bases.shape and qualities.max() <= 93)
        total += len(bases)
    return total


READERS = [(read_fasta, RecordsError), (read_fastq, RecordsError)]


def outcome(path, reader, error):
    """What a reader gives, or the name of its error, which must name the file."""
    try:
        return reader(path)
    except error as refused:
        return error.__name__ if path.name in str(refused) else f"does not name its file: {refused}"


def fine(told, error):
    return told == error.__name__ or isinstance(told, int)


@st.composite
def damaged(draw, whole):
    """Bytes with a few flips, cuts, insertions and repeats."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "remove", "repeat"]))
        if kind == "flip" and data:
            data[at] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = draw(st.one_of(st.binary(max_size=6), st.sampled_from([b"\n", b"\r\n", b">", b"@", b"+\n"])))
        elif kind == "remove":
            del data[at : at + draw(st.integers(1, 9))]
        else:
            data[at:at] = data[at : at + 40]
    return bytes(data)


SOME_BYTES = st.one_of(
    st.binary(max_size=200),
    st.tuples(st.sampled_from([b">", b"@"]), st.binary(max_size=80)).map(b"".join),
    st.text("ACGTN>@+\n\r ", max_size=80).map(str.encode),
)


@settings(max_examples=60, suppress_health_check=QUIET)
@given(data=SOME_BYTES, zipped=st.booleans())
def test_random_bytes(tmp_path, data, zipped):
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(data) if zipped else data)
    for reader, error in READERS:
        assert fine(outcome(path, reader, error), error)


@settings(max_examples=60, suppress_health_check=QUIET)
@given(data=st.data(), zipped=st.sampled_from(["plain", "before", "after"]), both=st.sampled_from([FASTA, FASTQ]))
def test_damaged_files(tmp_path, data, zipped, both):
    """Damage to the text, to the text before it is packed by gzip, and to the packed file."""
    whole = gzip.compress(both, mtime=0) if zipped == "after" else both
    broken = data.draw(damaged(whole))
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(broken) if zipped == "before" else broken)
    for reader, error in READERS:
        assert fine(outcome(path, reader, error), error)


def test_the_whole_files_are_read(tmp_path):
    path = tmp_path / "file"
    for whole in (FASTA, gzip.compress(FASTA)):
        path.write_bytes(whole)
        assert [outcome(path, *pair) for pair in READERS] == [12, 12]
    for whole in (FASTQ, gzip.compress(FASTQ)):
        path.write_bytes(whole)
        assert [outcome(path, *pair) for pair in READERS] == ["RecordsError", 12]


def test_a_gzip_file_that_unpacks_to_very_much(tmp_path):
    """A record of 64 MiB: left out as it is read, not held."""
    path = tmp_path / "bomb.fastq"
    with gzip.open(path, "wb", compresslevel=1) as out:
        out.write(b"@a\n")
        for _ in range(64):
            out.write(b"A" * (1 << 20))
    tracemalloc.start()
    try:
        assert outcome(path, *READERS[1]) == 0
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


# ---- pools -----------------------------------------------------------------------------------------------------


def unpacked(groups, **options):
    """The bytes, or None for an error of ours."""
    try:
        return codec.unpack(groups, **options)[0]
    except codec.DecodeError:
        return None


@settings(max_examples=8, suppress_health_check=QUIET)
@given(seed=st.integers(0, 1 << 30), count=st.integers(1, 60), bias=st.sampled_from([1, 2, 4]))
def test_random_strands(seed, count, bias):
    strands = np.random.default_rng(seed).integers(0, bias, (count, 100), dtype=np.uint8)
    assert unpacked({100: strands}) is None


def mutated(strands, draw, kinds):
    """Strands after some of: drop, repeat, substitute, splice, reverse, shuffle, foreign."""
    for kind in kinds:
        n = len(strands)
        if kind == "drop":
            strands = strands[draw.random(n) < draw.uniform(0.4, 1)]
        elif kind == "repeat":
            strands = strands[draw.integers(0, n, 2 * n)] if n else strands
        elif kind == "substitute":
            hit = draw.random(strands.shape) < draw.choice([0.001, 0.01, 0.1])
            strands = np.where(hit, draw.integers(0, 4, strands.shape), strands).astype(np.uint8)
        elif kind == "splice":
            at = draw.integers(1, 100)
            rows = draw.random(n) < 0.3
            strands = np.where(rows[:, None] & (np.arange(100) >= at), np.roll(strands, 1, axis=0), strands)
        elif kind == "reverse":
            rows = draw.random(n) < 0.3
            strands = np.where(rows[:, None], strands[:, ::-1], strands)
        else:
            strands = draw.permutation(strands)
    return strands


@settings(max_examples=20, suppress_health_check=QUIET)
@given(
    seed=st.integers(0, 1 << 30),
    kinds=st.lists(
        st.sampled_from(["drop", "repeat", "substitute", "splice", "reverse", "shuffle"]), min_size=1, max_size=4
    ),
)
def test_mutated_pools(pool, seed, kinds):
    strands = mutated(pool.strands, np.random.default_rng(seed), kinds)
    assert unpacked({100: strands}) in (BLOB, None)
    if set(kinds) <= {"repeat", "shuffle"} and kinds.count("repeat") == 0:
        assert unpacked({100: strands}) == BLOB


@settings(max_examples=6, suppress_health_check=QUIET)
@given(seed=st.integers(0, 1 << 30), forgeries=st.integers(1, 12), lost=st.integers(0, 12))
def test_forged_packets(pool, seed, forgeries, lost):
    """Any indexes, in range and past it, under right checks and with any content, beside the true strands."""
    layout, draw = pool.layout, np.random.default_rng(seed)
    index = draw.integers(0, 1 << layout.index_bits, forgeries)
    symbols = draw.integers(0, 256, (forgeries, layout.symbol_bytes), dtype=np.uint8)
    forged = strands_of(layout, pool.header.key, index, symbols)
    kept = np.concatenate([pool.strands[: pool.header_strands], pool.strands[pool.header_strands + lost :], forged])
    assert unpacked({100: draw.permutation(kept)}) in (BLOB, None)


def test_one_forged_packet_is_found(pool):
    layout = pool.layout
    forged = strands_of(layout, pool.header.key, np.array([4]), np.zeros((1, layout.symbol_bytes), np.uint8))
    assert unpacked({100: np.concatenate([pool.strands, forged])}) == BLOB


def strands_of(layout, key, index, symbols):
    words = packets.pack_fields(layout.bits, layout.index_bits, layout.check_bits, key, index, symbols)
    arrays, shape = coder.on_device(tables.load(constraints.named("strand"), 100))
    return np.asarray(coder.write(arrays, words, shape=shape))


# ---- headers that lie -------------------------------------------------------------------------------------------

WIDE = {"index_bits": 32, "check_bits": 16, "symbol_bytes": 16}  # room for any number of packets
VIDEO = {"kind": "video", "frames": 8, "height": 64, "width": 64, "fps": 30}
CODED = VIDEO | {"mode": "context"}
# claims of a header over 29 packets, which are there as it says, with a digest that is right. "all but one" is no
# field: the first packet is left out, and the last repair packets of all are there, with any content
HONEST = {
    "nothing": {},
    "no content": {"content_bytes": 0},
    "check of one bit": {"check_bits": 1},
    "symbols of one byte": {"symbol_bytes": 1, "content_bytes": 29},
}
LIES = {
    "symbols of 65535 bytes": {"symbol_bytes": 65535},
    "index of 255 bits": {"index_bits": 255},
    "check of 255 bits": {"check_bits": 255},
    "2^24 repairs, the last ones there": WIDE | {"repairs": (1 << 24) - 30, "all but one": True},
    "2^32 repairs": WIDE | {"repairs": (1 << 32) - 1},
    "2^22 sources": WIDE | {"sources": 1 << 22},
    "2^27 sources": WIDE | {"sources": 1 << 27},
    "2^31 sources": WIDE | {"sources": 1 << 31},
    "2^32 sources": WIDE | {"sources": (1 << 32) - 1, "repairs": 0},
    "context, with an update": CODED | {"update": 255},
    "2^31 frames": VIDEO | {"frames": 1 << 31},
    "a picture of 2^64": VIDEO | {"frames": 1, "height": (1 << 32) - 1, "width": (1 << 32) - 1},
    "2^31 frames of 2^31 sources": VIDEO | WIDE | {"frames": 1 << 31, "height": 8, "width": 8, "sources": 1 << 31},
    "2^26 frames of 2^26 sources": VIDEO | WIDE | {"frames": 1 << 26, "height": 8, "width": 8, "sources": 1 << 26},
    "255 digits": VIDEO | {"digits": 255},
    "context, 2^31 frames": CODED | {"frames": 1 << 31},
    "prior, 2^31 frames": CODED | {"mode": "prior", "frames": 1 << 31},
    # 2^26 x 2^19 x 2^19 segments: 2^64, which is 0 in 64 bits
    "context, 2^64 segments": CODED | {"frames": 1 << 31, "height": 160 << 19, "width": 160 << 19},
    "prior, a row of 2^32": CODED | {"mode": "prior", "frames": 1, "height": (1 << 32) - 1},
    "context, 2^27 sources": CODED | WIDE | {"sources": 1 << 27},
}
GROWTH, SECONDS = 1.0, 15  # GiB, and on a busy machine


@pytest.fixture(scope="module")
def told(weights_file, prior_file):
    """told(name): what became of that header, and of none but it, in a process of its own."""
    command = [sys.executable, __file__, weights_file, prior_file]
    surroundings = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}  # this checkout's library
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=surroundings) as child:

        def ask(name):
            child.stdin.write(name + "\n")
            child.stdin.flush()
            return json.loads(child.stdout.readline())

        yield ask
        child.stdin.close()


@pytest.mark.parametrize("name", [*HONEST, *LIES])
def test_headers_that_lie(told, name):
    """The bytes that the packets hold, or an error of ours; within a gibibyte and a few seconds."""
    for way, found in told(name).items():
        right = "the bytes" if name in HONEST and way == "unpack" else "DecodeError"
        assert found["outcome"] == right, (way, found)
        assert found["gib"] < GROWTH, (way, found)
        assert found["seconds"] < SECONDS, (way, found)


def pool_of(claims, model, prior):
    """(strands of a header with these claims and of packets as it says, the payload's bytes)."""
    claims = dict(claims)
    odd = claims.pop("all but one", False)
    if claims.get("kind") == "video":
        claims = {
            "digits": model.config.digits,
            "model_hash": model.digest[:8],
            "prior_hash": prior.digest[:6] if claims.get("mode", "raw") != "raw" else bytes(6),
        } | claims
        claims["fps"] = Fraction(claims["fps"])
    table = tables.load(constraints.named("strand"), 100)
    base = packed()
    sources, width = base.layout.sources, claims.get("symbol_bytes", base.layout.symbol_bytes)
    possible = width <= 21 and claims.get("index_bits", 6) <= 32 and claims.get("check_bits", 23) <= 32
    width = width if possible else 21
    payload = np.random.default_rng(3).integers(0, 256, (sources, width), dtype=np.uint8)
    honest = {"content_bytes": min(400, payload.size), "digest": outer.payload_digest(payload.tobytes())}
    mixing = MixingConfig(interleave=True, kronecker=False, offset=False)
    head = dataclasses.replace(base.header, **(honest | {"mixing": mixing} | claims))
    widths = (head.index_bits, head.check_bits) if possible else (6, 23)
    index = np.arange(sources)
    if odd:
        index = np.concatenate([index[1:], sources + head.repairs - 1 - np.arange(4)])
        payload = np.concatenate([payload[1:], payload[:4]])
    words = np.concatenate(
        [
            headers.header_packets(head, table.bits),
            packets.pack_fields(table.bits, *widths, head.key, index, payload),
        ]
    )
    arrays, shape = coder.on_device(table)
    return np.asarray(coder.write(arrays, words, shape=shape)), payload.tobytes()[: head.content_bytes]


def serve(weights_file, prior_file):
    """Names on standard input -> what became of their headers, in JSON; bounded, so that the machine is safe."""
    model = weights.load(weights_file)
    prior = prior_weights.load(prior_file)
    codec.unpack({100: packed().strands})  # compiled before anything is measured
    for line in sys.stdin:
        name = line.strip()
        strands, truth = pool_of((HONEST | LIES)[name], model, prior)
        answer = {}
        for way in ("unpack", "decode"):
            before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), resource.RLIM_INFINITY))
            try:
                if way == "unpack":
                    outcome = "the bytes" if codec.unpack({100: strands})[0] == truth else "wrong bytes"
                else:
                    outcome = f"{len(list(codec.decode({100: strands}, Nets(model, prior))[1]))} blocks"
            except BaseException as error:
                outcome, text = type(error).__name__, str(error)
            else:
                text = ""
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            seconds = round(time.monotonic() - begin, 2)
            answer[way] = {"outcome": outcome, "text": text[:200], "gib": grown / (1 << 20), "seconds": seconds}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
