"""Orders: names, limits, and what the comments of the pools say."""

import contextlib
import csv
import dataclasses
import gzip
import re

import numpy as np
import openpyxl
import pytest

from helix_jax.ordering import sheet, vendors
from helix_jax.strands import fasta
from helix_jax.strands.written import Written

KEYS = ("0123456789abcdef", "fedcba9876543210")
NOTE = " forbid=GAATTC left=ACGTTGCA right=TTGCAACC windows=strand"
WRITTEN = Written(("GAATTC",), "ACGTTGCA", "TTGCAACC", True)


@pytest.fixture
def pools(tmp_path):
    """Two FASTA files of 60 nt, of which the first says how it was written."""
    generator = np.random.default_rng(0)
    for name, key, note, count in (("my pool", KEYS[0], NOTE, 11), ("other", KEYS[1], "", 3)):
        rows = generator.integers(0, 4, (count, 60), dtype=np.uint8)
        fasta.write(tmp_path / f"{name}.fasta", rows, lambda i, key=key, note=note: f"header key={key}{note}")
    return [("my pool", tmp_path / "my pool.fasta"), ("other", tmp_path / "other.fasta")]


@contextlib.contextmanager
def ordered(pools, vendor):
    with contextlib.ExitStack() as stack:
        yield sheet.gathered([(name, stack.enter_context(fasta.opened(path))) for name, path in pools], vendor)


def written(path, pools, vendor):
    with ordered(pools, vendor) as found:
        return sheet.write(path, found, vendor)


def table(path):
    """The rows of an order, as text."""
    if path.suffix == ".csv":
        with open(path, newline="") as file:
            return [row for row in csv.reader(file) if not row[0].startswith("#")]
    return [list(map(str, row)) for row in openpyxl.load_workbook(path).worksheets[0].values]


@pytest.mark.parametrize("key", vendors.load())
@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_every_vendors_order_is_read_back(tmp_path, pools, key, suffix):
    """The same strands in the same order, and what the comments say, unless the table has no room for it."""
    vendor, path = vendors.named(key), tmp_path / f"order{suffix}"
    lost = written(path, pools, vendor)
    titles, *rows = table(path)
    assert titles == [title for title, _ in vendor.columns]
    assert len(rows) == 14
    back = fasta.read(path)
    np.testing.assert_array_equal(back[60], np.concatenate([fasta.read(pool)[60] for _, pool in pools]))
    with fasta.opened(path) as strands:
        list(strands.portions())
        notes = dict(strands.notes)
    room = suffix == ".xlsx" or key in ("plain", "agilent")
    assert notes == ({KEYS[0]: WRITTEN, KEYS[1]: Written()} if room else {})
    assert lost == ({} if room else {"my_pool": WRITTEN})


@pytest.mark.parametrize("key", ["plain", "twist", "agilent", "genscript"])
def test_names_are_unique_and_legal_and_tell_the_pool(tmp_path, pools, key):
    """The same pool three times, and names that are long and hold other letters."""
    vendor = vendors.named(key)
    named = [
        *pools,
        pools[0],
        pools[0],
        ("a very long name, longer than any vendor takes: 32 or 64 \u00fc", pools[1][1]),
    ]
    with ordered(named, vendor) as found:
        labels = [pool.label for pool in found]
        sheet.write(tmp_path / "order.csv", found, vendor)
    assert labels[:4] == ["my_pool", "other", "my_pool2", "my_pool3"]
    names = [row[0] for row in table(tmp_path / "order.csv")[1:]]
    assert len(set(names)) == len(names) == 11 + 3 + 11 + 11 + 3
    assert all(re.fullmatch(f"[{vendor.names}]{{1,{vendor.longest_name}}}", name) for name in names)
    assert [name.rpartition("_")[0] for name in names][:15] == ["my_pool"] * 11 + ["other"] * 3 + ["my_pool2"]
    assert names[:2] == ["my_pool_00", "my_pool_01"]


