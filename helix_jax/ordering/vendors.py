"""Vendors: what they take, and the columns of their tables, from ``vendors.toml`` beside this file or a user's own."""

import dataclasses
import datetime
import importlib.resources
import re
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from helix_jax.errors import HelixError

FIELDS = ("name", "pool", "sequence", "comment", "copies")
SUFFIXES = (".csv", ".xlsx")


class VendorError(HelixError):
    """A vendor that is unknown, or a table of vendors that makes no sense."""


@dataclass(frozen=True)
class Vendor:
    """A vendor's product; ``vendors.toml`` explains its fields.

    Raises VendorError for a value that makes no sense.

    Attributes:
        key: The name by which it is chosen.
        title: The product.
        columns: (title, one of FIELDS) of each column.
        files: Suffixes of the files that the vendor takes, of SUFFIXES.
        comments: What begins a comment line, "#"; empty where there are none.
        names: Characters of a strand's name, as inside the brackets of a regular expression.
        longest_name: Most characters of a strand's name.
        length: Least and most bases of a strand, primers included; None for no limit, as in the following.
        strands: Least and most strands of an order.
        strands_at: For what amount of each strand they are; empty for any. There is only a warning then.
        gc: Least and most share of G and C in a strand.
        run: Longest homopolymer run.
        source: Address of the page with the limits.
        read: When they were read there.
        unverified: What could not be checked.
    """

    key: str
    title: str
    columns: tuple[tuple[str, str], ...]
    files: tuple[str, ...] = SUFFIXES
    comments: str = ""
    names: str = "A-Za-z0-9_-"
    longest_name: int = 64
    length: tuple[int, int] | None = None
    strands: tuple[int, int] | None = None
    strands_at: str = ""
    gc: tuple[float | int, float | int] | None = None
    run: int | None = None
    source: str = ""
    read: datetime.date | None = None
    unverified: str = ""

    def __post_init__(self):
        filled = [field for _, field in self.columns]
        if set(filled) - set(FIELDS) or "sequence" not in filled or len(set(filled)) < len(filled):
            raise VendorError(
                f"vendor {self.key}: columns of {', '.join(filled) or 'nothing'}; give each of {', '.join(FIELDS)} at "
                "most once, and sequence"
            )
        if not self.files or set(self.files) - set(SUFFIXES):
            raise VendorError(f"vendor {self.key}: files {', '.join(self.files)}; give some of {', '.join(SUFFIXES)}")
        if self.comments not in ("", "#"):  # others would not be read back
            raise VendorError(f'vendor {self.key}: comments {self.comments!r}; give "#", or leave them out')
        if self.run is not None and self.run < 1:
            raise VendorError(f"vendor {self.key}: run {self.run}; give 1 base or more")
        if self.longest_name < 12:
            raise VendorError(f"vendor {self.key}: names of {self.longest_name} characters; give 12 or more")
        for name in ("length", "strands", "gc"):
            limits = getattr(self, name)
            if limits and not (len(limits) == 2 and 0 <= limits[0] <= limits[1]):
                raise VendorError(f"vendor {self.key}: {name} {list(limits)}; give the least and the greatest value")
        try:
            legal = re.fullmatch(f"[{self.names}]+", "_0123456789")
        except re.error as error:
            raise VendorError(f"vendor {self.key}: names {self.names!r}: {error}") from error
        if not legal:
            raise VendorError(f"vendor {self.key}: names {self.names!r} need digits and _, as in pool_17")

    @property
    def limited(self) -> bool:
        """Whether there are limits."""
        return any(limit is not None for limit in (self.length, self.strands, self.gc, self.run))

    @property
    def limits_read(self) -> str:
        """When and where the limits were read."""
        return f"as read on {self.read or 'an unknown day'}, {self.source or 'no source'}"

    def many(self, total: int) -> str:
        """Return which limit on the number of strands an order breaks, in words; empty where it breaks none."""
        if not self.strands or self.strands[0] <= total <= self.strands[1]:
            return ""
        low, high = self.strands
        at = f" at {self.strands_at}" if self.strands_at else ""
        return f"in all, where {low:,} to {high:,} are taken{at}"

    def broken(self, strands: UInt8[np.ndarray, "n L"]) -> dict[str, int]:
        """Return how many strands, with their primers, break which limit; {} if none does."""
        found, total = {}, strands.shape[1]
        if self.length and not self.length[0] <= total <= self.length[1]:
            found[f"of {total} nt, where {self.length[0]} to {self.length[1]} are taken"] = len(strands)
        if self.gc:
            share = ((strands == 1) | (strands == 2)).mean(axis=1)
            outside = (share < self.gc[0]) | (share > self.gc[1])
            found[f"with a GC share outside {self.gc[0]:.0%} to {self.gc[1]:.0%}"] = int(outside.sum())
        if self.run is not None and total > self.run:
            same = np.lib.stride_tricks.sliding_window_view(strands, self.run + 1, axis=1)
            longer = (same == same[..., :1]).all(axis=2).any(axis=1)
            found[f"with a homopolymer run longer than {self.run}"] = int(longer.sum())
        return {reason: number for reason, number in found.items() if number}


def load(own: Path | None = None) -> dict[str, Vendor]:
    """Return the vendors by their key: those of the package, and those of a user's table, which come first.

    Raises VendorError, or OSError for a file that cannot be opened.
    """
    shipped = importlib.resources.files("helix_jax.ordering").joinpath("vendors.toml").read_text("utf-8")
    tables = _parsed(shipped, "vendors.toml")
    if own is not None:
        try:
            tables |= _parsed(own.read_text("utf-8"), str(own))
        except UnicodeDecodeError as error:
            raise VendorError(f"{own} is no text in UTF-8: give a table like the package's vendors.toml") from error
    return {key: _vendor(key, values) for key, values in tables.items()}


def named(key: str, own: Path | None = None) -> Vendor:
    """Return a vendor. Raises VendorError, which lists the known ones."""
    known = load(own)
    if key not in known:
        raise VendorError(f"no vendor {key!r}; there are {', '.join(known)}; --vendors FILE.toml adds others")
    return known[key]


def _parsed(text: str, name: str) -> dict[str, Mapping[str, Any]]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise VendorError(f"{name} is no TOML: {error}") from error
    for key, table in tables.items():
        if not isinstance(table, dict):
            raise VendorError(f"{name}: {key} stands outside a table; write it below a line [NAME-OF-VENDOR]")
    return tables


def _vendor(key: str, values: Mapping[str, Any]) -> Vendor:
    hints = typing.get_type_hints(Vendor)
    known = [field.name for field in dataclasses.fields(Vendor) if field.name != "key"]
    built = {}
    for name, value in values.items():
        if name not in known:
            raise VendorError(f"vendor {key}: no field {name!r}; there are {', '.join(known)}")
        built[name] = _tuples(value)
        if not _fits(built[name], hints[name]):
            raise VendorError(
                f"vendor {key}: {name} = {value!r} is of the wrong kind; compare the package's vendors.toml"
            )
    missing = [name for name in ("title", "columns") if name not in built]
    if missing:
        raise VendorError(f"vendor {key}: {' and '.join(missing)} is missing")
    return Vendor(key, **built)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of a type: a plain one, a union, or a tuple of such."""
    members = typing.get_args(hint)
    if typing.get_origin(hint) is not tuple:
        return any(_fits(value, member) for member in members) if members else type(value) is hint
    if not isinstance(value, tuple):
        return False
    if members[-1] is Ellipsis:
        return all(_fits(item, members[0]) for item in value)
    return len(value) == len(members) and all(map(_fits, value, members))
