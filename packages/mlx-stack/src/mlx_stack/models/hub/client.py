"""The one client that asks the Hub: through the environment's proxy, patiently, failing in words.

Imports httpx: import it where it is used, so that no command pays for it that doesn't ask.
"""

import random
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import override

import httpx

from mlx_catalog import HubError
from mlx_catalog.hub import Hub
from mlx_stack.models.hub.answers import WORTH_ASKING_AGAIN, in_words, pause_s, retry_after_s
from mlx_stack.models.hub.environment import HubEnvironment

_ATTEMPTS = 4
_PATIENCE_S = 30.0
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
        environment: Which Hub, and how it is reached.
        repo: What the questions are about, for error messages.
        revision: Which revision of it.
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
            raise in_words(error, environment, repo, revision) from error


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


class _Transport(httpx.BaseTransport):
    """Requests by the environment's way, put again where that may help.

    Bodies are read here, since a connection can break in the middle of one as well. They are
    small: no weights are fetched through this.
    """

    def __init__(self, environment: HubEnvironment, attempts: int, longest_wait_s: float) -> None:
        self._way = _Way(environment)
        self._attempts = attempts
        self._longest_wait_s = longest_wait_s

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        began, attempt = time.monotonic(), 1
        while True:
            response, failure, wanted_s = None, None, None
            try:
                response = self._ask(request)
                if response.status_code not in WORTH_ASKING_AGAIN:
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

    @override
    def close(self) -> None:
        self._way.close()

    def _ask(self, request: httpx.Request) -> httpx.Response:
        response = self._way.handle_request(request)
        if response.has_redirect_location:  # the body may be long, or never end
            response.close()
            headers = {"location": response.headers["location"]}
            return httpx.Response(response.status_code, headers=headers)
        try:
            response.read()
        finally:
            response.close()
        return response
