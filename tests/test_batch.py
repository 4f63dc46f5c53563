"""Many clips at once: the same pools as one by one, restarts that redo exactly what they must, hosts, failures."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from helix_jax import batch, codec, files
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.nets import Nets
from helix_jax.strands import fasta, library
from helix_jax.tokenizer import weights

CHEAP = ("--constraints", "strand", "--strand-length", 100)
DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
FIELDS = {
    "out", "host", "hosts", "devices", "clips", "done", "skipped", "failed", "left", "interrupted", "frames",
    "strands", "nucleotides", "seconds", "startup_seconds", "frames_per_second", "nucleotides_per_second",
    "frames_per_second_per_device", "nucleotides_per_second_per_device", "failures", "with_sound",
}  # fmt: skip


@pytest.fixture(scope="module")
def videos(tmp_path_factory, make_clip):
    """A folder of four clips, two with the same stem, two with the same name, and a file that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "inner").mkdir()
    (folder / ".hidden").mkdir()
    make_clip(folder / "a.mp4", 5, 16, 24)
    make_clip(folder / "a.mkv", 6, 24, 16)
    make_clip(folder / "inner" / "a.mp4", 9, 33, 17)
    make_clip(folder / "inner" / "b.MP4", 4, 16, 16)
    make_clip(folder / ".hidden" / "c.mp4", 1, 8, 8)
    (folder / "notes.txt").write_text("not a clip")
    return folder


NAMES = ["a.mkv", "a.mp4", "inner/a.mp4", "inner/b.MP4"]


@pytest.fixture
def own(tmp_path, videos):
    """own(name) -> path: a copy of a clip that the test may change."""

    def copy(name, to):
        target = tmp_path / "own" / to
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((videos / name).read_bytes())
        return target

    return copy


@pytest.fixture
def encode_batch(run_cli, weights_file):
    """encode_batch(*arguments) -> (exit status, summary)."""

    def run(*arguments, settings=CHEAP):
        result = run_cli("encode-batch", *arguments, "--model", weights_file, *settings, "--json")
        assert "Traceback" not in result.stderr
        summary = json.loads(result.stdout)
        assert summary.keys() >= FIELDS
        assert summary["clips"] == sum(summary[name] for name in ("done", "skipped", "failed", "left"))
        assert summary["failed"] == len(summary["failures"]) == result.stderr.count("failed: ")
        return result.exit_code, summary

    return run


def pools(out):
    """Name -> content of every FASTA file."""
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.fasta")}


def counts(summary):
    return tuple(summary[name] for name in ("done", "skipped", "failed"))


# ---- which clips ---------------------------------------------------------------------------


def test_names(tmp_path, videos):
    assert [clip.name for clip in batch.find_clips([videos])] == NAMES
    found = batch.find_clips([videos, videos / "inner", videos / "a.mp4"])
    assert [clip.name for clip in found] == NAMES
    assert [c.name for c in batch.find_clips([videos / "inner" / "a.mp4"])] == ["a.mp4"]
    assert [c.name for c in batch.find_clips([videos / "notes.txt", videos / "inner"])] == [
        "inner/a.mp4",
        "inner/b.MP4",
        "notes.txt",
    ]
    assert all(clip.size == clip.path.stat().st_size for clip in found)


def test_hosts_share_every_clip_once():
    generator = np.random.default_rng(0)
    sizes = generator.integers(0, 1000, 57).tolist()
    clips = [batch.Clip(Path(f"{n}.mp4"), f"{n}.mp4", size) for n, size in enumerate(sizes)]
    for hosts in (1, 2, 5, 60):
        shares = [batch.share(clips, host, hosts) for host in range(hosts)]
        assert sorted(clip.name for one in shares for clip in one) == sorted(clip.name for clip in clips)
        loads = [sum(clip.size for clip in one) for one in shares]
        assert max(loads) - min(loads) <= max(sizes)
        shuffled = [clips[n] for n in generator.permutation(len(clips))]
        assert shares == [batch.share(shuffled, host, hosts) for host in range(hosts)]
        assert all(one == sorted(one, key=lambda clip: -clip.size) for one in shares)
    empty = [batch.Clip(Path(f"{n}.mp4"), f"{n}.mp4", 0) for n in range(6)]
    assert [len(batch.share(empty, host, 3)) for host in range(3)] == [2, 2, 2]


