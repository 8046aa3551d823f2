"""Cases of Anthropic's Messages."""

from itertools import groupby
from typing import Any

from mlx_bench.conformance.case import Case
from mlx_bench.conformance.inputs import (
    CALLED,
    CLAUDE_TOOL,
    EMOJI,
    FOR_EVER,
    LONG_NAME,
    ONE_CALL,
    PIXEL,
    SCHEMA,
    SHOW,
    TWO_CALLS,
    call_of,
    texts,
    user,
)
from mlx_bench.conformance.server import COUNT, MESSAGES, TEXT, HttpAnswer, Server

_THINKING = {"type": "enabled", "budget_tokens": 1024}
_USE = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Paris"}}
_IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
_PDF = {
    "type": "document",
    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
}
_TEXT_DOCUMENT = {
    "type": "document",
    "source": {"type": "text", "media_type": "text/plain", "data": "Repeat: the document"},
}
_CACHED = {"cache_control": {"type": "ephemeral"}}
_BILLING = "x-anthropic-billing-header: cc_version=2.1.0; cc_entrypoint=cli;"
_MANY = [{**CLAUDE_TOOL, "name": f"tool_{number}"} for number in range(200)]
_LONG_TOOL = {**CLAUDE_TOOL, "name": LONG_NAME}
_NULLS = dict.fromkeys(
    ("system", "tools", "stop_sequences", "temperature", "top_p", "top_k", "tool_choice",
     "metadata", "thinking")
)  # fmt: skip
_ORDER = ["message_start", "content_block_start", "content_block_delta", "content_block_stop",
          "message_delta", "message_stop"]  # fmt: skip


def _result(*blocks: dict[str, Any] | str, **more: object) -> list[dict[str, Any]]:
    """A conversation that ends with the result of a tool, and what stands next to it."""
    first = {"type": "tool_result", "tool_use_id": "c1", **more}
    return [user("x"), {"role": "assistant", "content": [_USE]}, user([first, *blocks])]


def _blocks(answer: HttpAnswer) -> list[dict[str, Any]]:
    if answer.is_stream:
        return [each["content_block"] for each in answer.of("content_block_start")]
    return answer.document["content"]


def _kinds(answer: HttpAnswer) -> list[str]:
    return [block["type"] for block in _blocks(answer)]


def _is_whole(answer: HttpAnswer) -> bool:
    it = answer.document
    return (
        (it["type"], it["role"], it["stop_reason"]) == ("message", "assistant", "end_turn")
        and it["id"].startswith("msg_")
        and it["stop_sequence"] is None
        and answer.said == "one two three"
        and it["usage"]["input_tokens"] > 0
        and it["usage"]["output_tokens"] > 0
    )


def _is_in_order(answer: HttpAnswer) -> bool:
    kinds = [each["type"] for each in answer.events if each["type"] != "ping"]
    return [kind for kind, _ in groupby(kinds)] == _ORDER and answer.names[0] == "message_start"


def _tells_tokens(answer: HttpAnswer) -> bool:
    start = answer.of("message_start")[0]["message"]["usage"]
    end = answer.of("message_delta")[-1]["usage"]
    return start["input_tokens"] > 0 and end["output_tokens"] > 0


def _is_called(answer: HttpAnswer, times: int = 1) -> bool:
    return answer.calls == CALLED * times and answer.ending == "tool_use"


def _sees(server: Server, *words: str, **fields: object) -> bool:
    said = server.message(SHOW, max_tokens=2000, **fields).said
    return all(word in said for word in words)


def _shows(server: Server, messages: list[dict[str, Any]], *words: str) -> bool:
    said = server.message([*messages, user(SHOW)], max_tokens=2000).said
    return all(word in said for word in words)


def _is_stopped(answer: HttpAnswer, text: str, by: str) -> bool:
    document = answer.of("message_delta")[-1]["delta"] if answer.is_stream else answer.document
    return (
        answer.said == text and answer.ending == "stop_sequence" and document["stop_sequence"] == by
    )


def _counted(server: Server, text: object = TEXT, **fields: object) -> tuple[int, int]:
    """What is counted for a request, and what is billed for it."""
    counted = server.count(text, **fields).document["input_tokens"]
    billed = server.message(text, **fields).document["usage"]["input_tokens"]
    return counted, billed


def _is_exact(pair: tuple[int, int]) -> bool:
    return pair[0] == pair[1]


def _models_in_its_shape(server: Server) -> bool:
    answer = server.get("/v1/models", anthropic_version="2023-06-01").document
    row = answer["data"][0]
    return answer["has_more"] is False and row["type"] == "model" and bool(row["display_name"])


