"""Weights file <-> parameters: one safetensors file, config and notes in its metadata.

Tensors are stored as float16 under dotted names ("encoder.0.spatial.w"); the metadata entry "config"
is the JSON of the TokenizerConfig. The model hash covers tensors and configuration, not the notes.
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
from helix_jax.files import WeightsError
from helix_jax.tokenizer import model

DEFAULT = Path(__file__).parents[1] / "pretrained" / "tokenizer.safetensors"


@dataclass(frozen=True, eq=False)
class Model:
    """Parameters (nested dict of float32 arrays), their configuration, and the SHA-256 of both (``_digest``)."""

    params: dict
    config: TokenizerConfig
    digest: bytes


def save(path, params, config, notes):
    """Write params (nested dict of arrays) as float16. notes: dict of str for the metadata.

    Raises WeightsError naming a tensor with values that float16 cannot hold.
    """
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    flat = {}
    for keys, leaf in leaves:
        name, values = _name(keys), np.asarray(leaf)
        if not (np.abs(values) <= np.finfo(np.float16).max).all():
            raise WeightsError(f"{name} holds values that float16 cannot, or that are not numbers: train again")
        flat[name] = values.astype(np.float16)
    metadata = {"config": json.dumps(dataclasses.asdict(config)), **notes}
    blob = files.safetensors_bytes(flat, metadata)
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
    _check_tensors(path, params, config)
    return Model(params, config, _digest(flat, config))


def _digest(flat, config):
    """SHA-256 of the net's shape and of its tensors as stored, in the order of their names; not of tiles in space."""
    fields = dataclasses.asdict(config) | {"tile": config.tile[0]}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name in sorted(flat):
        digest.update(f"{name} {flat[name].shape} {flat[name].dtype.str}".encode())
        digest.update(flat[name].tobytes())
    return digest.digest()


def _name(keys):
    """Path of a parameter -> "encoder.0.spatial.w"."""
    return jax.tree_util.keystr(keys, simple=True, separator=".")


def _check_tensors(path, params, config):
    """WeightsError naming a tensor that the configuration wants and the file lacks, or the other way round."""
    wanted = jax.eval_shape(lambda: model.init(jax.random.key(0), config))
    shapes = [
        {_name(keys): leaf.shape for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
        for tree in (params, wanted)
    ]
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        there, needed = (shape.get(name, "no tensor") for shape in shapes)
        if there != needed:
            raise WeightsError(
                f"{path} is not a tokenizer weights file of helix_jax: {name} is {there}, "
                f"its configuration needs {needed}"
            )
