"""Weights file <-> parameters: one safetensors file, config and notes in its metadata.

Tensors are stored as float16 under dotted names ("encoder.0.spatial.w"); the metadata entry "config"
is the JSON of the TokenizerConfig. The model hash is the SHA-256 of the whole file.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from helix_jax import files
from helix_jax.config import TokenizerConfig

DEFAULT = Path(__file__).parent / "pretrained" / "tokenizer.safetensors"


@dataclass(frozen=True, eq=False)
class Model:
    """Parameters (nested dict of float32 arrays), their configuration, and the SHA-256 of the file they came from."""

    params: dict
    config: TokenizerConfig
    digest: bytes


class WeightsError(ValueError):
    """The weights file is missing, damaged, or of another model."""


def save(path, params, config, notes):
    """Write params (nested dict of arrays) as float16. notes: dict of str for the metadata."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    flat = {".".join(str(k.key) for k in keys): np.asarray(leaf, np.float16) for keys, leaf in leaves}
    metadata = {"config": json.dumps(dataclasses.asdict(config)), **notes}
    blob = safetensors.numpy.save(flat, metadata=metadata)
    with files.atomic(path) as temporary:
        temporary.write_bytes(blob)


def load(path=DEFAULT) -> Model:
    """Read a weights file. Raises WeightsError when it is missing or is not a tokenizer's."""
    try:
        blob = Path(path).read_bytes()
        flat = safetensors.numpy.load(blob)
        with safetensors.safe_open(str(path), framework="numpy") as handle:
            fields = json.loads(handle.metadata()["config"])
        fields["tile"] = tuple(fields["tile"])
        config = TokenizerConfig(**fields)
    except FileNotFoundError as error:
        raise WeightsError(f"no weights file {path}; give one with --model") from error
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} is not a tokenizer weights file of helix_jax: {error}") from error
    params = {}
    for name, array in flat.items():
        *parents, last = [int(part) if part.isdigit() else part for part in name.split(".")]
        node = params
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = jnp.asarray(array, jnp.float32)
    return Model(params, config, hashlib.sha256(blob).digest())
