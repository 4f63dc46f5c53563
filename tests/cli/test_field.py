"""What users bring, at the command line: files that laboratories and cameras make, pipes, links, and options that say
nothing. Each right value is that of a field test."""

import contextlib
import functools
import inspect
import io
import json
import os
import signal
import subprocess
import sys
import threading
import typing
from pathlib import Path

import numpy as np
import pysam
import pytest
import typer
import zstandard
from typer.testing import CliRunner

from helix_jax import codec, files, packing
from helix_jax.cli import app
from helix_jax.cli import options as cli_options
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.reads import fastq
from helix_jax.strands import fasta, header_search, pool, primers, records

OPTIMISED = True  # see tests/conftest.py

CHEAP = ("--constraints", "strand", "--strand-length", "100")
DONE, WRONG_USE, UNDECODABLE = 0, 2, 4
BLOB = np.random.default_rng(7).bytes(600)
LEFT, RIGHT = "ACACGACGCTCTTCCGATCT", "AGATCGGAAGAGCACACGTC"


pytestmark = pytest.mark.usefixtures("one_shape")


@pytest.fixture(scope="module")
def packed(tmp_path_factory, run_cli):
    """(file of 600 bytes, its pool in FASTA, the records of the pool as (name, letters))."""
    folder = tmp_path_factory.mktemp("packed")
    (folder / "file").write_bytes(BLOB)
    result = run_cli("pack", folder / "file", "-o", folder / "p.fasta", "--redundancy", 0.3, *CHEAP)
    assert result.exit_code == DONE, result.stderr
    lines = (folder / "p.fasta").read_text().splitlines()
    return folder / "file", folder / "p.fasta", list(zip(lines[::2], lines[1::2], strict=True))


@pytest.fixture
def unpacked(run_cli, tmp_path):
    """unpacked(*sources and options) -> figures, once the bytes are found right."""

    def check(*words):
        result = run_cli("unpack", *words, "-o", tmp_path / "out", "--json")
        assert result.exit_code == DONE, result.stderr
        assert (tmp_path / "out").read_bytes() == BLOB
        return json.loads(result.stdout)

    return check


def as_fasta(path, rows):
    path.write_text("".join(f"{name}\n{letters}\n" for name, letters in rows))
    return path


def as_fastq(path, rows, quality=lambda letters: "I" * (len(letters) - 1) + "5"):
    path.write_text("".join(f"@{name[1:]}\n{letters}\n+\n{quality(letters)}\n" for name, letters in rows))
    return path


def as_bam(path, rows):
    with pysam.AlignmentFile(str(path), "wb", header={"HD": {"VN": "1.6"}}) as out:
        for name, letters in rows:
            read = pysam.AlignedSegment()
            read.query_name, read.flag, read.query_sequence = name[1:], 4, letters
            read.query_qualities_str = "I" * (len(letters) - 1) + "5"
            out.write(read)
    return path


def turned(letters):
    return letters.translate(str.maketrans("ACGT", "TGCA"))[::-1]


# ---- outputs -----------------------------------------------------------------------------------------------


def commands(app=app.app, names=()):
    """Every command of the program: (words of its name, its function)."""
    for command in app.registered_commands:
        yield (*names, command.name or command.callback.__name__.replace("_", "-")), command.callback
    for group in app.registered_groups:
        yield from commands(group.typer_instance, (*names, group.name))


def parameters(function):
    """Parameters of a command: (name, the flag or "" of an argument, is it a path, is it required)."""
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        if typing.get_origin(parameter.annotation) is not typing.Annotated:
            continue
        kind, info = typing.get_args(parameter.annotation)[:2]
        flags = [flag for flag in getattr(info, "param_decls", None) or () if flag.startswith("--")]
        is_option = isinstance(info, typer.models.OptionInfo)
        flag = (flags or [f"--{name.replace('_', '-')}"])[0] if is_option else ""
        path = kind is Path or Path in typing.get_args(kind) or name == "output"  # which may name a folder: a text
        yield name, flag, path, parameter.default is inspect.Parameter.empty


