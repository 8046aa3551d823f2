"""One HTTP request to a service, with a deadline that holds whatever the other side does."""

import http.client
import queue
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from mlx_procsup.spec import HttpReadiness

_OK = 200
_DRAIN_BYTES = 65_536
_STRANGER = "what answers there is not this service"


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """The result of a poll.

    Attributes:
        status: The HTTP status; None without an answer.
        response_s: The time until the status line arrived; None if it never did.
        problem: Why there was no answer, as text; None if there was one.
    """

    status: int | None
    response_s: float | None
    problem: str | None

    @property
    def ok(self) -> bool:
        """Whether the service answered HTTP 200."""
        return self.status == _OK

    def describe(self) -> str:
        """A short description of the answer, such as "HTTP 503" or "connection refused"."""
        return self.problem if self.problem is not None else f"HTTP {self.status}"


class PendingPoll:
    """A running poll in a separate thread, which never keeps the program from exiting."""

    def __init__(
        self, readiness: HttpReadiness, timeout_s: float, *, began: float | None = None
    ) -> None:
        """Ask at once.

        Args:
            began: Since when, on the monotonic clock; now, if left out. Polls that share it end
                together, however long it took to begin them all.
        """
        self._readiness = readiness
        self._timeout_s = timeout_s
        self._answers: queue.SimpleQueue[PollAnswer] = queue.SimpleQueue()
        self._connection = _connection(readiness.url, timeout_s)
        self._deadline = (time.monotonic() if began is None else began) + timeout_s
        threading.Thread(target=self._run, name="http-poll", daemon=True).start()

    def result(self, wait_s: float) -> PollAnswer | None:
        """The answer, after waiting for it for at most `wait_s`; None while there is none yet.

        Once the poll's own deadline has passed, the result is that there was no answer, and its
        connection is cut.
        """
        with suppress(queue.Empty):
            return self._answers.get(timeout=max(0.0, min(wait_s, self._left_s())))
        if self._left_s() > 0:
            return None
        self.cancel()
        return PollAnswer(None, None, f"no answer within {self._timeout_s:g} s")

    def finish(self) -> PollAnswer:
        """The answer, once it has arrived or the poll's time is over."""
        while (answer := self.result(wait_s=60.0)) is None:
            pass
        return answer

    def cancel(self) -> None:
        """Cut the connection, which ends the thread."""
        with suppress(OSError, AttributeError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)

    def _left_s(self) -> float:
        return self._deadline - time.monotonic()

    def _run(self) -> None:
        started = time.monotonic()
        try:
            target, ask = _target(self._readiness.url), self._readiness.ask
            question = ask("GET", target) if ask is not None else None
            headers = {**self._readiness.headers, **(question.headers if question else {})}
            self._connection.request("GET", target, headers=headers)
            response = self._connection.getresponse()
            said = {name.lower(): value for name, value in response.getheaders()}
            if question is not None and not question.is_answered(said):
                self._answers.put(PollAnswer(None, None, f"{_STRANGER} (HTTP {response.status})"))
                return
            self._answers.put(PollAnswer(response.status, time.monotonic() - started, None))
            self._drain(response)
        except TimeoutError:
            self._answers.put(PollAnswer(None, None, f"no answer within {self._timeout_s:g} s"))
        except (OSError, http.client.HTTPException) as error:
            self._answers.put(PollAnswer(None, None, _words(error)))
        finally:
            self._connection.close()

    def _drain(self, response: http.client.HTTPResponse) -> None:
        """Read the body, since a server that is cut off in its answer logs an error.

        One that is long, or comes in drops, is cut off all the same.
        """
        left_bytes = _DRAIN_BYTES
        while left_bytes > 0 and self._left_s() > 0:
            piece = response.read1(left_bytes)
            if not piece:
                return
            left_bytes -= len(piece)


def accepts_connection(url: str, timeout_s: float = 0.25) -> bool:
    """Whether something listens on the URL's port."""
    parts = urlsplit(url)
    address = parts.hostname or "127.0.0.1", parts.port or 80
    try:
        with socket.create_connection(address, timeout=timeout_s):
            return True
    except OSError:
        return False


def _connection(url: str, timeout_s: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"not an HTTP URL: {url}")
    is_tls = parts.scheme == "https"
    connect = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
    return connect(parts.hostname or "127.0.0.1", parts.port, timeout=timeout_s)


def _target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _words(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected)):
        return "connection closed without an answer"
    if isinstance(error, http.client.HTTPException):
        return f"not an HTTP answer ({type(error).__name__})"
    return str(error)
