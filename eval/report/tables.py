"""Tables of the report, for its page and for a README, from the results of ``eval.report.compare``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.bd_rate import bd_quality, bd_rate
from eval.report import codecs, compare, writers

ANCHOR = (codecs.H265.title, writers.OURS.name)  # method and writer that others are compared with
OURS = "helix_jax"  # how the names of our methods begin
GROUPS = {"clean": "clean sources", "compressed": "already compressed sources"}
QUALITIES = {"psnr": ("PSNR dB", ".2f"), "ms_ssim": ("MS-SSIM", ".4f"), "lpips": ("LPIPS", ".4f")}
BETTER_LESS = ("lpips",)  # measures of which less is better; there is no BD-rate of these
WRITERS = {writer.name: writer for writer in writers.WRITERS}
NONE = "-"
SHORT = (
    "The fewer frames are measured, the more tokens are flattered: much of an ordinary stream of 16 frames is its "
    "first picture, and little of one of ten seconds."
)
Rows = list[tuple[str, ...]]
Results = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Table:
    """A table of strings.

    Attributes:
        title: the title.
        note: sentences that explain the table.
        columns: names of the columns, of which the first has the names of the rows.
        rows: the cells of each row.
        brief: whether the table is shown in a README too.
    """

    title: str
    note: str
    columns: tuple[str, ...]
    rows: Rows
    brief: bool = True


def groups_of(results: Results) -> dict[str, list[dict[str, Any]]]:
    """Return the results of each group that has clips."""
    groups = {group: [result for result in results if result["source"] == group] for group in GROUPS}
    return {group: some for group, some in groups.items() if some}


def qualities_of(results: Results) -> list[str]:
    """Return the names of the quality measures that were taken."""
    return [name for name in QUALITIES if name in results[0]["points"][0]]


def curve(result: dict[str, Any], method: str, writer: str) -> list[dict[str, Any]]:
    """Return the points of one clip by this method and writer."""
    return [p for p in result["points"] if (p["method"], p["writer"]) == (method, writer)]


def methods(results: Results) -> list[tuple[str, str]]:
    """Return (method, writer) of every curve, ours first."""
    return list(dict.fromkeys((p["method"], p["writer"]) for result in results for p in result["points"]))


def tables_of(results: Results) -> list[Table]:
    """Return all tables of the report that have rows."""
    tables = [equal(results), rates(results), densities(results), losses(results), times(results), each(results)]
    return [table for table in tables if table.rows]


def equal(results: Results) -> Table:
    """Return the quality at equal nucleotides, as means of each group."""
    names, groups = list(dict.fromkeys(r["method"] for one in results for r in one["equal"])), []
    for group, some in groups_of(results).items():
        some = [result for result in some if len(result["equal"]) == len(names)]
        groups += [(group, some)] if some else []
    keys = qualities_of(results)
    rows: Rows = []
    for name in names:
        cells = []
        for _, some in groups:
            selected = [next(row for row in result["equal"] if row["method"] == name) for result in some]
            cells += [f"{np.mean([row[key] for row in selected]):{QUALITIES[key][1]}}" for key in keys]
        rows.append((name, *cells))
    columns = [f"{QUALITIES[key][0]}, {GROUPS[group]} ({len(some)})" for group, some in groups for key in keys]
    note = (
        "Every codec, in its thorough preset and best size, and helix_jax av1 fill no more strands than helix_jax "
        f"takes for its best quality in mode prior, or {compare.RATE} nucleotides per pixel where tokens are not "
        "measured; all written by TK-SCONE. Means over the clips where all can."
    )
    return Table("Quality at equal nucleotides, nothing lost", note, ("", *columns), rows if groups else [])


def rates(results: Results) -> Table:
    """Return the BD-rates against the anchor."""
    keys = [key for key in qualities_of(results) if key not in BETTER_LESS]
    groups = groups_of(results)
    rows: Rows = []
    for method, writer in methods(results):
        if (method, writer) == ANCHOR:
            rows.append((method, WRITERS[writer].title, *["anchor"] * len(groups) * (len(keys) + 1)))
            continue
        cells = []
        for some in groups.values():
            for key in keys:
                percents = [bd_rate(curve(r, *ANCHOR), curve(r, method, writer), key) for r in some]
                cells.append(_mean(percents, "+.1f", " %"))
            differences = [bd_quality(curve(r, *ANCHOR), curve(r, method, writer), "psnr") for r in some]
            cells.append(_mean(differences, "+.2f", " dB"))
        rows.append((method, WRITERS[writer].title, *cells))
    columns = [
        name
        for group in groups
        for name in (
            *(f"{QUALITIES[key][0].removesuffix(' dB')}, {GROUPS[group]}" for key in keys),
            f"BD-PSNR, {GROUPS[group]}",
        )
    ]
    note = (
        "BD-rate: how many more nucleotides the same quality takes than with H.265 written by TK-SCONE, over the "
        "qualities that both reach; in brackets the clips where those overlap, nothing is extrapolated. BD-PSNR: the "
        "difference of PSNR at the same nucleotides. The curve of a codec is the best of its presets and sizes. The "
        "curves of helix_jax av1 are without a preview, which takes a twentieth of a pool by default. " + SHORT
    )
    return Table("Nucleotides for the same quality", note, ("", "written by", *columns), rows)


def _mean(values, form, unit):
    """Return the mean of the values that are not None as text, and how many these are."""
    valid = [value for value in values if value is not None]
    return f"{np.mean(valid):{form}}{unit} ({len(valid)} of {len(values)})" if valid else "no overlap"


def densities(results: Results) -> Table:
    """Return bits per nucleotide and violations of each writer, over all points of the codecs."""
    rows: Rows = []
    for name, writer in WRITERS.items():
        points = [p for r in results for p in r["points"] if p["writer"] == name and not p["method"].startswith(OURS)]
        if not points:
            continue
        strands, nucleotides = (sum(p[key] for p in points) for key in ("strands", "nucleotides"))
        rows.append(
            (
                writer.title, f"{writer.bits}", f"{writer.bits / writer.length:.4f}",
                f"{8 * sum(p['content_bytes'] for p in points) / nucleotides:.3f}", writer.constraints.describe(),
                f"{sum(p['break_claims'] for p in points) / strands:.2%}",
                f"{sum(p['break_helix'] for p in points) / strands:.2%}",
            )
        )  # fmt: skip
    note = (
        "The same streams, packets and repair; net counts everything, repair and the header strands of these small "
        "pools above all. Violations by the independent checker, on all strands written."
    )
    columns = ("written by", "K of a strand", "gross bit/nt", "net bit/nt", "claims", "break what they claim",
               "break the set helix")  # fmt: skip
    return Table("Writers", note, columns, rows)


def losses(results: Results) -> Table:
    """Return the quality by the share of lost strands, as means over all clips."""
    rows: Rows = []
    shares = sorted({row["share"] for result in results for row in result["losses"]})
    for name in dict.fromkeys(row["method"] for result in results for row in result["losses"]):
        cells = []
        for share in shares:
            selected = [r for result in results for r in result["losses"] if (r["method"], r["share"]) == (name, share)]
            whole = np.mean([row["whole"] for row in selected])
            keys = qualities_of(results)
            figures = [f"{np.mean([row[key] for row in selected]):{QUALITIES[key][1]}}" for key in keys]
            cells.append(" / ".join(figures) + (f" ({whole:.0%} whole)" if 0 < whole < 1 else ""))
        rows.append((name, *cells))
    what = " / ".join(QUALITIES[key][0] for key in qualities_of(results))
    note = (
        f"{what}, means over all clips. Codecs and helix_jax av1 fill as many strands as mode raw takes, or "
        f"{compare.RATE} nucleotides per pixel where tokens are not measured; mode prior takes fewer. Redundancy "
        "is the same for all but one: H.265 with a worse picture and 80 % repair strands in as many. Where nothing can "
        "be shown, a grey picture counts. In brackets: the share of runs in which the outer code brought everything "
        "back, where some did."
    )
    return Table("Strands lost", note, ("", *(f"{share:.0%} lost" for share in shares)), rows)


def times(results: Results) -> Table:
    """Return the megapixels per second of each method and preset at full size."""
    measured: dict[Any, list] = {}
    for result in results:
        pixels = result["frames"] * result["height"] * result["width"]
        for point in result["points"]:
            if point["encode_s"] and point["writer"] == writers.OURS.name and point["scale"] == 1:
                label = " ".join(filter(None, (point["method"], point["preset"])))
                measured.setdefault(label, []).append((pixels, point["encode_s"], point["decode_s"]))
    rows: Rows = []
    for label, all_times in measured.items():
        pixels, encode, decode = np.transpose(all_times)
        rows.append((label, *(f"{np.median(pixels / seconds) / 1e6:.2f}" for seconds in (encode, decode))))
    note = (
        "Video to strands and back, on this machine. helix_jax at its best quality, once compiled, without the check "
        "by the reference decoder that encode makes of coded tokens; codecs at full size, median of all CRFs, one "
        "thread (x265: its own pool)."
    )
    return Table("Speed", note, ("", "to strands, megapixel/s", "back, megapixel/s"), rows)


def each(results: Results) -> Table:
    """Return the quality of every clip at equal nucleotides."""
    names = list(dict.fromkeys(row["method"] for result in results for row in result["equal"]))
    rows: Rows = []
    for result in results:
        if not result["equal"]:
            continue
        have = {row["method"]: row for row in result["equal"]}
        pixels = result["frames"] * result["height"] * result["width"]
        cells = [f"{have[n]['psnr']:.2f} / {have[n]['ms_ssim']:.4f}" if n in have else NONE for n in names]
        size = f"{result['frames']} of {result['width']}x{result['height']}"
        nucleotides = result["equal"][0]["nucleotides"]
        rows.append((result["clip"], result["source"], size, f"{nucleotides / pixels:.4f}", *cells))
    columns = ("clip", "source", "frames", "nt/pixel", *names)
    return Table("Every clip at equal nucleotides", "PSNR dB / MS-SSIM.", columns, rows, brief=False)


def sentences(results: Results) -> list[str]:
    """Return what the figures say, in words."""
    texts, other = [], codecs.H265.title
    whole = [{row["method"]: row["psnr"] for row in result["equal"]} for result in results]
    for ours in dict.fromkeys(name for have in whole for name in have if name.startswith(OURS)):
        apart = [have[other] - have[ours] for have in whole if other in have and ours in have]
        if apart:
            texts.append(
                f"With nothing lost, {other} shows {np.mean(apart):+.1f} dB against {ours} at the same nucleotides "
                f"({min(apart):+.1f} to {max(apart):+.1f} dB over {len(apart)} clips)."
            )
    rows = [row for result in results for row in result["losses"]]
    for ours in dict.fromkeys(row["method"] for row in rows if row["method"].startswith(OURS)):
        parts = []
        for share in sorted({row["share"] for row in rows} - {0.0}):
            both = [[r["psnr"] for r in rows if (r["method"], r["share"]) == (name, share)] for name in (ours, other)]
            if all(both):
                parts.append(f"{np.mean(both[0]):.1f} and {np.mean(both[1]):.1f} dB at {share:.0%}")
        if parts:
            texts.append(f"With strands lost, {ours} and {other} show " + ", ".join(parts) + ".")
    return [*texts, SHORT]


def markdown(tables: Sequence[Table], sentences: Sequence[str]) -> str:
    """Return the sentences and the brief tables as Markdown, for a README."""
    parts = [" ".join(sentences)] if sentences else []
    for table in tables:
        if table.brief:
            line = ["---"] + ["---:" if all(_number(row[n]) for row in table.rows) else "---"
                              for n in range(1, len(table.columns))]  # fmt: skip
            rows = [table.columns, tuple(line), *table.rows]
            text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
            parts.append(f"### {table.title}\n\n{text}\n\n{table.note}")
    return "\n\n".join(parts) + "\n"


def _number(cell: str) -> bool:
    return cell == NONE or cell[:1].isdigit() or cell[:1] in "+-"