def file_pairs():
    """Each pair of an input and an output that some command has: (words, its parameters, the two names)."""
    for words, function in commands():
        found = list(parameters(function))
        paths = [name for name, _, path, _ in found if path and name not in ("out", "videos")]
        outputs = ("output", "plot", "report")
        for into in set(paths) & set(outputs):
            for source in [name for name in paths if name not in outputs]:
                yield pytest.param(words, found, source, into, id=f"{' '.join(words)}: {source} as {into}")


def test_all_commands_with_outputs_are_seen():
    seen = {(words, source, into) for words, _, source, into in (pair.values for pair in file_pairs())}
    for words in (("pack",), ("unpack",), ("encode",), ("decode",), ("simulate",), ("timing", "simulate")):
        assert any(w == words and into == "output" for w, _, into in seen), words
    assert (("timing", "design"), "parameters", "output") in seen
    assert (("decode",), "prior", "plot") in seen


@pytest.mark.parametrize(("words", "found", "source", "into"), sorted(file_pairs(), key=lambda pair: pair.id))
@pytest.mark.parametrize("link", ["same", "symbolic", "hard"])
def test_no_command_writes_over_its_input(run_cli, tmp_path, words, found, source, into, link):
    """Refused before any work: the input is not even looked at, so that it may hold anything."""
    victim, name = tmp_path / "victim.png", tmp_path / "name.png"
    victim.write_bytes(b"precious")
    {"same": lambda: None, "symbolic": lambda: name.symlink_to(victim), "hard": lambda: os.link(victim, name)}[link]()
    arguments = []
    for parameter, flag, _, required in found:
        if parameter == source:
            value = victim
        elif parameter == into:
            value = victim if link == "same" else name
        elif required:
            value = "binomial" if parameter == "law" else tmp_path / f"other-{parameter}.mp4"
        else:
            continue
        arguments += [flag, value] if flag else [value]
    result = run_cli(*words, *arguments)
    assert result.exit_code == WRONG_USE, result.stderr
    assert "which would be destroyed" in result.stderr
    assert str(victim) in result.stderr
    assert victim.read_bytes() == b"precious"


def test_the_schedule_of_the_timing_writer_is_an_output_too(run_cli, tmp_path):
    path = tmp_path / "notes.tsv"
    path.write_bytes(b"precious")
    for command in (("pack", path), ("encode", path)):
        result = run_cli(*command, "-o", path, "--writer", "timing")
        assert (result.exit_code, path.read_bytes()) == (WRONG_USE, b"precious")
        assert "which would be destroyed" in result.stderr
    scheme = tmp_path / "scheme.json"
    scheme.write_bytes(b"precious")
    result = run_cli("pack", tmp_path / "f", "-o", scheme, "--writer", "timing", "--scheme", scheme)
    assert (result.exit_code, scheme.read_bytes()) == (WRONG_USE, b"precious")


def test_redirected_input_and_two_outputs_of_one_name(run_cli, packed, tmp_path):
    path = tmp_path / "p.fasta"
    path.write_bytes(packed[1].read_bytes())
    script = f"from helix_jax import files; files.check_paths(['-'], [{str(path)!r}])"
    with open(path) as source:
        child = subprocess.run(
            [sys.executable, "-c", script], stdin=source, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert "it is the input standard input" in child.stderr
    result = run_cli("unpack", packed[1], "-o", tmp_path / "a.png", "--plot", tmp_path / "a.png", "--reads")
    assert result.exit_code == WRONG_USE
    assert "another output has that name too" in result.stderr


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("no/folder/x.fasta", "there is no folder"),
        ("", "it is a folder"),
        ("/dev/null", "device or a pipe"),
        ("x.fasta.bz2", "give a name that ends in"),
        ("x.xlsx", "give a name that ends in"),
    ],
)
def test_outputs_are_checked_before_the_work(run_cli, tmp_path, output, words):
    """The input does not exist, and the output is what is refused."""
    for command in ("pack", "encode", "simulate"):
        result = run_cli(command, tmp_path / "none", "-o", tmp_path / output)
        assert result.exit_code == WRONG_USE
        assert words in result.stderr, result.stderr


