"""Options that several commands share and that are no part of ``config``, and what checks the use of options."""

import dataclasses
import enum
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from helix_jax import files
from helix_jax.cli.console import warn
from helix_jax.cli.fields import Only
from helix_jax.config import CodecConfig, Option, StrandConfig
from helix_jax.errors import HelixError

if typing.TYPE_CHECKING:  # the commands import this module when they run, so that --help comes at once
    import helix_jax.cli.writers
    import helix_jax.nets
    import helix_jax.reads.adapters
    import helix_jax.reads.inputs


class Writer(enum.StrEnum):
    """How data becomes DNA: as letters under constraints (FASTA), or as letters and durations (a schedule)."""

    BASES = "bases"
    TIMING = "timing"


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
_INPUTS = (
    "plain or compressed (gzip, bzip2, xz, zstd), in any order. Several files, folders and quoted patterns such as "
    "'run/**/*.gz' are read as one; - stands for standard input."
)
PoolIn = Annotated[
    list[Path],
    typer.Argument(metavar="POOL", help=f"FASTA files of strands without read errors, {_INPUTS}"),
]
Seed = Annotated[int, typer.Option(help="Seed of the random numbers: the same seed gives the same reads.")]
ReadsIn = Annotated[
    list[Path],
    typer.Argument(
        metavar="POOL",
        help="FASTA files of strands, or a sequencer's reads of them as FASTQ, SAM, BAM or CRAM, "
        f"{_INPUTS} The two files of pairs are found by their names.",
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
RunReport = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        help="Also write a page about the run, in one file, also where decoding fails: what became of the reads, "
        "coverage, errors along the strand, what was repaired, seconds of each stage, and how many reads would be "
        "enough.",
    ),
]


_SERIOUS, _FEW = 0.01, 3  # share of strands, and number of them, at which a primer inside strands matters
PRIMERS = ("left_primer", "right_primer", "primers_exempt")  # fields of StrandConfig


def _key(text: str) -> bytes:
    """Turn --key into 8 bytes. Raises HelixError for anything but 16 hexadecimal digits."""
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 8:
        raise HelixError(f"key {text!r}: 16 hexadecimal digits are needed")
    return key


@dataclass(frozen=True)
class Library:
    """A library of primer pairs (``strands.library``), and the pair of the pool."""

    primers: Annotated[
        Path | None,
        Option(
            "Library of primer pairs, a CSV file as `helix-jax primers` writes it, in place of --left-primer and "
            "--right-primer.",
            metavar="FILE.csv",
        ),
    ] = None
    pair: Annotated[str | None, Option("Name of the pool's pair in the library.", metavar="NAME")] = None

    def of(self, strands: StrandConfig) -> StrandConfig:
        """Return the configuration with the primers of the pair, where there is a library.

        Raises HelixError for an unknown pair, and for a file that is no library.
        """
        if self.primers is None:
            return strands
        from helix_jax.strands import library  # imports NumPy

        if self.pair is None:
            names = ", ".join(list(library.read(self.primers))[: library.NAMES])
            raise HelixError(f"--primers {self.primers}: say which pair with --pair; the first are {names}")
        pair = library.pick(self.primers, self.pair)
        return dataclasses.replace(strands, left_primer=pair.left, right_primer=pair.right)

    def settled(self, config: CodecConfig) -> CodecConfig:
        """Return the configuration with the primers of the pair (``of``)."""
        return dataclasses.replace(config, strands=self.of(config.strands))


@dataclass(frozen=True)
class Agreed:
    """What the writer and the reader of a pool agree on, apart from what its header says.

    Enzymes and IUPAC codes of ``forbid`` become words over A, C, G, T.

    Attributes:
        strands: The primers.
        library: The same by their name in a library.
    """

    key: Annotated[
        bytes | None,
        Option(
            "The pool's id, as 16 hexadecimal digits. When a pool is written, the default is a hash of the content. "
            "When one is read, the id selects it among the strands of several pools (with --writer timing, it only "
            "checks that the pool is the right one).",
            parse=_key,
        ),
    ] = None
    forbid: Annotated[
        tuple[str, ...],
        Option(
            "A word that no strand may contain, nor its reverse complement: of A, C, G, T and IUPAC codes (GTYRAC), or "
            "the name of a restriction enzyme (BsaI). Repeat the option to forbid several words."
        ),
    ] = ()
    strands: Annotated[StrandConfig, Only(PRIMERS)] = field(default_factory=StrandConfig)
    library: Library = field(default_factory=Library)

    def __post_init__(self):
        from helix_jax.strands import motifs

        object.__setattr__(self, "forbid", motifs.expanded(self.forbid))

    @property
    def arguments(self) -> dict[str, typing.Any]:
        """The keyword arguments of ``codec.decode`` and the other readers. Raises HelixError as ``Library.of`` does."""
        strands = self.library.of(self.strands)
        return {
            "motifs": self.forbid,
            "primers": (strands.left_primer, strands.right_primer),
            "primers_exempt": strands.primers_exempt,
            "key": self.key,
        }


