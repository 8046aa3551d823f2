"""`mlx-stack ask`."""

import sys

import click

import mlx_stack
from mlx_stack import gateway
from mlx_stack.cli.frame.context import Context, examples, with_context
from mlx_stack.cli.frame.options import tier_option
from mlx_stack.errors import UsageError


@click.command("ask")
@click.argument("question", required=False)
@tier_option("Ask this tier; by default the first of the stack.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), metavar="N", help="Longest answer, in tokens."
)
@with_context()
@examples(
    'mlx-stack ask "Why is the sky blue?"', 'git diff | mlx-stack ask "Write a commit message"'
)
def command(
    context: Context, question: str | None, tier: str | None, max_tokens: int | None
) -> None:
    """Ask a model one QUESTION through the gateway and stream its answer.

    Without a QUESTION, it is read from standard input: `git diff | mlx-stack ask`.
    """
    output, opened = context.output, context.opened
    names = [each.name for each in opened.stack.tiers]
    model = names[0] if tier is None else tier
    mlx_stack.stack.require_tier(model, names)
    answer = mlx_stack.ask.ask(
        gateway.endpoint.gateway_endpoint(opened),
        _question(question),
        model=model,
        max_tokens=max_tokens,
        on_text=output.piece,
    )
    output.piece("" if answer.text.endswith("\n") else "\n")
    output.show(answer)


def _question(given: str | None) -> str:
    if given is None and sys.stdin.isatty():
        raise UsageError("There is no question.", hint='`mlx-stack ask "…"` asks one.')
    text = sys.stdin.read() if given in (None, "-") else given
    if not text or not text.strip():
        raise UsageError("The question is empty.", hint='`mlx-stack ask "…"` asks one.')
    return text
