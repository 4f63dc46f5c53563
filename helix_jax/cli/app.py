"""The command `helix-jax`.

Exit status: 0 done, 1 a check or a clip of a batch failed, 2 wrong use or unreadable input, 3 done with loss
(concealed), 4 cannot be decoded, 70 a fault of helix_jax itself.
"""

import contextlib
import dataclasses
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated

import typer

import helix_jax
from helix_jax import cache as user_cache
from helix_jax import files
from helix_jax.cli import encode_batch, pack, pools, simulate, timing
from helix_jax.cli.console import (
    FAULT,
    WITH_LOSS,
    WRONG_USE,
    Json,
    Scheme,
    left_out_of,
    problems,
    progress,
    show,
    strands_of,
    warn,
)
from helix_jax.cli.options import (
    Budget,
    Coverage,
    Deinterlace,
    Effort,
    ExemptPrimers,
    Failure,
    Fps,
    Key,
    LeftPrimer,
    Length,
    Mode,
    ModeKind,
    ModelPath,
    Motif,
    Plot,
    PoolOut,
    PriorPath,
    Quality,
    Rate,
    ReadErrors,
    Reads,
    ReadsIn,
    Redundancy,
    RightPrimer,
    Set,
    Survive,
    ToneMap,
    Verify,
    Writer,
    WriterKind,
    codec_config,
    load_nets,
    parse_key,
    preparation,
    start,
    warn_of_primers,
    written_options,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Store video in DNA, and read it back.\n\n"
    "A clip becomes tokens (a learned tokenizer), the tokens become strands of A, C, G and T that obey biochemical "
    "constraints at almost their capacity, and the strands become the clip again. "
    "A FASTA file is all that decoding needs.\n\n"
    "A second writer puts the same data into the letters and the durations of terminator-free enzymatic synthesis: "
    "[bold]--writer timing[/bold], and the commands of [bold]helix-jax timing[/bold].\n\n"
    "Start with [bold]helix-jax demo[/bold].\n\n"
    "[bold]-[/bold] stands for standard input or output wherever one file goes in or out.\n\n"
    "Exit status: 0 done, 1 a check or a clip of a batch failed, 2 wrong use, 3 done with loss (concealed), "
    "4 cannot be decoded, 70 a fault of helix-jax itself.",
)
app.add_typer(timing.app, name="timing")


def _version(asked: bool):
    if asked:
        print(f"helix-jax {helix_jax.__version__}")
        raise typer.Exit


@app.callback()
def _everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
):
    pass


# ---- commands: each imports what it needs, so that --help and errors of use come at once --------------------


@app.command(epilog="Example: helix-jax encode clip.mp4 -o pool.fasta")
def encode(
    context: typer.Context,
    clip: Annotated[
        Path, typer.Argument(metavar="CLIP", help="Video file (anything PyAV reads). Sound is not stored.")
    ],
    output: PoolOut,
    writer: WriterKind = Writer.BASES,
    scheme: Scheme = "talk",
    constraints: Set = "helix",
    strand_length: Length = 150,
    redundancy: Redundancy = None,
    survive: Survive = None,
    coverage: Coverage = 10.0,
    read_errors: ReadErrors = 0.04,
    failure: Failure = 1e-6,
    mode: ModeKind = Mode.SMALLEST,
    quality: Quality = 10,
    effort: Effort = 0,
    rate: Rate = 0.0,
    budget: Budget = 0,
    verify: Verify = True,
    model: ModelPath = None,
    prior: PriorPath = None,
    key: Key = None,
    forbid: Motif = [],  # noqa: B006
    left_primer: LeftPrimer = "",
    right_primer: RightPrimer = "",
    exempt_primers: ExemptPrimers = False,
    fps: Fps = None,
    deinterlace: Deinterlace = False,
    tone_map: ToneMap = False,
    as_json: Json = False,
):
    """Write a video as strands of DNA.

    Frame rate, size and number of frames are kept exactly; variable frame rates need --fps. Sound is not stored, nor
    are pixel aspect, HDR, transparency and fields of interlaced video: each is warned about, with the remedy.
    """
    from helix_jax import codec, video
    from helix_jax.strands import fasta, inspection, primers

    with problems(), progress(as_json) as step, contextlib.ExitStack() as stack:
        start(writer, context, reads=(clip, model, prior), writes=(output,), strands=output)
        prepare = preparation(fps, deinterlace, tone_map)
        reader = video.open_video(stack.enter_context(files.local(clip)), prepare, name=str(clip))
        for loss in reader.not_kept.values():
            warn(f"{'standard input' if files.is_standard(clip) else clip.name} {loss}")
        if writer is Writer.TIMING:
            from helix_jax.cli import timed_files

            figures = timed_files.encode(output, reader, load_nets(model, None).tokenizer, scheme, progress=step)
        else:
            config = codec_config(
                constraints, strand_length, redundancy, left_primer, right_primer, exempt=exempt_primers,
                survive=survive, coverage=coverage, read_errors=read_errors, failure=failure, mode=mode, verify=verify,
                quality=quality, effort=effort, rate=rate, budget=budget,
            )  # fmt: skip
            pool = codec.encode(
                reader, load_nets(model, prior), config=config, motifs=tuple(forbid), key=parse_key(key), progress=step
            )
            fasta.write_pool(output, pool)
            warn_of_primers(primers.in_pool(pool))
            pixels = reader.info.frames * reader.info.height * reader.info.width
            figures = inspection.figures(pool, output) | {"nt_per_pixel": round(pool.nucleotides / pixels, 5)}
    show(figures, as_json)


app.command(epilog="Example: helix-jax encode-batch videos/ --out pools")(encode_batch.encode_batch)
app.command(epilog="Example: helix-jax simulate pool.fasta -o reads.fastq --coverage 10")(simulate.simulate)


