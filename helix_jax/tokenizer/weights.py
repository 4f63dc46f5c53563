"""Weights file <-> parameters: one safetensors file with the configuration and notes in its metadata.

Tensors are stored as float16 under dotted names ("encoder.0.spatial.w"), and the metadata entry "config" is the JSON of
the TokenizerConfig. The hash of the model covers tensors and configuration, not the notes.
"""

import dataclasses
import hashlib
import json
import os
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
    """A tokenizer.

    Attributes:
        params: Parameters of the net, a nested dict of float32 arrays.
        config: Configuration of the net.
        digest: SHA-256 of both (``_digest``).
    """

    params: dict
    config: TokenizerConfig
    digest: bytes


def save(path: str | os.PathLike[str], params: dict, config: TokenizerConfig, notes: dict[str, str]) -> None:
    """Write a weights file, whose tensors are float16.

    Args:
        path: The file.
        params: Parameters of the net, a nested dict of arrays.
        config: Configuration of the net.
        notes: More entries of the metadata.

    Raises:
        WeightsError: A tensor has values that float16 cannot hold; the message names it.
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


def load(path: str | os.PathLike[str] | None = None) -> Model:
    """Read a weights file, by default the shipped one.

    Raises WeightsError if it is missing, or is not a tokenizer's.
    """
    path = DEFAULT if path is None else path
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


def _digest(flat: dict[str, np.ndarray], config: TokenizerConfig) -> bytes:
    """SHA-256 of the net's shape and of its tensors as stored, in the order of their names.

    The size of tiles in space is left out, and so is a silence in the middle of the levels, as all files had before it
    was an option.
    """
    fields = dataclasses.asdict(config) | {"tile": config.tile[0]}
    if config.silence == TokenizerConfig.silence:
        del fields["silence"]
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name in sorted(flat):
        digest.update(f"{name} {flat[name].shape} {flat[name].dtype.str}".encode())
        digest.update(flat[name].tobytes())
    return digest.digest()


def _name(keys):
    """Path of a parameter -> "encoder.0.spatial.w"."""
    return jax.tree_util.keystr(keys, simple=True, separator=".")


def _check_tensors(path: str | os.PathLike[str], params: dict, config: TokenizerConfig) -> None:
    """Raise WeightsError unless the file has exactly the tensors that its configuration needs."""
    wanted = jax.eval_shape(lambda: model.init(jax.random.key(0), config))
    shapes = [
        {_name(keys): leaf.shape for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
        for tree in (params, wanted)
    ]
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        present, needed = (shape.get(name, "no tensor") for shape in shapes)
        if present != needed:
            raise WeightsError(
                f"{path} is not a tokenizer weights file of helix_jax: {name} is {present}, "
                f"its configuration needs {needed}"
            )
