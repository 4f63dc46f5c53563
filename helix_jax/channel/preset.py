"""Channels of one's own: a preset by its name or from a file, channels as JSON or TOML, and other rates for a channel.

A file holds the fields of ``model.Channel``, ``Errors`` and ``Quality`` by their names, and the line that says so:

    {"format": "helix_jax channel 1", "name": "ours", "source": "our run of May",
     "sequencing": {"substitution": 0.01, "deletion": 0.02, "position": [1, 1, 2]}, "skew": 0.3}

``name`` and ``source`` must be there, and of ``quality`` its three distributions if it is; every other field that is
left out has its default. In TOML, ``sequencing``, ``synthesis`` and ``quality`` are tables. What ``fit`` returns can be
written and is read back equal.
"""

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helix_jax import files
from helix_jax.channel import stretches
from helix_jax.channel.model import PRESETS, Channel, ChannelError, Errors, Quality

FORMAT = "helix_jax channel 1"
RATES = ("substitution", "insertion", "deletion")
MOST = 0.5  # the highest rate of each kind of error that ``model.Errors`` accepts
_PARTS = {"synthesis": Errors, "sequencing": Errors, "quality": Quality}
_TEXTS = ("name", "source")
_LISTS = {"substitutions": 2, "position": 1, "right": 1, "wrong": 1, "beside": 1}  # how deep their numbers lie in lists


# ---- files -------------------------------------------------------------------------------------------------------


def named(name: str) -> Channel:
    """Return the preset of that name, or else the channel in the file of that name.

    Raises ChannelError where there is neither, and for a file that holds no channel.
    """
    if name in PRESETS:
        return PRESETS[name]
    if not Path(name).is_file():
        raise ChannelError(f"preset {name!r}: neither a file nor one of the presets {', '.join(PRESETS)}")
    return read(name)


def write(path: files.PathLike, channel: Channel) -> None:
    """Write a channel to a JSON file, completely or not at all."""
    with files.atomic(path) as temporary:
        temporary.write_text(json.dumps({"format": FORMAT} | dataclasses.asdict(channel), indent=1) + "\n")


def read(path: files.PathLike) -> Channel:
    """Read a channel from a TOML file if its name ends in ``.toml``, else from a JSON file.

    Raises ChannelError for a file that holds no channel; the message names the field.
    """
    text = Path(path).read_text(errors="replace")
    try:
        fields = tomllib.loads(text) if Path(path).suffix.lower() == ".toml" else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ChannelError(f"{path}: neither JSON nor TOML (.toml): {error}; see docs/recovery.md") from error
    if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
        raise ChannelError(f'{path}: no channel; its field "format" has to be "{FORMAT}"')
    return _built(Channel, fields, str(path))


def _built(kind: Any, fields: Any, where: str) -> Any:
    """Build a ``Channel``, ``Errors`` or ``Quality`` from what a file says of it."""
    if not isinstance(fields, Mapping):
        raise ChannelError(f"{where}: {fields!r}; give its fields by their names")
    known = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(fields.keys() - known)
    if unknown:
        raise ChannelError(f"{where}: no such field: {', '.join(unknown)}; there are {', '.join(known)}")
    needed = (name for name, field in known.items() if field.default is field.default_factory is dataclasses.MISSING)
    missing = sorted(set(needed) - fields.keys())
    if missing:
        raise ChannelError(f"{where}: without {', '.join(missing)}; add what is missing")
    values = {}
    for name, value in fields.items():
        if name in _PARTS:
            values[name] = _built(_PARTS[name], value, f"{where}: {name}")
        elif name in _TEXTS:
            values[name] = str(value)
        else:
            values[name] = _numbers(value, _LISTS.get(name, 0), f"{where}: {name}")
    try:
        return kind(**values)
    except (ChannelError, OverflowError) as error:
        raise ChannelError(f"{where}: {error}") from error


def _numbers(value: Any, depth: int, where: str) -> Any:
    """Return a number, or tuples of numbers where ``depth`` says how deep they lie in lists."""
    if depth:
        if not isinstance(value, list):
            raise ChannelError(f"{where}: {value!r}; give a list of {'lists of ' * (depth - 1)}numbers")
        return tuple(_numbers(part, depth - 1, where) for part in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ChannelError(f"{where}: {value!r}; give a number")
    return value


# ---- rates -------------------------------------------------------------------------------------------------------


def with_rates(
    channel: Channel,
    *,
    substitution: float | int | None = None,
    insertion: float | int | None = None,
    deletion: float | int | None = None,
) -> Channel:
    """Return a channel with other error rates, in all else the same.

    The rates of synthesis and sequencing keep their ratio; what a channel has not at all becomes an error of
    sequencing. The profile along the strand, the shares of the substitutions, runs and the spread of reads stay. A bad
    stretch may hold errors in half of its bases at most, so at high rates fewer of the errors lie in bad stretches.

    Args:
        channel: The channel.
        substitution: Substituted bases per base of the strand, in 0..0.5; None keeps the rate.
        insertion: Inserted bases, likewise.
        deletion: Deleted bases, likewise.

    Returns:
        The channel.

    Raises:
        ChannelError: For a rate out of range.
    """
    wanted = {"substitution": substitution, "insertion": insertion, "deletion": deletion}
    wanted = {name: rate for name, rate in wanted.items() if rate is not None}
    for name, rate in wanted.items():
        if not 0 <= rate <= MOST:
            raise ChannelError(f"{name}: {rate}; it lies in 0..{MOST:g} errors per base")
    writing, reading = {}, {}
    for name, rate in wanted.items():
        first, second = getattr(channel.synthesis, name), getattr(channel.sequencing, name)
        share = first / (first + second) if first else 0.0
        writing[name], reading[name] = rate * share, rate * (1 - share)
    return dataclasses.replace(
        channel,
        synthesis=_at(channel.synthesis, writing),
        sequencing=_at(channel.sequencing, reading),
        source=channel.source + "".join(f"; {name} rate set to {rate:g}" for name, rate in wanted.items()),
    )


def _at(errors: Errors, rates: Mapping[str, float | int]) -> Errors:
    """Return errors at other rates, with as many of them in bad stretches as may be there."""
    changes: dict[str, Any] = dict(rates)
    if errors.bad_share:
        most = max(rates.get(name, getattr(errors, name)) for name in RATES)
        stretch = stretches.of(errors.bad_share, errors.bad_errors, errors.bad_length, errors.spread, most)
        changes |= dataclasses.asdict(stretch)
    return dataclasses.replace(errors, **changes)
