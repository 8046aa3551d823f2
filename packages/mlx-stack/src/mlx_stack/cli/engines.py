"""`mlx-stack engines`."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from mlx_stack import exit_codes
from mlx_stack.cli.frame.context import (
    hand_down_json,
    json_option,
    open_context,
    quiet_option,
)
from mlx_stack.cli.frame.suggest import SuggestingGroup

if TYPE_CHECKING:
    from mlx_stack.engines.environment import EngineName

_NAMES = ("vllm-mlx", "litellm")


def _engine_argument(function: Callable[..., object]) -> Callable[..., object]:
    """`[ENGINE]...`: which engines; none means all."""
    return click.argument("names", metavar="[ENGINE]...", nargs=-1, type=click.Choice(_NAMES))(
        function
    )


def _chosen(names: tuple[str, ...]) -> "tuple[EngineName, ...]":
    from mlx_stack.engines.environment import EngineName

    return tuple(engine for engine in EngineName if not names or engine in names)


@click.group("engines", cls=SuggestingGroup, invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context, *, json: bool) -> None:
    """Manage vllm-mlx and LiteLLM, each in an isolated environment, pinned with hashes.

    Without a COMMAND, list them.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_command, json=json)
    hand_down_json(ctx, json=json)


@command.command("list", short_help="Show what is installed and its disk use.")
@json_option
@quiet_option
def list_command(*, json: bool, quiet: bool) -> int:
    """Show what is installed, what is in use, and its disk use."""
    from mlx_stack.cli.views.engines import show_list
    from mlx_stack.engines.manage import list_engines

    context = open_context(json=json, quiet=quiet)
    show_list(context.output, list_engines(context.home))
    return exit_codes.DONE


@command.command("install", short_help="Install the versions of this release.")
@_engine_argument
@click.option(
    "--reinstall", is_flag=True, help="Reinstall from scratch; repairs what `verify` finds."
)
@json_option
@quiet_option
def install_command(names: tuple[str, ...], *, reinstall: bool, json: bool, quiet: bool) -> int:
    """Install the versions that mlx-stack was released with. Intact ones are kept."""
    from mlx_stack.cli.views.engines import InstallProgress, show_installed
    from mlx_stack.engines.manage import install_engines
    from mlx_stack.engines.uv_process import own_toolchain

    context = open_context(json=json, quiet=quiet)
    with InstallProgress(context.output) as progress:
        done = install_engines(
            context.home,
            own_toolchain(),
            only=_chosen(names),
            reinstall=reinstall,
            on_event=progress.show,
        )
    show_installed(context.output, done)
    return exit_codes.DONE


@command.command("verify", short_help="Compare every file with the lock.")
@_engine_argument
@json_option
@quiet_option
def verify_command(names: tuple[str, ...], *, json: bool, quiet: bool) -> int:
    """Compare every file of what is in use with the lock. Exits with 1 if something differs."""
    from mlx_stack.cli.views.engines import show_verifications
    from mlx_stack.engines.manage import verify_engines

    context = open_context(json=json, quiet=quiet)
    with context.output.waiting("Comparing every file"):
        done = verify_engines(context.home, only=_chosen(names))
    show_verifications(context.output, done)
    return exit_codes.DONE if all(each.ok for each in done.engines) else exit_codes.FAILED


@command.command("upgrade", short_help="Install alongside, test, switch.")
@_engine_argument
@json_option
@quiet_option
def upgrade_command(names: tuple[str, ...], *, json: bool, quiet: bool) -> int:
    """Install the released versions next to those in use, test them, and switch to them.

    They are asked a question first, by a model of your stack if memory allows, else by the
    embedded one. The version in use before is kept for `rollback`.
    """
    import psutil

    from mlx_stack.cli.views.engines import InstallProgress, show_switched
    from mlx_stack.engines.manage import EnginePair, HealthReport, upgrade_engines
    from mlx_stack.engines.uv_process import own_toolchain
    from mlx_stack.services.engine_health import check_health

    context = open_context(json=json, quiet=quiet)
    toolchain = own_toolchain()
    with InstallProgress(context.output) as progress:

        def check(pair: EnginePair) -> HealthReport:
            progress.say("Asking the new version a question")
            available_bytes = psutil.virtual_memory().available
            return check_health(context.opened, pair, toolchain, available_bytes=available_bytes)

        done = upgrade_engines(
            context.home, toolchain, check, only=_chosen(names), on_event=progress.show
        )
    show_switched(context.output, done)
    return exit_codes.DONE


@command.command("rollback", short_help="Go back to the previous versions.")
@_engine_argument
@json_option
@quiet_option
def rollback_command(names: tuple[str, ...], *, json: bool, quiet: bool) -> int:
    """Go back to the versions that were in use before; again to undo that."""
    from mlx_stack.cli.views.engines import show_switched
    from mlx_stack.engines.manage import rollback_engines

    context = open_context(json=json, quiet=quiet)
    show_switched(context.output, rollback_engines(context.home, only=_chosen(names)))
    return exit_codes.DONE


@command.command("prune", short_help="Remove old environments.")
@_engine_argument
@click.option("--previous", is_flag=True, help="Also what is kept for `rollback`.")
@json_option
@quiet_option
def prune_command(names: tuple[str, ...], *, previous: bool, json: bool, quiet: bool) -> int:
    """Remove environments that are neither in use nor kept for `rollback`."""
    from mlx_stack.cli.views.engines import show_pruned
    from mlx_stack.engines.manage import prune_engines
    from mlx_stack.engines.uv_process import own_toolchain

    context = open_context(json=json, quiet=quiet)
    only = _chosen(names)
    show_pruned(
        context.output, prune_engines(context.home, own_toolchain(), previous=previous, only=only)
    )
    return exit_codes.DONE
