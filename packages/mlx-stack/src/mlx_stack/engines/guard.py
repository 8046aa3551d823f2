"""What stands between a port of this machine and the engine behind it (decision 0025).

An engine is started as `python -I guard.py serve …`, or as `… mlx-vlm …` or `… mlx-lm …`: this
file then wraps its ASGI application and its log records, and for vllm-mlx applies the `ADDITIONS`;
no file of the engine is changed. It runs in the engine's environment, so it imports nothing but the
standard library; mlx-stack imports it for the other side of the proof.

Each request carries a nonce and a keyed digest over it, its method and its path; each answer
carries a keyed digest over the nonce. So the engine answers nobody else, and who asks knows that
nobody else answers. Whoever sends a prompt asks for `CHALLENGE_PATH` first, on the same connection.
"""

import hmac
import io
import ipaddress
import json
import logging
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, cast, override

SECRET_VARIABLE = "MLX_ENGINE_SECRET"  # noqa: S105 - its name
SCRATCH_VARIABLE = "MLX_ENGINE_SCRATCH"
HEADER = "x-mlx-stack-proof"
STARTED_BY = {"mlx-vlm": "mlx_vlm_start", "mlx-lm": "mlx_lm_start"}
"""The files beside this one that start other engines than vllm-mlx, by the first argument."""
ADDITIONS = (
    *("backports", "fair_prefill", "checkpoints", "kept_on_disk", "text_route", "cached_usage"),
)
"""The files beside this one that change what vllm-mlx does, in the order they are applied."""
CHALLENGE_PATH = "/proof"
"""What the guard itself answers, with nothing but the proof."""
STATUS_PATH = "/v1/status"
WORK_HEADER = "x-mlx-stack-work"
"""What came through the door, on answers at `STATUS_PATH`: see `Traffic.render`."""
LONGEST_BODY_BYTES = 96 * 2**20
"""More than the gateway lets in, since a request may grow a little on its way."""
PREVIEW = r"message preview: |prompt_preview=|Chat msg \d+: role=\w+, content="
"""What stands in the engine's log before the beginning of a prompt."""
REMOVED = "<removed>"

_PROOF = re.compile(r"([0-9a-f]{32}) ([0-9a-f]{64})")
_PREVIEW = re.compile(f"({PREVIEW}).*", re.DOTALL)
_REQUEST = re.compile(r"\[REQUEST\] POST")
_FIGURE = re.compile(r"\[REQUEST\]|POST|/v1/[a-z/_]+|\w+=(-?[\d.]+|True|False|None)")
"""All that stays of the line that sums a request up: it repeats roles and schemas as well."""
_ANSWERS_WORDS = re.compile(r"(Parsed value ').*(' of parameter ')", re.DOTALL)
"""What the parser of tool calls logs of an answer."""
_OWN_LOOKS = (CHALLENGE_PATH, STATUS_PATH, "/v1/models")
_TIME = "%Y-%m-%d %H:%M:%S"
_SHORTEST_TEXT = 4
_FAILED = re.compile(rb'"finish_reason": ?"error"|^data: \{"error"', re.MULTILINE)
"""What an answer of 200 holds that is an error all the same."""
_MOST_ROWS = 64

type _Scope = MutableMapping[str, Any]
type _Message = MutableMapping[str, Any]
type _Receive = Callable[[], Awaitable[_Message]]
type _Send = Callable[[_Message], Awaitable[None]]
type App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


# the proof


@dataclass(frozen=True, slots=True)
class ProofRequest:
    """A request's side of the proof.

    Attributes:
        headers: What the request carries.
        answer: What the answer must carry.
    """

    headers: Mapping[str, str]
    answer: str

    def is_answered(self, headers: Mapping[str, str], /) -> bool:
        """Whether an answer with these headers, in lower case, comes from who knows the secret."""
        given = headers.get(HEADER, "").encode("latin-1")
        return bool(self.answer) and hmac.compare_digest(given, self.answer.encode())


def ask(secret: str, method: str, target: str) -> ProofRequest:
    """The proof for one request; without a secret no answer is right.

    Args:
        secret: What the engine was started with; "" where there is none.
        target: Its path and query, as they are sent.
    """
    if not secret:
        return ProofRequest({}, "")
    nonce = secrets.token_hex(16)
    digest = _digest(secret, "ask", nonce, method, target)
    return ProofRequest({HEADER: f"{nonce} {digest}"}, _digest(secret, "answer", nonce))


