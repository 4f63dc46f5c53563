"""Which files are read: folders, patterns, pairs by their names, and what is said of the others."""

import os

import pytest

from helix_jax.errors import HelixError
from helix_jax.reads import inputs


@pytest.fixture
def touched(tmp_path, monkeypatch):
    """touched(names): empty files of these names, relative to the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")

    return make


def names(named):
    """(files as text, warnings)."""
    meant = inputs.found(named)
    files = [tuple(map(str, entry)) if isinstance(entry, tuple) else str(entry) for entry in meant.files]
    flat = [path for entry in files for path in (entry if isinstance(entry, tuple) else (entry,))]
    assert list(map(str, meant.paths)) == flat
    return files, meant.warnings


def test_files_stay_in_their_order(touched):
    touched("b.fastq", "a.fasta", "odd.name")
    assert names(["b.fastq", "odd.name", "-", "missing.fastq", "a.fasta"]) == (
        ["b.fastq", "odd.name", "-", "missing.fastq", "a.fasta"],
        (),
    )
    assert names("b.fastq") == (["b.fastq"], ())


def test_a_run_folder(touched):
    """As MinKNOW writes one: reports and failed reads are left out, and the same reads as BAM."""
    touched(
        *("run/fastq_pass/barcode01/x_10.fastq.gz", "run/fastq_pass/barcode01/x_9.fastq.gz", "run/fastq_pass/y.FASTQ"),
        *("run/fastq_fail/z.fastq.gz", "run/bam_pass/x.bam", "run/bam_fail/b.bam", "run/pod5_skip/a.pod5"),
        *("run/report.html", "run/sequencing_summary.txt", "run/.hidden.fastq", "run/bam_pass/x.bam.bai"),
    )
    files, warnings = names(["run"])
    barcode = "run/fastq_pass/barcode01"
    assert files == ["run/fastq_pass/y.FASTQ", f"{barcode}/x_10.fastq.gz", f"{barcode}/x_9.fastq.gz"]
    told = " ".join(warnings)
    assert len(warnings) == 3
    for word in ("bam_pass is left out", "run/fastq_fail is left out", "run/bam_fail is left out", "quality check"):
        assert word in told
    assert names(["run/fastq_fail"]) == (["run/fastq_fail/z.fastq.gz"], ())
    assert names(["run/bam_pass"]) == (["run/bam_pass/x.bam"], ())


def test_an_empty_folder_of_fastq_hides_no_bam(touched):
    touched("run/fastq_pass/barcode01/report.txt", "run/bam_pass/x.bam")
    assert names(["run"]) == (["run/bam_pass/x.bam"], ())


def test_a_folder_that_cannot_be_read_is_told(touched, monkeypatch):
    touched("run/a.fastq", "run/locked/b.fastq")
    scan = os.scandir

    def refused(path):
        if os.path.basename(path) == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    files, (warning,) = names(["run"])
    assert files == ["run/a.fastq"]
    assert warning == "run/locked cannot be read (Permission denied): what is in it is left out"


def test_links_of_folders_are_followed_once(touched, tmp_path):
    touched("elsewhere/a.fastq", "run/b.fastq")
    os.symlink(tmp_path / "elsewhere", "run/linked")
    os.symlink(tmp_path / "run", "elsewhere/back")
    assert names(["run"]) == (["run/b.fastq", "run/linked/a.fastq"], ())


def test_folders_without_reads_are_refused(touched):
    touched("empty/readme.txt", "signals/a.pod5", "signals/b.pod5", "failed/fastq_fail/a.fastq")
    for folder, word in (("empty", r"\.fastq"), ("signals", "2 files of raw signals"), ("failed", "1 that failed")):
        with pytest.raises(HelixError, match=word) as caught:
            inputs.found([folder])
        assert folder in str(caught.value)


def test_patterns(touched):
    touched("run/a/1.fq", "run/b/2.fq", "run/3.fq", "run/c.txt", "odd[1].fq")
    assert names(["run/**/*.fq"])[0] == ["run/3.fq", "run/a/1.fq", "run/b/2.fq"]
    assert names(["run/*"])[0] == ["run/3.fq", "run/c.txt"]  # what a pattern matches is what the user named
    assert names(["odd[1].fq"])[0] == ["odd[1].fq"]
    with pytest.raises(HelixError, match=r"run/\*\.bam: no file matches"):
        inputs.found(["run/*.bam"])


def test_a_file_that_is_named_twice_is_read_once(touched):
    touched("run/a.fastq", "run/b.fastq")
    os.link("run/a.fastq", "run/c.fastq")
    files, warnings = names(["run/b.fastq", "run"])
    assert files == ["run/b.fastq", "run/a.fastq"]
    assert len(warnings) == 2
    assert "run/c.fastq is the file run/a.fastq" in warnings[1]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("s_S1_L001_R1_001.fastq.gz", "s_S1_L001_R2_001.fastq.gz"),
        ("SRR1_1.fastq", "SRR1_2.fastq"),
        ("a.R1.trimmed.fq", "a.R2.trimmed.fq"),
        ("R1.fastq", "R2.fastq"),
    ],
)
def test_pairs_by_name(touched, first, second):
    touched(f"run/{first}", f"run/{second}", "run/other.fastq")
    pair = (f"run/{first}", f"run/{second}")
    assert names([f"run/{second}", "run/other.fastq", f"run/{first}"])[0] == [pair, "run/other.fastq"]
    assert sorted(map(str, names(["run"])[0])) == sorted(map(str, [pair, "run/other.fastq"]))
    assert names([os.path.abspath(f"run/{first}"), f"run/{second}"])[0] == [(os.path.abspath(f"run/{first}"), pair[1])]
    files, warnings = names([f"run/{first}"])
    assert files == [f"run/{first}"]
    assert f"run/{second} lies beside" in warnings[0]


def test_numbered_files_of_a_run_are_no_pairs(touched):
    touched(*(f"run/FAX_pass_{n}.fastq.gz" for n in range(4)))
    assert names(["run"]) == ([f"run/FAX_pass_{n}.fastq.gz" for n in range(4)], ())
    touched("pools/a_1.fasta", "pools/a_2.fasta")
    assert names(["pools"])[0] == ["pools/a_1.fasta", "pools/a_2.fasta"]