def test_limits_are_checked_first(tmp_path, pools):
    strict = dataclasses.replace(
        vendors.named("twist"), length=(70, 90), strands=(100, 200), run=1, gc=(0.0, 1.0), files=(".csv",)
    )
    with pytest.raises(sheet.OrderError) as caught, ordered(pools, strict):
        pass
    for word in (
        "my pool.fasta: 11 strands of 60 nt, where 70 to 90 are taken",
        "other.fasta: 3 strands of 60 nt",
        "11 strands with a homopolymer run longer than 1",
        "the order: 14 strands in all, where 100 to 200 are taken",
        "2026-08-10, https://www.twistbioscience.com",
        "--vendors FILE.toml",
    ):
        assert word in str(caught.value)
    assert "GC" not in str(caught.value)


def test_strands_of_two_lengths_are_refused(tmp_path, pools):
    path = tmp_path / "mixed.fasta"
    path.write_text(pools[0][1].read_text() + ">short\nACGTACGT\n")
    with (
        pytest.raises(sheet.OrderError, match=r"several lengths \(1 of 8 nt, 11 of 60 nt\)"),
        ordered([("mixed", path)], vendors.named("plain")),
    ):
        pass


def test_a_sheet_has_so_many_rows(tmp_path, pools, monkeypatch):
    monkeypatch.setattr(sheet, "MOST_ROWS", 13)
    with pytest.raises(sheet.OrderError, match=r"14 strands do not go into a sheet of 13 rows: .* \.csv"):
        written(tmp_path / "order.xlsx", pools, vendors.named("plain"))
    assert not (tmp_path / "order.xlsx").exists()
    written(tmp_path / "order.csv", pools, vendors.named("plain"))


def test_a_cell_has_room_for_so_many_bases(tmp_path, pools, monkeypatch):
    monkeypatch.setattr(sheet, "MOST_CHARACTERS", 59)
    with pytest.raises(sheet.OrderError, match=r"strands of 60 nt: an Excel cell has room for 59 .* \.csv"):
        written(tmp_path / "order.xlsx", pools, vendors.named("plain"))
    assert not (tmp_path / "order.xlsx").exists()
    written(tmp_path / "order.csv", pools, vendors.named("plain"))


def test_a_pool_that_is_cut_short_is_not_ordered(tmp_path):
    path = tmp_path / "cut.fasta.gz"
    rows = np.random.default_rng(0).integers(0, 4, (5000, 60), dtype=np.uint8)
    fasta.write(tmp_path / "whole.fasta", rows, lambda i: f"source {i}")
    path.write_bytes(gzip.compress((tmp_path / "whole.fasta").read_bytes(), mtime=0)[:-40_000])
    with (
        pytest.raises(sheet.OrderError, match=r"cut\.fasta\.gz is damaged .*; get it again before you order"),
        ordered([("cut", path)], vendors.named("plain")),
    ):
        pass


def test_the_notes_of_many_pools_are_read_back(tmp_path, pools):
    """In comment lines above the table, more of them than the rows from which its columns are determined."""
    path = tmp_path / "order.csv"
    with ordered(pools, vendors.named("agilent")) as found:
        sheet.write(path, [found[0]] * 70, vendors.named("agilent"))
    assert path.read_text().splitlines()[69].startswith("#")
    with fasta.opened(path) as strands:
        assert sum(map(len, strands.portions())) == 70 * 11
        assert dict(strands.notes) == {KEYS[0]: WRITTEN}


def test_a_pool_with_several_notes_keeps_all(tmp_path, pools):
    both = tmp_path / "both.fasta"
    both.write_text(pools[0][1].read_text() + pools[1][1].read_text())
    for vendor in ("plain", "agilent"):
        written(tmp_path / "order.csv", [("both", both)], vendors.named(vendor))
        with fasta.opened(tmp_path / "order.csv") as strands:
            list(strands.portions())
            assert dict(strands.notes) == {KEYS[0]: WRITTEN, KEYS[1]: Written()}
