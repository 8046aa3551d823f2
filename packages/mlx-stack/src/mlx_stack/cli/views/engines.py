"""How the commands of `engines` show what they do and what came of it."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from mlx_stack import engines
from mlx_stack.cli.frame.output import Column, Output, Part
from mlx_stack.format import format_bytes

_MOST_PROBLEMS_SHOWN = 10
_WIDEST_DETAIL = 30
_MILESTONES = ("waiting", "creating", "installing", "asking")
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


def show_list(output: Output, listed: "engines.manage.EngineList") -> None:
    """The answer of `engines list`."""
    columns = [Column(name) for name in ("Engine", "Version", "State", "Use", "Installed")]
    rows: list[list[Part]] = []
    for row in listed.engines:
        if not row.environments:
            rows.append([row.name, "", "not installed", "", "", ""])
        for each in row.environments:
            installed = (each.installed_at or "")[:10]
            use, disk = _ROLES[each.role], format_bytes(each.disk_bytes)
            rows.append([row.name, each.version, each.state, use, installed, disk])
    output.table([*columns, Column("Disk", right=True)], rows)
    for line in _advice(listed.engines):
        output.answer(f"\n{line}")


def show_installed(
    output: Output, done: "engines.manage.EngineResults[engines.manage.InstalledEngine]"
) -> None:
    """The answer of `engines install`."""
    words = {
        "installed": "installed",
        "already-installed": "was already installed",
        "repaired": "reinstalled",
    }
    for each in done.engines:
        name, version = each.environment.engine, each.environment.version
        output.answer(("✓", "green"), f" {name} {version} {words[each.outcome]}")
        if not each.is_in_use:
            output.answer(
                f"  {each.in_use.version} is in use: `mlx-stack engines upgrade` switches."
            )


def show_verified(
    output: Output, verified: "engines.manage.EngineResults[engines.verify.EngineVerification]"
) -> None:
    """The answer of `engines verify`."""
    for each in verified.engines:
        name = f"{each.environment.engine} {each.environment.version}"
        if each.ok:
            text = f"{name}: {each.packages} packages, {each.files} files as locked"
            output.answer(("✓", "green"), f" {text}")
            continue
        kinds = Counter(_PROBLEMS[problem.kind] for problem in each.problems)
        count = len(each.problems)
        differences = "1 difference" if count == 1 else f"{count} differences"
        output.answer(("✗", "red"), f" {name}: {differences} from the lock")
        for problem in each.problems[:_MOST_PROBLEMS_SHOWN]:
            output.answer(f"    {_words(problem)}")
        if len(each.problems) > _MOST_PROBLEMS_SHOWN:
            summary = ", ".join(f"{count}x {words}" for words, count in kinds.items())
            output.answer(f"    … in all: {summary}")
        repair = f"mlx-stack engines install {each.environment.engine} --reinstall"
        output.answer(f"  Repair it with `{repair}`.")


def show_switched(output: Output, done: "engines.manage.SwitchedEngines") -> None:
    """The answer of `engines upgrade` and `engines rollback`."""
    if done.health is not None:
        answer = " ".join(done.health.answer.split())
        text = f"{done.health.model} answered {answer!r} after {done.health.seconds:.1f} s"
        output.answer(("✓", "green"), f" {text}")
    for switch in done.switches:
        sign = ("✓", "green") if switch.changed else ("-", "dim")
        output.answer(sign, f" {_switch_words(switch)}")
    if done.restart:
        names = ", ".join(done.restart)
        output.answer(f"\n{names} still run the other version: `mlx-stack up` restarts them.")


def show_pruned(output: Output, done: "engines.manage.PrunedEngines") -> None:
    """The answer of `engines prune`."""
    for row in done.removed:
        name = f"{row.path.parent.name} {row.version}"
        output.answer(("✓", "green"), f" {name} removed ({format_bytes(row.disk_bytes)})")
    if done.kept_running:
        names = ", ".join(done.kept_running)
        output.answer(f"Kept what {names} still run from: `mlx-stack up` restarts them.")
    elif not done.removed:
        output.answer("Nothing to remove.")


def _advice(rows: "Sequence[engines.manage.EngineRow]") -> Iterator[str]:
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


def _switch_words(switch: "engines.manage.EngineSwitch") -> str:
    if not switch.changed:
        return f"{switch.name} {switch.after} was already in use"
    if switch.before is None:
        return f"{switch.name} {switch.after} is in use"
    return f"{switch.name} {switch.after} is in use, {switch.before} is kept for rollback"


def _words(problem: "engines.verify.LockDifference") -> str:
    detail = f" ({problem.detail})" if problem.detail else ""
    return f"{problem.what} {_PROBLEMS[problem.kind]}{detail}"
