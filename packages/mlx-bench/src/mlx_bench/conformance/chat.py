"""Cases of OpenAI's Chat Completions and Completions."""

import json
from typing import Any

from mlx_bench.conformance.case import Case
from mlx_bench.conformance.inputs import (
    ARGUMENTS,
    CALLED,
    EMOJI,
    FOR_EVER,
    FUNCTION,
    LONG_NAME,
    ONE_CALL,
    RAW,
    SCHEMA,
    SHOW,
    TOOL,
    TWO_CALLS,
    URL,
    call_of,
    texts,
    user,
)
from mlx_bench.conformance.server import CHAT, HttpAnswer, Server

_PARIS = f"Repeat: {json.dumps(ARGUMENTS)}"
_STRICT = {
    "type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}
}  # fmt: skip
_ASKED = {
    "role": "assistant", "content": None,
    "tool_calls": [{"id": "c1", "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}],
}  # fmt: skip
_NULLS = dict.fromkeys(
    ("temperature", "top_p", "max_tokens", "stop", "tools", "tool_choice", "response_format", "n",
     "seed", "user", "logit_bias", "logprobs", "presence_penalty", "frequency_penalty")
)  # fmt: skip
_MODERN = {
    "store": False, "metadata": {"a": "b"}, "service_tier": "auto", "verbosity": "low",
    "prompt_cache_key": "k", "safety_identifier": "s", "modalities": ["text"],
    "prediction": {"type": "content", "content": "x"},
}  # fmt: skip
_AS_DUMPED: dict[str, Any] = {
    "role": "assistant", "content": "yes", "refusal": None, "annotations": [], "audio": None,
    "function_call": None, "tool_calls": None,
}  # fmt: skip


def _result(content: object) -> list[dict[str, Any]]:
    return [user("x"), _ASKED, {"role": "tool", "tool_call_id": "c1", "content": content}]


def _ends_as_a_stream(answer: HttpAnswer) -> bool:
    return answer.is_stream and answer.text.endswith("data: [DONE]\n\n")


def _usages(answer: HttpAnswer) -> list[dict[str, Any]]:
    return [each for each in answer.events if each.get("usage")]


def _is_right_start(answer: HttpAnswer) -> bool:
    first = answer.events[0]["choices"][0]["delta"]
    return (
        first.get("role") == "assistant"
        and answer.ending == "stop"
        and _ends_as_a_stream(answer)
        and not _usages(answer)
    )


def _counts_once(answer: HttpAnswer) -> bool:
    found = _usages(answer)
    return len(found) == 1 and found[0]["choices"] == [] and found[0] == answer.events[-1]


def _is_stopped(answer: HttpAnswer, text: str) -> bool:
    return answer.said == text and answer.ending == "stop"


def _is_called(answer: HttpAnswer, times: int = 1) -> bool:
    return answer.calls == CALLED * times and answer.ending == "tool_calls"


def _sees(server: Server, *words: str, messages: list[dict[str, Any]], **fields: object) -> bool:
    """Whether everything in these messages reaches the model."""
    said = server.chat([*messages, user(SHOW)], **fields).said
    return all(word in said for word in words)


def _has_first_call_only(answer: HttpAnswer) -> bool:
    return answer.calls == CALLED


def _raw(server: Server, body: bytes) -> HttpAnswer:
    return server.ask(CHAT, body)


def _json_as_asked(answer: HttpAnswer) -> bool:
    return answer.is_done_or_refused(
        done=answer.status == 200 and json.loads(answer.said) == ARGUMENTS
    )


def _is_whole(answer: HttpAnswer) -> bool:
    usage = answer.usage
    total = usage["prompt_tokens"] + usage["completion_tokens"]
    return _is_stopped(answer, "one two three") and usage["total_tokens"] == total


def _body(server: Server, field: bytes, text: bytes = b"Repeat: ok") -> bytes:
    """A request with a field as it stands."""
    messages = b'"messages": [{"role": "user", "content": "%s"}]' % text
    return b'{"model": "%s", %s, %s}' % (server.model.encode(), messages, field)


CASES = (
    Case("C01", "a plain answer", "the text, `stop`, a usage that adds up",
         lambda s: _is_whole(s.chat())),
    Case("C02", "a streamed answer", "the role first, `stop`, [DONE], and no usage, which was not asked for",
         lambda s: _is_right_start(s.chat(stream=True))),
    Case("C03", "include_usage", "one chunk with it, the last, its choices empty",
         lambda s: _counts_once(s.chat(stream=True, stream_options={"include_usage": True}))),
    Case("C04", "stop as a text", "the answer ends before it",
         lambda s: _is_stopped(s.chat(stop=" three"), "one two")),
    Case("C04s", "stop as a text, streamed, split over tokens", "the same, with [DONE]",
         lambda s: _is_stopped(it := s.chat(stop="wo th", stream=True), "one t") and _ends_as_a_stream(it)),
    Case("C05", "stop as a list", "the answer ends before the first that comes",
         lambda s: _is_stopped(s.chat(stop=["zzz", " two"]), "one")),
    Case("C05s", "stop as a list, streamed, split over tokens", "the same, with [DONE]",
         lambda s: _is_stopped(it := s.chat(stop=["zzz", "ne tw"], stream=True), "o") and _ends_as_a_stream(it)),
    Case("C05u", "stop and include_usage, streamed", "the tokens that were said are counted",
         lambda s: 0 < s.chat(stop=[" two"], stream=True, stream_options={"include_usage": True}).usage["completion_tokens"] < 4),
    Case("C07", "max_tokens", "so many tokens, `length`",
         lambda s: (it := s.chat(FOR_EVER, max_tokens=3)).ending == "length" and it.usage["completion_tokens"] == 3),
    Case("C07s", "max_tokens, streamed", "`length`",
         lambda s: s.chat(FOR_EVER, max_tokens=3, stream=True).ending == "length"),
    Case("C08", "max_completion_tokens", "the same as max_tokens",
         lambda s: (_it := s.chat(FOR_EVER, max_completion_tokens=3, max_tokens=None)).usage["completion_tokens"] == 3),
    Case("C08b", "max_completion_tokens below max_tokens", "the smaller of both holds",
         lambda s: s.chat(FOR_EVER, max_completion_tokens=3, max_tokens=50).usage["completion_tokens"] == 3),
    Case("C09", "every optional field null", "an answer, as if they were missing",
         lambda s: s.chat(**_NULLS).said == "one two three"),
    Case("C09s", "stream null", "a whole answer",
         lambda s: s.chat(stream=None).said == "one two three"),
    Case("C09o", "stream_options null, and include_usage null", "a stream",
         lambda s: all(s.chat(stream=True, stream_options=each).said == "one two three" for each in (None, {"include_usage": None}))),
    Case("C10", "n of 2", "two choices, or a refusal with an explanation",
         lambda s: (it := s.chat(n=2)).is_done_or_refused(done=it.status == 200 and len(it.document["choices"]) == 2)),
    Case("C11", "seed", "an answer", lambda s: s.chat(seed=7).said == "one two three"),
    Case("C12", "logprobs", "given, or refused with an explanation",
         lambda s: (it := s.chat(logprobs=True, top_logprobs=2)).is_done_or_refused(done=it.status == 200 and bool(it.document["choices"][0].get("logprobs")))),
    Case("C13", "response_format json_object", "JSON",
         lambda s: json.loads(s.chat(_PARIS, response_format={"type": "json_object"}).said) == ARGUMENTS),
    Case("C14", "response_format json_schema", "JSON of that schema, or a refusal with an explanation at once",
         lambda s: _json_as_asked(s.chat(_PARIS, response_format=_STRICT))),
    Case("C14s", "response_format json_schema, streamed", "the same",
         lambda s: _json_as_asked(s.chat(_PARIS, response_format=_STRICT, stream=True))),
    Case("C14w", "json_schema without a schema", "a refusal with an explanation",
         lambda s: s.chat(response_format={"type": "json_schema"}).is_refused()),
    Case("C15", "a tool call", "its name, its arguments, `tool_calls`",
         lambda s: _is_called(s.chat(ONE_CALL, tools=[TOOL]))),
    Case("C16", "a tool call, streamed, text before it", "the text without any of the call's tag, then one call",
         lambda s: _is_called(it := s.chat(ONE_CALL, tools=[TOOL], stream=True)) and it.said.strip() == "I look."),
    Case("C17", "two tool calls", "both", lambda s: _is_called(s.chat(TWO_CALLS, tools=[TOOL]), 2)),
    Case("C17s", "two tool calls, streamed", "both, each with a separate index",
         lambda s: _is_called(s.chat(TWO_CALLS, tools=[TOOL], stream=True), 2)),
    Case("C17p", "parallel_tool_calls false, two calls said", "one",
         lambda s: _has_first_call_only(s.chat(TWO_CALLS, tools=[TOOL], parallel_tool_calls=False))),
    Case("C17q", "the same, streamed", "one",
         lambda s: _has_first_call_only(s.chat(TWO_CALLS, tools=[TOOL], parallel_tool_calls=False, stream=True))),
    Case("C18", "tool_choice none", "no call, and the model isn't shown the tools",
         lambda s: "weather" not in s.chat(SHOW, tools=[TOOL], tool_choice="none").said),
    Case("C19", "tool_choice required", "accepted, the tools shown",
         lambda s: _is_called(s.chat(ONE_CALL, tools=[TOOL], tool_choice="required"))),
    Case("C19n", "tool_choice names a function", "accepted",
         lambda s: s.chat(ONE_CALL, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "weather"}}).calls == CALLED),
    Case("C19u", "tool_choice names a function that isn't there", "a refusal with an explanation",
         lambda s: s.chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "no-such-model"}}).is_refused()),
    Case("C20", "tools is an empty list", "an answer", lambda s: s.chat(tools=[]).said == "one two three"),
    Case("C21", "a call with content null, and its result, in the history", "all of it reaches the model",
         lambda s: _sees(s, "Paris", "weather", "sunny", messages=_result("sunny"))),
    Case("C22", "a tool's result as a list of texts", "the texts, a line each, and no list",
         lambda s: s.chat(_result(texts("sunny", "windy"))).said == "Seen: sunny\nwindy"),
    Case("C22o", "a tool's result as a list of one text", "the text",
         lambda s: s.chat(_result(texts("sunny"))).said == "Seen: sunny"),
    Case("C22x", "a tool's result without its call", "a refusal with an explanation",
         lambda s: s.chat([user("x"), {"role": "tool", "tool_call_id": "c9", "content": "y"}]).is_refused()),
    Case("C23", "a message of the developer", "reaches the model as the system's",
         lambda s: _sees(s, "be brief", messages=[{"role": "developer", "content": "be brief"}])),
    Case("C24", "the system's content as a list of texts", "reaches the model",
         lambda s: _sees(s, "be brief", "and kind", messages=[{"role": "system", "content": texts("be brief", "and kind")}])),
    Case("C25", "the user's content as a list of texts", "reaches the model",
         lambda s: s.chat([user(texts("Repeat: ok"))]).said == "ok"),
    Case("C25i", "an image for a model that sees none", "a refusal with an explanation",
         lambda s: s.chat([user([*texts("x"), {"type": "image_url", "image_url": {"url": URL}}])]).is_refused()),
    Case("C25f", "a file in a message", "read, or a refusal with an explanation",
         lambda s: s.chat([user([*texts("x"), {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA=="}}])]).is_refused()),
    Case("C25u", "a part of an unknown kind in a message", "a refusal with an explanation: never left out",
         lambda s: s.chat([user([*texts("x"), {"type": "hologram"}])]).is_refused()),
    Case("C26", "an empty message of the user", "an answer", lambda s: s.chat("").status == 200),
    Case("C26e", "an answer of nothing", "content empty or null, `stop`",
         lambda s: _is_stopped(s.chat("Repeat: "), "")),
    Case("C26s", "an answer of nothing, streamed", "`stop` and [DONE]",
         lambda s: _is_stopped(it := s.chat("Repeat: ", stream=True), "") and _ends_as_a_stream(it)),
    Case("C26m", "no messages", "a refusal with an explanation", lambda s: s.chat([]).is_refused()),
    Case("C27", "an unknown model", "404 with an explanation",
         lambda s: s.chat(model="no-such-model").is_refused(404)),
    Case("C27s", "an unknown model, streamed", "404 with an explanation, and no stream",
         lambda s: s.chat(model="no-such-model", stream=True).is_refused(404)),
    Case("C28", "damaged JSON", "a refusal with an explanation", lambda s: _raw(s, b'{"model": "x", ').is_refused()),
    Case("C28m", "no model named", "a refusal with an explanation",
         lambda s: s.ask(CHAT, {"messages": [user("x")]}).is_refused()),
    Case("C28n", "no field `messages`", "a refusal with an explanation", lambda s: s.ask(CHAT, {"model": s.model}).is_refused()),
    Case("C28l", "JSON that is a list", "a refusal with an explanation", lambda s: s.ask(CHAT, [1]).is_refused()),
    Case("C28e", "no body at all", "a refusal with an explanation", lambda s: _raw(s, b"").is_refused()),
    Case("C28t", "temperature as a text", "a refusal with an explanation", lambda s: s.chat(temperature="hot").is_refused()),
    Case("C28x", "NaN as the temperature", "a refusal with an explanation",
         lambda s: _raw(s, _body(s, b'"temperature": NaN')).is_refused()),
    Case("C28i", "a number beyond every float", "a refusal with an explanation",
         lambda s: _raw(s, _body(s, b'"temperature": 1e999')).is_refused()),
    Case("C28o", "min_p out of range", "a refusal, and the next request is answered",
         lambda s: s.chat(min_p=-1).is_refused() and s.chat().said == "one two three"),
    Case("C28r", "an unknown role", "a refusal with an explanation", lambda s: s.chat([{"role": "wizard", "content": "x"}]).is_refused()),
    Case("C29", "characters of several tokens, streamed", "as they were",
         lambda s: s.chat(f"Repeat: {EMOJI}", stream=True).said == EMOJI),
    Case("C29r", "emoji as \\u escapes and as UTF-8 in the prompt", "both reach the model",
         lambda s: all(_raw(s, json.dumps({"model": s.model, "messages": [user(f"Repeat: {EMOJI}")]}, ensure_ascii=each).encode()).said == EMOJI for each in (True, False))),
    Case("C29z", "a NUL character in the prompt", "an answer or a refusal, no 5xx",
         lambda s: s.chat("a\0b").status in (200, 400)),
    Case("C29l", "half of a surrogate pair in the prompt", "a refusal with an explanation",
         lambda s: _raw(s, _body(s, b'"user": "x"', text=b"\\ud83c")).is_refused()),
    Case("C31", "penalties, logit_bias, user, top_k", "accepted",
         lambda s: s.chat(presence_penalty=0.1, frequency_penalty=0.1, logit_bias={"5": -1}, user="u", top_k=5).said == "one two three"),
    Case("C32h", "thoughts in the history (reasoning_content)", "reach the model's template",
         lambda s: _sees(s, "I pondered", messages=[user("x"), {"role": "assistant", "content": "yes", "reasoning_content": "I pondered"}])),
    Case("C34", "functions and function_call", "a call, or a refusal with an explanation",
         lambda s: (it := s.chat(ONE_CALL, functions=[FUNCTION], function_call="auto")).is_done_or_refused(done=it.status == 200 and bool(it.document["choices"][0]["message"].get("function_call")))),
    Case("C35", "fields of newer clients (store, metadata, service_tier, …)", "accepted",
         lambda s: s.chat(**_MODERN).said == "one two three"),
    Case("C35r", "reasoning_effort", "accepted", lambda s: all(s.chat(reasoning_effort=each).said == "one two three" for each in ("low", "high"))),
    Case("C36", "a tool without parameters or description", "accepted, called",
         lambda s: s.chat(call_of("go"), tools=[{"type": "function", "function": {"name": "go"}}]).calls == [("go", ARGUMENTS)]),
    Case("C36d", "a tool's name with a dot, or of 92 letters", "accepted, or a refusal with an explanation",
         lambda s: all(it.status == 200 or it.is_refused() for it in (s.chat(tools=[{"type": "function", "function": {"name": each}}]) for each in ("a.b", LONG_NAME)))),
    Case("C36c", "a tool of the type `custom`", "shown to the model, or a refusal with an explanation",
         lambda s: (it := s.chat(SHOW, tools=[{"type": "custom", "custom": {"name": "apply_patch"}}])).is_done_or_refused(done="apply_patch" in it.text)),
    Case("C36u", "a tool of an unknown type", "a refusal with an explanation", lambda s: s.chat(tools=[{"type": "teleport"}]).is_refused()),
    Case("C37", "an earlier answer as the SDK dumps it", "accepted, reaches the model",
         lambda s: _sees(s, "yes", messages=[user("x"), _AS_DUMPED])),
    Case("C37n", "a name on a message", "accepted", lambda s: s.chat([{**user("Repeat: ok"), "name": "ann"}]).said == "ok"),
    Case("C38", "the last message is the assistant's", "an answer", lambda s: s.chat([user("Repeat: ok"), {"role": "assistant", "content": "o"}]).status == 200),
    Case("C39", "temperature 0, top_p 1", "an answer", lambda s: s.chat(temperature=0, top_p=1).said == "one two three"),
    Case("C39t", "temperature of 3", "an answer or a refusal, no 5xx", lambda s: s.chat(temperature=3).status in (200, 400)),
    Case("C40", "max_tokens 0 and below", "a refusal with an explanation", lambda s: all(s.chat(max_tokens=each).is_refused() for each in (0, -1))),
    Case("C41", "max_tokens of 200,000", "an answer", lambda s: s.chat(max_tokens=200_000).said == "one two three"),
    Case("C42", "the answer's id", "starts with chatcmpl-", lambda s: s.chat().document["id"].startswith("chatcmpl-")),
    Case("P01", "a plain completion", "a text, `text_completion`",
         lambda s: (it := s.complete(RAW)).document["object"] == "text_completion" and it.said == "one two three"),
    Case("P02", "a streamed completion", "the same, and [DONE]",
         lambda s: (it := s.complete(RAW, stream=True)).said == "one two three" and _ends_as_a_stream(it)),
    Case("P03", "stop as a text", "the answer ends before it", lambda s: s.complete(RAW, stop=" three").said == "one two"),
    Case("P04", "stop as a list, streamed", "the answer ends before it", lambda s: s.complete(RAW, stop=["ne tw"], stream=True).said == "o"),
    Case("P05", "an empty prompt", "an answer or a refusal, no 5xx", lambda s: s.complete("").status in (200, 400)),
    Case("P06", "echo, suffix, n, logprobs", "done or refused with an explanation",
         lambda s: all(s.complete(**{name: value}).is_refused() for name, value in (("echo", True), ("suffix", "x"), ("n", 2), ("logprobs", 1)))),
)  # fmt: skip
