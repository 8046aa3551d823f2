"""Faults of the pinned engine and its libraries, fixed here until a lock holds them fixed.

`guard.py` applies them in the engine's own process, so this file imports nothing but the standard
library, and no file of the engine is changed. Each names the change upstream, if there is one. A
test shows each fault without its fix: when the pinned engine has none of them any more, it fails,
and this goes (decision 0026).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from contextvars import ContextVar
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

_MORE_TAGS = ("<|tool_calls_section_begin|>", "<\uff5ctool\u2581calls\u2581begin\uff5c>")
"""How the calls of Kimi and DeepSeek begin, which the engine's streams don't look for."""
_COUNT_TOKENS = "/v1/messages/count_tokens"


def apply() -> None:
    """Fix what is known of the libraries that are installed where this runs."""
    if find_spec("mlx_lm") is not None:
        bound_recurrent_metadata()
        mask_padded_prompts()
        leave_padding_out_of_states()
    if find_spec("vllm_mlx") is not None and find_spec("vllm_mlx.scheduler") is not None:
        end_requests_that_wait()
        close_abandoned_streams()
        end_whole_answers()
        hold_back_tags()
        wait_for_lists_of_calls()
        keep_thoughts()
        count_whole_prompts()


def bound_recurrent_metadata() -> None:
    """Let the caches of hybrid models hold no more after a million tokens than after one.

    A batch's cache counts its padding down with each token, and nothing ever computes the result:
    the chain of subtractions grows, with a small buffer of the GPU for each, in each recurrent
    layer, until Metal has no more to give (`Resource limit (499000) exceeded`). Bound to the state,
    the counts are computed whenever the state is: https://github.com/ml-explore/mlx-lm/pull/1632.
    """
    mx: Any = import_module("mlx.core")
    caches: Any = import_module("mlx_lm.models.cache")
    count_down = caches.ArraysCache.advance

    def advance(cache: Any, tokens: int) -> None:
        count_down(cache, tokens)
        counts = [each for each in (cache.lengths, cache.left_padding) if each is not None]
        for index, state in enumerate(cache.cache):
            if counts and state is not None:
                cache.cache[index] = mx.depends([state], counts)[0]
                break

    caches.ArraysCache.advance = advance


def mask_padded_prompts() -> None:
    """Let prompts of different lengths that are read together be masked where they end.

    A batch's recurrent cache says of a new batch that nothing is padded on the left, and of a chunk
    how long each prompt is in it; asked for a mask, it looks at the first alone. The padding of the
    first such chunk goes into the states, and the answers are to another prompt.
    """
    caches: Any = import_module("mlx_lm.models.cache")
    prepare = caches.ArraysCache.prepare

    def prepare_right(cache: Any, lengths: Any = None, **more: Any) -> None:
        prepare(cache, lengths=lengths, **more)
        if cache.left_padding is not None and max(cache.left_padding.tolist()) <= 0:
            cache.left_padding = None

    caches.ArraysCache.prepare = prepare_right


def leave_padding_out_of_states() -> None:
    """Let Mamba-2's states be those at the end of each prompt, where several are read together.

    mlx-lm's scan masks what padding adds to a state, but lets the state decay over it, and several
    models don't even tell it the lengths. Here each prompt of a padded chunk is scanned by itself.
    """
    mx: Any = import_module("mlx.core")
    ssm: Any = import_module("mlx_lm.models.ssm")
    scan = ssm.ssm_attn
    of_tokens, of_prompts = (0, 2, 3, 5), 7
    """Among its arguments (x, A_log, B, C, D, dt, dt_bias, state, ...), what each token has."""

    def scan_each(*inputs: Any, mask: Any = None, lengths: Any = None) -> Any:
        del lengths  # the mask says the same
        width = inputs[0].shape[1]
        counts = [width] if mask is None else mask.sum(axis=1).tolist()
        if all(count == width for count in counts):
            return scan(*inputs)
        rows: list[tuple[Any, Any]] = []
        for row, count in enumerate(counts):
            own = list(inputs)
            for index in (*of_tokens, of_prompts):
                own[index] = None if own[index] is None else own[index][row : row + 1]
            if count == 0:
                rows.append((mx.zeros_like(own[0]), own[of_prompts]))
                continue
            for index in of_tokens:
                own[index] = own[index][:, :count]
            out, state = scan(*own)
            rows.append((mx.pad(out, [(0, 0), (0, width - count), (0, 0), (0, 0)]), state))
        outputs, states = zip(*rows, strict=True)
        return mx.concatenate(outputs), mx.concatenate(states)

    ssm.ssm_attn = scan_each


def end_requests_that_wait() -> None:
    """Let a request whose client left while it waited inside the engine end there.

    The engine core forgets such a request before its scheduler deals with the abort, which then
    looks for it among the known ones only. It stays in the line, and is answered to its last token
    for nobody: two of them fill a tier that takes two at once.
    """
    scheduler: Any = import_module("vllm_mlx.scheduler").Scheduler
    abort = scheduler._do_abort_request  # noqa: SLF001 - there is no other way in

    def abort_also_forgotten(self: Any, request_id: str) -> bool:
        if request_id not in self.requests:
            for request in [each for each in self.waiting if each.request_id == request_id]:
                self.waiting.remove(request)
        return abort(self, request_id)

    scheduler._do_abort_request = abort_also_forgotten  # noqa: SLF001


def close_abandoned_streams() -> None:
    """Let a streamed answer end when its client leaves between two pieces of it.

    Starlette then leaves the answer's generator where it stands, and the engine leaves the one
    inside it, to the garbage collector, which an engine without other work may not run for hours.
    Only the end of the innermost one aborts the request: until then the answer is written, up to
    its last token, for nobody, and others wait for it. Here the end of a response closes both.
    """
    anyio: Any = import_module("anyio")
    response: Any = import_module("starlette.responses").StreamingResponse
    opened: ContextVar[list[Any] | None] = ContextVar("opened", default=None)
    respond = response.__call__

    async def respond_and_close(self: Any, scope: Any, receive: Any, send: Any) -> None:
        streams = [self.body_iterator]
        opened.set(streams)
        try:
            await respond(self, scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                for stream in streams:
                    # one that runs at this moment has been cancelled
                    with suppress(AttributeError, RuntimeError):
                        await stream.aclose()

    def remembered(open_stream: Callable[..., Any]) -> Callable[..., Any]:
        def open_and_remember(*args: Any, **more: Any) -> Any:
            stream = open_stream(*args, **more)
            streams = opened.get()
            if streams is not None:
                streams.append(stream)
            return stream

        return open_and_remember

    response.__call__ = respond_and_close
    for module, name, streams in (
        ("engine_core", "EngineCore", ["stream_outputs"]),
        ("mllm_scheduler", "MLLMScheduler", ["stream_outputs"]),
        ("engine.simple", "SimpleEngine", ["stream_chat", "stream_generate"]),
    ):
        owner: Any = getattr(import_module(f"vllm_mlx.{module}"), name)
        for each in streams:
            setattr(owner, each, remembered(getattr(owner, each)))


def end_whole_answers() -> None:
    """Let an answer that isn't streamed end when its client leaves, in the engine's simple mode.

    The engine writes it in one call that nothing can stop, up to its last token, and takes no other
    request meanwhile. With tools it collects the stream instead, which can be stopped; so it does
    now without tools as well.
    """
    simple: Any = import_module("vllm_mlx.engine.simple")
    in_one_call = simple.SimpleEngine.chat

    async def chat(self: Any, messages: Any, **more: Any) -> Any:
        if self._is_mllm:  # collects already where it can
            return await in_one_call(self, messages, **more)
        last = simple.GenerationOutput(text="")
        async with aclosing(self.stream_chat(messages=messages, **more)) as stream:
            async for output in stream:
                last = output
        return replace(last, text=simple.clean_output_text(last.text))

    simple.SimpleEngine.chat = chat


def hold_back_tags() -> None:
    """Let a stream show nothing of the tag that begins a tool call.

    The engine looks for whole tags in what it has sent already. A tokenizer that makes several
    tokens of one sends its beginning as text first; and for some of its parsers the engine looks
    for no tag at all, so that the whole call goes out as text.
    """
    server: Any = import_module("vllm_mlx.server")
    server._STREAMING_TOOL_MARKERS += _MORE_TAGS  # noqa: SLF001 - there is no other way in
    # harmony's are special tokens, which come whole, and what follows them may be an answer
    tags = [each for each in server._STREAMING_TOOL_MARKERS if "channel" not in each]  # noqa: SLF001
    for module, name in (("batched", "BatchedEngine"), ("simple", "SimpleEngine")):
        engine: Any = getattr(import_module(f"vllm_mlx.engine.{module}"), name)
        engine.stream_chat = _with_whole_tags(engine.stream_chat, tags)


def _with_whole_tags(stream_chat: Callable[..., Any], tags: list[str]) -> Callable[..., Any]:
    async def with_whole_tags(self: Any, messages: Any, **more: Any) -> AsyncIterator[Any]:
        held = ""
        async with aclosing(stream_chat(self, messages=messages, **more)) as outputs:
            async for output in outputs:
                said = held + output.new_text
                begun = len(said)
                if more.get("tools") and not output.finished:
                    begun = min(_begun_at(said, tag) for tag in tags)
                held = said[begun:]
                yield replace(output, new_text=said[:begun])

    return with_whole_tags


def _begun_at(text: str, tag: str) -> int:
    """Where the end of a text may have begun a tag; the text's length where it has not."""
    for at in range(max(len(text) - len(tag) + 1, 0), len(text)):
        if tag.startswith(text[at:]):
            return at
    return len(text)


