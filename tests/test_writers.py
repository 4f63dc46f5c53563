"""The seam: both writers run the same encode, decode, pack and unpack, with all that a clip can need."""

import dataclasses
import pathlib
import re
from dataclasses import dataclass
from fractions import Fraction

import jax
import numpy as np
import pytest

from helix_jax import codec, packing, video
from helix_jax.coding import conceal, modes
from helix_jax.config import CodecConfig, StrandConfig, TokenizerConfig
from helix_jax.errors import DecodeError, HelixError
from helix_jax.nets import Nets
from helix_jax.strands.bases import Bases
from helix_jax.stream import auto
from helix_jax.timing import channel, pool
from helix_jax.timing.graph import TALK
from helix_jax.timing.scheme import Scheme
from helix_jax.tk_scone import mixing
from helix_jax.tokenizer import model as tokenizer
from helix_jax.tokenizer import tiles
from helix_jax.tokenizer.weights import Model
from helix_jax.writer import Writer

SMALL = TokenizerConfig(width=16, encoder_blocks=1, decoder_blocks=1, tile=(4, 8, 8))
P = 0.98
SCHEME = Scheme(
    name="test", law=channel.Binomial.uniform(P), table=TALK, copies=2, delta=0.1, duration=72, data=61, spacing=24,
    parity=14, index=5, check=8, group=16, redundancy=0.3, beams=(4, 32),
)  # fmt: skip
TIMING = pool.Timing(SCHEME)
DIGEST = bytes(range(32))
SHAPE = (8, 40, 72)
REDUNDANT = StrandConfig(redundancy=0.3)


@dataclass(frozen=True)
class Medium:
    """A writer, and what its channel does.

    Attributes:
        writer: The writer.
        read: Function (pool, numbers of the strands that are left) -> what came back.
        config: The configuration.
    """

    writer: Writer
    read: object
    config: CodecConfig

    def back(self, made, lost=()):
        """What comes back when packets of these numbers are lost, and no strand of the header."""
        gone = {made.header_strands + number for number in lost}
        return self.read(made, [n for n in range(made.count) if n not in gone])


def fasta(made, left):
    return {made.strands.shape[1]: np.random.default_rng(0).permutation(made.strands[left])}


def synthesised(made, left, copies=4):
    """Noisy copies of strands, without their labels."""
    generator = np.random.default_rng(0)
    reads = [
        np.repeat(made.schedule.letters[n], generator.binomial(made.schedule.durations[n], P))
        for n in left
        for _ in range(copies)
    ]
    return [reads[n] for n in generator.permutation(len(reads))]


MEDIA = {
    "bases": Medium(Bases(), fasta, CodecConfig(codec="tokens", constraints="strand", verify=False, strands=REDUNDANT)),
    "timing": Medium(TIMING, synthesised, CodecConfig(codec="tokens", verify=False, strands=REDUNDANT)),
}


@pytest.fixture(scope="module", params=MEDIA)
def medium(request):
    return MEDIA[request.param]


@pytest.fixture(scope="module")
def nets(prior_of):
    return Nets(Model(tokenizer.init(jax.random.key(0), SMALL), SMALL, DIGEST), prior_of(8, DIGEST))


@pytest.fixture(scope="module")
def clip():
    """A still picture in which a square moves."""
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    still = np.stack([2 * x, 4 * y, 255 - 2 * x], axis=-1).clip(0, 255).astype(np.uint8)
    frames = np.repeat(still[None], SHAPE[0], axis=0)
    for number, frame in enumerate(frames):
        frame[10:26, number : number + 16] = 200
    return video.Clip(frames, Fraction(30000, 1001))


@pytest.fixture(scope="module")
def expected(nets, clip):
    """The tokens, and the tokenizer's own picture of them."""
    model = nets.tokenizer
    tokens = tiles.encode(model.params, SMALL, clip.blocks(), *SHAPE[1:])
    return tokens, np.concatenate(list(tiles.decode(model.params, SMALL, tokens, *SHAPE)))


