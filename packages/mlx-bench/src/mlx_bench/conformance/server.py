"""The server under test, asked as its APIs' clients ask, and what it answered."""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import urlsplit

import httpx

TEXT = "Repeat: one two three"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
RESPONSES = "/v1/responses"
_SOON_S = 10.0
_ERROR_KEYS = ("message", "type")


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back from one request.

    Attributes:
        path: What was asked, which says in which API the answer is.
        headers: Names in lower case.
    """

    path: str
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is one of success."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    @property
    def document(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: When it is something else.
        """
        return json.loads(self.body)

    @property
    def is_stream(self) -> bool:
        """Whether the answer came as events, or as lines of JSON."""
        kind = self.headers.get("content-type", "")
        return kind.startswith(("text/event-stream", "application/x-ndjson"))

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON objects of a stream, in their order."""
        if self.headers.get("content-type", "").startswith("application/x-ndjson"):
            return [json.loads(line) for line in self.text.splitlines() if line]
        datas = (line[5:].strip() for line in self.text.splitlines() if line.startswith("data:"))
        return [json.loads(data) for data in datas if data.startswith("{")]

    @property
    def names(self) -> list[str]:
        """The names of the events, where they have names."""
        lines = self.text.splitlines()
        return [line[6:].strip() for line in lines if line.startswith("event:")]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events of one type."""
        return [each for each in self.events if each.get("type") == kind]

    @property
    def pieces(self) -> list[dict[str, Any]]:
        """What the answer says, piece by piece, whichever API it is in.

        Each has `text`, `thinking`, or `call`, a list of index, name and arguments.
        """
        found = list(self._streamed_pieces() if self.is_stream else self._whole_pieces())
        return [piece for piece in found if any(piece.values())]

    @property
    def said(self) -> str:
        """The text of the answer."""
        return "".join(piece.get("text") or "" for piece in self.pieces)

    @property
    def thinking(self) -> str:
        """What the model thought before it."""
        return "".join(piece.get("thinking") or "" for piece in self.pieces)

    @property
    def calls(self) -> list[tuple[str, Any]]:
        """The tools that are called: names and arguments, which must be JSON once joined.

        Raises:
            ValueError: When they are not.
        """
        names: dict[object, str] = {}
        arguments: dict[object, str] = {}
        for index, name, more in (piece["call"] for piece in self.pieces if piece.get("call")):
            names[index] = names.get(index) or name or ""
            arguments[index] = arguments.get(index, "") + (more or "")
        return [(name, json.loads(arguments[index] or "{}")) for index, name in names.items()]

    @property
    def ending(self) -> str | None:
        """Why the answer ended, in its API's word."""
        if self.path == RESPONSES:
            done = self.of("response.completed") + self.of("response.incomplete")
            whole = done[-1]["response"] if self.is_stream else self.document
            return whole["status"]
        if self.path == MESSAGES:
            whole = self.of("message_delta")[-1]["delta"] if self.is_stream else self.document
            return whole["stop_reason"]
        if self.path.startswith("/api/"):
            return (self.events[-1] if self.is_stream else self.document).get("done_reason")
        choices = [choice for each in self._choices() for choice in each.get("choices", ())]
        return next((c["finish_reason"] for c in reversed(choices) if c.get("finish_reason")), None)

    @property
    def usage(self) -> dict[str, Any]:
        """What the answer says that it used; the last where it says so more than once."""
        whole: list[dict[str, Any]] = self.events if self.is_stream else [self.document]
        found: list[dict[str, Any]] = []
        for each in whole:
            response: dict[str, Any] = each.get("response") or {}
            found += [usage for usage in (each.get("usage"), response.get("usage")) if usage]
        return found[-1] if found else {}

    @property
    def problem(self) -> str:
        """The words of an error in the shape of the API's clients; "" where it has another."""
        try:
            document: dict[str, Any] = self.document
            error: Any = document.get("error")
        except (ValueError, AttributeError):
            return ""
        if self.path.startswith("/api/"):
            return error if isinstance(error, str) else ""
        said = cast("dict[str, Any]", error) if isinstance(error, dict) else {}
        if not all(said.get(key) for key in _ERROR_KEYS):
            return ""
        if self.path.startswith(MESSAGES) and document.get("type") != "error":
            return ""
        return str(said["message"])

    def is_refused(self, status: int = 400) -> bool:
        """Whether the request was refused with an explanation, with this status."""
        return self.status == status and bool(self.problem)

    def is_done_or_refused(self, *, done: bool) -> bool:
        """Whether what was asked is done, or refused with an explanation: anything but ignored."""
        return done if self.status == 200 else self.is_refused()

    def _choices(self) -> list[dict[str, Any]]:
        return self.events if self.is_stream else [self.document]

    def _whole_pieces(self) -> Iterator[dict[str, Any]]:
        document = self.document
        for choice in document.get("choices") or ():
            yield from _openai_pieces(choice.get("message") or {"content": choice.get("text")})
        if self.path == MESSAGES:
            for index, block in enumerate(document.get("content") or ()):
                yield _block(index, block)
        for index, item in enumerate(document.get("output") or ()):
            yield from _item(index, item)
        if self.path.startswith("/api/"):
            yield from _ollama_pieces(document)

    def _streamed_pieces(self) -> Iterator[dict[str, Any]]:
        for event in self.events:
            for choice in event.get("choices") or ():
                yield from _openai_pieces(choice.get("delta") or {"content": choice.get("text")})
            if self.path.startswith("/api/"):
                yield from _ollama_pieces(event)
            yield _typed_piece(event)


