"""The table of vendors, a user's own, and the limits that strands are checked against."""

import re

import numpy as np
import pytest

from helix_jax.ordering import vendors
from helix_jax.ordering.vendors import Vendor, VendorError

COLUMNS = (("Name", "name"), ("Sequence", "sequence"))


def strands(*rows):
    return np.array([["ACGT".index(letter) for letter in row] for row in rows], np.uint8)


def test_the_shipped_table_has_sources():
    known = vendors.load()
    assert set(known) == {"plain", "twist", "idt", "agilent", "genscript"}
    for vendor in known.values():
        limited = vendor.length or vendor.strands or vendor.gc or vendor.run
        assert vendor.limited == bool(limited)
        assert bool(limited) == bool(vendor.source) == bool(vendor.unverified)
        assert re.fullmatch(r"https://\S+|", vendor.source)
    assert known["agilent"].length == (30, 230)
    assert known["idt"].files == (".xlsx",)


def test_limits():
    vendor = Vendor("v", "V", COLUMNS, length=(4, 8), gc=(0.25, 0.5), run=2)
    assert vendor.broken(strands("ACAT", "TGTA", "GCAT")) == {}
    assert vendor.broken(strands("ACATTTAT", "AAATTTAC", "ACGCGCGT", "ATATATAT")) == {
        "with a homopolymer run longer than 2": 2,
        "with a GC share outside 25% to 50%": 4,
    }
    assert vendor.broken(strands("ACG", "ACT"))["of 3 nt, where 4 to 8 are taken"] == 2
    assert vendor.broken(strands("AC")) == {"of 2 nt, where 4 to 8 are taken": 1}
    assert Vendor("v", "V", COLUMNS).broken(strands("AAAAAAAA")) == {}


def test_the_number_of_strands():
    vendor = Vendor("v", "V", COLUMNS, strands=(2, 1000), strands_at="5 pmol of each")
    assert [vendor.many(total) for total in (2, 1000)] == ["", ""]
    assert vendor.many(1001) == vendor.many(1) == "in all, where 2 to 1,000 are taken at 5 pmol of each"
    assert Vendor("v", "V", COLUMNS).many(10**6) == ""
    idt = vendors.named("idt")
    assert (idt.strands, idt.strands_at) == ((2, 384), "50 pmol of each")


def test_what_is_said_of_limits():
    assert not Vendor("v", "V", COLUMNS, source="https://example.org").limited
    vendor = Vendor("v", "V", COLUMNS, run=3)
    assert (vendor.limited, vendor.limits_read) == (True, "as read on an unknown day, no source")


def test_a_table_of_ones_own(tmp_path):
    """It adds vendors, and replaces those of the package."""
    path = tmp_path / "mine.toml"
    path.write_text(
        '[mine]\ntitle = "Mine"\ncolumns = [["DNA", "sequence"]]\nlength = [1, 9]\ngc = [0, 0.5]\nrun = 3\n'
        '[twist]\ntitle = "Twist, newer"\ncolumns = [["Name", "name"], ["Sequence", "sequence"]]\nread = 2027-01-31\n'
    )
    assert vendors.named("mine", path).length == (1, 9)
    assert vendors.named("twist", path).length is None
    assert vendors.named("idt", path) == vendors.named("idt")
    with pytest.raises(VendorError, match="no vendor 'mine'; there are plain, twist"):
        vendors.named("mine")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mine\n", "no TOML"),
        ("length = 3\n", "length stands outside a table"),
        ("[mine]\ntitle = 'M'\n", "columns is missing"),
        ("[mine]\ntitle = 'M'\ncolumns = [['A', 'name']]\n", "at most once, and sequence"),
        ("[mine]\ntitle = 'M'\ncolumns = [['A', 'sequence'], ['B', 'sequence']]\n", "at most once"),
        ("[mine]\ntitle = 'M'\ncolumns = [['A', 'bases'], ['B', 'sequence']]\n", "columns of bases, sequence"),
        ("[mine]\ntitle = 'M'\ncolumns = 3\n", "columns = 3 is of the wrong kind"),
        ("[mine]\ntitle = 'M'\ncolumns = [['A', 'sequence']]\nlength = [9]\n", "length = .9. is of the wrong kind"),
        ("[mine]\ntitle = 'M'\ncolumns = [['A', 'sequence']]\nlength = [9, 3]\n", "length .9, 3.; give the least"),
        (
            "[mine]\ntitle = 'M'\ncolumns = [['A', 'sequence']]\nlengths = [9, 30]\n",
            "no field 'lengths'; there are title",
        ),
        ("[mine]\ntitle = 'M'\ncolumns = [['A', 'sequence']]\nfiles = ['.pdf']\n", "files .pdf; give some of .csv"),
        ("[mine]\ntitle = 'M'\ncolumns = [['A', 'sequence']]\nnames = 'z-a'\n", "names 'z-a': bad character range"),
        ("[mine]\ntitle = 'M'\ncolumns = [['A', 'sequence']]\nnames = 'A-Z0-9'\n", "need digits and _"),
        ("[mine]\ntitle = 'M'\ncolumns = [['A', 'sequence']]\nlongest_name = 5\n", "names of 5 characters"),
        ("[mine]\ntitle = 'M'\ncolumns = [['A', 'sequence']]\nrun = 0\n", "run 0; give 1 base or more"),
        ("[mine]\ntitle = 'M'\ncolumns = [['A', 'sequence']]\ncomments = ';'\n", "comments ';'; give \"#\""),
    ],
)
def test_tables_without_sense_are_refused(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(VendorError, match=message):
        vendors.load(path)
    path.write_bytes(b"\xff\xfe[")
    with pytest.raises(VendorError, match="no text in UTF-8"):
        vendors.load(path)