def pictures(blocks):
    return np.concatenate(list(blocks))


def test_both_are_writers():
    for writer in (Bases(), TIMING):
        assert isinstance(writer, Writer)


# ---- video -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["raw", "context", "prior"])
def test_every_mode_through_every_writer(medium, nets, clip, expected, mode):
    """The same tokens, with strands that the outer code repairs; the header is the same but for the writer's fields."""
    config = dataclasses.replace(medium.config, mode=mode)
    made = codec.encode(clip, nets, config=config, writer=medium.writer)
    info, blocks, report = codec.decode(medium.back(made, lost=(0, 3)), nets, writer=medium.writer)
    assert info == clip.info
    assert report.verified
    assert (report.lost_packets, report.lost_tokens, report.lost_update) == (0, 0.0, 0.0)
    assert report.packets - report.packets_received == 2
    np.testing.assert_array_equal(pictures(blocks), expected[1])
    head = made.header
    assert head.mode == mode
    assert (head.frames, head.height, head.width, head.fps) == (*SHAPE, Fraction(30000, 1001))
    assert (head.constraints == "timing") == (medium.writer is TIMING)


def test_raw_tokens_past_repair_are_concealed_by_the_prior(medium, nets, clip, expected):
    """Tokens of packets that came back are exact; the others are what the prior says, not copies of neighbours."""
    config = dataclasses.replace(medium.config, mode="raw")
    made = codec.encode(clip, nets, config=config, writer=medium.writer)
    order = np.random.default_rng(1).permutation(made.layout.packets)
    lost = order[: made.layout.repairs + made.layout.sources // 3]  # so many packets cannot be repaired
    _, blocks, report = codec.decode(medium.back(made, lost), nets, writer=medium.writer)
    assert report.lost_packets == (lost < made.layout.sources).sum()
    assert 0.2 < report.lost_tokens < 0.9
    received = medium.writer.read(medium.back(made, lost))
    symbols = mixing.unmix(mixing.from_bytes(received.recovered.symbols), made.header.key, config.mixing)
    tokens, missing = modes.decode(
        "raw", expected[0].shape[:3], 8, symbols, received.recovered.lost, config.mixing, nets.prior
    )
    np.testing.assert_array_equal(tokens[~missing], expected[0][~missing])
    filled = conceal.fill_lost(tokens, missing, nets.prior)
    shown = tiles.decode(nets.tokenizer.params, SMALL, filled, *SHAPE)
    np.testing.assert_array_equal(pictures(blocks), pictures(shown))
    assert (filled != conceal.fill_lost(tokens, missing)).any()


class Loud(video.Clip):
    """A clip with sound."""

    def sound(self, kbit):
        return video.Sound(1, 0, 2880, 960, (b"\x78abc", b"\x78de", b"\x78"))


@pytest.mark.parametrize("kind", ["av1", "tokens"])
def test_sections_through_every_writer(medium, nets, clip, expected, kind):
    """Picture, preview and sound; the sound and the preview come back where the groups of pictures do not."""
    loud = Loud(clip.frames, clip.info.fps)
    config = dataclasses.replace(medium.config, codec=kind, mode="raw", preview=0.4)
    made = codec.encode(loud, nets, config=config, writer=medium.writer)
    kinds = [section.kind for section in made.header.sections]
    assert kinds == (["preview", "sound", "av1"] if kind == "av1" else ["tokens", "sound"])
    film = codec.film(medium.back(made, lost=(0, made.layout.sources - 1)), nets, writer=medium.writer)
    assert film.report.verified
    assert film.sound == loud.sound(24)
    assert film.info == clip.info
    shown = pictures(film.blocks)
    if kind == "tokens":
        np.testing.assert_array_equal(shown, expected[1])
        return
    block, _ = made.layout.locate(np.arange(made.layout.packets))
    of_picture = np.flatnonzero(np.array(made.layout.block_parts)[block] == 2)
    lost = of_picture[: made.layout.sections[2].repairs + 1]
    film = codec.film(medium.back(made, lost), nets, writer=medium.writer)
    assert film.sound == loud.sound(24)
    assert film.report.preview_seconds == ((0.0, float(8 / clip.info.fps)),)
    assert len(pictures(film.blocks)) == 8


def test_a_budget_is_kept_in_the_unit_of_the_writer(medium, nets, clip):
    """Less than what the best quality takes: less is written, within the budget, and it still decodes."""
    config = dataclasses.replace(medium.config, mode="raw")
    whole = codec.encode(clip, nets, config=config, writer=medium.writer)
    cost = medium.writer.open(config).cost(whole.layout)
    spent = {True: "time", False: "nucleotides"}[medium.writer is TIMING]
    assert getattr(whole, spent) <= cost
    budget = int(0.9 * cost)
    made = codec.encode(clip, nets, config=dataclasses.replace(config, budget=budget), writer=medium.writer)
    assert 0.7 * budget < getattr(made, spent) <= budget
    info, blocks, _ = codec.decode(medium.back(made), nets, writer=medium.writer)
    assert info == clip.info
    assert pictures(blocks).shape == (*SHAPE, 3)
    with pytest.raises(HelixError, match=rf"1 {medium.writer.open(medium.config).unit} are too few"):
        codec.encode(clip, nets, config=dataclasses.replace(medium.config, budget=1), writer=medium.writer)


def test_quality_and_effort_work(medium, nets, clip):
    """A lower quality takes less, and effort changes tokens through any writer."""
    sizes, tokens = {}, {}
    for quality, effort in ((10, 0), (0, 0), (10, 1)):
        config = dataclasses.replace(medium.config, mode="raw", quality=quality, effort=effort)
        made = codec.encode(clip, nets, config=config, writer=medium.writer)
        sizes[quality, effort], tokens[quality, effort] = made.header.content_bytes, made.header.digest
    assert sizes[0, 0] < sizes[10, 0] == sizes[10, 1]
    assert tokens[10, 0] != tokens[10, 1]


def test_the_same_clip_gives_the_same_pool(nets, clip):
    one, two = (codec.encode(clip, nets, writer=TIMING) for _ in range(2))
    np.testing.assert_array_equal(one.schedule.letters, two.schedule.letters)
    np.testing.assert_array_equal(one.schedule.durations, two.schedule.durations)


# ---- refused ---------------------------------------------------------------------------------------------------


def test_other_nets_are_refused(medium, nets, clip):
    made = codec.encode(clip, nets, config=dataclasses.replace(medium.config, mode="context"), writer=medium.writer)
    other = Nets(dataclasses.replace(nets.tokenizer, digest=bytes(32)))
    with pytest.raises(DecodeError, match=r"encoded with model 0001020304050607, not 0{16}: give .* --model"):
        codec.decode(medium.back(made), other, writer=medium.writer)
    with pytest.raises(DecodeError, match="none was given"):
        codec.decode(medium.back(made), Nets(nets.tokenizer), writer=medium.writer)


def test_bytes_and_video_are_told_apart(medium, nets, clip):
    data = np.random.default_rng(1).bytes(300)
    packed = packing.pack(data, config=medium.config, writer=medium.writer)
    assert packing.unpack(medium.back(packed, lost=(1,)), writer=medium.writer)[0] == data
    with pytest.raises(DecodeError, match="holds bytes, not video: use `helix-jax unpack"):
        codec.decode(medium.back(packed), nets, writer=medium.writer)
    made = codec.encode(clip, nets, config=medium.config, writer=medium.writer)
    with pytest.raises(DecodeError, match="holds video, not bytes: use `helix-jax decode"):
        packing.unpack(medium.back(made), writer=medium.writer)


def test_a_note_and_zstd_through_every_writer(medium):
    text = b"the same words again and again, " * 12
    config = dataclasses.replace(medium.config, note=True)
    packed = packing.pack(text, config=config, writer=medium.writer, name="words.txt")
    assert [section.kind for section in packed.header.sections] == ["note", "file"]
    assert packed.header.sections[1].size < len(text) / 2
    unpacked = packing.unpack_parts(medium.back(packed, lost=(1,)), writer=medium.writer)
    assert b"".join(unpacked.parts) == text
    assert (unpacked.note.name, unpacked.note.size) == ("words.txt", len(text))


def test_nothing_comes_back(medium, nets):
    with pytest.raises(DecodeError):
        codec.decode(medium.read(packing.pack(b"", config=medium.config, writer=medium.writer), [])
                     if medium.writer is TIMING else {}, nets, writer=medium.writer)  # fmt: skip


def test_too_few_packets_and_no_bytes(medium):
    packed = packing.pack(bytes(300), config=medium.config, writer=medium.writer, compress=False)
    lost = range(packed.layout.repairs + 1)
    remedy = {True: "more copies of each strand are needed", False: "more strands are needed"}[medium.writer is TIMING]
    with pytest.raises(DecodeError, match=f"source packets are lost or doubtful, past the repair packets: {remedy}"):
        packing.unpack(medium.back(packed, lost), writer=medium.writer)


# ---- a third one -----------------------------------------------------------------------------------------------


def test_the_writer_of_the_page(nets, clip, expected):
    """docs/forking.md: it works with modes that it has never heard of, and loss is concealed."""
    page = (pathlib.Path(__file__).parents[1] / "docs" / "forking.md").read_text()
    _, code = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    scope = {"__name__": "mine"}
    exec(code, scope)
    plasmid = scope["Plasmid"]()
    assert isinstance(plasmid, Writer)
    info, blocks, report = scope["there_and_back"](clip, nets)  # which shows AV1, as tokens of this net cannot do more
    assert info == clip.info
    assert report.verified
    assert auto.psnr(clip.blocks(), blocks) > 30
    raw = CodecConfig(codec="tokens", mode="raw")
    molecule = codec.encode(clip, nets, config=raw, writer=plasmid)
    np.testing.assert_array_equal(pictures(codec.decode(molecule.bases, nets, writer=plasmid)[1]), expected[1])
    assert len(molecule.bases) == plasmid.cost(plasmid.plan(molecule.header.content_bytes, "raw", 2))
    bases = molecule.bases.copy()
    bases[4 * 200] = 4
    _, blocks, report = codec.decode(bases, nets, writer=plasmid)
    assert (report.lost_packets, report.verified) == (1, False)
    assert 0 < report.lost_tokens < 0.5
    assert pictures(blocks).shape == expected[1].shape
    data = np.random.default_rng(0).bytes(1000)
    packed = packing.pack(data, writer=plasmid)
    assert packing.unpack(packed.bases, writer=plasmid)[0] == data
    broken = packed.bases.copy()
    broken[-1] = 4
    with pytest.raises(DecodeError, match="read the molecule again"):
        packing.unpack(broken, writer=plasmid)
    with pytest.raises(HelixError, match="leave these options out"):
        packing.pack(data, motifs=("ACGT",), writer=plasmid)
    wrong = molecule.bases.copy()
    wrong[-1] ^= 1
    with pytest.raises(DecodeError, match="does not match its hash"):
        codec.decode(wrong, nets, writer=plasmid)
    with pytest.raises(DecodeError, match="CRC"):
        codec.decode(wrong[4:], nets, writer=plasmid)


def test_a_budget_finds_the_rung_that_the_index_can_number(nets, clip, expected):
    """Higher rungs need more strands than there are numbers: they are left out, and refused only where one is asked."""
    scheme = dataclasses.replace(SCHEME, index=3, name="short index")
    writer, config = pool.Timing(scheme), dataclasses.replace(MEDIA["timing"].config, mode="raw")
    with pytest.raises(HelixError, match="longer index"):
        codec.encode(clip, nets, config=config, writer=writer)
    made = codec.encode(clip, nets, config=dataclasses.replace(config, budget=10**6), writer=writer)
    assert made.count <= 27
    assert 1 <= made.header.digits < 8