def wait_for_lists_of_calls() -> None:
    """Let the calls of older Mistral models, `[TOOL_CALLS][{"name": …}]`, be calls in a stream too.

    The engine takes what comes before the first brace for the name of a tool, so that `[` is
    called. A whole answer's list it reads, and so it does with a stream's at the end, if nothing
    was made of it before. What turns out to be no list of calls is text, as in a whole answer.
    """
    parsers: Any = import_module("vllm_mlx.tool_parsers.mistral_tool_parser")
    parser = parsers.MistralToolParser
    stream = parser.extract_tool_calls_streaming

    def stream_but_lists(
        self: Any, before: str, text: str, delta: str, *args: Any, **more: Any
    ) -> Any:
        _, tag, said = text.partition(self.BOT_TOKEN)
        if not said.lstrip().startswith("["):
            return stream(self, before, text, delta, *args, **more)
        shown = delta[: max(len(delta) - len(tag + said), 0)]
        return {"content": shown} if shown else None

    def finalize(self: Any, text: str) -> Any:
        _, tag, said = text.partition(self.BOT_TOKEN)
        is_text = said.lstrip().startswith("[") and not self.extract_tool_calls(text).tools_called
        return {"content": tag + said} if is_text else None

    parser.extract_tool_calls_streaming = stream_but_lists
    parser.finalize_streaming = finalize


