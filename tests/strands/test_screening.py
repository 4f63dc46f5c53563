"""Screened pools: no stem is too long, as many strands, the promised losses, and nothing new for the reader."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from helix_jax import packing
from helix_jax.config import CodecConfig, StrandConfig, Survival
from helix_jax.strands import fasta, layouts, screening, stems
from helix_jax.strands.bases import Bases

LENGTH = 100
LEFT, RIGHT = "ACACGACGCTCTTCCGATCT", "CTGTCTCTTATACACATCTC"
DATA = np.random.default_rng(3).bytes(6000)

pytestmark = pytest.mark.usefixtures("one_shape", "cheap_sets")


def config(stem, **strands):
    return CodecConfig(constraints="strand", strands=StrandConfig(length=LENGTH, stem=stem, **strands))


@pytest.fixture(scope="module")
def screened():
    """A pool whose strands have stems of 6 bases at most, and the one without a screen."""
    return packing.pack(DATA, config=config(6, redundancy=0.3)), packing.pack(DATA, config=config(None, redundancy=0.3))


def survivors(made, lost):
    """The strands of a pool after the loss of random packets, so many of each block."""
    generator, kept = np.random.default_rng(1), made.numbers < 0
    packets = np.flatnonzero(~kept)
    block = made.layout.locate(made.numbers[packets])[0]
    for one in range(made.layout.blocks):
        kept[generator.permutation(packets[block == one])[lost:]] = True
    return {made.strands.shape[1]: made.strands[kept]}


def test_no_strand_exceeds_and_as_many_are_written(screened):
    made, plain = screened
    assert (stems.longest_hairpins(plain.strands) > 6).sum() > 5
    assert stems.longest_hairpins(made.strands).max() <= 6
    heads = made.header_strands
    assert made.count - heads == made.layout.written == plain.count - plain.header_strands
    assert made.layout.written < made.layout.packets == made.header.layout(made.layout.bits).packets
    assert plain.header_strands // 2 <= heads <= plain.header_strands
    assert len(np.unique(made.numbers[heads:])) == made.layout.written
    missing = np.setdiff1d(np.arange(made.layout.sources), made.numbers)
    assert len(missing) > 3  # which repair packets stand in for


def test_the_planned_loss_is_outlived_and_one_more_packet_is_not(screened):
    made, plain = screened
    planned = plain.layout.repairs
    assert made.layout.repairs - made.layout.unwritten == planned
    assert packing.unpack(survivors(made, planned - layouts.SPARE))[0] == DATA
    with pytest.raises(packing.DecodeError, match="past the repair packets"):
        packing.unpack(survivors(made, planned + 1))


def test_every_block_and_section_has_its_own(monkeypatch):
    """Many small blocks, each with the strands that it needs."""
    monkeypatch.setattr(layouts, "BLOCK_SYMBOLS", 40)
    made = packing.pack(DATA, config=config(6, redundancy=0.3))
    assert made.layout.blocks > 5
    block = made.layout.locate(made.numbers[made.numbers >= 0])[0]
    np.testing.assert_array_equal(np.bincount(block), made.layout.block_written)
    assert packing.unpack(survivors(made, 10))[0] == DATA


@pytest.mark.parametrize("redundancy", [0.0, Survival(loss=0.1, coverage=20, errors=0.001)])
def test_other_redundancies(redundancy):
    """Without any, a block still gets the packets that RaptorQ needs where a source packet is left out."""
    made = packing.pack(DATA[:1500], config=config(7, redundancy=redundancy))
    assert packing.unpack(survivors(made, 0))[0] == DATA[:1500]
    plain = packing.pack(DATA[:1500], config=config(None, redundancy=redundancy))
    assert made.layout.written - plain.layout.written == (layouts.SPARE if redundancy == 0.0 else 0)


def test_primers_count(tmp_path):
    """A stem may lie between a primer and the strand; what is written in portions is the same."""
    strands = config(7, redundancy=0.3, left_primer=LEFT, right_primer=RIGHT)
    made = packing.pack(DATA[:3000], config=strands)
    assert made.strands.shape[1] == LENGTH + 40
    assert stems.longest_hairpins(made.strands).max() <= 7
    fasta.write_pool(tmp_path / "p.fasta", made)
    lines = (tmp_path / "p.fasta").read_text().splitlines()[::2]
    sources = made.layout.sources
    kinds = [f"source {n}" if n < sources else f"repair {n - sources}" for n in made.numbers[made.header_strands :]]
    assert [line.split(" ", 1)[1] for line in lines[made.header_strands :]] == kinds
    with fasta.opened(tmp_path / "p.fasta") as back:
        assert packing.unpack(back)[0] == DATA[:3000]


def test_the_cost_is_that_of_what_is_written():
    for stem in (None, 6):
        station = Bases().open(config(stem, redundancy=0.2))
        made = packing.pack(DATA, config=config(stem, redundancy=0.2))
        assert made.nucleotides <= station.cost(made.layout) <= made.nucleotides + 8 * LENGTH


def test_an_impossible_limit_is_refused_with_one_that_works():
    with pytest.raises(
        screening.ScreenError, match=r"hairpin=3: (9\d|100)\.\d% of the strands have a longer stem"
    ) as caught:
        packing.pack(DATA, config=config(3))
    works = int(str(caught.value).partition("; hairpin=")[2].split()[0])
    assert 3 < works <= 6
    packing.pack(DATA, config=config(works))
    with pytest.raises(screening.ScreenError):
        packing.pack(DATA, config=config(works - 1))


def test_primers_that_pair_with_each_other_are_refused_at_once():
    """As those of TruSeq do, which are to form a fork."""
    with pytest.raises(screening.ScreenError, match=r"primers alone have a stem of 13 bases .* hairpin=13$"):
        packing.pack(DATA, config=config(12, left_primer=LEFT, right_primer="AGATCGGAAGAGCACACGTC"))


def test_too_few_header_strands_are_refused():
    rows = np.random.default_rng(0).integers(0, 4, (16, LENGTH), dtype=np.uint8)
    longest = np.sort(stems.longest_hairpins(rows))
    assert screening.headers_that_pass(rows, int(longest[7]), 4).sum() >= 8
    with pytest.raises(screening.ScreenError, match=f"--key, which writes others, or hairpin={longest[7]}"):
        screening.headers_that_pass(rows, int(longest[0]) - 1, 4)


@pytest.mark.parametrize("share", [0.003, 0.05, 0.25])
@pytest.mark.parametrize("needed", [3, 100, 8000])
def test_enough_packets_are_numbered(share, needed):
    """By the exact distribution: one block in 10^8 at most lacks strands, and not many are numbered in vain."""
    more = screening.spare(share, needed)
    assert stats.binom.sf(more, needed + more, share) < 1e-8
    assert more < 40 + 2 * share * needed + 10 * (share * needed) ** 0.5


def test_too_few_strands_of_a_block_are_an_error():
    made = packing.pack(DATA, config=config(6, redundancy=0.3))
    sieve = screening.Sieve(dataclasses.replace(made.layout, unwritten=0), 6)
    sieve.keep(made.strands, made.numbers)
    with pytest.raises(screening.ScreenError, match=r"hairpin=6: \d+ more strands of a block .* hairpin=7$"):
        sieve.check()
