"""Which sets are tried on strands of unknown origin: no tables for those that cannot have a header, no header lost."""

import numpy as np
import pytest

from helix_jax import codec
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.errors import DecodeError
from helix_jax.strands import header as headers
from helix_jax.strands import header_search
from helix_jax.strands.received import read_pool
from helix_jax.strands.written import Written
from helix_jax.tk_scone import tables

LENGTH = 100
LEAST = headers.least_strands(2 * LENGTH)


@pytest.fixture(scope="module")
def pool():
    strands = StrandConfig(length=LENGTH, redundancy=0.3)
    return codec.pack(bytes(range(200)), config=CodecConfig(constraints="goldman", strands=strands))


@pytest.fixture
def loaded(monkeypatch):
    """Names of the sets whose tables are loaded."""
    names, load = [], tables.load
    monkeypatch.setattr(tables, "load", lambda chosen, length: names.append(chosen.name) or load(chosen, length))
    return names


def others(count):
    """Strands with a run of four, which break every set."""
    strands = np.random.default_rng(0).integers(0, 4, (count, LENGTH), np.uint8)
    strands[:, 40:44] = 2
    return strands


@pytest.mark.parametrize("written", [None, Written(("GAATTC",))])
def test_strands_that_obey_no_set_cost_no_tables(loaded, written):
    with pytest.raises(DecodeError, match="no header strand"):
        header_search.find_header({LENGTH: others(300)}, written)
    assert loaded == []


@pytest.mark.parametrize("backwards", [False, True])
def test_a_pool_among_many_other_strands_is_found(pool, loaded, backwards):
    """Of the sample too few strands obey the set, so all are looked at."""
    strands = header_search.turned(pool.strands) if backwards else pool.strands
    assert len(strands) * header_search.SAMPLE // 20000 < LEAST < len(strands)
    mixed = np.random.default_rng(1).permutation(np.concatenate([others(20000), strands]))
    found = header_search.find_header({LENGTH: mixed})
    assert (found.header, found.coder.name) == (pool.header, "goldman")
    assert loaded[-1] == "goldman"
    assert backwards or len(loaded) == 1


def test_as_many_strands_as_a_header_needs_are_tried(pool, loaded):
    """One fewer can have no header."""
    for count in (LEAST, LEAST - 1):
        loaded.clear()
        with pytest.raises(DecodeError, match="no header strand"):
            header_search.find_header({LENGTH: np.concatenate([others(50), pool.strands[:count]])})
        assert ("goldman" in loaded) == (count == LEAST)


class Noted:
    """Strands of several pools with what their comments say, as ``fasta.Strands`` gives them."""

    def __init__(self, *pools):
        self.pools = pools
        self.notes = [(pool.header.key.hex(), written_of(pool)) for pool in pools]

    def portions(self):
        for pool in self.pools:
            yield pool.strands


def written_of(pool):
    return Written(pool.constraints.motifs, pool.constraints.left, pool.constraints.right)


ENDS = [("ACTGACTG", "GTCAGTAC"), ("CATGTCAG", "TGCTAGTC"), ("GATCGTAC", "CAGTGACT")]


def packed(number, motifs=()):
    left, right = ENDS[number]
    strands = StrandConfig(length=LENGTH, redundancy=0.3, left_primer=left, right_primer=right)
    config = CodecConfig(constraints="goldman", strands=strands)
    return codec.pack(bytes([number] * 150), config=config, motifs=motifs)


@pytest.fixture(scope="module")
def primed():
    """Three pools with primers of their own."""
    return [packed(number) for number in range(len(ENDS))]


@pytest.mark.usefixtures("cheap_sets")
def test_stated_primers_pick_a_pool_whatever_the_comments_of_others_say(primed):
    for pool in primed:
        found = header_search.find_header(Noted(*primed), written_of(pool))
        assert found.header == pool.header
        assert header_search.find_header(Noted(*primed), None, pool.header.key).header == pool.header
        assert header_search.find_header(Noted(pool), Written(("GAATTC",))).header == pool.header


@pytest.mark.usefixtures("cheap_sets")
def test_a_mixture_names_every_key(primed):
    with pytest.raises(DecodeError, match="several pools are mixed") as caught:
        header_search.find_header(Noted(*primed))
    assert all(f"--key {pool.header.key.hex()}" in str(caught.value) for pool in primed)
    assert "none is found" not in str(caught.value)
    with pytest.raises(DecodeError, match="mixed, and none is found with the motifs and primers") as caught:
        header_search.find_header(Noted(*primed), Written((), "ACGTACGT", "CATGCATG"))
    assert all(f"--key {pool.header.key.hex()}" in str(caught.value) for pool in primed)


@pytest.mark.usefixtures("cheap_sets")
def test_the_comments_tell_the_motifs_of_the_pool_with_the_stated_primers(primed, loaded):
    """Whoever names a pair need not repeat --forbid, and no tables are loaded that are of no use."""
    pools = [packed(0, ("GAATTC",)), *primed[1:]]
    for motifs in ((), ("GAATTC",), ("gaattc",)):
        loaded.clear()
        found = header_search.find_header(Noted(*pools), Written(motifs, *ENDS[0]))
        assert found.header == pools[0].header
        assert found.written == written_of(pools[0])
        assert loaded == ["strand+", "goldman+"]  # each with one choice of motifs and primers
    found = header_search.find_header(Noted(*pools), Written(("GAATTC",)))  # and the primers of the stated motifs
    assert found.header == pools[0].header


@pytest.mark.usefixtures("cheap_sets")
def test_strands_with_other_primers_are_counted_in_either_direction(primed):
    """And not those that are damaged; the progress reaches the end with all of them."""
    own, other = primed[0].strands, header_search.turned(primed[1].strands)
    damaged = own[-3:].copy()
    damaged[:, [4, 50, 60]] ^= 1  # one base of a primer, and what the check is of
    rows, steps = np.concatenate([own[:-3], other, damaged, primed[2].strands]), []
    short = np.zeros((5, 12), np.uint8)
    received = read_pool(
        {rows.shape[1]: rows, 12: short},
        written=Written((), *ENDS[0]),
        progress=lambda station, done, total: steps.append((station, done, total)),
    )
    foreign = len(other) + len(primed[2].strands)
    assert (received.report.other_primers, received.report.unreadable) == (foreign, foreign + 3 + 5)
    assert sum(done for station, done, _ in steps if station == "strands") == len(rows) + 5
    assert {total for station, _, total in steps if station == "strands"} == {len(rows) + 5}


@pytest.mark.usefixtures("cheap_sets")
@pytest.mark.parametrize(
    ("written", "words"),
    [
        (None, "nothing is said of motifs and primers, so where the pool was written with --forbid or --left-primer"),
        (Written((), *ENDS[0]), "nothing is said of motifs, so where the pool was written with --forbid, give"),
        (Written(("ACGTTT",)), "nothing is said of primers, so where the pool was written with --left-primer"),
        (Written(("ACGTTT",), *ENDS[0]), "give motifs and primers as they were for writing"),
    ],
)
def test_what_may_be_missing_is_said(written, words):
    """An order may have no comments."""
    with pytest.raises(DecodeError, match=words):
        header_search.find_header({LENGTH: packed(0, ("GAATTC",)).strands}, written)
