"""`mlx-stack init`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import override

import click

from mlx_stack import planning
from mlx_stack.cli.frame.context import Context, confirm_or_stop, examples, with_context
from mlx_stack.cli.frame.options import complete_models, complete_tiers
from mlx_stack.cli.frame.output import Output
from mlx_stack.cli.frame.planning_options import planning_options
from mlx_stack.cli.views.planning import show_draft
from mlx_stack.errors import UsageError


@dataclass(slots=True)
class _Added:
    """A model, the tier that is to serve it, and the Macs that it is divided between."""

    model: str
    tier: str | None = None
    hosts: list[str] = field(default_factory=list[str])


_KEY = "mlx_stack.additions"


class _InitCommand(click.Command):
    """A command whose `--as` and `--host` belong to the `--add` before them.

    Click gives repeated options as two lists, in which one left out can't be seen.
    """

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)  # click takes them away as it reads them
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:  # the shell completes a line that is not finished
            values, _, order = self.make_parser(ctx).parse_args(given)
            added: list[_Added] = []
            for option in order:
                if option.name == "_added":
                    added.append(_Added(values["_added"].pop(0)))
                elif option.name == "_names":
                    tier = values["_names"].pop(0)
                    if not added or added[-1].tier is not None:
                        message = f"--as {tier} must come after the --add it belongs to."
                        raise click.UsageError(message, ctx)
                    added[-1].tier = tier
                elif option.name == "_hosts":
                    host = values["_hosts"].pop(0)
                    if not added:
                        message = f"--host {host} must come after the --add it belongs to."
                        raise click.UsageError(message, ctx)
                    added[-1].hosts.append(host)
            ctx.meta[_KEY] = added
        return rest


@click.command("init", cls=_InitCommand)
@click.option(
    "--accept-defaults", "-y", is_flag=True, help="Don't ask questions; use the defaults."
)
@planning_options(
    budget_help="Memory budget for all tiers, e.g. 30gb.",
    context_help="Context length of every new chat tier, in tokens.",
)
@click.option(
    "--add",
    "_added",
    multiple=True,
    metavar="MODEL",
    shell_complete=complete_models,
    help="Serve this model too: a catalog ID, a Hub repo or a folder. Repeatable.",
)
@click.option(
    "--as",
    "_names",
    multiple=True,
    metavar="TIER",
    help="Tier name for the preceding --add; replaces a tier of that name.",
)
@click.option(
    "--host",
    "_hosts",
    multiple=True,
    metavar="HOST[=ADDRESS]",
    help="Divide the model of the preceding --add between this Mac and HOST, a name that ssh "
    "knows; ADDRESS is its IPv4 address on the link between the Macs. Repeatable.",
)
@click.option(
    "--private-link",
    "--i-know",
    "link_is_private",
    is_flag=True,
    help="With --host: confirm that no one can eavesdrop between the Macs, even if there are "
    "routers.",
)
@click.option(
    "--remove",
    "removals",
    multiple=True,
    metavar="TIER",
    shell_complete=complete_tiers,
    help="Remove a tier. Repeatable.",
)
@click.option(
    "--import",
    "imported",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Import the models from a stack file written by mlx-stack 0.3.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Replace the stack that is defined; with --add, accept a model that doesn't fit.",
)
@with_context()
@examples("mlx-stack init", "mlx-stack init --add qwen3-coder-30b-a3b --as coder")
def command(
    context: Context,
    constraints: "planning.recommend.Constraints",
    _added: tuple[str, ...],
    _names: tuple[str, ...],
    _hosts: tuple[str, ...],
    removals: tuple[str, ...],
    imported: Path | None,
    *,
    accept_defaults: bool,
    force: bool,
    link_is_private: bool,
) -> None:
    """Define a stack: the recommended tiers, each on a free port.

    Writes stacks/default.yaml and litellm.yaml in the state folder. An existing
    stack is only replaced with --force; --add and --remove change it and leave its other tiers
    alone.
    A model that needs more memory than the GPU may use is refused without --force.
    """
    init, opened = planning.init, context.opened
    added: list[_Added] = click.get_current_context().meta[_KEY]
    if link_is_private and not any(each.hosts for each in added):
        raise UsageError("--private-link only works with --host.")
    foreign = init.read_foreign_stack(opened, imported) if imported else ()
    draft = init.draft_stack(
        opened,
        constraints,
        additions=(
            *foreign,
            *(
                init.Addition(
                    each.model, each.tier, tuple(each.hosts), link_is_private=link_is_private
                )
                for each in added
            ),
        ),
        removals=removals,
        only_additions=bool(foreign),
        replaces=force and (bool(foreign) or not (added or removals)),
        allows_too_large=force,
    )
    show_draft(context.output, draft)
    if not accept_defaults and context.may_ask:
        confirm_or_stop("Write this stack?")
    if imported is not None:
        init.keep_copy(imported)
    init.write_draft(opened, draft)
    context.output.show(draft, _show_written)


def _show_written(output: Output, draft: "planning.init.Draft") -> None:
    output.say(f"\nWrote {draft.home.stack}.")
    forced = " --force" if draft.is_too_large else ""
    if draft.pulls:
        pulls = ", ".join(f"`mlx-stack pull {name}`" for name in draft.pulls)
        output.say(f"Next: {pulls}, then `mlx-stack up{forced}`.")
    else:
        output.say(f"`mlx-stack up{forced}` starts it.")
