"""The command `helix-jax`.

Exit status: 0 done, 1 a check failed, 2 wrong use or unreadable input, 3 done with loss (concealed), 4 cannot be
decoded.
"""

import dataclasses
import json
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from helix_jax import parallel

CHECK_FAILED, WRONG_USE, WITH_LOSS, UNDECODABLE = 1, 2, 3, 4

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Store video in DNA, and read it back.\n\n"
    "A clip becomes tokens (a learned tokenizer), the tokens become strands of A, C, G and T that obey biochemical "
    "constraints at almost their capacity, and the strands become the clip again. "
    "A FASTA file is all that decoding needs.\n\n"
    "Start with [bold]helix-jax demo[/bold].\n\n"
    "Exit status: 0 done, 1 a check failed, 2 wrong use, 3 done with loss (concealed), 4 cannot be decoded.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output instead of a table.")]
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
    float,
    typer.Option(
        help="Repair strands as a share of the source strands, plus two per block: "
        "lost strands up to that number are repaired exactly."
    ),
]
Motif = Annotated[
    list[str], typer.Option("--forbid", help="Word that must not occur, nor its reverse complement. May be repeated.")
]
LeftPrimer = Annotated[str, typer.Option("--left-primer", help="Bases written before every strand.")]
RightPrimer = Annotated[str, typer.Option("--right-primer", help="Bases written after every strand.")]
ModelPath = Annotated[
    Path | None, typer.Option("--model", help="Tokenizer weights (.safetensors); default: the shipped ones.")
]
Key = Annotated[
    str | None, typer.Option("--key", help="The pool's id, 16 hexadecimal digits; default: a hash of the content.")
]
PoolIn = Annotated[Path, typer.Argument(metavar="POOL", help="FASTA file (plain or gzip); strands in any order.")]


# ---- commands ----------------------------------------------------------------------------------------


@app.command()
def encode(
    clip: Annotated[
        Path, typer.Argument(metavar="CLIP", help="Video file (anything PyAV reads). Sound is not stored.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="FASTA file to write.")],
    constraints: Set = "helix",
    strand_length: Length = 150,
    redundancy: Redundancy = 0.1,
    model: ModelPath = None,
    key: Key = None,
    forbid: Motif = [],  # noqa: B006
    left_primer: LeftPrimer = "",
    right_primer: RightPrimer = "",
    as_json: Json = False,
):
    """Write a video as strands of DNA.

    Sound is not stored. Frame rate, size and number of frames are kept exactly; variable frame rates are refused.
    """
    from helix_jax import codec, inspection, video

    with _problems(), _progress(as_json) as step:
        reader = video.open_video(clip)
        if reader.has_audio:
            _warn(f"{clip.name} has sound, which is not stored")
        config = _config(constraints, strand_length, redundancy, left_primer, right_primer)
        pool = codec.encode(reader, _model(model), config, motifs=tuple(forbid), key=_key(key), progress=step)
        _write_pool(output, pool)
    _primer_warning(pool)
    pixels = reader.info.frames * reader.info.height * reader.info.width
    _print(inspection.figures(pool, output) | {"nt_per_pixel": round(pool.strands.size / pixels, 5)}, as_json)


@app.command()
def decode(
    pool: PoolIn,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="MP4 to write: H.264, 4:4:4 (odd sizes need it), at a quality that adds no visible loss (crf 8).",
        ),
    ],
    model: ModelPath = None,
    key: Key = None,
    forbid: Motif = [],  # noqa: B006
    left_primer: LeftPrimer = "",
    right_primer: RightPrimer = "",
    as_json: Json = False,
):
    """Read a pool back into a video.

    Lost strands are repaired by the outer code. Past its reach the lost tokens are filled from their neighbours,
    the loss is reported, and the exit status is 3. Motifs and primers are given as they were for encoding.
    """
    from helix_jax import codec, video

    with _problems(), _progress(as_json) as step:
        strands = _read(pool)
        info, blocks, report = codec.decode(
            strands,
            _model(model),
            motifs=tuple(forbid),
            primers=(left_primer, right_primer),
            key=_key(key),
            progress=step,
        )
        with video.VideoWriter(output, info) as writer:
            for block in blocks:
                writer.write(block)
    figures = {
        "output": str(output),
        "frames": info.frames,
        "height": info.height,
        "width": info.width,
        "fps": str(info.fps),
    }
    _print(figures | dataclasses.asdict(report), as_json)
    if report.lost_packets:
        _warn(f"{report.lost_tokens:.1%} of the tokens were lost past repair and were filled from their neighbours")
        raise typer.Exit(WITH_LOSS)


