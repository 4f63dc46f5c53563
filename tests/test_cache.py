"""The user's cache: its limit and what goes first, clearing, one entry for a set however it is written; and what a
command imports and sets before it starts."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import helix_jax
from helix_jax import cache, packing, parallel
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.tk_scone import capacity, constraints, tables
from helix_jax.tk_scone.constraints import Constraints

SMALL = Constraints(longest_run=2, balance=3)


def with_limit(monkeypatch, kind, limit):
    changed = dataclasses.replace(getattr(cache, kind), limit=limit)
    monkeypatch.setattr(cache, kind, changed)
    monkeypatch.setattr(cache, "KINDS", tuple(changed if k.name == changed.name else k for k in cache.KINDS))
    return changed


def table_files(folder):
    return {path.name: path.stat().st_size for path in folder.rglob("tables-*.npz")}


def age(folder):
    """Make every file of the cache ten seconds older."""
    for path in folder.rglob("*.npz"):
        os.utime(path, ns=(path.stat().st_mtime_ns - 10**10,) * 2)


# ---- its limit -------------------------------------------------------------------------------------------


def test_what_was_not_used_for_longest_goes_first(own_cache, monkeypatch):
    made = []
    for length in (40, 41):
        tables.load(SMALL, length)
        made += [name for name in table_files(own_cache) if name not in made]
        age(own_cache)
    with_limit(monkeypatch, "TABLES", 2 * max(table_files(own_cache).values()) + 500)  # room for two, not for three
    [first] = own_cache.rglob(made[0])
    before = first.stat().st_mtime_ns
    tables.load(SMALL, 40)
    assert first.stat().st_mtime_ns > before  # not every file system notes a reading
    assert set(table_files(own_cache)) == set(made)
    tables.load(SMALL, 42)
    left = set(table_files(own_cache))
    assert len(left) == 2
    assert made[0] in left  # used since
    assert made[1] not in left


def test_the_file_just_made_stays_however_large(own_cache, monkeypatch):
    with_limit(monkeypatch, "TABLES", 100)
    for length in (40, 41):
        tables.load(SMALL, length)
        capacity.load(SMALL)
        assert len(table_files(own_cache)) == 1
    monkeypatch.setattr(tables, "build", None)
    tables.load(SMALL, 41)


def test_what_a_killed_process_left_counts_too(own_cache, monkeypatch):
    folder = own_cache / "helix_jax"
    folder.mkdir()
    (folder / ".0123456789ab.partial.npz").write_bytes(bytes(5000))
    age(own_cache)
    with_limit(monkeypatch, "TABLES", 5000)
    tables.load(SMALL, 40)
    assert [path.name.startswith("tables-") for path in folder.iterdir()] == [True]


def test_a_file_that_another_process_removed_is_passed_over(own_cache, monkeypatch):
    tables.load(SMALL, 40)
    true = cache.files
    monkeypatch.setattr(cache, "files", lambda kind: [(own_cache / "gone.npz", 10**9), *true(kind)])
    limited = with_limit(monkeypatch, "TABLES", 10**9)
    cache.trim(limited)
    assert len(table_files(own_cache)) == 1
    assert cache.clear()[0] == 3
    cache.touch(own_cache / "gone.npz")


def test_programs_have_a_limit_of_their_own(own_cache, monkeypatch):
    folder = own_cache / "helix_jax" / "xla"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"jit_{number}-cache").write_bytes(bytes(100))
        os.utime(folder / f"jit_{number}-cache", (1000 + number, 1000 + number))
    with_limit(monkeypatch, "PROGRAMS", 250)
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    try:
        parallel.keep_compiled()
        assert jax.config.jax_compilation_cache_dir == str(folder)
    finally:
        jax.config.update("jax_compilation_cache_dir", before[0])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])
    assert sorted(path.name for path in folder.iterdir()) == ["jit_1-cache", "jit_2-cache"]


# ---- the command -------------------------------------------------------------------------------------------


def test_the_command_shows_and_clears_what_is_ours(own_cache, run_cli):
    tables.load(SMALL, 40)
    capacity.load(SMALL)
    folder = own_cache / "helix_jax"
    (folder / "xla").mkdir()
    (folder / "xla" / "jit_f-00-cache").write_bytes(bytes(70))
    (folder / "notes.txt").write_text("not ours")
    (folder / "xla" / "notes-cache.txt").write_text("not ours")
    size = sum(path.stat().st_size for path in folder.glob("*.npz"))
    shown = json.loads(run_cli("cache", "--json").stdout)
    assert shown == {
        "folder": str(folder), "tables_files": 2, "tables_bytes": size, "tables_limit": 1 << 30,
        "programs_files": 1, "programs_bytes": 70, "programs_limit": 1 << 29,
    }  # fmt: skip
    assert "programs bytes" in run_cli("cache").stdout
    cleared = json.loads(run_cli("cache", "--clear", "--json").stdout)
    assert (cleared["removed_files"], cleared["removed_bytes"]) == (3, size + 70)
    assert (cleared["tables_files"], cleared["programs_bytes"]) == (0, 0)
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["notes-cache.txt", "notes.txt"]
    assert json.loads(run_cli("cache", "--clear", "--json").stdout)["removed_files"] == 0


# ---- one entry for a set, however it is written ------------------------------------------------------------------

WRITTEN = [("GAT", "CC"), ("CC", "GAT"), ("cc", "gat"), ("CC", "GAT", "GAT"), ("ATC", "gg"), ("GG", "cc", "atc", "GAT")]


@pytest.mark.parametrize("motifs", WRITTEN)
def test_motifs_in_any_order_and_case_give_the_same_tables(motifs):
    """The hashes are those of release 0.1.0, which had no canonical order: pools written then are still read."""
    bare = tables.build(Constraints(longest_run=2, balance=3, motifs=motifs), 40)
    ends = tables.build(Constraints(longest_run=2, balance=3, motifs=motifs, left="acgT", right="TG"), 40)
    assert (bare.digest.hex()[:16], ends.digest.hex()[:16]) == ("590aa9f1c3b99586", "8353370d7aa30ac8")


def test_a_set_has_one_entry(own_cache, monkeypatch):
    first = tables.load(Constraints("a", longest_run=2, motifs=WRITTEN[0], left="ACGT", right="TG"), 40)
    bits = capacity.load(Constraints("a", longest_run=2, motifs=WRITTEN[0], left="ACGT", right="TG"))
    assert bits == capacity.capacity(Constraints(longest_run=2, motifs=WRITTEN[0], left="ACGT", right="TG"))
    monkeypatch.setattr(tables, "build", None)
    monkeypatch.setattr(capacity, "capacity", None)
    for motifs in WRITTEN:
        again = Constraints("b", longest_run=2, motifs=motifs, left="acgt", right="tg")
        assert tables.load(again, 40).digest == first.digest
        assert capacity.load(again) == bits
    assert len(list(own_cache.rglob("*.npz"))) == 2


def test_pairs_with_one_left_primer_have_one_capacity(own_cache):
    """The right primer changes no set of endless strands; that is so: it is what the limit grows by for each base."""
    ends = [
        Constraints(longest_run=2, window=6, window_gc=(1 / 3, 2 / 3), motifs=("GAA",), left="ACGT", right=right)
        for right in ("", "TG", "CATGC")
    ]
    assert len({capacity.load(one) for one in ends}) == 1
    assert len(list(own_cache.rglob("capacity-*.npz"))) == 1
    for one in ends:
        assert capacity.limit(one, 61) - capacity.limit(one, 60) == pytest.approx(capacity.load(one), abs=1e-4)


@pytest.mark.parametrize(
    "other",
    [
        {"motifs": ("GAT",)},
        {"motifs": ("CC", "GAA")},
        {"left": "ACGA"},
        {"right": "TC"},
        {"longest_run": 3},
        {"left": ""},
    ],
)
def test_another_set_is_another_entry(other):
    one = Constraints(longest_run=2, motifs=WRITTEN[0], left="ACGT", right="TG")
    assert tables.cached(dataclasses.replace(one, **other), "tables") != tables.cached(one, "tables")
    assert dataclasses.replace(one, **other).canonical != one.canonical


def test_a_pool_comes_back_with_its_motifs_in_another_order():
    config = CodecConfig(constraints="goldman", strands=StrandConfig(100, left_primer="acgtac", right_primer="TGTCAG"))
    pool = packing.pack(b"in any order", config=config, motifs=("TCGA", "gcat"))
    np.testing.assert_array_equal(
        pool.strands, packing.pack(b"in any order", config=config, motifs=("ATGC", "TCGA")).strands
    )
    strands = {pool.strands.shape[1]: pool.strands}
    data, _ = packing.unpack(strands, motifs=("GCAT", "tcga", "GCAT"), primers=("ACGTAC", "tgtcag"))
    assert data == b"in any order"


def test_letters_that_are_none_are_refused_before_a_file_is_named():
    for word in ({"motifs": ("GAXT",)}, {"left": "ACGN"}, {"right": "-"}, {"motifs": ("",)}):
        with pytest.raises(constraints.ConstraintError):
            tables.load(Constraints(longest_run=2, **word), 40)


def test_a_damaged_capacity_is_worked_out_again(own_cache):
    bits = capacity.load(SMALL)
    [path] = own_cache.rglob("capacity-*.npz")
    whole = path.read_bytes()
    at = whole.index(np.float64(bits).tobytes())
    for damaged in (b"", whole[:100], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
        path.write_bytes(damaged)
        assert capacity.load(SMALL) == bits
        assert path.read_bytes() == whole


def test_a_pool_s_figures_work_its_capacity_out_once(own_cache, monkeypatch, run_cli, tmp_path):
    calls, true = [], capacity.capacity
    monkeypatch.setattr(capacity, "capacity", lambda chosen: calls.append(chosen) or true(chosen))
    (tmp_path / "in").write_bytes(b"once")
    found = set()
    for motif in ("TCGA", "tcga"):
        options = ["--constraints", "goldman", "--forbid", motif, "--json"]
        shown = run_cli("pack", tmp_path / "in", "-o", tmp_path / "pool.fa", *options).stdout
        found.add(json.loads(shown)["capacity"])
        found.add(json.loads(run_cli("inspect", tmp_path / "pool.fa", "--forbid", motif, "--json").stdout)["capacity"])
        found.add(round(json.loads(run_cli("capacity", *options).stdout)["capacity"], 4))
    assert found == {round(true(constraints.custom(constraints.named("goldman"), motifs=("TCGA",))), 4)}
    assert len(calls) == 1


# ---- what a command imports and sets ------------------------------------------------------------------------------

# arguments: of the command. Its last line of output: JSON [exit status, modules, settings of JAX if it was imported].
SCRIPT = """
import json, sys
from helix_jax import cli
try:
    cli.main()
