"""The archival decoder: no JAX, the same bytes and tokens."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from helix_jax import codec, video
from helix_jax.config import CodecConfig, StrandConfig, TokenizerConfig
from helix_jax.nets import Nets
from helix_jax.prior import stored
from helix_jax.prior import weights as prior_weights
from helix_jax.reference import archive
from helix_jax.strands import fasta
from helix_jax.tokenizer import model as nets
from helix_jax.tokenizer import tiles, weights
from helix_jax.tokenizer.weights import Model

CONFIG = CodecConfig(codec="tokens", constraints="wide", strands=StrandConfig(length=120, redundancy=0.2))

NO_JAX = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("jax", "jaxlib", "flax", "chex"):
            raise ImportError(f"{name} is not installed")
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_module("helix_jax.reference", run_name="__main__")
"""


def test_bytes_without_jax(tmp_path):
    blob = np.random.default_rng(0).bytes(250)
    pool = codec.pack(blob, config=CONFIG)
    fasta.write(tmp_path / "pool.fasta", pool.strands[3:], lambda i: "")
    command = [sys.executable, "-c", NO_JAX, "reference", str(tmp_path / "pool.fasta"), str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out").read_bytes() == blob


def test_tokens_of_a_video():
    config = TokenizerConfig(width=16, encoder_blocks=1, decoder_blocks=1, tile=(4, 8, 8))
    model = Model(nets.init(jax.random.key(0), config), config, bytes(32))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 17, 30, 3), dtype=np.uint8)

    pool = codec.encode(video.Clip(pixels), Nets(model), config=CONFIG)
    expected = tiles.encode(model.params, config, [pixels], 17, 30)
    np.testing.assert_array_equal(archive.read_pool({120: pool.strands}), expected)


@pytest.fixture(scope="module", params=["context", "prior"])
def coded(request, tmp_path_factory, weights_file, prior_file):
    """(tokens, path of a pool in a coded mode), of a picture that stands still."""
    model, prior = weights.load(weights_file), prior_weights.load(prior_file)
    pixels = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 17, 30, 3), dtype=np.uint8), 36, axis=0)

    pool = codec.encode(video.Clip(pixels), Nets(model, prior), config=dataclasses.replace(CONFIG, mode=request.param))
    path = tmp_path_factory.mktemp("coded") / "pool.fasta"
    fasta.write(path, pool.strands[3:], lambda i: "")
    return tiles.encode(model.params, model.config, [pixels], 17, 30), path


def test_coded_tokens_without_jax(tmp_path, coded, prior_file):
    tokens, path = coded
    command = [sys.executable, "-c", NO_JAX, "reference", str(path), str(tmp_path / "out"), str(prior_file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out"), tokens)


def test_another_prior_is_refused(coded, prior_file, weights_file):
    strands = fasta.read(coded[1])
    shipped, wanted = stored.read().digest[:6].hex(), stored.read(prior_file).digest[:6].hex()
    with pytest.raises(ValueError, match=f"coded with prior {wanted}, not {shipped}"):
        archive.read_pool(strands)
    with pytest.raises(ValueError, match="not a weights file of helix_jax's prior"):
        archive.read_pool(strands, weights_file)
    with pytest.raises(ValueError, match="no weights file gone"):
        archive.read_pool(strands, "gone.safetensors")


def test_no_pool_is_refused():
    with pytest.raises(ValueError, match="no header"):
        archive.read_pool({100: np.tile(np.arange(4, dtype=np.uint8), (5, 25))})


class Loud(video.Clip):
    """A clip with sound."""

    def sound(self, kbit):
        return video.Sound(1, 0, 960, 960, (b"\x78abc",))


def test_tokens_beside_sound():
    config = TokenizerConfig(width=16, tile=(4, 8, 8))
    model = Model(nets.init(jax.random.key(0), config), config, bytes(32))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 24, 32, 3), np.uint8)
    alone, beside = (codec.encode(kind(pixels), Nets(model), config=CONFIG) for kind in (video.Clip, Loud))
    assert (alone.header.format, beside.header.format) == (1, 2)
    first, second = (archive.read_pool({pool.strands.shape[1]: pool.strands}) for pool in (alone, beside))
    np.testing.assert_array_equal(first, second)


def test_sections_of_the_golden_pool():
    """The archival decoder takes a pool of format 2 apart as the codec does."""
    kept = fasta.read(Path(__file__).parents[1] / "golden" / "av1_strand_100.fasta")
    found = archive.read_pool(kept)
    assert [section.kind for section, _ in found] == ["preview", "sound", "av1", "av1"]
    film = codec.film(kept)
    assert tuple(data for section, data in found if section.kind == "av1") == film.stream
    assert found[1][1] == film.sound.to_bytes()


def test_a_file_with_a_note_in_zstd():
    text = b"the same words again and again, " * 20
    config = dataclasses.replace(CONFIG, note=True)
    pool = codec.pack(text, config=config, name="words.txt")
    assert [section.kind for section in pool.header.sections] == ["note", "file"]
    assert pool.header.sections[1].details
    assert archive.read_pool({120: pool.strands}) == text
    kept = fasta.read(Path(__file__).parents[1] / "golden" / "note_goldman_150.fasta")
    assert len(archive.read_pool(kept)) == 300
