"""Training batches from shards (train/shards.py): batch t is a pure function of (seed, t). No jax here.

    indices --shuffle--> --draw a seed each--> --batch--> this host's rows --read--> --crop, flip, speed--> clips

Everything random is decided before the host's slice: starting at step s gives the batches s, s + 1, ... of an
uninterrupted run, and the rows of all hosts make the batch of one host, for any number of hosts and of workers.
"""

import logging
import signal
from dataclasses import dataclass

import numpy as np

from train.shards import ShardError, open_shards

ATTEMPTS = 32  # bad records in a row before we give up: where fewer than half are bad, 1 in 4 billion


@dataclass(frozen=True)
class Batch:
    """clips: uint8[rows of this host, frames, size, size, 3]; skipped: bad records that were replaced in them."""

    clips: np.ndarray
    skipped: int


def halve(clip):
    """Half-size clip: the mean of each 2 x 2 block of pixels, uint8[T, H, W, 3] -> uint8[T, H // 2, W // 2, 3]."""
    _, height, width, _ = clip.shape
    clip = clip[:, : height // 2 * 2, : width // 2 * 2].astype(np.uint16)
    total = clip[:, ::2, ::2] + clip[:, 1::2, ::2] + clip[:, ::2, 1::2] + clip[:, 1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)


def crop(clip, generator, *, frames, size, speeds):
    """A random crop, uint8[T, H, W, 3] -> uint8[frames, size, size, 3]: place, time, speed, mirrored or not.

    A speed s takes every s-th frame; those for which the clip is too short are left out of the draw.
    """
    speeds = [speed for speed in speeds if (frames - 1) * speed < len(clip)]
    speed = speeds[generator.integers(len(speeds))]
    extent = ((frames - 1) * speed + 1, size, size)
    t, y, x = (generator.integers(0, n - m + 1) for n, m in zip(clip.shape, extent, strict=False))
    taken = clip[t : t + extent[0] : speed, y : y + size, x : x + size]
    return taken[:, :, ::-1] if generator.integers(2) else taken


class _ReadRows:
    """One global batch of (record, seed) -> this host's clips and the bad records met; runs in the workers."""

    def __init__(self, shards, low, high, **shape):
        self.shards, self.low, self.high, self.shape = shards, low, high, shape

    def __call__(self, rows):
        """rows: int64[batch, 2]. Returns {"clips": uint8[high - low, ...], "bad": messages, one each}."""
        bad = []
        clips = [self._clip(int(index), int(seed), bad) for index, seed in rows[self.low : self.high]]
        return {"clips": np.stack(clips), "bad": bad}

    def _clip(self, index, seed, bad):
        generator = np.random.default_rng(seed)
        for _ in range(ATTEMPTS):
            try:
                return crop(self.shards.read(index).frames, generator, **self.shape)
            except ShardError as error:
                bad.append(str(error))
                index = int(generator.integers(len(self.shards)))
        raise ShardError(f"{ATTEMPTS} records in a row are bad, the last: {bad[-1]}; prepare the videos again")


def _draw(index, generator):
    return np.array([index, generator.integers(2**63 - 1)], np.int64)


class Batches:
    """Endless iterator of Batch, made by ``batches``; a context manager. Close it: it holds threads or processes.

    tried, skipped: records read so far, and how many of them were bad. Each bad record is named once in the log.
    """

    def __init__(self, stream):
        self._stream, self._named = stream, set()
        self.tried = self.skipped = 0

    def __iter__(self):
        return self

    def __next__(self):
        rows = next(self._stream)
        clips, bad = rows["clips"], rows["bad"]
        for message in bad:
            if message not in self._named:
                self._named.add(message)
                logging.warning("skipped a bad record: %s", message)
        self.tried += len(clips) + len(bad)
        self.skipped += len(bad)
        if self.tried >= ATTEMPTS and 2 * self.skipped > self.tried:
            raise ShardError(
                f"{self.skipped} of {self.tried} records are bad, {len(self._named)} different ones, the last: "
                f"{bad[-1] if bad else 'see the log'}; prepare the videos again"
            )
        return Batch(clips, len(bad))

    def close(self):
        self._stream.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def _outlive_sigterm(index, count):
    """SIGTERM to the whole process group: the loop saves and then ends its workers, which it needs until then."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def batches(folder, *, seed, batch, frames, size, start, host=0, hosts=1, workers=0, speeds=(1, 2)):
    """Batches of the shards in ``folder`` from step ``start`` on.

    seed: int >= 0. batch: rows of all hosts together; this one gets rows host * batch / hosts and on. frames, size: of
    a crop. workers: processes that read ahead; 0 reads ahead in one thread. They are spawned: the program that calls
    needs its ``if __name__ == "__main__"``. speeds: a clip takes every 1st or 2nd frame, whichever its piece allows.
    Returns Batches. Raises ShardError for shards that cannot be opened, or hold a piece smaller than the crop;
    ValueError for a batch that the hosts cannot share.
    """
    if batch < 1 or batch % hosts or not 0 <= host < hosts:
        raise ValueError(f"a batch of {batch} cannot be shared by {hosts} hosts (this is host {host}): not a multiple")
    shards = open_shards(folder)
    needed = ((frames - 1) * min(speeds) + 1, size, size)
    if any(have < need for have, need in zip(shards.smallest, needed, strict=True)):
        t, h, w = shards.smallest
        raise ShardError(
            f"{folder}: pieces are as small as {t} frames of {w}x{h} pixels, and a crop needs {needed[0]} of "
            f"{size}x{size}; prepare the videos again with --smallest {needed[0]} {size} (and no less "
            f"--frames and --size), or train on smaller crops"
        )
    # Grain imports jax where it finds it. Only here, so that who wants halve, or shards, gets neither.
    import grain
    from absl import flags

    rows = batch // hosts
    data = (
        grain.MapDataset.range(len(shards))
        .seed(seed)
        .shuffle()
        .repeat(None)
        .random_map(_draw)
        .batch(batch, drop_remainder=True)
        .map(_ReadRows(shards, host * rows, (host + 1) * rows, frames=frames, size=size, speeds=tuple(speeds)))
    )
    stream = data[start:].to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=8))
    if workers:
        if not flags.FLAGS.is_parsed():  # grain 0.2.18 reads absl flags that only an absl program parses
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=workers)
        stream = stream.mp_prefetch(options, worker_init_fn=_outlive_sigterm)
    return Batches(iter(stream))
