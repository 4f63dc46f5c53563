"""The command `helix-jax`.

Exit status: 0 the command is done, 1 a check or a clip of a batch failed, 2 wrong use or unreadable input, 3 done with
loss (concealed tokens, a preview, or no sound), 4 the pool cannot be decoded, 70 a fault of helix_jax itself.
"""

import contextlib
import os
import signal
import sys
import traceback
import types
import warnings
from pathlib import Path
from typing import Annotated

import typer

import helix_jax
from helix_jax import cache as user_cache
from helix_jax import files
from helix_jax.cli import (
    encode_batch,
    estimate,
    fields,
    listing,
    options,
    order,
    pack,
    pools,
    primers,
    simulate,
    timing,
)  # fmt: skip
from helix_jax.cli.console import (
    FAULT,
    WITH_LOSS,
    WRONG_USE,
    Json,
    Scheme,
    problems,
    progress,
    show,
    warn,
)
from helix_jax.cli.targets import Target
from helix_jax.config import CodecConfig, Preparation
from helix_jax.errors import HelixError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Store video in DNA, and read it back.\n\n"
    "A learned tokenizer turns a clip into tokens, a coder turns the tokens into strands of A, C, G and T that obey "
    "biochemical constraints at almost their capacity, and the strands become the clip again. "
    "A FASTA file is all that decoding needs.\n\n"
    "A second writer puts the same data into the letters and the durations of terminator-free enzymatic synthesis: see "
    "[bold]--writer timing[/bold] and the commands of [bold]helix-jax timing[/bold].\n\n"
    "Start with [bold]helix-jax demo[/bold].\n\n"
    "[bold]-[/bold] stands for standard input or standard output wherever a command reads or writes a single file.\n\n"
    "Exit status: 0 the command is done, 1 a check or a clip of a batch failed, 2 wrong use or unreadable input, "
    "3 done with loss (concealed tokens, a preview, or no sound), 4 the pool cannot be decoded, "
    "70 a fault of helix-jax itself.",
)
app.add_typer(timing.app, name="timing")


def _version(requested: bool) -> None:
    if requested:
        print(f"helix-jax {helix_jax.__version__}")
        raise typer.Exit


@app.callback()
def _everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


# ---- commands: each imports what it needs when it runs, so that --help and errors of use come at once -------


@app.command(epilog="Example: helix-jax encode clip.mp4 -o pool.fasta")
@fields.expanded
def encode(
    context: typer.Context,
    clip: Annotated[
        Path,
        typer.Argument(
            metavar="CLIP",
            help="Video file in any format that PyAV reads; or an image; or images as a folder, or as a name with a "
            "number in it, such as frames/%04d.png, at --fps (25 by default).",
        ),
    ],
    output: options.PoolOut,
    *,
    writer: options.WriterKind = options.Writer.BASES,
    scheme: Scheme = "talk",
    config: CodecConfig,
    weights: options.Weights,
    agreed: Annotated[options.Agreed, fields.Only(("key", "forbid", "library"))],
    prepare: Preparation,
    as_json: Json = False,
) -> None:
    """Write a video as strands of DNA.

    The frame rate, the size and the number of frames are kept exactly; a clip of
    variable frame rate needs --fps. The picture becomes AV1 or learned tokens
    (--codec), the sound Opus. Transparency and interlacing are not stored, and
    with tokens neither are pixel aspect and HDR. A warning names each of these
    losses, with the remedy.
    """
    from helix_jax import codec, notes, video

    with problems(), progress(as_json) as step, contextlib.ExitStack() as stack:
        reads = (clip, agreed.library.primers, *weights.paths)
        way = options.start(writer, context, reads=reads, writes=(output,), strands=output)
        config = agreed.library.settled(config)
        source = stack.enter_context(files.local(clip))
        reader = video.open_video(source, prepare, name=str(clip))
        config = weights.settled(config, context)
        note = None
        if config.note and not source.is_file():
            raise HelixError(f"--note: it is of one file, and {clip} is a sequence of images; leave it out")
        if config.note is not False and source.is_file() and (config.note or not files.is_standard(clip)):
            note = notes.of_path(source, "" if files.is_standard(clip) else clip.name)
        pool = codec.encode(
            reader, weights.load, config=config, writer=way.writer, motifs=agreed.forbid, key=agreed.key, note=note,
            progress=step,
        )  # fmt: skip
        for loss in reader.losses[pool.header.codec].values():
            warn(f"{'standard input' if files.is_standard(clip) else clip.name} {loss}")
        figures = way.save(output, pool, reader.info.frames * reader.info.height * reader.info.width)
    show(figures, as_json)


