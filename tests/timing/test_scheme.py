"""Schemes: the file holds all of it, bad fields are refused by name, and a design keeps what it promises."""

import dataclasses
import json
import math

import numpy as np
import pytest

from helix_jax import packing
from helix_jax.timing import arrangement, block_coder, capacity, channel, quantizer, scheme
from helix_jax.timing.frame import trits
from helix_jax.timing.graph import TALK, GraphError, TimeTable
from helix_jax.timing.pool import Timing
from helix_jax.timing.scheme import TALK_SCHEME, SchemeError
from helix_jax.timing.state_splitting import SplittingError
from helix_jax.timing.tags import Tagging

GOOD, POOR = channel.Binomial.uniform(0.9), channel.Poisson.uniform(0.1)

EVEN = channel.Tabulated.uniform(((), (0.0, 1.0), (), (0.0, 0.0, 1.0)))


def edited(**changes):
    """JSON text of the talk's scheme with other fields; None takes one out."""
    fields = json.loads(scheme.to_json(TALK_SCHEME)) | changes
    return json.dumps({name: value for name, value in fields.items() if value is not None or name == "splitting"})


# ---- the talk's ------------------------------------------------------------------------------------


def test_the_talks_scheme_is_the_slides():
    assert str(TALK_SCHEME.table) == (
        "A->C{1,2} A->G{1,3} A->T{1,3} C->A{1,2} C->G{1,2} C->T{1,3} "
        "G->A{1,2} G->C{1,3} G->T{1,2} T->A{1,4} T->C{1,2} T->G{1,4}"
    )
    assert (TALK_SCHEME.copies, TALK_SCHEME.delta, TALK_SCHEME.levels, TALK_SCHEME.level_bits) == (5, 0.02, 2, 1)
    for b, a in np.ndindex(4, 4):
        if a != b:
            assert TALK_SCHEME.law.p[b][a] == {2: 0.85, 3: 0.70, 4: 0.58}[TALK.times[b][a][1]]
    assert quantizer.quantizer(TALK_SCHEME.law, TALK, 5).error <= 0.02
    assert scheme.named("talk") is TALK_SCHEME


@pytest.mark.parametrize(
    ("name", "made", "digest"),
    [
        ("talk-fast", scheme.TALK_FAST_SCHEME, "c2608030c2ae4df6"),
        ("poisson-fast", scheme.POISSON_FAST_SCHEME, "c824a2ddfd67a385"),
    ],
)
def test_fast_schemes(name, made, digest):
    """They are named, of version 2, and stay as they are: pools state their digests."""
    assert scheme.named(name) is made
    assert (made.name, made.version) == (name, 2)
    assert scheme.from_json(scheme.to_json(made)) == made
    assert arrangement.digest(made).hex()[:16] == digest


# ---- version 2 -------------------------------------------------------------------------------------


def test_the_layout_of_version_2():
    """The index first; the share of a strand in base 3; four tags are a byte of them."""
    plain = dataclasses.replace(TALK_SCHEME, version=2)
    tagged = dataclasses.replace(plain, tags=5, shared=2)
    assert (TALK_SCHEME.frame.index_first, plain.frame.index_first, tagged.frame.index_first) == (False, True, True)
    assert (plain.frame.shared, plain.frame.tags) == (0, 0)
    assert (tagged.frame.shared, tagged.frame.tags) == (trits(16), 20)
    assert tagged.tagging == Tagging(5, 2, TALK_SCHEME.group)
    assert dataclasses.replace(tagged, group=163).tagging.fits  # and 92 repair symbols
    with pytest.raises(SchemeError, match="the tags of 164 strands and 92 repair symbols are more than 255"):
        dataclasses.replace(tagged, group=164)


def test_the_coder_counts_the_costs():
    costs = TimeTable.parse(str(TALK).replace("{1,", "{2,").replace("{2,2}", "{2,3}"))
    cheap = dataclasses.replace(TALK_SCHEME, version=2, costs=costs, duration=300)
    assert (TALK_SCHEME.counted, cheap.counted) == (TALK, costs)
    assert cheap.table == TALK


