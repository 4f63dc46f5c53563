"""Collectives of a training step: the bytes of their operands in the compiled program, and the step without them."""

import contextlib
import math
import re
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from jax import lax

from train import sharding

_COLLECTIVE = re.compile(
    r"(all-reduce|all-gather|reduce-scatter|all-to-all|ragged-all-to-all|collective-permute|collective-broadcast)(-start)?$"
)
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"(body|calls|to_apply|condition|branch_computations)=(\{[^}]*\}|%?[\w.\-]+)")
_ALONE = re.compile(r"replica_groups=(\{\{\d+\}|\[\d+,1\]<=)")
_OF_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}")


def operand_bytes(text: str) -> dict[str, int]:
    """Return the bytes of the operands of each kind of collective, for one device, from compiled HLO text.

    A loop counts with its number of iterations if the compiler knows it, and once if not. Groups of a single device do
    not count.
    """
    computations, entry = _computations(text)

    def walk(name):
        total = {}
        types = {result: kind for result, kind, *_ in computations[name]}
        for _, _, opcode, operands, attributes in computations[name]:
            collective = _COLLECTIVE.match(opcode)
            if collective and not _alone(attributes):
                moved = sum(_size(types[operand]) for operand in operands)
                total[collective[1]] = total.get(collective[1], 0) + moved
            turns = re.search(r'known_trip_count":\{"n":"(\d+)"', attributes) if opcode == "while" else None
            for role, called in _CALLED.findall(attributes):
                for inner in re.findall(r"[\w.\-]+", called):
                    times = int(turns[1]) if turns and role == "body" else 1
                    for kind, moved in walk(inner).items():
                        total[kind] = total.get(kind, 0) + times * moved
        return total

    return walk(entry)


def _computations(text: str) -> tuple[dict[str, list], str]:
    """Return {computation: [(result, type, opcode, operands, attributes), ...]} of HLO text, and the entry's name."""
    computations, entry, current = {}, "", []
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith((" ", "HloModule")):
            name = re.findall(r"[\w.\-]+", line)[line.startswith("ENTRY")]
            entry = name if line.startswith("ENTRY") else entry
            current = computations[name] = []
        elif line.startswith(" ") and " = " in line:
            result, _, rest = line.strip().removeprefix("ROOT ").partition(" = ")
            end = _closing(rest) if rest.startswith("(") else rest.index(" ")
            kind, rest = rest[:end], rest[end:].strip()
            opcode, _, _ = rest.partition("(")
            rest = rest[len(opcode) :]
            end = _closing(rest)
            current.append((result.lstrip("%"), kind, opcode, re.findall(r"%([\w.\-]+)", rest[:end]), rest[end:]))
    return computations, entry


def _closing(text: str) -> int:
    """Return the index after the bracket that closes the one that ``text`` starts with."""
    depth = 0
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return index + 1
    raise ValueError(f"HLO with an open bracket: {text[:80]}")


def _size(kind: str) -> int:
    """Return the bytes of an HLO type, such as "f32[8,4]{1,0}" or a tuple of such types."""
    arrays = _ARRAY.findall(kind)
    bits = sum(int(width or 8) * math.prod(int(n) for n in shape.split(",") if n) for _, width, shape in arrays)
    return -(-bits // 8)


def _alone(attributes: str) -> bool:
    """Return whether each group of a collective has a single device, so that nothing is moved."""
    if mesh := _OF_MESH.search(attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        # a part of an axis is written 'axis':(begin)size
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes) == 1
    return _ALONE.search(attributes) is not None


class _NoCollectives:
    """``jax.lax`` with collectives that keep shapes but move nothing: each device continues with its own values."""

    def __getattr__(self, name):
        return getattr(lax, name)

    def psum(self, x, axes):
        return x

    def all_gather(self, x, axes, *, axis=0, tiled):
        assert tiled
        return jax.tree.map(lambda leaf: jnp.concatenate([leaf] * lax.axis_size(axes), axis), x)

    def psum_scatter(self, x, axes, *, scatter_dimension, tiled):
        assert tiled
        size = x.shape[scatter_dimension] // lax.axis_size(axes)
        return lax.dynamic_slice_in_dim(x, lax.axis_index(axes) * size, size, scatter_dimension)


def left_out() -> contextlib.AbstractContextManager[Any]:
    """Return a context manager in which ``sharding.gradients`` is traced without its collectives."""
    return mock.patch.object(sharding, "lax", _NoCollectives())