def _typed_piece(event: dict[str, Any]) -> dict[str, Any]:
    """What an event of Anthropic's or of Responses adds."""
    delta, index = event.get("delta"), event.get("index", event.get("output_index"))
    match event.get("type"):
        case "content_block_start":
            block = event["content_block"]
            if block["type"] == "tool_use":
                return {"call": (index, block["name"], "")}
            return _block(index, block)
        case "content_block_delta" if isinstance(delta, dict):
            known = cast("dict[str, Any]", delta)
            json_part = known.get("partial_json")
            call = (index, "", json_part) if json_part is not None else None
            return {"text": known.get("text"), "thinking": known.get("thinking"), "call": call}
        case "response.output_text.delta":
            return {"text": delta}
        case "response.reasoning_text.delta" | "response.reasoning_summary_text.delta":
            return {"thinking": delta}
        case "response.function_call_arguments.delta":
            return {"call": (index, "", delta)}
        case "response.output_item.added" if event["item"].get("type") == "function_call":
            return {"call": (index, event["item"]["name"], event["item"].get("arguments") or "")}
        case _:
            return {}


def _openai_pieces(said: dict[str, Any]) -> Iterator[dict[str, Any]]:
    thinking = said.get("reasoning_content") or said.get("reasoning")
    yield {"text": said.get("content"), "thinking": thinking}
    for at, call in enumerate(said.get("tool_calls") or ()):
        function = call.get("function") or {}
        index = call.get("index", at)
        yield {"call": (index, function.get("name") or "", function.get("arguments"))}


def _ollama_pieces(line: dict[str, Any]) -> Iterator[dict[str, Any]]:
    said: dict[str, Any] = line.get("message") or {}
    yield {
        "text": said.get("content") or line.get("response"),
        "thinking": said.get("thinking") or line.get("thinking"),
    }
    for at, call in enumerate(said.get("tool_calls") or ()):
        function = call["function"]
        yield {"call": (at, function["name"], json.dumps(function["arguments"]))}


def _block(index: object, block: dict[str, Any]) -> dict[str, Any]:
    if block["type"] == "tool_use":
        return {"call": (index, block["name"], json.dumps(block["input"]))}
    return {"text": block.get("text"), "thinking": block.get("thinking")}


