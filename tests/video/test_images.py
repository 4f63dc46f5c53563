"""Single images and sequences of them: in and out, upright, in their order, and refused where something is wrong."""

import errno
import json
import os
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from helix_jax import video
from helix_jax.config import Preparation
from helix_jax.files import OutputError
from helix_jax.video import VideoError, VideoInfo, images

AV1 = ("--codec", "av1", "--constraints", "goldman", "--strand-length", 100, "--preview", 0)


def picture(number=0, height=24, width=32):
    y, x = np.mgrid[:height, :width]
    return np.stack([8 * x % 256, 255 - 8 * y % 256, np.full_like(x, 40 * number % 256)], axis=-1).astype(np.uint8)


def save(path, number=0, exif=None, **size):
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}}
    options[".jpeg"] = options[".jpg"]
    more = options.get(path.suffix.lower(), {}) | ({"exif": exif} if exif else {})
    Image.fromarray(picture(number, **size)).save(path, **more)
    return path


def shown(path, prepare=None):
    reader = video.open_video(path, prepare or Preparation())
    return reader.info, np.concatenate(list(reader.blocks()))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg", ".JPEG"])
def test_an_image_is_a_clip_of_one_frame(tmp_path, suffix):
    info, (frame,) = shown(save(tmp_path / f"a{suffix}"))
    assert info == VideoInfo(1, 24, 32, Fraction(25))
    assert np.abs(frame.astype(int) - picture()).max() <= (0 if suffix in (".png", ".tif") else 6)
    info, _ = shown(tmp_path / f"a{suffix}", Preparation(fps=Fraction(10)))
    assert info == VideoInfo(1, 24, 32, Fraction(10))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_exif_turns_the_picture(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a{suffix}", exif=exif)
    turned = {1: picture(), 2: picture()[:, ::-1], 3: picture()[::-1, ::-1], 4: picture()[::-1]}
    turned |= {5: turned[1].swapaxes(0, 1), 6: turned[4].swapaxes(0, 1)}
    turned |= {7: turned[3].swapaxes(0, 1), 8: turned[2].swapaxes(0, 1)}
    _, (frame,) = shown(path)
    assert frame.shape == turned[orientation].shape
    assert np.abs(frame.astype(int) - turned[orientation]).max() <= (0 if suffix == ".png" else 6)
    yuv = next(video.open_video(path).yuv())
    assert (yuv.height, yuv.width) == frame.shape[:2]


def test_sequences_are_in_their_order(tmp_path):
    for number in range(8, 12):
        save(tmp_path / f"f{number}.png", number)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".f12.png").write_text("hidden")
    for path, prepare, fps in (
        (tmp_path, None, 25),
        (tmp_path / "f%d.png", Preparation(fps=Fraction(30000, 1001)), Fraction(30000, 1001)),
    ):
        info, frames = shown(path, prepare)
        assert info == VideoInfo(4, 24, 32, Fraction(fps))
        np.testing.assert_array_equal(frames, np.stack([picture(number) for number in range(8, 12)]))
        assert len(list(video.open_video(path).yuv())) == 4


def test_digits_are_as_wide_as_said(tmp_path):
    for name in ("0001", "0002", "03", "3"):
        save(tmp_path / f"{name}.png")
    assert [path.name for path in images.sequence(tmp_path / "%04d.png")] == ["0001.png", "0002.png"]
    assert [path.name for path in images.sequence(tmp_path / "%d.png")] == ["3.png"]
    assert images.sequence(save(tmp_path / "100%d.png")) == ()  # a file of that name


def test_holes_sizes_and_nothing_are_refused(tmp_path):
    for name, words in (("%04d.png", "no file of such a name"), (".", "has no image")):
        with pytest.raises(VideoError, match=words):
            video.open_video(tmp_path / name)
    for number in (1, 2, 5):
        save(tmp_path / f"{number:04d}.png")
    for path in (tmp_path, tmp_path / "%04d.png"):
        with pytest.raises(VideoError, match=r"number 3 and 1 more of 1 to 5 is missing; add it"):
            video.open_video(path)
    for number in (3, 4):
        save(tmp_path / f"{number:04d}.png", height=24 + 8 * (number == 4))
    with pytest.raises(VideoError, match=r"0004.png: it has 32x32 pixels.* unlike 0001.png of 32x24"):
        video.open_video(tmp_path)
    (tmp_path / "0004.png").write_bytes(b"no image")
    with pytest.raises(VideoError, match=r"0004\.png"):
        video.open_video(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".webp", ".jpg", ".jpeg"])
