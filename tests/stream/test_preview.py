import math

import numpy as np
import pytest

from helix_jax.stream import fit, preview
from helix_jax.stream.obus import StreamError
from helix_jax.video import VideoInfo


@pytest.fixture(scope="module")
def clip(yuv_clip, scene):
    return yuv_clip(np.concatenate([scene(10, 48, 64, 0), scene(14, 48, 64, 1)]))


@pytest.mark.parametrize("most", [60, 150, 600])
def test_preview(clip, most):
    made = preview.preview(clip, most)
    assert len(made.data) <= most
    blocks = list(preview.shown(made.data, clip.info, clip.signal, 10))
    assert [len(block) for block in blocks] == [10, 10, 4]
    shown = np.concatenate(blocks)
    assert shown.shape == clip.frames.shape
    psnr = 10 * math.log10(255**2 / np.square(shown.astype(float) - clip.shown()).mean())
    assert made.psnr == pytest.approx(psnr, abs=0.3)
    flat = np.square(clip.frames - clip.frames.mean(axis=(0, 1, 2))).mean()
    assert psnr > 10 * math.log10(255**2 / flat)


def test_more_bytes_show_more(clip):
    assert preview.preview(clip, 800).psnr > preview.preview(clip, 100).psnr + 1


def test_one_frame_and_long_clips(yuv_clip, scene, monkeypatch):
    assert preview.preview(yuv_clip(scene(1, 32, 32)), 200).frames == 1
    monkeypatch.setattr(preview, "MOST", 10)
    clip = yuv_clip(scene(33, 32, 32))
    made = preview.preview(clip, 3000)
    assert 1 < made.frames <= 10
    assert sum(len(block) for block in preview.shown(made.data, clip.info, clip.signal)) == 33


def test_each_picture_stands_for_the_frames_nearest_to_it(yuv_clip):
    levels = np.repeat(np.arange(4) * 60, 5).astype(np.uint8)
    clip = yuv_clip(np.broadcast_to(levels[:, None, None, None], (20, 32, 32, 3)))
    search = preview._Search(clip, 10_000)
    made = search.made(1.0, 4, 10.0, 8)
    shown = np.concatenate(list(preview.shown(made.data, clip.info, clip.signal)))
    assert np.abs(shown.mean(axis=(1, 2, 3)) - levels).max() < 5


def test_too_few_bytes(clip):
    with pytest.raises(fit.FitError, match="too small"):
        preview.preview(clip, 10)


def test_no_preview_of_this_clip(clip):
    data = preview.preview(clip, 600).data
    for info in (VideoInfo(1, 48, 64, clip.info.fps), VideoInfo(24, 4, 6, clip.info.fps)):
        with pytest.raises(StreamError, match="more than its clip"):
            next(preview.shown(data, info, clip.signal))
    for broken in (b"", data[:-1], b"\x12" + data[1:]):
        with pytest.raises(StreamError):
            list(preview.shown(broken, clip.info, clip.signal))
