"""`mlx-stack init`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_stack.cli.frame.completion import complete_models, complete_tiers
from mlx_stack.cli.frame.context import json_option, open_context, quiet_option
from mlx_stack.cli.options.additions import AdditionsCommand, additions
from mlx_stack.cli.options.planning import (
    MemorySize,
    budget_pct_option,
    confirm_or_stop,
    intent_option,
    wishes_of,
    workload_options,
)

if TYPE_CHECKING:
    from mlx_stack.planning.init import Draft


@click.command("init", cls=AdditionsCommand)
@click.option("--accept-defaults", is_flag=True, help="Ask nothing.")
@intent_option
@click.option("--budget", "budget_bytes", type=MemorySize(), help="As for `recommend`: 30gb.")
@budget_pct_option
@workload_options("Tokens of context of every new tier.")
@click.option(
    "--add",
    "_added",
    multiple=True,
    metavar="MODEL",
    shell_complete=complete_models,
    help="Serve this model too: a catalog id, a Hub repo or a folder. Repeatable.",
)
@click.option(
    "--as",
    "_names",
    multiple=True,
    metavar="TIER",
    help="The tier for the --add before it; one of the usual ones is replaced.",
)
@click.option(
    "--remove",
    "removals",
    multiple=True,
    metavar="TIER",
    shell_complete=complete_tiers,
    help="Leave a tier out. Repeatable.",
)
@click.option(
    "--import",
    "imported",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Take the models of a stack file of mlx-stack 0.3, the earlier program, over.",
)
@click.option("--force", is_flag=True, help="Replace the stack that is defined.")
@json_option
@quiet_option
@click.pass_context
def command(
    ctx: click.Context,
    intent: str,
    budget_bytes: int | None,
    budget_pct: int | None,
    context_tokens: int | None,
    concurrency: int,
    _added: tuple[str, ...],
    _names: tuple[str, ...],
    removals: tuple[str, ...],
    imported: Path | None,
    *,
    accept_defaults: bool,
    force: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Define a stack: the recommended tiers, each on a free port.

    Writes stacks/default.yaml and litellm.yaml in the state folder. A stack that is defined is
    replaced with --force only; --add and --remove change it and leave its other tiers alone.
    """
    from mlx_stack.planning.import_stack import keep_copy, read_foreign_stack
    from mlx_stack.planning.init import Request, draft_stack, write_draft

    wishes = wishes_of(
        intent=intent,
        budget_bytes=budget_bytes,
        budget_pct=budget_pct,
        context_tokens=context_tokens,
        concurrency=concurrency,
    )
    context = open_context(json=json, quiet=quiet)
    taken_over = read_foreign_stack(context.home, imported) if imported is not None else ()
    request = Request(
        wishes=wishes,
        additions=(*taken_over, *additions(ctx)),
        removals=removals,
        only_additions=bool(taken_over),
        replaces=force,
    )
    draft = draft_stack(context.home, request)
    if json:
        from mlx_stack.cli.views.drafts import draft_fields

        keep_copy(imported)
        write_draft(context.home, draft)
        context.output.document(draft_fields(draft, context.home))
        return
    from mlx_stack.cli.views.drafts import show_draft

    show_draft(context.output, draft)
    if not accept_defaults and sys.stdin.isatty():
        confirm_or_stop("Write this stack?")
    keep_copy(imported)
    write_draft(context.home, draft)
    context.output.say(f"\nWrote {context.home.stack}.")
    context.output.say(_next_step(draft))


def _next_step(draft: "Draft") -> str:
    absent = [each.tier.pull_name for each in draft.tiers if not each.is_present]
    if not any(absent):
        return "`mlx-stack up` starts it."
    pulls = "; ".join(f"mlx-stack pull {name}" for name in filter(None, absent))
    return f"Next: {pulls}; then `mlx-stack up`."