def answer(secret: str, given: str, method: str, target: str) -> str | None:
    """What proves the engine to whoever gave this proof; None if that is none."""
    proof = _PROOF.fullmatch(given)
    if proof is None:
        return None
    nonce, digest = proof.groups()
    if not hmac.compare_digest(digest, _digest(secret, "ask", nonce, method, target)):
        return None
    return _digest(secret, "answer", nonce)


def _digest(secret: str, *parts: str) -> str:
    return hmac.digest(secret.encode(), "\n".join(parts).encode("latin-1"), "sha256").hex()


# the door


class Guard:
    """An ASGI application that lets in who names this machine and knows the secret.

    Args:
        app: The engine's.
        says_status: Whether it answers at `STATUS_PATH` for an engine that doesn't.
    """

    def __init__(self, app: App, secret: str, *, says_status: bool = False) -> None:
        self._app = app
        self._secret = secret
        self._says_status = says_status
        self._traffic = Traffic()

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = list(_text_headers(scope))
        if (refusal := _refusal(headers)) is not None:
            await _refuse(send, *refusal)
            return
        query, path = scope["query_string"].decode("latin-1"), scope["raw_path"].decode("latin-1")
        given = next((value for name, value in headers if name == HEADER), "")
        proof = answer(self._secret, given, scope["method"], f"{path}?{query}" if query else path)
        if proof is None:
            reason = "Ask the gateway: this engine only answers the gateway."
            await _refuse(send, HTTPStatus.UNAUTHORIZED, reason)
            return
        own = (HEADER.encode(), proof.encode())
        if path == CHALLENGE_PATH:
            await send({"type": "http.response.start", "status": 204, "headers": [own]})
            await send({"type": "http.response.body", "body": b""})
            return

        await self._pass_on(scope, receive, send, own)

    async def _pass_on(
        self, scope: _Scope, receive: _Receive, send: _Send, own: tuple[bytes, bytes]
    ) -> None:
        """Let the engine answer, with the proof in its answer.

        It looks into `receive` to learn that a client has left: that stays as it is.
        """
        added = [own]
        if scope["path"] == STATUS_PATH:
            added.append((WORK_HEADER.encode(), self._traffic.render().encode()))

        async def send_proven(message: _Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        if scope["method"] != "POST":
            says = self._says_status and scope["path"] == STATUS_PATH
            await (
                self._traffic.tell(send_proven) if says else self._app(scope, receive, send_proven)
            )
            return
        body_bytes = int(dict(_text_headers(scope)).get("content-length", "0"))
        with self._traffic.passing(body_bytes) as request:

            async def send_counted(message: _Message) -> None:
                request.see(message)
                await send_proven(message)

            await self._app(scope, receive, send_counted)


@dataclass(slots=True)
class _Passing:
    """A request on its way through the door.

    Attributes:
        pieces: Of its answer, those that are more than a sign of life.
    """

    body_bytes: int
    since: float
    streams: bool = False
    pieces: int = 0
    status: int = 0
    failed: bool = False
    ended: bool = False

    def see(self, message: _Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            kinds = [value for name, value in message.get("headers", ()) if name == b"content-type"]
            self.streams = any(value.startswith(b"text/event-stream") for value in kinds)
        elif message["type"] == "http.response.body":
            body: bytes = message.get("body", b"")
            self.pieces += bool(body) and not body.startswith(b":")
            self.failed = self.failed or _FAILED.search(body) is not None
            self.ended = not message.get("more_body", False)


class Traffic:
    """What engines leave out of what they say of themselves: how their answers come out."""

    def __init__(self) -> None:
        self._passing: dict[int, _Passing] = {}
        self._count = 0
        self._answered = 0
        self._failures = 0

    @contextmanager
    def passing(self, body_bytes: int) -> Generator[_Passing]:
        """Around a request."""
        self._count += 1
        number, request = self._count, _Passing(body_bytes, time.monotonic())
        self._passing[number] = request
        try:
            yield request
        except Exception:
            request.failed = True
            raise
        finally:
            del self._passing[number]
            if request.failed or request.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                self._failures += 1
            elif request.ended:
                self._failures = 0
                self._answered += request.status == HTTPStatus.OK

    async def tell(self, send: _Send) -> None:
        """Answer as engines do at `STATUS_PATH`, which know more of their work."""
        mlx: Any = import_module("mlx.core")
        said: dict[str, object] = {
            "status": "running",
            "num_running": len(self._passing),
            "num_waiting": 0,
            "total_completion_tokens": 0,
            "requests": [],
            "metal": {
                "active_memory_gb": mlx.get_active_memory() / 1e9,
                "cache_memory_gb": mlx.get_cache_memory() / 1e9,
                "peak_memory_gb": mlx.get_peak_memory() / 1e9,
            },
        }
        body = json.dumps(said).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def render(self) -> str:
        """`12 0 7:4096:s:31:5.2 8:220:w:0:0.1`.

        How many requests were answered, how many of the last were errors, and for those in flight
        their number, the size of their body, whether the answer streams, its pieces so far, and for
        how many seconds they have been here.
        """
        now = time.monotonic()
        rows = [
            f"{number}:{each.body_bytes}:{'s' if each.streams else 'w'}:{each.pieces}"
            f":{now - each.since:.1f}"
            for number, each in list(self._passing.items())[:_MOST_ROWS]
        ]
        return " ".join([str(self._answered), str(self._failures), *rows])


def _text_headers(scope: _Scope) -> Iterator[tuple[str, str]]:
    return ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])


