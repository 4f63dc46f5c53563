"""The channel's numbers: what is kept, what is refused and how it is said, and that every preset is whole."""

import dataclasses
import math

import numpy as np
import pytest

from helix_jax.channel import model
from helix_jax.channel.model import PRESETS, Channel, ChannelError, Errors, Quality

EVEN = Errors().substitutions


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"substitution": -0.1}, r"substitution: -0\.1; it lies in 0\.\.0\.5"),
        ({"insertion": 0.6}, r"insertion: 0\.6"),
        ({"deletion": math.nan}, r"deletion: nan"),
        ({"deletion_run": 0.95}, r"deletion_run: 0\.95; it lies in 0\.\.0\.9"),
        ({"insertion_run": -1}, r"insertion_run: -1"),
        ({"homopolymer": 0.0}, r"homopolymer: 0\.0; it lies in 0\.1\.\.3"),
        ({"spread": 2}, r"spread: 2; it lies in 0\.\.1\.5"),
        ({"bad_share": 0.6}, r"bad_share: 0\.6; it lies in 0\.\.0\.5"),
        ({"bad_share": 0.1, "bad_errors": 1.1}, r"bad_errors: 1\.1; it lies in 0\.\.1"),
        ({"bad_errors": 0.5}, r"bad_errors: 0\.5 with bad_share 0; give bad_share"),
        ({"bad_share": 0.1, "bad_length": 0.5}, r"bad_length: 0\.5; it lies in 1\.\.1000"),
        (
            {"insertion": 0.1, "bad_share": 0.1, "bad_errors": 0.6},
            r"insertion: 0\.64 in bad stretches.*raise bad_share",
        ),
        ({"substitutions": EVEN[:3]}, r"substitutions: rows of \[4, 4, 4\]"),
        ({"substitutions": ((1, 0, 0, 0), *EVEN[1:])}, "substitutions: .*diagonal"),
        ({"substitutions": ((0, 1, 1, 0), *EVEN[1:])}, "substitutions: sum 5"),
        ({"substitutions": ((0, 2, -1, 0), *EVEN[1:])}, "substitutions: sum 4"),
        ({"position": ()}, "position: "),
        ({"position": (0.0, 0.0)}, "position: .*not all 0"),
        ({"position": (1.0, -1.0)}, "position: "),
        ({"position": (1.0, math.inf)}, "position: "),
    ],
)
def test_errors_refuse(fields, said):
    with pytest.raises(ChannelError, match=said):
        Errors(**fields)


def test_errors_keep_a_mean_profile():
    errors = Errors(0.01, 0.02, 0.03, substitutions=EVEN, position=(2, 4, 8))
    assert errors.total == pytest.approx(0.06)
    assert hash(errors) == hash(dataclasses.replace(errors))
    fine = np.interp(np.linspace(0, 2, 10001), range(3), errors.position)
    assert fine.mean() == pytest.approx(1, abs=1e-3)
    assert errors.position[2] == pytest.approx(4 * errors.position[0])
    assert Errors(position=(7,)).position == (1.0,)


def test_mean_factor_of_runs_is_that_of_random_strands():
    strand = np.random.default_rng(0).integers(0, 4, 400_000)
    edges = np.flatnonzero(np.diff(strand, prepend=-1, append=-1))
    sizes = np.diff(edges)
    run = np.minimum(np.repeat(sizes, sizes), model.LONGEST_RUN)
    assert model.homopolymer_mean(1.6) == pytest.approx((1.6 ** (run - 1.0)).mean(), rel=0.01)
    assert model.homopolymer_mean(1.0) == pytest.approx(1)


HALF = (0.5, 0.5)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"right": ()}, "right: 0 probabilities"),
        ({"wrong": (1 / 62,) * 62}, r"wrong: 62 probabilities; give 1 to 61"),
        ({"beside": (0.5, 0.4)}, r"beside: sum 0\.9"),
        ({"right": (1.5, -0.5)}, "right: sum 1"),
        ({"factor": 1.5}, r"factor: 1\.5"),
        ({"read": -0.1}, r"read: -0\.1"),
        ({"neighbour": 0.99}, r"neighbour: 0\.99; it lies in 0\.\.0\.95"),
        ({"factor": 0.8, "read": 0.8}, r"factor 0\.8 and read 0\.8"),
    ],
)
def test_quality_refuses(fields, said):
    with pytest.raises(ChannelError, match=said):
        Quality(**{"right": HALF, "wrong": HALF, "beside": HALF} | fields)


def test_flat_quality():
    assert Quality.flat(3).wrong == (0, 0, 0, 1)
    for phred in (-1, 61, 2.5):
        with pytest.raises(ChannelError, match=r"phred: .*0\.\.60"):
            Quality.flat(phred)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": ""}, "name ''"),
        ({"source": ""}, "source ''"),
        ({"molecules": -1}, "molecules: -1"),
        ({"molecules": 1.5}, r"molecules: 1\.5"),
        ({"dropout": 1.0}, r"dropout: 1\.0; it lies in 0\.\.0\.99"),
        ({"skew": 4}, "skew: 4"),
        ({"reverse": 1.1}, r"reverse: 1\.1; it lies in 0\.\.1"),
        ({"truncated": -0.1}, r"truncated: -0\.1"),
        ({"chimera": 2}, "chimera: 2"),
    ],
)
def test_channel_refuses(fields, said):
    with pytest.raises(ChannelError, match=said):
        Channel(**{"name": "mine", "source": "this test"} | fields)


def test_presets():
    assert set(PRESETS) == {"clean", "illumina", "nanopore", "enzymatic", "aged"}
    for name, channel in PRESETS.items():
        assert channel.name == name
        assert model.named(name) is channel
        assert {channel: 1}[dataclasses.replace(channel)] == 1
    assert PRESETS["clean"].total == 0
    assert PRESETS["illumina"].total == pytest.approx(0.0029)
    assert 0.04 < PRESETS["nanopore"].total < 0.055  # alignments show 0.041
    writing = PRESETS["enzymatic"].synthesis
    assert writing.deletion > 2 * (writing.substitution + writing.insertion)
    aged = np.array(PRESETS["aged"].synthesis.substitutions)
    assert {(1, 3), (2, 0)} == set(zip(*np.nonzero(aged > 0.5), strict=True))
    assert PRESETS["aged"].dropout > PRESETS["illumina"].dropout
    with pytest.raises(ChannelError, match=r"preset 'pacbio'.*clean, illumina, nanopore, enzymatic, aged"):
        model.named("pacbio")


def test_uniform():
    channel = model.uniform(0.06, reverse=0.5)
    errors = channel.sequencing
    assert (errors.substitution, errors.insertion, errors.deletion) == pytest.approx((0.02, 0.02, 0.02))
    assert channel.reverse == 0.5
    assert channel.total == pytest.approx(0.06)
    assert channel.quality == Quality.flat(12)
    only = model.uniform(0.06, substitution_share=1.0).sequencing
    assert (only.substitution, only.insertion, only.deletion) == (0.06, 0, 0)
    assert model.uniform(0).total == 0
    for wrong in ({"total": 1.1}, {"total": 0.1, "substitution_share": 2}):
        with pytest.raises(ChannelError, match=r"it lies in 0\.\.1"):
            model.uniform(**wrong)
