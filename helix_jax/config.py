"""Frozen dataclasses, one per station of the pipeline. Every default is written once, here.

Frozen dataclasses are hashable, so each one can be a static argument of ``jax.jit``. ``override`` applies
``path=value`` assignments, and names the fields when a path is wrong.
"""

import dataclasses
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field

from helix_jax.errors import HelixError

_Config = typing.TypeVar("_Config")

LOOSE, CODED = 0.1, 0.2  # repair packets as a share of the source packets, where none is requested
MOST_READS, MOST_ERRORS = 1000, 0.1  # reads of a strand and errors per base that ``strands.survival`` can plan with


@dataclass(frozen=True)
class TokenizerConfig:
    """Shape of the video tokenizer: Haar patches -> causal conv net -> FSQ digits.

    Attributes:
        width: Channels of the latent grid.
        encoder_blocks: Residual blocks (3x3 spatial conv + causal 3-tap temporal mix) of the encoder.
        decoder_blocks: Residual blocks of the decoder.
        digits: Base-4 digits per token (k). One token covers 4 x 8 x 8 pixels, so raw tokens cost
            2 * digits / 256 bits per pixel.
        tile: (t, h, w) in latents. The first is the number of frames that are coded as one group, which is part of the
            model. The others are the core of a tile in space, which only matters for speed (``tokenizer.tiles``).
    """

    width: int = 128
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    digits: int = 8
    tile: tuple[int, int, int] = (4, 16, 16)


@dataclass(frozen=True)
class PriorConfig:
    """Shape of the masked prior.

    Attributes:
        width: Channels of the latent grid.
        blocks: Residual blocks (3x3 in space, 3 taps in time).
        hidden: Channels of the causal head.
        digits: Base-4 digits per token, as many as the tokenizer has.
        frames: Latent frames that the net sees at once, a multiple of the tokenizer's group.
    """

    width: int = 128
    blocks: int = 4
    hidden: int = 128
    digits: int = 8
    frames: int = 8


@dataclass(frozen=True)
class Survival:
    """The losses that a pool must survive, from which ``strands.survival`` computes the repair packets.

    Attributes:
        loss: Share of the strands that are lost outright.
        coverage: Mean number of reads of a strand that is left.
        errors: Errors per base of a read.
        failure: Highest accepted probability that the content cannot be recovered.

    Raises:
        HelixError: A value is out of range; the message names it.
    """

    loss: float | int = 0.0
    coverage: float | int = 10.0
    errors: float | int = 0.04
    failure: float | int = 1e-6

    def __post_init__(self):
        for name, low, high in (("loss", 0, 0.9), ("coverage", 0.1, MOST_READS), ("errors", 0, MOST_ERRORS)):
            if not low <= getattr(self, name) <= high:
                raise HelixError(f"{name} {getattr(self, name):g}: give {low:g} to {high:g}")
        if not 1e-15 <= self.failure < 1:
            raise HelixError(f"failure {self.failure:g}: a probability, 1e-15 at least, for example 1e-6")


@dataclass(frozen=True)
class StrandConfig:
    """How packets become strands.

    Attributes:
        length: Nucleotides per strand (L), without primers.
        redundancy: Repair packets as a share of the source packets (0: none), or the losses that the pool must survive.
            None stands for LOOSE, or for CODED where the video is entropy-coded: there a packet that the outer code
            cannot repair costs a segment, not a few tokens.
        left_primer: Bases that every strand begins with. The constraints hold across the joint.
        right_primer: Bases that every strand ends with. The constraints hold across the joint.
        primers_exempt: Whether GC windows count only the bases between the primers.
    """

    length: int = 150
    redundancy: float | int | Survival | None = None
    left_primer: str = ""
    right_primer: str = ""
    primers_exempt: bool = False

    def redundancy_of(self, mode: str) -> float | int | Survival:
        """Redundancy of a pool whose mode is one of ``coding.modes.MODES``, or "bytes"."""
        if self.redundancy is None:
            return LOOSE if mode in ("raw", "bytes") else CODED
        return self.redundancy