# ---- the file --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("law", "fields"),
    [
        (channel.Binomial.uniform(0.9), {"overhead": 1.5, "beams": (5,)}),
        (channel.Poisson.uniform(2.5), {"splitting": (3, 2), "tags": 7, "shared": 2, "overhead": 1.5}),
        (
            channel.Tabulated.uniform(((0.1, 0.9), (0.01, 0.09, 0.9), (), (0.0, 0.0, 0.5, 0.5))),
            {"costs": TimeTable.uniform((2, 3, 4)), "tags": 1, "shared": 1},
        ),
    ],
)
def test_file_there_and_back(tmp_path, law, fields):
    table = TimeTable.uniform((1, 2, 4))
    wanted = dataclasses.replace(
        TALK_SCHEME,
        name="mine \u00b5",
        law=law,
        table=table,
        version=2,
        **fields,
    )
    scheme.write(tmp_path / "a.json", wanted)
    found = scheme.named(str(tmp_path / "a.json"))
    assert found == wanted
    assert hash(found) == hash(wanted)
    assert json.loads((tmp_path / "a.json").read_text())["law"]["kind"] in ("binomial", "poisson", "tabulated")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a timing scheme"),
        ("no JSON", "not a timing scheme"),
        (scheme.to_json(TALK_SCHEME)[:-20], "not a timing scheme"),
        ("[1, 2]", "not a timing scheme"),
        ("7", "not a timing scheme"),
        ("{}", "not a timing scheme of format 1"),
        (edited(format="helix_jax timing scheme 2"), "not a timing scheme of format 1"),
        (edited(copies=None), "missing.*copies"),
        (edited(law=None), "missing.*law"),
        (edited(colour="red"), "unknown: colour"),
        (edited(name=""), "name"),
        (edited(name="two\nlines"), "name"),
        (edited(name=5), "not a timing scheme"),
        (edited(law={"kind": "gamma"}), "kind 'gamma'"),
        (edited(law={"p": 1}), "kind None"),
        (edited(law=[]), "not a timing scheme"),
        (edited(law={"kind": "binomial", "p": [[0, 2, 0, 0]] * 4}), "p of A->C is 2"),
        (edited(law={"kind": "binomial", "p": [0.5]}), "not a timing scheme"),
        (edited(law={"kind": "poisson", "p": []}), "not a timing scheme"),
        (edited(law={"kind": "tabulated", "pmfs": [[[]] * 4] * 4}), "the table has times"),
        (edited(table="A->C{2,1}"), "times must ascend"),
        (edited(table="A->C{1,2}"), "nothing may follow C"),
        (edited(table="A->C{1} C->A{1} G->T{1} T->G{1}"), "same number of levels"),
        (edited(table=str(TALK).replace("T->G{1,4}", "T->G{1}")), "same number of levels"),
        (edited(table=str(TALK).replace("T->G{1,4}", "T->G{1,256}")), "time of 256"),
        (edited(table=3), "not a timing scheme"),
        (edited(copies=0), "copies is 0"),
        (edited(copies=2.5), "copies is 2.5, not a whole number"),
        (edited(copies="5"), "not a timing scheme"),
        (edited(delta=1.1), "delta is 1.1"),
        (edited(delta=math.nan), "delta is nan"),
        (edited(overhead=-1), "overhead is -1"),
        (edited(overhead=math.inf), "overhead is inf"),
        (edited(duration=math.inf), "duration is inf"),
        (edited(duration=10**6), "duration is 1000000"),
        (edited(data=0), "data is 0"),
        (edited(data=237), "data is 237"),
        (edited(spacing=0), "spacing is 0"),
        (edited(parity=-1), "parity is -1"),
        (edited(index=0), "index is 0"),
        (edited(check=0), "check is 0"),
        (edited(group=0), "group is 0"),
        (edited(redundancy=-0.1), "redundancy is -0.1"),
        (edited(beams=[]), "beams"),
        (edited(tags=3, shared=1), "tags is for schemes of version 2"),
        (edited(shared=1), "shared is for schemes of version 2"),
        (edited(costs=str(TALK)), "costs is for schemes of version 2"),
        (edited(version=2, tags=3), "tags 3, shared 0: give both, or 0 for both"),
        (edited(version=2, shared=3), "tags 0, shared 3: give both, or 0 for both"),
        (edited(version=2, tags=-1, shared=1), "tags is -1, not a whole number from 0 to 255"),
        (edited(version=2, tags=256, shared=1), "tags is 256"),
        (edited(version=2, tags=1, shared=-1), "shared is -1"),
        (edited(version=2, tags=1.5, shared=1), "tags is 1.5, not a whole number"),
        (edited(version=2, tags=1, shared="1"), "not a timing scheme"),
        (edited(version=2, tags=2, shared=1, group=163), "tags of 163 strands and 93 repair symbols .*smaller group"),
        (edited(version=2, tags=62, shared=1), "tags is 248; at most 245, one for each round before the shared digits"),
        (edited(version=2, costs=str(TALK).replace("A->C{1,2}", "A->C{1}")), "costs .*one for each time of"),
        (edited(version=2, costs=str(TimeTable.uniform((1,)))), "costs .*one for each time of"),
        (edited(version=2, costs="A->C{2,1}"), "times must ascend"),
        (edited(version=2, costs=3), "not a timing scheme"),
        (edited(version=2, costs=str(TALK), splitting=[9, 5]), "costs are for the range coder"),
        (edited(version=2, costs=str(TALK), overhead=1.0), "costs are for the range coder"),
        (edited(version=2, tags=5, shared=1, group=100, beams=[64]), "tags help from the second one on, give two"),
        (edited(beams=[64, 0]), "beams"),
        (edited(beams=[1.5]), "beams"),
        (edited(beams=64), "not a timing scheme"),
        (edited(splitting=[9]), "splitting"),
        (edited(splitting=[9, 0]), "splitting"),
        (edited(splitting="9:5"), "splitting"),
        (edited(splitting=[9.5, 5]), "splitting"),
    ],
)
def test_bad_files_are_refused_by_field(tmp_path, text, words):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(SchemeError, match=words):
        scheme.named(str(path))


