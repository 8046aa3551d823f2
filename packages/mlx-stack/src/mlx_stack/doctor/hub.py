"""The model hub: whether it can be reached, and whether a token is there for gated models."""

import os
from collections.abc import Iterator

from mlx_stack.doctor.finding import Finding, ok

_TIMEOUT_S = 3.0


def check_hub() -> Iterator[Finding]:
    """Reaches out to the Hub, once, for at most three seconds."""
    import httpx
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        yield Finding("hub", "info", "HF_HUB_OFFLINE is set: nothing is downloaded.")
        return
    endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    try:
        httpx.head(f"{endpoint}/api/models", timeout=_TIMEOUT_S, follow_redirects=True)
    except httpx.HTTPError as error:
        yield Finding(
            "hub",
            "warning",
            f"The Hub at {endpoint} can't be reached ({type(error).__name__}).",
            "What is on this disk works without it.",
            "Check the network, the proxy and HF_ENDPOINT before the next pull.",
        )
    else:
        yield ok("hub", f"The Hub answers at {endpoint}.")
    if get_token() is None:
        yield Finding(
            "hub-token",
            "info",
            "No Hub token is set.",
            "Only gated models need one.",
            "`hf auth login`, or HF_TOKEN.",
        )
    else:
        yield ok("hub-token", "A Hub token is set.")