@dataclass(frozen=True)
class MixingConfig:
    """Which parts of the mixing are switched on (``tk_scone.mixing``)."""

    interleave: bool = True
    kronecker: bool = False
    offset: bool = True


@dataclass(frozen=True)
class CodecConfig:
    """Everything that ``codec.encode`` needs besides the weights.

    Attributes:
        constraints: Name of a constraint set (``tk_scone.constraints.NAMED``).
        mode: Coding of the tokens: one of ``coding.modes.MODES``, or "smallest" for the one that takes the fewest
            bytes.
        verify: Whether to prove, before coded tokens are written, that the NumPy reference can read them.
        quality: From 10, where everything that the tokenizer says is written, to 0, the least that ``coding.ladder``
            has.
        effort: How long to search for better tokens (``coding.search``), from 0 (no search) to 3.
        rate: Most nucleotides per pixel (0: any number). The best quality within rate and budget is taken.
        budget: Most nucleotides in all (0: any number).
        strands: How packets become strands.
        mixing: Which parts of the mixing are switched on.
    """

    constraints: str = "helix"
    mode: str = "smallest"
    verify: bool = True
    quality: int = 10
    effort: int = 0
    rate: float | int = 0.0
    budget: int = 0
    strands: StrandConfig = field(default_factory=StrandConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)


def override(config: _Config, assignments: Iterable[str]) -> _Config:
    """Apply ``path=value`` strings to a configuration, and return the new one.

    Args:
        config: A frozen dataclass, possibly nested.
        assignments: Strings such as ``strands.length=200``. The parts of a tuple are separated by commas.

    Raises:
        HelixError: A field is unknown (the message names the known ones), or a value is of the wrong type. It is a
            ValueError too.
    """
    pairs = []
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise HelixError(f"--set {assignment}: write it as path=value, for {', '.join(_names(config))}")
        pairs.append((path.split("."), path, text))
    return _replaced(config, pairs)


def _names(config: typing.Any) -> list[str]:
    return [field.name for field in dataclasses.fields(config)]


def _replaced(config: typing.Any, pairs: list[tuple[list[str], str, str]]) -> typing.Any:
    """Apply (parts of a path, whole path, text) all at once, since some values are only valid together."""
    changes, within = {}, {}
    for (name, *rest), path, text in pairs:
        if name not in _names(config):
            raise HelixError(
                f"--set {path}: no field {name!r}; {type(config).__name__} has {', '.join(_names(config))}"
            )
        old = getattr(config, name)
        if rest:
            if not dataclasses.is_dataclass(old):
                raise HelixError(f"--set {path}: {name} is a single value, it has no field {rest[0]!r}")
            within.setdefault(name, []).append((rest, path, text))
        elif dataclasses.is_dataclass(old):
            raise HelixError(f"--set {path}: not a single value; set one of its fields, {', '.join(_names(old))}")
        else:
            changes[name] = _parse(text, typing.get_type_hints(type(config))[name], path)
    changes |= {name: _replaced(getattr(config, name), some) for name, some in within.items()}
    return dataclasses.replace(config, **changes)


def _parse(text: str, kind: typing.Any, path: str) -> typing.Any:
    if isinstance(kind, types.UnionType):
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is tuple:
        items, words = typing.get_args(kind), [word for word in text.split(",") if word]
        if dataclasses.is_dataclass(items[0]):
            raise HelixError(f"--set {path}: a list of {items[0].__name__} is written in a configuration file")
        count = len(words) if items[-1] is Ellipsis else len(items)
        if len(words) != count:
            raise HelixError(f"--set {path}={text}: {count} values separated by commas are needed")
        return tuple(_parse(word, items[0], path) for word in words)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError) as error:
        raise HelixError(f"--set {path}={text}: not a {kind.__name__}") from error
