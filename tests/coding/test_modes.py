"""Tokens in packets, raw and coded: exact, in the mode that was asked for or the smallest, and what loss costs."""

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helix_jax import video
from helix_jax.coding import choice, modes, payload, segments
from helix_jax.coding.modes import Coding, CodingError
from helix_jax.config import MODES, CodecConfig, MixingConfig, TokenizerConfig
from helix_jax.nets import Nets
from helix_jax.prior import tables
from helix_jax.strands import layouts
from helix_jax.strands.bases import Bases
from helix_jax.timing import scheme
from helix_jax.timing.pool import Timing
from helix_jax.tokenizer.weights import Model

GRID, DIGITS, BITS = (9, 3, 31), 8, 200  # two by two segments
MIXING = MixingConfig()


@pytest.fixture(scope="module")
def prior(prior_of):
    return prior_of(DIGITS)


@pytest.fixture(scope="module")
def tokens(walk):
    return walk(GRID, DIGITS)


@pytest.fixture(scope="module")
def coded(prior, tokens):
    return modes.encode(tokens, "context", prior)


@pytest.fixture(scope="module")
def guessed(prior, tokens):
    """In mode `prior`."""
    return modes.encode(tokens, "prior", prior)


def even(grid=GRID):
    return np.random.default_rng(0).integers(0, 4, (*grid, DIGITS), dtype=np.uint8)


def decoded(mode, symbols, lost, prior):
    return modes.decode(mode, GRID, DIGITS, symbols, lost, MIXING, prior)


# ---- which mode ----------------------------------------------------------------------------------------------


