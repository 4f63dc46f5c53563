"""Weights file of the masked prior <-> parameters: integers in one safetensors file.

A matrix is int8 "NAME.w" and a shift for each output channel, int8 "NAME.shift": the weight is w / 2^shift. A bias is
int32 "NAME.b", in the unit of its channel's sums. "phase" and "earlier" are int32 in units of
2^-STREAM_BITS. "context.p" (uint16), "context.n" (uint8) and "context.weights" (int32) are where the coder of segments
starts, and "mixed" the same in mode `prior`. "importance" (int32[k]) is what the encoder weighs a digit by when it
drops some (``coding.drop``). The metadata entry "config" is the JSON of the PriorConfig, "tokenizer" the digest of the
tokenizer whose tokens it knows. The prior's own digest covers all of these, not the notes.
"""

import dataclasses
import json
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from helix_jax import files
from helix_jax.config import PriorConfig
from helix_jax.files import WeightsError
from helix_jax.prior import net, stored, tables

DEFAULT = stored.DEFAULT
EXACT = 2**24  # float32 holds every whole number up to here


@dataclass(frozen=True, eq=False)
class Prior:
    """Parameters (nested dict of float32 arrays, exact) and their configuration; where the modes `context` and `prior`
    start; importance: int32[k], squared error (8-bit levels, summed over a token's samples) of a digit that is off by
    one; digest of the tokenizer that it belongs to, and its own digest (SHA-256)."""

    params: dict
    config: PriorConfig
    context: tables.Start
    mixed: tables.Start
    importance: np.ndarray
    tokenizer: bytes
    digest: bytes


def save(path, params, config, tokenizer, notes, starts=None, importance=None):
    """Round params as ``net.quantise`` does and write the integers. tokenizer: its digest, 32 bytes. notes: str to str.
    starts: tables.Start of `context` and of `prior`; by default without knowledge. importance: int32[k]; by default all
    digits count alike.

    The same params give the same tensors. Raises WeightsError for a net that is not finite, or whose sums could
    reach 2^24.
    """
    _check_finite(path, params)
    context, mixed = starts or fresh_starts(config.digits)
    weighed = np.ones(config.digits, np.int32) if importance is None else importance
    flat = to_integers(params) | tables.to_arrays(context, mixed) | {"importance": weighed}
    check(path, flat)
    fields = {"config": json.dumps(dataclasses.asdict(config)), "tokenizer": tokenizer.hex()}
    with files.atomic(path) as temporary:
        temporary.write_bytes(files.safetensors_bytes(flat, fields | notes))


def load(path=DEFAULT) -> Prior:
    """Read a weights file. Raises WeightsError when it is missing, damaged, no prior's, or not exact."""
    kept = stored.read(path)
    flat, config = kept.tensors, kept.config
    _check_shapes(path, flat, config)
    check(path, flat)
    params = jax.tree.map(jnp.asarray, kept.params)
    return Prior(params, config, kept.context, kept.mixed, flat["importance"], kept.tokenizer, kept.digest)


def fresh_starts(digits):
    """Starts of both modes without knowledge."""
    return tables.fresh("context", digits), tables.fresh("prior", digits)


def to_integers(params):
    """Parameters (not rounded, or rounded already) -> dict of the file's tensors."""
    flat = {}
    for name, layer in _layers(params):
        shift = np.asarray(net.exponents(jnp.asarray(layer["w"])))
        w = np.floor(np.ldexp(np.asarray(layer["w"], np.float64), shift) + 0.5)
        flat[f"{name}.w"] = np.clip(w, -net.WEIGHT_LIMIT, net.WEIGHT_LIMIT).astype(np.int8)
        flat[f"{name}.shift"] = shift.astype(np.int8)
        flat[f"{name}.b"] = _whole(layer["b"], shift + stored.input_bits(name))
    flat["phase"] = _whole(params["phase"], net.STREAM_BITS)
    flat["earlier"] = _whole(params["earlier"], net.STREAM_BITS)
    return flat


def check(path, flat):
    """WeightsError naming the first channel whose sums are not proven to stay below 2^24 in their unit.

    sum |w| max |a| + |b|, and the half step of the rounding that follows. ``earlier`` adds its largest entry of each
    digit.
    """
    earlier = np.abs(flat["earlier"].astype(np.int64)).reshape(-1, net.LEVELS, flat["earlier"].shape[1]).max(1).sum(0)
    phase = np.abs(flat["phase"].astype(np.int64)).max(axis=0)
    for name in sorted(n[:-2] for n in flat if n.endswith(".w")):
        shift, w = flat[f"{name}.shift"].astype(np.int64), flat[f"{name}.w"].astype(np.int64)
        unit = shift + stored.input_bits(name)
        if (shift < 0).any() or (shift > net.SHIFT_LIMIT).any() or (np.abs(w) > net.WEIGHT_LIMIT).any():
            raise WeightsError(f"{path}: {name} holds a weight or a shift that the net does not have")
        largest = 1 if name == "embed" else net.ACTIVATION_LIMIT
        sums = np.abs(w).sum(axis=0) * largest + np.abs(flat[f"{name}.b"].astype(np.int64)) + (1 << unit)
        for to, bits, more in (("begun", net.STREAM_BITS, earlier), ("embed", net.STREAM_BITS, phase)):
            if name == to:  # added in the finer of the two units
                finer = np.maximum(unit, bits)
                sums = (sums << finer - unit) + (more << finer - bits)
        if (sums >= EXACT).any():
            channel = int(np.argmax(sums >= EXACT))
            raise WeightsError(
                f"{path}: sums of {name}, channel {channel}, may reach {sums[channel]}, and from 2^24 on float32 is "
                "not exact: train with a smaller width"
            )


def _layers(params):
    for name in ("embed", "alone", "begun", "after"):
        yield name, params[name]
    for number in sorted(params["blocks"]):
        for part in ("spatial", "temporal"):
            yield f"blocks.{number}.{part}", params["blocks"][number][part]


def _whole(values, bits):
    return np.floor(np.ldexp(np.asarray(values, np.float64), bits) + 0.5).astype(np.int32)


def _check_finite(path, params):
    for keys, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if not np.isfinite(np.asarray(leaf)).all():
            name = jax.tree_util.keystr(keys, simple=True, separator=".")
            raise WeightsError(f"{path}: {name} holds values that are no numbers: the run diverged")


def _check_shapes(path, flat, config):
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), config))
    wanted = {name: (params[name].shape, "int32") for name in ("phase", "earlier")}
    for name, layer in _layers(params):
        wanted[f"{name}.w"] = layer["w"].shape, "int8"
        wanted[f"{name}.shift"] = layer["w"].shape[-1:], "int8"
        wanted[f"{name}.b"] = layer["b"].shape, "int32"
    starts = tables.to_arrays(*fresh_starts(config.digits)) | {"importance": np.ones(config.digits, np.int32)}
    wanted |= {name: (array.shape, array.dtype.name) for name, array in starts.items()}
    present = {name: (array.shape, array.dtype.name) for name, array in flat.items()}
    for name in sorted(present.keys() | wanted.keys()):
        there, needed = (shapes.get(name, "no tensor") for shapes in (present, wanted))
        if there != needed:
            raise WeightsError(f"{path} is not a weights file of helix_jax's prior: {name} is {there}, not {needed}")
