"""What takes minutes, while it runs: bars on a terminal, a few lines in a pipe, or JSON events."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlx_stack import engines, models
from mlx_stack.cli.frame.output import Output, harmless
from mlx_stack.format import format_bytes, format_duration

if TYPE_CHECKING:
    from rich.progress import TaskID

_EVENT_INTERVAL_S = 0.5
_NOTABLE_PAUSE_S = 1.0
_NOTABLE_CHECK_BYTES = 10_000_000
_NAME_WIDTH = 34
_WIDEST_DETAIL = 30
_MILESTONES = ("waiting", "creating", "installing", "asking")


@contextmanager
def pull_progress(output: Output) -> Generator[Callable[["models.events.ModelEvent"], None]]:
    """What shows the events of a pull, as it fits where they go."""
    if output.json_lines:
        yield _throttled(lambda event: output.event(event, _say))
    elif output.is_live:
        bars = _LiveBars(output)
        try:
            yield bars.show
        finally:
            bars.close()
    else:
        yield say_event(output)


def say_event(output: Output) -> Callable[["models.events.ModelEvent"], None]:
    """What says the events that are worth a line: the beginning, waits and troubles."""
    return lambda event: _say(output, event)


def _say(output: Output, event: "models.events.ModelEvent") -> None:
    line = describe(event)
    if line is not None:
        output.say(line)


def _throttled(
    show: Callable[["models.events.ModelEvent"], None],
) -> Callable[["models.events.ModelEvent"], None]:
    """`show`, but progress at most twice a second."""
    shown_at = float("-inf")

    def pass_on(event: "models.events.ModelEvent") -> None:
        nonlocal shown_at
        if isinstance(event, models.events.Progress):
            now = time.monotonic()
            if now - shown_at < _EVENT_INTERVAL_S:
                return
            shown_at = now
        show(event)

    return pass_on


class _LiveBars:
    """A bar for each file under way, and one for all of them."""

    def __init__(self, output: Output) -> None:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        self._bars: Bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[facts]}", justify="right", markup=False),
            console=output.talk,
            transient=True,
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._all: TaskID | None = None
        self._plan: models.events.Planned | None = None

    def show(self, event: "models.events.ModelEvent") -> None:
        if isinstance(
            event, models.events.Progress | models.events.Converting | models.events.Copying
        ):
            self._bars.start()
        if isinstance(event, models.events.Progress):
            self._show_progress(event)
        elif isinstance(event, models.events.Converting):
            self._show_conversion(event)
        elif isinstance(event, models.events.Copying):
            self._show_copy(event)
        elif (line := describe(event)) is not None:
            self._bars.console.print(harmless(line), markup=False, style="dim", soft_wrap=True)
        if isinstance(event, models.events.Planned):
            self._plan = event

    def close(self) -> None:
        self._bars.stop()

    def _show_progress(self, progress: "models.events.Progress") -> None:
        for file in progress.files:
            is_active = file.present_bytes > 0 and not file.is_verified
            if is_active and file.path not in self._tasks:
                self._tasks[file.path] = self._bars.add_task(
                    shorten(file.path), total=file.size_bytes, facts=""
                )
            elif not is_active and file.path in self._tasks:
                self._bars.remove_task(self._tasks.pop(file.path))
            if is_active:
                is_checking = file.present_bytes == file.size_bytes
                facts = "checking" if is_checking else format_bytes(file.size_bytes)
                task = self._tasks[file.path]
                self._bars.update(task, completed=file.present_bytes, facts=facts)
        total = self._plan.total_bytes if self._plan else progress.total_bytes
        done = total - progress.total_bytes + progress.present_bytes
        self._show_all("all files", done, total, _facts(progress, done, total))

    def _show_conversion(self, event: "models.events.Converting") -> None:
        done = min(event.written_bytes, event.expected_bytes)
        self._show_all("converting", done, event.expected_bytes, format_bytes(event.written_bytes))

    def _show_copy(self, event: "models.events.Copying") -> None:
        facts = f"{format_bytes(event.present_bytes)} of {format_bytes(event.total_bytes)}"
        if event.host not in self._tasks:
            self._tasks[event.host] = self._bars.add_task(
                f"to {shorten(event.host)}", total=event.total_bytes, facts=""
            )
        self._bars.update(self._tasks[event.host], completed=event.present_bytes, facts=facts)

    def _show_all(self, description: str, done: int, total: int, facts: str) -> None:
        """Keep the bar of everything below the others."""
        if self._all is not None:
            self._bars.remove_task(self._all)
        self._all = self._bars.add_task(description, total=total, completed=done, facts=facts)


def describe(event: "models.events.ModelEvent") -> str | None:
    """An event in a line, or None where it isn't worth one."""
    match event:
        case models.events.Planned():
            to_fetch = event.total_bytes - event.present_bytes
            here = (
                f", {format_bytes(event.present_bytes)} already downloaded"
                if event.present_bytes
                else ""
            )
            return f"{event.repo}: {format_bytes(to_fetch)} to download{here}"
        case models.events.Checking() if event.size_bytes >= _NOTABLE_CHECK_BYTES:
            return f"checking {event.path} ({format_bytes(event.size_bytes)})"
        case models.events.Retrying() if event.delay_s >= _NOTABLE_PAUSE_S:
            return f"{event.reason}; trying again in {event.delay_s:.0f} s"
        case models.events.Comparing():
            return f"{event.tier}: comparing it with the revision in use, which takes minutes"
        case models.events.Waiting():
            return f"Another pull of {event.repo} is running: waiting for it."
        case models.events.Unlocked():
            return (
                f"The disk of {event.folder} has no locks: don't pull the same model twice at once."
            )
        case _:
            return None


def shorten(path: str, width: int = _NAME_WIDTH) -> str:
    """A path of at most `width` characters, its middle left out: shards differ at the end."""
    if len(path) <= width:
        return path
    tail = width * 2 // 3
    return f"{path[: width - tail - 1]}…{path[-tail:]}"


def _facts(progress: "models.events.Progress", done: int, total: int) -> str:
    parts = [f"{format_bytes(done)} of {format_bytes(total)}"]
    if done == total:
        parts.append("checking")
    elif progress.rate_bytes_s is not None and progress.remaining_s is not None:
        parts.append(f"{format_bytes(int(progress.rate_bytes_s))}/s")
        parts.append(f"{format_duration(progress.remaining_s)} left")
    return ", ".join(parts)


def install_progress(output: Output) -> Callable[["engines.install.InstallEvent"], None]:
    """What shows an installation: what moves on a terminal, else a line a step."""
    latest: dict[str, str] = {}

    def show(event: "engines.install.InstallEvent") -> None:
        detail = event.detail[:_WIDEST_DETAIL]
        latest[event.engine] = f"{event.engine}: {event.step} {detail}".rstrip()
        output.spin(" · ".join(latest.values()))
        if not output.is_live and event.step in _MILESTONES:
            output.say(f"… {latest[event.engine]}")

    return show
