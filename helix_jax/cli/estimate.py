"""The command `helix-jax estimate`: what a clip or a file would take, before anything is written."""

import contextlib
import io
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from helix_jax import files
from helix_jax.cli import fields, options
from helix_jax.cli.console import Json, Scheme, problems, progress, show_rows
from helix_jax.config import CodecConfig, Preparation, Prices


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
    from helix_jax import packing, video
    from helix_jax.stream import estimate as estimates
    from helix_jax.stream import pictures

    with problems(), progress(as_json) as step, contextlib.ExitStack() as stack:
        way = options.start(writer, context, reads=(file, agreed.library.primers), writes=())
        config = agreed.library.settled(config)
        source = stack.enter_context(files.local(file))
        rows: list[dict[str, Any]] = []
        station = way.writer.open(config, agreed.forbid, step)
        if packed or not video.is_clip(file):
            content = stack.enter_context(files.opened(source))
            assert isinstance(content, io.BufferedIOBase)  # ``local`` gives the path of a regular file
            name = None if files.is_standard(file) else file.name
            draft = packing.pack_draft(content, config=config, writer=way.writer, motifs=agreed.forbid, name=name)
            rows.append(_priced(way.size(station, draft.layout), prices))
        else:
            reader = video.open_video(source, prepare, name=str(file))
            heard = None if config.silent else reader.sound(config.sound)
            beside = pictures.sound(heard, config)
            for one in estimates.ladder(reader, beside, config, station, progress=step):
                figures = {"quality": one.quality} | way.size(station, one.layout) | {"psnr": round(one.psnr, 2)}
                rows.append(_priced(figures, prices))
    if as_json:
        print(json.dumps({"file": str(file), "estimates": rows}))
        return
    columns = [name.replace("_", " ") for name in rows[0]]
    show_rows("estimate", columns, [tuple(map(_text, row.values())) for row in rows])


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


def _text(value: float) -> str:
    return f"{value:,}"
