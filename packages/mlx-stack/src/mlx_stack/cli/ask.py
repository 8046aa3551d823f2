"""`mlx-stack ask`."""

import sys
from typing import TYPE_CHECKING

import click

from mlx_stack.cli.frame.context import json_option, open_context, tier_option
from mlx_stack.errors import UsageError

if TYPE_CHECKING:
    from mlx_stack.ask import Answer

_FIRST_BYTE_TIMEOUT_S = 600.0


@click.command("ask")
@click.argument("question", required=False)
@tier_option("Ask this tier; by default the first of the stack.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), metavar="N", help="The longest answer, in tokens."
)
@json_option
def command(question: str | None, tier: str | None, max_tokens: int | None, *, json: bool) -> None:
    """Put one QUESTION to a model through the gateway and stream its answer.

    Without a QUESTION it is read from standard input: `git diff | mlx-stack ask`.
    """
    import httpx

    from mlx_stack.ask import ask
    from mlx_stack.gateway.endpoint import gateway_endpoint
    from mlx_stack.gateway.names import model_to_ask

    context = open_context(json=json)
    model = model_to_ask(context.opened.stack, tier)
    text = _question(question)
    endpoint = gateway_endpoint(context.opened)
    timeout = httpx.Timeout(_FIRST_BYTE_TIMEOUT_S, connect=5.0)
    on_text = None if json else context.output.piece
    with httpx.Client(timeout=timeout, trust_env=False) as client:
        answer = ask(client, endpoint, text, model=model, max_tokens=max_tokens, on_text=on_text)
    if json:
        context.output.document(_document(text, model, answer))
    else:
        context.output.piece("" if answer.text.endswith("\n") else "\n")


def _question(given: str | None) -> str:
    if given is None and sys.stdin.isatty():
        raise UsageError("There is no question.", hint='`mlx-stack ask "…"` asks one.')
    text = sys.stdin.read() if given in (None, "-") else given
    if not text or not text.strip():
        raise UsageError("The question is empty.", hint='`mlx-stack ask "…"` asks one.')
    return text


def _document(question: str, model: str, answer: "Answer") -> dict[str, object]:
    return {
        "question": question,
        "answer": answer.text,
        "reasoning": answer.reasoning,
        "model": model,
        "answered_by": answer.tier,
        "ttft_s": answer.ttft_s,
        "seconds": answer.seconds,
        "completion_tokens": answer.completion_tokens,
    }