def _refusal(headers: list[tuple[str, str]]) -> tuple[HTTPStatus, str] | None:
    """Why a request with these headers is not answered, whoever sent it; None if it may be."""
    hosts = [value for name, value in headers if name == "host"]
    if len(hosts) != 1 or not _names_loopback(hosts[0]):
        return HTTPStatus.FORBIDDEN, "This engine only accepts the host name localhost."
    fields = dict(headers)
    if "transfer-encoding" in fields:
        return HTTPStatus.LENGTH_REQUIRED, "The body needs a Content-Length."
    length = fields.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > LONGEST_BODY_BYTES:
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large."
    return None


def _names_loopback(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return name.lower() == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


async def _refuse(send: _Send, status: HTTPStatus, reason: str) -> None:
    body = f'{{"error": {{"message": "{reason}", "code": {status.value}}}}}'.encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})


# the log


def keep_text_out_of_logs() -> None:
    """Let no log record of this process carry text of a request or an answer.

    The engine logs the beginning of prompts, values that it can't parse, and the text of
    exceptions, which may quote what they failed on. Records are changed where they are made, so
    that it doesn't matter which handler writes them.
    """
    make = logging.getLogRecordFactory()

    def make_clean(*args: Any, **kwargs: Any) -> logging.LogRecord:
        return _cleaned(make(*args, **kwargs))

    logging.setLogRecordFactory(make_clean)
    logging.getLogger("uvicorn.access").addFilter(_is_of_a_client)
    threading.excepthook = lambda args: logging.getLogger("threading").error(
        "a thread ended",
        exc_info=(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback),
    )


def _is_of_a_client(record: logging.LogRecord) -> bool:
    """Whether an access line is none of our own looks, which come every few seconds."""
    said = record.getMessage()
    return '" 20' not in said or not any(f"GET {path} " in said for path in _OWN_LOOKS)


def stamp_lines(config: dict[str, Any]) -> None:
    """Begin every line of the log with its time: those of uvicorn's `config`, and the engine's."""
    for formatter in config["formatters"].values():
        formatter["fmt"] = f"%(asctime)s {formatter['fmt']}"
        formatter["datefmt"] = _TIME
    # the engine asks for the default form, which is in force already then
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s:%(name)s:%(message)s", datefmt=_TIME
    )
    for handler in config["handlers"].values():  # past `StampedOutput`
        if handler["stream"] == "ext://sys.stdout":
            handler["stream"] = "ext://sys.__stdout__"
    sys.stdout = StampedOutput()


class StampedOutput(io.TextIOWrapper):
    """Standard output whose lines, as the engine prints them, begin with their time."""

    def __init__(self) -> None:
        output = open(1, "wb", closefd=False)  # noqa: SIM115 - a descriptor, not a path
        super().__init__(output, "utf-8", "backslashreplace", line_buffering=True)
        self._begins = True

    @override
    def write(self, text: str, /) -> int:
        """Write the text, each line that begins with the time."""
        for line in text.splitlines(keepends=True):
            if self._begins and line.strip():
                super().write(f"{time.strftime(_TIME)} ")
            super().write(line)
            self._begins = line.endswith("\n")
        return len(text)


