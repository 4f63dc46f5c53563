"""Bad input at the command line: one clear line, the right exit status, and no file left, not even a temporary one."""

import contextlib
import errno
import gzip
import json
import resource

import jax
import numpy as np
import pytest

from helix_jax import codec, files, video
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.nets import Nets
from helix_jax.strands import fasta, packets
from helix_jax.tk_scone import coder, constraints, tables
from helix_jax.tokenizer import model as nets
from helix_jax.tokenizer import weights

CHEAP = ("--constraints", "strand", "--strand-length", "100")
WRONG_USE, UNDECODABLE = 2, 4
BLOB = np.random.default_rng(7).bytes(1500)


def packed(redundancy=0.3, blob=BLOB, key=None):
    config = CodecConfig(codec="tokens", constraints="strand", strands=StrandConfig(length=100, redundancy=redundancy))
    return codec.pack(blob, config=config, key=key)


def strands_of(pool, index, symbols):
    """Strands that carry these packets, checks right, whether or not the pool has such packets."""
    layout = pool.layout
    words = packets.pack_fields(layout.bits, layout.index_bits, layout.check_bits, pool.header.key, index, symbols)
    arrays, shape = coder.on_device(tables.load(constraints.named("strand"), 100))
    return np.asarray(coder.write(arrays, words, shape=shape))


def write(path, strands):
    fasta.write(path, strands, lambda i: "")
    return path


