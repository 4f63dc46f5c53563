"""Frozen dataclasses, one per station of the pipeline; every default is written once, here.

Frozen means hashable, so each one can be a static argument of ``jax.jit``. ``override`` applies
``path=value`` assignments and names the fields when a path is wrong.
"""

import dataclasses
import types
import typing
from dataclasses import dataclass, field

from helix_jax.errors import HelixError

LOOSE, CODED = 0.1, 0.2  # repair packets as a share of the source packets, where none is asked for
MOST_READS, MOST_ERRORS = 1000, 0.1  # of a strand and per base, that ``strands.survival`` can plan with


@dataclass(frozen=True)
class TokenizerConfig:
    """Shape of the video tokenizer: Haar patches -> causal conv net -> FSQ digits.

    width: channels of the latent grid.
    encoder_blocks, decoder_blocks: residual blocks (3x3 spatial conv + causal 3-tap temporal mix).
    digits: base-4 digits per token (k). One token covers 4 x 8 x 8 pixels, so raw tokens cost
        2 * digits / 256 bits per pixel.
    tile: (t, h, w) in latents: frames coded as one group, part of the model, and the core of a tile in space,
        which only matters for speed (``tokenizer.tiles``).
    """

    width: int = 128
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    digits: int = 8
    tile: tuple[int, int, int] = (4, 16, 16)


@dataclass(frozen=True)
class PriorConfig:
    """Shape of the masked prior.

    width: channels of the latent grid. blocks: residual blocks (3x3 in space, 3 taps in time). hidden: channels of the
    causal head. digits: base-4 digits of a token, as the tokenizer has. frames: latent frames seen at once, a multiple
    of the tokenizer's group.
    """

    width: int = 128
    blocks: int = 4
    hidden: int = 128
    digits: int = 8
    frames: int = 8


@dataclass(frozen=True)
class Survival:
    """What a pool must outlive; ``strands.survival`` works out the repair packets.

    loss: share of strands lost outright. coverage: mean reads of a strand that is left. errors: per base of a read.
    failure: probability that it does not come back, at most.
    Raises HelixError, naming the value, for what cannot be.
    """

    loss: float = 0.0
    coverage: float = 10.0
    errors: float = 0.04
    failure: float = 1e-6

    def __post_init__(self):
        for name, low, high in (("loss", 0, 0.9), ("coverage", 0.1, MOST_READS), ("errors", 0, MOST_ERRORS)):
            if not low <= getattr(self, name) <= high:
                raise HelixError(f"{name} {getattr(self, name):g}: give {low:g} to {high:g}")
        if not 1e-15 <= self.failure < 1:
            raise HelixError(f"failure {self.failure:g}: a probability, 1e-15 at least, for example 1e-6")


@dataclass(frozen=True)
class StrandConfig:
    """How packets become strands.

    length: nucleotides per strand (L), primers not counted.
    redundancy: repair packets as a share of the source packets (0 = none), or what the pool must outlive. None: LOOSE,
        or CODED for coded video, where a packet past the outer code's reach costs a segment, not a few tokens.
    left_primer, right_primer: fixed bases written on every strand; the constraints hold across
        the joints.
    primers_exempt: GC windows count the bases of the strand alone.
    """

    length: int = 150
    redundancy: float | Survival | None = None
    left_primer: str = ""
    right_primer: str = ""
    primers_exempt: bool = False

    def redundancy_of(self, mode):
        """Redundancy of a pool in one of ``coding.modes.MODES``, or of "bytes"."""
        if self.redundancy is None:
            return LOOSE if mode in ("raw", "bytes") else CODED
        return self.redundancy


@dataclass(frozen=True)
class MixingConfig:
    """Which parts of the mixing are on (``tk_scone.mixing``)."""

    interleave: bool = True
    kronecker: bool = False
    offset: bool = True


@dataclass(frozen=True)
class CodecConfig:
    """Everything ``codec.encode`` needs besides the weights.

    constraints: name of a constraint set (``tk_scone.constraints.NAMED``). mode: coding of tokens, one of
    ``coding.modes.MODES``, or "smallest", whichever takes the fewest bytes. verify: whether it is proved that the NumPy
    reference reads the coded tokens before they are written. quality: 10 writes all that the tokenizer says, 0 the
    least that ``coding.ladder`` knows. effort: how long better tokens are searched for, 0 (not) to 3
    (``coding.search``). rate, budget: most nucleotides per pixel and in all, 0: any number; the best quality within
    them is taken then.
    """

    constraints: str = "helix"
    mode: str = "smallest"
    verify: bool = True
    quality: int = 10
    effort: int = 0
    rate: float = 0.0
    budget: int = 0
    strands: StrandConfig = field(default_factory=StrandConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)


def override(config, assignments):
    """Return ``config`` with ``path=value`` strings applied.

    config: a frozen dataclass, possibly nested. assignments: strings such as ``strands.length=200``; the parts of a
    tuple are separated by commas.
    Raises ValueError for an unknown field (naming the known ones) or a value of the wrong type.
    """
    pairs = []
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise HelixError(f"--set {assignment}: write it as path=value, for {', '.join(_names(config))}")
        pairs.append((path.split("."), path, text))
    return _replaced(config, pairs)


def _names(config):
    return [field.name for field in dataclasses.fields(config)]


def _replaced(config, pairs):
    """With [(parts of a path, whole path, text)]; all at once, since fields may only fit together."""
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


def _parse(text, kind: typing.Any, path):
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
