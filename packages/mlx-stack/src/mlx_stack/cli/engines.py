"""`mlx-stack engines`."""

import click

from mlx_stack import engines, exit_codes, services
from mlx_stack.cli.frame.context import (
    Context,
    Decorator,
    json_option,
    list_by_default,
    with_context,
)
from mlx_stack.cli.frame.groups import OrderedGroup
from mlx_stack.cli.views.engines import (
    install_progress,
    show_installed,
    show_list,
    show_pruned,
    show_switched,
    show_verified,
)
from mlx_stack.engines.environment import EngineName

_engines_argument: Decorator = click.argument(
    "names",
    metavar="[ENGINE]...",
    nargs=-1,
    type=click.Choice([engine.value for engine in EngineName]),
)
"""`[ENGINE]...`: which engines; none means all."""


def _chosen(names: tuple[str, ...]) -> tuple[EngineName, ...]:
    return tuple(engine for engine in EngineName if not names or engine in names)


@click.group("engines", cls=OrderedGroup, invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context, *, json: bool) -> None:
    """Manage vllm-mlx and LiteLLM, each in an isolated environment, pinned with hashes.

    Without a COMMAND, list them.
    """
    list_by_default(ctx, json=json)


@command.command("list", short_help="Show what is installed and its disk use.")
@with_context()
def list_command(context: Context) -> None:
    """Show what is installed, what is in use, and its disk use."""
    context.output.show(engines.manage.list_engines(context.home), show_list)


@command.command("install", short_help="Install the versions of this release.")
@_engines_argument
@click.option(
    "--reinstall", is_flag=True, help="Reinstall from scratch; repairs what `verify` finds."
)
@with_context()
def install_command(context: Context, names: tuple[str, ...], *, reinstall: bool) -> None:
    """Install the versions that mlx-stack was released with. Intact ones are kept."""
    with context.output.waiting("Installing"):
        done = engines.manage.install_engines(
            context.home,
            engines.uv_process.own_toolchain(),
            only=_chosen(names),
            reinstall=reinstall,
            on_event=install_progress(context.output),
        )
    context.output.show(done, show_installed)


@command.command("verify", short_help="Compare every file with the lock.")
@_engines_argument
@with_context()
def verify_command(context: Context, names: tuple[str, ...]) -> int:
    """Compare every file of what is in use with the lock. Exits with 1 if something differs."""
    with context.output.waiting("Comparing every file"):
        verified = engines.manage.verify_engines(context.home, only=_chosen(names))
    context.output.show(verified, show_verified)
    return exit_codes.DONE if all(each.ok for each in verified.engines) else exit_codes.FAILED


@command.command("upgrade", short_help="Install alongside, test, switch.")
@_engines_argument
@with_context()
def upgrade_command(context: Context, names: tuple[str, ...]) -> None:
    """Install the released versions next to those in use, test them, and switch to them.

    They are asked a question first, by a model of your stack if memory allows, else by the
    embedded one. The version in use before is kept for `rollback`.
    """
    toolchain = engines.uv_process.own_toolchain()
    check_health = services.engine_health.check_health
    with context.output.waiting("Installing"):
        done = engines.manage.upgrade_engines(
            context.home,
            toolchain,
            lambda pair: check_health(context.opened, pair, toolchain),
            only=_chosen(names),
            on_event=install_progress(context.output),
        )
    context.output.show(done, show_switched)


@command.command("rollback", short_help="Go back to the previous versions.")
@_engines_argument
@with_context()
def rollback_command(context: Context, names: tuple[str, ...]) -> None:
    """Go back to the versions that were in use before; again to undo that."""
    done = engines.manage.rollback_engines(context.home, only=_chosen(names))
    context.output.show(done, show_switched)


@command.command("prune", short_help="Remove old environments.")
@_engines_argument
@click.option("--previous", is_flag=True, help="Also what is kept for `rollback`.")
@with_context()
def prune_command(context: Context, names: tuple[str, ...], *, previous: bool) -> None:
    """Remove environments that are neither in use nor kept for `rollback`."""
    done = engines.manage.prune_engines(
        context.home,
        engines.uv_process.own_toolchain(),
        previous=previous,
        only=_chosen(names),
    )
    context.output.show(done, show_pruned)
