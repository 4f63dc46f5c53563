"""helix_jax, served like any peer: ``pack`` and ``unpack``, and ``recover`` for reads."""

import importlib.metadata

import numpy as np

from eval.peers import protocol
from helix_jax import packing, parallel
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.reads import recover
from helix_jax.strands.records import PAD

NUMBERS = bytes.maketrans(b"ACGT", bytes(range(4)))


def version(_request):
    """Return the version; content of any size is stored without padding to a unit."""
    return f"helix_jax {importlib.metadata.version('helix-jax')}", 1


def encode(request, data):
    """Return the strands."""
    setting = request.setting
    strands = StrandConfig(length=setting["length"], redundancy=setting["redundancy"])
    pool = packing.pack(data, config=CodecConfig(constraints=setting["constraints"], strands=strands), compress=False)
    letters = np.frombuffer(b"ACGT", np.uint8)[pool.strands]
    return [row.tobytes().decode() for row in letters], None, None


def decode(_request, _state, received):
    """Return the content of strands of one length."""
    text = "".join(each.strand for each in received).encode().translate(NUMBERS)
    rows = np.frombuffer(text, np.uint8).reshape(len(received), -1)
    return packing.unpack({rows.shape[1]: rows})[0], None


def reads(_request, _state, received):
    """Return the content of raw reads."""
    lengths = np.array([len(each.read) for each in received], np.int32)
    bases = np.full((len(received), int(lengths.max())), PAD, np.uint8)
    for row, each in zip(bases, received, strict=True):
        row[: len(each.read)] = np.frombuffer(each.read.encode().translate(NUMBERS), np.uint8)
    return packing.unpack(recover.recover([(bases, lengths, None)])[0])[0], None


if __name__ == "__main__":
    parallel.use_all_cores()
    parallel.keep_compiled()
    protocol.serve(protocol.Peer(version, encode, decode, reads))
