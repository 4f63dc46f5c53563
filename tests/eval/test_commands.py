"""The table of whole commands, by running the cheapest of them once."""

import json

import pytest

from eval import commands


def test_a_command_is_run_and_its_table_made(tmp_path, capsys):
    out = tmp_path / "figures.json"
    commands.main(["--only", "help", "--runs", "1", "--no-cold", "--json", str(out)])
    [row] = json.loads(out.read_text())
    assert (row["command"], row["cache"]) == ("help", "warm")
    assert 0 < row["beside"] < row["seconds"] == row["least"] == row["most"]
    assert 0.8 * row["seconds"] < sum(row["stations"].values()) < 1.2 * row["seconds"]
    assert {"start", "rest"} <= row["stations"].keys()
    lines = capsys.readouterr().out.strip().splitlines()
    cells = [len(line.split("|")) for line in lines[-3:]]
    assert cells == [11, 11, 11]
    assert lines[-1].startswith("| help | warm |")


def test_what_cannot_be_run_is_told(tmp_path, capsys):
    for options, words in (
        (["--baseline", str(tmp_path)], "no helix_jax/cli there"),
        (["--only", "pack-large"], "say how many bytes with --large"),
        (["--only", "nonsense"], "invalid choice"),
    ):
        with pytest.raises(SystemExit):
            commands.main(options)
        assert words in capsys.readouterr().err
    (tmp_path / "cache").mkdir()
    with pytest.raises(RuntimeError, match=r"unpack none.fasta.*exit status"):
        commands.run(("unpack", "none.fasta", "-o", "none.out"), tmp_path, tmp_path / "cache", commands.OURS)


def test_the_shipped_clip_in_cif(tmp_path):
    from helix_jax import video

    commands.write_clip(tmp_path / "clip.mp4", frames=5)
    info = video.open_video(tmp_path / "clip.mp4").info
    assert (info.frames, info.height, info.width) == (5, commands.HEIGHT, commands.WIDTH)