def test_smallest_is_the_smaller(prior, tokens, coded, guessed):
    chosen = modes.encode(tokens, "smallest", prior)
    assert (chosen.mode, chosen.pieces) == ("context", coded.pieces)
    raw = modes.encode(tokens, "raw", prior)
    assert (raw.mode, raw.pieces, raw.content_bytes) == ("raw", (), tokens.size // 4)
    assert chosen.content_bytes < 0.7 * raw.content_bytes
    for one in (modes.encode(even(), "smallest", prior), modes.encode(tokens, "smallest", None)):
        assert (one.mode, one.pieces) == ("raw", ())
    # counts that are sure of other digits and do not let go: mode prior starts from its own
    sure = tables.fresh("context", DIGITS)
    sure.cells[:] = 65535 << 8 | tables.LIMIT
    found = modes.encode(tokens, "smallest", dataclasses.replace(prior, context=sure))
    assert (found.mode, found.pieces) == ("prior", guessed.pieces)


def test_smallest_takes_the_fewest_strands_of_its_writer(prior, tokens, coded):
    """In the wide strands of scheme poisson the copies of the directory take more than the coding saves."""
    nets = Nets(Model({}, TokenizerConfig(), prior.tokenizer), prior)
    positions, clip = (
        tokens.astype(np.float32),
        video.Clip(np.zeros((1, 8, 8, 3), np.uint8)),
    )  # nobody looks at the clip
    config = CodecConfig(constraints="strand")
    for station, wanted in (
        (Timing(scheme.POISSON_SCHEME).open(CodecConfig()), "raw"),
        (Bases().open(config), "context"),
    ):
        found = {
            mode: choice.choose(positions, clip, dataclasses.replace(config, mode=mode), nets, station)
            for mode in ("smallest", *MODES)
        }
        chosen, layout = found.pop("smallest")
        assert chosen.mode == wanted
        assert layout.packets == min(other.packets for _, other in found.values())
        assert coded.content_bytes < 0.7 * found["raw"][0].content_bytes


def test_a_mode_that_was_asked_for_is_taken(prior):
    """Though it takes more: a batch has settings for all of its clips, the smallest too."""
    for clip in (even(), even((1, 1, 1))):
        found = modes.encode(clip, "context", prior)
        assert found.mode == "context"
        assert found.content_bytes > modes.encode(clip, "raw", prior).content_bytes


def test_modes_that_are_not_possible(tokens, prior):
    for mode in ("context", "prior"):
        with pytest.raises(CodingError, match=f"mode {mode} needs a prior.*--prior"):
            modes.encode(tokens, mode, None)
    with pytest.raises(CodingError, match="mode 'best': use raw, context, prior or smallest"):
        modes.encode(tokens, "best", prior)


def test_what_does_not_come_back_is_told(tokens, prior, coded):
    """Bytes of other tokens, and a byte that is wrong; mode raw has none."""
    for one in (coded, modes.encode(even((1, 1, 1)), "context", prior), modes.encode(tokens, "raw", prior)):
        modes.verify(one, prior)
    moved = tokens.copy()
    moved[1, 2, 3, 4] ^= 1
    piece = coded.pieces[2]
    wrong = payload.seal(bytes([piece[0] ^ 1]) + payload.opened(piece)[1:])
    for one in (
        dataclasses.replace(coded, tokens=moved),
        dataclasses.replace(coded, pieces=(*coded.pieces[:2], wrong, coded.pieces[3])),
    ):
        with pytest.raises(CodingError, match=r"mode context: the reference .* reads other tokens; please report"):
            modes.verify(one, prior)


def test_segments_too_large_to_be_written(tokens, prior, monkeypatch):
    monkeypatch.setattr(payload, "MOST", 100)
    with pytest.raises(CodingError, match="more than 100 bytes: use mode raw"):
        modes.encode(tokens, "context", prior)
    monkeypatch.setattr(modes.coder, "compress", lambda *_, **options: [b"", None, b"", b""])
    with pytest.raises(CodingError, match="an eighth more than its raw digits: use mode raw"):
        modes.encode(tokens, "context", prior)
    assert modes.encode(tokens, "smallest", prior).mode == "raw"


def test_progress(tokens, prior, coded):
    steps = []
    modes.encode(tokens, "context", prior, progress=lambda *step: steps.append(step))
    modes.verify(coded, prior, progress=lambda *step: steps.append(step))
    layout = coded.layout(layouts.planner(BITS, 0))
    symbols = coded.symbols(layout, MIXING)
    lost = np.zeros(len(symbols), bool)
    modes.decode(
        "context", GRID, DIGITS, symbols, lost, MIXING, prior, progress=lambda *step: steps.append(step)
    )  # fmt: skip
    for station in ("coding", "verifying", "decoding"):
        assert sum(done for name, done, total in steps if (name, total) == (station, 4)) == 4


# ---- layout ----------------------------------------------------------------------------------------------------


def some_pieces(seed, number, mean):
    sizes = np.random.default_rng(seed).integers(4, 2 * mean, number)
    return tuple(bytes(int(size)) for size in sizes)


@given(
    st.sampled_from([64, 71, 100, 150, 287, 2000]),
    st.sampled_from([0, 0.1, 0.3, 2]),
    st.integers(0, 2**32),
    st.integers(1, 40),
    st.integers(5, 400),
)
@settings(max_examples=150)
@example(64, 0, 0, 6, 200)
@example(64, 0.3, 1, 38, 22)
def test_layout_holds_what_is_written(bits, redundancy, seed, number, mean):
    """Segments and the directory, which is longer where packets are narrow; whatever the width of the index."""
    check_layout(Coding("context", np.zeros((1, 1, 1, 8), np.uint8), some_pieces(seed, number, mean)), bits, redundancy)


def check_layout(coded, bits, redundancy):
    layout = coded.layout(layouts.planner(bits, redundancy))
    symbols = coded.symbols(layout, MIXING)
    assert symbols.shape == (layout.sources, 4 * layout.symbol_bytes)
    assert layout.packets <= 1 << layout.index_bits
    assert layout.repairs >= layouts.repairs_of(redundancy, layout.block_sources[0])
    # planned for packets a byte wider, of which each copy of the directory and the segments leave a part of one empty
    assert layout.repairs <= layouts.repairs_of(redundancy, layout.block_sources[0] + modes.payload.COPIES + 2)
    assert layout.unused_bits >= 0
    alone = layouts.plan(bits, coded.content_bytes, redundancy)  # without the directory
    assert alone.symbol_bytes - 1 <= layout.symbol_bytes <= alone.symbol_bytes


def test_layout_where_one_byte_tips_the_index():
    """Packets of w bytes would need an index that leaves w - 1, and packets of w - 1 bytes one that leaves w."""
    for bits, redundancy, number, total in (
        (64, 0, 6, 1212), (64, 0, 8, 1196), (64, 0, 22, 1056), (64, 0, 32, 960), (64, 0, 38, 893), (64, 0.1, 6, 1086),
    ):  # fmt: skip
        each = total // number
        pieces = (*(bytes(each),) * (number - 1), bytes(total - each * (number - 1)))
        check_layout(Coding("context", np.zeros((1, 1, 1, 8), np.uint8), pieces), bits, redundancy)


# ---- there and back, and loss --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixing", [MIXING, MixingConfig(False, True, False)])
def test_all_modes_give_the_tokens_back(tokens, prior, coded, guessed, mixing):
    for one in (modes.encode(tokens, "raw", None), coded, guessed):
        symbols = one.symbols(one.layout(layouts.planner(BITS, 0.1)), mixing)
        nothing = np.zeros(len(symbols), bool)
        back, missing = modes.decode(one.mode, GRID, DIGITS, symbols, nothing, mixing, prior)
        np.testing.assert_array_equal(back, tokens)
        assert missing.shape == GRID
        assert not missing.any()


@pytest.mark.parametrize("digits", range(1, DIGITS))
def test_tokens_without_their_last_digits_come_back_raw(tokens, digits):
    """A packet holds whole tokens, however many digits these have."""
    one = modes.encode(tokens[..., :digits], "raw", None)
    layout = one.layout(layouts.planner(BITS, 0.1))
    assert 4 * layout.symbol_bytes % digits == 0
    symbols = one.symbols(layout, MIXING)
    back, missing = modes.decode("raw", GRID, digits, symbols, np.zeros(len(symbols), bool), MIXING, None)
    np.testing.assert_array_equal(back, tokens[..., :digits])
    assert not missing.any()


def test_tokens_without_their_last_digits_come_back_coded(tokens, prior):
    one = modes.encode(tokens[..., :5], "context", prior)
    assert one.mode == "context"
    modes.verify(one, prior)
    symbols = one.symbols(one.layout(layouts.planner(BITS, 0.1)), MIXING)
    back, missing = modes.decode("context", GRID, 5, symbols, np.zeros(len(symbols), bool), MIXING, prior)
    np.testing.assert_array_equal(back, tokens[..., :5])
    assert not missing.any()


def packets_of(coded, layout):
    """The packets of the directory, and of each segment: a set for each segment."""
    width = layout.symbol_bytes
    first = payload.COPIES * -(-2 * len(coded.pieces) // width)
    ends = first * width + np.cumsum([len(piece) for piece in coded.pieces])
    begins = ends - [len(piece) for piece in coded.pieces]
    return first, [set(range(b // width, -(-e // width))) for b, e in zip(begins, ends, strict=True)]


def test_a_lost_packet_costs_its_segments_and_no_others(tokens, prior, coded):
    layout, plan = coded.layout(layouts.planner(BITS, 0)), segments.plan(GRID)
    symbols = coded.symbols(layout, MIXING)
    first, places = packets_of(coded, layout)
    shared = max(places[0] & places[1], default=max(places[0]))
    for at in (first, shared, len(symbols) - 1):
        lost = np.arange(len(symbols)) == at
        broken = np.where(lost[:, None], 0, symbols)
        back, missing = decoded("context", broken, lost, prior)
        hurt = [n for n in range(plan.number) if at in places[n]]
        assert hurt
        expected = np.zeros((plan.number, *plan.shape), bool)
        expected[hurt] = True
        np.testing.assert_array_equal(missing, segments.join(plan, expected))
        np.testing.assert_array_equal(back[~missing], tokens[~missing])
        assert not back[missing].any()


def test_a_lost_directory(prior, coded):
    """Four of its five copies may go, and their packets cost nothing; the fifth may not."""
    layout = coded.layout(layouts.planner(BITS, 0))
    symbols = coded.symbols(layout, MIXING)
    lost = np.arange(len(symbols)) < payload.COPIES - 1
    assert packets_of(coded, layout)[0] == payload.COPIES  # one packet each
    assert not decoded("context", np.where(lost[:, None], 3, symbols), lost, prior)[1].any()
    lost[payload.COPIES - 1] = True
    with pytest.raises(CodingError, match="directory of segments are lost"):
        decoded("context", symbols, lost, prior)


def test_a_changed_digit_is_loss(tokens, prior, coded):
    """Its segment's CRC tells: never other tokens without a word."""
    symbols = coded.symbols(coded.layout(layouts.planner(BITS, 0)), MIXING)
    symbols[-1, 3] ^= 1
    back, missing = decoded("context", symbols, np.zeros(len(symbols), bool), prior)
    assert missing.any()
    np.testing.assert_array_equal(back[~missing], tokens[~missing])


def test_a_payload_that_is_too_short(prior, coded):
    symbols = coded.symbols(coded.layout(layouts.planner(BITS, 0)), MIXING)[:3]
    with pytest.raises(CodingError, match="does not fit the payload"):
        decoded("context", symbols, np.zeros(3, bool), prior)
