"""What `mlx-stack` alone says in each situation."""

from dataclasses import replace
from pathlib import Path

import click
import pytest

from mlx_stack.cli.overview import render_overview
from mlx_stack.home import Home
from mlx_stack.overview import (
    SURVIVE_REBOOTS,
    NextStep,
    Overview,
    Situation,
    next_steps,
    read_overview,
    situation_of,
)
from mlx_stack.services.service import Kind
from mlx_stack.services.status import ServiceRow

URL = "http://127.0.0.1:4000/v1"


def _row(name: str, state: str, *, kind: Kind = "engine", flapping: bool = False) -> ServiceRow:
    error = None if state in ("healthy", "stopped") else f"{name} said no\nand more"
    return ServiceRow(
        name=name,
        kind=kind,
        state=state,
        model="qwen3-8b" if kind == "engine" else None,
        port=8000,
        pid=None,
        uptime_s=None,
        response_ms=None,
        memory_bytes=None,
        last_error=error,
        restarts=0,
        flapping=flapping,
        loaded=None,
        is_at_rest=False,
    )


def _rows(*states: str, watchdog: str = "stopped") -> tuple[ServiceRow, ...]:
    *engines, gateway = states
    names = ("standard", "fast", "longctx")
    return (
        *(_row(name, state) for name, state in zip(names, engines, strict=False)),
        _row("gateway", gateway, kind="gateway"),
        _row("watchdog", watchdog, kind="watchdog"),
    )


def _steps(
    situation: Situation, rows: tuple[ServiceRow, ...], *missing: NextStep
) -> tuple[NextStep, ...]:
    return next_steps(situation, rows, missing, survive=SURVIVE_REBOOTS)


@pytest.mark.parametrize(
    ("rows", "situation"),
    [
        (_rows("stopped", "stopped"), "stopped"),
        (_rows("healthy", "healthy", "healthy"), "running"),
        (_rows("healthy", "stopped", "healthy"), "partly-running"),
        (_rows("healthy", "crashed", "healthy"), "unwell"),
        (_rows("degraded", "healthy"), "unwell"),
        (_rows("healthy", "down"), "unwell"),
        (_rows("healthy", "healthy", watchdog="crashed"), "running"),
    ],
)
def test_the_situation_follows_from_the_states_of_the_services(
    rows: tuple[ServiceRow, ...], situation: str
) -> None:
    assert situation_of(rows) == situation


def test_a_tier_that_the_watchdog_gave_up_means_that_something_is_wrong() -> None:
    rows = (_row("standard", "stopped", flapping=True), *_rows("healthy", "healthy"))

    assert situation_of(rows) == "unwell"


def test_a_running_stack_that_nobody_watches_is_advised_to_be_installed() -> None:
    commands = [step.command for step in _steps("running", _rows("healthy", "healthy"))]
    watched = _steps("running", _rows("healthy", "healthy", watchdog="healthy"))

    assert "mlx-stack install" in commands
    assert "mlx-stack install" not in [step.command for step in watched]


def test_what_is_missing_comes_before_starting() -> None:
    pull = NextStep("mlx-stack pull qwen3-8b", "download it")

    steps = _steps("stopped", _rows("stopped", "stopped"), pull)

    assert [step.command for step in steps[:2]] == [pull.command, "mlx-stack up"]


def test_the_log_of_the_service_that_failed_is_the_first_advice() -> None:
    steps = _steps("unwell", _rows("healthy", "crashed", "healthy"))

    assert steps[0].command == "mlx-stack logs fast"


def test_a_service_that_is_only_stopped_has_no_log_worth_reading() -> None:
    steps = _steps("unwell", _rows("stopped", "crashed", "stopped"))

    assert steps[0].command == "mlx-stack logs fast"


def test_without_a_stack_it_points_to_setup_and_creates_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    overview = read_overview(home)

    assert overview.situation == "no-stack"
    assert overview.steps[0].command == "mlx-stack setup"
    assert not home.root.exists()


def test_an_interrupted_setup_is_continued(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.setup_progress.write_text("{}")

    assert "interrupted" in read_overview(home).steps[0].purpose


def test_it_fits_one_screen_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = _rows("healthy", "crashed", "down", "healthy")
    overview = Overview("unwell", rows, URL, _steps("unwell", rows))

    lines = click.unstyle(render_overview(overview)).splitlines()

    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert any("✗ crashed" in line and "fast said no" in line for line in lines)


def test_a_tier_at_rest_is_as_it_should_be() -> None:
    gateway, tier = _rows("healthy", "stopped")[:2]
    assert situation_of((gateway, tier)) == "partly-running"
    assert situation_of((gateway, replace(tier, is_at_rest=True))) == "running"