@app.command(epilog="Example: helix-jax decode pool.fasta -o back.mp4")
def decode(
    context: typer.Context,
    pool: ReadsIn,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="MP4 to write: H.264 at a quality that adds no visible loss (crf 8), in 4:2:0, which plays everywhere."
            " Odd sizes are 4:4:4, which QuickTime, Safari, Firefox and phones do not play; VLC, mpv and FFmpeg do.",
        ),
    ],
    lossless: Annotated[
        bool,
        typer.Option(
            "--lossless",
            help="Write every picture without loss (4:4:4, qp 0) for measuring or further work: several times larger, "
            "and not played everywhere.",
        ),
    ] = False,
    writer: WriterKind = Writer.BASES,
    scheme: Scheme = "talk",
    model: ModelPath = None,
    prior: PriorPath = None,
    key: Key = None,
    reads: Reads = False,
    plot: Plot = None,
    forbid: Motif = [],  # noqa: B006
    left_primer: LeftPrimer = "",
    right_primer: RightPrimer = "",
    exempt_primers: ExemptPrimers = False,
    as_json: Json = False,
):
    """Read a pool, or a sequencer's reads of it, back into a video.

    Reads are sorted into clusters, each gives its most likely strand, and what fails its check is tried again.
    Lost strands are repaired by the outer code. Past its reach the lost tokens are guessed by the prior from what is
    left around them, the loss is reported, and the exit status is 3. Motifs and primers are given as they were for
    encoding.
    """
    from helix_jax import codec, video
    from helix_jax.cli import reads_figure

    with problems(), progress(as_json) as step, contextlib.ExitStack() as stack:
        start(writer, context, reads=(pool, model, prior), writes=(output, plot), plot=plot)
        video.check_output(output)
        if writer is Writer.TIMING:
            from helix_jax.cli import timed_files

            copies, left_out = timed_files.read(pool)
            info, blocks, found, lost = timed_files.decode(
                copies, load_nets(model, None).tokenizer, scheme, progress=step
            )
            report = left_out | dataclasses.asdict(found) | {"lost_tokens": lost}
            concealed, changed = lost > 0, 0.0
        else:
            nets = load_nets(model, prior)
            chosen = written_options(forbid, left_primer, right_primer, exempt_primers, key) | {"progress": step}
            strands, about_reads = stack.enter_context(strands_of(pool, reads=reads, plot=plot, **chosen))
            info, blocks, found = codec.decode(strands, nets, **chosen)
            report = left_out_of(strands) | reads_figure.merged(found, about_reads, plot)
            concealed, changed = found.lost_tokens > 0, found.lost_update
        with video.VideoWriter(output, info, lossless) as film:
            for block in blocks:
                film.write(block)
    figures = {
        "output": str(output),
        "frames": info.frames,
        "height": info.height,
        "width": info.width,
        "fps": str(info.fps),
        "pixel_format": film.pix_fmt,
    }
    show(figures | report, as_json)
    if concealed:
        warn(f"{report['lost_tokens']:.1%} of the tokens were lost past repair and were guessed")
    if changed:
        warn(f"{changed:.1%} of the decoder's update were lost past repair: the picture is not quite what was written")
    if concealed or changed:
        raise typer.Exit(WITH_LOSS)


app.command(epilog="Example: helix-jax pack notes.txt -o notes.fasta --constraints strict")(pack.pack)
app.command(epilog="Example: helix-jax unpack notes.fasta -o notes.txt")(pack.unpack)
app.command(epilog="Example: helix-jax inspect pool.fasta")(pools.inspect)
app.command(epilog="Example: helix-jax capacity --constraints helix --strand-length 200")(pools.capacity)


@app.command(epilog="Example: helix-jax demo --out demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the FASTA, the decoded MP4 and the picture.")] = Path("demo"),
    as_json: Json = False,
):
    """A shipped clip through everything: FASTA, decoded MP4, a picture of original and decoded frames, and figures."""
    from helix_jax.cli import demonstration

    with problems(), progress(as_json) as step:
        files.check_paths(folders=(out,))
        figures = demonstration.run(out, step)
    show(figures, as_json)


@app.command(epilog="Example: helix-jax cache --clear")
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all of it. What is needed is made again.")] = False,
    as_json: Json = False,
):
    """Show what the cache holds: tables and capacities of constraint sets, and compiled programs; or clear it.

    It makes the second run fast. Past the limit of its kind, what was not used for longest goes first.
    """
    with problems():
        removed = user_cache.clear() if clear else None
        figures = user_cache.figures()
        if removed:
            figures |= {"removed_files": removed[0], "removed_bytes": removed[1]}
    show(figures, as_json)


def _end(number, _):
    """On SIGTERM and SIGHUP leave as on Ctrl-C, so that no temporary file is left."""
    sys.exit(128 + number)


def main():
    """Entry point of `helix-jax`. An exception that no command foresaw keeps its traceback, and exits with FAULT."""
    warnings.simplefilter("default")
    # JAX reads these when a command first imports it; what the user has set stays
    settings = {"jax_num_cpu_devices": os.cpu_count() or 1} | user_cache.compiler_settings()
    for name, value in settings.items():
        os.environ.setdefault(name.upper(), str(value))
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, _end)
    try:
        status = app()
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + 13
    except OSError as error:  # what commands meet on their own they tell themselves
        warn(f"cannot write to standard output: {error.strerror or error}; free some space, or give a file with -o")
        status = WRONG_USE
    except Exception:
        traceback.print_exc()
        warn("this is a fault of helix-jax, not of its input: please report it with the lines above")
        status = FAULT
    finally:
        user_cache.trim(user_cache.PROGRAMS)
    sys.exit(status)


if __name__ == "__main__":
    main()
