"""Pools kept in tests/golden: the same input must give the same strands for ever, and they must stay readable.

Only integers are on the way (tokens, not pictures: float nets differ in their last bits between machines).
``UPDATE_GOLDEN=1 python -m pytest tests/test_golden.py`` writes the files anew.
"""

import dataclasses
import hashlib
import json
import os
from fractions import Fraction
from pathlib import Path

import jax
import numpy as np
import pytest

from helix_jax import codec, packing, video
from helix_jax.coding import coder, segments
from helix_jax.config import CodecConfig, PriorConfig, StrandConfig, TokenizerConfig
from helix_jax.nets import Nets
from helix_jax.prior import net
from helix_jax.strands import fasta, header
from helix_jax.tokenizer import tiles
from helix_jax.tokenizer.weights import Model

GOLDEN = Path(__file__).parent / "golden"
BLOB = bytes(n * n % 251 for n in range(300))
CONFIG = TokenizerConfig(width=16, tile=(4, 8, 8))
MODEL = Model({}, CONFIG, bytes(range(32)))  # never run
INFO = video.VideoInfo(frames=9, height=33, width=47, fps=Fraction(30000, 1001))
GRID = (3, 5, 6, 8)
TOKENS = (np.arange(np.prod(GRID)) ** 2 // 7 % 4).astype(np.uint8).reshape(GRID)

CHANGED = """
{name}: strand {strand} of {count} is not the one of tests/golden.
The same input now gives other strands, so pools written by earlier releases can no longer be read, or this one's cannot
be read by them. If that is not meant, something in the integer path has changed: tables, range coder, mixing, layout,
check, outer code or header. If it is meant, add a format to header.FORMATS (now {formats}), say so in
CHANGELOG.md, and write the files anew with
UPDATE_GOLDEN=1 python -m pytest tests/test_golden.py
"""

CODED_CHANGED = """
grid {name}: the coded bytes of the same tokens are not those of tests/golden.
Pools in the modes context and prior that were written by earlier releases can no longer be read, or this one's cannot
be read by them. If that is not meant, something in the integer path has changed: tables, contexts, range coder or the
shape of segments. If it is meant, add a format to header.FORMATS (now {formats}), say so in
CHANGELOG.md, and write the file anew with
UPDATE_GOLDEN=1 python -m pytest tests/test_golden.py
"""


class Clip:
    info = INFO

    def blocks(self):
        return ()


@pytest.fixture
def given_tokens(monkeypatch):
    """The tokenizer's two ends: encode gives TOKENS, decode notes what it gets."""
    seen = []
    monkeypatch.setattr(tiles, "encode", lambda *_, positions: TOKENS.astype(np.float32))
    monkeypatch.setattr(tiles, "decode", lambda params, config, tokens, *_: seen.append(tokens) or iter(()))
    return seen


def config(name, length):
    return CodecConfig(codec="tokens", constraints=name, strands=StrandConfig(length=length, redundancy=0.1))


def compare(name, pool):
    """The golden pool as ``fasta.read`` gives it, once it is found equal to ``pool``."""
    path = GOLDEN / f"{name}.fasta"
    if os.environ.get("UPDATE_GOLDEN"):
        fasta.write(path, pool.strands, lambda i: "header" if i < pool.header_strands else "data")
    kept = fasta.read(path)
    strands = kept.get(pool.strands.shape[1], np.zeros((0, 1), np.uint8))
    if strands.shape != pool.strands.shape or (strands != pool.strands).any():
        rows = min(len(strands), len(pool.strands))
        differ = np.flatnonzero((strands[:rows] != pool.strands[:rows]).any(axis=1))
        first = int(differ[0]) if differ.size else rows
        pytest.fail(CHANGED.format(name=name, strand=first, count=len(pool.strands), formats=header.FORMATS))
    return kept


def test_bytes():
    pool = codec.pack(BLOB, config=config("helix", 150), compress=False)
    kept = compare("bytes_helix_150", pool)
    assert codec.unpack(kept)[0] == BLOB


def test_bytes_with_a_note():
    noted = dataclasses.replace(config("goldman", 150), note=True)
    pool = codec.pack(BLOB, config=noted, name="blob.bin", compress=False)
    kept = compare("note_goldman_150", pool)
    unpacked = packing.unpack_parts(kept)
    assert b"".join(unpacked.parts) == BLOB
    assert unpacked.note.name == "blob.bin"


def test_compressed_bytes():
    """Another release of zstd may give other bytes, so that only reading is for ever."""
    path = GOLDEN / "zstd_goldman_150.fasta"
    if os.environ.get("UPDATE_GOLDEN"):
        fasta.write_pool(path, codec.pack(BLOB, config=config("goldman", 150)))
    assert codec.unpack(fasta.read(path))[0] == BLOB


def test_tokens(given_tokens):
    pool = codec.encode(Clip(), Nets(MODEL), config=config("strand", 100))
    kept = compare("tokens_strand_100", pool)
    info, _, report = codec.decode(kept, Nets(MODEL))
    assert info == INFO
    assert report.verified
    np.testing.assert_array_equal(given_tokens[0], TOKENS)


def whole_numbers(config):
    """A net whose parameters follow from a formula without rounding: it is the same on every machine."""
    shapes, structure = jax.tree.flatten(jax.eval_shape(lambda: net.init(jax.random.key(0), config)))
    leaves = [
        ((np.arange(np.prod(shape.shape)) * 7919 + 104729 * n) % 255 - 127).reshape(shape.shape).astype(np.float32)
        / 256
        for n, shape in enumerate(shapes)
    ]
    return jax.jit(net.quantise)(jax.tree.unflatten(structure, leaves))


@pytest.mark.parametrize("mode", ["context", "prior"])
@pytest.mark.parametrize("grid", [(2, 5, 7), (9, 21, 23)])
def test_coded_segments(grid, mode, prior_of, walk):
    """Under fresh tables, which are not those of any release, so that only the coder and the net can change them."""
    config = PriorConfig(width=16, blocks=2, hidden=16)
    prior = dataclasses.replace(prior_of(8), config=config, params=whole_numbers(config))
    coded = coder.compress(prior, mode, segments.plan(grid), walk(grid, 8))
    found = [{"bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()} for piece in coded]
    path, name = GOLDEN / f"{mode}.json", "x".join(map(str, grid))
    if os.environ.get("UPDATE_GOLDEN"):
        kept = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(kept | {name: found}, indent=2) + "\n")
    if json.loads(path.read_text())[name] != found:
        pytest.fail(CODED_CHANGED.format(name=name, formats=header.FORMATS))


def test_a_change_is_explained(monkeypatch):
    """The message says what it means, and which strand it is."""
    monkeypatch.delenv("UPDATE_GOLDEN", raising=False)
    pool = codec.pack(BLOB, config=config("helix", 150), compress=False)
    pool.strands[20] ^= 1
    with pytest.raises(pytest.fail.Exception, match=r"(?s)strand 20 of 29 .*longer be read.*FORMATS \(now \(1, 2\)\)"):
        compare("bytes_helix_150", pool)
