"""`mlx-stack status`."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

import click

import mlx_stack
from mlx_stack import exit_codes, services
from mlx_stack.cli.frame.context import Context, examples, until_interrupted, with_context
from mlx_stack.cli.frame.output import Output
from mlx_stack.cli.views.services import show_service_table
from mlx_stack.errors import NoStackError
from mlx_stack.format import describe_hardware, format_duration
from mlx_stack.home import Home

_EVERY_S = 2.0
_WIDE = 120
_AWAKE = {
    ("never", False): "the machine sleeps according to its settings",
    ("never", True): "kept awake until the watchdog notices that keep-awake is never",
    ("serving", False): "not kept awake: no requests are being served",
    ("serving", True): "kept awake while requests are being served",
    ("always", False): "not kept awake: no watchdog holds a power assertion",
    ("always", True): "kept awake always",
}
"""By policy and by whether a power assertion is held."""


@click.command("status")
@click.option("--watch", is_flag=True, help="Refresh until interrupted.")
@with_context(json_lines=True)
@examples("mlx-stack status", "mlx-stack status --watch")
def command(context: Context, *, watch: bool) -> int:
    """Show the hardware and the state of every service.

    Exits with 0 when every tier and the gateway is healthy, 3 when one is not, and 4 when no stack
    is defined. Nothing is changed.
    """
    output = context.output
    if watch:
        output.refuse_document("--watch")
    elif not context.home.stack.exists():  # without importing what reads a stack
        return _report_no_stack(context, NoStackError())
    try:
        if watch:
            with until_interrupted():
                _watch(context)
        report = services.status.read_status(context.opened)
    except NoStackError as error:
        return _report_no_stack(context, error)
    output.show(report, show_status)
    return exit_codes.DONE if report.is_healthy else exit_codes.UNHEALTHY


def _watch(context: Context) -> NoReturn:
    """Show the status until the user interrupts it, or until the stack is gone."""
    output, hardware = context.output, mlx_stack.hardware.known_hardware(context.home)
    with output.redrawing() as draw:
        while True:
            opened = mlx_stack.open_stack.OpenStack(context.home)
            report = services.status.read_status(opened, hardware=hardware)
            draw(lambda report=report: output.show(report, show_status))
            time.sleep(_EVERY_S)


@dataclass(frozen=True, slots=True)
class _NothingToReport:
    """The status of a home without a stack."""

    home: Home
    error: NoStackError

    def to_document(self) -> dict[str, object]:
        error = self.error
        return {
            "hardware": mlx_stack.hardware.known_hardware(self.home).to_document(),
            "gateway_url": None,
            "services": [],
            "error": {"type": error.type, "message": error.message, "hint": error.hint},
        }


def _report_no_stack(context: Context, error: NoStackError) -> int:
    context.output.show(_NothingToReport(context.home, error), _show_no_stack)
    return exit_codes.NO_STACK


def _show_no_stack(output: Output, nothing: _NothingToReport) -> None:
    output.text(nothing.error.message)
    output.hint(nothing.error.hint or "")


def show_status(output: Output, report: "services.status.StatusReport") -> None:
    """The report, from top to bottom."""
    has_room = output.width >= _WIDE and any(row.last_error for row in report.services)
    output.answer(describe_hardware(report.hardware))
    output.answer(f"Gateway   {report.gateway_url}{_awake_line(report)}{_watch_line(report)}\n")
    show_service_table(output, report.services, with_errors=has_room)
    for row in report.services:
        for words in filter(None, (_role_line(row), ", ".join(_doing(row)), row.agent_check)):
            output.answer(f"{row.name}: {words}", style="dim")
    for row in report.services:
        _show_trouble(output, row, with_error=not has_room)
    if report.changed:
        names = ", ".join(report.changed)
        arrows = any(row.model_after_up or row.port_after_up for row in report.services)
        output.answer(
            f"\nChanged since it was started: {names}. `mlx-stack up` applies the change"
            f"{', shown behind →' if arrows else ''}."
        )
    removed = [row.name for row in report.services if not row.is_defined]
    if removed:
        output.answer(
            f"\n{', '.join(removed)}: no longer in the stack, but still running. "
            "`mlx-stack up` stops it."
        )
    if report.decisions:
        output.answer(("\nRecent watchdog events:", "bold"))
        for line in report.decisions:
            output.answer(line, style="dim")


def _show_trouble(output: Output, row: "services.status.ServiceRow", *, with_error: bool) -> None:
    """What is wrong with a service, apart from its state."""
    if row.last_error and with_error:
        output.answer(f"\n{row.name}: {row.last_error}")
    if row.flapping:
        output.answer(
            f"\n{row.name} is flapping: the watchdog gave up after {row.restarts} "
            f"restarts. Look at `mlx-stack logs {row.name}`; `mlx-stack up` tries again.",
            style="yellow",
        )
    if row.after_panics:
        output.answer(f"\n{row.name}: {row.after_panics}", style="yellow")


def _role_line(row: "services.status.ServiceRow") -> str:
    """What a tier is for, unless it just chats, and how fast it does that."""
    measured = row.measured
    role = row.role if row.role not in (None, "chat") else ""
    if measured is None:
        return role
    speed = f"{measured.value:.3g} {measured.unit} with {measured.load}, measured {measured.at}"
    return f"{role}, {speed}" if role else speed


def _doing(row: "services.status.ServiceRow") -> Iterator[str]:
    """What a tier does, and what will become of it."""
    if row.requests_running:
        yield f"{row.requests_running} running"
    if row.requests_waiting:
        yield f"{row.requests_waiting} waiting"
    if row.waits_for:
        yield services.loading.describe_wait(row.waits_for)
    if row.loading_s is not None:
        load = services.loading.LoadProgress(
            row.loading_s, row.loading_progress, row.loading_left_s
        )
        yield load.describe()
    if row.idle_s is not None:
        yield f"idle for {format_duration(row.idle_s)}"
    if row.rests_in_s is not None:
        yield f"ends in {format_duration(row.rests_in_s)} without a request"
    if row.is_at_rest and not row.waits_for and row.reason:
        yield f"not started at its last request: {row.reason}"


def _watch_line(report: "services.status.StatusReport") -> str:
    looks = [row.last_look_s for row in report.services if row.last_look_s is not None]
    return f"\nWatchdog  last checked {format_duration(looks[0])} ago" if looks else ""


def _awake_line(report: "services.status.StatusReport") -> str:
    awake = report.keep_awake
    return f"\nSleep     {_AWAKE[awake.policy, awake.held]}" if awake.supported else ""
