"""Options that several commands share, each written once, and the functions that turn their values into arguments."""

import enum
import typing
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from helix_jax import files
from helix_jax.cli.console import warn
from helix_jax.errors import HelixError

if typing.TYPE_CHECKING:  # the commands import these modules when they run, so that --help comes at once
    import helix_jax.config
    import helix_jax.nets
    import helix_jax.video


class Writer(enum.StrEnum):
    """How data becomes DNA: as letters under constraints (FASTA), or as letters and durations (a schedule)."""

    BASES = "bases"
    TIMING = "timing"


# Parameters that only one of the two writers takes; ``_only_of`` refuses them for the other.
BASES_ONLY = (
    "constraints", "strand_length", "redundancy", "survive", "coverage", "read_errors", "failure", "mode", "quality",
    "effort", "rate", "budget", "verify", "prior", "key", "forbid", "left_primer", "right_primer", "exempt_primers",
    "reads", "plot",
)  # fmt: skip
TIMING_ONLY = ("scheme",)

WriterKind = Annotated[
    Writer,
    typer.Option(
        "--writer",
        help="How the data is written. bases: strands of letters that obey constraints, in a FASTA file. "
        "timing: the letters and the durations of enzymatic synthesis, in a schedule file; its reads come back as "
        "FASTA.",
    ),
]
PoolOut = Annotated[
    Path,
    typer.Option("-o", "--output", help="The FASTA file to write, or the schedule file with --writer timing."),
]
PoolIn = Annotated[
    Path,
    typer.Argument(
        metavar="POOL",
        help="FASTA file of strands without read errors, plain or gzip, in any order. - stands for standard input.",
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the random numbers: the same seed gives the same reads.")]


Set = Annotated[
    str,
    typer.Option(
        "--constraints",
        help="The set of constraints that every strand obeys. "
        "helix: GC of 40-60 % in every window of 20 nt, and no homopolymer run longer than 3. "
        "strict: the same with a GC of 45-55 %. "
        "strand: GC of 45-55 % in the whole strand, and runs of at most 3. "
        "goldman: no base occurs twice in a row. "
        "wide: in every window of any length the GC count is within 5 of half, and runs are at most 3.",
    ),
]
Length = Annotated[
    int, typer.Option("--strand-length", help="Length of every strand in nucleotides, without the primers.")
]
Redundancy = Annotated[
    float | None,
    typer.Option(
        help="Number of repair strands as a share of the source strands (two more are added for each block). "
        "That many lost strands are repaired exactly. The default is 0.1, and 0.2 for video in the modes context and "
        "prior, where each strand that is lost beyond it costs a whole segment.",
        show_default=False,
    ),
]
Survive = Annotated[
    float | None,
    typer.Option(
        "--survive",
        metavar="SHARE",
        help="Choose the redundancy for me, instead of --redundancy: enough repair strands that the pool is still read "
        "back when this share of its strands (0 to 0.9) is missing and the rest are read --coverage times on average, "
        "with --read-errors errors per base. The probability of failure is at most --failure.",
    ),
]
Coverage = Annotated[
    float,
    typer.Option(help="With --survive: the expected number of reads of each strand, on average (0.1 to 1000)."),
]
ReadErrors = Annotated[
    float, typer.Option(help="With --survive: the expected number of errors per base of a read (0 to 0.1).")
]
Failure = Annotated[
    float,
    typer.Option(help="With --survive: the highest acceptable probability that the pool cannot be read back."),
]
Motif = Annotated[
    list[str],
    typer.Option(
        "--forbid",
        help="A word over A, C, G, T that no strand may contain, nor its reverse complement. Repeat the option to "
        "forbid several words.",
    ),
]
LeftPrimer = Annotated[
    str, typer.Option("--left-primer", help="Bases that are written before every strand, such as a PCR primer.")
]
RightPrimer = Annotated[
    str, typer.Option("--right-primer", help="Bases that are written after every strand, such as a PCR primer.")
]
ExemptPrimers = Annotated[
    bool,
    typer.Option(
        "--exempt-primers",
        help="Leave the primers out of the GC windows, so that the primers themselves may break the GC rule. "
        "Homopolymer runs and forbidden words are still checked across the joints between primer and strand.",
    ),
]
ModelPath = Annotated[
    Path | None,
    typer.Option("--model", help="Weights of the tokenizer (.safetensors). The default is the shipped weights."),
]
PriorPath = Annotated[
    Path | None,
    typer.Option(
        "--prior",
        help="Weights of the masked prior (.safetensors). The default is the shipped weights, if they fit the "
        "tokenizer.",
    ),
]


class Mode(enum.StrEnum):
    """How the tokens of a video are coded; see ``coding.modes``."""

    SMALLEST = "smallest"
    RAW = "raw"
    CONTEXT = "context"
    PRIOR = "prior"


ModeKind = Annotated[
    Mode,
    typer.Option(
        "--mode",
        help="How the tokens are coded. raw: as they are; each lost strand then costs scattered tokens, which are "
        "guessed. context: entropy-coded, which takes about 0.6 of the nucleotides, but a lost strand costs a whole "
        "segment of the video. prior: the same with the predictions of the masked prior, which takes fewer "
        "nucleotides still and is slower. smallest: whichever of the three takes the fewest bytes.",
    ),
]
Quality = Annotated[
    int,
    typer.Option(
        help="Quality from 10 to 0. 10 writes everything that the tokenizer produces. Lower values drop the digits "
        "that the prior predicts well enough (in mode raw: the last digits of every token), and 0 drops the most."
    ),
]
Effort = Annotated[
    int,
    typer.Option(
        help="How long to search for better tokens: 0 not at all, 1 to 3 increasingly long. The result is a better "
        "picture or fewer nucleotides, and never more nucleotides. 3 also stores a small change of the decoder, of up "
        "to 768 bytes, if it is worth its nucleotides and fits into the budget. Decoding stays as fast. The search "
        "takes about 8 GB of memory at 1080p."
    ),
]
Rate = Annotated[
    float,
    typer.Option(
        help="Write at most this many nucleotides per pixel, everything included, at the best quality that fits. "
        "0 means no limit."
    ),
]
Budget = Annotated[
    int,
    typer.Option(help="Write at most this many nucleotides in all, at the best quality that fits. 0 means no limit."),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify",
        help="Before the pool is written, decode the coded tokens with the reference decoder and compare them.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        help="The pool's id, as 16 hexadecimal digits. When a pool is written, the default is a hash of the content. "
        "When one is read, the id selects it among the strands of several pools.",
    ),
]

Fps = Annotated[
    str | None,
    typer.Option(
        "--fps",
        metavar="RATE",
        help="Resample the clip to this constant frame rate, for example 30, 30000/1001 or 29.97 (which means "
        "30000/1001). The frames that are nearest in time are taken: one is repeated where a frame is missing, and "
        "some are left out where there are too many. Clips of variable frame rate need this option (the error message "
        "names the rate); clips of another constant rate are resampled too.",
    ),
]
Deinterlace = Annotated[
    bool,
    typer.Option(
        "--deinterlace",
        help="Turn interlaced frames into whole frames, without changing their number (FFmpeg's bwdif). Progressive "
        "frames stay as they are.",
    ),
]
ToneMap = Annotated[
    bool,
    typer.Option(
        "--tone-map",
        help="Convert HDR (PQ, HLG) and wide colours (BT.2020, P3) to BT.709, the colours of ordinary screens. "
        "Other clips stay as they are.",
    ),
]

ReadsIn = Annotated[
    Path,
    typer.Argument(
        metavar="POOL",
        help="FASTA file of strands, or FASTQ file of a sequencer's reads of them; plain or gzip, in any order. "
        "- stands for standard input.",
    ),
]
Reads = Annotated[
    bool,
    typer.Option(
        "--reads",
        help="Treat the records of a FASTA file as noisy reads, as those of a FASTQ file always are, and not as "
        "strands.",
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE.png",
        help="Also draw a picture of the reads: their coverage, the strands recovered from them, and their errors.",
    ),
]


def codec_config(
    constraints: str,
    length: int,
    redundancy: float | None,
    left: str,
    right: str,
    *,
    exempt: bool = False,
    survive: float | None = None,
    coverage: float = 10.0,
    read_errors: float = 0.04,
    failure: float = 1e-6,
    mode: Mode = Mode.SMALLEST,
    **coding: typing.Any,
) -> "helix_jax.config.CodecConfig":
    """Build the configuration of the codec from the options for strands and coding.

    Args:
        constraints: name of a constraint set.
        length: nucleotides per strand, without the primers.
        redundancy: repair strands as a share of the source strands; None for the default.
        left: left primer, in either case.
        right: right primer, in either case.
        exempt: whether GC windows leave the primers out.
        survive: share of lost strands to plan the redundancy for, instead of ``redundancy``.
        coverage: with ``survive``, the mean number of reads of a strand.
        read_errors: with ``survive``, the errors per base of a read.
        failure: with ``survive``, the highest probability of failure.
        mode: coding of the tokens.
        **coding: the fields ``verify``, ``quality``, ``effort``, ``rate`` and ``budget`` of CodecConfig.

    Raises:
        HelixError: if a value is out of its range.
    """
    from helix_jax.config import CodecConfig, StrandConfig, Survival

    if redundancy is not None and not 0 <= redundancy <= 100:
        raise HelixError(f"redundancy {redundancy}: a share of the source strands, for example 0.1")
    planned: float | Survival | None = redundancy
    if survive is not None:
        planned = Survival(loss=survive, coverage=coverage, errors=read_errors, failure=failure)
    strands = StrandConfig(
        length=length,
        redundancy=planned,
        left_primer=left.upper(),
        right_primer=right.upper(),
        primers_exempt=exempt,
    )
    return CodecConfig(constraints=constraints, strands=strands, mode=mode.value, **coding)


def given(context: typer.Context) -> set[str]:
    """Return the names of the parameters that the user passed on the command line."""
    return {
        parameter.name
        for parameter in context.command.params
        if (source := context.get_parameter_source(parameter.name)) is not None and source.name == "COMMANDLINE"
    }


def check_effect(context: typer.Context, *useless: tuple[str, str]) -> None:
    """Refuse options that have no effect with, or without, other options that were passed.

    Args:
        context: context of the command.
        *useless: pairs of parameters of this command, of which the first has no effect if the second is passed too.

    Raises:
        HelixError: naming both options.
    """
    options = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    passed = given(context)
    for name, needed in _NEEDED.items():
        if name in passed and not passed & set(needed):
            others = " or ".join(options[other] for other in needed if other in options)
            raise HelixError(f"{options[name]} has no effect without {others}: add that, or leave it out")
    for name, beside in (("redundancy", "survive"), *useless):
        if {name, beside} <= passed:
            raise HelixError(f"{options[name]} has no effect beside {options[beside]}: leave one of them out")


# An option, and those of which it needs at least one.
_NEEDED = {
    "coverage": ("survive",),
    "read_errors": ("survive",),
    "failure": ("survive",),
    "exempt_primers": ("left_primer", "right_primer"),
}


def preparation(fps: str | None, deinterlace: bool, tone_map: bool) -> "helix_jax.video.Preparation":
    """Turn --fps, --deinterlace and --tone-map into what ``video.open_video`` does to a clip.

    Args:
        fps: the frame rate as the user wrote it; None keeps the clip's.
        deinterlace: whether interlaced frames become whole ones.
        tone_map: whether HDR and wide colours are converted.

    Raises:
        HelixError: if the frame rate cannot be read.
    """
    from helix_jax import video
    from helix_jax.video import frame_rate

    return video.Preparation(None if fps is None else frame_rate.parse(fps), deinterlace, tone_map)


def load_nets(model: Path | None, prior: Path | None) -> "helix_jax.nets.Nets":
    """Load the nets of --model and --prior; None stands for the shipped ones."""
    from helix_jax import nets

    return nets.load(**({"tokenizer": model} if model else {}), prior=prior)


def parse_key(text: str | None) -> bytes | None:
    """Turn --key into 8 bytes; None stays None. Raises HelixError for anything but 16 hexadecimal digits."""
    if text is None:
        return None
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 8:
        raise HelixError(f"key {text!r}: 16 hexadecimal digits are needed")
    return key


def warn_of_primers(
    found: Mapping[str, Collection[int] | int], remedy: str = ", or another --key, which writes other strands"
) -> None:
    """Warn of primers that nearly occur inside strands, where they could bind.

    ``found`` has for each primer the numbers of those strands (``primers.in_pool``), or only how many there are.
    ``remedy`` ends the message, after the advice to choose another primer.
    """
    for primer, strands in found.items():
        if not strands:
            continue
        count, names = strands, ""
        if isinstance(strands, list):
            count = len(strands)
            names = f" ({', '.join(f'strand_{n:07d}' for n in strands[:5])}{', ...' if count > 5 else ''})"
        warn(
            f"primer {primer} nearly occurs inside {count} strands{names} and may bind there: choose another primer"
            + remedy
        )


def start(
    writer: Writer,
    context: typer.Context,
    *,
    reads: Iterable[Path | None],
    writes: Iterable[Path | None],
    strands: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Refuse what cannot be done before any work: options without effect, and paths that cannot be written.

    Args:
        writer: value of --writer.
        context: context of the command.
        reads: input files; None stands for an option that was not passed.
        writes: output files, likewise.
        strands: the output that is written as FASTA, unless the writer is ``timing``.
        plot: the output that is written as a picture.

    Raises:
        HelixError: naming the option or the path.
    """
    _only_of(writer, context)
    check_effect(context)
    scheme = Path(context.params["scheme"])
    files.check_paths((*reads, scheme if scheme.is_file() else None), writes)
    if strands is not None and writer is Writer.BASES:
        files.check_sequences(strands, "FASTA")
    if plot is not None:
        files.check_suffix(plot, (".png",), "pictures are written as PNG")


def written_options(
    forbid: Iterable[str], left_primer: str, right_primer: str, exempt_primers: bool, key: str | None
) -> dict[str, typing.Any]:
    """Turn the options that say how a pool was written into keyword arguments of ``codec.decode``.

    Args:
        forbid: values of --forbid.
        left_primer: value of --left-primer.
        right_primer: value of --right-primer.
        exempt_primers: value of --exempt-primers.
        key: value of --key.

    Raises:
        HelixError: if the key is not one.
    """
    return {
        "motifs": tuple(forbid),
        "primers": (left_primer, right_primer),
        "primers_exempt": exempt_primers,
        "key": parse_key(key),
    }


def _only_of(writer: Writer, context: typer.Context) -> None:
    """Refuse options that were passed and that only the other writer takes."""
    foreign = BASES_ONLY if writer is Writer.TIMING else TIMING_ONLY
    options = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    wrong = [options[name] for name in foreign if name in given(context)]
    if not wrong:
        return
    if writer is Writer.TIMING:
        raise HelixError(f"{', '.join(wrong)}: not for --writer timing, whose --scheme settles it; leave it out")
    raise HelixError(f"{', '.join(wrong)}: only for --writer timing; add that, or leave it out")
