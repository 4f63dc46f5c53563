"""`order`, tables as pools, `--screen`, and enzymes as `--forbid`, at the command line."""

import json

import numpy as np
import openpyxl
import pytest

from helix_jax.strands import fasta, stems

OPTIMISED = True  # see tests/conftest.py

CHEAP = ("--constraints", "strand", "--strand-length", "100")
LEFT, RIGHT = "ACACGACGCTCTTCCGATCT", "CTGTCTCTTATACACATCTC"
DONE, CHECK_FAILED, WRONG_USE = 0, 1, 2

pytestmark = pytest.mark.usefixtures("one_shape", "cheap_sets")


@pytest.fixture(scope="module")
def packed(tmp_path_factory, run_cli):
    """A folder with two files and their pools; one pool has primers, a forbidden enzyme and a screen."""
    folder = tmp_path_factory.mktemp("ordered")
    for name, options in (
        ("one", ("--forbid", "BsaI", "--left-primer", LEFT, "--right-primer", RIGHT, "--screen", "hairpin=7")),
        ("two", ()),
    ):
        (folder / name).write_bytes(np.random.default_rng(len(name)).bytes(500) + name.encode())
        result = run_cli("pack", folder / name, "-o", folder / f"{name}.fasta", *CHEAP, *options)
        assert result.exit_code == DONE, result.stderr
    return folder


def keys(folder):
    return {name: (folder / f"{name}.fasta").read_text().partition("key=")[2][:16] for name in ("one", "two")}


@pytest.mark.parametrize(
    ("vendor", "suffix"), [("twist", "xlsx"), ("idt", "xlsx"), ("agilent", "csv"), ("plain", "csv")]
)
def test_an_order_of_two_pools_is_unpacked(packed, tmp_path, run_cli, vendor, suffix):
    """Without a word on motifs and primers, also after a laboratory has sorted and edited the sheet."""
    order = tmp_path / f"order.{suffix}"
    result = run_cli("order", packed / "one.fasta", packed / "two.fasta", "-o", order, "--vendor", vendor, "--json")
    assert result.exit_code == DONE, result.stderr
    assert list(json.loads(result.stdout)["pools"]) == ["one", "two"]
    if suffix == "xlsx":
        book = openpyxl.load_workbook(order)
        book.worksheets[0].insert_rows(1, 2)
        book.worksheets[0]["A1"] = "Seen by the lab"
        book.worksheets[0]["F3"] = "remarks"
        book.save(order)
    for name, key in keys(packed).items():
        result = run_cli("unpack", order, "-o", tmp_path / "back", "--key", key)
        assert result.exit_code == DONE, result.stderr
        assert (tmp_path / "back").read_bytes() == (packed / name).read_bytes()
    mixed = run_cli("unpack", order, "-o", tmp_path / "back")
    assert mixed.exit_code != DONE


def test_a_number_of_strands_for_one_amount_is_a_warning(packed, tmp_path, run_cli):
    """The order may be of another amount."""
    table = tmp_path / "mine.toml"
    table.write_text(
        '[mine]\ntitle = "Mine"\ncolumns = [["DNA", "sequence"]]\nstrands = [1, 9]\nstrands_at = "50 pmol of each"\n'
    )
    order = ("order", packed / "two.fasta", "-o", tmp_path / "o.csv", "--vendors", table, "--vendor", "mine")
    result = run_cli(*order, "--json")
    total = json.loads(result.stdout)["strands"]
    assert result.exit_code == DONE
    assert f"Mine: the order has {total} strands in all, where 1 to 9 are taken at 50 pmol of each" in result.stderr
    table.write_text(table.read_text().replace("strands_at", "source"))
    assert run_cli(*order).exit_code == WRONG_USE


def test_every_command_reads_an_order(packed, tmp_path, run_cli):
    order = tmp_path / "order.csv"
    assert run_cli("order", packed / "one.fasta", "-o", order).exit_code == DONE
    assert json.loads(run_cli("inspect", order, "--json").stdout)["violations"] == 0
    assert run_cli("simulate", order, "-o", tmp_path / "reads.fastq", "--preset", "clean").exit_code == DONE
    again = tmp_path / "again.xlsx"
    assert run_cli("order", order, "-o", again, "--vendor", "idt").exit_code == DONE
    np.testing.assert_array_equal(fasta.read(again)[140], fasta.read(packed / "one.fasta")[140])