def keep_thoughts() -> None:
    """Let the thoughts of earlier answers (`reasoning_content`) reach the chat template.

    The engine reads them and drops them. A template that wants them, as in the middle of a loop of
    tool calls, then writes another prompt than the one that was answered, which is read anew.
    """
    server: Any = import_module("vllm_mlx.server")
    extract = server.extract_multimodal_content

    def with_thoughts(messages: Any, *args: Any, **more: Any) -> Any:
        made, *media = extract(messages, *args, **more)
        for given, message in zip(messages, made, strict=True):
            thoughts = _field(given, "reasoning_content")
            if message["role"] == "assistant" and thoughts:
                message["reasoning_content"] = thoughts
        return made, *media

    server.extract_multimodal_content = with_thoughts


def _field(message: Any, name: str) -> Any:
    """A field of a message, which is a dict or the engine's own type; None where it lacks one."""
    return message.get(name) if hasattr(message, "get") else getattr(message, name, None)


def count_whole_prompts() -> None:
    """Let `count_tokens` say what the same request is told as its `input_tokens`.

    The engine counts the texts of a request one by one, and not what the model's chat template
    makes of them: a tenth too few with tools. A request without messages has its texts counted as
    before. Pictures are not counted, since nothing tells what they take before they are read.
    """
    server: Any = import_module("vllm_mlx.server")
    llm: Any = import_module("vllm_mlx.models.llm").MLXLanguageModel
    route = next(each for each in server.app.routes if each.path == _COUNT_TOKENS)
    stream = llm.stream_generate

    def stream_tokens(self: Any, prompt: Any, *args: Any, **more: Any) -> Any:
        # as mlx-lm reads it, for the usage: with one token that begins a text, and not two
        tokens = _encoded(self.tokenizer, prompt) if isinstance(prompt, str) else prompt
        return stream(self, tokens, *args, **more)

    async def count_tokens(request: Any) -> Any:
        body = await request.json()
        if not body.get("messages"):
            return await route.endpoint(request)
        server._validate_model_name(body.get("model"))  # noqa: SLF001 - as its own routes do
        try:
            asked = server.AnthropicRequest(**{**body, "max_tokens": 1})
            asked = server.anthropic_to_openai(asked)
        except ValueError as error:
            raise server.HTTPException(status_code=400, detail=str(error)) from error
        seconds, deadline = server._start_request_budget(None)  # noqa: SLF001
        engine = await server._acquire_default_engine_for_request(  # noqa: SLF001
            request, total_timeout=seconds, deadline=deadline, count_activity=False,
            model=asked.model,
        )  # fmt: skip
        if engine is None:
            return server.Response(status_code=499)
        try:
            prepared = server._prepare_anthropic_endpoint_invocation(engine, asked, 1)  # noqa: SLF001
            return {"input_tokens": _prompt_tokens(engine, prepared)}
        finally:
            await server._release_engine_for_request(request, count_activity=False)  # noqa: SLF001

    count_tokens.__annotations__["request"] = server.Request
    server.app.router.routes.remove(route)
    server.app.post(_COUNT_TOKENS, dependencies=route.dependencies)(count_tokens)
    llm.stream_generate = stream_tokens


def _prompt_tokens(engine: Any, prepared: Any) -> int:
    """The tokens of the prompt that an engine makes of messages and tools."""
    options = prepared.chat_kwargs
    prompt = engine._apply_chat_template(  # noqa: SLF001
        prepared.messages,
        options.get("tools"),
        chat_template_kwargs=dict(options.get("chat_template_kwargs") or {}),
        enable_thinking=options.get("enable_thinking"),
    )
    batches = type(engine).__name__ == "BatchedEngine"
    return len(engine.tokenizer.encode(prompt) if batches else _encoded(engine.tokenizer, prompt))


def _encoded(tokenizer: Any, prompt: str) -> list[int]:
    """A prompt's tokens, without a second one that begins a text."""
    begins = tokenizer.bos_token
    return tokenizer.encode(prompt, add_special_tokens=not (begins and prompt.startswith(begins)))
