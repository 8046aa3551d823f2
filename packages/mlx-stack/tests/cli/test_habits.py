"""What people type out of habit, from other programs or by heart."""

from collections.abc import Callable
from typing import Any, Protocol

import pytest


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
    assert "'status'" in said.err


def test_json_in_front_of_the_command_is_told_where_it_belongs(say: Say) -> None:
    said = say("--json", "status")

    assert said.code == 2
    assert said.document["error"]["hint"] == "As in `mlx-stack status --json`."


def test_a_mistyped_option_in_front_of_the_command_names_the_nearest(say: Say) -> None:
    assert "--version" in say("--verison").err


@pytest.mark.parametrize("group", ["config", "engines", "keys"])
def test_a_group_alone_lists_with_json_too(group: str, say: Say) -> None:
    assert say(group).out == say(group, "list").out
    listed = say(group, "list", "--json").document
    assert say(group, "--json").document.keys() == listed.keys()
    assert say(group, "--json", "list").document.keys() == listed.keys()
