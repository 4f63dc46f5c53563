"""AV1 pools: what comes back of them whole, after repair, past repair, through both writers, and of forged ones."""

import contextlib
import dataclasses
import pathlib
import types
from fractions import Fraction

import numpy as np
import pytest

from helix_jax import codec, contents, packing, video
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.errors import BudgetError, DecodeError, HelixError
from helix_jax.strands.sections import numbers
from helix_jax.stream import auto, av1, preview
from helix_jax.stream import pictures as pictures_of
from helix_jax.video import planes
from helix_jax.video.signal import Signal

FPS, SIZE = Fraction(24000, 1001), (46, 70)
CONFIG = CodecConfig("strand", codec="av1", preview=0.2, strands=StrandConfig(length=100, redundancy=0.3))


def scenes(frames=30, size=SIZE):
    """Two scenes: a moving grating, and a moving disc."""
    y, x = np.mgrid[: size[0], : size[1]]
    first = [np.stack([(4 * x + 3 * t) % 256, 2 * y, (x + y + t) % 256], -1) for t in range(frames // 2)]
    second = [
        np.stack([np.where((y - 20) ** 2 + (x - 15 - t) ** 2 < 120, 250, 20 + y)] * 3, -1)
        for t in range(frames - frames // 2)
    ]
    return np.array(first + second, np.uint8)


CLIP = video.Clip(scenes(), FPS)


def strands_of(pool, kept=None):
    rows = pool.strands if kept is None else pool.strands[kept]
    return {rows.shape[1]: rows}


def kinds(pool):
    return [section.kind for section in pool.header.sections]


def packets_of(pool, *numbers_of_sections):
    """The strands of some sections, source and repair."""
    block, _ = pool.layout.locate(np.arange(pool.layout.packets))
    part = np.array(pool.layout.block_parts)[block]
    return pool.header_strands + np.flatnonzero(np.isin(part, numbers_of_sections))


@pytest.fixture(scope="module")
def made():
    return codec.encode(CLIP, config=CONFIG)


@pytest.fixture(scope="module")
def whole(made):
    film = codec.film(strands_of(made))
    return film, np.concatenate(list(film.blocks))


def test_a_pool_holds_a_preview_and_a_section_for_each_scene(made):
    assert kinds(made) == ["preview", "av1", "av1"]
    assert made.header.format == 2
    assert [int(s.details[0]) for s in made.header.sections[1:]] == [15, 15]
    first, *others = made.layout.sections
    assert first.repairs >= first.sources  # half of all strands may be lost
    assert all(part.repairs == np.ceil(0.3 * part.sources) + 2 for part in others)


def test_everything_comes_back_as_it_was_coded(made, whole):
    film, pictures = whole
    assert film.info == CLIP.info
    assert film.signal == Signal()
    assert film.report.verified
    assert film.stream is not None
    assert (film.report.preview_seconds, film.report.missing_seconds) == ((), ())
    coded = [
        planes.rgb(frame, Signal())
        for group in film.stream
        for frame in av1.decode(group, size=SIZE, frames=15, signal=Signal())
    ]
    np.testing.assert_array_equal(pictures, coded)
    assert auto.psnr([CLIP.frames], [pictures]) > 28


def test_losses_within_the_redundancy_change_nothing(made, whole):
    lost = np.concatenate([packets_of(made, n)[: made.layout.sections[n].repairs - 2] for n in (0, 1, 2)])
    kept = np.setdiff1d(np.arange(made.count), lost)
    _, blocks, report = codec.decode(strands_of(made, kept))
    assert report.verified
    np.testing.assert_array_equal(np.concatenate(list(blocks)), whole[1])


def test_a_lost_group_is_shown_from_the_preview_and_named(made, whole):
    gone = packets_of(made, 2)[::2]
    film = codec.film(strands_of(made, np.setdiff1d(np.arange(made.count), gone)))
    assert film.report.preview_seconds == ((float(15 / FPS), float(30 / FPS)),)
    assert film.stream is None
    assert not film.report.verified
    pictures = np.concatenate(list(film.blocks))
    np.testing.assert_array_equal(pictures[:15], whole[1][:15])
    grey = np.full_like(CLIP.frames[15:], 128)
    assert auto.psnr([CLIP.frames[15:]], [pictures[15:]]) > auto.psnr([CLIP.frames[15:]], [grey]) + 3


def test_half_of_all_strands_show_the_preview_and_nothing_less_shows_wrong_pictures(made):
    rng = np.random.default_rng(1)
    previewed = 0
    for _ in range(10):
        kept = np.sort(rng.permutation(made.count)[: made.count // 2])
        try:
            film = codec.film(strands_of(made, kept))
        except DecodeError:
            continue
        pictures = np.concatenate(list(film.blocks))
        previewed += len(pictures) == 30 and film.report.preview_seconds == ((0.0, float(30 / FPS)),)
    assert previewed >= 9


def test_without_preview_the_picture_before_stays(made):
    pool = codec.encode(CLIP, config=dataclasses.replace(CONFIG, preview=0.0))
    assert kinds(pool) == ["av1", "av1"]
    film = codec.film(strands_of(pool, np.setdiff1d(np.arange(pool.count), packets_of(pool, 0)[::2])))
    assert film.report.missing_seconds == ((0.0, float(15 / FPS)),)
    pictures = np.concatenate(list(film.blocks))
    assert (pictures[:15] == 128).all()
    with pytest.raises(DecodeError, match="every group"):
        codec.film(strands_of(pool, np.setdiff1d(np.arange(pool.count), packets_of(pool, 0, 1)[::2])))


@pytest.mark.parametrize(("budget", "preview"), [(14_000, 0.0), (30_000, 0.05)])
def test_a_budget_is_filled_and_not_exceeded(budget, preview):
    pool = codec.encode(CLIP, config=dataclasses.replace(CONFIG, preview=preview, budget=budget))
    assert 0.94 * budget < pool.nucleotides <= budget  # a step of two tiny groups is more than 2 %
    _, _, report = codec.decode(strands_of(pool))
    assert report.verified


def test_a_budget_too_small_is_refused():
    for budget in (100, 2_500):
        with pytest.raises(HelixError, match="too few"):
            codec.encode(CLIP, config=dataclasses.replace(CONFIG, budget=budget))


def test_sound_that_a_budget_does_not_pay_for_is_refused_before_anything_is_coded(monkeypatch):
    """The message has the share of the sound, and how to lessen it."""
    for coder in ("chosen", "_av1"):
        monkeypatch.setattr(auto, coder, lambda *_: pytest.fail("something is coded"))
    config = dataclasses.replace(CONFIG, codec="auto", budget=2_000)
    words = r"2,000 nucleotides are too few: header and sound take \S+, and the sound takes .* than 24, --no-sound or"
    with pytest.raises(BudgetError, match=words):
        codec.encode(Loud(CLIP.frames, FPS), config=config)


def test_a_refused_budget_says_what_each_codec_takes(monkeypatch):
    """And not only the one that was tried last."""
    config = dataclasses.replace(CONFIG, codec="auto", effort=0, budget=1_000)
    tokens = BudgetError("1,000 nucleotides", ("tokens take 1,234 at the lowest quality",), ("a smaller picture",))

    def refused(*_):
        raise tokens

    monkeypatch.setattr(codec, "_encode_tokens", refused)
    with pytest.raises(BudgetError) as caught:
        codec.encode(CLIP, lambda: None, config=config)
    assert "too few: AV1 takes" in str(caught.value)
    assert "at least, and tokens take 1,234 at the lowest quality; give more" in str(caught.value)
    assert "sound" not in str(caught.value)


def test_quality_buys_picture():
    pools = [codec.encode(CLIP, config=dataclasses.replace(CONFIG, preview=0.0, quality=q)) for q in (1, 9)]
    shown = [auto.psnr([CLIP.frames], codec.decode(strands_of(pool))[1]) for pool in pools]
    sizes = [sum(s.size for s in pool.header.sections if s.kind == "av1") for pool in pools]
    assert sizes[0] < sizes[1] / 1.3
    assert shown[0] < shown[1] - 1


class Loud(video.Clip):
    """A clip with sound."""

    def sound(self, kbit):
        return video.sound.Sound(1, 312, 48000, 960, tuple(bytes([120, n, 7 * n % 256]) for n in range(51)))


def test_sound_is_better_protected_than_the_picture():
    pool = codec.encode(Loud(CLIP.frames, FPS), config=CONFIG)
    assert kinds(pool) == ["preview", "sound", "av1", "av1"]
    _, sound, *groups = pool.layout.sections
    assert (sound.repairs - 2) / sound.sources > (groups[0].repairs - 2) / groups[0].sources + 0.2
    heard = codec.film(strands_of(pool)).sound
    assert heard == Loud(CLIP.frames, FPS).sound(24)
    kept = np.setdiff1d(np.arange(pool.count), packets_of(pool, 1)[::2][: sound.repairs + 1])
    film = codec.film(strands_of(pool, np.setdiff1d(kept, packets_of(pool, 1)[: sound.repairs + 1])))
    assert film.sound is None
    assert film.report.lost_sound
    silent = codec.encode(Loud(CLIP.frames, FPS), config=dataclasses.replace(CONFIG, silent=True, preview=0.0))
    assert kinds(silent) == ["av1", "av1"]


def given(every, info=CLIP.info, signal=None, **changes):
    """A pool of any contents, as if a writer of another mind had made it."""
    about = {
        "kind": "video", "frames": info.frames, "height": info.height, "width": info.width, "fps": info.fps,
    } | changes  # fmt: skip
    station = packing.BASES.open(CONFIG)
    layout = contents.plan(station, [(one.section, one.redundancy) for one in every], about, "av1")
    return codec._written(every, about, layout, info, CONFIG, station, b"forgedby")


def whole_groups(film):
    return [contents.Content("av1", group, None, numbers(15, *SIZE)) for group in film.stream]


def test_unknown_kinds_are_skipped(whole):
    groups = whole_groups(whole[0])
    pool = given([contents.Content("note", b"later"), *groups, contents.Content("file", bytes(100))])
    _, blocks, report = codec.decode(strands_of(pool))
    assert report.verified
    np.testing.assert_array_equal(np.concatenate(list(blocks)), whole[1])
    with pytest.raises(DecodeError, match="no picture that this release knows"):
        codec.decode(strands_of(given([contents.Content("note", b"later")])))
    with pytest.raises(DecodeError, match="holds video"):
        codec.unpack(strands_of(pool))


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        (numbers(14, *SIZE), "frames"),
        (numbers(15, 1 << 20, 1 << 20), "pixels"),
        (b"\x80", "cut short"),
        (numbers(15, 40, 60), "AV1"),
        (numbers(15, 0, 60), "pixels"),
    ],
)
def test_forged_groups_are_refused(whole, details, reason):
    first, second = whole_groups(whole[0])
    pool = given([first, dataclasses.replace(second, details=details)])
    with pytest.raises(DecodeError, match=reason):
        list(codec.decode(strands_of(pool))[1])


def test_hostile_streams_are_refused(whole):
    first, second = whole_groups(whole[0])
    rng = np.random.default_rng(0)
    for data in (b"", second.data[:-9], rng.bytes(300), second.data + second.data, b"\x12\0" + second.data):
        pool = given([first, dataclasses.replace(second, data=data)])
        with pytest.raises(DecodeError):
            list(codec.decode(strands_of(pool))[1])
    long = given([first, contents.Content("av1", b"x", 0, numbers(10**9, *SIZE))], frames=10**9 + 15)
    with pytest.raises(DecodeError, match="pictures in 1 bytes"):
        codec.decode(strands_of(long))
    huge = given([first, second], height=1 << 20, width=1 << 20)
    with pytest.raises(DecodeError, match="pixels"):
        codec.decode(strands_of(huge))


def lost_of(pool, number):
    """The strands of a pool without the source packets of one section."""
    return strands_of(pool, np.setdiff1d(np.arange(pool.count), packets_of(pool, number)[::2]))


def test_a_bad_preview_harms_no_good_picture(whole):
    first, second = whole_groups(whole[0])
    pool = given([contents.Content("preview", bytes(range(80))), first, second])
    _, blocks, report = codec.decode(strands_of(pool))
    np.testing.assert_array_equal(np.concatenate(list(blocks)), whole[1])
    _, blocks, report = codec.decode(lost_of(pool, 2))
    assert (report.preview_seconds, report.missing_seconds) == ((), ((float(15 / FPS), float(30 / FPS)),))
    pictures = np.concatenate(list(blocks))
    assert (pictures[15:] == pictures[14]).all()


def test_the_preview_is_shown_again_after_a_whole_group(made, whole):
    """Lost, whole, lost, with a preview of one picture."""
    still = preview.preview(video.Clip(CLIP.frames[:1], FPS), 300).data
    first, second = whole_groups(whole[0])
    info = dataclasses.replace(CLIP.info, frames=45)
    pool = given([contents.Content("preview", still), first, second, first], info, frames=45)
    gone = np.concatenate([packets_of(pool, 1)[::2], packets_of(pool, 3)[::2]])
    film = codec.film(strands_of(pool, np.setdiff1d(np.arange(pool.count), gone)))
    pictures = np.concatenate(list(film.blocks))
    np.testing.assert_array_equal(pictures[0], pictures[44])
    assert (pictures[0] != pictures[15]).any()


def test_a_copied_film_is_what_the_header_says(whole):
    """A stream of another size, or of another number of pictures, is not copied into a file."""
    first, second = whole_groups(whole[0])
    other = whole_groups(
        codec.film(
            strands_of(
                codec.encode(video.Clip(scenes(30, (40, 60)), FPS), config=dataclasses.replace(CONFIG, preview=0.0))
            )
        )
    )[1]
    with pytest.raises(DecodeError, match="not 70x46"):
        codec.film(strands_of(given([first, dataclasses.replace(other, details=second.details)])))


@pytest.mark.parametrize("colours", [(1, 1, 8, 0), (1, 1, 200, 0), (9, 16, 10, 1)])
def test_any_colours_of_a_header_give_pictures_or_an_error(whole, colours):
    pool = given(whole_groups(whole[0]), colours=colours)
    with contextlib.suppress(DecodeError):  # which says that the colours cannot be shown
        assert len(np.concatenate(list(codec.decode(strands_of(pool))[1]))) == 30


@pytest.mark.parametrize("fps", [1000, Fraction(1, 7), 29.97, Fraction(90_000)])
def test_any_frame_rate(fps):
    clip = video.Clip(scenes(4, (16, 16)), fps)
    pool = codec.encode(clip, config=dataclasses.replace(CONFIG, preview=0.0))
    film = codec.film(strands_of(pool))
    assert film.info == clip.info
    assert len(np.concatenate(list(film.blocks))) == 4


def test_small_budgets_with_a_large_preview_are_used_or_refused():
    clip = video.Clip(scenes(8, (48, 64)), FPS)
    for budget in range(2900, 5000, 300):
        with contextlib.suppress(HelixError):  # too few for this clip
            assert (
                codec.encode(clip, config=dataclasses.replace(CONFIG, preview=0.5, budget=budget)).nucleotides <= budget
            )


@pytest.mark.parametrize("length", [150, 60])
def test_a_long_clip_has_as_many_groups_as_its_header_has_room_for(length, monkeypatch):
    """A hundred scenes, in strands of two lengths."""
    monkeypatch.setattr(pictures_of.groups, "lengths", lambda clip: (20,) * 130)
    config = dataclasses.replace(CONFIG, constraints="helix", strands=StrandConfig(length=length))
    info = dataclasses.replace(CLIP.info, frames=2600, height=1080, width=1920)
    clip = types.SimpleNamespace(info=info, signal=Signal(), yuv=lambda: iter(()))
    about = pictures_of.fields(info, Signal(), (30.0, 20.0))
    station = packing.BASES.open(config)
    plan = pictures_of.planned(clip, (), about, config, station)
    assert sum(plan.frames) == 2600
    assert len(plan.frames) == (100 if length == 150 else len(plan.frames))
    assert len(plan.frames) > 25
    assert station.cost(plan.layout([1 << 16] * len(plan.frames), 1000)) > 0


def test_hostile_sound_is_left_out(whole):
    pool = given([contents.Content("sound", b"\xff" * 50), *whole_groups(whole[0])])
    film = codec.film(strands_of(pool))
    assert film.sound is None
    assert film.report.lost_sound
    np.testing.assert_array_equal(np.concatenate(list(film.blocks)), whole[1])


def test_a_pool_of_a_release_before(whole):
    """``golden/av1_strand_100.fasta`` was written once, with preview and sound, and is read for ever."""
    from helix_jax.strands import fasta

    kept = fasta.read(pathlib.Path(__file__).parents[1] / "golden" / "av1_strand_100.fasta")
    film = codec.film(kept)
    assert film.report.verified
    assert (film.info, film.sound.samples) == (CLIP.info, 48000)
    assert auto.psnr([CLIP.frames], film.blocks) > 28


def test_auto_takes_what_shows_more(monkeypatch):
    config = dataclasses.replace(CONFIG, codec="auto", preview=0.0)
    asked = []
    monkeypatch.setattr(auto, "_all_digits", lambda begin, nets: 90.0)
    monkeypatch.setattr(auto, "_tokens", lambda begin, nets, config, station: asked.append(config) or 12.0)
    pool = codec.encode(CLIP, lambda: None, config=config)
    assert pool.header.codec == "av1"
    assert pool.header.measured[1] == 1200 < pool.header.measured[0]
    assert asked[0].budget > 0
    station = packing.BASES.open(config)
    monkeypatch.setattr(auto, "_tokens", lambda begin, nets, config, station: 99.0)
    assert auto.chosen(video.Complete(CLIP), (), lambda: None, config, station)[0] == "tokens"
    monkeypatch.setattr(auto, "_all_digits", lambda begin, nets: 13.0)
    assert auto.chosen(video.Complete(CLIP), (), lambda: None, config, station)[1][1] == 13.0  # which AV1 exceeds
    in_mode = dataclasses.replace(config, mode="raw")
    assert auto.chosen(video.Complete(CLIP), (), lambda: None, in_mode, station) == ("tokens", None, None)
