"""Byte ranges of a repository's files over the Hub's plain HTTP route.

`/{repo}/resolve/{commit}/{path}` answers with the bytes, or redirects to another origin that has
them. That address is remembered, so that a large file costs one question to the Hub and not one a
range; it is signed and expires, and then the Hub is asked again. Xet-backed files are served by
this route as well.
"""

import http.client
import random
import re
import time
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote, urljoin

from mlx_stack.models.disk.manifest import FileRecord, RemoteModel
from mlx_stack.models.download.connection import Connection, describe
from mlx_stack.models.download.retries import FileRetries, TransferPolicy
from mlx_stack.models.errors import PullError, TransientError, WrongContentError
from mlx_stack.models.hub.answers import gated, refused, retry_after_s
from mlx_stack.models.hub.environment import HubEnvironment, is_web_address, origin_of

_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_EXPIRED = frozenset({401, 403, 404, 410})
_THROTTLED = frozenset({429, 503})
_LEGAL_IN_URLS = "!#$%&'()*+,/:;=?@[]~"
_CONTENT_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+|\*)$")


class RangesUnsupported(Exception):  # noqa: N818 - a fact about the server, no failure
    """The server sends whole files only."""


class HubFiles:
    """The files of one commit of one repository.

    Attributes:
        repo: `owner/name`.
    """

    def __init__(self, environment: HubEnvironment, model: RemoteModel) -> None:
        """The files of `model` on the Hub of an environment that is ready."""
        self.repo = model.repo
        self._model = model
        self._environment = environment
        self._home = origin_of(environment.endpoint)
        self._addresses: dict[str, str] = {}

    def connect(self, timeout_s: float) -> Connection:
        """A closed connection, for `open`; `timeout_s` bounds every wait."""
        return Connection(self._environment, timeout_s)

    def open(
        self, connection: Connection, file: FileRecord, start: int, end: int, *, whole: bool = False
    ) -> http.client.HTTPResponse:
        """The answer whose body is `[start, end)` of `file`.

        With `whole` no range is asked for, and the body is the whole file from its first byte.

        Raises:
            TransientError: It may go better next time.
            RangesUnsupported: A range was asked for, and the whole file came.
            PullError: It won't: the file is gone, forbidden, or not what the Hub announced.
        """
        root = f"{self._environment.endpoint}/{self.repo}/resolve/{self._model.revision}"
        home = f"{root}/{quote(file.path)}"
        is_part = not whole and (start, end) != (0, file.size_bytes)
        wanted = {"Range": f"bytes={start}-{end - 1}"} if is_part else {}
        known = self._addresses.get(file.path)
        try:
            url, response = self._follow(connection, file, known or home, wanted)
            if response.status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
                is_from_hub = known is None and origin_of(url) == self._home
                self._refuse(connection, response, file, is_from_hub=is_from_hub)
        except TransientError:
            self._addresses.pop(file.path, None)  # the Hub may have another one by now
            raise
        if is_part and response.status == HTTPStatus.OK:
            connection.close()
            raise RangesUnsupported
        self._check_size(connection, response, file, start if is_part else 0)
        return response

    def read(self, file: FileRecord, policy: TransferPolicy) -> bytes:
        """The whole of a small file, checked against its hash.

        Raises:
            HubUnreachableError: It could not be read, however often it was tried.
            PullError: It is gone, forbidden, or not what the Hub announced.
        """
        connection, retries = self.connect(policy.stall_timeout_s), FileRetries()
        while True:
            try:
                content = self.open(connection, file, 0, file.size_bytes).read()
                break
            except (OSError, http.client.HTTPException) as error:
                failure = TransientError(f"{file.path}: {describe(error, 'the server')}")
            except TransientError as error:
                failure = error
            finally:
                connection.close()
            # no secret depends on this chance
            time.sleep(retries.failed(failure, time.monotonic(), random.random(), policy))  # noqa: S311
        hasher = file.hasher()
        hasher.update(content)
        if hasher.hexdigest() != file.digest:
            raise WrongContentError(f"{self.repo}: {file.path} differs from its hash.")
        return content

    def _follow(
        self, connection: Connection, file: FileRecord, url: str, wanted: Mapping[str, str]
    ) -> tuple[str, http.client.HTTPResponse]:
        """The answer behind the redirects, and the address that gave it, which is remembered."""
        for _ in range(_MOST_REDIRECTS):
            headers = {**self._environment.headers_of(url), "Accept-Encoding": "identity", **wanted}
            response = connection.get(url, headers)
            if response.status not in _REDIRECTS:
                return url, response
            connection.close()  # the body may be long or never end, and the next origin is another
            target = redirect_target(url, response.headers.get("Location", ""))
            if target is None:
                raise PullError(f"{self.repo}: {file.path} is redirected to no web address.")
            url = self._addresses[file.path] = target
        raise PullError(f"{self.repo}: the redirects of {file.path} lead in a circle.")

    def _check_size(
        self,
        connection: Connection,
        response: http.client.HTTPResponse,
        file: FileRecord,
        start: int,
    ) -> None:
        """Compare what the server is about to send with what the Hub announced."""
        size, first = response.length, 0
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
            if found is None:
                connection.close()
                raise TransientError("the server sent a range without saying which")
            first, size = int(found[1]), None if found[3] == "*" else int(found[3])
        if size is not None and size != file.size_bytes:
            connection.close()
            raise WrongContentError(
                f"{self.repo}: {file.path} has {size} bytes on the server, "
                f"and {file.size_bytes} by the Hub's own list.",
                hint="The repository or a mirror is broken; what was downloaded is kept.",
            )
        if first != start:
            connection.close()
            raise TransientError("the server sent another range than it was asked for")

    def _refuse(
        self,
        connection: Connection,
        response: http.client.HTTPResponse,
        file: FileRecord,
        *,
        is_from_hub: bool,
    ) -> None:
        """Raise what an error status means."""
        status = response.status
        code = response.headers.get("X-Error-Code", "")
        reason = f"{file.path}: HTTP {status}"
        delay = retry_after_s(dict(response.headers), time.time())
        connection.close()
        if status in _THROTTLED or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise TransientError(reason, retry_after_s=delay, is_throttled=status in _THROTTLED)
        if not is_from_hub and status in _EXPIRED:
            raise TransientError(reason)
        said = response.headers.get("X-Error-Message")
        is_forbidden = status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
        if code == "GatedRepo" or (is_forbidden and self._model.is_gated):
            raise gated(self._environment.endpoint, self.repo, said)
        if status == HTTPStatus.REQUEST_TIMEOUT:
            raise TransientError(reason)
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise WrongContentError(
                f"{self.repo}: {file.path} is shorter on the server than in the Hub's own list.",
                hint="The repository or a mirror is broken; what was downloaded is kept.",
            )
        raise refused(f"{self.repo}: {file.path}", status, said)


def redirect_target(url: str, location: str) -> str | None:
    """The address that a `Location` header in an answer from `url` names; None for no web address.

    Mirrors send it unquoted at times: what may not stand in a request line is quoted.
    """
    try:
        target = urljoin(url, quote(location.encode("latin-1"), safe=_LEGAL_IN_URLS))
    except ValueError:
        return None
    return target if is_web_address(target) else None
