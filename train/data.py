"""Training batches from shards (train/shards.py): batch t is a pure function of (seed, t). No jax is used here.

    indices --shuffle--> --draw a seed each--> --batch--> this host's rows --read--> --crop, flip, speed--> clips

All random numbers are drawn before a host takes its rows. Starting at step s therefore gives the batches s, s + 1, ...
of an uninterrupted run, and the rows of all hosts together are the batch of a single host, for any number of hosts and
of workers.
"""

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Int64, UInt8

from train.shards import ShardError, Shards, open_shards

# Bad records in a row after which reading stops. If fewer than half are bad, the probability is below 1 in 4 billion.
ATTEMPTS = 32


@dataclass(frozen=True)
class Batch:
    """A batch of crops.

    Attributes:
        clips: the rows of this host.
        skipped: number of bad records that were replaced in them.
    """

    clips: UInt8[np.ndarray, "n T H W 3"]
    skipped: int


def halve(clip: UInt8[np.ndarray, "T H W 3"]) -> UInt8[np.ndarray, "T H//2 W//2 3"]:
    """Return the clip at half its size: the mean of each 2 x 2 block of pixels."""
    _, height, width, _ = clip.shape
    clip = clip[:, : height // 2 * 2, : width // 2 * 2].astype(np.uint16)
    total = clip[:, ::2, ::2] + clip[:, 1::2, ::2] + clip[:, ::2, 1::2] + clip[:, 1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)


def crop(
    clip: UInt8[np.ndarray, "T H W 3"], generator: np.random.Generator, *, frames: int, size: int, speeds: Sequence[int]
) -> UInt8[np.ndarray, "{frames} {size} {size} 3"]:
    """Return a random crop: its position, time, speed and whether it is mirrored are drawn.

    Args:
        clip: the frames to crop.
        generator: source of the random numbers.
        frames: frames of the crop.
        size: height and width of the crop, in pixels.
        speeds: speeds to draw from; speed s takes every s-th frame. Those for which the clip is too short are not
            drawn.
    """
    speeds = [speed for speed in speeds if (frames - 1) * speed < len(clip)]
    speed = speeds[generator.integers(len(speeds))]
    extent = ((frames - 1) * speed + 1, size, size)
    t, y, x = (generator.integers(0, n - m + 1) for n, m in zip(clip.shape, extent, strict=False))
    taken = clip[t : t + extent[0] : speed, y : y + size, x : x + size]
    return taken[:, :, ::-1] if generator.integers(2) else taken


class _ReadRows:
    """Reads this host's clips of a global batch of (record, seed); runs in the workers."""

    def __init__(self, shards: Shards, low: int, high: int, **shape: Any) -> None:
        self.shards, self.low, self.high, self.shape = shards, low, high, shape

    def __call__(self, rows: Int64[np.ndarray, "batch 2"]) -> dict[str, Any]:
        """Return {"clips": uint8[high - low, ...], "bad": a message for each bad record}."""
        bad = []
        clips = [self._clip(int(index), int(seed), bad) for index, seed in rows[self.low : self.high]]
        return {"clips": np.stack(clips), "bad": bad}

    def _clip(self, index: int, seed: int, bad: list[str]) -> UInt8[np.ndarray, "frames size size 3"]:
        generator = np.random.default_rng(seed)
        for _ in range(ATTEMPTS):
            try:
                return crop(self.shards.read(index).frames, generator, **self.shape)
            except ShardError as error:
                bad.append(str(error))
                index = int(generator.integers(len(self.shards)))
        raise ShardError(f"{ATTEMPTS} records in a row are bad, the last: {bad[-1]}; prepare the videos again")


def _draw(index: int, generator: np.random.Generator) -> Int64[np.ndarray, "2"]:
    return np.array([index, generator.integers(2**63 - 1)], np.int64)


class Batches:
    """Endless iterator of batches, made by ``batches``, and a context manager that closes it.

    It holds threads or processes until it is closed. Each bad record is named once in the log.

    Attributes:
        tried: number of records read so far.
        skipped: number of bad records among them.
    """

    def __init__(self, stream: Any) -> None:
        self._stream, self._named = stream, set()
        self.tried = self.skipped = 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
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

    def close(self) -> None:
        """End the threads or processes that read ahead."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _outlive_sigterm(index: int, count: int) -> None:
    """Ignore SIGTERM in a worker: if the whole process group gets it, the loop needs its workers until it has saved."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def batches(
    folder: str | os.PathLike,
    *,
    seed: int,
    batch: int,
    frames: int,
    size: int,
    start: int,
    host: int = 0,
    hosts: int = 1,
    workers: int = 0,
    speeds: Sequence[int] = (1, 2),
) -> Batches:
    """Return the batches of the shards in ``folder`` from step ``start`` on.

    Args:
        folder: the folder of shards.
        seed: at least 0.
        batch: number of rows of all hosts together; a host gets batch / hosts rows from row host * batch / hosts on.
        frames: frames of a crop.
        size: height and width of a crop, in pixels.
        start: number of the first step.
        host: number of this host.
        hosts: number of hosts.
        workers: number of processes that read ahead; 0 reads ahead in one thread. They are spawned, so that the calling
            program needs ``if __name__ == "__main__"``.
        speeds: a crop of speed s takes every s-th frame; see ``crop``.

    Raises:
        ShardError: if the shards cannot be opened, or hold a piece that is smaller than the crop.
        ValueError: if the hosts cannot share the batch.
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
    # Grain imports jax if it is installed. It is imported here, so that ``halve`` and the shards need neither.
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