# ---- the pools -----------------------------------------------------------------------------


def test_same_files_as_encode(tmp_path, videos, encode_batch, run_cli, weights_file):
    out = tmp_path / "out"
    settings = (*CHEAP, "--redundancy", 0.3, "--left-primer", "ACGTTGCA")
    status, summary = encode_batch(videos, "--out", out, "--at-once", 3, settings=settings)
    assert (status, *counts(summary)) == (DONE, 4, 0, 0)
    made = pools(out)
    assert sorted(made) == [f"{name}.fasta" for name in NAMES]
    strands = 0
    for name in NAMES:
        run_cli("encode", videos / name, "-o", tmp_path / "one.fasta", "--model", weights_file, *settings)
        assert made[f"{name}.fasta"] == (tmp_path / "one.fasta").read_bytes()
        strands += sum(map(len, fasta.read(tmp_path / "one.fasta").values()))
    assert (summary["frames"], summary["strands"], summary["nucleotides"]) == (24, strands, 108 * strands)
    assert summary["devices"] == 8
    assert summary["frames_per_second"] == pytest.approx(24 / summary["seconds"], rel=0.05)
    assert summary["nucleotides_per_second_per_device"] == pytest.approx(
        108 * strands / summary["seconds"] / 8, rel=0.05
    )
    assert json.loads((out / "summary-0.json").read_text()) == summary
    assert not list(out.rglob(".*"))


def test_hosts_together(tmp_path, videos, encode_batch):
    out, times = tmp_path / "out", {}
    for host in (0, 1, 0):
        status, summary = encode_batch(videos, "--out", out, "--hosts", 2, "--host", host)
        assert status == DONE
        assert json.loads((out / f"summary-{host}.json").read_text())["host"] == host
        now = {path: path.stat().st_mtime_ns for path in out.rglob("*.fasta")}
        assert now.items() >= times.items()
        assert len(now) - len(times) == summary["done"]
        times = now
    assert sorted(pools(out)) == [f"{name}.fasta" for name in NAMES]
    assert counts(encode_batch(videos, "--out", out)[1]) == (0, 4, 0)


# ---- primers -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library_file(tmp_path_factory, run_cli):
    path = tmp_path_factory.mktemp("library") / "library.csv"
    assert run_cli("primers", "--count", 6, "--constraints", "strand", "-o", path).exit_code == DONE
    return path


def pair_names(out):
    """Name of each clip -> name of its pair, as the records say."""
    records = {p.relative_to(out).as_posix(): json.loads(p.read_text()) for p in out.rglob("*.fasta.json")}
    return {name.removesuffix(".fasta.json"): record["pair"]["name"] for name, record in records.items()}


def test_each_clip_has_a_pair_of_its_own(tmp_path, videos, library_file, encode_batch, run_cli, weights_file):
    """On several hosts, in whatever order, and again: the pairs that one host alone would give."""
    out, pairs = tmp_path / "out", library.read(library_file)
    expected = {name: f"P{n:04d}" for n, name in enumerate(NAMES, 1)}
    for host in (1, 0):
        status, _ = encode_batch(videos, "--out", out, "--primers", library_file, "--hosts", 2, "--host", host)
        assert status == DONE
    assert pair_names(out) == expected
    first = pools(out)
    for name in NAMES:
        pair = pairs[expected[name]]
        strands = first[f"{name}.fasta"].decode().splitlines()[1::2]
        assert all(row.startswith(pair.left) and row.endswith(pair.right) for row in strands)
    assert counts(encode_batch(videos, "--out", out, "--primers", library_file)[1]) == (0, 4, 0)
    chosen = ("--primers", library_file, "--pair", "P0003", "--model", weights_file, *CHEAP)
    assert run_cli("encode", videos / "inner" / "a.mp4", "-o", tmp_path / "one.fasta", *chosen).exit_code == DONE
    assert (tmp_path / "one.fasta").read_bytes() == first["inner/a.mp4.fasta"]

    for name in ("a.mkv", "inner/a.mp4"):  # two are gone, one of them with its record
        (out / f"{name}.fasta").unlink()
    (out / "inner/a.mp4.fasta.json").unlink()
    assert counts(encode_batch(videos, "--out", out, "--primers", library_file)[1]) == (2, 2, 0)
    assert pools(out) == first


