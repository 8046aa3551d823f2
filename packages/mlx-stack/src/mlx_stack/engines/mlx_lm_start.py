"""Serves one model with mlx_lm.server, as an ASGI application that `guard.py` can stand before.

`guard.py` runs it in the engine's environment, so it imports nothing but the standard library, and
no file of the engine is changed. By itself the server is a `http.server`: it loads whatever model
a request names, from the Hub if need be, fetches pictures from any address, says that it is ready
before the model is loaded, and generates an answer that isn't streamed to its end although nobody
waits for it any more. Its own handler still makes every answer (decision 0105).
"""

import asyncio
import io
import json
import logging
import os
import select
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from importlib import import_module
from itertools import groupby
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any, NoReturn, cast

PROGRAM = "mlx-lm"
"""What `guard.py` is called with to start it."""
RDMA_MEETING = "MLX_JACCL_COORDINATOR"
"""The variable that says where the machines meet before they use RDMA, which MLX calls JACCL."""
_COUNTING = "/v1/messages/count_tokens"
_PATHS = ("/v1/chat/completions", "/v1/completions")
_NOT_FOR_CLIENTS = ("adapters", "draft_model", "num_draft_tokens", "role_mapping")
"""What would load other weights, or replace the chat template."""
_OF_THE_TEMPLATE = frozenset(
    {
        *("chat_template", "tokenize", "tools", "conversation", "documents", "padding"),
        *("add_generation_prompt", "continue_final_message", "return_dict", "return_tensors"),
        *("truncation", "max_length", "tokenizer_kwargs", "return_assistant_tokens_mask"),
    }
)
"""What `chat_template_kwargs` may not say, since the server says it."""
_LEAVES_WITHIN_S = 5
MISSED_AFTER_S = 20.0
"""How long machines may take to meet: longer than a cable is out that somebody moves."""
_WITHOUT_WORD_S = 5.0
_MAX_BIASED_TOKENS = 1024
_MAX_BIAS = 100

type _Scope = MutableMapping[str, Any]
type _Message = MutableMapping[str, Any]
type _Receive = Callable[[], Awaitable[_Message]]
type _Send = Callable[[_Message], Awaitable[None]]


def main(arguments: Sequence[str]) -> None:
    """Run the server for one model: with its own flags and two more.

    Args:
        arguments: `--served-model-name NAME`, what requests call the model; `--tool-parser PARSER`,
            one of mlx-lm's own, for a model in whose files it finds none.
    """
    given = list(arguments)
    name, parser = _taken(given, "--served-model-name"), _taken(given, "--tool-parser")
    if parser:
        tokenizers: Any = import_module("mlx_lm.tokenizer_utils")
        infer: Callable[[Any], str | None] = tokenizers._infer_tool_parser  # noqa: SLF001

        def infer_or_take(tokenizer: Any) -> str:
            return infer(tokenizer) or parser

        tokenizers._infer_tool_parser = infer_or_take  # noqa: SLF001
    meetings = Meetings(joined_ring())
    server: Any = import_module("mlx_lm.server")
    generator = server.ResponseGenerator
    generator._share_object = meetings.watching(generator._share_object)  # noqa: SLF001
    server._inline_image_urls = _refuse_addresses  # noqa: SLF001 - the only way in
    server.run = partial(run, server, name, meetings)
    sys.argv[:] = ["mlx_lm.server", *given]
    server.main()


def _taken(arguments: list[str], flag: str) -> str:
    """The value of a flag, which is taken out of the arguments; "" without one."""
    if flag not in arguments:
        return ""
    at = arguments.index(flag)
    value = arguments[at + 1]
    del arguments[at : at + 2]
    return value


def joined_ring() -> tuple[int, ...]:
    """The sockets to the neighbours, where the model runs on several machines; else none.

    Not before all of them are there: MLX waits without end for the one before this. Over RDMA
    nothing is heard on a socket. Where that is meant and isn't there, the process ends: MLX by
    itself would run the whole model on each machine.
    """
    if "MLX_RANK" not in os.environ:
        return ()
    Thread(target=_end_with_starter, daemon=True).start()
    uses_rdma = RDMA_MEETING in os.environ
    before = set(_sockets())
    try:  # what is asked for later is this one
        import_module("mlx.core").distributed.init(
            strict=True, backend="jaccl" if uses_rdma else "ring"
        )
    except (RuntimeError, ValueError) as error:
        way = "RDMA" if uses_rdma else "TCP"
        sys.stderr.write(f"error: the other ranks can't be reached over {way}: {error}\n")
        _exit(1)
    return () if uses_rdma else tuple(set(_sockets()) - before)