app.command(epilog="Example: helix-jax encode-batch videos/ --out pools")(encode_batch.encode_batch)
app.command(epilog="Example: helix-jax simulate pool.fasta -o reads.fastq --coverage 10")(simulate.simulate)


@app.command(epilog="Example: helix-jax decode pool.fasta -o back.mp4")
@fields.expanded
def decode(
    context: typer.Context,
    pool: options.ReadsIn,
    *,
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE|FOLDER/",
            help="The file to write: .mp4, .mkv or .webm; .png, .tif, .webp or .jpg for a single picture, and a name "
            "with a number in it, such as frames/%04d.png, for an image of each; or a folder, in which the file gets "
            "the name that the pool knows. AV1 that has come back whole, at full size, is copied into a video without "
            "another loss. Anything else is written as H.264 (VP9 in .webm) at a quality that adds no visible loss, in "
            "4:2:0, which plays everywhere. Videos of odd width or height are written in 4:4:4 then, which VLC, mpv "
            "and FFmpeg play, but QuickTime, Safari, Firefox and phones do not.",
        ),
    ],
    lossless: Annotated[
        bool,
        typer.Option(
            "--lossless",
            help="Write every decoded picture without loss (4:4:4, QP 0), for measurements or further processing. The "
            "file is several times larger, and not every player plays it.",
        ),
    ] = False,
    writer: options.WriterKind = options.Writer.BASES,
    scheme: Scheme = "talk",
    weights: options.Weights,
    agreed: options.Agreed,
    cut: options.Cut,
    taking: options.Taking,
    reads: options.Reads = False,
    plot: options.Plot = None,
    report: options.RunReport = None,
    as_json: Json = False,
) -> None:
    """Read a pool, or a sequencer's reads of it, back into a video.

    Reads are sorted into clusters, each cluster gives its most likely strand,
    and where the check of a strand fails, less likely ones are tried. The outer
    code then repairs lost strands. If too many are lost for it, the prior
    guesses the lost tokens from those around them, and lost groups of AV1 are
    shown from the preview; the command reports the loss, and the exit status is
    3. Pass the same forbidden words and primers as for
    encoding; the comments of a FASTA file record them too.
    """
    from helix_jax import codec
    from helix_jax.cli import run_report
    from helix_jax.stream import film as films
    from helix_jax.video import images, muxing

    target = Target(output)
    with problems(), progress(as_json) as step, contextlib.ExitStack() as stack:
        named = options.found(pool)
        inputs = (*named.paths, agreed.library.primers, *weights.paths)
        way = options.start(writer, context, reads=inputs, writes=(target.file,), plot=plot, report=report)
        target.check()
        if target.file:
            films.check_output(target.file, lossless)
        stated = agreed.arguments
        run = stack.enter_context(run_report.Run(report, step))
        source = stack.enter_context(
            way.opened(named.files, reads=reads, cut=cut, taking=taking, plot=plot, agreed=stated, step=run.step)
        )
        run.reads = source.reads
        film = codec.film(source.pool, weights.given, writer=way.writer, progress=run.step, **stated)
        about_pool, info = film.report, film.info
        run.found = about_pool
        about = source.figures(about_pool)
        suffixes = (*muxing.FORMATS, *(images.FORMATS if film.info.frames == 1 else ()))
        path = target.path(film.note, suffixes, others=(plot, report))
        films.check_output(path, lossless)
        as_images = images.is_image(path)
        pixel_format = films.write(path, film, lossless)
        figures = {
            "output": str(path),
            "frames": info.frames,
            "height": info.height,
            "width": info.width,
            "fps": str(info.fps),
            "pixel_format": pixel_format,
            "sound": film.sound is not None and not as_images,
        }
        whole = not any(
            (about_pool.lost_tokens, about_pool.lost_update, about_pool.lost_sound, about_pool.preview_seconds,
             about_pool.missing_seconds)
        )  # fmt: skip
        figures = run.done(figures | about, about_pool, whole)
    show(figures, as_json)
    if film.sound and as_images:
        warn(f"{path}: images have no sound, and the sound of the pool is not written; give a video file for it")
    if about_pool.lost_tokens:
        warn(f"{about_pool.lost_tokens:.1%} of the tokens were lost past repair and were guessed")
    if about_pool.lost_update:
        warn(
            f"{about_pool.lost_update:.1%} of the decoder's update were lost past repair: the picture is not quite "
            "what was written"
        )
    for name, what in (("preview_seconds", "are shown from the preview"), ("missing_seconds", "are lost")):
        stretches = getattr(about_pool, name)
        if stretches:
            warn(f"lost past repair: seconds {', '.join(f'{a:.2f} to {b:.2f}' for a, b in stretches)} {what}")
    if about_pool.lost_sound:
        warn("the sound is lost past repair")
    if not whole:
        raise typer.Exit(WITH_LOSS)


