"""The model hub: whether it can be reached, and whether a token is there for gated models."""

from collections.abc import Iterator
from dataclasses import replace

from mlx_stack.doctor.finding import Finding, ok
from mlx_stack.errors import StackError
from mlx_stack.models.hub.environment import HubEnvironment, read_environment

_TIMEOUT_S = 3.0
_HARMLESS = "What is on this disk works without it."


def check_hub() -> Iterator[Finding]:
    """Asks the Hub one question, for at most three seconds."""
    environment = read_environment()
    if environment.is_offline:
        yield Finding("hub", "info", "HF_HUB_OFFLINE is set: nothing is downloaded.")
        return
    try:
        _ask(environment)
    except StackError as error:
        yield Finding("hub", "warning", error.message, _HARMLESS, error.hint or "")
    else:
        yield ok("hub", f"The Hub answers at {environment.endpoint}.")
    if environment.problems:
        return
    if environment.token is None:
        yield Finding(
            "hub-token",
            "info",
            "No Hub token is set.",
            "Only gated models need one.",
            "`hf auth login`, or HF_TOKEN.",
        )
    else:
        yield ok("hub-token", "A Hub token is set.")


def _ask(environment: HubEnvironment) -> None:
    from mlx_stack.models.hub.client import open_hub

    limited = replace(environment.ready(), timeout_s=_TIMEOUT_S)
    with open_hub(limited, attempts=1) as hub:
        hub.search(limit=1)
