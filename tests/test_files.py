"""files.atomic: the file is whole or absent, and what stood there before survives a failure."""

import errno
import os

import pytest

from helix_jax import files


def write_and_fail(target, failure):
    with files.atomic(target) as temporary:
        temporary.write_bytes(b"half")
        raise failure


def test_writes_whole_file_with_suffix_and_umask(tmp_path):
    target = tmp_path / "pool.fasta.gz"
    mask = os.umask(0o027)
    try:
        with files.atomic(target) as temporary:
            assert temporary.parent == tmp_path
            assert temporary.name.endswith(".fasta.gz")
            temporary.write_bytes(b"new")
            assert not target.exists()
    finally:
        os.umask(mask)
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("failure", [ValueError("no"), KeyboardInterrupt(), OSError(errno.EIO, "input/output error")])
def test_failure_leaves_what_was_there(tmp_path, failure):
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"old")
    with pytest.raises(type(failure)) as caught:
        write_and_fail(target, failure)
    assert caught.value is failure
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_disk_full_is_named(tmp_path):
    with pytest.raises(files.OutputError, match="no space left"):
        write_and_fail(tmp_path / "a", OSError(errno.ENOSPC, "No space left on device"))
    assert list(tmp_path.iterdir()) == []


def test_impossible_targets(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for target, words in [
        (tmp_path / "none" / "a", "no folder"),
        (tmp_path / "file" / "a", "no folder"),
        (tmp_path, "is a folder"),
        (os.devnull, "not a regular file"),
    ]:
        with pytest.raises(files.OutputError, match=words), files.atomic(target):
            pytest.fail("the block must not run")
    assert os.path.exists(os.devnull)


def test_unwritable_folder(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(files.OutputError, match="Permission denied"), files.atomic(tmp_path / "a"):
        pytest.fail("the block must not run")


def test_link_is_followed(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with files.atomic(tmp_path / "link") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
