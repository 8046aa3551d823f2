"""`upgrade` does, or names, what fits the way in which a copy was installed."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from mlx_stack.errors import StackError
from mlx_stack.home import Home
from mlx_stack.upgrade import (
    Command,
    InstallFacts,
    Way,
    find_way,
    plan_upgrade,
    read_facts,
    upgrade,
)

PROGRAMS = {name: name for name in ("uv", "pipx", "git", "brew")}
GIT = InstallFacts(
    Path("/Users/robin/.local/share/uv/tools/mlx-stack"),
    url="https://git.example.org/robin/mlx-stack",
    commit="1d2c00",
    subdirectory="packages/mlx-stack",
    has_uv_receipt=True,
    programs=PROGRAMS,
)
CLONE = replace(
    GIT,
    url="file:///Users/robin/mlx-stack/packages/mlx-stack",
    commit=None,
    subdirectory=None,
    checkout=Path("/Users/robin/mlx-stack"),
)
WHEEL = replace(CLONE, url="file:///Users/robin/mlx_stack-0.1.0-py3-none-any.whl", checkout=None)
VENV = replace(GIT, prefix=Path("/Users/robin/venv"), has_uv_receipt=False)
SPEC = "git+https://git.example.org/robin/mlx-stack#subdirectory=packages/mlx-stack"
INTO_VENV = "uv pip install --python /Users/robin/venv/bin/python --upgrade"
PULL = "git -C /Users/robin/mlx-stack pull --ff-only"

WAYS = {
    Way.UV_TOOL: GIT,
    Way.PIPX: replace(VENV, has_pipx_metadata=True),
    Way.VENV: VENV,
    Way.UVX: replace(VENV, prefix=Path("/Users/robin/.cache/uv/archive-v0/Bx3")),
    Way.CHECKOUT: replace(CLONE, is_editable=True, has_uv_receipt=False),
    Way.HOMEBREW: replace(
        VENV, prefix=Path("/opt/homebrew/Cellar/mlx-stack/0.1.0/libexec"), url=None, commit=None
    ),
}


def lines(facts: InstallFacts, *, ours: bool = True) -> list[str]:
    steps = plan_upgrade(facts).steps
    return [shlex.join(step.command) for step in steps if step.command and step.is_ours == ours]


@pytest.mark.parametrize("way", Way)
def test_each_way_of_installing_is_recognized(way: Way) -> None:
    assert find_way(WAYS[way]) == way


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (GIT, ["uv tool upgrade mlx-stack"]),
        (CLONE, [PULL, "uv tool upgrade mlx-stack --reinstall"]),
        (WAYS[Way.PIPX], []),
        (
            WAYS[Way.VENV],
            [
                f"{INTO_VENV} --reinstall-package mlx-stack 'mlx-stack @ {SPEC}'",
            ],
        ),
        (WAYS[Way.CHECKOUT], [PULL, "uv sync --inexact --project /Users/robin/mlx-stack"]),
        (WAYS[Way.UVX], []),
        (WAYS[Way.HOMEBREW], []),
        (WHEEL, []),
    ],
)
def test_what_is_run(facts: InstallFacts, expected: list[str]) -> None:
    assert lines(facts) == expected


def test_wheels_are_installed_together_so_that_no_index_is_asked_for_any() -> None:
    assert lines(WAYS[Way.PIPX], ours=False)[0].startswith("pipx runpip mlx-stack install")
    assert lines(WHEEL, ours=False)[0] == (
        "uv tool install --force --with-requirements wheels.txt "
        "./mlx_stack-VERSION-py3-none-any.whl"
    )


def test_engines_are_upgraded_by_the_new_copy() -> None:
    assert lines(replace(GIT, has_engines=True))[-1] == (
        "/Users/robin/.local/share/uv/tools/mlx-stack/bin/mlx-stack engines upgrade"
    )


@pytest.mark.parametrize("facts", [*WAYS.values(), WHEEL, replace(GIT, url=None, commit=None)])
def test_the_name_on_the_public_index_is_never_installed(facts: InstallFacts) -> None:
    for line in (*lines(facts), *lines(facts, ours=False)):
        words = shlex.split(line)
        if "install" in words[:-1]:
            assert words[-1] != "mlx-stack"


def test_a_missing_program_is_named() -> None:
    with pytest.raises(StackError, match="git isn't installed"):
        plan_upgrade(replace(CLONE, programs={"uv": "uv"}))


def test_a_step_that_fails_is_the_last_that_runs() -> None:
    ran: list[Command] = []

    def fail(command: Command) -> int:
        ran.append(command)
        return 1

    report = upgrade(replace(CLONE, has_engines=True), fail)

    assert [shlex.join(each) for each in ran] == [PULL]
    assert report.outcomes[:3] == ("failed", "planned", "planned")
    assert not report.is_success


def test_a_check_runs_nothing() -> None:
    def refuse(command: Command) -> int:
        pytest.fail(f"ran {command}")

    assert upgrade(CLONE, refuse, only_check=True).is_success


def test_this_very_copy_is_recognized(mlx_stack_home: Path) -> None:
    facts = read_facts(Home(mlx_stack_home))

    assert find_way(facts) in (Way.CHECKOUT, Way.VENV)
