"""Training crops: batch t is a pure function of (seed, t). No jax here.

``cut_crops`` decodes every video of a folder once and keeps random crops at full and at half size in
one array file; ``batches`` reads it with Grain. Starting at step s gives the batches s, s + 1, ... of an
uninterrupted run, so a restart needs only the step number.
"""

import logging
from pathlib import Path

import av
import grain
import numpy as np
from tqdm import tqdm


def decode(path):
    """All frames of a video, uint8[T, H, W, 3]."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def halve(clip):
    """Half-size clip: the mean of each 2 x 2 block of pixels."""
    _, height, width, _ = clip.shape
    clip = clip[:, : height // 2 * 2, : width // 2 * 2].astype(np.uint16)
    total = clip[:, ::2, ::2] + clip[:, 1::2, ::2] + clip[:, ::2, 1::2] + clip[:, 1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)


def cut_crops(folder, out, *, per_clip, frames, size, seed, exclude=()):
    """Write ``per_clip`` random crops of each video, half of them at half size, to ``out`` (.npy).

    out: uint8[N, frames, size, size, 3]. exclude: file name prefixes that are left out (clips that
    are shown as results). Videos that cannot be read, or are too small, are named and skipped.
    """
    paths = [p for p in sorted(Path(folder).glob("*.mp4")) if not p.name.startswith(tuple(exclude))]
    if not paths:
        raise ValueError(f"no .mp4 file in {folder}")
    crops = []
    for number, path in enumerate(tqdm(paths, desc="cutting crops", disable=None)):
        generator = np.random.default_rng([seed, number])
        try:
            full = decode(path)
        except (av.FFmpegError, ValueError) as error:
            logging.warning("skipped %s: %s", path.name, error)
            continue
        sizes = [clip for clip in (full, halve(full)) if clip.shape[0] >= frames and min(clip.shape[1:3]) >= size]
        if not sizes:
            logging.warning("skipped %s: smaller than %d frames of %d x %d", path.name, frames, size, size)
            continue
        for k in range(per_clip):
            clip = sizes[k % len(sizes)]
            t, y, x = (generator.integers(0, n - m + 1) for n, m in zip(clip.shape, (frames, size, size), strict=False))
            crops.append(clip[t : t + frames, y : y + size, x : x + size])
    np.save(out, np.stack(crops))


def _flip(crop, generator):
    if generator.integers(2):
        crop = crop[:, :, ::-1]
    return crop


def batches(crops, *, seed, batch, start):
    """Endless iterator of uint8[batch, T, H, W, 3] from step ``start`` on; crops: array or memory map."""
    data = (
        grain.MapDataset.source(crops)
        .seed(seed)
        .shuffle()
        .repeat(None)
        .random_map(_flip)
        .batch(batch, drop_remainder=True)
    )
    return iter(data[start:].to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=8)))