def _item(index: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if item["type"] == "function_call":
        yield {"call": (index, item["name"], item["arguments"])}
    for part in item.get("content") or ():
        name = "thinking" if item["type"] == "reasoning" else "text"
        yield {name: part.get("text")}


@dataclass
class Server:
    """A base URL, and a model behind it that follows simple orders.

    Attributes:
        base_url: Without `/v1`.
        auth: Signs requests and checks answers, where a key isn't enough.
        has_key: Whether requests need a key there.
        seen: Every answer so far.
    """

    base_url: str
    model: str
    api_key: str = ""
    timeout_s: float = 60.0
    auth: httpx.Auth | None = field(default=None, repr=False)
    seen: list[HttpAnswer] = field(default_factory=list[HttpAnswer])

    def __post_init__(self) -> None:
        """Open a client whose connections are used again."""
        self.client: httpx.Client = httpx.Client(
            base_url=self.base_url, timeout=self.timeout_s, auth=self.auth, trust_env=False
        )

    @property
    def has_key(self) -> bool:
        """Whether requests are sent with a key."""
        return bool(self.api_key)

    def close(self) -> None:
        """Close every connection."""
        self.client.close()

    def is_there(self) -> bool:
        """Whether a plain question is answered soon."""
        messages = [{"role": "user", "content": TEXT}]
        body = {"model": self.model, "messages": messages, "max_tokens": 1}
        with suppress(httpx.HTTPError):
            # on a connection of its own: a server that failed may have closed the usual one
            url, headers = self.base_url + CHAT, self.headers()
            answer = httpx.post(
                url, json=body, headers=headers, timeout=_SOON_S, auth=self.auth, trust_env=False
            )
            return answer.status_code == HTTPStatus.OK
        return False

    def headers(self, **more: str) -> dict[str, str]:
        """The headers of a usual request."""
        usual = {"content-type": "application/json"}
        if self.api_key:
            usual["authorization"] = f"Bearer {self.api_key}"
        return usual | {name.replace("_", "-"): value for name, value in more.items()}

    def ask(
        self, path: str, body: object = None, *, method: str = "POST", **headers: str
    ) -> HttpAnswer:
        """The answer to a request; a body that is not bytes is sent as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = None if method in ("GET", "HEAD", "DELETE", "OPTIONS") else content
        response = self.client.request(method, path, content=sent, headers=self.headers(**headers))
        return self._noted(path, response)

    def _noted(self, path: str, response: httpx.Response) -> HttpAnswer:
        headers = {name.lower(): value for name, value in response.headers.items()}
        answer = HttpAnswer(path.partition("?")[0], response.status_code, headers, response.content)
        self.seen.append(answer)
        return answer

    def get(self, path: str, **headers: str) -> HttpAnswer:
        """The answer to a GET."""
        return self.ask(path, method="GET", **headers)

    def chat(self, text: object = TEXT, **fields: object) -> HttpAnswer:
        """The answer to a request of Chat Completions; `text` may be the messages."""
        messages = [{"role": "user", "content": text}] if isinstance(text, str) else text
        return self.ask(CHAT, {"model": self.model, "messages": messages, **fields})

    def complete(self, prompt: object = "x", **fields: object) -> HttpAnswer:
        """The answer to a request of Completions."""
        return self.ask(COMPLETIONS, {"model": self.model, "prompt": prompt, **fields})

    def message(self, text: object = TEXT, **fields: object) -> HttpAnswer:
        """The answer to a request of Messages; `text` may be the messages."""
        return self.ask(MESSAGES, self.message_body(text, **fields))

    def message_body(self, text: object = TEXT, **fields: object) -> dict[str, object]:
        """A request of Messages."""
        messages = [{"role": "user", "content": text}] if isinstance(text, str) else text
        return {"model": self.model, "max_tokens": 400, "messages": messages, **fields}

    def count(self, text: object = TEXT, **fields: object) -> HttpAnswer:
        """The answer to a request for the number of tokens."""
        body = self.message_body(text, **fields)
        del body["max_tokens"]
        return self.ask(COUNT, body)

    def respond(self, given: object = TEXT, **fields: object) -> HttpAnswer:
        """The answer to a request of Responses."""
        return self.ask(RESPONSES, {"model": self.model, "input": given, **fields})

    def ollama(self, text: object = TEXT, path: str = "/api/chat", **fields: object) -> HttpAnswer:
        """The answer to a request of Ollama's; `text` may be the messages."""
        messages = [{"role": "user", "content": text}] if isinstance(text, str) else text
        return self.ask(path, {"model": self.model, "messages": messages, **fields})

    def raw(self, request: bytes, *, more: tuple[bytes, ...] = ()) -> bytes:
        """What comes back for bytes sent as they are, until the connection ends or is silent."""
        parts = urlsplit(self.base_url)
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=20) as it:
            received = b""
            for each in (request, *more):
                with suppress(OSError):
                    it.sendall(each)
                it.settimeout(20 if each is request else 3)
            with suppress(TimeoutError, ConnectionError):
                while chunk := it.recv(65536):
                    received += chunk
        return received

    def raw_request(
        self,
        body: bytes,
        *,
        path: str = CHAT,
        version: str = "1.1",
        close: bool = True,
        **more: str,
    ) -> bytes:
        """A request as bytes, to send with `raw`."""
        sent = {"host": urlsplit(self.base_url).netloc, "content-length": str(len(body))}
        sent |= self.headers(**more)
        sent |= {"connection": "close"} if close else {}
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items() if value)
        return f"POST {path} HTTP/{version}\r\n{head}\r\n".encode() + body