def test_unknown_name(tmp_path):
    for name in ("talkk", str(tmp_path)):
        with pytest.raises(SchemeError, match=f"{name}.*neither a file nor one of talk"):
            scheme.named(name)


# ---- design ----------------------------------------------------------------------------------------


def test_design_takes_the_quantisers_times():
    made = scheme.design(GOOD, 5, 0.02, 8, 2)
    assert made.table == quantizer.design(GOOD, 5, 0.02, 8, 2, fewest=2).table == TimeTable.uniform((1, 2))
    lossy, few = channel.TALK_LAW, (3, 0.1, 8, 2)
    free = quantizer.design(lossy, *few, fewest=2).table
    paid = quantizer.design(lossy, *few, fewest=2, price=quantizer.PRICE).table
    assert scheme.design(lossy, *few).table == paid != free
    assert (made.copies, made.delta, made.duration, made.splitting) == (5, 0.02, 256, None)
    assert made.data == block_coder.best_rounds(made.table, 256)
    assert scheme.design(GOOD, 5, 0.02, 8, 2, duration=100, spacing=9, redundancy=0.5).spacing == 9
    four = scheme.design(channel.Binomial.uniform(0.99), 5, 0.02, 4, 4)
    assert (four.levels, four.level_bits) == (4, 2)
    one = scheme.design(GOOD, 5, 0.02, 8, 1)
    assert (one.levels, one.level_bits, one.parity) == (1, 0, 0)


def test_design_fits_the_duration_to_the_times():
    assert scheme.design(EVEN, 5, 0.02, 8, 2, duration=31).duration == 30
    every_third = scheme.design(channel.Binomial.uniform(0.5), 2, 0.2, 8, 1)
    assert set(every_third.table.array().flatten()) == {0, 3}
    assert every_third.duration == 255