def test_pictures_are_png(run_cli, packed, tmp_path):
    result = run_cli("unpack", packed[1], "-o", tmp_path / "x", "--reads", "--plot", tmp_path / "x.pdf")
    assert result.exit_code == WRONG_USE
    assert "ends in .png" in result.stderr


# ---- pipes -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def pipe(path, content):
    """A named pipe into which the content is written once."""
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    yield path
    writer.join()


def test_pipes_in_and_standard_output(packed, tmp_path, unpacked):
    with pipe(tmp_path / "strands", packed[1].read_bytes()) as source:
        unpacked(source)
    as_fastq(tmp_path / "r.fastq", packed[2])
    with pipe(tmp_path / "reads", (tmp_path / "r.fastq").read_bytes()) as source:
        unpacked(source)
    for content in (packed[1].read_bytes(), (tmp_path / "r.fastq").read_bytes()):
        result = CliRunner().invoke(app.app, ["unpack", "-", "-o", "-", "--json"], input=content)
        assert (result.exit_code, result.stdout_bytes) == (DONE, BLOB)
        assert json.loads(result.stderr)["bytes"] == len(BLOB)


def test_pack_from_standard_input_to_standard_output(packed):
    options = ["--redundancy", "0.3", *CHEAP]
    result = CliRunner().invoke(app.app, ["pack", "-", "-o", "-", *options], input=BLOB)
    assert (result.exit_code, result.stdout_bytes) == (DONE, packed[1].read_bytes())
    assert "nucleotides" in result.stderr
    result = CliRunner().invoke(app.app, ["simulate", "-", "-o", "-", "--coverage", "1"], input=packed[1].read_bytes())
    assert (result.exit_code, result.stdout_bytes[:1]) == (DONE, b"@"), repr(result.exception)
    result = CliRunner().invoke(app.app, ["inspect", "-"], input=packed[1].read_bytes())
    assert result.exit_code == DONE


def test_standard_input_of_a_process(packed):
    """As a shell gives it: /dev/stdin, from a pipe. Compiled without most optimisations, in half the time."""
    command = [sys.executable, "-m", "helix_jax.cli", "unpack", "/dev/stdin", "-o", "-"]
    quick = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    child = subprocess.run(command, input=packed[1].read_bytes(), capture_output=True, check=False, env=quick)
    assert (child.returncode, child.stdout) == (DONE, BLOB), child.stderr


# ---- reads and strands -------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", ["!", '"', "#", "I", "~"])
def test_placeholder_qualities_count_as_unknown(packed, tmp_path, unpacked, quality):
    """All the same, or as low as no sequencer gives."""
    path = as_fastq(tmp_path / "r.fastq", packed[2], lambda letters: quality * len(letters))
    assert unpacked(path)["without_quality"] == len(packed[2])


def test_qualities_up_to_two_are_placeholders_whatever_they_are(packed, tmp_path, unpacked):
    path = as_fastq(tmp_path / "r.fastq", packed[2], lambda letters: ('!"#' * len(letters))[: len(letters)])
    assert unpacked(path)["without_quality"] == len(packed[2])
    path = as_fastq(tmp_path / "r.fastq", packed[2], lambda letters: "5" + "I" * (len(letters) - 1))
    assert unpacked(path)["without_quality"] == 0


def test_an_odd_read_is_counted(packed, tmp_path, unpacked):
    path = as_fastq(tmp_path / "r.fastq", packed[2])
    text = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + text + b"@odd\n\n+\n\n@other\nACR\n+\nIII\n\n\n")
    figures = unpacked(path)
    assert figures["left_out"] == {records.EMPTY: 1, records.LETTERS: 1}
    assert (figures["reads"], figures["unusable"]) == (len(packed[2]) + 2, 2)


