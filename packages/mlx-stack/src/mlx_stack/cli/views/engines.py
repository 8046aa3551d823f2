"""How the commands of `engines` show what they do and what came of it."""

from collections import Counter
from typing import TYPE_CHECKING, Self

from mlx_stack.cli.frame.output import Output
from mlx_stack.cli.views.format import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.status import Status

    from mlx_stack.engines.install import InstallEvent
    from mlx_stack.engines.manage import (
        EngineList,
        EngineResults,
        EngineRow,
        EngineSwitch,
        InstalledEngine,
        PrunedEngines,
        SwitchedEngines,
    )
    from mlx_stack.engines.verify import EngineVerification, LockDifference

_MOST_PROBLEMS_SHOWN = 10
_WIDEST_DETAIL = 30
_ROLES = {"in-use": "in use", "previous": "for rollback", "unused": ""}
_PROBLEMS = {
    "not-whole": "was never finished, or its Python is gone",
    "lock-changed": "is not the lock that it was made from",
    "records-changed": "lists other files than after the installation",
    "package-missing": "is missing",
    "package-unexpected": "is in no lock",
    "wrong-version": "has another version",
    "file-missing": "is missing",
    "file-changed": "was changed",
    "file-unexpected": "belongs to no package",
}


class InstallProgress:
    """Shows an installation: a spinner with what moves on a terminal, else a line a step."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._spinner: Status | None = None
        self._latest: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._output.is_live:
            self._spinner = self._output.talk.status("Installing")
            self._spinner.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._spinner is not None:
            self._spinner.stop()

    def show(self, event: "InstallEvent") -> None:
        """Tell of a step; from any thread."""
        detail = event.detail[:_WIDEST_DETAIL]
        self._latest[event.engine] = f"{event.engine}: {event.step} {detail}".rstrip()
        if self._spinner is not None:
            self._spinner.update(_plain(" · ".join(self._latest.values())))
        elif event.step in ("waiting", "creating", "installing"):
            self._output.say(_plain(f"… {self._latest[event.engine]}"))

    def say(self, what: str) -> None:
        """Tell what happens now."""
        if self._spinner is not None:
            self._spinner.update(what)
        else:
            self._output.say(f"… {what}")


def show_list(output: Output, listed: "EngineList") -> None:
    """The answer of `engines list`."""
    if output.json:
        output.document(listed.to_document())
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("Engine", "Version", "State", "Use", "Installed"):
        table.add_column(heading)
    table.add_column("Disk", justify="right")
    for row in listed.engines:
        if not row.environments:
            table.add_row(row.name, "", "not installed", "", "", "")
        for each in row.environments:
            installed = (each.installed_at or "")[:10]
            use, disk = _ROLES[each.role], format_bytes(each.disk_bytes)
            table.add_row(row.name, each.version, each.state, use, installed, disk)
    output.answer(table)
    for line in _advice(listed.engines):
        output.answer(_plain(f"\n{line}"))


def show_installed(output: Output, done: "EngineResults[InstalledEngine]") -> None:
    """The answer of `engines install`."""
    if output.json:
        output.document(done.to_document())
        return
    words = {
        "installed": "installed",
        "already-installed": "was already installed",
        "repaired": "reinstalled",
    }
    for each in done.engines:
        name, version = each.environment.engine, each.environment.version
        _line(output, "✓", "green", f"{name} {version} {words[each.outcome]}")
        if not each.is_in_use:
            output.answer(
                f"  {each.in_use.version} is in use: `mlx-stack engines upgrade` switches."
            )


def show_verifications(output: Output, done: "EngineResults[EngineVerification]") -> None:
    """The answer of `engines verify`."""
    if output.json:
        output.document(done.to_document())
        return
    for each in done.engines:
        name = f"{each.environment.engine} {each.environment.version}"
        if each.ok:
            text = f"{name}: {each.packages} packages, {each.files} files as locked"
            _line(output, "✓", "green", text)
            continue
        kinds = Counter(_PROBLEMS[problem.kind] for problem in each.problems)
        count = len(each.problems)
        differences = "1 difference" if count == 1 else f"{count} differences"
        _line(output, "✗", "red", f"{name}: {differences} from the lock")
        for problem in each.problems[:_MOST_PROBLEMS_SHOWN]:
            output.answer(_plain(f"    {_words(problem)}"))
        if len(each.problems) > _MOST_PROBLEMS_SHOWN:
            summary = ", ".join(f"{count}x {words}" for words, count in kinds.items())
            output.answer(_plain(f"    … in all: {summary}"))
        repair = f"mlx-stack engines install {each.environment.engine} --reinstall"
        output.answer(_plain(f"  Repair it with `{repair}`."))


def show_switched(output: Output, done: "SwitchedEngines") -> None:
    """The answer of `engines upgrade` and `engines rollback`."""
    if output.json:
        output.document(done.to_document())
        return
    if done.health is not None:
        answer = " ".join(done.health.answer.split())
        text = f"{done.health.model} answered {answer!r} after {done.health.seconds:.1f} s"
        _line(output, "✓", "green", text)
    for switch in done.switches:
        sign = "✓" if switch.changed else "-"
        _line(output, sign, "green" if switch.changed else "dim", _switch_words(switch))
    if done.restart:
        names = ", ".join(done.restart)
        output.answer(
            _plain(f"\n{names} still run the other version: `mlx-stack up` restarts them.")
        )


def show_pruned(output: Output, done: "PrunedEngines") -> None:
    """The answer of `engines prune`."""
    if output.json:
        output.document(done.to_document())
        return
    for row in done.removed:
        name = f"{row.path.parent.name} {row.version}"
        _line(output, "✓", "green", f"{name} removed ({format_bytes(row.disk_bytes)})")
    if done.kept_running:
        names = ", ".join(done.kept_running)
        output.answer(_plain(f"Kept what {names} still run from: `mlx-stack up` restarts them."))
    elif not done.removed:
        output.answer("Nothing to remove.")


def _advice(rows: "Sequence[EngineRow]") -> "Iterator[str]":
    """What to do about engines, if anything."""
    absent = [row for row in rows if row.state in ("missing", "broken")]
    if absent:
        names = " and ".join(f"{row.name} {row.shipped_version}" for row in absent)
        yield f"`mlx-stack engines install` installs {names}."
    outdated = [row for row in rows if row.state == "outdated"]
    if outdated:
        names = " and ".join(f"{row.name} {row.shipped_version}" for row in outdated)
        yield (
            f"This mlx-stack was tested with {names}: `mlx-stack engines upgrade` installs and "
            "tests them, then switches."
        )


def _switch_words(switch: "EngineSwitch") -> str:
    if not switch.changed:
        return f"{switch.name} {switch.after} was already in use"
    if switch.before is None:
        return f"{switch.name} {switch.after} is in use"
    return f"{switch.name} {switch.after} is in use, {switch.before} is kept for rollback"


def _words(problem: "LockDifference") -> str:
    detail = f" ({problem.detail})" if problem.detail else ""
    return f"{problem.what} {_PROBLEMS[problem.kind]}{detail}"


def _line(output: Output, sign: str, colour: str, text: str) -> None:
    from rich.text import Text

    output.answer(Text.assemble((f"{sign} ", colour), text))


def _plain(text: str) -> str:
    """`text` with what Rich would take for markup escaped."""
    from rich.markup import escape

    return escape(text)