def _cleaned(record: logging.LogRecord) -> logging.LogRecord:
    if record.name == "uvicorn.access" and isinstance(record.args, tuple) and len(record.args) > 2:
        client, method, target, *rest = record.args
        # speech is asked for with its text in the query
        record.args = (client, method, str(target).partition("?")[0], *rest)
        return record
    try:
        text = record.getMessage()
    except (TypeError, ValueError):  # the handler says so
        return record
    if _REQUEST.match(text):
        text = " ".join(word for word in text.split() if _FIGURE.fullmatch(word))
    text = _ANSWERS_WORDS.sub(rf"\1{REMOVED}\2", _PREVIEW.sub(rf"\1{REMOVED}", text))
    info = record.exc_info
    for error in _chain(sys.exception(), info[1] if info else None):
        for words in _telling(error):
            text = text.replace(words, f"<{type(error).__name__}>")
    record.msg, record.args = text, ()
    if info and info[1] is not None:
        record.exc_text = _frames(info[1], info[2])
        record.exc_info = None
    return record


def _chain(*errors: BaseException | None) -> Iterator[BaseException]:
    """The errors and all that they came from, each once."""
    waiting, seen = list(errors), set[int]()
    while waiting:
        error = waiting.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        waiting += [error.__cause__, error.__context__]
        if isinstance(error, BaseExceptionGroup):
            waiting += cast("BaseExceptionGroup[BaseException]", error).exceptions


def _telling(error: BaseException) -> list[str]:
    """What an error says that may quote a request, the longest first.

    The system's own errors stay: they tell of memory, files and the GPU, never of a prompt.
    """
    said = str(error)
    is_metals = type(error) is RuntimeError and said.lower().startswith("[metal")
    if isinstance(error, OSError | MemoryError | ImportError) or is_metals:
        return []
    texts = {said, repr(error), *map(str, error.args), str(getattr(error, "detail", ""))}
    # as the engine writes text of others into its log: on one line, and cut
    lines = {"".join(map(_escaped, each)) for each in texts}
    every = texts | lines | {each[:500] for each in lines}
    return sorted((each for each in every if len(each) >= _SHORTEST_TEXT), key=len, reverse=True)


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    code = ord(character)
    return named.get(character) or (f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}")


def _frames(error: BaseException, trace: TracebackType | None) -> str:
    kept = not _telling(error)
    said = f"{type(error).__name__}: {error}" if kept else type(error).__name__
    return "Traceback (most recent call last):\n" + "".join(traceback.format_tb(trace)) + said


# the start


def _use_scratch(folder: str) -> None:
    """Let temporary files, which hold the pictures and sounds of requests, go with the engine.

    MLX keeps its compiled kernels where TMPDIR says, which stays as it is.
    """
    shutil.rmtree(folder, ignore_errors=True)  # what one that was killed has left
    Path(folder).mkdir(mode=0o700)
    tempfile.tempdir = folder

    def leave(number: int, frame: FrameType | None) -> None:
        del frame
        shutil.rmtree(folder, ignore_errors=True)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    # uvicorn's own handlers stand before it, and raise the signal again when all is done
    for each in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, leave)


def _module_beside(name: str) -> Any:
    """A module from this file's folder, which `-I` keeps off the path."""
    spec = spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Run the engine behind a guard; what it was started with is taken out of its environment."""
    secret = os.environ.pop(SECRET_VARIABLE, "")
    if not secret:
        sys.exit(f"error: {SECRET_VARIABLE} is not set; `mlx-stack up` starts engines")
    keep_text_out_of_logs()
    # by name: these are packages of the engine's environment, not of mlx-stack's
    uvicorn = import_module("uvicorn")
    run: Callable[..., None] = uvicorn.run
    stamp_lines(uvicorn.config.LOGGING_CONFIG)

    scratch = os.environ.pop(SCRATCH_VARIABLE, "")

    starter = STARTED_BY.get(sys.argv[1] if len(sys.argv) > 1 else "")
    says_status = starter == "mlx_vlm_start"

    def run_guarded(app: App | str, **options: Any) -> None:
        if scratch:
            _use_scratch(scratch)
        named: Callable[[str], App] = import_module("uvicorn.importer").import_from_string
        engine = named(app) if isinstance(app, str) else app
        run(Guard(engine, secret, says_status=says_status), **options)

    vars(uvicorn)["run"] = run_guarded
    if starter is not None:
        if starter == "mlx_vlm_start":
            _module_beside("mlx_vlm_sound").apply(sys.argv[2:])
        if starter == "mlx_lm_start" and "MLX_RANK" not in os.environ:
            # a part of a model over several machines follows no form
            _module_beside("mlx_lm_forms").apply()
        _module_beside(starter).main(sys.argv[2:])
        return
    for name in ADDITIONS:
        _module_beside(name).apply()
    sys.argv[0] = "vllm-mlx"
    import_module("vllm_mlx.cli").main()


if __name__ == "__main__":
    main()
