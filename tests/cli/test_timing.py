"""The timing writer at the command line: there and back, the promised figures, and every refusal in one line."""

import collections
import dataclasses
import json

import numpy as np
import pytest

from helix_jax import video
from helix_jax.cli import timing
from helix_jax.strands import fasta
from helix_jax.strands import header as headers
from helix_jax.timing import capacity, channel, quantizer, schedule, scheme
from helix_jax.timing import pool as timing_pool
from helix_jax.timing.graph import TALK, TimeTable
from helix_jax.writer import OF_VIDEO

DONE, WRONG_USE, WITH_LOSS, UNDECODABLE = 0, 2, 3, 4
REPORT_FIELDS = {field.name for field in dataclasses.fields(timing_pool.Report)} | {"command", "versions", "seconds"}
WRITE_FIELDS = {"output", "scheme", "strands", "rounds_per_strand", "time_units", "content_bytes"}
BLOB = np.random.default_rng(3).bytes(180)  # as many strands as the clip: what is compiled serves both
# nearly noiseless and narrow, so that alignment is quick; without parity, whose decoder is compiled for each size
CHEAP = scheme.design(
    channel.Binomial.uniform(0.99), 3, 0.02, 2, 2, name="cheap", duration=48, spacing=8, index=4, check=6, parity=0,
    beams=(8,), overhead=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, run_cli, make_clip, weights_file):
    """Folder with the scheme, a packed file, a clip and its schedule, each written by the commands."""
    folder = tmp_path_factory.mktemp("shelf")
    scheme.write(folder / "cheap.json", CHEAP)
    (folder / "blob").write_bytes(BLOB)
    make_clip(folder / "clip.mp4", 4, 40, 56)
    for command, source, name, *options in (
        ("pack", "blob", "blob"),
        ("encode", "clip.mp4", "clip", "--model", weights_file),
    ):
        result = run_cli(command, folder / source, "-o", folder / f"{name}.tsv", *writer(folder), *options, "--json")
        assert (result.exit_code, result.stderr) == (DONE, "")
        (folder / f"{name}.json").write_text(result.stdout)
        simulate(run_cli, folder, f"{name}.tsv", f"{name}.fasta")
    return folder


def writer(folder):
    return "--writer", "timing", "--scheme", folder / "cheap.json"


def simulate(run_cli, folder, pool, reads, copies=3):
    result = run_cli(
        "timing", "simulate", folder / pool, "-o", folder / reads, "--copies", copies, "--seed", 1,
        "--scheme", folder / "cheap.json", "--json",
    )  # fmt: skip
    assert (result.exit_code, result.stderr) == (DONE, "")
    return only_json(result)


def only_json(result):
    assert result.exit_code == DONE, result.stderr
    assert result.stdout.count("\n") == 1
    assert "\x1b" not in result.stdout + result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def refused(run_cli, tmp_path):
    """refused(status, words, *arguments): fails in one line that holds all the words."""

    def check(status, words, *arguments):
        result = run_cli(*arguments)
        assert result.exit_code == status, (result.exit_code, result.stderr)
        assert result.stdout == ""
        assert result.stderr.startswith("helix-jax: ")
        assert result.stderr.count("\n") == 1
        assert "Errno" not in result.stderr
        for word in words:
            assert str(word) in result.stderr, result.stderr
        assert not [path for path in tmp_path.iterdir() if path.name.startswith("out") or ".partial" in path.name]

    return check


# ---- bytes and video -------------------------------------------------------------------------------


def test_pack_simulate_unpack(tmp_path, shelf, run_cli):
    result = run_cli("unpack", shelf / "blob.fasta", "-o", tmp_path / "back", *writer(shelf), "--json")
    figures = only_json(result)
    assert (tmp_path / "back").read_bytes() == BLOB
    assert figures.keys() == (REPORT_FIELDS - set(OF_VIDEO)) | {"output", "bytes"}
    assert (figures["bytes"], figures["lost_packets"], figures["verified"]) == (180, 0, True)
    reads = [row for group in fasta.read(shelf / "blob.fasta").values() for row in group]
    assert figures["reads"] == len(reads)


