"""Byte ranges of a repository's files over the Hub's plain HTTP route (decision 0050).

`/{repo}/resolve/{commit}/{path}` answers with the bytes, or redirects to another origin that has
them. That address is remembered, so that a large file costs one question to the Hub and not one a
range; it is signed and expires, and then the Hub is asked again. Files that are stored with Xet
are served by this route as well.
"""

import re
import time
from http import HTTPStatus
from typing import Self
from urllib.parse import quote

import httpx

from mlx_catalog.hub import HubCommit
from mlx_stack.models.disk.manifest import FileOrigin, FileRecord
from mlx_stack.models.errors import PullError, TransientError, WrongContentError
from mlx_stack.models.hub.client import gated, open_stream_client, refused, retry_after_s
from mlx_stack.models.hub.environment import HubEnvironment, is_web_address, origin_of

_MOST_REDIRECTS = 5
_EXPIRED = frozenset({401, 403, 404, 410})
_THROTTLED = frozenset({429, 503})
_CONTENT_RANGE = re.compile(r"^bytes (\d+)-\d+/(\d+|\*)$")


class RangesUnsupported(Exception):  # noqa: N818 - a fact about the server, no failure
    """The server sends whole files only."""


class HubFiles:
    """The files of one commit of one repository, and those that a file's own record names."""

    def __init__(self, environment: HubEnvironment, commit: HubCommit) -> None:
        """The files of `commit` on the Hub of an environment that is ready; close it in the end."""
        self._commit = commit
        self._environment = environment
        self._client = open_stream_client(environment)
        self._addresses: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def open(self, file: FileRecord, start: int, end: int) -> httpx.Response:
        """The answer whose body, unread, is `[start, end)` of `file`; the caller closes it.

        Raises:
            TransientError: When it may go better next time.
            RangesUnsupported: When a part was asked for, and the whole file came.
            PullError: When it won't: the file is gone, forbidden, or not what the Hub announced.
        """
        is_part = (start, end) != (0, file.size_bytes)
        known = self._addresses.get(file.path)
        try:
            response = self._follow(file, known, f"bytes={start}-{end - 1}" if is_part else None)
            try:
                self._check(response, file, start, is_part=is_part, is_known=known is not None)
            except BaseException:
                response.close()
                raise
        except TransientError:
            self._addresses.pop(file.path, None)  # the Hub may have another one by now
            raise
        return response

    def _follow(self, file: FileRecord, known: str | None, wanted: str | None) -> httpx.Response:
        """The answer behind the redirects; the address that gave it is remembered."""
        origin = self._origin_of(file)
        root = f"{self._environment.endpoint}/{origin.repo}/resolve/{origin.revision}"
        url = known or f"{root}/{quote(file.path)}"
        for _ in range(_MOST_REDIRECTS):
            headers = {**self._environment.headers_of(url), "Accept-Encoding": "identity"}
            if wanted is not None:
                headers["Range"] = wanted
            request = self._client.build_request("GET", url, headers=headers)
            try:
                response = self._client.send(request, stream=True)
            except httpx.TransportError as error:
                raise TransientError(describe(error)) from error
            if response.next_request is None:
                return response
            response.close()  # the body may be long, or never end
            url = str(response.next_request.url)
            if not is_web_address(url):
                raise PullError(f"{origin.repo}: {file.path} is redirected to an invalid address.")
            self._addresses[file.path] = url
        raise PullError(f"{origin.repo}: the redirects of {file.path} form a loop.")

    def _check(
        self,
        response: httpx.Response,
        file: FileRecord,
        start: int,
        *,
        is_part: bool,
        is_known: bool,
    ) -> None:
        """Raise unless the server is about to send what it was asked for and the Hub announced."""
        if response.status_code == HTTPStatus.PARTIAL_CONTENT:
            found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != start:
                raise TransientError("the server sent a different range than requested")
            size = None if found[2] == "*" else found[2]
        elif response.status_code != HTTPStatus.OK:
            raise self._refusal(response, file, is_known=is_known)
        elif is_part:
            raise RangesUnsupported
        else:
            size = response.headers.get("Content-Length")
        if size is not None and size != str(file.size_bytes):
            raise WrongContentError(
                f"{self._origin_of(file).repo}: {file.path} has {size} bytes on the server, "
                f"and {file.size_bytes} according to the Hub.",
                hint="The repository or a mirror is broken; what was downloaded is kept.",
            )

    def _refusal(self, response: httpx.Response, file: FileRecord, *, is_known: bool) -> Exception:
        """What an error status means."""
        status, headers = response.status_code, response.headers
        environment, repo = self._environment, self._origin_of(file).repo
        reason = f"{file.path}: HTTP {status}"
        is_throttled = status in _THROTTLED
        if is_throttled or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            wanted_s = retry_after_s(headers, time.time())
            return TransientError(reason, retry_after_s=wanted_s, is_throttled=is_throttled)
        is_from_hub = not is_known and origin_of(str(response.url)) == origin_of(
            environment.endpoint
        )
        if status == HTTPStatus.REQUEST_TIMEOUT or (not is_from_hub and status in _EXPIRED):
            return TransientError(reason)
        said = headers.get("X-Error-Message")
        is_forbidden = status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
        if headers.get("X-Error-Code") == "GatedRepo" or (is_forbidden and self._commit.is_gated):
            return gated(environment.shown_endpoint, repo, said)
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return WrongContentError(
                f"{repo}: {file.path} is shorter on the server than the Hub says.",
                hint="The repository or a mirror is broken; what was downloaded is kept.",
            )
        return refused(f"{repo}: {file.path}", status, said)

    def _origin_of(self, file: FileRecord) -> FileOrigin:
        return file.origin or FileOrigin(self._commit.repo, self._commit.commit)


def describe(error: httpx.TransportError) -> str:
    """A connection's failure in words that a person knows."""
    host = error.request.url.host
    match error:
        case httpx.TimeoutException():
            return f"no answer from {host}"
        case httpx.ConnectError() | httpx.ProxyError():
            return f"no connection to {host}: {error}"
        case _:
            return f"{host} closed the connection"