def test_pairs_of_clips_that_come_later(tmp_path, own, library_file, encode_batch):
    """They get free ones, whatever their names; those that have one keep it, and too few are refused."""
    out, folder = tmp_path / "out", own("a.mp4", "b.mp4").parent
    assert encode_batch(folder, "--out", out, "--primers", library_file)[0] == DONE
    own("a.mkv", "a.mkv")
    assert counts(encode_batch(folder, "--out", out, "--primers", library_file)[1]) == (1, 1, 0)
    assert pair_names(out) == {"b.mp4": "P0001", "a.mkv": "P0002"}
    (folder / "b.mp4").unlink()  # its pool is still there, and so in the tube
    own("inner/a.mp4", "c.mp4")
    assert counts(encode_batch(folder, "--out", out, "--primers", library_file)[1]) == (1, 1, 0)
    assert pair_names(out) == {"b.mp4": "P0001", "a.mkv": "P0002", "c.mp4": "P0003"}


def test_libraries_that_do_not_suit(tmp_path, videos, library_file, run_cli, weights_file):
    lines, few, out = library_file.read_text().splitlines(), tmp_path / "few.csv", tmp_path / "out"

    def refused(words, *arguments):
        result = run_cli("encode-batch", videos, "--out", out, "--model", weights_file, *CHEAP, *arguments)
        assert (result.exit_code, result.stderr.count("\n")) == (WRONG_USE, 1)
        assert words in result.stderr
        assert not list(out.rglob("*.fasta"))

    few.write_text("\n".join(lines[:4]))
    refused("4 files need a pair of primers each, and the library has 3", "--primers", few)
    few.write_text("")
    refused("is empty", "--primers", few)
    refused("--left-primer has no effect beside --primers", "--primers", library_file, "--left-primer", "ACGTTGCA")
    out.mkdir()
    pair = {"name": "P0001", "left": "ACGTTGCA", "right": "ACGTTGCA"}
    record = {"format": batch.FORMAT, "source": {}, "settings": {}, "output": {}, "pair": pair}
    (out / "old.mp4.fasta.json").write_text(json.dumps(record))
    refused("old.mp4 was written with pair P0001", "--primers", library_file)
    (out / "old.mp4.fasta.json").write_text(json.dumps({"format": batch.FORMAT - 1, "pair": pair}))
    refused("old.mp4 was written with pair P0001", "--primers", library_file)
    (out / ".0123456789ab.partial.fasta.json").write_text("{")  # another host is writing it
    refused("old.mp4 was written with pair P0001", "--primers", library_file)
    others = [json.dumps(record | {"pair": wrong}) for wrong in ("P0001", {"name": "P0001"}, pair | {"left": 1})]
    for damaged in ("{", "[]", "null", *others):
        (out / "old.mp4.fasta.json").write_text(damaged)
        refused("old.mp4.fasta.json is damaged", "--primers", library_file)


# ---- restart -------------------------------------------------------------------------------


