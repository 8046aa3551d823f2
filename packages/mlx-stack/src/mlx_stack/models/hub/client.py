"""The one client that asks the Hub: through the environment's proxy, patiently, failing in words.

Imports httpx: import it where it is used, so that no command pays for it that doesn't ask.
"""

import random
import re
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import override

import httpx

from mlx_catalog import (
    GatedRepoError,
    HubConnectionError,
    HubError,
    RepoNotFoundError,
    RevisionNotFoundError,
    TokenRefusedError,
)
from mlx_catalog.hub import MAX_ANSWER_BYTES, Hub
from mlx_stack.errors import StackError
from mlx_stack.models.errors import (
    GatedModelError,
    HubRefusedError,
    HubUnreachableError,
    ModelNotFoundError,
)
from mlx_stack.models.hub.environment import HubEnvironment

_ATTEMPTS = 4
_PATIENCE_S = 30.0
_WORTH_ASKING_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_RATE_LIMIT_RESET = re.compile(r";\s*t=(\d+)")
_OF_THE_WIRE = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
"""Headers of a body as it was sent, not as it was read."""
_PASSING = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError)


@contextmanager
def open_hub(
    environment: HubEnvironment,
    repo: str | None = None,
    revision: str = "main",
    *,
    attempts: int = _ATTEMPTS,
    longest_wait_s: float = _PATIENCE_S,
) -> Generator[Hub]:
    """The Hub of an environment that is `ready`, for questions about one repository or none.

    Args:
        attempts: How often a question is put while there is hope.
        longest_wait_s: A Hub that wants to be left alone for longer is not asked again.

    Raises:
        StackError: When a question finds no answer.
    """
    transport = _Transport(environment, attempts, longest_wait_s)
    client = httpx.Client(
        transport=transport,
        headers=environment.headers_of(""),
        timeout=environment.timeout_s,
        trust_env=False,
    )
    with client:
        try:
            yield Hub(environment.endpoint, environment.token, client=client)
        except HubError as error:
            raise _in_words(error, environment, repo, revision) from error


def open_stream_client(environment: HubEnvironment) -> httpx.Client:
    """A client for bodies of any length, by the environment's way; it asks once.

    The token isn't added: `HubEnvironment.headers_of` has it for the addresses that may get it.
    """
    transport = _Way(environment)
    return httpx.Client(transport=transport, timeout=environment.timeout_s, trust_env=False)


class _Way(httpx.BaseTransport):
    """Requests through the proxy that the environment names for their address, if any."""

    def __init__(self, environment: HubEnvironment) -> None:
        self._environment = environment
        self._lock = threading.Lock()
        self._ways: dict[str | None, httpx.HTTPTransport] = {}

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        proxy = self._environment.proxy_of(str(request.url))
        with self._lock:
            if proxy not in self._ways:
                tls = self._environment.tls()
                self._ways[proxy] = httpx.HTTPTransport(verify=tls, trust_env=False, proxy=proxy)
            way = self._ways[proxy]
        return way.handle_request(request)

    @override
    def close(self) -> None:
        for way in self._ways.values():
            way.close()


class _Transport(_Way):
    """Requests by the environment's way, put again where that may help.

    Bodies are read here, since a connection can break in the middle of one as well. They are
    small: no weights are fetched through this.
    """

    def __init__(self, environment: HubEnvironment, attempts: int, longest_wait_s: float) -> None:
        super().__init__(environment)
        self._attempts = attempts
        self._longest_wait_s = longest_wait_s

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        began, attempt = time.monotonic(), 1
        while True:
            response, failure, wanted_s = None, None, None
            try:
                response = self._ask(request)
                if response.status_code not in _WORTH_ASKING_AGAIN:
                    return response
                wanted_s = retry_after_s(response.headers, time.time())
            except _PASSING as error:
                failure = error
            # no secret depends on this chance
            delay_s = max(pause_s(attempt, random.random()), wanted_s or 0.0)  # noqa: S311
            is_late = wanted_s is None and time.monotonic() - began + delay_s > _PATIENCE_S
            if attempt >= self._attempts or delay_s > self._longest_wait_s or is_late:
                if response is None:
                    assert failure is not None
                    raise failure
                return response
            time.sleep(delay_s)
            attempt += 1

    def _ask(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        if response.has_redirect_location:  # the body may be long, or never end
            response.close()
            headers = {"location": response.headers["location"]}
            return httpx.Response(response.status_code, headers=headers)
        content = bytearray()
        try:
            for piece in response.iter_bytes():
                content += piece
                if len(content) > MAX_ANSWER_BYTES:  # which the reader refuses
                    break
        finally:
            response.close()
        headers = [
            (name, value)
            for name, value in response.headers.raw
            if name.lower() not in _OF_THE_WIRE
        ]
        return httpx.Response(response.status_code, headers=headers, content=bytes(content))


def _in_words(
    error: HubError, environment: HubEnvironment, repo: str | None, revision: str
) -> StackError:
    """What to tell the user of a question that the Hub didn't answer."""
    endpoint = environment.shown_endpoint
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
            proxy = environment.proxy_setting(environment.endpoint)
            way = f" through the proxy that {proxy.name} names" if proxy is not None else ""
            hint = "Check the connection, HF_ENDPOINT and the proxy."
            if "certificate" in str(error.reason).lower():
                hint = "A proxy that reads TLS? SSL_CERT_FILE names a file with its certificate."
            return HubUnreachableError(
                f"No answer from {endpoint}{way}: {error.reason}.", hint=hint
            )
        case _ if error.status in _WORTH_ASKING_AGAIN:
            return HubUnreachableError(
                f"{endpoint} answers HTTP {error.status}.", hint="Try again later."
            )
        case _ if error.status is not None:
            return refused(f"{endpoint}/{repo or ''}", error.status, error.said)
        case _:
            hint = "Check HF_ENDPOINT: it may not be a model hub."
            return HubRefusedError(f"{endpoint}: {error.reason}.", hint=hint)


def gated(endpoint: str, repo: str, said: str | None = None) -> GatedModelError:
    """The error that names the licence page and the token step, with what the Hub itself said."""
    hint = (
        f"Accept the licence at {endpoint}/{repo}, make a token at {endpoint}/settings/tokens, "
        "then run `hf auth login` or set HF_TOKEN."
    )
    return GatedModelError(
        f"{repo} is gated: accept its licence and set a token first.",
        hint=f"{hint} The Hub says: {said}" if said else hint,
    )


def refused(what: str, status: int, said: str | None) -> HubRefusedError:
    """The error for a refusal that has nothing to do with a licence; the server's words first."""
    hint = None
    if status == HTTPStatus.FORBIDDEN:
        hint = "The Hub, a proxy or the network refuses it: check the token and the proxy."
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