def test_reads_of_no_use_are_told(packed, tmp_path, run_cli):
    path = tmp_path / "r.fastq"
    path.write_text("@a\nACRT\n+\nIIII\n@b\n\n+\n\n")
    result = run_cli("unpack", path, "-o", tmp_path / "x")
    assert result.exit_code == UNDECODABLE
    for word in ("none of 2 reads can be used", "1 with other letters than bases", "1 without letters"):
        assert word in result.stderr


def test_an_odd_strand_is_an_erasure(packed, tmp_path, unpacked):
    rows = list(packed[2])
    name, letters = rows[-1]
    for odd in (letters[:40] + "N" + letters[41:], letters[:40] + "." + letters[41:], "", "A" * 100_001):
        figures = unpacked(as_fasta(tmp_path / "p.fasta", [*rows[:-1], (name, odd)]))
        assert sum(figures["left_out"].values()) == 1
        assert figures["packets_received"] == figures["packets"] - 1


@pytest.mark.parametrize("cut", [1, 30, 99])
def test_a_cut_strand_is_unreadable_and_no_duplicate(packed, tmp_path, unpacked, cut):
    rows = list(packed[2])
    figures = unpacked(as_fasta(tmp_path / "p.fasta", [*rows[:-1], (rows[-1][0], rows[-1][1][:cut]), rows[0]]))
    assert (figures["unreadable"], figures["duplicates"]) == (1, 1)
    whole = figures["header_strands"] + figures["packets_received"] + figures["duplicates"] + figures["unreadable"]
    assert whole == figures["strands"] == len(rows) + 1


def test_reversed_strands_are_read(packed, tmp_path, unpacked):
    rows = [(name, turned(letters)) for name, letters in packed[2]]
    assert unpacked(as_fasta(tmp_path / "p.fasta", rows))["reversed"] == len(rows)
    mixed = [rows[n] if n % 3 else packed[2][n] for n in range(len(rows))]
    assert 0 < unpacked(as_fasta(tmp_path / "p.fasta", mixed))["reversed"] < len(rows)


def test_a_pool_among_copies_of_something_else(packed, tmp_path, unpacked):
    """Adapter dimers or a control, read far oftener than all strands together."""
    junk = [(f">junk{n}", "A" * 100) for n in range(3000)]
    figures = unpacked(as_fasta(tmp_path / "p.fasta", [*junk, *packed[2], *junk]))
    assert figures["unreadable"] == 6000


@pytest.fixture
def paired(packed, tmp_path):
    """paired(cycles): the two files of the pairs of every strand, read twice."""

    def make(cycles):
        sides = [(f">r{n}{copy}", letters) for copy in "ab" for n, (_, letters) in enumerate(packed[2])]
        one = as_fastq(tmp_path / "x_R1.fastq", [(name, letters[:cycles]) for name, letters in sides])
        return one, as_fastq(tmp_path / "x_R2.fastq", [(name, turned(letters)[:cycles]) for name, letters in sides])

    return make


def test_pairs_are_merged(packed, paired, tmp_path, unpacked, run_cli):
    one, two = paired(60)
    figures = unpacked(two, one)
    assert figures["pairs"] == {"merged": 2 * len(packed[2]), "joined": 0, "apart": 0, "alone": 0}
    assert (figures["files"], figures["reads"]) == (2, 2 * len(packed[2]))
    assert unpacked(tmp_path)["pairs"] == figures["pairs"]
    result = run_cli("unpack", one, "-o", tmp_path / "x")
    assert result.exit_code == UNDECODABLE
    assert f"{two} lies beside {one}" in result.stderr
    result = run_cli("unpack", *paired(45), "-o", tmp_path / "x")
    assert result.exit_code == UNDECODABLE
    assert f"{2 * len(packed[2])} pairs of reads do not overlap" in result.stderr


