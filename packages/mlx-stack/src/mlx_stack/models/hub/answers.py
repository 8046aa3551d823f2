"""What an answer of the Hub means: when to ask again, and the words to give up with. Pure."""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from mlx_catalog import (
    GatedRepoError,
    HubConnectionError,
    HubError,
    RepoNotFoundError,
    RevisionNotFoundError,
    TokenRefusedError,
)
from mlx_stack.errors import StackError
from mlx_stack.models.errors import (
    GatedModelError,
    HubRefusedError,
    HubUnreachableError,
    ModelNotFoundError,
)
from mlx_stack.models.hub.environment import HubEnvironment

WORTH_ASKING_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_RATE_LIMIT_RESET = re.compile(r";\s*t=(\d+)")


def in_words(
    error: HubError, environment: HubEnvironment, repo: str | None, revision: str
) -> StackError:
    """What to tell the user of a question that the Hub didn't answer.

    Args:
        error: What came of it.
        environment: Where it was asked.
        repo: The repository that it was about, if any.
        revision: The revision of it.
    """
    endpoint = environment.endpoint
    match error:
        case GatedRepoError():
            return gated(endpoint, repo or "the model", error.said)
        case RevisionNotFoundError():
            return ModelNotFoundError(f"{repo} has no revision {revision!r} on {endpoint}.")
        case RepoNotFoundError():
            hint = "Check the spelling; for a private model set HF_TOKEN or run `hf auth login`."
            return ModelNotFoundError(f"There is no model {repo} on {endpoint}.", hint=hint)
        case TokenRefusedError():
            hint = (
                "Make a new one, then run `hf auth login` or set HF_TOKEN; public models need none."
            )
            return HubRefusedError(f"{endpoint} does not accept the token.", hint=hint)
        case HubConnectionError():
            proxy = environment.proxy_setting(endpoint)
            way = f" through the proxy that {proxy.name} names" if proxy is not None else ""
            hint = "Check the connection, HF_ENDPOINT and the proxy."
            return HubUnreachableError(
                f"No answer from {endpoint}{way}: {error.reason}.", hint=hint
            )
        case _ if error.status in WORTH_ASKING_AGAIN:
            return HubUnreachableError(
                f"{endpoint} answers HTTP {error.status}.", hint="Try again later."
            )
        case _ if error.status is not None:
            return refused(f"{endpoint}/{repo or ''}", error.status, error.said)
        case _:
            hint = "Check HF_ENDPOINT: something else than a model hub may answer there."
            return HubRefusedError(f"{endpoint}: {error.reason}.", hint=hint)


def gated(endpoint: str, repo: str, said: str | None = None) -> GatedModelError:
    """The error that names the licence page and the token step, with what the Hub itself said."""
    hint = (
        f"Accept the licence at {endpoint}/{repo}, make a token at {endpoint}/settings/tokens, "
        "then run `hf auth login` or set HF_TOKEN."
    )
    return GatedModelError(
        f"{repo} is gated: its licence must be accepted, and a token sent along.",
        hint=f"{hint} The Hub says: {said}" if said else hint,
    )


def refused(what: str, status: int, said: str | None) -> HubRefusedError:
    """The error for a refusal that has nothing to do with a licence; the server's words first."""
    hint = None
    if status == HTTPStatus.FORBIDDEN:
        hint = "The Hub itself, a proxy or the network refuses it; look at the token and the proxy."
    return HubRefusedError(f"{what}: {said or 'refused'} (HTTP {status}).", hint=hint)


def pause_s(failures: int, jitter: float) -> float:
    """How long to wait after so many failures in a row: doubling from 0.25 s to 8 s.

    `jitter`, from 0 to 1, spreads it by a quarter either way, lest clients come back together.
    """
    return min(0.25 * 2 ** (failures - 1), 8.0) * (0.75 + 0.5 * jitter)


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """How long the server asks to be left alone, by `Retry-After` or the Hub's `RateLimit`.

    `now` is in seconds since the epoch: `Retry-After` may name a date.
    """
    headers = {name.lower(): value for name, value in headers.items()}
    value = headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return float(value)
    if value:
        try:
            return max(parsedate_to_datetime(value).timestamp() - now, 0.0)
        except (ValueError, OverflowError):
            return None
    found = _RATE_LIMIT_RESET.search(headers.get("ratelimit", ""))
    return float(found[1]) if found else None
