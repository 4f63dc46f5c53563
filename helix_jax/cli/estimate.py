"""The command `helix-jax estimate`: what a clip or a file would take, before anything is written."""

import contextlib
import io
import json
import typing
from pathlib import Path
from typing import Annotated, Any

import typer

from helix_jax import files
from helix_jax.cli import fields, options
from helix_jax.cli.console import Json, Scheme, problems, progress, show_rows
from helix_jax.config import CodecConfig, Preparation, Prices
from helix_jax.errors import HelixError

if typing.TYPE_CHECKING:  # as in ``options``
    from helix_jax import video

_OF_VIDEO = ("sound", "no_sound", "preview", "fps", "deinterlace", "tone_map")  # parameters that `pack` lacks


@fields.expanded
def estimate(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="CLIP|FILE", help="The video, the image or the file.")],
    *,
    packed: Annotated[
        bool, typer.Option("--packed", help="Estimate a video or an image as `pack` stores it, bit for bit.")
    ] = False,
    writer: options.WriterKind = options.Writer.BASES,
    scheme: Scheme = "talk",
    config: Annotated[CodecConfig, fields.Only(("constraints", "sound", "silent", "preview", "strands"))],
    agreed: Annotated[options.Agreed, fields.Only(("forbid", "library"))],
    prepare: Preparation,
    prices: Prices,
    as_json: Json = False,
) -> None:
    """Estimate nucleotides, strands, cost and time of a clip at several qualities, or of a file as `pack` stores it.

    Nothing is written. A clip is estimated from AV1 of about 250 of its frames,
    by a quick preset; PSNR is that of these frames. Of a file the figures are
    exact. Cost and time are shown where prices and speeds are given.
    """
    from helix_jax import packing
    from helix_jax.stream import estimate as estimates
    from helix_jax.stream import pictures

    with problems(), progress(as_json) as step, contextlib.ExitStack() as stack:
        way = options.start(writer, context, reads=(file, agreed.library.primers), writes=())
        config = agreed.library.settled(config)
        source = stack.enter_context(files.local(file))
        rows: list[dict[str, Any]] = []
        station = way.writer.open(config, agreed.forbid, step)
        reader = None if packed else _clip(source, prepare, str(file))
        if reader is None:
            _check_packed(context, file)
            content = stack.enter_context(files.opened(source))
            assert isinstance(content, io.BufferedIOBase)  # ``local`` gives the path of a regular file
            name = None if files.is_standard(file) else file.name
            draft = packing.pack_draft(content, config=config, writer=way.writer, motifs=agreed.forbid, name=name)
            rows.append({"as": "pack"} | _priced(way.size(station, draft.layout), prices))
        else:
            heard = None if config.silent else reader.sound(config.sound)
            beside = pictures.sound(heard, config)
            for one in estimates.ladder(reader, beside, config, station, progress=step):
                figures = {"as": "av1", "quality": one.quality} | way.size(station, one.layout)
                rows.append(_priced(figures | {"psnr": round(one.psnr, 2)}, prices))
    if as_json:
        print(json.dumps({"file": str(file), "estimates": rows}))
        return
    columns = [name.replace("_", " ") for name in rows[0]]
    show_rows("estimate", columns, [tuple(map(_text, row.values())) for row in rows])


def _clip(source: Path, prepare: Preparation, name: str) -> "video.VideoReader | None":
    """Return the reader of a clip, or None for any other file: one not named like a clip may be one all the same."""
    from helix_jax import video

    try:
        return video.open_video(source, prepare, name=name)
    except video.VideoError:
        if video.is_clip(source):
            raise
        return None


def _check_packed(context: typer.Context, file: Path) -> None:
    """Refuse options of video for a file that is estimated as packed."""
    passed, parameters = options.given(context), context.command.params
    useless = [each.opts[0] for each in parameters if each.name in passed and each.name in _OF_VIDEO]
    if useless:
        raise HelixError(
            f"{', '.join(useless)}: {file} is estimated as `pack` stores it, without such options; leave them out"
        )


def _priced(figures: dict[str, Any], prices: Prices) -> dict[str, Any]:
    """Return figures with the cost and the seconds, as far as prices and speeds are known."""
    parts = ((prices.per_nt, "nucleotides"), (prices.per_strand, "strands"))
    known = [price * figures[name] for price, name in parts if price is not None]
    if known:
        figures = figures | {"cost": round(sum(known), 2)}
    for speed, name in ((prices.nt_per_second, "nucleotides"), (prices.units_per_second, "time_units")):
        if speed is not None:
            figures = figures | {"seconds": round(figures[name] / speed, 1)}
    return figures


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"