def test_adapters_and_umis_of_reads(packed, tmp_path, unpacked, run_cli):
    """Without the options, these reads are of 40 bases more than their strands."""
    rows = [(name, "ACGTAC" + letters + "AGATCGGAAGAGCACACGTCTGAACTCCAGTCAC") for name, letters in packed[2]]
    path = as_fastq(tmp_path / "r.fastq", rows)
    unpacked(path, "--adapter", "illumina", "--umi", 6)
    for options, word in (
        (("--adapter", "ACG"), "at least 8 letters"),
        (("--adapter", "illumina", "--left-primer", RIGHT), "leave the adapter out"),
        (("--umi", -1), "--umi -1"),
    ):
        result = run_cli("unpack", path, "-o", tmp_path / "x", *options)
        assert (result.exit_code, word in result.stderr) == (WRONG_USE, True), result.stderr
    result = run_cli("unpack", packed[1], "-o", tmp_path / "x", "--umi", 6)
    assert (result.exit_code, "add --reads" in result.stderr) == (WRONG_USE, True)


def test_any_mixture_of_files(packed, tmp_path, unpacked, run_cli):
    """A run folder with a third of the reads, BAM and a compressed file with the others; strands beside them."""
    rows, run = packed[2], tmp_path / "run"
    for folder in ("fastq_pass/barcode01", "fastq_fail"):
        (run / folder).mkdir(parents=True)
    as_fastq(run / "fastq_pass" / "barcode01" / "a.fastq", rows[::3])
    as_fastq(run / "fastq_fail" / "b.fastq", rows)
    as_bam(tmp_path / "c.bam", rows[1::3])
    packed_up = tmp_path / "d.fastq.zst"
    packed_up.write_bytes(zstandard.compress(as_fastq(tmp_path / "d", rows[2::3]).read_bytes()))
    sources = (run, tmp_path / "c.bam", str(tmp_path / "*.zst"))
    figures = unpacked(*sources)
    assert (figures["files"], figures["reads"]) == (3, len(rows))
    broken = tmp_path / "broken.fastq.gz"
    broken.write_bytes(b"\x1f\x8b\x08")
    result = run_cli("unpack", *sources, broken, "-o", tmp_path / "x", "--json")
    assert (result.exit_code, json.loads(result.stdout)["passed_over"]) == (DONE, [str(broken)])
    assert "fastq_fail is left out" in result.stderr
    assert f"passed over: {broken} cannot be read" in result.stderr
    result = run_cli("unpack", *sources, packed[1], "-o", tmp_path / "x")
    assert (result.exit_code, "add --reads" in result.stderr) == (WRONG_USE, True)
    assert unpacked(*sources, packed[1], "--reads")["reads"] == 2 * len(rows)


def test_strands_in_several_files(packed, tmp_path, unpacked, run_cli):
    folder = tmp_path / "pool"
    folder.mkdir()
    for n in range(3):
        as_fasta(folder / f"{n}.fasta", packed[2][n::3])
    assert unpacked(folder)["files"] == 3
    result = run_cli("inspect", folder, "--json")
    assert (result.exit_code, json.loads(result.stdout)["strands"]) == (DONE, len(packed[2]))
    result = run_cli("simulate", folder, "-o", tmp_path / "s.fastq", "--coverage", 1, "--json")
    assert (result.exit_code, json.loads(result.stdout)["strands"]) == (DONE, len(packed[2]))
    result = run_cli("simulate", folder, "-o", folder / "1.fasta", "--coverage", 1)
    assert (result.exit_code, "which would be destroyed" in result.stderr) == (WRONG_USE, True)
    for source, word in ((tmp_path / "*.none", "no file matches"), (folder / "0.fasta" / "x", "check the path")):
        result = run_cli("unpack", source, "-o", tmp_path / "x")
        assert (result.exit_code, word in result.stderr) == (WRONG_USE, True), result.stderr


def test_other_formats_are_named(tmp_path, run_cli):
    path = tmp_path / "order.csv"
    path.write_text("Name,Length\ns1,150\ns2,150\n")
    for command in ("unpack", "decode", "inspect", "simulate"):
        out = () if command == "inspect" else ("-o", tmp_path / ("x.mp4" if command == "decode" else "x"))
        result = run_cli(command, path, *out)
        assert result.exit_code == WRONG_USE
        for word in (path, "table without a column of sequences"):
            assert str(word) in result.stderr
    result = run_cli("unpack", tmp_path, "-o", tmp_path / "x")
    assert (result.exit_code, "holds no file of strands or reads" in result.stderr) == (WRONG_USE, True)


