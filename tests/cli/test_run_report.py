"""`unpack` and `decode` with --report: one page that needs nothing else, of runs that come back, lose, or fail."""

import html.parser
import json
import sys

import numpy as np
import pytest

from helix_jax.reads import fastq
from helix_jax.strands import fasta

CHEAP = ("--constraints", "strand", "--strand-length", "100")
DONE, WRONG_USE, WITH_LOSS, UNDECODABLE = 0, 2, 3, 4
BLOB = np.random.default_rng(7).bytes(600)

pytestmark = pytest.mark.usefixtures("one_shape", "cheap_sets")


class Page(html.parser.HTMLParser):
    """A page: its tables as {name: value}, its text, and whatever it would load or run."""

    VOID = ("meta", "br")

    def __init__(self, path):
        super().__init__()
        self.open, self.rows, self.texts, self.foreign = [], [], [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open
        self.table = {row[0]: row[1] for row in reversed(self.rows)}  # the first of a name: all figures come last
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
        for name, value in attributes:
            loads = name in ("src", "data", "href", "xlink:href", "srcset") or "url(" in (value or "")
            if (loads and not value.startswith(("#", "url(#"))) or name.startswith("on"):
                self.foreign.append((tag, name, value))
        if tag in ("script", "link", "iframe", "object"):
            self.foreign.append((tag,))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["td"]:
            self.rows[-1][-1] += data
        if self.open[-1:] != ["style"]:
            self.texts.append(data)


@pytest.fixture(scope="module")
def packed(tmp_path_factory, run_cli):
    """(its pool in FASTA, simulated reads in FASTQ)."""
    folder = tmp_path_factory.mktemp("packed")
    (folder / "file").write_bytes(BLOB)
    assert run_cli("pack", folder / "file", "-o", folder / "p.fasta", "--redundancy", 0.3, *CHEAP).exit_code == DONE
    options = ("--preset", "illumina", "--coverage", 8)
    assert run_cli("simulate", folder / "p.fasta", "-o", folder / "r.fastq", *options).exit_code == DONE
    return folder / "p.fasta", folder / "r.fastq"


def number(text):
    return int(text.replace(",", ""))


def test_a_run_that_comes_back(run_cli, tmp_path, packed, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["helix-jax", "unpack", "<script>alert(1)</script>&.fastq"])
    result = run_cli("unpack", packed[1], "-o", tmp_path / "back", "--report", tmp_path / "run.html", "--json")
    assert (result.exit_code, result.stderr) == (DONE, "")
    figures, page = json.loads(result.stdout), Page(tmp_path / "run.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "run.html"]
    assert page.foreign == []
    assert "@import" not in page.source
    assert 'name="viewport"' in page.source
    assert "<script>alert(1)</script>&.fastq" in page.text  # escaped, as the parser has found no script
    assert figures["command"] == "helix-jax unpack '<script>alert(1)</script>&.fastq'"
    assert figures["versions"]["helix_jax"] in page.text
    assert "It came back" in page.text
    assert figures["advice"] in page.text
    assert "would have been enough" in figures["advice"]
    assert number(figures["advice"].split()[1]) == figures["enough_reads"] < figures["reads"]
    # the fates of the reads sum up to all of them
    fates = [
        number(value) for name, value in page.table.items() if name.startswith(("used:", "dupl", "unread:", "unus"))
    ]
    assert sum(fates) == number(page.table["all reads"]) == figures["reads"]
    assert figures["used_reads"] > 0.9 * figures["reads"]
    assert number(page.table["clusters of reads"]) == figures["clusters"]
    erased = figures["packets"] - figures["packets_received"]
    assert number(page.table["erasures: packets that did not, or were never written"]) == erased
    assert 0 <= figures["repaired_packets"] <= erased
    assert "tokens guessed" not in page.table  # of a file there are none
    for kind in ("substitutions", "insertions", "deletions"):
        assert page.table[kind] == f"{100 * figures[kind]:.3f} %"
    seconds = {name: spent for name, spent in figures["seconds"].items() if page.table[name] == f"{spent:.2f}"}
    assert seconds.keys() == figures["seconds"].keys() >= {"reads", "clusters", "consensus", "strands", "the rest"}
    pictures = ["Coverage", "Strands", "Errors by kind", "Errors along the strand"]
    assert [page.source.count(f'aria-label="{title}"') for title in pictures] == [1] * 4
    assert page.source.count("<svg") == 4


def test_errors_along_the_strand(run_cli, tmp_path, packed):
    """All copies have the tenth base wrong, half of them the last too; the reverse complements too."""
    strands = fasta.read(packed[0])[100]
    rows = np.repeat(strands, 6, axis=0)
    for copies, base in ((rows[::6], 9), (rows[1::6], 9), (rows[2::6], 99)):
        copies[:, base] ^= 1
    rows[3::6] = 3 - rows[3::6, ::-1]
    fastq.write(tmp_path / "r.fastq", rows, np.full(len(rows), 100), np.full(rows.shape, 20, np.uint8))
    result = run_cli("unpack", tmp_path / "r.fastq", "-o", tmp_path / "back", "--json")
    figures = json.loads(result.stdout)
    along = np.array(figures["by_position"])
    assert along.shape == (100, 3)
    for kind, row in zip(("substitutions", "insertions", "deletions"), along.T, strict=True):
        assert row.mean() == pytest.approx(figures[kind], abs=1e-4)
    # of each cluster four reads are compared, which three of the six are wrong in
    assert along[9, 0] == pytest.approx(1 / 3, abs=0.17)
    assert along[99].sum() == pytest.approx(1 / 6, abs=0.13)
    others = np.delete(along, [9, 99], axis=0)
    assert others.max() < 0.02


def test_too_few_reads(run_cli, tmp_path, packed):
    """The page says what the error says, the status is that of failure, and the advice is enough."""
    options = ("--preset", "illumina", "--json")
    few, more = tmp_path / "few.fastq", tmp_path / "more.fastq"
    run_cli("simulate", packed[0], "-o", few, "--coverage", 0.9, "--seed", 1, *options)
    out, page = tmp_path / "out", tmp_path / "run.html"
    result = run_cli("unpack", few, "-o", out, "--report", page)
    assert (result.exit_code, result.stdout, out.exists()) == (UNDECODABLE, "", False)
    said = result.stderr.removeprefix("helix-jax: ").strip()
    assert said.endswith(" more reads would be enough")
    missing = number(said.split("about ")[1].split()[0])
    page = Page(page)
    assert said in page.text
    assert "It failed" in page.text
    assert number(page.table["erasures: packets that did not, or were never written"]) > 0
    assert page.source.count("<svg") == 4
    coverage = missing / len(fasta.read(packed[0])[100])
    assert 0.2 < coverage < 5
    run_cli("simulate", packed[0], "-o", more, "--coverage", coverage, "--seed", 2, *options)
    few.write_bytes(few.read_bytes() + more.read_bytes())
    assert run_cli("unpack", few, "-o", out).exit_code == DONE
    assert out.read_bytes() == BLOB


def test_pages_of_what_is_hardly_known(run_cli, tmp_path):
    draw = np.random.default_rng(0)
    rows = draw.integers(0, 4, (40, 100), dtype=np.uint8)
    fastq.write(tmp_path / "junk.fastq", rows, np.full(40, 100), np.full(rows.shape, 30, np.uint8))
    (tmp_path / "empty.fastq").write_text("")
    pages = []
    for name in ("junk", "empty"):
        path = tmp_path / f"{name}.html"
        result = run_cli("unpack", tmp_path / f"{name}.fastq", "-o", tmp_path / "out", "--reads", "--report", path)
        assert (result.exit_code, result.stdout) == (UNDECODABLE, "")
        pages.append(Page(path))
        assert result.stderr.removeprefix("helix-jax: ").strip() in pages[-1].text
    junk, empty = pages
    assert "No header could be read" in junk.text
    assert (junk.table["all reads"], junk.table["unread: their clusters gave no strand"]) == ("40", "40")
    assert junk.table["clusters of reads"] == "40"
    assert junk.source.count("<svg") == 1
    assert empty.table["all reads"] == "0"


def test_strands_without_reads_and_loss(run_cli, tmp_path, make_clip, weights_file):
    make_clip(tmp_path / "clip.mp4", 12, 64, 64)
    model = ("--model", weights_file)
    encoded = ("--mode", "raw", "--redundancy", 0, *model, *CHEAP)
    assert run_cli("encode", tmp_path / "clip.mp4", "-o", tmp_path / "v.fasta", *encoded).exit_code == DONE
    strands = fasta.read(tmp_path / "v.fasta")[100]
    fasta.write(tmp_path / "cut.fasta", strands[:-3], lambda i: "")
    for name, status, state in (("v", DONE, "It came back."), ("cut", WITH_LOSS, "It came back with loss.")):
        options = ("--report", tmp_path / f"{name}.html", "--json")
        result = run_cli("decode", tmp_path / f"{name}.fasta", "-o", tmp_path / "a.mp4", *model, *options)
        assert result.exit_code == status, result.stderr
        figures, page = json.loads(result.stdout), Page(tmp_path / f"{name}.html")
        assert state in page.text
        assert "advice" not in figures
        assert "all reads" not in page.table
        assert page.table.get("tokens guessed", "0.00%") == f"{figures['lost_tokens']:.2%}"
        assert number(page.table["source packets lost"]) == figures["lost_packets"]
    assert figures["lost_packets"] > 0


def test_refusals(run_cli, tmp_path, packed):
    out = tmp_path / "out"
    out.mkdir()
    for options, said in (
        (("--report", out / "run.txt"), "reports are written as HTML"),
        (("--report", out / "none" / "run.html"), "there is no folder"),
        (("--writer", "timing", "--report", out / "run.html"), "--report: not for --writer timing"),
    ):
        result = run_cli("unpack", packed[1], "-o", out / "back", *options)
        assert (result.exit_code, result.stdout) == (WRONG_USE, "")
        assert said in result.stderr
        assert list(out.iterdir()) == []
    result = run_cli("unpack", packed[1], "-o", out / "a.html", "--report", out / "a.html")
    assert (result.exit_code, "another output has that name" in result.stderr) == (WRONG_USE, True)
    result = run_cli("unpack", tmp_path / "missing.fastq", "-o", out / "a", "--report", out / "a.html")
    assert (result.exit_code, list(out.iterdir())) == (WRONG_USE, [])  # wrong use is no run
