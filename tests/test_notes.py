"""What a pool knows of its file: when it is written, that it comes back, and that a forged one does no harm."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax import codec, notes, packing, video
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.contents import Content
from helix_jax.errors import DecodeError, HelixError
from helix_jax.nets import Nets
from helix_jax.notes import Note
from helix_jax.strands import fasta, sections
from helix_jax.strands.bases import Bases
from helix_jax.tk_scone import mixing

CONFIG = CodecConfig(constraints="goldman", strands=StrandConfig(length=100))
DATA = np.random.default_rng(0).bytes(8000)
NOTE = Note("tale.txt", len(DATA), hashlib.sha256(DATA).digest())
CHEAP = ("--constraints", "goldman", "--strand-length", 100)


def back(pool):
    return {pool.strands.shape[1]: pool.strands}


def kinds(pool):
    return [section.kind for section in pool.header.sections]


def with_note(data, note, key=b"12345678"):
    """A pool of a file with any bytes for its note, as somebody may forge it."""
    station = Bases().open(CONFIG)
    every = [Content("note", note), Content("file", data)]
    layout = packing.plan_sections(station, [(c.section, None) for c in every], {"kind": "bytes"}, "bytes")
    rows = [c.data.ljust(p.sources * layout.symbol_bytes, b"\0") for c, p in zip(every, layout.sections, strict=True)]
    digits = mixing.from_bytes(np.frombuffer(b"".join(rows), np.uint8).reshape(-1, layout.symbol_bytes))
    return station.draft(
        mixing.to_bytes(mixing.mix(digits, key, CONFIG.mixing)),
        {"kind": "bytes", "sections": tuple(c.section for c in every)},
        layout,
        content_bytes=len(note) + len(data),
        mixing=CONFIG.mixing,
        key=key,
    ).written()


# ---- the bytes -------------------------------------------------------------------------------------------------


@given(name=st.text(max_size=300), size=st.integers(0, (1 << 56) - 1), digest=st.binary(min_size=32, max_size=32))
def test_a_note_comes_back(name, size, digest):
    note = Note(notes.fitted(name), size, digest)
    assert len(note.name.encode()) <= notes.LONGEST
    assert Note.from_bytes(note.to_bytes()) == note
    later = note.to_bytes() + sections.field(7, b"what a later release knows") + sections.field(200, b"")
    assert Note.from_bytes(later) == note


def test_a_note_is_compact():
    assert len(NOTE.to_bytes()) == 32 + 2 + 1 + len("tale.txt")


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("/home/me/tale.txt", "tale.txt"),
        ("C:\\me\\tale.txt", "tale.txt"),
        ("../../etc/passwd", "passwd"),
        ("..", ""),
        ("a/..", ""),
        ("...", ""),
        ("", ""),
        ("a\nb\x1b[31m.txt", "ab[31m.txt"),
        ("txt.\u202egnp.exe", "txt.gnp.exe"),
        ("\udcff.bin", ".bin"),
        ("Bäume 木.txt", "Bäume 木.txt"),
    ],
)
def test_names_are_harmless(name, stored):
    assert notes.harmless(name) == notes.fitted(name) == stored


def test_a_long_name_keeps_its_suffix():
    fitted = notes.fitted("ä" * 200 + ".mkv")
    assert fitted.endswith("ä.mkv")
    assert len(fitted.encode()) in (254, 255)
    with pytest.raises(HelixError, match="no file name of at most 255"):
        Note("a" * 256, 0, bytes(32))
    with pytest.raises(HelixError, match="no file name"):
        Note("a/b", 0, bytes(32))


@given(st.binary(max_size=120))
def test_any_bytes_are_a_note_or_an_error(data):
    try:
        note = Note.from_bytes(data)
    except DecodeError:
        return
    assert note.name == notes.harmless(note.name)
    assert "/" not in note.name


# ---- pools of bytes --------------------------------------------------------------------------------------------


def test_only_where_it_is_cheap():
    """A name alone adds a note to a large pool and not to a small one, of which not a strand changes then."""
    large = packing.pack(DATA, config=CONFIG, name="/a/tale.txt")
    assert kinds(large) == ["note", "file"]
    bare = packing.pack(DATA, config=CONFIG)
    assert bare.header.format == 1
    assert 0 < large.count - bare.count <= 0.02 * large.count
    small = packing.pack(DATA[:300], config=CONFIG, name="tale.txt")
    np.testing.assert_array_equal(small.strands, packing.pack(DATA[:300], config=CONFIG).strands)


def test_it_is_forced_and_left_out():
    forced = packing.pack(DATA[:30], config=dataclasses.replace(CONFIG, note=True), name="tale.txt")
    assert kinds(forced) == ["note", "file"]
    unpacked = packing.unpack_parts(back(forced))
    assert b"".join(unpacked.parts) == DATA[:30]
    assert unpacked.note == Note("tale.txt", 30, hashlib.sha256(DATA[:30]).digest())
    nameless = packing.pack(DATA[:30], config=dataclasses.replace(CONFIG, note=True))
    assert packing.unpack_parts(back(nameless)).note.name == ""
    without = packing.pack(DATA, config=dataclasses.replace(CONFIG, note=False), name="tale.txt")
    np.testing.assert_array_equal(without.strands, packing.pack(DATA, config=CONFIG).strands)


def test_another_name_is_another_pool():
    """Else two pools of one key would have packets that contradict each other."""
    one, two = (packing.pack(DATA, config=CONFIG, name=name) for name in ("a.txt", "b.txt"))
    assert one.header.key != two.header.key


def test_a_lost_note_costs_no_byte():
    config = dataclasses.replace(CONFIG, note=True)
    pool = packing.pack(DATA[:2000], config=config, name="tale.txt")
    block, _ = pool.layout.locate(np.arange(pool.layout.packets))
    of_note = np.flatnonzero(np.array(pool.layout.block_parts)[block] == 0)
    kept = np.delete(pool.strands, pool.header_strands + of_note, axis=0)
    unpacked = packing.unpack_parts({100: kept})
    assert b"".join(unpacked.parts) == DATA[:2000]
    assert unpacked.note is None
    assert unpacked.lost_note
    assert unpacked.report.lost_packets > 0


def test_bytes_that_do_not_match_are_refused():
    wrong = dataclasses.replace(NOTE, sha256=bytes(32))
    with pytest.raises(DecodeError, match=r"the pool's note says 0{64}: nothing is returned"):
        packing.unpack(back(with_note(DATA, wrong.to_bytes())))
    assert packing.unpack(back(with_note(DATA, NOTE.to_bytes())))[0] == DATA


def test_a_note_of_a_later_release_is_read():
    later = NOTE.to_bytes() + sections.field(9, b"later")
    assert packing.unpack_parts(back(with_note(DATA, later))).note == NOTE


NAMES = st.text(max_size=40).map(lambda name: name.encode("utf-8", "surrogatepass"))
FORGED = st.one_of(
    st.binary(max_size=60),
    NAMES.map(lambda name: NOTE.sha256 + sections.numbers(200, len(name)) + name),  # another digest
    NAMES.map(lambda name: hashlib.sha256(DATA[:200]).digest() + sections.numbers(200, len(name)) + b"../" + name),
)


@settings(max_examples=8, deadline=None)
@given(note=FORGED)
def test_forged_notes_do_no_harm(tmp_path_factory, run_cli, note):
    """Never a traceback, and never a file outside the folder, whatever the note says."""
    top = tmp_path_factory.mktemp("forged")
    folder = top / "in" / "folder"
    folder.mkdir(parents=True)
    fasta.write_pool(top / "pool.fasta", with_note(DATA[:200], note))
    result = run_cli("unpack", top / "pool.fasta", "-o", f"{folder}/")
    assert result.exit_code in (0, 2, 4)
    assert "Traceback" not in result.stderr
    written = [path for path in top.rglob("*") if path.is_file() and path.name != "pool.fasta"]
    assert all(path.parent == folder for path in written)
    assert run_cli("inspect", top / "pool.fasta").exit_code == 0


# ---- video -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip():
    generator = np.random.default_rng(1)
    return video.Clip(generator.integers(0, 256, (12, 24, 32, 3), np.uint8))


def test_av1_with_a_note(clip):
    config = dataclasses.replace(CONFIG, codec="av1", preview=0)
    bare = codec.encode(clip, config=config)
    noted = codec.encode(clip, config=config, note=NOTE)
    assert kinds(bare) == ["av1"]
    assert kinds(noted) == ["av1", "note"]
    assert noted.count - bare.count <= 0.02 * noted.count
    assert codec.film(back(noted)).note == NOTE
    assert codec.film(back(bare)).note is None
    small = dataclasses.replace(config, quality=0)
    few, same = (codec.encode(clip, config=small, note=note) for note in (None, NOTE))
    np.testing.assert_array_equal(few.strands, same.strands)
    forced = codec.encode(clip, config=dataclasses.replace(small, note=True), note=NOTE)
    assert "note" in kinds(forced)


@pytest.mark.parametrize(("budget", "noted"), [(30_000, True), (6_000, False)])
def test_a_note_counts_in_the_budget(clip, budget, noted):
    config = dataclasses.replace(CONFIG, codec="av1", budget=budget)
    pool = codec.encode(clip, config=config, note=NOTE)
    assert ("note" in kinds(pool)) == noted
    assert pool.nucleotides <= budget


def test_a_note_that_nobody_asked_for_costs_no_pool(clip, monkeypatch):
    """Where a budget pays for the clip and not for the note too, the note is left out, unless it was asked for."""
    config = dataclasses.replace(CONFIG, codec="av1", budget=30_000)

    def narrow(_video, beside, *_rest):
        if beside:
            raise HelixError("30,000 nucleotides are too few")
        return "a pool without a note"

    monkeypatch.setattr(codec, "_encode_av1", narrow)
    assert codec.encode(clip, config=config, note=NOTE) == "a pool without a note"
    with pytest.raises(HelixError, match="too few"):
        codec.encode(clip, config=dataclasses.replace(config, note=True), note=NOTE)


def test_tokens_with_a_note(clip, weights_file):
    from helix_jax import nets as shipped

    nets: Nets = shipped.load(weights_file)
    config = dataclasses.replace(CONFIG, codec="tokens", mode="raw", verify=False)
    bare = codec.encode(clip, nets, config=config)
    assert bare.header.format == 1
    forced = codec.encode(clip, nets, config=dataclasses.replace(config, note=True), note=NOTE)
    assert kinds(forced) == ["tokens", "note"]
    film = codec.film(back(forced), nets)
    assert film.note == NOTE
    np.testing.assert_array_equal(
        np.concatenate(list(film.blocks)), np.concatenate(list(codec.decode(back(bare), nets)[1]))
    )
    same = codec.encode(clip, nets, config=dataclasses.replace(config, note=False), note=NOTE)
    np.testing.assert_array_equal(same.strands, bare.strands)


# ---- the command line ------------------------------------------------------------------------------------------


def test_the_name_comes_back(tmp_path, run_cli):
    (tmp_path / "tale.txt").write_bytes(DATA)
    pool, out = tmp_path / "a.fasta", f"{tmp_path}/out/"  # which is made
    assert run_cli("pack", tmp_path / "tale.txt", "-o", pool, *CHEAP).exit_code == 0
    result = run_cli("unpack", pool, "-o", out, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["note"] == NOTE.figures
    assert (tmp_path / "out" / "tale.txt").read_bytes() == DATA
    assert json.loads(run_cli("inspect", pool, "--json").stdout)["note"] == NOTE.figures
    assert "tale.txt, 8,000 bytes" in run_cli("inspect", pool).stdout
    again = run_cli("unpack", pool, "-o", out)
    assert (again.exit_code, again.stderr.count("\n")) == (2, 1)
    assert "it is there already" in again.stderr


def test_without_a_name_there_is_no_folder(tmp_path, run_cli):
    (tmp_path / "a").write_bytes(DATA[:20])
    run_cli("pack", tmp_path / "a", "-o", tmp_path / "a.fasta", *CHEAP)
    for output, words in (
        (tmp_path, "knows no name"),
        (f"{tmp_path}/gone/", "knows no name"),
        (f"{tmp_path}/a/", "it is a file; name a folder"),
    ):
        result = run_cli("unpack", tmp_path / "a.fasta", "-o", output)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert words in result.stderr
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["a", "a.fasta"]


def test_a_lost_note_is_no_loss_on_the_page(tmp_path, run_cli):
    pool = packing.pack(DATA[:300], config=dataclasses.replace(CONFIG, note=True), name="tale.txt")
    block, _ = pool.layout.locate(np.arange(pool.layout.packets))
    of_note = np.flatnonzero(np.array(pool.layout.block_parts)[block] == 0)
    kept = np.delete(pool.strands, pool.header_strands + of_note, axis=0)
    fasta.write(tmp_path / "a.fasta", kept, lambda i: "")
    page = tmp_path / "a.html"
    result = run_cli("unpack", tmp_path / "a.fasta", "-o", tmp_path / "a", "--report", page)
    assert (result.exit_code, "the note of the file is lost" in result.stderr) == (0, True)
    assert "It came back." in page.read_text()
