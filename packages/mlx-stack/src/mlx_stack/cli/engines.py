"""`mlx-stack engines`."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import click

from mlx_stack import bench, engines, exit_codes, services
from mlx_stack.cli.frame.commands import OrderedGroup
from mlx_stack.cli.frame.context import (
    Context,
    Decorator,
    examples,
    list_by_default,
    with_context,
)
from mlx_stack.cli.frame.output import Column, Output, Span
from mlx_stack.cli.views.progress import install_progress
from mlx_stack.engines.environment import EngineName
from mlx_stack.format import format_bytes

_MOST_PROBLEMS_SHOWN = 10
_ROLES = {"in-use": "in use", "previous": "for rollback", "unused": ""}
_PROBLEMS = {
    "not-whole": "was never finished, or its Python is gone",
    "lock-changed": "isn't the lock it was installed from",
    "records-changed": "lists different files than after installation",
    "package-missing": "is missing",
    "package-unexpected": "is in no lock",
    "wrong-version": "has another version",
    "file-missing": "is missing",
    "file-changed": "was changed",
    "file-unexpected": "belongs to no package",
}

_engines_argument: Decorator = click.argument(
    "names",
    metavar="[ENGINE]...",
    nargs=-1,
    type=click.Choice([engine.value for engine in EngineName]),
)
"""`[ENGINE]...`: which engines; none means those that matter here."""


def _chosen(context: Context, names: tuple[str, ...]) -> tuple[EngineName, ...]:
    if not names:
        return engines.manage.engines_here(context.home)
    return tuple(engine for engine in EngineName if engine in names)


@click.group("engines", cls=OrderedGroup, invoke_without_command=True)
@with_context()
@examples("mlx-stack engines", "mlx-stack engines upgrade")
def command(context: Context) -> None:
    """Manage vllm-mlx and LiteLLM, each in an isolated environment, pinned with hashes.

    Models that are too new for vllm-mlx are served by mlx-lm, which is installed once a tier needs
    it. Without a COMMAND, list them.
    """
    list_by_default(context)


@command.command("list", short_help="Show what is installed, and how much disk space it uses.")
@with_context()
@examples("mlx-stack engines list", "mlx-stack engines list --json")
def list_command(context: Context) -> None:
    """Show what is installed, what is in use, and how much disk space it takes."""
    context.output.show(engines.manage.list_engines(context.home), _show_list)


def _show_list(output: Output, listed: "engines.manage.EngineList") -> None:
    columns = [Column(name) for name in ("Engine", "Version", "State", "Use", "Installed")]
    rows: list[list[Span]] = []
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


def _advice(rows: "Sequence[engines.manage.EngineRow]") -> Iterator[str]:
    """What to do about engines, if anything."""
    absent = [row for row in rows if row.state in ("missing", "broken")]
    if absent:
        names = " and ".join(f"{row.name} {row.shipped_version}" for row in absent)
        yield f"`mlx-stack doctor --fix` installs {names}."
    outdated = [row for row in rows if row.state == "outdated"]
    if outdated:
        names = " and ".join(f"{row.name} {row.shipped_version}" for row in outdated)
        yield (
            f"This mlx-stack was tested with {names}: `mlx-stack engines upgrade` installs and "
            "tests them, then switches."
        )


@command.command("install", hidden=True, short_help="Install the versions of this release.")
@_engines_argument
@click.option(
    "--reinstall", is_flag=True, help="Reinstall from scratch; repairs what `verify` finds."
)
@with_context()
@examples("mlx-stack engines install", "mlx-stack engines install vllm-mlx --reinstall")
def install_command(context: Context, names: tuple[str, ...], *, reinstall: bool) -> None:
    """Install the versions that mlx-stack was released with. Intact ones are kept."""
    with context.output.waiting("Installing"):
        done = engines.manage.install_engines(
            context.home,
            engines.uv_process.own_toolchain(),
            only=_chosen(context, names),
            reinstall=reinstall,
            on_event=install_progress(context.output),
        )
    context.output.show(done, _show_installed)


def _show_installed(
    output: Output, done: "engines.manage.EngineResults[engines.manage.InstalledEngine]"
) -> None:
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


@command.command("verify", hidden=True, short_help="Compare every file with the lock.")
@_engines_argument
@with_context()
@examples("mlx-stack engines verify", "mlx-stack engines verify litellm")
def verify_command(context: Context, names: tuple[str, ...]) -> int:
    """Compare every file of what is in use with the lock. Exits with 1 if something differs."""
    with context.output.waiting("Comparing every file"):
        verified = engines.manage.verify_engines(context.home, only=_chosen(context, names))
    context.output.show(verified, _show_verified)
    return exit_codes.DONE if all(each.ok for each in verified.engines) else exit_codes.FAILED


def _show_verified(
    output: Output, verified: "engines.manage.EngineResults[engines.verify.EngineVerification]"
) -> None:
    for each in verified.engines:
        name = f"{each.environment.engine} {each.environment.version}"
        if each.ok:
            text = f"{name}: {each.packages} packages, {each.files:,} files as locked"
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
        output.answer("  `mlx-stack down`, then `mlx-stack doctor --fix` reinstalls it.")


def _words(problem: "engines.verify.LockDifference") -> str:
    detail = f" ({problem.detail})" if problem.detail else ""
    return f"{problem.what} {_PROBLEMS[problem.kind]}{detail}"


@command.command("upgrade", short_help="Install new versions, test them, and switch to them.")
@_engines_argument
@click.option("--force", "is_forced", is_flag=True, help="Switch even if a tier performs worse.")
@with_context()
@examples("mlx-stack engines upgrade", "mlx-stack engines upgrade vllm-mlx")
def upgrade_command(context: Context, names: tuple[str, ...], *, is_forced: bool) -> None:
    """Install the released versions next to those in use, test them, and switch to them.

    First they must answer a question, with a model of your stack if memory allows, or otherwise
    with the embedded one. Then they serve each tier that fits in memory next to the running
    services. They are only switched in if the check, the greedy answers, the speed and the peak
    memory are as good as before. The previous version is kept for `rollback`.
    """
    toolchain = engines.uv_process.own_toolchain()

    def check(pair: "engines.manage.EnginePair") -> "engines.manage.HealthReport":
        health = services.engine_health.check_health(context.opened, pair, toolchain)
        tiers = bench.certify.certify(context.opened, pair, on_progress=show)
        if not is_forced:
            bench.certify.require_as_good(tiers)
        return replace(health, tiers=tiers)

    with context.output.waiting("Installing") as show:
        done = engines.manage.upgrade_engines(
            context.home,
            toolchain,
            check,
            only=_chosen(context, names),
            on_event=install_progress(context.output),
        )
    context.output.show(done, _show_switched)


def _show_switched(output: Output, done: "engines.manage.SwitchedEngines") -> None:
    if done.health is not None:
        answer = " ".join(done.health.answer.split())
        text = f"{done.health.model} answered {answer!r} after {done.health.seconds:.1f} s"
        output.answer(("✓", "green"), f" {text}")
        for tier in done.health.tiers:
            _show_certified(output, tier)
    for switch in done.switches:
        sign = ("✓", "green") if switch.changed else ("-", "dim")
        output.answer(sign, f" {_switch_words(switch)}")
    if done.restart:
        names = ", ".join(done.restart)
        output.answer(f"\n{names} still run the other version: `mlx-stack up` restarts them.")


def _show_certified(output: Output, tier: "engines.manage.CertifiedTier") -> None:
    if tier.skipped is not None:
        output.answer(("-", "dim"), f" {tier.tier} was not compared: {tier.skipped}")
    elif not tier.worse:
        verdict = f" ({tier.verdict})" if tier.verdict else ""
        output.answer(("✓", "green"), f" {tier.tier} performs as well as before{verdict}")
    for each in tier.worse:
        output.answer(("✗", "red"), f" {tier.tier}: {each.figure}: {each.words}")


def _switch_words(switch: "engines.manage.EngineSwitch") -> str:
    if not switch.changed:
        return f"{switch.name} {switch.after} was already in use"
    if switch.before is None:
        return f"{switch.name} {switch.after} is in use"
    return f"{switch.name} {switch.after} is in use, {switch.before} is kept for rollback"


@command.command("rollback", short_help="Go back to the previous versions.")
@_engines_argument
@with_context()
@examples("mlx-stack engines rollback", "mlx-stack engines rollback vllm-mlx")
def rollback_command(context: Context, names: tuple[str, ...]) -> None:
    """Go back to the previous versions; run it again to undo this."""
    done = engines.manage.rollback_engines(context.home, only=_chosen(context, names))
    context.output.show(done, _show_switched)


@command.command("prune", hidden=True, short_help="Remove old environments.")
@_engines_argument
@click.option("--previous", is_flag=True, help="Also remove what is kept for `rollback`.")
@with_context()
@examples("mlx-stack engines prune", "mlx-stack engines prune --previous")
def prune_command(context: Context, names: tuple[str, ...], *, previous: bool) -> None:
    """Remove environments that are neither in use nor kept for `rollback`."""
    done = engines.manage.prune_engines(
        context.home,
        engines.uv_process.own_toolchain(),
        previous=previous,
        only=_chosen(context, names),
    )
    context.output.show(done, _show_pruned)


def _show_pruned(output: Output, done: "engines.manage.PrunedEngines") -> None:
    for row in done.removed:
        name = f"{row.path.parent.name} {row.version}"
        output.answer(("✓", "green"), f" {name} removed ({format_bytes(row.disk_bytes)})")
    if done.kept_running:
        names = ", ".join(done.kept_running)
        output.answer(f"Kept what {names} still run from: `mlx-stack up` restarts them.")
    elif not done.removed:
        output.answer("Nothing to remove.")
