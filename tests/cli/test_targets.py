"""Where a file goes that a pool names itself: never over another output, and never as a sequence."""

import pytest

from helix_jax.cli.targets import Target
from helix_jax.files import OutputError
from helix_jax.notes import Note

CHEAP = ("--constraints", "goldman", "--strand-length", 100)


def named(name):
    return Note(name, 1, bytes(32))


@pytest.mark.parametrize(
    ("name", "written"),
    [("shot%d.png", "shot_d.png"), ("%09999999999d.png", "_09999999999d.png"), ("a%d.mov", "a_d.mp4")],
)
def test_a_stored_name_is_no_sequence(tmp_path, name, written):
    assert Target(f"{tmp_path}/").path(named(name), (".mp4", ".png")) == tmp_path / written
    assert Target(f"{tmp_path}/").path(named(name)) == tmp_path / name


def test_another_output_keeps_its_name(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    target = Target(f"{tmp_path}/")
    with pytest.raises(OutputError, match="another output has that name too"):
        target.path(named("a.html"), others=(None, tmp_path / "link" / "a.html"))
    assert target.path(named("b.html"), others=(None, tmp_path / "a.html")) == tmp_path / "b.html"


def test_a_page_is_not_written_over_the_file(tmp_path, run_cli):
    (tmp_path / "out").mkdir()
    (tmp_path / "a.html").write_bytes(b"a page of mine")
    packed = ("-o", tmp_path / "a.fasta", "--note", *CHEAP)
    assert run_cli("pack", tmp_path / "a.html", *packed).exit_code == 0
    page = tmp_path / "out" / "a.html"
    result = run_cli("unpack", tmp_path / "a.fasta", "-o", tmp_path / "out", "--report", page)
    assert (result.exit_code, result.stderr.count("\n"), page.exists()) == (2, 1, False)
    assert "another output has that name too" in result.stderr
