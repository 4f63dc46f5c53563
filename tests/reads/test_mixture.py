"""Every pool of a mixture is listed: of several sets, lengths and primers, damaged ones too, of strands and reads."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from helix_jax import codec, packing, video
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.errors import DecodeError
from helix_jax.reads import mixture
from helix_jax.strands import fasta, header_search, received

LEFT, RIGHT = "ACGTCATGCTAGTCAGTACG", "TGCATCGATCAGTCGTAGCA"
GENERATOR = np.random.default_rng(3)


def config(name, length=100, **options):
    return CodecConfig(constraints=name, note=True, strands=StrandConfig(length=length, redundancy=0.3, **options))


@pytest.fixture(scope="module")
def pools():
    """Four pools: two in one set, one of another length, one with primers."""
    data = [GENERATOR.bytes(size) for size in (600, 300, 500, 400)]
    return [
        packing.pack(data[0], config=config("goldman"), name="one.bin"),
        packing.pack(data[1], config=config("goldman"), name="two.bin"),
        packing.pack(data[2], config=config("strand", 120), name="three.bin"),
        packing.pack(data[3], config=config("goldman", 60, left_primer=LEFT, right_primer=RIGHT), name="four.bin"),
    ]


def written(folder, pools):
    """Their files one after the other."""
    parts = []
    for number, pool in enumerate(pools):
        fasta.write_pool(folder / f"{number}.fasta", pool)
        parts.append((folder / f"{number}.fasta").read_text())
    (folder / "tube.fasta").write_text("".join(parts))
    return folder / "tube.fasta"


@pytest.mark.usefixtures("cheap_sets")
def test_strands(tmp_path, pools, run_cli):
    result = run_cli("list", written(tmp_path, pools), "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    assert told["strands_of_no_pool"] == 0
    by_key = {figures["key"]: figures for figures in told["pools"]}
    assert by_key.keys() == {pool.header.key.hex() for pool in pools}
    sizes = {"one.bin": 600, "two.bin": 300, "three.bin": 500, "four.bin": 400}
    for pool, (name, size) in zip(pools, sizes.items(), strict=True):
        figures = by_key[pool.header.key.hex()]
        assert (figures["name"], figures["size"], figures["kind"], figures["decodable"]) == (name, size, "file", "yes")
        assert figures["strands"] == figures["strands_numbered"] == pool.count
        assert (figures["left_primer"] == LEFT) == (name == "four.bin")
    for cut in (("--adapter", "illumina"), ("--umi", 8)):
        result = run_cli("list", tmp_path / "tube.fasta", *cut)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert "only reads have them; add --reads" in result.stderr
    # In a pipe nothing of a table is cut or broken, as --key takes whole keys; and no pool here has a screen.
    table = run_cli("list", tmp_path / "tube.fasta").stdout
    for key, figures in by_key.items():
        (line,) = (line for line in table.splitlines() if key in line)
        assert f" {figures['name']} " in line
        assert f" {figures['left_primer'] or '-'}/{figures['right_primer'] or '-'} " in line
    assert "--screen" not in table


@pytest.mark.usefixtures("cheap_sets")
def test_strands_that_a_screen_left_out_are_no_loss(tmp_path, run_cli):
    pool = packing.pack(GENERATOR.bytes(600), config=config("strand", 120, stem=7))
    fasta.write_pool(tmp_path / "a.fasta", pool)
    (figures,) = json.loads(run_cli("list", tmp_path / "a.fasta", "--json").stdout)["pools"]
    assert (figures["decodable"], figures["strands"]) == ("yes", pool.count)
    assert pool.count < figures["strands_numbered"]
    shown = run_cli("list", tmp_path / "a.fasta").stdout
    assert "of a pool made with --screen, some of these were never written, and are no loss" in shown


@pytest.mark.usefixtures("cheap_sets")
def test_what_is_damaged_or_not_found_is_told(tmp_path, pools, run_cli):
    first, *_, primed = pools
    sequences = ["".join("ACGT"[base] for base in row) for pool in (first, primed) for row in pool.strands]
    lost = [n for n in range(first.header_strands, first.count) if n % 2]
    kept = [sequence for number, sequence in enumerate(sequences) if number not in lost]
    path = tmp_path / "bare.fasta"
    path.write_text("".join(f">{n}\n{sequence}\n" for n, sequence in enumerate(kept)))
    result = run_cli("list", path, "--json")
    told = json.loads(result.stdout)
    (figures,) = told["pools"]
    assert (figures["decodable"], figures["strands"]) == ("no", first.count - len(lost))
    assert told["strands_of_no_pool"] == primed.count
    assert f"{primed.count} strands belong to no pool that is found" in result.stderr
    given = run_cli("list", path, "--json", "--left-primer", LEFT, "--right-primer", RIGHT)
    assert {figures["decodable"] for figures in json.loads(given.stdout)["pools"]} >= {"yes"}


@pytest.mark.usefixtures("cheap_sets")
def test_a_video_with_holes(tmp_path, run_cli):
    frames = GENERATOR.integers(0, 256, (4, 24, 32, 3), np.uint8)
    pool = codec.encode(
        video.Clip(frames), config=CodecConfig(codec="av1", constraints="goldman", preview=0.4, quality=4)
    )
    block, _ = pool.layout.locate(np.arange(pool.layout.packets))
    kinds = [section.kind for section in pool.header.sections]
    of_picture = np.flatnonzero(np.array(pool.layout.block_parts)[block] == kinds.index("av1"))
    for lost, decodable in ((0, "yes"), (len(of_picture), "with loss")):
        kept = np.delete(pool.strands, pool.header_strands + of_picture[:lost], axis=0)
        fasta.write(tmp_path / "a.fasta", kept, lambda i: "")
        (figures,) = json.loads(run_cli("list", tmp_path / "a.fasta", "--json").stdout)["pools"]
        assert (figures["kind"], figures["frames"], figures["decodable"]) == ("av1", 4, decodable)


@pytest.mark.usefixtures("cheap_sets")
def test_no_pool(tmp_path, run_cli):
    (tmp_path / "a.fasta").write_text(">a\n" + "ACGT" * 25 + "\n")
    result = run_cli("list", tmp_path / "a.fasta")
    assert (result.exit_code, result.stderr.count("\n")) == (4, 1)
    assert "no header strand" in result.stderr
    (tmp_path / "empty.fasta").write_text("")
    result = run_cli("list", tmp_path / "empty.fasta")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


@pytest.mark.usefixtures("cheap_sets", "one_shape")
def test_reads(tmp_path, run_cli):
    """Two pools in one set from their reads."""
    small = [packing.pack(GENERATOR.bytes(40), config=config("goldman"), name=name) for name in ("a", "b")]
    sequences = ["".join("ACGT"[base] for base in row) for pool in small for row in pool.strands]
    path = tmp_path / "reads.fasta"
    path.write_text("".join(f">{n}\n{sequence}\n" for n, sequence in enumerate(sequences)))
    result = run_cli("list", path, "--reads", "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert {figures["name"] for figures in told["pools"]} == {"a", "b"}
    assert {figures["decodable"] for figures in told["pools"]} == {"yes"}
    assert (told["reads"], told["reads_of_no_pool"]) == (len(sequences), 0)


@pytest.mark.usefixtures("cheap_sets")
def test_each_pool_of_mixed_reads_is_recovered(pools, monkeypatch):
    """``recover`` refuses a mixture and names its keys; each is then recovered, and what none used is counted."""
    rows = np.concatenate([pool.strands for pool in pools[:2]])

    def recovered(chunks, *, at_once, key=None, progress=None):
        assert chunks == [("reads",)]
        assert at_once
        try:
            found = header_search.find_header({100: rows}, key=key)
        except DecodeError as error:
            raise DecodeError(f"{error}; so many reads") from error
        words, ok = found.coder.read(rows)
        own = received.Decoded(found, rows[ok], words[ok])
        return own, SimpleNamespace(reads=1000, used_reads=350, duplicate_reads=40)

    monkeypatch.setattr(mixture.recover, "recover", recovered)
    found, reads, rest = mixture.of_reads([("reads",)])
    assert {member.figures["name"] for member in found} == {"one.bin", "two.bin"}
    assert {member.decodable for member in found} == {"yes"}
    assert [member.strands for member in found] == [member.numbered for member in found]
    assert (reads, rest) == (1000, 1000 - 2 * (350 + 40))
    whole, bad = mixture.recover.recover, pools[0].header.key

    def recovered_but_one(chunks, *, key=None, **others):
        if key == bad:
            raise DecodeError("too few reads")
        return whole(chunks, key=key, **others)

    monkeypatch.setattr(mixture.recover, "recover", recovered_but_one)
    found, reads, rest = mixture.of_reads([("reads",)])
    assert {(member.found.header.key, member.decodable) for member in found} == {
        (bad, "no"),
        (pools[1].header.key, "yes"),
    }
    assert {member.strands for member in found} == {0, pools[1].count}
    assert (reads, rest) == (1000, 1000 - (350 + 40))
    rows = rows[:2]
    with pytest.raises(DecodeError, match="no header strand"):
        mixture.of_reads([("reads",)])