def test_written_images_come_back(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    images.write(path, iter([picture()[None]]), 1)
    back = np.asarray(Image.open(path).convert("RGB"))
    assert np.abs(back.astype(int) - picture()).max() <= (8 if suffix.startswith(".j") else 0)
    assert [one.name for one in tmp_path.iterdir()] == [f"out{suffix}"]


def test_written_sequences_come_back(tmp_path):
    frames = np.stack([picture(number) for number in range(11)])
    images.write(tmp_path / "f%d.png", iter([frames[:6], frames[6:]]), 11)
    np.testing.assert_array_equal(shown(tmp_path)[1], frames)
    with pytest.raises(OutputError, match=r"f1.png is there already"):
        images.check_output(tmp_path / "f%d.png")
    with pytest.raises(OutputError, match="there is no folder"):
        images.check_output(tmp_path / "gone" / "f%d.png")
    with pytest.raises(VideoError, match=r"the pool has 11 pictures; name a sequence, such as .*%04d.png"):
        images.write(tmp_path / "one.png", iter([frames]), 11)

    def broken():
        yield frames[:3]
        raise VideoError("cut")

    (tmp_path / "other").mkdir()
    with pytest.raises(VideoError, match="cut"):
        images.write(tmp_path / "other" / "f%d.png", broken(), 11)
    assert not list((tmp_path / "other").iterdir())


def test_through_a_pool(tmp_path, run_cli):
    (tmp_path / "out").mkdir()
    save(tmp_path / "photo.png")
    assert run_cli("encode", tmp_path / "photo.png", "-o", tmp_path / "a.fasta", "--note", *AV1).exit_code == 0
    result = run_cli("decode", tmp_path / "a.fasta", "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["output"] == str(tmp_path / "out" / "photo.png")
    back = np.asarray(Image.open(tmp_path / "out" / "photo.png"))
    assert np.abs(back.astype(int) - picture()).mean() < 4
    (tmp_path / "frames").mkdir()
    (tmp_path / "again").mkdir()
    for number in range(3):
        save(tmp_path / "frames" / f"{number:04d}.png", number)
    pattern = tmp_path / "frames" / "%04d.png"
    assert run_cli("encode", pattern, "-o", tmp_path / "b.fasta", "--fps", 10, *AV1).exit_code == 0
    result = run_cli("decode", tmp_path / "b.fasta", "-o", tmp_path / "again" / "%02d.png", "--json")
    assert json.loads(result.stdout)["fps"] == "10"
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["01.png", "02.png", "03.png"]
    for output, words in (("one.png", "has 3 pictures"), ("again/%02d.png", "is there already")):
        result = run_cli("decode", tmp_path / "b.fasta", "-o", tmp_path / output)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert words in result.stderr
    result = run_cli("encode", pattern, "-o", tmp_path / "c.fasta", "--note", *AV1)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "is a sequence of images" in result.stderr


def test_odd_names_and_numbers(tmp_path):
    assert not images.is_pattern(tmp_path / "%09999999999d.png")  # a width that no file name has
    for name in ("a1.png", "a1000000000000.png"):
        save(tmp_path / name)
    for path in (tmp_path, tmp_path / "a%d.png"):
        with pytest.raises(VideoError, match=r"number 2 and 999999999997 more of 1 to 1000000000000 is missing"):
            images.sequence(path)
    (tmp_path / "squared").mkdir()
    paths = [save(tmp_path / "squared" / name) for name in ("x2.png", "x10.png", "x².png")]
    assert list(images.sequence(tmp_path / "squared")) == paths


@pytest.mark.parametrize("links", [True, False])
def test_a_sequence_is_written_whole_and_replaces_nothing(tmp_path, monkeypatch, links):
    """A file that appears while the pictures are decoded keeps its bytes, and no picture is left beside it."""
    frames, link = np.stack([picture(number) for number in range(4)]), os.link
    (tmp_path / "a").mkdir()

    def linked(source, target):
        if not links:
            raise OSError(errno.EPERM, "no links here")
        link(source, target)

    monkeypatch.setattr(images.os, "link", linked)
    images.write(tmp_path / "a" / "f%d.png", iter([frames]), 4)
    np.testing.assert_array_equal(shown(tmp_path / "a")[1], frames)

    def late():
        yield frames
        (tmp_path / "f3.png").write_text("somebody else's")

    with pytest.raises(OutputError, match=r"f3.png: it is there already"):
        images.write(tmp_path / "f%d.png", late(), 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "f3.png"]
    assert (tmp_path / "f3.png").read_text() == "somebody else's"


def test_what_images_do_not_hold_is_told(tmp_path, make_clip, run_cli):
    make_clip(tmp_path / "a.mp4", 2, 24, 32, sound=True)
    assert run_cli("encode", tmp_path / "a.mp4", "-o", tmp_path / "a.fasta", "--sound", 6, *AV1).exit_code == 0
    result = run_cli("decode", tmp_path / "a.fasta", "-o", tmp_path / "%d.png", "--json")
    assert (result.exit_code, json.loads(result.stdout)["sound"]) == (0, False)
    assert "images have no sound" in result.stderr
    result = run_cli("decode", tmp_path / "a.fasta", "-o", tmp_path / "a.JPG", "--lossless")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "a JPEG always loses something" in result.stderr