def test_what_the_table_has_no_room_for_is_said(packed, tmp_path, run_cli):
    result = run_cli("order", packed / "one.fasta", packed / "two.fasta", "-o", tmp_path / "o.csv", "--vendor", "twist")
    assert result.exit_code == DONE
    assert f"one: this table has no room for forbid=GGTCTC left={LEFT} right={RIGHT}" in result.stderr
    assert "two: this table" not in result.stderr
    assert "could not be checked" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-o", "o.csv", "--vendor", "idt"), ("IDT", ".xlsx")),
        (("-o", "o.fasta"), ("o.fasta", ".csv or .xlsx")),
        (("-o", "o.csv", "--vendor", "acme"), ("no vendor 'acme'", "twist")),
        (("-o", "o.csv", "--vendors", "none.toml"), ("none.toml",)),
        (("-o", "o.csv", "--vendor", "short", "--vendors", "short.toml"), ("140 nt, where 1 to 99", "one.fasta")),
    ],
)
def test_nothing_is_written_where_an_order_is_refused(packed, tmp_path, run_cli, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.toml").write_text('[short]\ntitle = "S"\ncolumns = [["S", "sequence"]]\nlength = [1, 99]\n')
    result = run_cli("order", packed / "one.fasta", *options)
    assert result.exit_code == WRONG_USE
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["short.toml"]


def test_the_output_is_not_the_input(packed, tmp_path, run_cli):
    order = tmp_path / "order.csv"
    assert run_cli("order", packed / "two.fasta", "-o", order).exit_code == DONE
    before = order.read_bytes()
    result = run_cli("order", order, "-o", order)
    assert (result.exit_code, order.read_bytes()) == (WRONG_USE, before)
    assert "is the input" in result.stderr


def test_a_screened_pool(packed, run_cli):
    """`pack` keeps the limit, and `inspect` counts what exceeds another one."""
    strands = fasta.read(packed / "one.fasta")[140]
    longest = stems.longest_hairpins(strands)
    assert longest.max() <= 7
    kept = run_cli("inspect", packed / "one.fasta", "--screen", "hairpin=7", "--json")
    assert (kept.exit_code, json.loads(kept.stdout)["strands_over_screen"]) == (DONE, 0)
    shown = json.loads(kept.stdout)
    assert shown["hairpins"] == {str(n): int((longest == n).sum()) for n in np.unique(longest)}
    assert (shown["left_primer_melts_at"], shown["needs"]["forbid"]) == (59.7, ["GGTCTC"])
    less = run_cli("inspect", packed / "one.fasta", "--screen", f"hairpin={longest.max() - 1}")
    assert less.exit_code == CHECK_FAILED
    for title in ("longest hairpin stem", "longest self-dimer", "longest repeat", "strands over screen"):
        assert title in less.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--screen", "hairpin=3"), ("hairpin=3: ", "% of the strands have a longer stem", "works")),
        (("--screen", "hairpin"), ("--screen hairpin: write hairpin=STEM",)),
        (("--screen", "loops=3"), ("--screen loops=3: write hairpin=STEM",)),
        (("--screen", "hairpin=0"), ("hairpin=0: give 1 base or more",)),
        (("--forbid", "XcmI"), ("XcmI (CCANNNNNNNNNTGG) stands for 262,144 words",)),
        (("--forbid", "EcoRl"), ("'EcoRl' is neither a word",)),
    ],
)
def test_refused(packed, tmp_path, run_cli, options, words):
    result = run_cli("pack", packed / "one", "-o", tmp_path / "x.fasta", *CHEAP, *options)
    assert result.exit_code == WRONG_USE
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr
    assert not (tmp_path / "x.fasta").exists()


def test_the_timing_writer_has_no_screen(packed, tmp_path, run_cli):
    for command, output in (("pack", "x.tsv"), ("encode", "y.tsv")):
        result = run_cli(
            command, packed / "one", "-o", tmp_path / output, "--writer", "timing", "--screen", "hairpin=9"
        )
        assert (result.exit_code, "--screen: not for --writer timing" in result.stderr) == (WRONG_USE, True)