@pytest.mark.parametrize(("name", "size"), [("blob", 180), ("clip", 2 * 1 * 5 * 7 * 8 // 8)])
def test_figures_of_writing(shelf, name, size):
    """Counted again from the schedule: 1 x 5 x 7 tokens of 8 digits of 2 bits, for the clip."""
    figures = json.loads((shelf / f"{name}.json").read_text())
    per_pixel = {"time_units_per_pixel"} if name == "clip" else set()
    assert figures.keys() == WRITE_FIELDS | {"net_bits_per_time_unit", "capacity", "key"} | per_pixel
    lines = [line.split("\t") for line in (shelf / f"{name}.tsv").read_text().splitlines() if line[0] != "#"]
    time = sum(sum(map(int, times.split(","))) + 0.5 * len(letters) for _, letters, times in lines)
    assert (figures["strands"], figures["rounds_per_strand"]) == (len(lines), len(lines[0][1]))
    assert (figures["scheme"], figures["content_bytes"]) == ("cheap", size)
    assert figures["time_units"] == pytest.approx(time)
    assert figures["net_bits_per_time_unit"] == pytest.approx(8 * size / time, abs=1e-4)
    assert figures["net_bits_per_time_unit"] < figures["capacity"]
    assert figures["capacity"] == pytest.approx(capacity.capacity(CHEAP.table, overhead=0.5), abs=1e-4)


def test_encode_simulate_decode(tmp_path, shelf, run_cli, weights_file):
    result = run_cli(
        "decode", shelf / "clip.fasta", "-o", tmp_path / "back.mp4", *writer(shelf), "--model", weights_file, "--json"
    )
    figures = only_json(result)
    about_video = {"frames", "height", "width", "fps", "pixel_format", "sound", "lost_tokens"}
    assert figures.keys() == REPORT_FIELDS | {"output"} | about_video
    assert (figures["lost_tokens"], figures["verified"]) == (0, True)
    assert video.open_video(tmp_path / "back.mp4").info == video.open_video(shelf / "clip.mp4").info


def test_video_past_repair_status_3(tmp_path, shelf, run_cli, weights_file):
    """The strands of the header come, and a few others."""
    lines = (shelf / "clip.tsv").read_text().splitlines(keepends=True)
    headed = 3 + 2 * -(-headers.SIZE // timing_pool.symbol_bytes(CHEAP))
    (tmp_path / "less.tsv").write_text("".join(lines[: headed + 4]))
    (tmp_path / "cheap.json").write_text((shelf / "cheap.json").read_text())
    simulate(run_cli, tmp_path, "less.tsv", "less.fasta")
    result = run_cli(
        "decode", tmp_path / "less.fasta", "-o", tmp_path / "b.mp4", *writer(shelf), "--model", weights_file, "--json"
    )
    assert result.exit_code == WITH_LOSS, result.stderr
    figures = json.loads(result.stdout)
    assert 0 < figures["lost_tokens"] < 1
    assert not figures["verified"]
    assert f"{figures['lost_tokens']:.1%} of the tokens" in result.stderr
    assert video.open_video(tmp_path / "b.mp4").info == video.open_video(shelf / "clip.mp4").info


def test_what_cannot_be_decoded_status_4(tmp_path, shelf, refused, weights_file):
    out = ("-o", tmp_path / "out.mp4")
    refused(UNDECODABLE, ["holds bytes", "unpack"], "decode", shelf / "blob.fasta", *out, *writer(shelf))
    refused(UNDECODABLE, ["holds video", "decode"], "unpack", shelf / "clip.fasta", *out, *writer(shelf))
    records = [line for line in (shelf / "blob.fasta").read_text().splitlines() if line[0] != ">"]
    alike = collections.defaultdict(list)
    for record in records:
        alike[record[:12]].append(record)
    one = next(group for group in alike.values() if len(group) == 3)
    for name, reads, words in (("one", one, ["more copies"]), ("noise", ["ACGT" * 20] * 3, ["another scheme"])):
        (tmp_path / f"{name}.fasta").write_text("".join(f">{read}\n{read}\n" for read in reads))
        refused(UNDECODABLE, words, "unpack", tmp_path / f"{name}.fasta", *out, *writer(shelf))


def test_table_for_people(tmp_path, shelf, run_cli):
    result = run_cli("pack", shelf / "blob", "-o", tmp_path / "a.tsv", *writer(shelf))
    assert result.exit_code == DONE
    for words in ("strands", "rounds per strand", "time units", "net bits per time unit", "cheap"):
        assert words in result.stdout
    assert (tmp_path / "a.tsv").read_text() == (shelf / "blob.tsv").read_text()


def test_the_talks_scheme_is_the_default(tmp_path, shelf, run_cli):
    packed = only_json(run_cli("pack", shelf / "blob", "-o", tmp_path / "a.tsv", "--writer", "timing", "--json"))
    assert packed["scheme"] == "talk"
    simulated = only_json(run_cli("timing", "simulate", tmp_path / "a.tsv", "-o", tmp_path / "a.fasta", "--json"))
    assert simulated["scheme"] == "talk"
    plan = schedule.read(tmp_path / "a.tsv")
    assert plan.levels(TALK).shape == plan.letters.shape == (simulated["strands"], packed["rounds_per_strand"])


# ---- options of the other writer -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("commands", "option"),
    [
        (("encode", "pack"), ("--constraints", "helix")),
        (("encode", "pack"), ("--strand-length", 150)),
        (("encode", "pack"), ("--survive", 0.1)),
        (("encode", "decode", "pack", "unpack"), ("--forbid", "ACGT")),
        (("encode", "decode", "pack", "unpack"), ("--left-primer", "ACGT")),
        (("encode", "decode", "pack", "unpack"), ("--right-primer", "ACGT")),
    ],
)
def test_options_of_the_other_writer(tmp_path, shelf, refused, commands, option):
    """Also where the value is the default, and before a file is read."""
    inputs = {"encode": "clip.mp4", "decode": "clip.fasta", "pack": "blob", "unpack": "blob.fasta"}
    for command in commands:
        words, out = [option[0], "not for --writer timing"], tmp_path / "out.mp4"
        refused(WRONG_USE, words, command, shelf / inputs[command], "-o", out, *writer(shelf), *option)
        words = ["--scheme", "not for --writer bases"]
        refused(WRONG_USE, words, command, shelf / inputs[command], "-o", out, "--scheme", "talk", *option)


def test_several_are_all_named(tmp_path, shelf, refused):
    options = ("--forbid", "ACGT", "--strand-length", 90)
    words = ["--strand-length, --forbid"]
    refused(WRONG_USE, words, "pack", shelf / "blob", "-o", tmp_path / "out", "--writer", "timing", *options)


def test_schemes_that_cannot_be_used(tmp_path, shelf, refused):
    (tmp_path / "broken.json").write_text('{"format": ')
    fields = json.loads((shelf / "cheap.json").read_text())
    (tmp_path / "less.json").write_text(json.dumps(fields | {"copies": 0}))
    for name, words in (
        ("walk", ["'walk'", "one of talk"]),
        (tmp_path / "broken.json", ["broken.json", "not a timing scheme", "timing design"]),
        (tmp_path / "less.json", ["copies is 0"]),
    ):
        using = ("-o", tmp_path / "out", "--writer", "timing", "--scheme", name)
        for command, source in (("pack", "blob"), ("encode", "clip.mp4"), ("unpack", "blob.fasta")):
            refused(WRONG_USE, words, command, shelf / source, *using)
        refused(WRONG_USE, words, "timing", "simulate", shelf / "blob.tsv", "-o", tmp_path / "out", "--scheme", name)
        refused(WRONG_USE, words, "timing", "capacity", "--scheme", name)


# ---- simulate --------------------------------------------------------------------------------------


def test_simulate(tmp_path, shelf, run_cli):
    """Its figures against the files."""
    figures = simulate(run_cli, shelf, "blob.tsv", "again.fasta")
    assert (shelf / "again.fasta").read_bytes() == (shelf / "blob.fasta").read_bytes()
    reads = [row for group in fasta.read(shelf / "blob.fasta").values() for row in group]
    plan = schedule.read(shelf / "blob.tsv")
    assert figures["copies"] == len(reads) == 3 * figures["strands"] == 3 * len(plan.letters)
    assert figures["bases"] == sum(map(len, reads))
    assert (figures["copies_of_each"], figures["empty_copies"], figures["rounds"]) == (3, 0, plan.letters.size)
    chance = 0.01 ** plan.durations.astype(float)
    assert abs(figures["lost_runs"] - 3 * chance.sum()) < 5 * np.sqrt(3 * chance.sum())
    assert figures["lost_runs_share"] == pytest.approx(figures["lost_runs"] / (3 * plan.letters.size), abs=1e-6)
    assert figures["runs_lost_in_all_copies"] == 0
    heads = [line for line in (shelf / "blob.fasta").read_text().splitlines() if line[0] == ">"]
    assert heads == [f">read_{i:07d} {n} nt" for i, n in enumerate(lengths_in_order(shelf / "blob.fasta"))]


def lengths_in_order(path):
    return [len(line) for line in path.read_text().splitlines() if line[0] != ">"]


def test_reads_are_of_the_law_that_was_named(tmp_path, shelf, run_cli):
    """The schedule's scheme by its name; another law of the same times by --scheme."""
    sure = dataclasses.replace(CHEAP, law=channel.Binomial.uniform(1.0))
    scheme.write(tmp_path / "sure.json", sure)
    result = run_cli(
        "timing", "simulate", shelf / "blob.tsv", "-o", tmp_path / "a.fasta", "--scheme", tmp_path / "sure.json",
        "--copies", 3, "--json",
    )  # fmt: skip
    assert only_json(result)["lost_runs"] == 0
    plan = schedule.read(shelf / "blob.tsv")
    wanted = collections.Counter(
        "".join("ACGT"[a] * t for a, t in zip(*row, strict=True))
        for row in zip(plan.letters.tolist(), plan.durations.tolist(), strict=True)
    )
    found = collections.Counter(line for line in (tmp_path / "a.fasta").read_text().splitlines() if line[0] != ">")
    assert found == {text: 3 * n for text, n in wanted.items()}


def test_simulate_refuses(tmp_path, shelf, refused):
    text = (shelf / "blob.tsv").read_text()
    (tmp_path / "cut.tsv").write_text(text[:-30])
    (tmp_path / "talk.tsv").write_text("# helix_jax timing schedule 1\n# scheme: talk\n0\tCG\t1,3\n")
    silent = dataclasses.replace(CHEAP, law=channel.Binomial.uniform(0.0))
    scheme.write(tmp_path / "silent.json", silent)
    out, known = ("-o", tmp_path / "out"), ("--scheme", shelf / "cheap.json")
    for words, pool, *options in (
        (["cut.tsv", f"line {text.count(chr(10))}"], tmp_path / "cut.tsv", *known),
        (["'cheap'", "--scheme"], shelf / "blob.tsv"),
        (["strand 0", "not in the time table"], tmp_path / "talk.tsv"),
        (["not in the time table"], tmp_path / "talk.tsv", *known),
        (["not a timing schedule"], shelf / "blob.fasta", *known),
        (["none.tsv", "no such file"], tmp_path / "none.tsv", *known),
        (["--copies 0"], shelf / "blob.tsv", *known, "--copies", 0),
        (["--copies 256"], shelf / "blob.tsv", *known, "--copies", 256),
        (["--seed -1"], shelf / "blob.tsv", *known, "--seed", -1),
        (["--seed 4294967296"], shelf / "blob.tsv", *known, "--seed", 2**32),
        (["substitution: 1.5"], shelf / "blob.tsv", *known, "--substitution", 1.5),
        (["split: -0.1"], shelf / "blob.tsv", *known, "--split", -0.1),
        (["no copy"], shelf / "blob.tsv", "--scheme", tmp_path / "silent.json", "--copies", 3),
    ):
        refused(WRONG_USE, words, "timing", "simulate", pool, *out, *options)
    refused(
        WRONG_USE, ["no folder"], "timing", "simulate", shelf / "blob.tsv", "-o", tmp_path / "none" / "a", *known,
        "--copies", 3,
    )  # fmt: skip


def test_reads_of_unlike_lengths(tmp_path):
    rows = [np.array(row, np.uint8) for row in ([0, 1], [3], [2, 2, 2])]
    fasta.write(tmp_path / "a.fasta.gz", rows, ["x", "y", "z"], name="read")
    back = fasta.read(tmp_path / "a.fasta.gz")
    assert {n: group.tolist() for n, group in back.items()} == {2: [[0, 1]], 1: [[3]], 3: [[2, 2, 2]]}
    with pytest.raises(ValueError, match="L >= 1"):
        fasta.write(tmp_path / "b.fasta", [*rows, np.zeros(0, np.uint8)], list("wxyz"))


# ---- capacity and example --------------------------------------------------------------------------

GOLDEN = {"lambda": 3.519034, "capacity": 1.815179, "alpha": 0.849564, "baseline": 1.584963, "theorem_rate": 1.6679}


def test_example(tmp_path, run_cli):
    figures = only_json(run_cli("timing", "example", "--json"))
    for name, value in GOLDEN.items():
        assert figures[name] == pytest.approx(value, abs=1e-6 if name != "theorem_rate" else 5e-5)
    assert figures["mean_time"] == pytest.approx(1.177074, abs=1e-6)
    golden = {"0.005": 1.7700, "0.01": 1.7335, "0.02": 1.6679, "0.05": 1.4938, "0.1": 1.2320}
    assert figures["theorem_rates"] == pytest.approx(golden, abs=6e-5)
    times = [f"{row['transition']}{{{','.join(map(str, row['times']))}}}" for row in figures["transitions"]]
    assert " ".join(times) == str(TALK)
    chances = {r["transition"]: r["probability"] for r in figures["transitions"]}
    assert chances["A->C"] == pytest.approx([0.2967, 0.0843], abs=5e-5)
    for base in "ACGT":
        assert sum(sum(row) for name, row in chances.items() if name[0] == base) == pytest.approx(1, abs=1e-8)

    shown = run_cli("timing", "example", "--plot", tmp_path / "a.png")
    assert shown.exit_code == DONE
    for words in ("A->C", "1, 2", "0.2967", "3.519033", "1.815179", "1.6679", "+5.2%", "bits/unit"):
        assert words in shown.stdout
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_plot_into_no_folder(tmp_path, refused):
    refused(WRONG_USE, ["no folder"], "timing", "example", "--plot", tmp_path / "none" / "a.png")


def test_capacity_of_the_talk_is_the_example(run_cli):
    figures = only_json(run_cli("timing", "capacity", "--json"))
    for name, value in GOLDEN.items():
        assert figures[name] == pytest.approx(value, abs=1e-6 if name != "theorem_rate" else 5e-5)
    assert (figures["scheme"], figures["times"], figures["overhead"], figures["delta"]) == ("talk", str(TALK), 0, 0.02)
    assert "gradient" not in figures
    assert "precision_resolution" not in figures
    assert only_json(run_cli("timing", "capacity", "--times", str(TALK), "--json")) == figures | {"scheme": None}


def test_capacity_of_other_times(run_cli):
    """Two bases that alternate: capacity 0 needs no theory; four with times 1 and 3 alike: 3 (z + z^3) = 1."""
    alike = only_json(
        run_cli("timing", "capacity", "--times", str(TimeTable.uniform((1, 3))), "--delta", 0.005, "--json")
    )
    z = 1 / alike["lambda"]
    assert 3 * (z + z**3) == pytest.approx(1, abs=1e-8)
    assert alike["precision_resolution"] == alike["theorem_rate"] == pytest.approx(1.670, abs=6e-4)
    slow = only_json(
        run_cli("timing", "capacity", "--times", str(TimeTable.uniform((1, 3))), "--overhead", 2, "--json")
    )
    z = 1 / slow["lambda"]
    assert 3 * (z**3 + z**5) == pytest.approx(1, abs=1e-8)
    assert slow["baseline"] == pytest.approx(np.log2(3) / 3, abs=1e-8)
    two = run_cli("timing", "capacity", "--times", "A->C{1} C->A{1,2} A->G{1} G->A{1} C->T{1} T->A{1}")
    assert two.exit_code == DONE
    assert "alpha" in two.stdout


def test_capacity_takes_a_schemes_own_numbers(shelf, run_cli):
    figures = only_json(run_cli("timing", "capacity", "--scheme", shelf / "cheap.json", "--json"))
    assert (figures["scheme"], figures["overhead"], figures["delta"]) == ("cheap", 0.5, 0.02)
    assert figures["capacity"] == pytest.approx(capacity.capacity(CHEAP.table, overhead=0.5), abs=1e-8)
    other = only_json(run_cli("timing", "capacity", "--scheme", shelf / "cheap.json", "--overhead", 0, "--json"))
    assert other["capacity"] == pytest.approx(capacity.capacity(CHEAP.table), abs=1e-8)


def test_gradient_of_a_poisson_scheme(tmp_path, run_cli):
    """Against the difference that a longer run of one transition makes."""
    mean = np.where(np.eye(4), 0, 1.3)
    chosen = dataclasses.replace(CHEAP, table=TimeTable.uniform((1, 4)), overhead=0.0, copies=5)
    values = []
    for step in (0, 1e-4):
        mean[0, 2] += step
        scheme.write(
            tmp_path / "a.json", dataclasses.replace(chosen, law=channel.Poisson(tuple(map(tuple, mean.tolist()))))
        )
        values.append(only_json(run_cli("timing", "capacity", "--scheme", tmp_path / "a.json", "--json")))
    first, second = values
    assert first["gradient"].keys() == {f"{b}->{a}" for b in "ACGT" for a in "ACGT" if a != b}
    slope = (second["capacity_with_errors"] - first["capacity_with_errors"]) / 1e-4
    assert first["gradient"]["A->G"] == pytest.approx(slope, rel=1e-2)
    assert first["gradient"]["A->C"] == pytest.approx(first["gradient"]["A->G"], rel=1e-4)
    assert first["capacity_with_errors"] < first["capacity"]
    shown = run_cli("timing", "capacity", "--scheme", tmp_path / "a.json").stdout
    assert "gradient" in shown
    assert "A->G" in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--times", "A->C{1,2"), ["'A->C{1,2'", "form"]),
        (("--times", "A->A{1}"), ["A->A", "follow itself"]),
        (("--times", "A->C{2,1} C->A{1} G->A{1} T->A{1}"), ["A->C", "ascend"]),
        (("--times", "A->C{0} C->A{1} G->A{1} T->A{1}"), ["A->C", "at least 1"]),
        (("--times", ""), ["nothing may follow A"]),
        (("--times", "A->C{1} C->A{1} G->T{1,2} T->G{1}"), ["reducible", "A and G"]),
        (("--times", "A->C{1}", "--scheme", "talk"), ["--scheme and --times"]),
        (("--delta", 0.5), ["delta 0.5"]),
        (("--delta", -0.1), ["delta -0.1"]),
        (("--delta", "nan"), ["delta nan"]),
        (("--overhead", -1), ["overhead -1"]),
        (("--overhead", "inf"), ["overhead inf"]),
    ],
)
def test_capacity_refuses(refused, options, words):
    refused(WRONG_USE, words, "timing", "capacity", *options)


# ---- design ----------------------------------------------------------------------------------------

NINETY = ("--law", "binomial", "--parameter", 0.9)


def test_design(tmp_path, run_cli):
    """From a chemistry to a scheme that packs."""
    path = tmp_path / "mine.json"
    figures = only_json(run_cli("timing", "design", *NINETY, "--duration", 96, "-o", path, "--json"))
    made = scheme.named(str(path))
    assert made.name == figures["scheme"] == "mine"
    assert made.table == TimeTable.uniform((1, 2))
    assert (made.copies, made.delta, made.duration, made.splitting, made.overhead) == (5, 0.02, 96, None, 0)
    assert figures["coder"] == "range coder"
    found = quantizer.quantizer(made.law, made.table, 5)
    assert [row["transition"] for row in figures["times"][:2]] == ["A->C", "A->C"]
    assert [row["error"] for row in figures["times"]] == pytest.approx([*found.decisions[0][1].errors] * 12, abs=1e-9)
    assert figures["error"] == pytest.approx(found.error, abs=1e-9)
    assert figures["theorem_rate"] < figures["achieved_rate"] < figures["capacity"]
    priced = quantizer.achieved_rate(made.table, found.decisions, price=quantizer.PRICE)
    assert figures["rate_after_lost_runs"] == pytest.approx(priced, abs=1e-9)
    assert priced < figures["achieved_rate"]
    assert figures["splitting_rate"] < figures["capacity"]
    p, q = map(int, figures["splitting"].split(":"))
    assert figures["splitting_rate"] == pytest.approx(p / q, abs=1e-8)
    assert figures["theorem_bits_per_hour"] == pytest.approx(60 * figures["theorem_rate"], abs=1e-2)
    assert figures["scheme_bits_per_hour"] == pytest.approx(60 * figures["scheme_rate"], abs=1e-2)
    bits = 8 * timing_pool.symbol_bytes(made) / 1.1
    assert figures["bits_per_strand"] == pytest.approx(bits, abs=1e-3)
    assert figures["scheme_rate"] == pytest.approx(bits / figures["time_units_per_strand"], rel=1e-5)
    assert figures["rounds_per_strand"] == made.frame.rounds

    (tmp_path / "blob").write_bytes(np.random.default_rng(0).bytes(4000))
    packed = only_json(
        run_cli("pack", tmp_path / "blob", "-o", tmp_path / "a.tsv", "--writer", "timing", "--scheme", path, "--json")
    )
    assert packed["time_units"] / packed["strands"] == pytest.approx(figures["time_units_per_strand"], rel=0.01)
    # less the header's strands, two repair strands a block, and what a last strand leaves empty
    others = packed["strands"] - 2 * -(-headers.SIZE // timing_pool.symbol_bytes(made))
    whole = figures["scheme_rate"] * others / packed["strands"]
    assert packed["net_bits_per_time_unit"] == pytest.approx(whole, rel=0.05)
    assert packed["net_bits_per_time_unit"] < figures["scheme_rate"]


def test_design_for_people(run_cli):
    shown = run_cli("timing", "design", *NINETY, "--unit-seconds", 30)
    assert shown.exit_code == DONE
    for words in ("A->C", "T->G", "capacity", "theorem bits per hour", "scheme bits per hour", "splitting"):
        assert words in shown.stdout
    slow, fast = (
        only_json(run_cli("timing", "design", *NINETY, "--unit-seconds", seconds, "--json")) for seconds in (60, 30)
    )
    assert fast["theorem_bits_per_hour"] == pytest.approx(2 * slow["theorem_bits_per_hour"], abs=0.01)
    assert fast["scheme_bits_per_hour"] == pytest.approx(2 * slow["scheme_bits_per_hour"], abs=0.01)


def test_design_with_parameters_of_each_transition(tmp_path, run_cli):
    """Slow transitions get longer times, and only they."""
    rows = np.where(np.eye(4), 0, 0.9)
    rows[3, 0] = 0.6
    (tmp_path / "p.json").write_text(json.dumps(rows.tolist()))
    figures = only_json(run_cli("timing", "design", "--law", "binomial", "--parameters", tmp_path / "p.json", "--json"))
    times = collections.defaultdict(list)
    for row in figures["times"]:
        times[row["transition"]].append(row["time"])
        assert row["error"] <= 0.02
    assert times.pop("T->A") == [1, 3]
    assert set(map(tuple, times.values())) == {(1, 2)}


@pytest.mark.parametrize(("given", "pair"), [("7:4", (7, 4)), ("best", None)])
def test_design_with_state_splitting(tmp_path, run_cli, monkeypatch, given, pair):
    monkeypatch.setattr(timing, "TABLE_LIMIT", 4096)
    path = tmp_path / "split.json"
    figures = only_json(
        run_cli("timing", "design", *NINETY, "--splitting", given, "--duration", 64, "-o", path, "--json")
    )
    made = scheme.named(str(path))
    assert figures["coder"] == "state splitting"
    assert figures["splitting"] == "{}:{}".format(*made.splitting)
    assert pair in (None, made.splitting)
    assert made.duration % made.splitting[1] == 0
    assert figures["scheme_rate"] < figures["splitting_rate"] < figures["capacity"]


def test_design_for_rounds_with_overhead(run_cli):
    figures = only_json(run_cli("timing", "design", *NINETY, "--overhead", 3, "--longest", 4, "--levels", 3, "--json"))
    assert figures["capacity"] < 2
    assert figures["baseline"] == pytest.approx(np.log2(3) / 4, abs=1e-8)
    assert figures["baseline"] < figures["achieved_rate"] < figures["capacity"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--law", "poisson", "--parameter", 0.1), ["A->C", "delta 0.02 cannot be had", "allow delta"]),
        ((*NINETY, "--delta", 0), ["delta: 0.0"]),
        ((*NINETY, "--delta", 1), ["delta: 1.0"]),
        ((*NINETY, "--copies", 0), ["copies is 0"]),
        ((*NINETY, "--copies", 300), ["copies is 300"]),
        ((*NINETY, "--levels", 9), ["9 levels"]),
        ((*NINETY, "--levels", 0), ["levels"]),
        ((*NINETY, "--overhead", -1), ["overhead: -1"]),
        ((*NINETY, "--unit-seconds", 0), ["--unit-seconds 0"]),
        ((*NINETY, "--unit-seconds", "nan"), ["--unit-seconds nan"]),
        ((*NINETY, "--duration", 0), ["duration is 0"]),
        ((*NINETY, "--splitting", "2:1"), ["p:q = 2:1", "above the capacity", "use"]),
        ((*NINETY, "--splitting", "0:5"), ["p:q = 0:5"]),
        ((*NINETY, "--splitting", "7/4"), ["'7/4'", "9:5"]),
        (("--law", "binomial", "--parameter", 1.5), ["p of A->C is 1.5"]),
        (("--law", "poisson", "--parameter", "nan"), ["mean of A->C is nan"]),
        (("--law", "binomial"), ["--parameter", "--parameters"]),
        ((*NINETY, "--parameters", "x.json"), ["--parameter", "--parameters"]),
    ],
)
def test_design_refuses(tmp_path, refused, options, words):
    refused(WRONG_USE, words, "timing", "design", *options, "-o", tmp_path / "out.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[0, 0.9", ["p.json", "4 lists of 4"]),
        ("[1, 2, 3, 4]", ["p.json", "4 lists of 4"]),
        ("7", ["p.json", "4 lists of 4"]),
        ("[[0, 0.9, 0.9, null]]", ["p.json", "4 lists of 4"]),
        ("[[0.9, 0.9, 0.9]]", ["4 x 4"]),
        (json.dumps([[0.9] * 4] * 4), ["A->A", "give 0"]),
    ],
)
def test_design_refuses_parameters(tmp_path, refused, text, words):
    (tmp_path / "p.json").write_text(text)
    options = ("--law", "binomial", "--parameters", tmp_path / "p.json")
    refused(WRONG_USE, words, "timing", "design", *options, "-o", tmp_path / "out.json")
    gone = ("--law", "binomial", "--parameters", tmp_path / "gone.json")
    refused(WRONG_USE, ["gone.json", "No such file"], "timing", "design", *gone)


def test_a_design_does_not_take_a_built_in_name(tmp_path, refused):
    refused(WRONG_USE, ["talk", "built in"], "timing", "design", *NINETY, "-o", tmp_path / "talk.json")


# ---- help ------------------------------------------------------------------------------------------


def test_help_teaches(run_cli):
    """Every command has an example; the writers are told apart."""
    for command in timing.app.registered_commands:
        name = command.callback.__name__
        result = run_cli("timing", name, "--help")
        assert result.exit_code == DONE
        assert f"Example: helix-jax timing {name}" in result.stdout
        assert command.callback.__doc__.split()[0] in result.stdout
    for command in ("encode", "decode", "pack", "unpack"):
        shown = run_cli(command, "--help").stdout
        assert f"Example: helix-jax {command}" in shown
        for word in ("--writer", "bases|timing", "--scheme", "talk"):
            assert word in shown
    assert "timing" in run_cli("--help").stdout
    assert run_cli("pack", "x", "-o", "y", "--writer", "ink").exit_code == WRONG_USE