def _as_json(answer: HttpAnswer) -> bool:
    return answer.is_done_or_refused(done=answer.status == 200 and answer.said.startswith("{"))


def _follows_its_call(server: Server) -> bool:
    conversation = _result(content="sunny")
    conversation[-1]["content"].insert(0, *texts(SHOW))
    said = server.message(conversation, max_tokens=2000).said
    return 0 <= said.find("Paris") < said.find("sunny") < said.rfind(SHOW)


def _calls_long_name(server: Server) -> bool:
    """Whether a call comes back under the name that the client gave, whatever the model saw."""
    shown = server.message(SHOW, tools=[_LONG_TOOL], max_tokens=2000).said
    words = shown.replace('"', " ").split()
    seen = next(word for word in words if word.startswith(LONG_NAME[:20]))
    return server.message(call_of(seen), tools=[_LONG_TOOL], stream=True).calls == [
        (LONG_NAME, {"city": "Paris"})
    ]


CASES = (
    Case("A01", "a plain answer", "the text, `end_turn`, stop_sequence null, tokens read and written",
         lambda s: _is_whole(s.message())),
    Case("A02", "a streamed answer", "the events in order, each with its name",
         lambda s: _is_in_order(s.message(stream=True))),
    Case("A02u", "usage of a streamed answer", "tokens read in message_start, written in message_delta",
         lambda s: _tells_tokens(s.message(stream=True))),
    Case("A02e", "tokens read, streamed", "as many as a whole answer says",
         lambda s: s.message(stream=True).of("message_start")[0]["message"]["usage"]["input_tokens"] == s.message().usage["input_tokens"]),
    Case("A03", "system as a list with cache_control", "all of it reaches the model as text",
         lambda s: _sees(s, "be brief", "and kind", system=[{**each, **_CACHED} for each in texts("be brief", "and kind")])),
    Case("A03b", "Claude Code's billing header in the system prompt", "the rest reaches the model",
         lambda s: _sees(s, "be brief", system=texts(_BILLING, "be brief"))),
    Case("A04", "anthropic-beta headers, ?beta=true", "accepted",
         lambda s: s.ask(f"{MESSAGES}?beta=true", s.message_body(), anthropic_beta="unknown-2030-01-01,context-1m-2025-08-07").status == 200),
    Case("A05", "a tool call, streamed, text before it", "a text block, then one call, its pieces one JSON",
         lambda s: _is_called(it := s.message(ONE_CALL, tools=[CLAUDE_TOOL], stream=True)) and it.said.strip() == "I look."),
    Case("A05n", "a tool call without text, streamed", "no empty text block before it",
         lambda s: _is_called(it := s.message(call_of(), tools=[CLAUDE_TOOL], stream=True)) and _kinds(it) == ["tool_use"]),
    Case("A05p", "two tool calls, streamed", "two blocks", lambda s: _is_called(s.message(TWO_CALLS, tools=[CLAUDE_TOOL], stream=True), 2)),
    Case("A05d", "disable_parallel_tool_use, two calls said", "one",
         lambda s: s.message(TWO_CALLS, tools=[CLAUDE_TOOL], tool_choice={"type": "auto", "disable_parallel_tool_use": True}).calls == CALLED),
    Case("A06", "a tool call, not streamed", "a block with its input", lambda s: _is_called(s.message(ONE_CALL, tools=[CLAUDE_TOOL]))),
    Case("A07", "a tool's result as a text", "reaches the model", lambda s: s.message(_result(content="sunny")).said == "Seen: sunny"),
    Case("A07e", "a result with is_error, without content, with cache_control", "accepted",
         lambda s: all(s.message(_result(**each)).status == 200 for each in ({"is_error": True, "content": "x"}, {}, {"content": "x", **_CACHED}))),
    Case("A07i", "a result with a text and an image", "the text reaches the model, no 5xx",
         lambda s: (it := s.message(_result(content=[*texts("sunny"), _IMAGE]))).is_refused() or "sunny" in it.said),
    Case("A07l", "a result of two texts", "both, a line each", lambda s: s.message(_result(content=texts("sunny", "windy"))).said == "Seen: sunny\nwindy"),
    Case("A07t", "a text after a result in one message", "the result first, then the text",
         lambda s: s.message(_result(*texts("Repeat: and now?"), content="sunny")).said == "and now?"),
    Case("A07b", "a text before a result in one message", "the result directly after its call",
         _follows_its_call),
    Case("A07x", "a result without its call", "a refusal with an explanation",
         lambda s: s.message([user("x"), user([{"type": "tool_result", "tool_use_id": "c9", "content": "y"}])]).is_refused()),
    Case("A08a", "thinking adaptive, and disabled", "accepted", lambda s: all(s.message(thinking={"type": each}).said == "one two three" for each in ("adaptive", "disabled"))),
    Case("A09", "thinking blocks in the history", "accepted",
         lambda s: s.message([user("x"), {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, *texts("yes")]}, user("Repeat: ok")]).said == "ok"),
    Case("A09b", "a thinking block without signature, and a redacted one", "accepted",
         lambda s: s.message([user("x"), {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "redacted_thinking", "data": "x"}, *texts("yes")]}, user("Repeat: ok")]).said == "ok"),
    Case("A11", "count_tokens of a text, a system prompt and tools", "exactly what is billed",
         lambda s: _is_exact(_counted(s, "word " * 60, system="be brief", tools=_MANY[:8]))),
    Case("A11u", "count_tokens of Chinese and code", "exactly what is billed", lambda s: _is_exact(_counted(s, f"日本語 {EMOJI}\ndef f(x):\n    return x\n" * 5))),
    Case("A11t", "count_tokens with a tool's call and result", "exactly what is billed",
         lambda s: _is_exact(_counted(s, _result(content="sunny"), tools=[CLAUDE_TOOL]))),
    Case("A11m", "count_tokens for an unknown model", "404 with an explanation", lambda s: s.count(model="no-such-model").is_refused(404)),
    Case("A12", "stop_sequences", "the answer ends before it, and it is named",
         lambda s: _is_stopped(s.message(stop_sequences=["zzz", " two"]), "one", " two")),
    Case("A12s", "stop_sequences, streamed, split over tokens", "the same",
         lambda s: _is_stopped(s.message(stop_sequences=["ne tw"], stream=True), "o", "ne tw")),
    Case("A13", "max_tokens", "`max_tokens`", lambda s: s.message(FOR_EVER, max_tokens=3).ending == "max_tokens"),
    Case("A13s", "max_tokens, streamed", "`max_tokens`", lambda s: s.message(FOR_EVER, max_tokens=3, stream=True).ending == "max_tokens"),
    Case("A13o", "max_tokens of 1, as Claude Code probes", "an answer", lambda s: s.message(FOR_EVER, max_tokens=1).status == 200),
    Case("A14", "max_tokens missing", "a refusal with an explanation", lambda s: s.message(max_tokens=None).is_refused()),
    Case("A15", "an unknown model", "404 not_found_error", lambda s: (it := s.message(model="no-such-model")).is_refused(404) and it.document["error"]["type"] == "not_found_error"),
    Case("A15s", "an unknown model, streamed", "the same, and no stream", lambda s: s.message(model="no-such-model", stream=True).is_refused(404)),
    Case("A17", "the key as Bearer, and as x-api-key", "both open",
         lambda s: all(s.ask(MESSAGES, s.message_body(), **each).status == 200 for each in ({}, {"authorization": "", "x_api_key": s.api_key})), needs_key=True),
    Case("A17w", "a wrong key", "401 authentication_error",
         lambda s: (it := s.ask(MESSAGES, s.message_body(), authorization="Bearer wrong")).is_refused(401) and it.document["error"]["type"] == "authentication_error", needs_key=True),
    Case("A18", "damaged JSON", "a refusal with an explanation", lambda s: s.ask(MESSAGES, b'{"model": ').is_refused()),
    Case("A18r", "a wrong role", "a refusal with an explanation", lambda s: s.message([{"role": "wizard", "content": "x"}]).is_refused()),
    Case("A18m", "no messages", "a refusal with an explanation", lambda s: s.message([]).is_refused()),
    Case("A18c", "content null", "a refusal with an explanation", lambda s: s.message([user(None)]).is_refused()),
    Case("A18e", "JSON with an invalid escape", "a refusal with an explanation", lambda s: s.ask(MESSAGES, b'{"model": "x", "messages": [{"role": "user", "content": "\\d+"}]}').is_refused()),
    Case("A19", "optional fields null, stream too", "a whole answer, as if they were missing", lambda s: s.message(stream=None, **_NULLS).said == "one two three"),
    Case("A20", "a server's tool next to a client's", "the client's is called",
         lambda s: s.message(ONE_CALL, tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}, CLAUDE_TOOL]).calls == CALLED),
    Case("A20b", "bash, text editor and memory tools", "accepted, or a refusal with an explanation",
         lambda s: (it := s.message(tools=[{"type": "bash_20250124", "name": "bash"}, {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}, {"type": "memory_20250818", "name": "memory"}])).status == 200 or it.is_refused()),
    Case("A20t", "a tool with every newer field", "called",
         lambda s: s.message(ONE_CALL, tools=[{**CLAUDE_TOOL, "type": "custom", "strict": True, "defer_loading": False, "eager_input_streaming": True, "input_examples": [{"city": "Rome"}], **_CACHED}]).calls == CALLED),
    Case("A21", "temperature, top_k, top_p, service_tier, metadata", "accepted",
         lambda s: s.message(temperature=0.5, top_k=5, top_p=0.9, service_tier="auto", metadata={"user_id": "u"}).said == "one two three"),
    Case("A22", "tool_choice any and tool", "accepted, called",
         lambda s: all(s.message(ONE_CALL, tools=[CLAUDE_TOOL], tool_choice=each).calls == CALLED for each in ({"type": "any"}, {"type": "tool", "name": "weather"}))),
    Case("A22n", "tool_choice none", "no call, and the model isn't shown the tools", lambda s: "weather" not in s.message(SHOW, tools=[CLAUDE_TOOL], tool_choice={"type": "none"}).said),
    Case("A23", "a system message among the others", "reaches the model", lambda s: _shows(s, [user("x"), {"role": "assistant", "content": "y"}, {"role": "system", "content": "be brief"}], "be brief")),
    Case("A24", "HEAD /, as Claude Code probes", "200", lambda s: s.ask("/", method="HEAD").status == 200),
    Case("A25", "GET /v1/models with anthropic-version", "Anthropic's shape", _models_in_its_shape),
    Case("A26", "an assistant's message last (prefill)", "an answer or a refusal, no 5xx", lambda s: s.message([user("Repeat: ok"), {"role": "assistant", "content": "o"}]).status in (200, 400)),
    Case("A27", "a PDF", "read, or a refusal with an explanation", lambda s: s.message([user([_PDF, *texts("x")])]).is_refused()),
    Case("A27t", "a document of plain text", "reaches the model", lambda s: s.message([user([_TEXT_DOCUMENT])]).said == "the document"),
    Case("A27i", "an image for a model that sees none", "a refusal with an explanation", lambda s: s.message([user([_IMAGE, *texts("x")])]).is_refused()),
    Case("A27u", "a block of an unknown kind", "a refusal with an explanation: never left out", lambda s: s.message([user([{"type": "hologram"}, *texts("x")])]).is_refused()),
    Case("A28", "an empty text block", "an answer", lambda s: s.message([user(texts("", "Repeat: ok"))]).status == 200),
    Case("A28e", "an answer of nothing", "`end_turn`", lambda s: (it := s.message("Repeat: ")).ending == "end_turn" and it.said == ""),
    Case("A29", "characters of several tokens, streamed", "as they were", lambda s: s.message(f"Repeat: {EMOJI}", stream=True).said == EMOJI),
    Case("A29l", "half of a surrogate pair in the prompt", "a refusal with an explanation",
         lambda s: s.ask(MESSAGES, b'{"model": "%s", "max_tokens": 9, "messages": [{"role": "user", "content": "\\ud83c"}]}' % s.model.encode()).is_refused()),
    Case("A31", "output_config.format json_schema", "JSON of that schema, or a refusal with an explanation",
         lambda s: _as_json(s.message("Repeat: {}", output_config={"format": {"type": "json_schema", "schema": SCHEMA}}))),
    Case("A31u", "output_config.format json_schema, the model says prose", "JSON of that schema, or a refusal with an explanation: never ignored",
         lambda s: _as_json(s.message(output_config={"format": {"type": "json_schema", "schema": SCHEMA}}))),
    Case("A32", "200 tools", "an answer", lambda s: s.message(tools=_MANY).status == 200),
    Case("A32n", "a tool's name of 92 letters", "accepted", lambda s: s.message(tools=[_LONG_TOOL]).said == "one two three"),
    Case("A32u", "a tool with such a name is called", "under the name that the client gave", _calls_long_name),
    Case("A33", "NaN as the temperature", "a refusal with an explanation", lambda s: s.ask(COUNT.removesuffix("/count_tokens"), b'{"model": "%s", "max_tokens": 9, "temperature": NaN, "messages": [{"role": "user", "content": "x"}]}' % s.model.encode()).is_refused()),
)  # fmt: skip
