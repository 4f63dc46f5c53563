import itertools

import numpy as np
import pytest

from helix_jax.stream import groups


def counts(clip, **options):
    return groups.lengths(clip, **options)


def test_cut_at_scenes(yuv_clip, scene):
    clip = yuv_clip(np.concatenate([scene(count, 32, 48, seed) for seed, count in enumerate((20, 31, 14))]))
    assert counts(clip) == (20, 31, 14) == counts(clip)


def test_long_scenes_are_divided_evenly(yuv_clip, scene):
    clip = yuv_clip(scene(65, 32, 48))
    assert counts(clip, seconds=1) == (21, 22, 22)
    assert counts(clip) == (65,)
    assert counts(clip, memory=3 * 32 * 48 * 10) == counts(clip, seconds=0.4)
    assert max(counts(clip, memory=3 * 32 * 48 * 10)) == 10


def test_one_frame_at_least_whatever_the_memory(yuv_clip, scene):
    assert counts(yuv_clip(scene(5, 16, 16)), memory=1) == (1,) * 5


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_flash_is_no_cut(yuv_clip, scene, length):
    frames = scene(60, 32, 48)
    frames[30 : 30 + length] = 255 - frames[30 : 30 + length] // 4
    assert counts(yuv_clip(frames)) == (60,)


def test_a_change_of_less_than_half_of_the_picture_is_no_cut(yuv_clip, scene):
    frames = scene(60, 32, 48)
    frames[30:, :14] = 255 - frames[30:, :14]
    assert counts(yuv_clip(frames)) == (60,)


def test_scenes_are_not_shorter_than_half_a_second(yuv_clip, scene):
    parts = [scene(count, 32, 48, seed) for seed, count in enumerate((20, 5, 30, 4))]
    assert counts(yuv_clip(np.concatenate(parts))) == (20, 39)


def test_groups_have_all_frames(yuv_clip, scene):
    clip = yuv_clip(np.concatenate([scene(20, 16, 16, 0), scene(20, 16, 16, 1)]))
    found = list(groups.groups(clip))
    assert [len(group) for group in found] == [20, 20]
    assert [frame.pts for frame in itertools.chain(*found)] == list(range(40))
    assert [len(group) for group in groups.groups(clip, (1, 39))] == [1, 39]


@pytest.mark.parametrize("frames", [(1,) * 7, (100, 1, 1, 1, 1, 1, 1), (1, 1, 1, 1, 100), (3, 50, 2), (5,)])
@pytest.mark.parametrize("most", [1, 3, 4, 100])
def test_merged(frames, most):
    strings = groups.merged(frames, most)
    assert sum(strings, ()) == frames
    assert all(strings)
    assert len(strings) == min(most, len(frames))


def test_merged_strings_are_of_similar_length():
    assert {sum(string) for string in groups.merged((10,) * 1000)} == {100}