def test_restart_does_what_is_missing(tmp_path, own, encode_batch):
    """Each change redoes one clip, and that one alone; the result is what a fresh run gives."""
    a, b, out = own("a.mp4", "a.mp4"), own("a.mkv", "b.mkv"), tmp_path / "out"
    pool, record = out / "a.mp4.fasta", out / "a.mp4.fasta.json"

    def again():
        status, summary = encode_batch(a.parent, "--out", out)
        assert status == DONE
        return counts(summary)

    assert again() == (2, 0, 0)
    first = pools(out)
    assert again() == (0, 2, 0)
    os.utime(a)  # copied: the same content at another time
    os.utime(pool)
    assert again() == (0, 2, 0)

    pool.write_bytes(first["a.mp4.fasta"][:-50])
    assert again() == (1, 1, 0)
    assert pools(out) == first
    pool.write_bytes(first["a.mp4.fasta"].replace(b"A", b"C", 1))  # as long as before
    assert again() == (1, 1, 0)
    assert pools(out) == first
    pool.unlink()
    assert again() == (1, 1, 0)
    assert pools(out) == first

    a.write_bytes(b.read_bytes())
    assert again() == (1, 1, 0)
    changed = pools(out)
    assert changed["b.mkv.fasta"] == first["b.mkv.fasta"] == changed["a.mp4.fasta"]
    assert record.exists()
    assert again() == (0, 2, 0)


def test_restart_with_other_settings(tmp_path, videos, encode_batch, run_cli, weights_file):
    clip, out = videos / "a.mp4", tmp_path / "out"
    assert counts(encode_batch(clip, "--out", out)[1]) == (1, 0, 0)
    for settings in (
        (*CHEAP, "--redundancy", 0.5),
        (*CHEAP, "--forbid", "ACGA"),
        ("--constraints", "goldman", *CHEAP[2:]),
    ):
        assert counts(encode_batch(clip, "--out", out, settings=settings)[1]) == (1, 0, 0)
        assert counts(encode_batch(clip, "--out", out, settings=settings)[1]) == (0, 1, 0)
    used = weights.load(weights_file)
    params = dict(used.params, to_digits={"w": -used.params["to_digits"]["w"], "b": used.params["to_digits"]["b"]})
    weights.save(tmp_path / "other.safetensors", params, used.config, {})
    other = (*CHEAP, "--model", tmp_path / "other.safetensors")
    assert counts(encode_batch(clip, "--out", out, settings=other)[1]) == (1, 0, 0)
    run_cli("encode", clip, "-o", tmp_path / "one.fasta", *other)
    assert pools(out)["a.mp4.fasta"] == (tmp_path / "one.fasta").read_bytes()


def test_cut_off_between_record_and_pool(tmp_path, videos, weights_file, monkeypatch):
    """The record is there, the pool has not got its name: made again, and nothing else is left."""
    config = CodecConfig(codec="tokens", constraints="strand", strands=StrandConfig(length=100, redundancy=0.1))
    task = batch.Task(tmp_path / "out", Nets(weights.load(weights_file)), config)
    (clip,) = batch.find_clips([videos / "a.mp4"])
    write = batch._write_json

    def cut_off(path, value):
        write(path, value)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(batch, "_write_json", cut_off)
        with pytest.raises(KeyboardInterrupt):
            batch.encode_clip(clip, task)
    assert [p.name for p in task.out.iterdir()] == ["a.mp4.fasta.json"]
    assert not batch.is_done(clip, task)
    batch.encode_clip(clip, task)
    assert batch.is_done(clip, task)


def test_foreign_files_are_not_replaced(tmp_path, own, encode_batch):
    a, out = own("a.mp4", "a.mp4"), tmp_path / "out"
    out.mkdir()
    (out / "a.mp4.fasta").write_text(">mine\nACGT\n")
    status, summary = encode_batch(a, "--out", out)
    assert (status, *counts(summary)) == (FAILED, 0, 0, 1)
    assert "no record" in summary["failures"][str(a)]
    assert (out / "a.mp4.fasta").read_text() == ">mine\nACGT\n"
    (out / "a.mp4.fasta").unlink()
    encode_batch(a, "--out", out)
    made = pools(out)
    (tmp_path / "elsewhere").mkdir()
    twin = tmp_path / "elsewhere" / "a.mp4"
    twin.write_bytes(a.read_bytes())
    assert counts(encode_batch(twin, "--out", out)[1]) == (0, 1, 0)  # the same clip under another path
    twin.write_bytes((a.parent / "a.mp4").read_bytes() + b"more")
    status, summary = encode_batch(twin, "--out", out)
    assert (status, *counts(summary)) == (FAILED, 0, 0, 1)
    assert f"another clip, {a}" in summary["failures"][str(twin)]
    assert pools(out) == made


