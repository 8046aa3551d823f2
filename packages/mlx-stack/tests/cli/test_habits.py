"""What people type out of habit, from other programs or by heart."""

import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import click
import pytest

from mlx_stack.cli.frame.commands import OTHER_WORDS
from mlx_stack.cli.root import root


class Said(Protocol):
    code: int
    out: str
    err: str
    document: dict[str, Any]


type Say = Callable[..., Said]


@pytest.mark.parametrize("line", [(), ("up",), ("config", "set")], ids=" ".join)
def test_help_is_a_word_too(line: tuple[str, ...], say: Say) -> None:
    assert say("help", *line).out == say(*line, "--help").out != ""


def test_help_for_a_mistyped_command_names_the_nearest(say: Say) -> None:
    said = say("help", "statsu")

    assert said.code == 2
    assert "`mlx-stack status`" in said.err


def test_json_in_front_of_the_command_is_told_where_it_belongs(say: Say) -> None:
    said = say("--json", "status")

    assert said.code == 2
    assert said.document["error"]["hint"] == "As in `mlx-stack status --json`."


def test_a_mistyped_option_in_front_of_the_command_names_the_nearest(say: Say) -> None:
    assert "--version" in say("--verison").err


@pytest.mark.parametrize(("typed", "meant"), OTHER_WORDS.items())
def test_a_word_of_another_program_names_the_command_that_does_it(
    typed: str, meant: str, say: Say
) -> None:
    said = say(*typed.split())

    assert said.code == 2
    assert f"Did you mean `mlx-stack {meant}`?" in said.err
    assert say(*meant.split(), *(() if meant == "--version" else ("--help",))).code == 0


@pytest.mark.parametrize("option", ["-V", "-v"])
def test_the_version_has_short_options(option: str, say: Say) -> None:
    assert say(option).out == say("--version").out


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("models",), ("models", "list")),
        (("models", "--catalog"), ("models", "list", "--catalog")),
        (("models", "--family", "qwen3"), ("models", "list", "--family", "qwen3")),
        (("models", "--verify"), ("models", "verify")),
        (("models", "--remove", "qwen3-8b"), ("models", "rm", "qwen3-8b")),
        (("models", "--available"), ("models", "search")),
    ],
    ids=" ".join,
)
def test_the_flags_of_before_answer_as_the_subcommands_do(
    old: tuple[str, ...], new: tuple[str, ...], say: Say
) -> None:
    before, now = say(*old, "--json"), say(*new, "--json")

    assert (before.code, before.document) == (now.code, now.document)
    assert (say(*old).out, say(*old).err) == (say(*new).out, say(*new).err)
    options = re.findall(r"^  (?:-., )?(--\S+)", say("models", "--help").out, re.MULTILINE)
    assert not set(old) & set(options)


def test_a_flag_of_before_in_front_of_a_subcommand_is_not_lost_in_silence(say: Say) -> None:
    said = say("models", "--force", "rm", "qwen3-8b")

    assert said.code == 2
    assert "Put the options after `mlx-stack models rm`." in said.err


def _commands(context: click.Context) -> Iterator[click.Context]:
    """Every command below a group, hidden ones too."""
    assert isinstance(context.command, click.Group)
    for name in context.command.list_commands(context):
        command = context.command.get_command(context, name)
        assert command is not None
        below = click.Context(command, info_name=name, parent=context)
        yield below
        if isinstance(command, click.Group):
            yield from _commands(below)


COMMANDS = list(_commands(click.Context(root, info_name="mlx-stack")))


@pytest.mark.parametrize("context", COMMANDS, ids=lambda each: each.command_path)
def test_each_help_has_two_examples_of_command_lines_that_are_valid(context: click.Context) -> None:
    shown = (context.command.help or "").partition("\b\nExamples:\n")[2].splitlines()

    assert len(shown) >= 2
    for line in shown:
        words = shlex.split(re.sub(r".*\| (?=mlx-stack)|eval \"\$\(|\)\"| [<>|] .*", "", line))
        assert words[0] == "mlx-stack"
        command, parent, words = root, None, words[words.index("mlx-stack") + 1 :]
        while isinstance(command, click.Group) and words:
            parent = click.Context(command, parent=parent)
            _, found, words = command.resolve_command(parent, words)
            assert found is not None
            command = found
        assert command.make_context("", words, parent=parent) is not None


@pytest.mark.parametrize("group", ["config", "engines", "keys", "models"])
def test_a_group_alone_lists_with_json_too(group: str, say: Say) -> None:
    assert say(group).out == say(group, "list").out
    listed = say(group, "list", "--json").document
    assert say(group, "--json").document.keys() == listed.keys()
    assert say(group, "--json", "list").document.keys() == listed.keys()
