"""Commands that take dataclasses: each field that has a ``config.Option`` becomes an option of the command line.

So an option is written once, as a field with its default and its help, and a command names only the dataclass:

    @app.command()
    @fields.expanded
    def encode(clip: Path, *, config: CodecConfig) -> None: ...

An option is named after its flag: ``--strand-length`` is the parameter ``strand_length`` of the command, whatever the
field is called.
"""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.markup import escape

from helix_jax.cli.console import problems
from helix_jax.config import Option


@dataclass(frozen=True)
class Only:
    """Beside a dataclass, ``Annotated[CodecConfig, Only(("constraints", "strands"))]``: only these fields are options.

    A name may be that of a field at any depth; that of a field which is a dataclass stands for all that is in it.
    """

    names: tuple[str, ...]


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with options in place of its dataclasses, which it builds from them.

    A value that a dataclass refuses ends the command as ``problems`` says, before its body runs.
    """
    signature, parameters, kinds = inspect.signature(command, eval_str=True), [], {}
    for name, parameter in signature.parameters.items():
        kind, notes = _taken_apart(parameter.annotation)
        if dataclasses.is_dataclass(kind):
            kinds[name] = kind, _first(notes, Only)
            parameters += _parameters(*kinds[name])
        else:
            parameters.append(_parameter(name, parameter.annotation, parameter.default))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        with problems():
            built = {name: _built(kind, only, values) for name, (kind, only) in kinds.items()}
        command(**built, **{name: value for name, value in values.items() if name in signature.parameters})

    vars(run)["__signature__"] = signature.replace(parameters=parameters)
    return run


@dataclass(frozen=True)
class _Part:
    """A field of a dataclass: an option, a dataclass with options, or either of them.

    Attributes:
        field: The field.
        kind: Its type; of several the first.
        option: Its Option, or None.
        inside: The dataclass that the value is or may be, or None.
        only: Which fields of ``inside`` are options; None stands for all.
    """

    field: Any
    kind: Any
    option: Any
    inside: Any
    only: Only | None

    @property
    def flag(self) -> str:
        return self.option.flag or f"--{self.field.name.replace('_', '-')}"

    @property
    def name(self) -> str:
        """The name of the option's parameter."""
        return self.flag.partition("/")[0].removeprefix("--").replace("-", "_")

    def parameter(self) -> inspect.Parameter:
        """Return the parameter from which typer makes the option."""
        kind, default = str if self.option.parse else self.kind, self.field.default
        if self.option.choices:
            kind = typing.Literal[self.option.choices]  # pyrefly: ignore [invalid-literal]
        elif typing.get_origin(kind) is tuple:
            kind, default = list[str], list(default)
        # escaped, as typer takes what stands in brackets for markup
        option = typer.Option(self.flag, help=escape(self.option.help), metavar=self.option.metavar)
        return _parameter(self.name, Annotated[kind, option], default)

    def value(self, values: Mapping[str, Any]) -> Any:
        """Return the value of the option, from those of the parameters."""
        value = values[self.name]
        if self.option.parse and value is not None:
            value = self.option.parse(value)
        return tuple(value) if isinstance(value, list) else value


def _parts(kind: Any, only: Only | None) -> Iterator[_Part]:
    """Yield the fields that are options, or are dataclasses that may have some."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, notes = _taken_apart(hints[field.name])
        members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        inside = next((member for member in members if dataclasses.is_dataclass(member)), None)
        option, chosen = _first(notes, Option), only is None or field.name in only.names
        if chosen if option else inside:
            yield _Part(field, members[0], option, inside, _first(notes, Only) if chosen else only)


def _parameters(kind: Any, only: Only | None) -> Iterator[inspect.Parameter]:
    """Yield the parameters that stand for a dataclass."""
    for part in _parts(kind, only):
        inside = list(_parameters(part.inside, part.only)) if part.inside else []
        if part.option:
            yield part.parameter()
            # where the value is either, it is the dataclass if the first field of that is passed
            inside[:1] = [first.replace(default=None) for first in inside[:1]]
        yield from inside


def _built(kind: Any, only: Only | None, values: Mapping[str, Any]) -> Any:
    """Build the dataclass from the values of its parameters."""
    chosen = {}
    for part in _parts(kind, only):
        if part.option:
            chosen[part.field.name] = part.value(values)
        if part.inside and not (part.option and next(_parts(part.inside, part.only)).value(values) is None):
            chosen[part.field.name] = _built(part.inside, part.only, values)
    return kind(**chosen)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """Return a parameter as a keyword, since those may have their defaults in any order."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _taken_apart(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return what is annotated, and the notes beside it."""
    return (hint.__origin__, hint.__metadata__) if typing.get_origin(hint) is Annotated else (hint, ())


def _first(notes: tuple[Any, ...], kind: type) -> Any:
    return next((note for note in notes if isinstance(note, kind)), None)
