"""Frozen dataclasses, one per station of the pipeline. Every default is written once, here.

Frozen dataclasses are hashable, so each one can be a static argument of ``jax.jit``. ``override`` applies
``path=value`` assignments, and names the fields when a path is wrong. A field that is an option of the command line too
has its help as an ``Option`` in its annotation, and nowhere else.

Nothing here imports NumPy or JAX, since ``helix-jax --help`` reads this module.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated

from helix_jax.errors import HelixError

_Config = typing.TypeVar("_Config")

CODECS = ("auto", "av1", "tokens")
MODES = ("raw", "context", "prior")  # how tokens are coded; the index is the number in the header of a pool
LOOSE, CODED = 0.1, 0.2  # repair packets as a share of the source packets, where none is requested
COMPRESS = True  # whether packed files are compressed where they get smaller
MOST_REPAIRS = 100  # repair packets as a share of the source packets
MOST_READS, MOST_ERRORS = 1000, 0.1  # reads of a strand and errors per base that ``strands.survival`` can plan with


@dataclass(frozen=True)
class Option:
    """Makes a field an option of the command line: ``Annotated[int, Option("...")]``. See ``cli.fields``.

    Attributes:
        help: What the field does; the only description that it has.
        flag: Name of the option, by default that of the field with dashes in place of underscores.
        metavar: What the help shows for the value, by default its type.
        choices: The values that are allowed, by default all of the type.
        parse: What turns the user's text into the value, where that takes more than the type. The default
            is None then, or a text that this function leaves as it is.
    """

    help: str
    flag: str = ""
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    parse: Callable[[str], typing.Any] | None = None


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
        silence: The level that adds nothing to the decoder's input, which a digit that is not sent has. 1.5 is the
            middle of the four levels, and no digit has it. With 1, digit 1 is an exact nothing: a token may say it of
            any digit, and it says the same as if the digit were not sent.
    """

    width: int = 128
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    digits: int = 8
    tile: tuple[int, int, int] = (4, 16, 16)
    silence: float = 1.5


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

    Raises:
        HelixError: A value is out of range; the message names it.
    """

    loss: Annotated[
        float | int,
        Option(
            "Choose the redundancy for me, instead of --redundancy: enough repair strands that the pool is still read "
            "back when this share of its strands (0 to 0.9) is missing and the rest are read --coverage times on "
            "average, with --read-errors errors per base. The probability of failure is at most --failure.",
            flag="--survive",
            metavar="SHARE",
        ),
    ] = 0.0
    coverage: Annotated[
        float | int,
        Option("With --survive: the expected number of reads of each strand, on average (0.1 to 1000)."),
    ] = 10.0
    errors: Annotated[
        float | int,
        Option("With --survive: the expected number of errors per base of a read (0 to 0.1).", flag="--read-errors"),
    ] = 0.04
    failure: Annotated[
        float | int,
        Option("With --survive: the highest acceptable probability that the pool cannot be read back."),
    ] = 1e-6

    def __post_init__(self):
        for name, low, high in (("loss", 0, 0.9), ("coverage", 0.1, MOST_READS), ("errors", 0, MOST_ERRORS)):
            if not low <= getattr(self, name) <= high:
                raise HelixError(f"{name} {getattr(self, name):g}: give {low:g} to {high:g}")
        if not 1e-15 <= self.failure < 1:
            raise HelixError(f"failure {self.failure:g}: a probability, 1e-15 at least, for example 1e-6")


def stem_of(text: str) -> int:
    """Turn the value of --screen into the longest hairpin stem. Raises HelixError for anything but hairpin=STEM."""
    name, _, number = text.partition("=")
    if name != "hairpin" or not number.isdecimal():
        raise HelixError(f"--screen {text}: write hairpin=STEM with a number of bases, for example hairpin=10")
    return int(number)


@dataclass(frozen=True)
class StrandConfig:
    """How packets become strands.

    Without a redundancy, it is LOOSE, or CODED where the video is entropy-coded (``redundancy_of``). The constraints
    hold across the joints between a strand and its primers.

    Raises:
        HelixError: The redundancy is out of range.
    """

    length: Annotated[
        int, Option("Length of every strand in nucleotides, without the primers.", flag="--strand-length")
    ] = 150
    redundancy: Annotated[
        float | int | Survival | None,
        Option(
            "Number of repair strands as a share of the source strands (two more are added for each block). "
            "That many lost strands are repaired exactly. The default is 0.1, and 0.2 for AV1 and for video in the "
            "modes context and prior, where strands that are lost beyond it cost a whole group or segment; with "
            "--writer timing it is the scheme's, if that is more."
        ),
    ] = None
    left_primer: Annotated[
        str, Option("Bases that are written before every strand, such as a PCR primer.", parse=str.upper)
    ] = ""
    right_primer: Annotated[
        str, Option("Bases that are written after every strand, such as a PCR primer.", parse=str.upper)
    ] = ""
    primers_exempt: Annotated[
        bool,
        Option(
            "Leave the primers out of the GC windows, so that the primers themselves may break the GC rule. "
            "Homopolymer runs and forbidden words are still checked across the joints between primer and strand.",
            flag="--exempt-primers",
        ),
    ] = False

    stem: Annotated[
        int | None,
        Option(
            "hairpin=STEM: write no strand with a hairpin stem longer than STEM bases (around a loop of 3 or more). "
            "Packets that exceed it are replaced by further repair packets, so that as many survive the same losses, "
            "and every release reads the pool. Header strands that exceed it are left out without a "
            "substitute: at least half of them are kept, and the header survives the loss of half of these.",
            flag="--screen",
            metavar="hairpin=STEM",
            parse=stem_of,
        ),
    ] = None

    def __post_init__(self):
        share = self.redundancy
        if self.stem is not None and self.stem < 1:
            raise HelixError(f"--screen hairpin={self.stem}: give 1 base or more, for example hairpin=10")
        if share is not None and not isinstance(share, Survival) and not 0 <= share <= MOST_REPAIRS:
            raise HelixError(f"redundancy {share}: a share of the source strands, for example 0.1")

    def redundancy_of(self, mode: str) -> float | int | Survival:
        """Redundancy of a pool whose mode is one of MODES, or "bytes"."""
        if self.redundancy is None:
            return LOOSE if mode in ("raw", "bytes") else CODED
        return self.redundancy


@dataclass(frozen=True)
class PrimerRules:
    """What every primer of a library obeys (``strands.primer_design``).

    A primer is meant as it is ordered, from its 5' to its 3' end.

    Raises:
        HelixError: A limit is out of range; the message names it.
    """

    length: Annotated[int, Option("Bases of every primer (10 to 60).")] = 20
    min_tm: Annotated[
        float | int,
        Option(
            "The lowest melting temperature in degrees Celsius, by nearest neighbours (Allawi and SantaLucia 1997) for "
            "250 nM of primer in 50 mM Na+."
        ),
    ] = 55.0
    max_tm: Annotated[float | int, Option("The highest melting temperature.")] = 60.0
    min_gc: Annotated[float | int, Option("The lowest share of G and C.")] = 0.4
    max_gc: Annotated[float | int, Option("The highest share of G and C.")] = 0.6
    longest_run: Annotated[int, Option("The longest homopolymer run.")] = 3
    end_gc: Annotated[
        int,
        Option(
            "The GC clamp: the last base is G or C, and at most so many of the last five bases are. 0 means no rule."
        ),
    ] = 3
    fold: Annotated[
        float | int,
        Option(
            "The lowest free energy in kcal/mol at 37 degrees Celsius that a primer may reach by folding upon itself."
        ),
    ] = -1.0
    dimer_run: Annotated[
        int,
        Option("The longest run of bases of a primer that can pair with bases of itself or of the other of its pair."),
    ] = 5
    dimer_end: Annotated[
        int, Option("The same for runs that begin or end at the 3' end of a primer, where it would be extended.")
    ] = 3
    cross_run: Annotated[
        int, Option("The longest run of bases of a primer that can pair with bases of a primer of another pair.")
    ] = 8
    cross_end: Annotated[int, Option("The same for runs that begin or end at the 3' end of a primer.")] = 6
    distance: Annotated[
        int,
        Option(
            "The least number of edits between a primer and any other of the library, and the reverse complements of "
            "all. Reads are told apart by their primers where this is more than 0.3 times the length."
        ),
    ] = 7
    near: Annotated[
        float | int,
        Option(
            "With --away-from: edits per base of a primer up to which a piece of a strand is too much like it. Large "
            "pools leave no primer at 0.2."
        ),
    ] = 0.2

    def __post_init__(self):
        if not 10 <= self.length <= 60:
            raise HelixError(f"length {self.length}: primers have 10 to 60 bases")
        for low, high in (("min_tm", "max_tm"), ("min_gc", "max_gc")):
            if getattr(self, low) > getattr(self, high):
                raise HelixError(f"{low} {getattr(self, low):g}: it is above {high} {getattr(self, high):g}")
        if not 1 <= self.distance <= self.length:
            raise HelixError(f"distance {self.distance}: give 1 to the length, {self.length}")
        if not 0 <= self.near <= 0.5:
            raise HelixError(f"near {self.near:g}: give 0 to 0.5 edits per base")
        for name in ("longest_run", "dimer_run", "dimer_end", "cross_run", "cross_end"):
            if getattr(self, name) < 1:
                raise HelixError(f"{name} {getattr(self, name)}: give 1 or more")
        if not 0 <= self.end_gc <= 5:
            raise HelixError(f"end_gc {self.end_gc}: give 1 to 5, or 0 for no rule")


@dataclass(frozen=True)
class MixingConfig:
    """Which parts of the mixing are switched on (``tk_scone.mixing``)."""

    interleave: bool = True
    kronecker: bool = False
    offset: bool = True


@dataclass(frozen=True)
class CodecConfig:
    """Everything that ``codec.encode`` needs besides the weights.

    The best quality within ``rate`` and ``budget`` is taken (``coding.ladder``), and ``effort`` is that of
    ``coding.search``.

    Attributes:
        strands: How packets become strands.
        mixing: Which parts of the mixing are switched on.
    """

    constraints: Annotated[
        str,
        Option(
            "The set of constraints that every strand obeys. "
            "helix: GC of 40-60 % in every window of 20 nt, and no homopolymer run longer than 3. "
            "strict: the same with a GC of 45-55 %. "
            "strand: GC of 45-55 % in the whole strand, and runs of at most 3. "
            "goldman: no base occurs twice in a row. "
            "wide: in every window of any length the GC count is within 5 of half, and runs are at most 3."
        ),
    ] = "helix"
    codec: Annotated[
        str,
        Option(
            "How the picture is stored. av1: as AV1, which shows the better picture almost everywhere, keeps HDR and "
            "the pixel aspect, and has a preview for losses past repair. tokens: as learned tokens, of which the prior "
            "guesses lost ones. auto: whichever shows the better picture of the clip's first seconds in the same "
            "nucleotides, by measuring both; tokens where --mode, --model or --prior is given.",
            choices=CODECS,
        ),
    ] = "auto"
    mode: Annotated[
        str,
        Option(
            "How the tokens are coded. raw: as they are; each lost strand then costs scattered tokens, which are "
            "guessed. context: entropy-coded, which takes about 0.6 of the nucleotides, but a lost strand costs a "
            "whole segment of the video. prior: the same with the predictions of the masked prior, which takes fewer "
            "nucleotides still and is slower. smallest: whichever of the three takes the fewest strands.",
            choices=("smallest", *MODES),
        ),
    ] = "smallest"
    verify: Annotated[
        bool,
        Option(
            "Before the pool is written, decode the coded tokens with the reference decoder and compare them.",
            flag="--verify/--no-verify",
        ),
    ] = True
    quality: Annotated[
        int,
        Option(
            "Quality from 10 to 0. For AV1, a CRF of 63 - 3.5 times the quality. For tokens, 10 writes everything that "
            "the tokenizer produces. Lower values drop the digits that the prior predicts well enough (in mode raw: "
            "the last digits of every token), and 0 drops the most."
        ),
    ] = 10
    effort: Annotated[
        int,
        Option(
            "How long to search for a better picture, from 0 to 3. For AV1 it chooses SVT-AV1's preset (8, 6, 4, 1) "
            "and how many sizes are tried. For tokens, 0 does not search, and the result of more is a better picture "
            "or fewer nucleotides, and never more nucleotides; 3 also stores a small change of the decoder, of up to "
            "768 bytes, if it is worth its nucleotides and fits into the budget; the search takes about 8 GB of memory "
            "at 1080p. Decoding stays as fast."
        ),
    ] = 0
    rate: Annotated[
        float | int,
        Option(
            "Write at most this many nucleotides (time units with --writer timing) per pixel, everything included, at "
            "the best quality that fits. 0 means no limit."
        ),
    ] = 0.0
    sound: Annotated[
        float | int,
        Option(
            "Store the clip's sound as Opus of so many kbit/s (6 to 510), in mono below 24. It has more repair strands "
            "than the picture.",
            metavar="KBIT",
        ),
    ] = 24
    silent: Annotated[bool, Option("Do not store the clip's sound.", flag="--no-sound")] = False
    preview: Annotated[
        float | int,
        Option(
            "With AV1: the share of the nucleotides (0 to 0.5) for a preview, a small stream of the whole clip that "
            "outlives the loss of half of all strands. It is shown wherever the picture is lost past repair. Small "
            "pools give it up to three times the share. 0 means none.",
            metavar="SHARE",
        ),
    ] = 0.04
    budget: Annotated[
        int,
        Option(
            "Write at most this many nucleotides (time units with --writer timing) in all, at the best quality that "
            "fits. 0 means no limit."
        ),
    ] = 0
    note: Annotated[
        bool | None,
        Option(
            "Store a note of the file in the pool: its name, its size and its SHA-256. By default a pool has one where "
            "it takes at most 2 % of the strands (of the limit, with --rate or --budget). `inspect` shows it, `unpack` "
            "checks the bytes against it, and -o FOLDER/ takes the name from it.",
            flag="--note/--no-note",
        ),
    ] = None
    strands: StrandConfig = field(default_factory=StrandConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)


def _frame_rate(text: str) -> Fraction:
    from helix_jax.video import frame_rate  # imports NumPy

    return frame_rate.parse(text)


@dataclass(frozen=True)
class Preparation:
    """What is changed in a clip before it is encoded (``video.open_video``)."""

    fps: Annotated[
        Fraction | None,
        Option(
            "Resample the clip to this constant frame rate, for example 30, 30000/1001 or 29.97 (which means "
            "30000/1001). The frames that are nearest in time are taken: one is repeated where a frame is missing, and "
            "some are left out where there are too many. Clips of variable frame rate need this option (the error "
            "message names the rate); clips of another constant rate are resampled too.",
            metavar="RATE",
            parse=_frame_rate,
        ),
    ] = None
    deinterlace: Annotated[
        bool,
        Option(
            "Turn interlaced frames into whole frames, without changing their number (FFmpeg's bwdif). Progressive "
            "frames stay as they are."
        ),
    ] = False
    tone_map: Annotated[
        bool,
        Option(
            "Convert HDR (PQ, HLG) and wide colours (BT.2020, P3) to BT.709, the colours of ordinary screens. "
            "Other clips stay as they are."
        ),
    ] = False


@dataclass(frozen=True)
class Prices:
    """What writing costs and how fast it is, of which nothing is known unless the user says it.

    Raises:
        HelixError: A price is below 0, or a speed is 0.
    """

    per_nt: Annotated[
        float | int | None,
        Option("The price of a nucleotide, in any currency.", flag="--price-per-nt", metavar="PRICE"),
    ] = None
    per_strand: Annotated[
        float | int | None,
        Option("The price of a strand, besides that of its nucleotides.", flag="--price-per-strand", metavar="PRICE"),
    ] = None
    nt_per_second: Annotated[
        float | int | None,
        Option("Nucleotides that the synthesiser writes in a second, over all strands at once.", metavar="SPEED"),
    ] = None
    units_per_second: Annotated[
        float | int | None,
        Option(
            "With --writer timing: the time units that the synthesiser writes in a second, over all strands at once.",
            metavar="SPEED",
        ),
    ] = None

    def __post_init__(self):
        for name in ("per_nt", "per_strand"):
            price = getattr(self, name)
            if price is not None and not 0 <= price < float("inf"):
                raise HelixError(f"--price-{name.replace('_', '-')} {price:g}: give a price of 0 or more")
        for name in ("nt_per_second", "units_per_second"):
            speed = getattr(self, name)
            if speed is not None and not 0 < speed < float("inf"):
                raise HelixError(f"--{name.replace('_', '-')} {speed:g}: give more than 0")


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