@dataclass(frozen=True)
class Cut:
    """What is cut off reads before anything else."""

    adapter: Annotated[
        tuple[str, ...],
        Option(
            "A sequencing adapter as it follows a strand in a read: it is cut off with all that follows it, and its "
            "reverse complement with all that precedes it. Letters, or a name: illumina (TruSeq) or nextera. Repeat "
            "the option for several.",
            metavar="SEQ|NAME",
        ),
    ] = ()
    umi: Annotated[
        int,
        Option(
            "Bases of a UMI at the beginning of every read, which are cut off. Reads of one molecule are all used: "
            "they share its errors, but not those of the sequencer."
        ),
    ] = 0

    def trim(self, primers: Sequence[str] = ()) -> "helix_jax.reads.adapters.Trim":
        """Return the same for the library. Raises HelixError for what is no adapter, or part of a primer."""
        from helix_jax.reads import adapters

        trim = adapters.Trim(tuple(map(adapters.named, self.adapter)), self.umi)
        trim.check_primers(primers)
        return trim

    def check_strands(self, name: str) -> None:
        """Refuse to cut anything off strands, which the files called ``name`` hold. Raises HelixError."""
        if self != Cut():
            raise HelixError(f"--adapter and --umi: {name} holds strands, and only reads have them; add --reads")


