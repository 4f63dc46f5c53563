"""Overrides: values of the right type into the right field, and errors that name the fields."""

import dataclasses
import types
import typing

import pytest

from helix_jax.config import CodecConfig, MixingConfig, StrandConfig, Survival, TokenizerConfig, override
from train.config import PriorTraining, TokenizerTraining


def test_override_reaches_nested_fields():
    config = override(CodecConfig(), ["strands.length=200", "mixing.kronecker=True", "constraints=strict"])
    strands = dataclasses.replace(StrandConfig(), length=200)
    expected = CodecConfig("strict", strands=strands, mixing=MixingConfig(kronecker=True))
    assert config == expected
    assert CodecConfig() == CodecConfig()  # the original is frozen and unchanged
    assert CodecConfig().strands.length == 150


@pytest.mark.parametrize(
    ("config", "assignment", "path", "value"),
    [
        (TokenizerConfig(), "width=96", "width", 96),
        (TokenizerConfig(), "tile=4,8,8", "tile", (4, 8, 8)),
        (StrandConfig(), "redundancy=1", "redundancy", 1.0),
        (StrandConfig(), "left_primer=ACGT", "left_primer", "ACGT"),
        (StrandConfig(), "left_primer=A=C", "left_primer", "A=C"),
        (MixingConfig(), "offset=false", "offset", False),
        (CodecConfig(), "mode=context", "mode", "context"),
        (CodecConfig(), "verify=false", "verify", False),
        (TokenizerTraining(), "optimiser.muon_learning_rate=1e-3", "optimiser.muon_learning_rate", 1e-3),
        (TokenizerTraining(), "data.exclude=foreman,bus", "data.exclude", ("foreman", "bus")),
    ],
)
def test_types(config, assignment, path, value):
    found = override(config, [assignment])
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_last_assignment_wins_and_none_changes_nothing():
    assert override(StrandConfig(), ["length=10", "length=20"]).length == 20
    assert override(StrandConfig(), []) == StrandConfig()


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("lenght=3", ["lenght", "CodecConfig", "constraints", "strands", "mixing"]),
        ("strands.lenght=3", ["strands.lenght", "StrandConfig", "length", "redundancy"]),
        ("strands.length.more=3", ["strands.length.more", "single value"]),
        ("strands.length=long", ["strands.length=long", "int"]),
        ("strands.length=1.5", ["int"]),
        ("strands.redundancy=some", ["float"]),
        ("mixing.offset=maybe", ["mixing.offset=maybe", "bool"]),
        ("strands=3", ["strands", "length"]),
        ("strands.length", ["strands.length", "path=value"]),
        ("", ["constraints, codec, mode, verify, quality", "silent, preview, budget, note, strands, mixing"]),
    ],
)
def test_errors_name_field_and_type(assignment, words):
    with pytest.raises(ValueError, match="--set") as caught:
        override(CodecConfig(), [assignment])
    for word in words:
        assert word in str(caught.value)


def test_tuples_have_their_length():
    with pytest.raises(ValueError, match="--set tile=4,8: 3 values"):
        override(TokenizerConfig(), ["tile=4,8"])
    with pytest.raises(ValueError, match="--set tile=x: not a int"):
        override(TokenizerConfig(), ["tile=4,8,x"])
    assert override(TokenizerTraining(), ["data.exclude="]).data.exclude == ()


@pytest.mark.parametrize("config", [CodecConfig(), TokenizerTraining()])
def test_configs_are_hashable_and_frozen(config):
    """So each can be a static argument of jit."""
    assert hash(config) == hash(dataclasses.replace(config))
    first = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, first, None)


def test_every_field_says_its_type():
    for config in (CodecConfig(), StrandConfig(), MixingConfig(), TokenizerConfig(), TokenizerTraining()):
        kinds = typing.get_type_hints(type(config))
        for field in dataclasses.fields(config):
            kind = kinds[field.name]
            of = kind if isinstance(kind, types.UnionType) else typing.get_origin(kind) or kind
            assert isinstance(getattr(config, field.name), of)


def test_redundancy_by_mode_unless_given():
    assert [StrandConfig().redundancy_of(mode) for mode in ("raw", "bytes", "context", "prior")] == [0.1, 0.1, 0.2, 0.2]
    assert {StrandConfig(redundancy=0.0).redundancy_of(mode) for mode in ("raw", "bytes", "context", "prior")} == {0.0}


def test_fields_that_only_fit_together_are_set_together():
    cfg = override(PriorTraining(), ["model.frames=4", "data.frames=16", "steps=7"])
    assert (cfg.model.frames, cfg.data.frames, cfg.steps) == (4, 16, 7)
    assert override(CodecConfig(), ["quality=3", "quality=4"]).quality == 4
    with pytest.raises(ValueError, match=r"data.frames is 32: 16 for model.frames=4"):
        override(PriorTraining(), ["model.frames=4"])


def test_a_share_or_what_is_to_be_outlived():
    assert override(StrandConfig(), ["redundancy=0.25"]).redundancy == 0.25
    with pytest.raises(ValueError, match="redundancy=much"):
        override(StrandConfig(), ["redundancy=much"])
    config = StrandConfig(redundancy=Survival(loss=0.05, coverage=8))
    assert override(config, ["redundancy.loss=0.1"]).redundancy == Survival(loss=0.1, coverage=8)