app.command(epilog="Example: helix-jax pack notes.txt -o notes.fasta --constraints strict")(pack.pack)
app.command(epilog="Example: helix-jax unpack notes.fasta -o notes.txt")(pack.unpack)
app.command(epilog="Example: helix-jax primers --count 100 -o primers.csv")(primers.primers)
app.command(epilog="Example: helix-jax inspect pool.fasta")(pools.inspect)
app.command(epilog="Example: helix-jax order pool.fasta -o order.xlsx --vendor twist")(order.order)
app.command(epilog="Example: helix-jax estimate clip.mp4 --price-per-nt 0.001")(estimate.estimate)
app.command("list", epilog="Example: helix-jax list tube.fasta")(listing.list_pools)
app.command(epilog="Example: helix-jax capacity --constraints helix --strand-length 200")(pools.capacity)


@app.command(epilog="Example: helix-jax demo --out demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the FASTA file, the decoded MP4 files and the picture.")] = Path(
        "demo"
    ),
    as_json: Json = False,
) -> None:
    """Send a shipped clip through all stations: FASTA files, decoded videos, a picture of the frames, and figures.

    The clip is stored as AV1 and as tokens, in as many nucleotides, and decoded
    twice: after the loss of 10 % of the strands, which the repair strands
    restore, and after the loss of 30 %, where AV1 shows its preview and the lost
    tokens are guessed. The picture shows frames of the original and of all four.
    """
    from helix_jax.cli import demonstration

    with problems(), progress(as_json) as step:
        files.check_paths(folders=(out,))
        figures = demonstration.run(out, step)
    show(figures, as_json)


@app.command(epilog="Example: helix-jax cache --clear")
def cache(
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove everything. What is needed later is computed again.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what the cache holds, or clear it.

    The cache keeps the tables and capacities of constraint sets and the compiled
    programs, so that the second run is fast. There is a limit for each of the
    two kinds, beyond which the files that have not been used for the longest
    time are removed.
    """
    with problems():
        removed = user_cache.clear() if clear else None
        figures = user_cache.figures()
        if removed:
            figures |= {"removed_files": removed[0], "removed_bytes": removed[1]}
    show(figures, as_json)


def _end(number: int, _: types.FrameType | None) -> None:
    """Handle SIGTERM and SIGHUP like Ctrl-C, so that no temporary file is left."""
    sys.exit(128 + number)


def main() -> None:
    """Run `helix-jax` and exit. An exception that no command foresaw keeps its traceback, and the status is FAULT."""
    warnings.simplefilter("default")
    # JAX reads these when a command first imports it; settings of the user take precedence
    settings = {"jax_num_cpu_devices": os.cpu_count() or 1} | user_cache.compiler_settings()
    for name, value in settings.items():
        os.environ.setdefault(name.upper(), str(value))
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, _end)
    try:
        status = app()
    except BrokenPipeError:  # the reader of our output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + 13
    except OSError as error:  # the commands report those of their own files themselves
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