# ---- failures ------------------------------------------------------------------------------


def test_failed_clips_stop_no_other(tmp_path, own, encode_batch, monkeypatch):
    a, out = own("a.mp4", "a.mp4"), tmp_path / "out"
    folder = a.parent
    b = own("a.mkv", "b.mkv")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("not a video\n" * 1000)
    (folder / "short.mp4").write_bytes(a.read_bytes()[:-200])
    (folder / "odd.mp4").write_bytes(a.read_bytes())
    encode = codec.encode

    def break_down(reader, *arguments, **options):
        if getattr(reader, "path", None) == folder / "odd.mp4":
            raise RuntimeError("out of memory")
        return encode(reader, *arguments, **options)

    monkeypatch.setattr(codec, "encode", break_down)
    status, summary = encode_batch(folder, "--out", out)
    assert (status, *counts(summary)) == (FAILED, 2, 0, 4)
    assert sorted(pools(out)) == ["a.mp4.fasta", "b.mkv.fasta"]
    reasons = summary["failures"]
    assert "is empty" in reasons[str(folder / "empty.mp4")]
    assert "not a readable video" in reasons[str(folder / "text.mp4")]
    assert reasons[str(folder / "odd.mp4")] == "RuntimeError: out of memory"
    assert str(folder / "short.mp4") in reasons
    assert all("\n" not in reason and str(folder) not in reason for reason in reasons.values())
    assert not list(out.rglob(".*"))
    monkeypatch.setattr(codec, "encode", encode)
    (folder / "text.mp4").write_bytes(b.read_bytes())
    for name in ("empty.mp4", "short.mp4"):
        (folder / name).unlink()
    status, summary = encode_batch(folder, "--out", out)
    assert (status, *counts(summary)) == (DONE, 2, 2, 0)


def test_clip_that_changes_while_it_is_read(tmp_path, own, encode_batch, monkeypatch):
    a, out = own("a.mp4", "a.mp4"), tmp_path / "out"
    encode = codec.encode

    def change(reader, *arguments, **options):
        os.utime(a)
        return encode(reader, *arguments, **options)

    monkeypatch.setattr(codec, "encode", change)
    status, summary = encode_batch(a, "--out", out)
    assert (status, summary["failures"][str(a)]) == (FAILED, "changed while it was read; run again")
    assert pools(out) == {}


def test_full_disk_ends_the_batch(tmp_path, videos, run_cli, weights_file, monkeypatch):
    def full(path, pool):
        raise files.OutputError(f"cannot write {path}: no space left; free some") from OSError(28, "no space left")

    monkeypatch.setattr(fasta, "write_pool", full)
    arguments = ("encode-batch", videos, "--out", tmp_path / "out", "--model", weights_file, *CHEAP)
    result = run_cli(*arguments)
    assert result.exit_code == WRONG_USE
    assert "no space left" in result.stderr
    assert result.stderr.count("\n") == 1