@app.command()
def pack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Any file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="FASTA file to write.")],
    constraints: Set = "helix",
    strand_length: Length = 150,
    redundancy: Redundancy = 0.1,
    key: Key = None,
    forbid: Motif = [],  # noqa: B006
    left_primer: LeftPrimer = "",
    right_primer: RightPrimer = "",
    as_json: Json = False,
):
    """Write any file as strands of DNA, bit for bit."""
    from helix_jax import codec, inspection

    with _problems(), _progress(as_json) as step:
        config = _config(constraints, strand_length, redundancy, left_primer, right_primer)
        pool = codec.pack(file.read_bytes(), config, motifs=tuple(forbid), key=_key(key), progress=step)
        _write_pool(output, pool)
    _primer_warning(pool)
    _print(inspection.figures(pool, output), as_json)


@app.command()
def unpack(
    pool: PoolIn,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    key: Key = None,
    forbid: Motif = [],  # noqa: B006
    left_primer: LeftPrimer = "",
    right_primer: RightPrimer = "",
    as_json: Json = False,
):
    """Read a packed file back. Bytes are returned exactly or not at all (exit status 4)."""
    from helix_jax import codec, files

    with _problems(), _progress(as_json) as step:
        data, report = codec.unpack(
            _read(pool), motifs=tuple(forbid), primers=(left_primer, right_primer), key=_key(key), progress=step
        )
        with files.atomic(output) as temporary:
            temporary.write_bytes(data)
    _print({"output": str(output), "bytes": len(data)} | dataclasses.asdict(report), as_json)


@app.command()
def inspect(
    pool: PoolIn,
    constraints: Annotated[
        str | None,
        typer.Option("--constraints", help="Set to check against; default: the one that the pool's header names."),
    ] = None,
    key: Key = None,
    forbid: Motif = [],  # noqa: B006
    left_primer: LeftPrimer = "",
    right_primer: RightPrimer = "",
    as_json: Json = False,
):
    """Check every strand of a pool with an independent checker, and print its densities beside the capacity.

    Exit status 1 when a strand breaks a constraint.
    """
    from helix_jax import inspection

    with _problems(), _progress(as_json) as step:
        report = inspection.inspect(
            _read(pool),
            name=constraints,
            motifs=tuple(forbid),
            primers=(left_primer, right_primer),
            key=_key(key),
            progress=step,
        )
    if as_json:
        print(json.dumps(report))
    else:
        _inspection_tables(report)
    if report["violations"]:
        raise typer.Exit(CHECK_FAILED)


@app.command()
def capacity(
    constraints: Set = "helix",
    strand_length: Length = 150,
    forbid: Motif = [],  # noqa: B006
    left_primer: LeftPrimer = "",
    right_primer: RightPrimer = "",
    as_json: Json = False,
):
    """Capacity of a constraint set, its exact limit at a strand length, and what the coder carries there.

    All in bits per nucleotide: capacity as strands grow long; limit = log2(number of valid strands) / length;
    carried = K / length.
    """
    from helix_jax.tk_scone import capacity as rates
    from helix_jax.tk_scone import constraints as sets
    from helix_jax.tk_scone import tables

    with _problems():
        chosen = sets.custom(sets.named(constraints), motifs=tuple(forbid), left=left_primer, right=right_primer)
        table = tables.load(chosen, strand_length)
        limit = rates.limit(chosen, strand_length)
        figures = {
            "constraints": chosen.describe(),
            "length": strand_length,
            "capacity": round(rates.capacity(chosen), 6),
            "limit": round(limit / strand_length, 6),
            "carried": round(table.bits / strand_length, 6),
            "bits_per_strand": table.bits,
            "share_of_limit": round(table.bits / limit, 6),
        }
    _print(figures, as_json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the FASTA, the decoded MP4 and the picture.")] = Path("demo"),
    as_json: Json = False,
):
    """A shipped clip through everything: FASTA, decoded MP4, a picture of original and decoded frames, and figures."""
    from helix_jax import demonstration

    with _problems(), _progress(as_json) as step:
        figures = demonstration.run(out, _model(None), step)
    _print(figures, as_json)


