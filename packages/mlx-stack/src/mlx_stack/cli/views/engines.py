"""How the commands of `engines` show what they do and what came of it."""

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Self

from mlx_stack.cli.frame.output import Output
from mlx_stack.cli.views.format import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.status import Status

    from mlx_stack.engines.install import InstallEvent
    from mlx_stack.engines.manage import (
        EngineRow,
        Installed,
        Pruned,
        Switch,
        Switched,
    )
    from mlx_stack.engines.verify import Problem, Verification

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


def show_list(output: Output, rows: "Sequence[EngineRow]", *, free_bytes: int) -> None:
    """The answer of `engines list`."""
    if output.json:
        document: dict[str, object] = {"engines": [row.to_json() for row in rows]}
        output.document({**document, "free_disk_bytes": free_bytes})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("Engine", "Version", "State", "Use", "Installed"):
        table.add_column(heading)
    table.add_column("Disk", justify="right")
    for row in rows:
        if not row.environments:
            table.add_row(row.name, "", "not installed", "", "", "")
        for each in row.environments:
            installed = (each.installed_at or "")[:10]
            use, disk = _ROLES[each.role], format_bytes(each.disk_bytes)
            table.add_row(row.name, each.version, each.state, use, installed, disk)
    output.answer(table)
    for line in _advice(rows):
        output.answer(_plain(f"\n{line}"))


def show_installed(output: Output, done: "Sequence[Installed]") -> None:
    """The answer of `engines install`."""
    if output.json:
        output.document({"engines": [_installed_json(each) for each in done]})
        return
    words = {
        "installed": "installed",
        "already-installed": "was installed already",
        "repaired": "installed anew",
    }
    for each in done:
        name, version = each.environment.engine, each.environment.version
        _line(output, "✓", "green", f"{name} {version} {words[each.outcome]}")
        if not each.is_in_use:
            output.answer(f"  {each.in_use} is in use: `mlx-stack engines upgrade` switches.")


def show_verifications(output: Output, verifications: "Sequence[Verification]") -> None:
    """The answer of `engines verify`."""
    if output.json:
        output.document({"engines": [_verification_json(each) for each in verifications]})
        return
    for each in verifications:
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


def show_switched(output: Output, done: "Switched") -> None:
    """The answer of `engines upgrade` and `engines rollback`."""
    if output.json:
        health = None if done.health is None else asdict(done.health)
        switches = [asdict(each) for each in done.switches]
        output.document({"engines": switches, "health": health, "restart": list(done.restart)})
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
            _plain(f"\n{names} still run the other version: `mlx-stack up` changes that.")
        )


def show_pruned(output: Output, done: "Pruned") -> None:
    """The answer of `engines prune`."""
    if output.json:
        removed = [{**asdict(row), "path": str(row.path)} for row in done.removed]
        kept = list(done.kept_running)
        output.document({"removed": removed, "kept_for_services": kept})
        return
    for row in done.removed:
        name = f"{row.path.parent.name} {row.version}"
        _line(output, "✓", "green", f"{name} removed ({format_bytes(row.disk_bytes)})")
    if done.kept_running:
        names = ", ".join(done.kept_running)
        output.answer(_plain(f"Kept what {names} still run from: `mlx-stack up` changes that."))
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
            "tries them, then switches."
        )


def _switch_words(switch: "Switch") -> str:
    if not switch.changed:
        return f"{switch.name} {switch.after} was in use already"
    if switch.before is None:
        return f"{switch.name} {switch.after} is in use"
    return f"{switch.name} {switch.after} is in use, {switch.before} is kept for rollback"


def _words(problem: "Problem") -> str:
    detail = f" ({problem.detail})" if problem.detail else ""
    return f"{problem.what} {_PROBLEMS[problem.kind]}{detail}"


def _installed_json(each: "Installed") -> dict[str, object]:
    return {
        "name": each.environment.engine,
        "version": each.environment.version,
        "outcome": each.outcome,
        "in_use": each.is_in_use,
        "path": str(each.environment.path),
        "disk_bytes": each.environment.disk_bytes(),
        "seconds": round(each.seconds, 3),
    }


def _verification_json(each: "Verification") -> dict[str, object]:
    return {
        "name": each.environment.engine,
        "version": each.environment.version,
        "path": str(each.environment.path),
        "ok": each.ok,
        "packages": each.packages,
        "files": each.files,
        "problems": [asdict(problem) for problem in each.problems],
    }


def _line(output: Output, sign: str, colour: str, text: str) -> None:
    from rich.text import Text

    output.answer(Text.assemble((f"{sign} ", colour), text))


def _plain(text: str) -> str:
    """`text` with what Rich would take for markup escaped."""
    from rich.markup import escape

    return escape(text)
