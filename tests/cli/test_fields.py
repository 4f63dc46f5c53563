"""Dataclasses as parameters of a command: which options they give, and what is built from them."""

import json
from dataclasses import asdict, dataclass, field
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from helix_jax.cli import fields
from helix_jax.config import Option
from helix_jax.errors import HelixError

WRONG_USE = 2


def even(text):
    if int(text) % 2:
        raise HelixError(f"pairs {text}: give an even number")
    return int(text) // 2


@dataclass(frozen=True)
class Wind:
    force: Annotated[float | int, Option("How strong it is.", flag="--wind")] = 3.0
    gusts: Annotated[bool, Option("Whether it comes in gusts.", flag="--gusts/--no-gusts")] = True


@dataclass(frozen=True)
class Sail:
    area: Annotated[int, Option("Its area.")] = 20
    drive: Annotated[int | Wind | None, Option("What drives it.")] = None
    stays: Annotated[int | None, Option("Its pairs of stays.", metavar="N", parse=even)] = None


@dataclass(frozen=True)
class Boat:
    crew_names: Annotated[tuple[str, ...], Option("Who is on it.", flag="--crew")] = ()
    kind: Annotated[str, Option("Its kind.", choices=("sloop", "yawl"))] = "sloop"
    sail: Sail = field(default_factory=Sail)
    hidden: int = 7


app = typer.Typer()


@app.command()
@fields.expanded
def whole(name: str, *, boat: Boat, loud: bool = False) -> None:
    """Show all."""
    print(json.dumps([name, asdict(boat), loud]))


@app.command()
@fields.expanded
def part(*, boat: Annotated[Boat, fields.Only(("kind", "area"))]) -> None:
    """Show some."""
    print(json.dumps(asdict(boat)))


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def shown(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def plain(**changes):
    """A Boat as JSON has it, with some fields of it or of its sail changed."""
    sail = {name: changes.pop(name) for name in ("area", "drive", "stays") if name in changes}
    boat = asdict(Boat()) | {"crew_names": []} | changes
    return boat | {"sail": boat["sail"] | sail}


def test_defaults_are_those_of_the_fields():
    assert shown("whole", "Ada") == ["Ada", plain(), False]


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        (("--crew", "Ann", "--crew", "Bo"), {"crew_names": ["Ann", "Bo"]}),
        (("--kind", "yawl"), {"kind": "yawl"}),
        (("--area", 5, "--stays", 4), {"area": 5, "stays": 2}),
        (("--drive", 8), {"drive": 8}),
        (("--wind", 0), {"drive": {"force": 0.0, "gusts": True}}),
        (("--wind", 5, "--no-gusts"), {"drive": {"force": 5.0, "gusts": False}}),
        (("--no-gusts",), {}),  # without wind there are none
    ],
)
def test_options_set_the_fields(options, changes):
    assert shown("whole", "Ada", *options, "--loud") == ["Ada", plain(**changes), True]


def test_a_choice_among_the_fields():
    assert shown("part", "--area", 5, "--kind", "yawl") == plain(area=5, kind="yawl")
    for option in ("--crew", "--wind", "--drive", "--stays"):
        assert run("part", option, 1).exit_code == WRONG_USE


def test_help_of_each_option():
    text = run("whole", "--help").stdout
    for words in ("--crew", "Who is on it.", "<sloop|yawl>", "[default: 20]", "What drives it.", "--no-gusts", "N"):
        assert words in text
    assert "hidden" not in text


def test_refused_values():
    assert "'sloop'" in run("whole", "Ada", "--kind", "raft").stderr
    result = run("whole", "Ada", "--stays", 3)
    assert (result.exit_code, result.stdout) == (WRONG_USE, "")
    assert "pairs 3: give an even number" in result.stderr