# ---- how a pool was written ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def primed(tmp_path_factory, run_cli):
    """A pool with motifs and primers: (its FASTA, the options that it was written with)."""
    folder = tmp_path_factory.mktemp("primed")
    (folder / "file").write_bytes(BLOB)
    options = ("--forbid", "GAATTC", "--forbid", "ACGTA", "--left-primer", LEFT, "--right-primer", RIGHT)
    result = run_cli("pack", folder / "file", "-o", folder / "p.fasta", *CHEAP, *options)
    assert result.exit_code == DONE, result.stderr
    return folder / "p.fasta", options


def test_a_fasta_says_how_it_was_written(primed, unpacked, run_cli):
    path, options = primed
    assert f"forbid=GAATTC,ACGTA left={LEFT} right={RIGHT}" in path.read_text().splitlines()[0]
    unpacked(path)
    unpacked(path, *options)
    result = run_cli("inspect", path, "--json")
    assert (result.exit_code, json.loads(result.stdout)["violations"]) == (DONE, 0)


def test_inspect_takes_strands_of_any_length(primed, run_cli, tmp_path):
    """Shorter than the primers, without a primer, with a long run: told of the right records."""
    lines = primed[0].read_text().splitlines()
    rows = list(zip(lines[::2], lines[1::2], strict=True))
    core = "ACGT" * 25
    odd = [(">a", "ACGT"), (">b", "A" * 40), (">c", "T" * 20 + core + RIGHT), (">d", LEFT + "AAAAA" + core[5:] + RIGHT)]
    for options in ((), ("--constraints", "strand")):
        result = run_cli("inspect", as_fasta(tmp_path / "p.fasta", [*odd[2:], *rows, *odd[:2]]), "--json", *options)
        assert result.exit_code == 1, result.stderr
        figures = json.loads(result.stdout)
        assert (figures["violations"], figures["violations_by_rule"]["primers"]) == (4, 3)
        assert any("strand 1, base 0: run of 5" in example for example in figures["examples"])


def test_pack_with_primers_codes_each_strand_once():
    """Near primers are looked for as the strands are written."""
    done = []
    config = CodecConfig(constraints="strand", strands=StrandConfig(length=100, left_primer=LEFT))
    watch_of = packing.pack_draft(
        io.BytesIO(BLOB),
        config=config,
        progress=lambda station, more, _: done.append(more if station == "strands" else 0),
    )
    watch = primers.Watch(watch_of.constraints)
    for part in watch_of.portions():
        watch(part)
    assert sum(done) == watch_of.count
    assert watch.near_strands == primers.in_pool(watch_of.written())


def test_without_the_comment_the_options_are_asked_for(primed, unpacked, tmp_path, run_cli):
    path, options = primed
    bare = tmp_path / "bare.fasta"
    bare.write_text("".join(f"{line.split()[0]}\n" for line in path.read_text().splitlines()))
    result = run_cli("unpack", bare, "-o", tmp_path / "x")
    assert result.exit_code == UNDECODABLE
    for word in ("--forbid", "--left-primer", "again"):
        assert word in result.stderr
    unpacked(bare, *options)


@pytest.mark.usefixtures("cheap_sets")
def test_damaged_comments_cost_nothing_while_others_are_whole(primed, unpacked, tmp_path):
    lines = primed[0].read_text().splitlines()
    for first in (lines[0].split(" forbid=")[0], lines[0].replace("GAATTC", "A"), lines[0].replace(LEFT, "ACGT")):
        path = tmp_path / "p.fasta"
        path.write_text("\n".join([first, *lines[1:]]))
        unpacked(path)