def _sockets() -> Iterator[int]:
    """The connected TCP sockets of this process."""
    for each in map(int, os.listdir("/dev/fd")):  # noqa: PTH208 - numbers, not files
        with suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(each).st_mode):
                continue
            with socket.socket(fileno=os.dup(each)) as found:
                found.getpeername()
                if found.family is socket.AF_INET:
                    yield each


def _end_with_starter() -> None:
    """End the process with the one that started it, which holds on to its standard input."""
    while os.read(0, 1):
        pass
    _exit(1)


class Meetings:
    """What the machines that run a model say to one another between two steps.

    The first shares what it was asked for, or that it wasn't, ten times a second. MLX waits for
    the others at full speed and without end: so a machine sleeps until it hears something, and
    the first ends its process, and with it all of them, once they don't come to a meeting.

    Args:
        neighbours: The sockets to them; over RDMA there are none, and no machine sleeps.
    """

    def __init__(self, neighbours: tuple[int, ...]) -> None:
        self._neighbours = neighbours
        self._since: float | None = None

    def watching(self, share: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """The method that shares, watched."""

        def share_watched(generator: Any, shared: Any) -> Any:
            if self._neighbours and generator._rank != 0:  # noqa: SLF001
                select.select(self._neighbours, (), (), _WITHOUT_WORD_S)
            self._since = time.monotonic()
            try:
                return share(generator, shared)
            finally:
                self._since = None

        return share_watched

    def end_process_when_missed(self) -> None:
        """End the process once a meeting has lasted too long; call it in a thread."""
        while True:
            time.sleep(1)
            since = self._since
            if since is not None and time.monotonic() - since > MISSED_AFTER_S:
                sys.stderr.write(f"error: the ranks have not met for {MISSED_AFTER_S:.0f} s\n")
                _exit(1)


def run(server: Any, name: str, meetings: Meetings, host: str, port: int, provider: Any) -> None:
    """Load the model, then serve it until the process ends.

    Args:
        name: What requests call the model.
        meetings: With the other machines that run it.
        provider: The server's own, which has read the command line.
    """
    options = provider.cli_args
    provider._model_map[name] = options.model  # noqa: SLF001 - a name besides `default_model`
    provider._adapter_map[name] = None  # noqa: SLF001
    loading = _watch_loading(provider)
    kept = server.LRUPromptCache(options.prompt_cache_size, options.prompt_cache_bytes or 1 << 63)
    generator = server.ResponseGenerator(provider, kept)
    generator._tokenize = partial(_tokenized, generator._tokenize)  # noqa: SLF001
    group = import_module("mlx.core").distributed.init()
    status = 1
    try:
        while not loading.wait(0.1):
            if not generator.generation_available():
                sys.stderr.write(f"error: the model can't be loaded: {loading.problem}\n")
                return
        Thread(target=_end_with, args=(generator,), daemon=True).start()
        if group.rank() == 0:
            application = Application(server, name, generator, loading.vocabulary)
            if group.size() > 1:
                Thread(target=meetings.end_process_when_missed, daemon=True).start()
                problem = asyncio.run(application.fails_to_write())
                if problem is not None:
                    sys.stderr.write(f"error: the ranks write no token together: {problem}\n")
                    return
            import_module("uvicorn").run(
                application,
                host=host,
                port=port,
                log_level="info",
                timeout_graceful_shutdown=_LEAVES_WITHIN_S,
            )
        else:
            generator.join()
    finally:
        # the thread that generates would keep the process, and those on other machines
        _exit(status)


def _end_with(generator: Any) -> None:
    """End the process once nothing generates any more: the watchdog starts another."""
    generator.join()
    sys.stderr.write("error: the thread that generates has ended\n")
    _exit(1)


def _exit(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _tokenized(tokenize: Callable[..., tuple[Any, ...]], *arguments: Any) -> tuple[Any, ...]:
    """As the server's own; an empty prompt would end the thread that generates."""
    prompt, *others = tokenize(*arguments)
    if not prompt:
        raise ValueError("The prompt is empty.")
    return prompt, *others


class _Loading(Event):
    """What is set once the model is loaded; else it knows why that failed.

    Attributes:
        vocabulary: How many tokens the model chooses from.
    """

    problem: object = "the engine doesn't say why"
    vocabulary: int = 0


def _watch_loading(provider: Any) -> _Loading:
    loading, load = _Loading(), provider.load_default

    def load_default() -> None:
        try:
            load()
            loading.vocabulary = _vocabulary(provider.model)
        except Exception as error:
            loading.problem = error
            raise
        options = provider.cli_args
        options.top_k = _limit(options.top_k, loading.vocabulary)
        loading.set()

    provider.load_default = load_default
    return loading


def _vocabulary(model: Any) -> int:
    """How many tokens a model chooses from: the tokenizer may know more, or fewer."""
    cache = import_module("mlx_lm.models.cache").make_prompt_cache(model)
    # only the shape is asked for, so that MLX computes nothing
    return model(import_module("mlx.core").array([[0]]), cache=cache).shape[-1]


def _limit(top_k: int, vocabulary: int) -> int:
    """A `top_k` that the sampler takes: one that leaves every token to choose from is 0."""
    return 0 if top_k == -1 or top_k >= vocabulary else top_k


def _refuse_addresses(messages: list[dict[str, Any]]) -> None:
    """Stand in for what fetches pictures from the addresses that a request names."""
    for message in messages:
        for part in _list(message.get("content")):
            if _object(part).get("type") not in (None, "text"):
                raise ValueError("This engine only reads text.")


class UnservableError(Exception):
    """A request that is answered with an error, and never reaches the model."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def cleaned(body: bytes, name: str, vocabulary: int) -> dict[str, Any]:
    """The request in `body` as the server may have it.

    Args:
        body: What the client has sent.
        name: What requests call the model.
        vocabulary: How many tokens the model chooses from.

    Raises:
        UnservableError: When it asks for another model, or for what the server would leave out.
    """
    try:
        said: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnservableError(HTTPStatus.BAD_REQUEST, "The body isn't JSON.") from error
    if not isinstance(said, dict):
        raise UnservableError(HTTPStatus.BAD_REQUEST, "The body isn't a JSON object.")
    fields = {
        key: value
        for key, value in _object(said).items()
        if value is not None and key not in _NOT_FOR_CLIENTS
    }
    if fields.get("model") != name:
        reason = f"There is no such model here; ask for {name!r}."
        raise UnservableError(HTTPStatus.NOT_FOUND, reason)
    if fields.get("tool_choice") == "none":
        fields.pop("tools", None)
    has_form = _object(fields.get("response_format")).get("type") not in (None, "text")
    if has_form and fields.get("tools"):
        reason = "This model's engine can't combine `tools` and `response_format`: leave one out."
        raise UnservableError(HTTPStatus.BAD_REQUEST, reason)
    _clean_choice(fields, vocabulary)
    _clean_prompt(fields)
    if not _object(fields.get("stream_options")).get("include_usage"):
        fields.pop("stream_options", None)
    words = _object(fields.get("chat_template_kwargs"))
    known = {key: value for key, value in words.items() if key not in _OF_THE_TEMPLATE}
    if "reasoning_effort" in fields:
        known.setdefault("reasoning_effort", fields["reasoning_effort"])
    return {**fields, "chat_template_kwargs": known}


def _clean_choice(fields: dict[str, Any], vocabulary: int) -> None:
    """Bound what says how a token is chosen, where the server has no bound of its own.

    It looks at these in the middle of a batch: one that is out of range ends the thread that
    generates, or the process. The gateway bounds what doesn't depend on the model.
    """
    if isinstance(top_k := fields.get("top_k"), int):
        fields["top_k"] = _limit(top_k, vocabulary)
    if "logit_bias" not in fields:
        return
    given, bias = fields["logit_bias"], _object(fields["logit_bias"])
    if (
        not isinstance(given, dict)
        or len(bias) > _MAX_BIASED_TOKENS
        or not all(_is_token(key, vocabulary) and _is_bias(value) for key, value in bias.items())
    ):
        raise UnservableError(
            HTTPStatus.BAD_REQUEST,
            f"`logit_bias` gives at most {_MAX_BIASED_TOKENS} tokens, numbered from 0 to "
            f"{vocabulary - 1}, a number from -{_MAX_BIAS} to {_MAX_BIAS} each.",
        )


def _is_token(key: str, vocabulary: int) -> bool:
    is_number = key.isascii() and key.isdecimal() and len(key) <= len(str(vocabulary))
    return is_number and int(key) < vocabulary


def _is_bias(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -_MAX_BIAS <= value <= _MAX_BIAS


def _clean_prompt(fields: dict[str, Any]) -> None:
    """Bring messages and prompts into the form that the server reads."""
    prompts = _list(fields.get("prompt"))
    if len(prompts) == 1:
        fields["prompt"] = prompts[0]
    if "prompt" in fields and not isinstance(fields["prompt"], str):
        raise UnservableError(HTTPStatus.BAD_REQUEST, "This engine accepts one prompt, as text.")
    for message in map(_object, _list(fields.get("messages"))):
        if message.get("role") == "developer":
            message["role"] = "system"  # few templates know the other
    if messages := _list(fields.get("messages")):
        fields["messages"] = list(_joined(messages))


def _joined(messages: list[Any]) -> Iterator[Any]:
    """The messages, those of the system that follow one another as one: many templates want it."""
    for is_system, group in groupby(messages, lambda each: _object(each).get("role") == "system"):
        said = list(group)
        texts = [_text(_object(each).get("content")) for each in said]
        if not is_system or len(said) == 1 or None in texts:
            yield from said
        else:
            yield {"role": "system", "content": "\n\n".join(filter(None, texts))}


def _text(content: Any) -> str | None:
    """What a message's content says; None if it isn't only text."""
    if isinstance(content, str):
        return content
    parts = [_object(part).get("text") for part in _list(content)]
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if texts and len(texts) == len(parts) else None


def _object(value: Any) -> dict[str, Any]:
    """The JSON object that a value is, or an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    """The list that a value is, or an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


class Application:
    """The ASGI application.

    Args:
        server: The module `mlx_lm.server`.
        name: What requests call the model.
        generator: What generates.
        vocabulary: How many tokens the model chooses from.
    """

    def __init__(self, server: Any, name: str, generator: Any, vocabulary: int) -> None:
        self._name = name
        self._vocabulary = vocabulary
        self._generator = generator
        self._handler: Any = type("Handler", (Answering, server.APIHandler), {})
        self._process: Callable[[list[dict[str, Any]]], object] = server.process_message_content
        self._fingerprint: str = server.get_system_fingerprint()
        self._make_form: Callable[[object, Any], object] | None = getattr(server, "make_form", None)
        self._running: dict[int, HandledRequest] = {}
        self._number = 0
        self._written = 0

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        at = scope["method"], scope["path"]
        if at == ("GET", "/v1/models"):
            await self._tell_models(send)
        elif at == ("GET", "/v1/status"):
            await _send_json(send, HTTPStatus.OK, self._status())
        elif scope["method"] == "POST" and scope["path"] in (*_PATHS, _COUNTING):
            try:
                fields = cleaned(await _read_body(receive), self._name, self._vocabulary)
                if scope["path"] == _COUNTING:
                    count = await asyncio.to_thread(self._count, fields)
                    await _send_json(send, HTTPStatus.OK, {"input_tokens": count})
                    return
                form = await asyncio.to_thread(self._form, fields)
            except UnservableError as refusal:
                await _send_json(send, refusal.status, _error(refusal.status, str(refusal)))
                return
            await self._answer(scope["path"], fields, form, receive, send)
        else:
            status = HTTPStatus.NOT_FOUND
            reason = "mlx-lm has no such API: ask /v1/chat/completions, or another tier."
            await _send_json(send, status, _error(status, reason))

    async def fails_to_write(self) -> str | None:
        """Why the model writes no token; None once it has written one, for nobody."""
        body = json.dumps({"model": self._name, "prompt": "1", "max_tokens": 1}).encode()
        waiting: asyncio.Queue[_Message] = asyncio.Queue()
        waiting.put_nowait({"type": "http.request", "body": body})
        said: list[_Message] = []

        async def send(message: _Message) -> None:
            said.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/completions"}
        await self(scope, waiting.get, send)
        if said and said[0].get("status") == HTTPStatus.OK:
            return None
        return b"".join(each.get("body", b"") for each in said).decode(errors="replace")

    async def _tell_models(self, send: _Send) -> None:
        if not self._generator.generation_available():
            status = HTTPStatus.SERVICE_UNAVAILABLE
            await _send_json(send, status, _error(status, "The engine has stopped generating."))
            return
        model = {"id": self._name, "object": "model", "owned_by": "mlx-lm"}
        await _send_json(send, HTTPStatus.OK, {"object": "list", "data": [model]})

    def _count(self, fields: dict[str, Any]) -> int:
        """The tokens of a prompt: of `messages` and `tools` as chats have them, or of `system`.

        Raises:
            UnservableError: When the model's template makes no prompt of them.
        """
        tokenizer, system = self._generator.model_provider.tokenizer, fields.get("system")
        messages = fields.get("messages")
        try:
            if not messages:
                return len(tokenizer.encode(system if isinstance(system, str) else ""))
            if system:
                messages = [{"role": "system", "content": system}, *messages]
            self._process(messages)
            words = {
                **self._generator.cli_args.chat_template_args,
                **fields["chat_template_kwargs"],
            }
            prompt = tokenizer.apply_chat_template(
                messages,
                tools=fields.get("tools"),
                add_generation_prompt=True,
                tokenize=True,
                **words,
            )
            return len(prompt)
        except Exception as error:
            reason = f"The prompt can't be counted: {error}"
            raise UnservableError(HTTPStatus.BAD_REQUEST, reason) from error

    def _form(self, fields: dict[str, Any]) -> object:
        """What the answer is held to, which is taken out of the request; None for a free one.

        Raises:
            UnservableError: When the answer can't be held to it.
        """
        asked = fields.pop("response_format", None)
        if asked is None or _object(asked).get("type") == "text":
            return None
        if self._make_form is None:
            # a grammar can't be sent to other Macs
            reason = (
                "Over several Macs, this engine can't follow a `response_format`: leave it out."
            )
            raise UnservableError(HTTPStatus.BAD_REQUEST, reason)
        try:
            return self._make_form(asked, self._generator.model_provider.tokenizer)
        except Exception as error:
            raise UnservableError(HTTPStatus.BAD_REQUEST, str(error)) from error

    def _status(self) -> dict[str, Any]:
        """What the engine does, in the words of vllm-mlx's own `/v1/status`."""
        rows = [each.row(number) for number, each in list(self._running.items())]
        waiting = sum(row["status"] == "waiting" for row in rows)
        mlx: Any = import_module("mlx.core")
        return {
            "status": "running",
            "num_running": len(rows) - waiting,
            "num_waiting": waiting,
            "total_completion_tokens": self._written
            + sum(row["completion_tokens"] for row in rows),
            "requests": rows,
            "metal": {
                "active_memory_gb": mlx.get_active_memory() / 1e9,
                "cache_memory_gb": mlx.get_cache_memory() / 1e9,
            },
        }

    async def _answer(
        self, path: str, fields: dict[str, Any], form: object, receive: _Receive, send: _Send
    ) -> None:
        """Let the server's own handler answer in a thread, for as long as anyone waits."""
        stops = fields.pop("stop", ())
        stops = (stops,) if isinstance(stops, str) else tuple(map(str, stops))
        exchange = HandledRequest(self._generator, asyncio.get_running_loop(), stops, form)
        self._number += 1
        number = self._number
        self._running[number] = exchange
        leaving = asyncio.ensure_future(_until_left(receive))
        leaving.add_done_callback(lambda _: exchange.leave())
        handler = self._handler(exchange, path, fields, self._fingerprint)
        Thread(target=handler.answer, name=f"request {number}", daemon=True).start()
        try:
            async for message in exchange.messages():
                await send(message)
        finally:
            exchange.leave()
            leaving.cancel()
            del self._running[number]
            self._written += exchange.written


class HandledRequest:
    """One request while it is answered: what stands between the handler and the application.

    To the handler it is the generator, and what it writes its answer into.

    Args:
        stops: The texts at which the answer ends. The server's own search for them loses text of a
            stream where one is split over tokens; the gateway cuts what stands behind them.
        form: What the answer is held to, if anything.

    Attributes:
        written: The tokens of the answer so far.
        failure: What went wrong before there was an answer; None while nothing has.
    """

    def __init__(
        self,
        generator: Any,
        loop: asyncio.AbstractEventLoop,
        stops: tuple[str, ...] = (),
        form: object = None,
    ) -> None:
        self.cli_args = generator.cli_args
        self.written = 0
        self.failure: Exception | None = None
        self._generator = generator
        self._loop = loop
        self._messages: asyncio.Queue[_Message | None] = asyncio.Queue()
        self._answers = _Answers()
        self._read: tuple[int, int] = (0, 0)
        self._stops = tuple(filter(None, stops))
        self._form = form
        self._end_of_text = ""

    # for the application

    async def messages(self) -> AsyncIterator[_Message]:
        """What is to be sent to the client, until the answer ends."""
        while (message := await self._messages.get()) is not None:
            yield message

    def leave(self) -> None:
        """Let nothing more be generated: the client has left, or has its answer."""
        self._answers.leave()

    def row(self, number: int) -> dict[str, Any]:
        """How far the request is, in the words of vllm-mlx's own `/v1/status`."""
        context = self._answers.context
        tokens = 0 if context is None else len(context.prompt)
        read, of = self._read
        return {
            "request_id": str(number),
            "status": "waiting" if context is None else "running",
            "phase": "generation" if self.written else "prefill",
            "prompt_tokens": tokens,
            "completion_tokens": self.written,
            "progress": min(read / of, 1.0) if of and not self.written else 0.0,
        }

    # for the handler, in its thread

    def put(self, message: _Message | None) -> None:
        """Send a message to the client; None ends the answer."""
        if self._answers.is_left and message is not None:
            raise BrokenPipeError
        self._loop.call_soon_threadsafe(self._messages.put_nowait, message)

    def generate(
        self, request: Any, options: Any, progress_callback: Callable[[int, int], None]
    ) -> tuple[Any, Iterator[Any]]:
        """As the server's own: what is known of the answer beforehand, and its tokens."""
        generator = self._generator
        if generator._is_distributed and not generator._is_batchable(options):  # noqa: SLF001
            self._answers.cannot_stop = True
        options.form = self._form  # `mlx_lm_forms` lets the server look for it
        generator.requests.put((self._answers, request, options))
        try:
            context = self._next()
        except Exception as error:
            self.failure = error
            raise

        def tokens() -> Iterator[Any]:
            while (answer := self._next()) is not None:
                if isinstance(answer, tuple):
                    read, of = cast("tuple[int, int]", answer)
                    self._read = read, of
                    progress_callback(read, of)
                else:
                    self.written += 1
                    yield answer
                    if self._stops_at(answer.text):
                        return

        return context, tokens()

    def _stops_at(self, text: str) -> bool:
        """Whether one of the stops is in what has been said, now that `text` is added."""
        if not self._stops:
            return False
        said = self._end_of_text + text
        self._end_of_text = said[-max(map(len, self._stops)) :]
        return any(stop in said for stop in self._stops)

    def _next(self) -> Any:
        while True:
            try:
                found = self._answers.get(timeout=1.0)
            except Empty:
                if self._generator.generation_available():
                    continue
                raise RuntimeError("the engine generates no more") from None
            if isinstance(found, Exception):
                raise found
            return found


class _Answers(Queue[Any]):
    """What the generator says of one request; it is told when nobody listens any more.

    Attributes:
        context: What is known of the answer, once the request's turn has come.
        is_left: Whether nobody listens.
        cannot_stop: Whether it is written to its end all the same: the engine can't tell the
            other machines to stop one that isn't batched, and goes on without them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.context: Any = None
        self.is_left = False
        self.cannot_stop = False

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Take what the generator says next."""
        if hasattr(item, "stop"):
            self.context = item
            if self.cannot_stop:
                item.stop = _do_nothing
            if self.is_left:
                item.stop()
        super().put(item, block, timeout)

    def leave(self) -> None:
        """Let the generator go on to others, and whoever waits for it stop waiting."""
        if self.is_left:
            return
        self.is_left = True
        if self.context is not None:
            self.context.stop()
        super().put(BrokenPipeError())


def _do_nothing() -> None:
    """Stand in for what would stop an answer."""


_SERVERS_OWN: Any = object
"""What stands for `mlx_lm.server.APIHandler`, which only the engine's environment holds."""


class Answering(_SERVERS_OWN):
    """The server's own handler, made to answer a request that has been read already."""

    def __init__(
        self, exchange: HandledRequest, path: str, fields: dict[str, Any], fingerprint: str
    ) -> None:
        body = json.dumps(fields).encode()
        self.created = int(time.time())
        self.response_generator = exchange
        self.system_fingerprint = fingerprint
        self.path = path
        self.headers = {"Content-Length": str(len(body))}
        self.rfile = io.BytesIO(body)
        self.wfile = self
        self._exchange = exchange
        self._status = HTTPStatus.OK
        self._head: list[tuple[bytes, bytes]] = []
        self._has_begun = False

    def answer(self) -> None:
        """Answer, whatever happens."""
        try:
            try:
                self.do_POST()
            except BrokenPipeError:
                raise
            except Exception as error:
                logging.getLogger(PROGRAM).exception("an answer failed")
                self._fail(error)
            self._exchange.put(_body(b"", more=False))
        except BrokenPipeError:
            pass  # nobody is there to hear it
        finally:
            self._exchange.put(None)

    def generate_response(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """As the server's own, thoughts in the field where clients look for them."""
        servers_own: Any = super()
        response = servers_own.generate_response(*arguments, **named)
        for choice in response["choices"]:
            said: dict[str, Any] = choice.get("delta") or choice.get("message") or {}
            if "reasoning" in said:
                said["reasoning_content"] = said.pop("reasoning")
        return response

    def completion_usage_response(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """As the server's own, of the kind that the chunks before it are of."""
        servers_own: Any = super()
        response = servers_own.completion_usage_response(*arguments, **named)
        return {**response, "object": self.object_type}

    # what a `http.server` writes to its socket

    def send_response(self, code: int, message: str | None = None) -> None:
        """Keep the status until the head ends."""
        del message
        self._status = HTTPStatus(code)

    def send_header(self, keyword: str, value: str) -> None:
        """Keep a header, unless it opens the engine to pages of others."""
        if not keyword.lower().startswith("access-control-"):
            self._head.append((keyword.lower().encode(), value.encode()))

    def end_headers(self) -> None:
        """Begin the answer; an error begins with its reason."""
        if self._status is HTTPStatus.OK:
            self._begin(self._status, self._head)

    def write(self, data: bytes) -> int:
        """Send a piece of the answer, or the reason why there is none."""
        if self._has_begun:
            self._exchange.put(_body(data, more=True))
        else:
            self._refuse(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: pieces are sent at once."""

    def _begin(self, status: HTTPStatus, head: list[tuple[bytes, bytes]]) -> None:
        self._has_begun = True
        start = {"type": "http.response.start", "status": status.value, "headers": head}
        self._exchange.put(start)

    def _refuse(self, data: bytes) -> None:
        """Tell an error of the server's, whose status doesn't say whose fault it is."""
        failure, status = self._exchange.failure, self._status
        if failure is not None:
            is_ours = isinstance(failure, RuntimeError | MemoryError | OSError)
            status = HTTPStatus.INTERNAL_SERVER_ERROR if is_ours else HTTPStatus.BAD_REQUEST
        try:
            reason = str(json.loads(data)["error"])
        except (ValueError, KeyError, TypeError):
            reason = data.decode("utf-8", "replace")
        body = json.dumps(_error(status, reason)).encode()
        self._begin(status, _json_head(body))
        self._exchange.put(_body(body, more=True))

    def _fail(self, error: Exception) -> None:
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        if isinstance(error, TypeError | ValueError) and not self._exchange.written:
            status = HTTPStatus.BAD_REQUEST  # what it says can't be read
        said = _error(status, f"{type(error).__name__} in the engine")
        body = json.dumps(said).encode()
        if not self._has_begun:
            self._begin(status, _json_head(body))
            self._exchange.put(_body(body, more=True))
        elif self.stream:
            self._exchange.put(_body(b"data: " + body + b"\n\n", more=True))


def _error(status: HTTPStatus, reason: str) -> dict[str, Any]:
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    return {"error": {"message": reason, "type": kind, "code": status.value}}


def _body(data: bytes, *, more: bool) -> _Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def _json_head(body: bytes) -> list[tuple[bytes, bytes]]:
    length = str(len(body)).encode()
    return [(b"content-type", b"application/json"), (b"content-length", length)]


async def _send_json(send: _Send, status: HTTPStatus, said: object) -> None:
    body = json.dumps(said).encode()
    head = _json_head(body)
    await send({"type": "http.response.start", "status": status.value, "headers": head})
    await send(_body(body, more=False))


async def _read_body(receive: _Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _until_left(receive: _Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _live(receive: _Receive, send: _Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