def test_check_letters_pay_for_what_lost_runs_cost():
    """A letter has log2 3 bits, and stands for as many rounds as their doubt at its price leaves room for."""
    assert scheme.design(GOOD, 5, 0.02, 8, 2).spacing == scheme.MOST_SPACING
    made = scheme.design(channel.TALK_LAW, 5, 0.02, 8, 2)
    rules = quantizer.quantizer(made.law, made.table, 5).decisions
    doubt = quantizer.PRICE * quantizer.mean_doubt(capacity.chain(made.table), rules)
    assert made.spacing == math.floor(np.log2(3) / doubt) < scheme.MOST_SPACING
    assert scheme.design(channel.Binomial.uniform(0.5), 1, 0.4, 8, 2).spacing == 1


def test_parity_follows_the_error_and_not_delta():
    """More than the entropy of the level bits, so that a code exists; lost strands and short codes cost more."""
    for law in (GOOD, channel.Binomial.uniform(0.75), channel.Poisson.uniform(2.0)):
        made = scheme.design(law, 5, 0.05, 8, 2)
        error = quantizer.quantizer(law, made.table, 5).error
        entropy = -(error * np.log2(error) + (1 - error) * np.log2(1 - error))
        assert entropy < made.parity / made.data < 1.5 * (entropy + made.redundancy / 4) + 0.05


def test_design_with_state_splitting():
    made = scheme.design(GOOD, 5, 0.02, 8, 2, splitting=(7, 4), duration=131)
    assert (made.splitting, made.duration) == ((7, 4), 128)
    assert 0.9 < made.data / (128 / 1.1) < 1.1
    with pytest.raises(SplittingError, match=r"8:4 .*above the capacity"):
        scheme.design(GOOD, 5, 0.02, 8, 2, splitting=(8, 4))


@pytest.mark.parametrize(
    ("law", "demand", "error", "words"),
    [
        (POOR, {}, quantizer.QuantizerError, "A->C: delta 0.02 cannot be had.*allow delta"),
        (GOOD, {"delta": 0.0}, quantizer.QuantizerError, "delta: 0.0"),
        (GOOD, {"delta": 1.0}, quantizer.QuantizerError, "delta: 1.0"),
        (GOOD, {"levels": 9}, quantizer.QuantizerError, "9 levels"),
        (GOOD, {"copies": 0}, SchemeError, "copies is 0"),
        (GOOD, {"copies": 256}, SchemeError, "copies is 256"),
        (GOOD, {"overhead": -1.0}, quantizer.QuantizerError, "overhead: -1.0"),
        (GOOD, {"duration": 0}, SchemeError, "duration is 0"),
        (GOOD, {"duration": 10**9}, SchemeError, "duration is 1000000000"),
        (EVEN, {"duration": 1}, GraphError, "1 time units"),
    ],
)
def test_design_refuses(law, demand, error, words):
    demand = {"copies": 5, "delta": 0.02, "longest": 8, "levels": 2} | demand
    with pytest.raises(error, match=words):
        scheme.design(law, **demand)


@pytest.mark.parametrize("overhead", [0.0, 1.0, 10.0])
def test_rounds_suit_the_overhead(overhead):
    """The block is made for the time that it takes: of all numbers of rounds, none carries a percent more."""
    made = scheme.design(channel.Binomial.uniform(0.7), 5, 0.02, 8, 2, overhead=overhead, duration=80)
    carried = {}
    for rounds in range(20, 81):
        try:
            bits = block_coder.build_block(made.table, rounds, 80).bits
        except GraphError:
            continue
        carried[rounds] = bits / (80 + overhead * rounds)
    assert carried[made.data] >= 0.99 * max(carried.values())
    assert max(carried.values()) < capacity.capacity(made.table, overhead=overhead)


# ---- time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overhead", [0.0, 2.0])
def test_strand_time_is_what_a_strand_takes(overhead):
    """Of random bytes, coded in full. A data letter after a check letter may have another time: hence 1 %."""
    cheap = dataclasses.replace(TALK_SCHEME, overhead=overhead)
    plan = packing.pack(np.random.default_rng(0).bytes(2000), writer=Timing(cheap)).schedule
    assert plan.time(overhead) / len(plan.letters) == pytest.approx(cheap.strand_time, rel=0.01)
