"""Options that several commands share, and what is made of them."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from helix_jax import files
from helix_jax.cli.console import warn
from helix_jax.errors import HelixError


class Writer(enum.StrEnum):
    """How data becomes DNA. bases: letters under constraints, FASTA. timing: letters and durations, a schedule."""

    BASES = "bases"
    TIMING = "timing"


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
        help="bases: strands of letters that obey constraints, in FASTA. "
        "timing: letters and durations of enzymatic synthesis, in a schedule file; read back from FASTA.",
    ),
]
PoolOut = Annotated[Path, typer.Option("-o", "--output", help="FASTA file to write; a schedule for --writer timing.")]
PoolIn = Annotated[
    Path,
    typer.Argument(
        metavar="POOL",
        help="FASTA file of strands, plain or gzip, in any order; reads without errors. - is standard input.",
    ),
]


Set = Annotated[
    str,
    typer.Option(
        "--constraints",
        help="helix: GC 40-60 % in every 20 nt, runs <= 3. strict: 45-55 %. "
        "strand: GC of the whole strand 45-55 %, runs <= 3. goldman: no repeats. "
        "wide: every window within 5 of half GC, runs <= 3.",
    ),
]
Length = Annotated[int, typer.Option("--strand-length", help="Nucleotides per strand, primers not counted.")]
Redundancy = Annotated[
    float | None,
    typer.Option(
        help="Repair strands as a share of the source strands, plus two per block: "
        "lost strands up to that number are repaired exactly. Default: 0.1; 0.2 for video in modes context and prior, "
        "where a strand more costs a segment.",
        show_default=False,
    ),
]
Survive = Annotated[
    float | None,
    typer.Option(
        "--survive",
        metavar="SHARE",
        help="Instead of --redundancy: as many repair strands as it takes to lose this share of the strands outright, "
        "read the others --coverage times on average, with --read-errors per base, and fail no oftener than --failure.",
    ),
]
Coverage = Annotated[float, typer.Option(help="With --survive: reads of a strand, on average.")]
ReadErrors = Annotated[float, typer.Option(help="With --survive: errors per base of a read, at most 0.1.")]
Failure = Annotated[float, typer.Option(help="With --survive: probability that the pool does not come back.")]
Motif = Annotated[
    list[str], typer.Option("--forbid", help="Word that must not occur, nor its reverse complement. May be repeated.")
]
LeftPrimer = Annotated[str, typer.Option("--left-primer", help="Bases written before every strand.")]
RightPrimer = Annotated[str, typer.Option("--right-primer", help="Bases written after every strand.")]
ExemptPrimers = Annotated[
    bool,
    typer.Option(
        "--exempt-primers",
        help="GC windows count the bases of the strand alone, so that primers may break them; runs and motifs still "
        "hold across the joints.",
    ),
]
ModelPath = Annotated[
    Path | None, typer.Option("--model", help="Tokenizer weights (.safetensors); default: the shipped ones.")
]
PriorPath = Annotated[
    Path | None,
    typer.Option(
        "--prior",
        help="Weights of the masked prior (.safetensors); default: the shipped ones, if they fit the tokenizer.",
    ),
]


class Mode(enum.StrEnum):
    """Coding of tokens; see ``coding.modes``."""

    SMALLEST = "smallest"
    RAW = "raw"
    CONTEXT = "context"
    PRIOR = "prior"


ModeKind = Annotated[
    Mode,
    typer.Option(
        "--mode",
        help="raw: tokens as they are; a lost strand is a scatter of tokens, which are guessed. context: about 0.6 of "
        "the nucleotides; a segment of the video stands or falls as one. prior: fewer still, and slower. "
        "smallest: whichever takes the fewest bytes.",
    ),
]
Quality = Annotated[
    int,
    typer.Option(
        help="10: all that the tokenizer says. Less drops what the prior predicts well enough, or in mode raw the last "
        "digits of every token; 0 the most."
    ),
]
Effort = Annotated[
    int,
    typer.Option(
        help="Time spent on finding better tokens, 0 none, 1 to 3 more and more: a better picture, or fewer "
        "nucleotides, never more. 3 also sends a small change of the decoder, up to 768 bytes, where they are worth it "
        "and there is room in the budget. Decoding stays as fast. Memory: about 8 GB at 1080p."
    ),
]
Rate = Annotated[
    float, typer.Option(help="Most nucleotides per pixel, everything counted; the best quality within it. 0: any.")
]
Budget = Annotated[int, typer.Option(help="Most nucleotides in all; the best quality within it. 0: any.")]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify", help="Decode coded tokens with the reference decoder before writing the pool."
    ),
]
Key = Annotated[
    str | None, typer.Option("--key", help="The pool's id, 16 hexadecimal digits; default: a hash of the content.")
]

Fps = Annotated[
    str | None,
    typer.Option(
        "--fps",
        metavar="RATE",
        help="Resample to this constant rate, as 30, 30000/1001 or 29.97 (which means 30000/1001): the nearest frames "
        "in time, repeated where one is missing, left out where there are too many. Clips of variable rate need it "
        "(their refusal names the rate); those of another constant rate are resampled too.",
    ),
]
Deinterlace = Annotated[
    bool,
    typer.Option(
        "--deinterlace",
        help="Make whole frames of interlaced ones (FFmpeg's bwdif), as many as there are. Others stay as they are.",
    ),
]
ToneMap = Annotated[
    bool,
    typer.Option(
        "--tone-map",
        help="Convert HDR (PQ, HLG) and wide colours (BT.2020, P3) to the BT.709 of ordinary screens. "
        "Other clips stay as they are.",
    ),
]

ReadsIn = Annotated[
    Path,
    typer.Argument(
        metavar="POOL",
        help="FASTA file of strands, or FASTQ file of a sequencer's reads of them; plain or gzip, in any order. "
        "- is standard input.",
    ),
]
Reads = Annotated[bool, typer.Option("--reads", help="A FASTA file holds reads with errors too, as FASTQ does.")]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE.png", help="Picture of the reads: coverage, strands found, errors."),
]


def codec_config(
    constraints, length, redundancy, left, right, *, exempt=False, survive=None, coverage=10.0, read_errors=0.04,
    failure=1e-6, mode=Mode.SMALLEST, **coding,
):  # fmt: skip
    """The options of strands and coding -> CodecConfig. coding: its fields verify, quality, effort, rate,
    budget. Raises HelixError."""
    from helix_jax.config import CodecConfig, StrandConfig, Survival

    if redundancy is not None and not 0 <= redundancy <= 100:
        raise HelixError(f"redundancy {redundancy}: a share of the source strands, for example 0.1")
    if survive is not None:
        redundancy = Survival(loss=survive, coverage=coverage, errors=read_errors, failure=failure)
    strands = StrandConfig(
        length=length,
        redundancy=redundancy,
        left_primer=left.upper(),
        right_primer=right.upper(),
        primers_exempt=exempt,
    )
    return CodecConfig(constraints=constraints, strands=strands, mode=mode.value, **coding)


def given(context):
    """Names of the parameters that a command was given."""
    return {
        parameter.name
        for parameter in context.command.params
        if context.get_parameter_source(parameter.name).name == "COMMANDLINE"
    }


def check_effect(context, *useless):
    """Refuse options that would have no effect beside, or without, others that were given.

    useless: pairs of names, of which the first has no effect beside the second in this command.
    Raises HelixError, naming both.
    """
    options = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    has = given(context)
    for name, needed in _NEEDED.items():
        if name in has and not has & set(needed):
            others = " or ".join(options[other] for other in needed if other in options)
            raise HelixError(f"{options[name]} has no effect without {others}: add that, or leave it out")
    for name, beside in (("redundancy", "survive"), *useless):
        if {name, beside} <= has:
            raise HelixError(f"{options[name]} has no effect beside {options[beside]}: leave one of them out")


_NEEDED = {
    "coverage": ("survive",),
    "read_errors": ("survive",),
    "failure": ("survive",),
    "exempt_primers": ("left_primer", "right_primer"),
}


def preparation(fps, deinterlace, tone_map):
    """--fps, --deinterlace and --tone-map -> video.Preparation. Raises HelixError."""
    from helix_jax import video
    from helix_jax.video import frame_rate

    return video.Preparation(None if fps is None else frame_rate.parse(fps), deinterlace, tone_map)


def load_nets(model, prior):
    """--model and --prior -> nets.Nets; without them the shipped ones."""
    from helix_jax import nets

    return nets.load(**({"tokenizer": model} if model else {}), prior=prior)


def parse_key(text):
    """--key -> 8 bytes, or None. Raises ValueError."""
    if text is None:
        return None
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 8:
        raise HelixError(f"key {text!r}: 16 hexadecimal digits are needed")
    return key


def warn_of_primers(found, remedy=", or another --key, which writes other strands"):
    """found: of each primer, the strands that it nearly occurs in: see ``primers.in_pool``, or how many they are."""
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


def start(writer, context, *, reads, writes, strands=None, plot=None):
    """Refuse what cannot be done, before any work: options without effect, and paths that cannot be written.

    strands: the output that becomes FASTA. plot: the output that becomes a picture.
    """
    _only_of(writer, context)
    check_effect(context)
    scheme = Path(context.params["scheme"])
    files.check_paths((*reads, scheme if scheme.is_file() else None), writes)
    if strands is not None and writer is Writer.BASES:
        files.check_sequences(strands, "FASTA")
    if plot is not None:
        files.check_suffix(plot, (".png",), "pictures are written as PNG")


def written_options(forbid, left_primer, right_primer, exempt_primers, key):
    """Options that tell how a pool was written, as arguments of ``codec.decode``."""
    return {
        "motifs": tuple(forbid),
        "primers": (left_primer, right_primer),
        "primers_exempt": exempt_primers,
        "key": parse_key(key),
    }


def _only_of(writer, context):
    """Refuse options that the command was given and that only the other writer takes."""
    foreign = BASES_ONLY if writer is Writer.TIMING else TIMING_ONLY
    options = {p.name: p.opts[0] for p in context.command.params}
    wrong = [options[name] for name in foreign if name in given(context)]
    if not wrong:
        return
    if writer is Writer.TIMING:
        raise HelixError(f"{', '.join(wrong)}: not for --writer timing, whose --scheme settles it; leave it out")
    raise HelixError(f"{', '.join(wrong)}: only for --writer timing; add that, or leave it out")