except SystemExit as end:
    status = end.code
modules = [name for name in sys.modules if name.count(".") < 2]
names = ["jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs", "jax_num_cpu_devices"]
jax = sys.modules.get("jax")
print()
print(json.dumps([status, modules, jax and {name: getattr(jax.config, name) for name in names}]))
"""


def command(*arguments, **environment):
    root = pathlib.Path(helix_jax.__file__).parents[1]
    there = {name: text for name, text in os.environ.items() if not name.startswith("JAX_")}
    there |= {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])} | environment
    line = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    result = subprocess.run(line, env=there, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    status, modules, settings = json.loads(result.stdout.splitlines()[-1])
    return status, set(modules), settings, result


HEAVY = {"jax", "jaxlib", "scipy", "flax", "optax", "chex", "av", "matplotlib", "numpy"}


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("pack", "--help"), ("cache",)])
def test_help_imports_nothing_heavy(arguments):
    status, modules, _, result = command(*arguments)
    assert status == 0
    assert not modules & HEAVY
    if arguments == ("--version",):
        assert result.stdout.split()[:2] == ["helix-jax", helix_jax.__version__]


def test_bytes_need_no_nets(tmp_path):
    """pack and unpack; and the folder that the user gave JAX for compiled programs is kept, our own is the default."""
    (tmp_path / "in").write_bytes(b"bytes")
    pool = tmp_path / "pool.fasta"
    ours = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    theirs = ours | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "theirs"), "JAX_NUM_CPU_DEVICES": "1"}
    status, modules, settings, _ = command("pack", tmp_path / "in", "-o", pool, "--constraints", "goldman", **ours)
    assert status == 0
    assert not modules & {
        "flax",
        "optax",
        "chex",
        "av",
        "matplotlib",
        "scipy.stats",
        "helix_jax.tokenizer",
        "helix_jax.prior",
    }
    assert settings == {
        "jax_compilation_cache_dir": str(tmp_path / "cache" / "helix_jax" / "xla"),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_num_cpu_devices": os.cpu_count(),
    }
    kept = set((tmp_path / "cache").rglob("*-cache"))
    assert kept
    status, modules, settings, _ = command("unpack", pool, "-o", tmp_path / "out", **theirs)
    assert status == 0
    assert (tmp_path / "out").read_bytes() == b"bytes"
    assert not modules & {
        "flax",
        "optax",
        "chex",
        "av",
        "matplotlib",
        "scipy.stats",
        "helix_jax.tokenizer",
        "helix_jax.prior",
    }
    assert settings == {
        "jax_compilation_cache_dir": str(tmp_path / "theirs"),
        "jax_persistent_cache_min_compile_time_secs": 1.0,
        "jax_num_cpu_devices": 1,
    }
    assert set((tmp_path / "cache").rglob("*-cache")) == kept
    shown = json.loads(command("cache", "--json", **theirs)[3].stdout.splitlines()[0])
    assert str(tmp_path / "theirs") in shown["JAX_COMPILATION_CACHE_DIR"]


# ---- no device of the kind that was asked for ----------------------------------------------------------------------


@pytest.mark.parametrize("options", [("--constraints", "goldman"), ("--writer", "timing")])
def test_a_device_that_is_not_there_is_one_line(tmp_path, options):
    (tmp_path / "in").write_bytes(b"bytes")
    out = tmp_path / "out"
    status, *_, result = command("pack", tmp_path / "in", "-o", out, *options, JAX_PLATFORMS="abacus")
    assert status == 2
    [line] = result.stderr.splitlines()
    assert "JAX_PLATFORMS=abacus" in line
    assert "leave JAX_PLATFORMS unset" in line
    assert not out.exists()


def test_no_gpu_is_a_device_error(monkeypatch, run_cli, tmp_path):
    """JAX says nothing at all where `cuda` finds no card: an empty AssertionError. One of our own stays what it is."""

    def missing():
        raise AssertionError

    (tmp_path / "in").write_bytes(b"bytes")
    arguments = ("pack", tmp_path / "in", "-o", tmp_path / "out", "--constraints", "goldman")
    with monkeypatch.context() as patch:
        patch.setattr(jax, "local_devices", missing)
        with pytest.raises(parallel.DeviceError, match="JAX finds no"):
            parallel.local_devices()
        result = run_cli(*arguments)
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1
    monkeypatch.setattr(packing, "pack_draft", lambda *_, **__: missing())
    with pytest.raises(AssertionError):
        run_cli(*arguments)
