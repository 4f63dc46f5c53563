"""What commands print: lines of progress in logs, and tables that are whole wherever they go."""

import re
import sys
import time

import pytest

from helix_jax.cli import console


def until(happens):
    for _ in range(1000):
        if happens():
            return
        time.sleep(0.01)
    pytest.fail("it does not happen")


def test_a_long_run_has_a_line_for_each_station(monkeypatch, capsys):
    """Of which the first is the one that it is at; also where a station takes long that has no end in sight."""
    monkeypatch.setattr(console, "QUIET", 0.02)
    lines = []

    def told():
        lines.extend(capsys.readouterr().err.splitlines())
        return lines

    with console.progress(as_json=False) as step:
        step("reads", 0, None)
        step("tables", 0, 1)
        until(told)
        for _ in range(3):
            step("tables", 1, 3)
            step("strands", 1, 3)
    assert [line.split()[2] for line in told()] == ["tables", "strands"]
    assert all(line.startswith("helix-jax: 0:00 ") for line in lines)
    assert "take long with primers or motifs, and are kept for the next time" in lines[0]


@pytest.mark.parametrize(("as_json", "quiet"), [(True, 0.0), (False, 30.0)])
def test_short_runs_and_json_have_none(monkeypatch, capsys, as_json, quiet):
    monkeypatch.setattr(console, "QUIET", quiet)
    with console.progress(as_json) as step:
        step("tables", 0, 1)
        time.sleep(0.05)
        step("strands", 1, 1)
    assert capsys.readouterr().err == ""


def test_a_pipe_gets_whole_tables(capsys):
    key, name = "0123456789abcdef", "a name of many words " * 9
    console.show_rows("pools", ("key", "name"), [(key, name)])
    console.show({"output": name}, as_json=False)
    title, head, row, figure = capsys.readouterr().out.splitlines()
    assert (title.strip(), head.split()) == ("pools", ["key", "name"])
    assert key in row
    assert name in row
    assert name in figure


def test_a_narrow_terminal_breaks_a_table_and_cuts_nothing(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    key, name = "0123456789abcdef", "abcdefghij" * 9
    console.show_rows("pools", ("key", "name"), [(key, name)], whole=("key",))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert sum(key in line for line in shown) == 1
    assert name in "".join("".join(shown).replace(key, "").split())
    assert max(map(len, shown)) <= 40