def test_interrupt_keeps_what_is_done(tmp_path, videos, encode_batch, monkeypatch):
    """Ctrl-C while the second clip is encoded: status 130, one pool, and the restart does the rest."""
    out, encode, calls = tmp_path / "out", batch.encode_clip, []

    def press(clip, task, progress):
        calls.append(clip)
        if len(calls) == 2:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            for _ in range(1000):
                time.sleep(0.01)
                progress("tokens", 0, 1)
            raise AssertionError("not stopped")
        return encode(clip, task, progress)

    monkeypatch.setattr(batch, "encode_clip", press)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        status, summary = encode_batch(videos, "--out", out, "--at-once", 1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (status, *counts(summary), summary["left"]) == (INTERRUPTED, 1, 0, 0, 3)
    assert summary["interrupted"]
    assert len(pools(out)) == 1
    monkeypatch.setattr(batch, "encode_clip", encode)
    assert counts(encode_batch(videos, "--out", out)[1]) == (3, 1, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.mp4"], ["gone.mp4", "no such file or folder"]),
        (["bare"], ["bare", "named like a video", "mp4"]),
        (["a.mp4", "--host", "1"], ["--hosts and --host", "both"]),
        (["a.mp4", "--hosts", "2", "--host", "2"], ["--host 2 of --hosts 2"]),
        (["a.mp4", "--hosts", "0", "--host", "0"], ["--host 0 of --hosts 0"]),
        (["a.mp4", "--at-once", "0"], ["--at-once 0"]),
        (["a.mp4", "--redundancy", "-1"], ["redundancy -1"]),
        (["a.mp4", "--constraints", "loose"], ["loose", "helix"]),
        (["a.mp4", "--model", "gone.safetensors"], ["gone.safetensors", "--model"]),
    ],
)
def test_wrong_use_is_named(tmp_path, videos, run_cli, weights_file, monkeypatch, arguments, words):
    """Before anything is encoded."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare").mkdir()
    (tmp_path / "a.mp4").write_bytes((videos / "a.mp4").read_bytes())
    result = run_cli("encode-batch", "--out", "out", "--model", weights_file, *arguments)
    assert result.exit_code == WRONG_USE, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("helix-jax: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr
    assert not list(tmp_path.glob("out/**/*.fasta"))


def test_output_that_is_a_file(videos, run_cli, weights_file):
    result = run_cli("encode-batch", videos, "--out", videos / "notes.txt", "--model", weights_file, *CHEAP)
    assert result.exit_code == WRONG_USE
    assert "notes.txt" in result.stderr


# ---- what is shown -------------------------------------------------------------------------


def test_table_and_warnings(tmp_path, make_clip, run_cli, weights_file):
    make_clip(tmp_path / "loud.mp4", 4, 16, 16, sound=True)
    make_clip(tmp_path / "wide.mp4", 4, 16, 16, "25", times=[0, 1, 2, 4], aspect=Fraction(16, 11))
    (tmp_path / "empty.mp4").write_bytes(b"")
    settings = ("--model", weights_file, "--fps", 25, *CHEAP)
    result = run_cli("encode-batch", tmp_path, "--out", tmp_path / "out", *settings)
    assert result.exit_code == FAILED
    assert "\x1b" not in result.stdout + result.stderr
    assert f"failed: {tmp_path / 'empty.mp4'}: " in result.stderr
    assert "1 clips have pixels that are not square" in result.stderr
    summary = json.loads((tmp_path / "out" / "summary-0.json").read_text())
    assert summary["not_kept"] == {"aspect": 1}
    assert summary["with_sound"] == 1
    assert summary["settings"]["prepare"] == {"fps": "25", "deinterlace": False, "tone_map": False}
    for words in ("frames per second per device", "nucleotides per second", "startup seconds", "left"):
        assert words in result.stdout


def test_progress_counts_clips_and_frames(tmp_path, videos, weights_file):
    config = CodecConfig(codec="tokens", constraints="strand", strands=StrandConfig(length=100, redundancy=0.1))
    task = batch.Task(tmp_path / "out", Nets(weights.load(weights_file)), config)
    steps = []
    batch.run(batch.find_clips([videos]), task, at_once=2, progress=lambda *step: steps.append(step))
    clips = [done for station, done, _ in steps if station == "clips"]
    frames = [(done, total) for station, done, total in steps if station == "frames"]
    assert sum(clips) == 4
    assert sum(done for done, _ in frames) == frames[-1][1] == 24
    assert {total for station, _, total in steps if station == "clips"} == {4}


def test_process_on_a_terminal_and_on_pipes(tmp_path, videos, weights_file, on_terminal):
    """Bars on standard error where it is a terminal; on pipes nothing but the summary."""
    out = tmp_path / "out"
    arguments = ("encode-batch", videos / "a.mp4", videos / "a.mkv", "--out", out, "--model", weights_file, *CHEAP)
    status, printed, shown = on_terminal(*arguments)
    assert status == DONE
    assert b"clips" in shown
    assert b"frames" in shown
    assert b"\x1b" not in printed
    command = [sys.executable, "-m", "helix_jax.cli", *map(str, arguments)]
    again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (again.returncode, again.stderr) == (DONE, "")
    assert "\x1b" not in again.stdout