@pytest.fixture
def folder(tmp_path):
    """Where the output would go, and nothing else."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def refused(run_cli, folder):
    """refused(status, words, *arguments): fails in one line that holds all the words, and leaves no file."""

    def check(status, words, *arguments):
        result = run_cli(*arguments)
        assert result.exit_code == status, (result.exit_code, result.stderr)
        assert result.stdout == ""
        assert result.stderr.startswith("helix-jax: ")
        assert result.stderr.count("\n") == 1
        assert "Traceback" not in result.stderr
        assert "Errno" not in result.stderr
        for word in words:
            assert str(word) in result.stderr
        assert list(folder.iterdir()) == []

    return check


@pytest.fixture(scope="module")
def clip(tmp_path_factory, make_clip):
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 12, 16, 24)


@pytest.fixture(scope="module")
def video_pool(tmp_path_factory, clip, run_cli, weights_file):
    path = tmp_path_factory.mktemp("pool") / "video.fasta"
    result = run_cli("encode", clip, "-o", path, "--model", weights_file, *CHEAP)
    assert result.exit_code == 0, result.stderr
    return path


# ---- clips and weights ---------------------------------------------------------------------


def test_clips_that_cannot_be_read(tmp_path, clip, refused, folder, weights_file):
    whole = clip.read_bytes()
    cases = {
        "text.mp4": (b"not a video\n" * 50, ["not a readable video", "give a video file"]),
        "empty.mp4": (b"", ["is empty", "copy it again"]),
        "short.mp4": (whole[: len(whole) // 2], ["give a video file"]),
    }
    for name, (content, words) in cases.items():
        (tmp_path / name).write_bytes(content)
        refused(
            WRONG_USE,
            [name, *words],
            *("encode", tmp_path / name, "-o", folder / "a.fasta", "--model", weights_file, *CHEAP),
        )
    refused(WRONG_USE, ["gone.mp4", "no such file"], "encode", tmp_path / "gone.mp4", "-o", folder / "a.fasta")
    refused(WRONG_USE, [tmp_path.name], "encode", tmp_path, "-o", folder / "a.fasta", *CHEAP)


def test_clip_cut_short_inside_the_pictures(tmp_path, make_clip, refused, folder, weights_file):
    """It opens, and its last frames are missing."""
    path = make_clip(tmp_path / "a.mkv", 60, 96, 96)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 4 // 5])
    words = ["a.mkv", "cut short", "ffmpeg -i"]
    refused(WRONG_USE, words, "encode", path, "-o", folder / "a.fasta", "--model", weights_file, *CHEAP)


def test_weights_that_cannot_be_read(tmp_path, clip, video_pool, refused, folder, weights_file):
    (tmp_path / "text.safetensors").write_text("no weights")
    half = tmp_path / "half.safetensors"
    half.write_bytes(weights_file.read_bytes()[:5000])
    for command, source, output in (("encode", clip, "a.fasta"), ("decode", video_pool, "a.mp4")):
        for path, word in (
            (tmp_path / "gone.safetensors", "--model"),
            (tmp_path / "text.safetensors", "not a tokenizer weights file"),
            (half, "not a tokenizer weights file"),
            (tmp_path, tmp_path.name),
        ):
            refused(WRONG_USE, [path.name, word], command, source, "-o", folder / output, "--model", path)


def test_weights_of_another_model(tmp_path, video_pool, refused, folder, weights_file):
    used = weights.load(weights_file)
    other = tmp_path / "other.safetensors"
    weights.save(other, nets.init(jax.random.key(1), used.config), used.config, {})
    words = [used.digest[:8].hex(), weights.load(other).digest[:8].hex(), "--model"]
    refused(UNDECODABLE, words, "decode", video_pool, "-o", folder / "a.mp4", "--model", other)


# ---- FASTA ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b">a\nACGTN\n>b\nACGU\n", ["holds no strands", "2 with other letters than bases"]),
        (b"", ["holds no strands", "empty"]),
        (b">a\n>b\nACGN\n", ["1 with other letters than bases, 1 without letters"]),
        (bytes(range(256)) * 4, ["neither FASTA nor FASTQ"]),
        (b"\x1f\x8bnot really gzip", ["pool.fasta"]),
        (gzip.compress(b">a\nACGT\n" * 500, mtime=0)[:10], ["pool.fasta", "cannot be read"]),
    ],
)
def test_files_that_are_no_pool(tmp_path, refused, folder, content, words, weights_file):
    path = tmp_path / "pool.fasta"
    path.write_bytes(content)
    refused(WRONG_USE, ["pool.fasta", *words], "unpack", path, "-o", folder / "a")
    refused(WRONG_USE, ["pool.fasta", *words], "decode", path, "-o", folder / "a.mp4", "--model", weights_file)
    refused(WRONG_USE, ["pool.fasta", *words], "inspect", path)


def test_missing_pool(tmp_path, refused, folder, weights_file):
    path = tmp_path / "gone.fasta"
    for arguments in (
        ("unpack", path, "-o", folder / "a"),
        ("decode", path, "-o", folder / "a.mp4", "--model", weights_file),
        ("inspect", path),
    ):
        refused(WRONG_USE, ["gone.fasta", "no such file"], *arguments)
    refused(WRONG_USE, ["gone"], "pack", tmp_path / "gone", "-o", folder / "a.fasta", *CHEAP)


def test_dna_that_is_no_pool(tmp_path, refused, folder):
    strands = np.random.default_rng(0).integers(0, 4, (200, 100), dtype=np.uint8)
    write(tmp_path / "a.fasta", strands)
    refused(
        UNDECODABLE,
        ["no header strand", "--forbid", "--left-primer"],
        "unpack",
        tmp_path / "a.fasta",
        "-o",
        folder / "a",
    )


def test_too_few_strands(tmp_path, refused, folder):
    pool = packed()
    kept = pool.strands[: pool.header_strands + pool.layout.sources - 2]
    words = [f"of {pool.layout.sources} source packets", "more strands are needed"]
    refused(UNDECODABLE, words, "unpack", write(tmp_path / "a.fasta", kept), "-o", folder / "a")


def test_two_pools_need_a_key(tmp_path, refused, folder, run_cli):
    first, second = packed(), packed(blob=BLOB[::-1])
    path = write(tmp_path / "a.fasta", np.concatenate([first.strands, second.strands]))
    keys = [pool.header.key.hex() for pool in (first, second)]
    refused(UNDECODABLE, ["several pools", "--key", *keys], "unpack", path, "-o", folder / "a")
    assert run_cli("unpack", path, "-o", folder / "a", "--key", keys[1]).exit_code == 0
    assert (folder / "a").read_bytes() == BLOB[::-1]


def test_strands_of_another_pool_are_passed_over(tmp_path, folder, run_cli):
    ours, theirs = packed(), packed(blob=bytes(3000), key=b"intruder")
    foreign = theirs.strands[theirs.header_strands :]
    mixed = np.random.default_rng(1).permutation(np.concatenate([ours.strands, foreign]))
    result = run_cli("unpack", write(tmp_path / "a.fasta", mixed), "-o", folder / "a", "--json")
    assert result.exit_code == 0, result.stderr
    assert (folder / "a").read_bytes() == BLOB
    report = json.loads(result.stdout)
    assert report["unreadable"] == len(foreign)
    assert report["verified"]


# ---- packets that pass their check and are wrong ---------------------------------------------


def test_index_out_of_range(tmp_path, folder, run_cli, refused):
    """A right check over an index that the pool has not: the strand counts as unreadable."""
    pool = packed()
    layout = pool.layout
    assert layout.packets < 1 << layout.index_bits
    index = np.arange(layout.packets, 1 << layout.index_bits)
    beyond = strands_of(pool, index, np.zeros((len(index), layout.symbol_bytes), np.uint8))
    path = write(tmp_path / "a.fasta", np.concatenate([pool.strands, beyond]))
    result = run_cli("unpack", path, "-o", folder / "a", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["unreadable"] == len(index)
    assert (folder / "a").read_bytes() == BLOB
    (folder / "a").unlink()
    alone = np.concatenate([pool.strands[: pool.header_strands], beyond])
    refused(UNDECODABLE, ["more strands"], "unpack", write(tmp_path / "b.fasta", alone), "-o", folder / "a")


def forged(redundancy):
    """A pool of which source packet 3 says something else, under a right check."""
    pool = packed(redundancy)
    at = 3
    data = np.frombuffer(BLOB, np.uint8)[at * pool.layout.symbol_bytes :][: pool.layout.symbol_bytes]
    wrong = strands_of(pool, np.array([at]), data[None] ^ np.uint8(0x5A))
    assert not np.array_equal(wrong[0], pool.strands[pool.header_strands + at])
    strands = pool.strands.copy()
    strands[pool.header_strands + at] = wrong[0]
    return strands


def test_wrong_packet_is_located_and_repaired(tmp_path, folder, run_cli):
    result = run_cli("unpack", write(tmp_path / "a.fasta", forged(0.3)), "-o", folder / "a", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["rejected"] == 1
    assert report["verified"]
    assert (folder / "a").read_bytes() == BLOB


def test_wrong_packet_is_never_returned(tmp_path, folder, refused):
    """Without repair packets it cannot be located."""
    refused(
        UNDECODABLE,
        ["doubtful", "more strands are needed"],
        *("unpack", write(tmp_path / "a.fasta", forged(0)), "-o", folder / "a"),
    )


def test_wrong_packet_of_a_video(tmp_path, folder, clip, run_cli, weights_file):
    """With repair packets the tokens come back exactly; without them nothing doubtful is shown as good."""
    model = weights.load(weights_file)
    for redundancy, status in ((0.5, 0), (0, UNDECODABLE)):
        config = CodecConfig(
            codec="tokens", constraints="strand", strands=StrandConfig(length=100, redundancy=redundancy)
        )
        pool = codec.encode(video.open_video(clip), Nets(model), config=config)
        zeros = np.zeros((1, pool.layout.symbol_bytes), np.uint8)
        strands = pool.strands.copy()
        strands[pool.header_strands] = strands_of(pool, np.array([0]), zeros)[0]
        path = write(tmp_path / "a.fasta", strands)
        result = run_cli("decode", path, "-o", folder / "a.mp4", "--model", weights_file, "--json")
        assert result.exit_code == status, result.stderr
        assert (folder / "a.mp4").exists() == (status == 0)
        if status == 0:
            assert json.loads(result.stdout)["rejected"] == 1
            assert json.loads(result.stdout)["verified"]
            (folder / "a.mp4").unlink()


def test_right_and_wrong_copy_of_a_packet(tmp_path, folder, run_cli, refused):
    """Two copies of an index that differ: both are left out, and repaired where there is something to repair from."""
    both = np.concatenate([packed(0.3).strands, forged(0.3)])
    result = run_cli("unpack", write(tmp_path / "a.fasta", both), "-o", folder / "a", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["rejected"] == 1
    assert (folder / "a").read_bytes() == BLOB
    (folder / "a").unlink()
    both = np.concatenate([packed(0).strands, forged(0)])
    refused(UNDECODABLE, ["1 of"], "unpack", write(tmp_path / "b.fasta", both), "-o", folder / "a")


# ---- options -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--constraints", "loose"), ["'loose'", "helix, wide, strand"]),
        (("--constraints", "strand", "--strand-length", "12"), ["longer strands"]),
        (("--constraints", "strand", "--strand-length", "0"), ["strand length 0"]),
        (("--constraints", "strand", "--strand-length", "-5"), ["strand length -5"]),
        (("--redundancy", "-0.1"), ["redundancy -0.1", "for example 0.1"]),
        (("--redundancy", "nan"), ["redundancy nan"]),
        (("--key", "12"), ["'12'", "16 hexadecimal digits"]),
        (("--key", "not hexadecimal!"), ["'not hexadecimal!'", "16 hexadecimal digits"]),
        ((*CHEAP, "--left-primer", "ACGGGGGT"), ["'ACGGGGGT'", "runs <= 3"]),
        ((*CHEAP, "--right-primer", "ACGNT"), ["'ACGNT'", "A, C, G, T"]),
        ((*CHEAP, "--forbid", ""), ["motif is empty"]),
        ((*CHEAP, "--forbid", "GAXTC"), ["'GAXTC'", "A, C, G, T"]),
        ((*CHEAP, "--forbid", "A", "--forbid", "C"), ["no strand of 100 nt"]),
    ],
)
def test_options_that_make_no_sense(tmp_path, refused, folder, options, words):
    (tmp_path / "file").write_bytes(BLOB)
    refused(WRONG_USE, words, "pack", tmp_path / "file", "-o", folder / "a.fasta", *options)


def test_options_of_reading(tmp_path, refused, folder, weights_file):
    path = write(tmp_path / "a.fasta", packed().strands)
    refused(WRONG_USE, ["16 hexadecimal digits"], "unpack", path, "-o", folder / "a", "--key", "zz")
    refused(WRONG_USE, ["'AXT'"], "unpack", path, "-o", folder / "a", "--left-primer", "AXT")
    refused(WRONG_USE, ["'loose'"], "inspect", path, "--constraints", "loose")
    refused(WRONG_USE, ["'loose'"], "capacity", "--constraints", "loose")
    refused(WRONG_USE, ["strand length 0"], "capacity", "--strand-length", "0", "--constraints", "wide")
    refused(
        UNDECODABLE, ["bytes, not video", "unpack"], "decode", path, "-o", folder / "a.mp4", "--model", weights_file
    )


# ---- output --------------------------------------------------------------------------------


def test_output_that_cannot_be_written(tmp_path, clip, video_pool, refused, folder, weights_file):
    (tmp_path / "file").write_bytes(BLOB)
    pool = write(tmp_path / "a.fasta", packed().strands)
    nowhere = tmp_path / "nowhere"
    model = ("--model", weights_file)
    for words, arguments in (
        (["create it first"], ("pack", tmp_path / "file", "-o", nowhere / "a.fasta", *CHEAP)),
        (["create it first"], ("unpack", pool, "-o", nowhere / "a")),
        (["create it first"], ("encode", clip, "-o", nowhere / "a.fasta", *model, *CHEAP)),
        (["create it first"], ("decode", video_pool, "-o", nowhere / "a.mp4", *model)),
        ([".mp4"], ("decode", video_pool, "-o", folder / "a.avi", *model)),
        (["knows no name for its file"], ("unpack", pool, "-o", folder)),
    ):
        refused(WRONG_USE, words, *arguments)
    assert not nowhere.exists()


@contextlib.contextmanager
def small_disk(size):
    """No file of this process may grow past ``size`` bytes, as on a full disk. Lifted before pytest prints again."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_disk_full(tmp_path, clip, video_pool, refused, run_cli, folder, weights_file):
    """The old output stays, the new one is not there by half. Every command that writes a file."""
    (tmp_path / "file").write_bytes(BLOB)
    pool = write(tmp_path / "a.fasta", packed().strands)
    commands = (
        ("pack", tmp_path / "file", "-o", folder / "a.fasta", *CHEAP),
        ("pack", tmp_path / "file", "-o", folder / "a.fasta.gz", *CHEAP),
        ("unpack", pool, "-o", folder / "a"),
        ("encode", clip, "-o", folder / "a.fasta", "--model", weights_file, *CHEAP),
        ("decode", video_pool, "-o", folder / "a.mp4", "--model", weights_file),
    )
    old = folder / "a"
    with small_disk(600):
        for command in commands:
            refused(WRONG_USE, [command[3].name], *command)
        old.write_bytes(b"old")
        assert run_cli(*commands[2]).exit_code == WRONG_USE
    assert list(folder.iterdir()) == [old]
    assert old.read_bytes() == b"old"


def test_no_space_left(tmp_path, refused, folder, monkeypatch):
    """The same by the error that a full disk gives."""
    (tmp_path / "file").write_bytes(BLOB)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fasta, "_text", full)
    words = ["cannot write", "no space left", "choose another disk"]
    refused(WRONG_USE, words, "pack", tmp_path / "file", "-o", folder / "a.fasta", *CHEAP)
    assert issubclass(files.OutputError, OSError)