def test_a_primer_that_breaks_the_set_is_told_where(run_cli, tmp_path):
    (tmp_path / "file").write_bytes(BLOB)
    cases = {
        ("--left-primer", "ACGTAAAACGTA"): ["left primer", "no run longer than 3", "base 5", "run of 4: AAAA"],
        ("--right-primer", "GGGGACGT"): ["right primer", "base 1", "run of 4: GGGG"],
        ("--left-primer", "ACGAATTCGT", "--forbid", "GAATTC"): ["without GAATTC", "base 3"],
    }
    for options, words in cases.items():
        result = run_cli("pack", tmp_path / "file", "-o", tmp_path / "x.fasta", *CHEAP, *options)
        assert result.exit_code == WRONG_USE
        for word in (*words, "choose another primer"):
            assert word in result.stderr


def test_primers_may_be_exempt_from_the_windows(run_cli, tmp_path, unpacked):
    """A primer of too much G and C for the set `wide`, which its windows would refuse."""
    (tmp_path / "file").write_bytes(BLOB)
    wide = ("--constraints", "wide", "--strand-length", 100, "--left-primer", "GCGCCGTGGCGACCTGGCGC")
    result = run_cli("pack", tmp_path / "file", "-o", tmp_path / "p.fasta", *wide)
    assert result.exit_code == WRONG_USE
    assert "--exempt-primers" in result.stderr
    result = run_cli("pack", tmp_path / "file", "-o", tmp_path / "p.fasta", *wide, "--exempt-primers")
    assert result.exit_code == DONE, result.stderr
    unpacked(tmp_path / "p.fasta")
    result = run_cli("inspect", tmp_path / "p.fasta", "--json")
    assert (result.exit_code, json.loads(result.stdout)["violations"]) == (DONE, 0)


def test_near_primers_are_named_with_what_helps(run_cli, tmp_path, monkeypatch):
    monkeypatch.setattr(primers, "alike", functools.partial(primers.alike, near=0.5))  # nearly everything is alike
    (tmp_path / "file").write_bytes(BLOB)
    result = run_cli("pack", tmp_path / "file", "-o", tmp_path / "p.fasta", *CHEAP, "--left-primer", LEFT)
    assert result.exit_code == DONE
    for word in (LEFT, "strand_00000", "strands (100.0%: ", "choose another primer", "another --key"):
        assert word in result.stderr
    assert "--forbid" not in result.stderr


@pytest.mark.parametrize(
    ("near", "strands", "words"),
    [
        ([118], 138, ""),  # one in hundreds, as by chance
        ([3, 9], 20, ""),
        (list(range(10)), 1000, ""),
        (list(range(11)), 1000, "11 of 1,000 strands (1.1%: strand_0000000, strand_0000001, "),
        (30, 1000, "30 of 1,000 strands (3.0%) and may bind"),
    ],
)
def test_few_strands_with_a_near_primer_are_no_matter(near, strands, words, capsys):
    cli_options.warn_of_primers({LEFT: near}, {LEFT: strands})
    said = capsys.readouterr().err
    assert words in said
    assert bool(words) == bool(said)


# ---- options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--coverage", 5), ["--coverage", "--survive"]),
        (("--read-errors", 0.01), ["--read-errors", "--survive"]),
        (("--failure", 0.01), ["--failure", "--survive"]),
        (("--redundancy", 0.1, "--survive", 0.05), ["--redundancy", "--survive"]),
        (("--exempt-primers",), ["--exempt-primers", "--left-primer"]),
    ],
)
def test_options_without_effect_are_refused(run_cli, tmp_path, options, words):
    for command in ("pack", "encode"):
        result = run_cli(command, tmp_path / "none", "-o", tmp_path / "x.fasta", *options)
        assert result.exit_code == WRONG_USE
        for word in (*words, "no effect"):
            assert word in result.stderr
    result = run_cli("encode-batch", tmp_path, "--out", tmp_path / "out", *options)
    assert (result.exit_code, "no effect" in result.stderr) == (WRONG_USE, True)


