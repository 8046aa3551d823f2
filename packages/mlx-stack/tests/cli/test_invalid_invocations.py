"""Command lines that make no sense, made from the command tree: exit code 2 and one message each.

Whatever commands and options there will be, they are in the tree, so they are tried here.
"""

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import click
import pytest

from mlx_stack import exit_codes
from mlx_stack.cli.root import root

COUNT = 200
SEED = 20260401


class Said(Protocol):
    code: int
    out: str
    err: str
    document: dict[str, dict[str, str]]


def _leaves(
    group: click.Group, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _leaves(command, (*path, name))
        else:
            yield (*path, name), command


LEAVES = list(_leaves(root, ()))


def _arguments(command: click.Command) -> list[str]:
    """Values for the required arguments: valid ones where there is a choice."""
    values: list[str] = []
    for parameter in command.params:
        if isinstance(parameter, click.Argument) and parameter.required:
            choices = getattr(parameter.type, "choices", ("something",))
            values.append(next(iter(choices)))
    return values


def _long(option: click.Option) -> str:
    return next(name for name in option.opts if name.startswith("--"))


def _mistyped(word: str, dice: random.Random) -> str:
    place = dice.randrange(2, len(word) - 1) if len(word) > 4 else 1
    return dice.choice((word[:place] + word[place + 1 :], word[:place] + "q" + word[place:]))


def _unacceptable(kind: click.ParamType) -> str | None:
    """A value that the type refuses, or None where it takes everything."""
    if isinstance(kind, click.IntRange | click.FloatRange) and kind.min is not None:
        return str(int(kind.min) - 1)
    takes_everything = isinstance(kind, click.types.StringParamType | click.Path)
    return None if takes_everything else "no-such-value"


def _wrong_uses(command: click.Command, dice: random.Random) -> Iterator[list[str]]:
    """Command lines of one command that it must refuse, without the command's own words."""
    given = _arguments(command)
    options = [each for each in command.params if isinstance(each, click.Option)]
    yield [*given, "--no-such-option"]
    yield [*given, "-Z"]
    if given:
        yield []
    if not any(each.nargs == -1 for each in command.params):
        most = sum(isinstance(each, click.Argument) for each in command.params)
        yield [*given, *(["more"] * (most - len(given) + 1))]
    for argument in command.params:
        if isinstance(argument, click.Argument) and isinstance(argument.type, click.Choice):
            yield ["no-such-value"]
    for option in options:
        name = _long(option)
        known = {each for other in options for each in other.opts}
        mistyped = _mistyped(name, dice)
        if mistyped not in known:
            yield [*given, mistyped]
        if option.is_flag:
            yield [*given, f"{name}=yes"]
            continue
        if not option._flag_needs_value:
            yield [*given, name]
        bad = _unacceptable(option.type)
        if bad is not None:
            yield [*given, f"{name}={bad}"]


def _invalid_invocations() -> list[tuple[str, ...]]:
    """The same command lines at each run: one of every command at least, the others drawn."""
    dice = random.Random(SEED)
    names = {path[0] for path, _ in LEAVES}
    misspelt = {(*path[:-1], _mistyped(path[-1], dice)) for path, _ in LEAVES}
    found = {line for line in misspelt if line[-1] not in names}
    chosen: list[tuple[str, ...]] = []
    for path, command in LEAVES:
        first, *others = [(*path, *line) for line in _wrong_uses(command, dice)]
        chosen.append(first)
        found |= set(others)
    chosen += dice.sample(sorted(found - set(chosen)), COUNT - len(chosen))
    return sorted(chosen)


INVALID = _invalid_invocations()


def test_every_command_is_among_them() -> None:
    tried = {line[: len(path)] for line in INVALID for path, _ in LEAVES}

    assert len(INVALID) == COUNT
    assert {path for path, _ in LEAVES} <= tried


@pytest.mark.parametrize("line", INVALID, ids=" ".join)
def test_it_is_refused_with_a_message_and_no_traceback(
    line: tuple[str, ...], say: Callable[..., Said]
) -> None:
    said = say(*line)

    assert said.code == exit_codes.USAGE
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err


@pytest.mark.parametrize("line", INVALID, ids=" ".join)
def test_with_json_it_is_refused_with_one_document(
    line: tuple[str, ...], say: Callable[..., Said]
) -> None:
    words = next((len(path) for path, _ in LEAVES if line[: len(path)] == path), 1)

    said = say(*line[:words], "--json", *line[words:])

    assert said.code == exit_codes.USAGE
    document = said.document
    assert document["schema_version"] == 1
    assert set(document["error"]) == {"type", "message", "hint"}
    assert document["error"]["type"] == "usage"
    assert document["error"]["message"]


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e300", "-1"])
@pytest.mark.parametrize("option", ["up --timeout", "watch --interval", "watch --restart-delay"])
def test_seconds_that_never_pass_are_refused(
    option: str, seconds: str, say: Callable[..., Said]
) -> None:
    said = say(*option.split(), seconds)

    assert said.code == exit_codes.USAGE
    assert option.split()[1] in said.err


def test_nothing_was_written(say: Callable[..., Said], tmp_path: Path) -> None:
    for line in INVALID[::20]:
        say(*line)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", INVALID[::50], ids=" ".join)
def test_the_installed_program_refuses_it_too(line: tuple[str, ...]) -> None:
    program = Path(sys.executable).with_name("mlx-stack")

    done = subprocess.run([program, *line], capture_output=True, text=True, check=False)

    assert done.returncode == exit_codes.USAGE
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
