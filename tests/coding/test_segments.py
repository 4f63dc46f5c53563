"""Segments: every token in one of them, once; all of one shape, none larger than meant."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_jax.coding import segments
from helix_jax.coding.segments import FRAMES, TILE

grids = st.tuples(st.integers(1, 40), st.integers(1, 70), st.integers(1, 70))


@given(grids)
def test_plan(grid):
    """Tiles are about TILE tokens a side, or the picture's, and none is empty."""
    plan = segments.plan(grid)
    assert plan.grid == grid
    assert plan.shape[0] == FRAMES
    assert plan.number == np.prod(plan.counts)
    for size, part, count in zip(grid, plan.shape, plan.counts, strict=True):
        assert (count - 1) * part < size <= count * part
    for size, part in zip(grid[1:], plan.shape[1:], strict=True):
        assert part <= 1.5 * TILE
        assert part >= min(size, TILE // 2)


@given(grids, st.sampled_from([(), (1,), (3, 2)]))
def test_cut_and_join(grid, more):
    plan = segments.plan(grid)
    size = int(np.prod(grid) * np.prod(more, dtype=int))
    values = np.arange(1, size + 1).reshape(*grid, *more)
    parts = segments.cut(plan, values)
    assert parts.shape == (plan.number, *plan.shape, *more)
    np.testing.assert_array_equal(segments.join(plan, parts), values)
    found = parts[parts > 0]
    assert len(found) == size  # each once, and zeros where there is nothing
    assert len(np.unique(found)) == size
    np.testing.assert_array_equal(segments.valid(plan), segments.cut(plan, values > 0)[(..., *(0,) * len(more))])


@given(grids)
def test_a_segment_is_a_box_of_the_clip(grid):
    """In the order of time, then of rows, then of columns; so that a lost one is a box of a few seconds."""
    plan = segments.plan(grid)
    place = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), axis=-1)
    valid, places = segments.valid(plan), segments.cut(plan, place)
    for n, at in enumerate(np.ndindex(plan.counts)):
        corner = np.array(at) * plan.shape
        inside = places[n][valid[n]]
        assert len(inside) > 0
        np.testing.assert_array_equal(inside.min(axis=0), corner)
        assert (inside.max(axis=0) < corner + plan.shape).all()
        assert len(inside) == np.prod(np.minimum(plan.shape, np.array(grid) - corner))


def test_join_keeps_the_type():
    plan = segments.plan((3, 5, 30))
    for kind in (bool, np.uint8, np.float32):
        assert segments.join(plan, segments.cut(plan, np.ones(plan.grid, kind))).dtype == kind


@pytest.mark.parametrize(
    ("grid", "shape", "counts"),
    [
        ((1, 1, 1), (8, 1, 1), (1, 1, 1)),
        ((75, 36, 44), (8, 18, 22), (10, 2, 2)),  # 300 frames of CIF
        ((8, 135, 240), (8, 20, 20), (1, 7, 12)),  # 1080p
        ((9, 30, 29), (8, 15, 29), (2, 2, 1)),
    ],
)
def test_plans_are_frozen(grid, shape, counts):
    """Old pools were cut like this."""
    assert segments.plan(grid) == segments.Plan(grid, shape, counts)