# ---- shared by the commands ------------------------------------------------------------------------------


class _problems:
    """Turn every foreseen error into one line on standard error and an exit status."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None or not issubclass(kind, (ValueError, OSError)):
            return
        from helix_jax.codec import DecodeError

        text = str(error)
        if isinstance(error, OSError) and error.filename and error.strerror:
            text = f"{error.filename}: {error.strerror}; check the path"
        _warn(" ".join(text.split()))
        raise typer.Exit(UNDECODABLE if isinstance(error, DecodeError) else WRONG_USE) from error


class _progress:
    """Progress bars on standard error while it is a terminal, else nothing. Enters as step(station, done, total)."""

    def __init__(self, as_json):
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description:>9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.bars = Progress(*columns, console=console, disable=not console.is_terminal or as_json)
        self.tasks = {}

    def __enter__(self):
        self.bars.start()
        return self.step

    def __exit__(self, *_):
        self.bars.stop()

    def step(self, station, done, total):
        """done: how many more are done now."""
        if station not in self.tasks:
            self.tasks[station] = self.bars.add_task(station, total=total)
        self.bars.update(self.tasks[station], advance=done, total=total)


def _config(constraints, length, redundancy, left, right):
    from helix_jax.config import CodecConfig, StrandConfig

    if not 0 <= redundancy <= 100:
        raise ValueError(f"redundancy {redundancy}: a share of the source strands, for example 0.1")
    strands = StrandConfig(length=length, redundancy=redundancy, left_primer=left.upper(), right_primer=right.upper())
    return CodecConfig(constraints=constraints, strands=strands)


def _model(path):
    from helix_jax import weights

    return weights.load(path or weights.DEFAULT)


def _key(text):
    if text is None:
        return None
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 8:
        raise ValueError(f"key {text!r}: 16 hexadecimal digits are needed")
    return key


def _read(path):
    from helix_jax.strands import fasta

    return fasta.read(path)


def _write_pool(path, pool):
    from helix_jax.strands import fasta

    def describe(i):
        if i < pool.header_strands:
            return f"header key={pool.header.key.hex()}"
        i -= pool.header_strands
        return f"source {i}" if i < pool.layout.sources else f"repair {i - pool.layout.sources}"

    fasta.write(path, pool.strands, describe)


def _primer_warning(pool):
    from helix_jax.strands import primers

    left, right = pool.constraints.left, pool.constraints.right
    core = pool.strands[:, len(left) : pool.strands.shape[1] - len(right)]
    for primer in filter(None, (left, right)):
        count = primers.alike(core, primer)
        if count:
            _warn(
                f"primer {primer} nearly occurs inside {count} strands and may bind there: "
                "choose another, or --forbid part of it"
            )


def _warn(text):
    Console(stderr=True, soft_wrap=True).print(f"helix-jax: {text}", markup=False, highlight=False)


def _print(figures, as_json):
    if as_json:
        print(json.dumps(figures))
        return
    table = Table(show_header=False, box=None)
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), str(value))
    Console(soft_wrap=True).print(table)


def _inspection_tables(report):
    plain = {name: value for name, value in report.items() if not isinstance(value, (dict, list))}
    _print(plain, as_json=False)
    console = Console(soft_wrap=True)
    for name in ("runs", "gc"):
        table = Table(title={"runs": "longest run of a strand", "gc": "GC share of a strand"}[name], box=None)
        table.add_column("", justify="right")
        table.add_column("strands", justify="right")
        table.add_column("")
        top = max(report[name].values(), default=1)
        for value, count in report[name].items():
            table.add_row(str(value), str(count), "#" * round(40 * count / top))
        console.print(table)
    for example in report["examples"]:
        console.print(example, markup=False, highlight=False)


def main():
    """Entry point of `helix-jax`."""
    warnings.simplefilter("default")
    parallel.use_all_cores()
    sys.exit(app())


if __name__ == "__main__":
    main()
