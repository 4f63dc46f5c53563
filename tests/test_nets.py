"""The nets that a pool was written with are found by the hashes in its header, also those of earlier releases."""

import jax

from helix_jax import nets
from helix_jax.config import TokenizerConfig
from helix_jax.tokenizer import model, weights


def test_released_nets_are_found_by_their_hash(tmp_path, monkeypatch):
    config = TokenizerConfig(width=16, tile=(4, 8, 8))
    weights.save(tmp_path / "tokenizer-0.1.safetensors", model.init(jax.random.key(0), config), config, {})
    earlier = weights.load(tmp_path / "tokenizer-0.1.safetensors")
    shipped = nets.load()
    monkeypatch.setattr(weights, "DEFAULT", tmp_path / "tokenizer.safetensors")
    found = nets.released(earlier.digest[:8], bytes(6))
    assert found.tokenizer.digest == earlier.digest
    assert found.prior is None
    usual = nets.released(shipped.tokenizer.digest[:8], shipped.prior.digest[:6])
    assert (usual.tokenizer.digest, usual.prior.digest) == (shipped.tokenizer.digest, shipped.prior.digest)
    unknown = nets.released(b"nobodys!", b"\1" * 6)  # the decoder says then which nets are wanted
    assert unknown.tokenizer.digest == shipped.tokenizer.digest
