"""Channels in files, and other rates: what is written is read back equal, rates are what reads show, refusals."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from helix_jax.channel import fit, model, preset, simulate
from helix_jax.channel.model import PRESETS, Channel, ChannelError, Errors, Quality

SMALL = {"format": preset.FORMAT, "name": "ours", "source": "this test"}


def pairs_of(channel, strands, coverage):
    """Strands and their reads in the direction of the strands, and the qualities."""
    reads = simulate.reads_of(dataclasses.replace(channel, reverse=0.0), strands, coverage, jax.random.key(3))
    rows = [slice(0, length) for length in reads.lengths.tolist()]
    return (
        [strands[i] for i in reads.origin.tolist()],
        [reads.bases[i, row] for i, row in enumerate(rows)],
        [reads.qualities[i, row] for i, row in enumerate(rows)],
    )


def strands_of(n, length, seed=0):
    return np.random.default_rng(seed).integers(0, 4, (n, length), dtype=np.uint8)


# ---- files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_comes_back_equal(tmp_path, name):
    preset.write(tmp_path / "mine.json", PRESETS[name])
    assert preset.read(tmp_path / "mine.json") == PRESETS[name]
    assert preset.named(str(tmp_path / "mine.json")) == PRESETS[name]
    assert preset.named(name) is PRESETS[name]


def test_a_fit_comes_back_equal(tmp_path):
    strands = strands_of(40, 60)
    fitted = fit.fit(*pairs_of(PRESETS["nanopore"], strands, 2), "fitted", "this test", rounds=0)
    preset.write(tmp_path / "fitted.json", fitted)
    assert preset.read(tmp_path / "fitted.json") == fitted
    assert len(fitted.sequencing.position) > 1


def test_what_a_file_leaves_out_has_its_default(tmp_path):
    expected = Channel(
        "ours", "this test", sequencing=Errors(deletion=0.02, position=(1, 1, 2)), quality=Quality.flat(1), skew=0.3
    )
    flat = [0, 1]
    fields = SMALL | {
        "sequencing": {"deletion": 0.02, "position": [1, 1, 2]},
        "quality": {"right": flat, "wrong": flat, "beside": flat},
        "skew": 0.3,
    }
    (tmp_path / "a.json").write_text(json.dumps(fields))
    (tmp_path / "a.toml").write_text(
        f'format = "{preset.FORMAT}"\nname = "ours"\nsource = "this test"\nskew = 0.3\n'
        "[sequencing]\ndeletion = 0.02\nposition = [1, 1, 2]\n"
        "[quality]\nright = [0, 1]\nwrong = [0, 1]\nbeside = [0, 1]\n"
    )
    assert preset.read(tmp_path / "a.json") == preset.read(tmp_path / "a.toml") == expected


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"format": "helix_jax channel 2"}, 'no channel; its field "format" has to be "helix_jax channel 1"'),
        ({"name": ""}, "name ''"),
        ({"sequencing": {"deletion": 0.6}}, "sequencing: deletion: 0.6; it lies in 0..0.5"),
        ({"sequencing": {"deletion": float("nan")}}, "sequencing: deletion: nan"),
        ({"sequencing": {"deletion": "0.1"}}, "sequencing: deletion: '0.1'; give a number"),
        ({"sequencing": {"deletion": True}}, "sequencing: deletion: True; give a number"),
        ({"sequencing": {"deletion": [0.1]}}, r"sequencing: deletion: \[0.1\]; give a number"),
        ({"sequencing": {"position": 1}}, "sequencing: position: 1; give a list of numbers"),
        ({"sequencing": {"position": [10**400]}}, "sequencing: "),
        ({"sequencing": {"substitutions": [1]}}, "sequencing: substitutions: 1; give a list of numbers"),
        ({"sequencing": {"substitutions": 1}}, "sequencing: substitutions: 1; give a list of lists of numbers"),
        ({"sequencing": {"deletions": 0.1}}, "sequencing: no such field: deletions; there are substitution, insertion"),
        ({"sequencing": 3}, "sequencing: 3; give its fields"),
        ({"quality": {"right": [1]}}, "quality: without beside, wrong"),
        ({"skew": 9}, "skew: 9; it lies in 0..3"),
        ({"molecules": 0.5}, "molecules: 0.5; give a whole number"),
    ],
)
def test_refusals(tmp_path, fields, said):
    (tmp_path / "a.json").write_text(json.dumps(SMALL | fields))
    with pytest.raises(ChannelError, match=said) as caught:
        preset.read(tmp_path / "a.json")
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'}: ")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\0\xff", "5", "[]", json.dumps({"name": "x"})])
def test_files_that_are_no_channel(tmp_path, text):
    for name in ("a.json", "a.toml"):
        (tmp_path / name).write_text(text)
        with pytest.raises(ChannelError, match=r"neither JSON nor TOML|no channel"):
            preset.read(tmp_path / name)


def test_no_such_preset():
    with pytest.raises(ChannelError, match="preset 'pacbio': neither a file nor one of the presets clean, illumina"):
        preset.named("pacbio")


# ---- rates -----------------------------------------------------------------------------------------------------


def test_rates_are_what_reads_show():
    """In the nanopore preset, whose bad stretches allow 4 % of a kind at most as they are."""
    wanted = {"substitution": 0.02, "insertion": 0.005, "deletion": 0.08}
    channel = preset.with_rates(PRESETS["nanopore"], **wanted)
    assert {name: getattr(channel.sequencing, name) for name in wanted} == wanted
    before, after = PRESETS["nanopore"].sequencing, channel.sequencing
    assert (after.position, after.substitutions, after.homopolymer) == (
        before.position, before.substitutions, before.homopolymer,
    )  # fmt: skip
    seen = fit.statistics(*pairs_of(channel, strands_of(300, 100), 4))
    # the shortest alignment takes an insertion beside a deletion for a substitution
    assert seen.rates[2] == pytest.approx(0.08, abs=0.01)
    assert seen.rates.sum() == pytest.approx(0.105, abs=0.012)
    errors, bases = seen.by_place.reshape(2, 8, 8).sum(axis=2)
    profile = errors / bases / (errors.sum() / bases.sum())
    assert profile[0] < 0.9 < 1.1 < profile[-1]  # the profile along the strand is the preset's


def test_rates_keep_the_shares_of_synthesis_and_sequencing():
    channel, before = preset.with_rates(PRESETS["illumina"], deletion=0.022), PRESETS["illumina"]
    assert channel.synthesis.deletion == pytest.approx(0.02)
    assert channel.sequencing.deletion == pytest.approx(0.002)
    assert (channel.synthesis.insertion, channel.sequencing.substitution) == (
        before.synthesis.insertion, before.sequencing.substitution,
    )  # fmt: skip
    assert "deletion rate set to 0.022" in channel.source
    assert preset.with_rates(PRESETS["clean"], insertion=0.1).sequencing.insertion == 0.1
    assert preset.with_rates(PRESETS["aged"], substitution=0.0, insertion=0, deletion=0).total == 0


def test_nothing_changes_without_rates():
    for channel in PRESETS.values():
        assert preset.with_rates(channel) == channel


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("rate", [0, 1e-6, 0.04, 0.2, 0.5])
def test_every_preset_takes_every_rate(name, rate):
    channel = preset.with_rates(PRESETS[name], substitution=rate, insertion=rate, deletion=rate)
    assert channel.total == pytest.approx(3 * rate)


@pytest.mark.parametrize("rate", [-0.1, 0.51, float("nan")])
@pytest.mark.parametrize("name", preset.RATES)
def test_rates_out_of_range(name, rate):
    with pytest.raises(ChannelError, match=rf"{name}: {rate}; it lies in 0\.\.0\.5"):
        preset.with_rates(model.uniform(0.01), **{name: rate})
