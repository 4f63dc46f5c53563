"""The contents of the masked prior's weights file, as they are stored. NumPy only: ``helix_jax.reference`` uses it."""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from helix_jax.config import PriorConfig
from helix_jax.files import WeightsError
from helix_jax.prior import tables

DEFAULT = Path(__file__).parents[1] / "pretrained" / "prior.safetensors"
ACTIVATION_BITS, STREAM_BITS, LOGIT_BITS = 5, 10, 8  # fractional bits of the net's numbers: see ``net``
AROUND = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))  # (y, x) of the tokens that the causal head sees
KEPT = (0, 1, 2, 3)  # those of AROUND of which it also sees which digits are the same as one frame before


@dataclass(frozen=True, eq=False)
class Stored:
    """The contents of a weights file.

    Attributes:
        tensors: Arrays of integers by their names.
        config: Configuration of the net.
        tokenizer: Digest of the tokenizer whose tokens the prior was trained on.
    """

    tensors: dict[str, np.ndarray]
    config: PriorConfig
    tokenizer: bytes

    @property
    def digest(self) -> bytes:
        """SHA-256 of all of these: 32 bytes."""
        digest = hashlib.sha256(json.dumps(dataclasses.asdict(self.config), sort_keys=True).encode() + self.tokenizer)
        for name in sorted(self.tensors):
            array = self.tensors[name]
            digest.update(f"{name} {array.shape} {array.dtype.str}".encode())
            digest.update(array.tobytes())
        return digest.digest()

    @property
    def context(self) -> tables.Start:
        """Where a segment starts in mode `context`."""
        return tables.from_arrays(self.tensors)[0]

    @property
    def mixed(self) -> tables.Start:
        """Where a segment starts in mode `prior`."""
        return tables.from_arrays(self.tensors)[1]

    @property
    def params(self) -> dict:
        """The net's parameters: a nested dict of float32 arrays, whose values are integers times powers of two."""
        flat = self.tensors
        params: dict = {"blocks": {}}
        for name in sorted({n.rsplit(".", 1)[0] for n in flat if n.endswith(".w")}):
            shift = flat[f"{name}.shift"].astype(np.int32)
            layer = {
                "w": np.ldexp(flat[f"{name}.w"].astype(np.float32), -shift),
                "b": np.ldexp(flat[f"{name}.b"].astype(np.float32), -shift - input_bits(name)),
            }
            if "." not in name:
                params[name] = layer
            else:
                _, number, part = name.split(".")
                params["blocks"].setdefault(int(number), {})[part] = layer
        for name, bits in (("phase", STREAM_BITS), ("earlier", STREAM_BITS)):
            params[name] = np.ldexp(flat[name].astype(np.float32), -bits)
        return params


def input_bits(name: str) -> int:
    """Return the number of fractional bits of a layer's inputs."""
    return 0 if name == "embed" else ACTIVATION_BITS


def read(path: str | os.PathLike[str] = DEFAULT) -> Stored:
    """Read a weights file without checking its tensors.

    Raises WeightsError if it is missing or damaged, or is not a prior's.
    """
    try:
        blob = Path(path).read_bytes()
        flat = safetensors.numpy.load(blob)
        with safetensors.safe_open(str(path), framework="numpy") as handle:
            metadata = handle.metadata() or {}
        return Stored(flat, PriorConfig(**json.loads(metadata["config"])), bytes.fromhex(metadata["tokenizer"]))
    except FileNotFoundError as error:
        raise WeightsError(f"no weights file {path}; give one with --prior") from error
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} is not a weights file of helix_jax's prior: {error}") from error
