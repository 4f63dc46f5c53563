"""Tokens of a clip <-> segments that are coded on their own: a tile of space by FRAMES latent frames.

Segments share nothing, so that they are coded side by side and a broken one harms no other. All of a clip have one
padded shape: tiles of nearly TILE tokens a side that share the picture evenly; tokens past its edge, or past the clip's
end, are not there and cost nothing.
"""

import math
from dataclasses import dataclass

import numpy as np

FRAMES = 8  # latent; two groups of the tokenizer. 4 cost 6 % more bits, 16 cost 2 % less and lose twice as much at once
TILE = 20  # tokens a side, about; 14 cost 1.4 % more bits


@dataclass(frozen=True)
class Plan:
    """grid: (t, h, w) of the clip. shape: (t, h, w) of a segment, padding included. counts: segments along an axis."""

    grid: tuple[int, int, int]
    shape: tuple[int, int, int]
    counts: tuple[int, int, int]

    @property
    def number(self):
        """Segments of the clip."""
        return math.prod(self.counts)


def plan(grid):
    """How a clip of grid (t, h, w) is cut."""
    _, h, w = grid
    tiles = [max(1, round(size / TILE)) for size in (h, w)]
    shape = (FRAMES, -(-h // tiles[0]), -(-w // tiles[1]))
    counts = tuple(-(-size // part) for size, part in zip(grid, shape, strict=True))
    return Plan(tuple(grid), shape, counts)


def cut(plan, values):
    """[t, h, w, ...] -> [segments, *plan.shape, ...], zeros where there is nothing; segments in the order of time."""
    pad = [(0, n * size - have) for n, size, have in zip(plan.counts, plan.shape, plan.grid, strict=True)]
    values = np.pad(values, pad + [(0, 0)] * (values.ndim - 3))
    parts = [size for pair in zip(plan.counts, plan.shape, strict=True) for size in pair]
    values = values.reshape(*parts, *values.shape[3:])
    return np.moveaxis(values, (0, 2, 4, 1, 3, 5), range(6)).reshape(plan.number, *plan.shape, *values.shape[6:])


def join(plan, values):
    """Inverse of ``cut``."""
    values = values.reshape(*plan.counts, *plan.shape, *values.shape[4:])
    values = np.moveaxis(values, range(6), (0, 2, 4, 1, 3, 5))
    full = [n * size for n, size in zip(plan.counts, plan.shape, strict=True)]
    t, h, w = plan.grid
    return values.reshape(*full, *values.shape[6:])[:t, :h, :w]


def there(plan):
    """bool[segments, *plan.shape]: which tokens exist."""
    return cut(plan, np.ones(plan.grid, bool))