def test_a_fault_of_ours_keeps_its_traceback(tmp_path):
    script = (
        "from helix_jax.cli import app as cli\n"
        "def broken(): raise ValueError('shapes (3,) and (4,) do not match')\n"
        "cli.app = broken\ncli.main()"
    )
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert child.returncode == 70
    assert "Traceback" in child.stderr
    assert "shapes (3,)" in child.stderr
    assert "please report" in child.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_leave_no_temporary_file(tmp_path, number):
    """A pack that waits for its input, inside the writing of its output."""
    script = (
        "import signal, time; from helix_jax import files; from helix_jax.cli import app as cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        f"def app():\n with files.atomic({str(tmp_path / 'out')!r}):\n  print('in', flush=True); time.sleep(60)\n"
        "cli.app = app\ncli.main()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout.read(2) == b"in"
        assert len(list(tmp_path.iterdir())) == 1
        child.send_signal(number)
        child.wait(30)
    assert list(tmp_path.iterdir()) == []
    assert child.returncode in (128 + number, -number)


def test_closed_and_full_streams_are_told_in_one_line(tmp_path, packed):
    def run(arguments, redirect):
        command = f"{sys.executable} -m helix_jax.cli {arguments} {redirect}"
        return subprocess.run(command, shell=True, capture_output=True, text=True, check=False)

    child = run(f"unpack - -o {tmp_path / 'x'}", "<&-")
    assert (child.returncode, "standard input is closed" in child.stderr) == (WRONG_USE, True), child.stderr
    child = run("cache", "> /dev/full")
    assert (child.returncode, child.stderr.count("\n")) == (WRONG_USE, 1), child.stderr
    assert "cannot write to standard output" in child.stderr


def test_an_error_from_inside_a_command_is_no_wrong_use(run_cli, packed, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ValueError("shapes (3,) and (4,) do not match")

    monkeypatch.setattr(packing, "unpack_parts", broken)
    with pytest.raises(ValueError, match="shapes"):
        run_cli("unpack", packed[1], "-o", tmp_path / "x")


# ---- in portions -----------------------------------------------------------------------------------------------


def test_pools_do_not_depend_on_portions(packed, tmp_path, monkeypatch):
    """Written and read a few strands at a time, over several blocks of the outer code: the same strands and bytes."""
    data = np.random.default_rng(1).bytes(9000)
    config = CodecConfig(constraints="strand", strands=StrandConfig(length=100, redundancy=0.2))
    whole = codec.pack(data, config=config).strands
    monkeypatch.setattr("helix_jax.strands.layouts.BLOCK_SYMBOLS", 100)
    monkeypatch.setattr("helix_jax.strands.outer.BLOCK_BYTES", 6000)
    blocks = codec.pack(data, config=config)
    assert blocks.layout.blocks > 3
    for portion in (8, 64):
        monkeypatch.setattr(pool, "PORTION", portion)
        monkeypatch.setattr(header_search, "PORTION", portion)
        monkeypatch.setattr(packing, "_MIXED", portion)
        np.testing.assert_array_equal(codec.pack(data, config=config).strands, blocks.strands)
        kept = np.random.default_rng(2).permutation(blocks.strands)[60:]
        assert codec.unpack({100: kept})[0] == data
    assert len(whole) < len(blocks.strands)


def test_a_file_that_changes_while_it_is_read_gives_no_pool(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(BLOB)
    with open(path, "rb") as source:
        draft = packing.pack_draft(source, config=CodecConfig(constraints="strand", strands=StrandConfig(length=100)))
        path.write_bytes(BLOB[::-1])
        with pytest.raises(files.HelixError, match="changed while it was read"):
            fasta.write_pool(tmp_path / "p.fasta", draft)
    assert not (tmp_path / "p.fasta").exists()


def test_fastq_of_strands_and_their_fasta_agree(packed, tmp_path):
    path = as_fastq(tmp_path / "r.fastq", packed[2])
    reads = np.concatenate([bases for bases, _, _ in fastq.read(path)])
    np.testing.assert_array_equal(reads, fasta.read(packed[1])[100])