@dataclass(frozen=True)
class Taking:
    """How a sequencer's reads are taken.

    Raises:
        HelixError: A number is out of range.
    """

    max_reads: Annotated[
        int | None,
        Option(
            "Take the first N reads at most. Even without it no more are taken than the pool needs.",
            metavar="N",
        ),
    ] = None
    workers: Annotated[
        int | None,
        Option(
            "Divide the work on reads between N processes of this machine, each of which has its share of the cores, "
            "and its own memory (with Dask: pip install 'helix-jax[cluster]').",
            metavar="N",
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        Option(
            "Divide it between the workers of a Dask cluster that is running, whose scheduler has this address.",
            metavar="tcp://HOST:PORT",
        ),
    ] = None

    def __post_init__(self) -> None:
        for name, value in (("max-reads", self.max_reads), ("workers", self.workers)):
            if value is not None and value < 1:
                raise HelixError(f"--{name} {value}: give 1 or more")
        if self.workers and self.scheduler:
            raise HelixError(
                f"--workers {self.workers} starts a cluster, and --scheduler {self.scheduler} joins one: give one"
            )


@dataclass(frozen=True)
class Weights:
    """The files of the nets."""

    model: Annotated[
        Path | None, Option("Weights of the tokenizer (.safetensors). The default is the shipped weights.")
    ] = None
    prior: Annotated[
        Path | None,
        Option(
            "Weights of the masked prior (.safetensors). The default is the shipped weights, if they fit the tokenizer."
        ),
    ] = None

    @property
    def paths(self) -> tuple[Path | None, Path | None]:
        """The files, None for shipped ones."""
        return self.model, self.prior

    def settled(self, config: CodecConfig, context: typer.Context) -> CodecConfig:
        """Return a configuration in which weights or a mode that the user passes decide for tokens, which have them."""
        for_tokens = any(self.paths) or "mode" in given(context)
        return dataclasses.replace(config, codec="tokens") if for_tokens and config.codec == "auto" else config

    @property
    def given(self) -> "Callable[[], helix_jax.nets.Nets] | None":
        """What loads the nets that the user passes, None where the header of a pool names them."""
        return self.load if any(self.paths) else None

    def load(self) -> "helix_jax.nets.Nets":
        """Load the nets."""
        from helix_jax import nets

        return nets.load(**({"tokenizer": self.model} if self.model else {}), prior=self.prior)


def found(named: list[Path]) -> "helix_jax.reads.inputs.Inputs":
    """Return the files that the user means (``inputs.found``), and warn of what is left out."""
    from helix_jax.reads import inputs

    meant = inputs.found(named)
    for warning in meant.warnings:
        warn(warning)
    return meant


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
    for name, codec in (("mode", "av1"), ("verify", "av1"), ("model", "av1"), ("prior", "av1"), ("preview", "tokens")):
        if name in passed and context.params.get("codec") == codec:
            raise HelixError(f"{options[name]} has no effect with --codec {codec}: leave one of them out")
    beside_others = (
        ("redundancy", "survive"), ("sound", "no_sound"), ("left_primer", "primers"), ("right_primer", "primers"),
        *useless,
    )  # fmt: skip
    for name, beside in beside_others:
        if {name, beside} <= passed:
            raise HelixError(f"{options[name]} has no effect beside {options[beside]}: leave one of them out")


# An option, and those of which it needs at least one.
_NEEDED = {
    "coverage": ("survive",),
    "read_errors": ("survive",),
    "failure": ("survive",),
    "exempt_primers": ("left_primer", "right_primer", "primers"),
    "pair": ("primers",),
    "near": ("away_from",),
}


def warn_of_primers(
    near_strands: Mapping[str, Collection[int] | int],
    strands: Mapping[str, int],
    remedy: str = ", or another --key, which writes other strands",
) -> None:
    """Warn of primers that nearly occur inside so many strands, where they could bind, that it matters.

    A PCR copies such a strand less than others, and repair strands are there for some that are lost. By chance a primer
    of 20 bases is near to one strand in 700.

    Args:
        near_strands: For each primer the numbers of those strands (``primers.in_pool``), or only how many there are.
        strands: For each primer, how many strands have it at their end.
        remedy: The end of the message, after the advice to choose another primer.
    """
    for primer, found in near_strands.items():
        count, names = (found, "") if isinstance(found, int) else (len(found), "")
        if count < _FEW or count <= _SERIOUS * strands[primer]:
            continue
        if isinstance(found, list):
            names = f": {', '.join(f'strand_{n:07d}' for n in found[:5])}{', ...' if count > 5 else ''}"
        warn(
            f"primer {primer} nearly occurs inside {count:,} of {strands[primer]:,} strands "
            f"({count / strands[primer]:.1%}{names}) and may bind there, so that a PCR copies them less: choose "
            f"another primer{remedy}"
        )


def start(
    writer: Writer,
    context: typer.Context,
    *,
    reads: Iterable[files.PathLike | None],
    writes: Iterable[Path | None],
    strands: Path | None = None,
    plot: Path | None = None,
    report: Path | None = None,
) -> "helix_jax.cli.writers.Files":
    """Refuse what cannot be done before any work: options without effect, and paths that cannot be written.

    Args:
        writer: value of --writer.
        context: context of the command.
        reads: input files; None stands for an option that was not passed.
        writes: output files, likewise, apart from those that have a name of their own below.
        strands: the output that is written as FASTA, unless the writer is ``timing``.
        plot: the output that is written as a picture.
        report: the output that is written as a page.

    Returns:
        The writer and its files.

    Raises:
        HelixError: naming the option or the path.
    """
    from helix_jax.cli import writers

    way = writers.Schedules if writer is Writer.TIMING else writers.Fasta
    options, passed = {parameter.name: parameter.opts[0] for parameter in context.command.params}, given(context)
    wrong = [options[name] for name in way.foreign if name in passed]
    if wrong:
        raise HelixError(f"{', '.join(wrong)}: not for --writer {writer.value}; leave it out, or choose another writer")
    check_effect(context)
    scheme = Path(context.params["scheme"])
    files.check_paths((*reads, scheme if scheme.is_file() else None), (*writes, plot, report))
    if strands is not None and writer is Writer.BASES:
        files.check_sequences(strands, "FASTA")
    if plot is not None:
        files.check_suffix(plot, (".png",), "pictures are written as PNG")
    if report is not None:
        files.check_suffix(report, (".html", ".htm"), "reports are written as HTML")
    return writers.timing(context.params["scheme"]) if writer is Writer.TIMING else writers.Fasta()
