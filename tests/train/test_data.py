"""Batches from shards: pure functions of (seed, step)."""

import itertools
import json
import logging
import multiprocessing
import subprocess
import sys

import numpy as np
import pytest

from train import data, shards

SHAPE = {"frames": 3, "size": 8}


def write(folder, count, shape=(6, 12, 16), bad=()):
    """A folder of ``count`` pieces, in two shards; in piece n, red is n, green the frame, blue the column."""
    folder.mkdir()
    pieces = []
    for number in range(count):
        frames = np.zeros((*shape, 3), np.uint8)
        frames[..., 0] = number
        frames[..., 1] = np.arange(shape[0])[:, None, None]
        frames[..., 2] = 16 * np.arange(shape[1])[:, None] + np.arange(shape[2])
        pieces.append(shards.Piece(f"clip{number}", 0, 1, frames))
    files = [shards.write(folder / f"{k}.arrayrecord", pieces[k::2]) for k in range(2)]
    shards.write_index(folder, settings={}, files=files)
    for number in bad:  # array_record finds a damaged chunk itself; the index is a record's other witness
        index = json.loads((folder / "index.json").read_text())
        index["files"][number % 2]["pieces"][number // 2][1] = 5
        (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "shards", 10)


def take(folder, count, **options):
    options = {"seed": 5, "batch": 4, "start": 0, **SHAPE, **options}
    with data.batches(folder, **options) as stream:
        return list(itertools.islice(stream, count))


def test_crops(folder):
    """Each epoch has every piece once, in another order; places in space and time, mirrors and speeds vary."""
    batches = take(folder, 50)
    assert all(type(batch) is data.Batch and batch.skipped == 0 for batch in batches)
    assert all(batch.clips.shape == (4, 3, 8, 8, 3) and batch.clips.dtype == np.uint8 for batch in batches)
    clips = np.concatenate([batch.clips for batch in batches]).astype(int)
    epochs = clips[:, 0, 0, 0, 0].reshape(20, 10)
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert len({tuple(epoch) for epoch in epochs}) > 15
    assert (clips[..., 0] == clips[:, :1, :1, :1, 0]).all()
    speed = clips[:, 1, 0, 0, 1] - clips[:, 0, 0, 0, 1]
    assert (np.diff(clips[..., 1], axis=1) == speed[:, None, None, None]).all()
    assert set(speed) == {1, 2}
    assert 0.3 < (speed == 1).mean() < 0.7
    step = clips[:, 0, 0, 1, 2] - clips[:, 0, 0, 0, 2]
    assert (np.diff(clips[..., 2], axis=3) == step[:, None, None, None]).all()
    assert (np.diff(clips[..., 2], axis=2) == 16).all()
    assert 0.3 < (step == -1).mean() < 0.7
    corner = clips[..., 2].min(axis=(1, 2, 3))
    assert set(corner // 16) == set(range(5))  # every row and column, the last ones too
    assert set(corner % 16) == set(range(9))
    assert {t for t, s in zip(clips[:, 0, 0, 0, 1], speed, strict=True) if s == 1} == {0, 1, 2, 3}
    assert {t for t, s in zip(clips[:, 0, 0, 0, 1], speed, strict=True) if s == 2} == {0, 1}


def test_seed_decides(folder):
    one, same, other = (np.stack([b.clips for b in take(folder, 5, seed=seed)]) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@pytest.mark.parametrize("start", [1, 3, 11])
def test_starting_late_is_skipping(folder, start):
    """Past the end of an epoch too: 10 pieces in batches of 4."""
    whole, late = take(folder, 15), take(folder, 15 - start, start=start)
    for one, other in zip(whole[start:], late, strict=True):
        np.testing.assert_array_equal(one.clips, other.clips)


def test_hosts_share_the_batch(tmp_path):
    """Bad records too: the replacement is the same whoever reads it, and every host counts its own."""
    folder = write(tmp_path / "shards", 10, bad=(3,))
    for hosts in (2, 4):
        parts = [take(folder, 6, host=host, hosts=hosts) for host in range(hosts)]
        for whole, *shares in zip(take(folder, 6), *parts, strict=True):
            np.testing.assert_array_equal(whole.clips, np.concatenate([share.clips for share in shares]))
            assert whole.skipped == sum(share.skipped for share in shares)


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_change_nothing(tmp_path, workers, caplog):
    folder = write(tmp_path / "shards", 10, bad=(3,))
    whole = take(folder, 8)
    caplog.clear()
    for one, other in zip(whole[2:], take(folder, 6, start=2, workers=workers), strict=True):
        np.testing.assert_array_equal(one.clips, other.clips)
        assert one.skipped == other.skipped
    assert len(caplog.records) == 1
    assert "clip3" in caplog.text


def test_workers_outlive_sigterm(folder):
    """It may come to the whole process group, and the loop still needs batches then."""
    with data.batches(folder, seed=5, batch=4, start=0, workers=1, **SHAPE) as stream:
        next(stream)
        (worker,) = multiprocessing.active_children()
        worker.terminate()
        found = list(itertools.islice(stream, 40))  # more than is read ahead
        assert len(found) == 40
        assert worker.is_alive()
    assert not multiprocessing.active_children()


def test_bad_records_are_named_once_counted_and_replaced(tmp_path, caplog):
    folder = write(tmp_path / "shards", 10, bad=(3, 8))
    path = folder / "0.arrayrecord"
    content = bytearray(path.read_bytes())
    content[content.index(b"clip6") + 200] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        batches = take(folder, 25)
    clips = np.concatenate([batch.clips for batch in batches])
    assert clips.shape[0] == 100
    assert set(clips[:, 0, 0, 0, 0]) == {0, 1, 2, 4, 5, 7, 9}
    assert sum(batch.skipped for batch in batches) >= 30  # ten epochs; a replacement may be bad as well
    assert [record.getMessage().split("(")[1][:5] for record in caplog.records].count("clip6") == 1
    assert len(caplog.records) == 3
    assert "0.arrayrecord record 3 (clip6, frame 0): Corrupted" in caplog.text


@pytest.mark.parametrize(("bad", "words"), [(7, "records are bad, 7 different ones"), (10, "in a row are bad")])
def test_mostly_bad(tmp_path, bad, words):
    folder = write(tmp_path / "shards", 10, bad=range(bad))
    with pytest.raises(shards.ShardError, match=words):
        take(folder, 100)


def test_fewer_than_half_bad_is_no_error(tmp_path):
    take(write(tmp_path / "shards", 10, bad=range(3)), 40)


def test_speeds_that_a_piece_is_too_short_for_are_left_out(tmp_path):
    folder = write(tmp_path / "shards", 4, shape=(4, 8, 8))
    clips = np.concatenate([batch.clips for batch in take(folder, 20, speeds=(1, 2))])
    assert (np.diff(clips[..., 1].astype(int), axis=1) == 1).all()
    with pytest.raises(shards.ShardError, match="a crop needs 5 of 8x8"):
        take(folder, 1, speeds=(2,))


@pytest.mark.parametrize(("frames", "size", "needs"), [(7, 8, "7 of 8x8"), (3, 13, "3 of 13x13"), (3, 17, "3 of 17")])
def test_pieces_smaller_than_the_crop(folder, frames, size, needs):
    words = f"as small as 6 frames of 16x12 pixels, and a crop needs {needs}.*--smallest {frames} {size}"
    with pytest.raises(shards.ShardError, match=words):
        take(folder, 1, frames=frames, size=size)
    take(folder, 1, frames=6, size=12)


@pytest.mark.parametrize(("batch", "host", "hosts"), [(4, 0, 3), (0, 0, 1), (4, 2, 2), (4, -1, 2)])
def test_hosts_that_cannot_share(folder, batch, host, hosts):
    with pytest.raises(ValueError, match=f"a batch of {batch} cannot be shared by {hosts} hosts"):
        take(folder, 1, batch=batch, host=host, hosts=hosts)


def test_halve_is_the_rounded_mean():
    clip = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    blocks = clip[:, :4, :6].reshape(2, 2, 2, 3, 2, 3).mean(axis=(2, 4))
    np.testing.assert_array_equal(data.halve(clip), np.floor(blocks + 0.5))


@pytest.mark.parametrize("module", ["train.prepare", "train.data"])
def test_no_jax(module):
    """Workers import these by the dozen."""
    program = f"import sys, {module}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
