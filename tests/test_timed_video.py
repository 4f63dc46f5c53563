"""Video through the timing writer: tokens exact, loss concealed and counted, what is no video refused."""

import dataclasses
from fractions import Fraction

import jax
import numpy as np
import pytest

from helix_jax import timed_video, video
from helix_jax.config import TokenizerConfig
from helix_jax.strands import header
from helix_jax.timing import channel, codec
from helix_jax.timing.codec import DecodeError
from helix_jax.timing.graph import TALK
from helix_jax.timing.scheme import Scheme
from helix_jax.tokenizer import model as nets
from helix_jax.tokenizer import tiles
from helix_jax.tokenizer.weights import Model

SMALL = TokenizerConfig(width=16, encoder_blocks=1, decoder_blocks=1, tile=(4, 8, 8))
P = 0.98
SCHEME = Scheme(
    name="test", law=channel.Binomial.uniform(P), table=TALK, copies=2, delta=0.1, duration=72, data=61, spacing=24,
    parity=14, index=5, check=8, group=16, redundancy=0.3, beams=(4, 32),
)  # fmt: skip
SHAPE = (5, 40, 33)


@pytest.fixture(scope="module")
def model():
    return Model(nets.init(jax.random.key(0), SMALL), SMALL, bytes(range(32)))


@pytest.fixture(scope="module")
def clip():
    return video.Clip(np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8), Fraction(30000, 1001))


@pytest.fixture(scope="module")
def plan(model, clip):
    return timed_video.encode(clip, model, SCHEME)


@pytest.fixture(scope="module")
def expected(model, clip):
    """The tokenizer's own picture, of exact tokens."""
    tokens = tiles.encode(model.params, SMALL, clip.blocks(), *SHAPE[1:])
    return np.concatenate(list(tiles.decode(model.params, SMALL, tokens, *SHAPE)))


def copies_of(plan, copies=4, seed=0):
    generator = np.random.default_rng(seed)
    return [
        [np.repeat(row, generator.binomial(times, P)) for _ in range(copies)]
        for row, times in zip(plan.letters, plan.durations, strict=True)
    ]


def shuffled(pool):
    reads = [read for copies in pool for read in copies]
    return [reads[i] for i in np.random.default_rng(0).permutation(len(reads))]


def test_round_trip(model, clip, plan, expected):
    pool = copies_of(plan)
    pool[3] = []  # repaired
    info, blocks, report, concealed = timed_video.decode(shuffled(pool), model, SCHEME)
    assert info == clip.info
    assert report.verified
    assert (concealed, report.lost_strands) == (0.0, 0)
    np.testing.assert_array_equal(np.concatenate(list(blocks)), expected)


def test_same_clip_same_schedule(model, clip, plan):
    again = timed_video.encode(clip, model, SCHEME)
    np.testing.assert_array_equal(again.letters, plan.letters)
    np.testing.assert_array_equal(again.durations, plan.durations)


def test_content_is_a_header_and_tokens(model, plan):
    """4 token digits a byte, in whole symbols; the header names clip and model."""
    data = codec.decode(shuffled(copies_of(plan)), SCHEME)[0]
    head = header.Header.from_bytes(data[: header.SIZE])
    assert (head.kind, head.constraints, head.model_hash) == ("video", "timing", model.digest[:8])
    assert (head.frames, head.height, head.width, head.fps) == (*SHAPE, Fraction(30000, 1001))
    tokens = int(np.prod(tiles.grid_shape(*SHAPE)))
    assert head.content_bytes == tokens * SMALL.digits // 4
    assert head.symbol_bytes <= codec.symbol_bytes(SCHEME)
    assert 4 * head.symbol_bytes % SMALL.digits == 0
    assert len(data) == header.SIZE + head.sources * head.symbol_bytes
    assert 0 <= head.sources * head.symbol_bytes - head.content_bytes < head.symbol_bytes


def lose(plan, count):
    """A pool without ``count`` of its source strands, none of them of the header, and without a third of the others.

    The last strand stays: it tells how many there are."""
    size = codec.symbol_bytes(SCHEME)
    sources = next(n for n in range(1, 999) if codec._layout(SCHEME, n).packets == len(plan.letters))
    first = -(-(16 + header.SIZE) // size)
    pool = copies_of(plan)
    for i in [*range(first, first + count), *range(sources, len(pool) - 1)]:
        pool[i] = []
    return pool


@pytest.mark.parametrize("count", [1, 4])
def test_loss_past_repair_is_concealed_and_counted(model, clip, plan, expected, count):
    """Tokens of strands that were read are exact, so tiles without a lost one are the tokenizer's own."""
    info, blocks, report, concealed = timed_video.decode(shuffled(lose(plan, count)), model, SCHEME)
    picture = np.concatenate(list(blocks))
    assert info == clip.info
    assert picture.shape == expected.shape
    # one symbol of the last strand comes back by repair at most
    assert report.lost_strands in (count, count - 1) if count > 1 else report.lost_strands <= 1
    assert not report.verified or count == 1
    tokens = int(np.prod(tiles.grid_shape(*SHAPE)))
    per_strand = 4 * codec.symbol_bytes(SCHEME) / SMALL.digits
    assert concealed <= (report.lost_strands + 1) * per_strand / tokens
    if report.lost_strands:
        assert concealed > 0
        assert (picture != expected).any()
    else:
        np.testing.assert_array_equal(picture, expected)


def test_no_strand_of_the_header_may_be_lost(model, plan):
    pool = lose(plan, 3)
    pool[4] = []
    with pytest.raises(DecodeError, match="hold the header are lost"):
        timed_video.decode(shuffled(pool), model, SCHEME)
    pool[0] = []
    with pytest.raises(DecodeError, match="more copies"):
        timed_video.decode(shuffled(pool), model, SCHEME)


def test_another_model_is_refused(model, plan):
    other = dataclasses.replace(model, digest=bytes(32))
    with pytest.raises(DecodeError, match=r"encoded with model 0001020304050607, not 0{16}: give .* --model"):
        timed_video.decode(shuffled(copies_of(plan)), other, SCHEME)


@pytest.mark.parametrize("data", [b"", bytes(300)])
def test_bytes_are_no_video(model, data):
    plan = codec.encode(data, SCHEME)
    with pytest.raises(DecodeError, match="holds no video: use `helix-jax unpack"):
        timed_video.decode(shuffled(copies_of(plan)), model, SCHEME)


def test_video_is_not_bytes(plan):
    data, _ = codec.decode(shuffled(copies_of(plan)), SCHEME)
    with pytest.raises(DecodeError, match="use `helix-jax decode"):
        timed_video.refuse_video(data)
    for other in (b"", data[:-1], data[1:], data[: header.SIZE], bytes(400)):
        timed_video.refuse_video(other)


def test_nothing_to_show(model):
    with pytest.raises(DecodeError):
        timed_video.decode([], model, SCHEME)
