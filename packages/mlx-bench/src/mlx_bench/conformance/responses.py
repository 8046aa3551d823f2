"""Cases of OpenAI's Responses."""

import json
from itertools import pairwise
from typing import Any

from mlx_bench.conformance.case import Case
from mlx_bench.conformance.inputs import (
    ARGUMENTS,
    CALLED,
    EMOJI,
    FLAT_TOOL,
    FOR_EVER,
    ONE_CALL,
    SCHEMA,
    SHOW,
    TWO_CALLS,
    URL,
    call_of,
    texts,
    user,
)
from mlx_bench.conformance.server import RESPONSES, HttpAnswer, Server

_CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Paris"}'}  # fmt: skip
_THOUGHT: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": None}  # fmt: skip
_SPACE = {"type": "namespace", "name": "mcp__srv__", "description": "d", "tools": [FLAT_TOOL]}
_PATCH = {"type": "custom", "name": "apply_patch", "description": "d",
          "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}}  # fmt: skip
_CODEX = {
    "store": False, "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k",
    "parallel_tool_calls": True, "reasoning": {"effort": "medium", "summary": "auto"},
    "tool_choice": "auto", "text": {"verbosity": "medium"}, "service_tier": None,
}  # fmt: skip
_NULLS = dict.fromkeys(
    ("instructions", "previous_response_id", "tools", "tool_choice", "temperature", "top_p",
     "max_output_tokens", "metadata", "user", "reasoning", "text", "store", "include", "stream")
)  # fmt: skip
_PARIS = f"Repeat: {json.dumps(ARGUMENTS)}"
_SCHEMA_FORM = {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}}
_OPENING = ["response.created", "response.in_progress"]


def _output(content: object, kind: str = "function_call_output") -> list[dict[str, Any]]:
    return [user("x"), _CALL, {"type": kind, "call_id": "c1", "output": content}]


def _kinds(answer: HttpAnswer) -> list[str]:
    return [each["type"] for each in answer.events]


def _response(answer: HttpAnswer) -> dict[str, Any]:
    if not answer.is_stream:
        return answer.document
    return (answer.of("response.completed") + answer.of("response.incomplete"))[-1]["response"]


def _is_whole(answer: HttpAnswer) -> bool:
    it = answer.document
    return (
        (it["object"], it["status"], answer.said) == ("response", "completed", "one two three")
        and it["output"][-1]["type"] == "message"
        and it["usage"]["input_tokens"] > 0
    )


def _is_in_order(answer: HttpAnswer) -> bool:
    kinds = _kinds(answer)
    numbers: list[int] = [each["sequence_number"] for each in answer.events]
    return (
        kinds[:2] == _OPENING
        and kinds[-1] == "response.completed"
        and answer.said == "one two three"
        and all(later == earlier + 1 for earlier, later in pairwise(numbers))
        and answer.names == kinds
        and _response(answer)["usage"]["output_tokens"] > 0
    )


def _is_called_once(answer: HttpAnswer) -> bool:
    added = [each["item"] for each in answer.of("response.output_item.added")]
    begun = [item["arguments"] for item in added if item["type"] == "function_call"]
    done = answer.of("response.function_call_arguments.done")
    return (
        answer.calls == CALLED
        and begun == [""]
        and len(done) == 1
        and json.loads(done[0]["arguments"]) == ARGUMENTS
    )


def _shows(server: Server, given: list[dict[str, Any]], *words: str, **fields: object) -> bool:
    said = server.respond([*given, user(SHOW)], **fields).said
    return all(word in said for word in words)


def _is_json_or_refused(answer: HttpAnswer) -> bool:
    return answer.is_done_or_refused(
        done=answer.status == 200 and json.loads(answer.said) == ARGUMENTS
    )


def _calls_in_namespace(server: Server, *, streams: bool) -> bool:
    """Whether the tool of a namespace is shown, and comes back with its namespace."""
    shown = server.respond(SHOW, tools=[_SPACE]).said
    words = shown.replace('"', " ").split()
    seen = next(word for word in words if word.endswith("weather"))
    call = _response(server.respond(call_of(seen), tools=[_SPACE], stream=streams))["output"][-1]
    return (call["type"], call.get("namespace"), call["name"]) == (
        "function_call",
        "mcp__srv__",
        "weather",
    )


def _continues(server: Server, *, streams: bool) -> bool:
    """Whether a response continues an earlier one, or says with an explanation that it cannot."""
    first = server.respond("Repeat: a secret word", stream=streams)
    asked = {"previous_response_id": _response(first)["id"]}
    answer = server.respond(SHOW, **asked)
    return answer.is_done_or_refused(done="a secret word" in answer.said)


def _is_kept_or_refused(server: Server) -> bool:
    made = server.respond().document["id"]
    read = server.get(f"{RESPONSES}/{made}")
    return (read.status == 200 and read.document["id"] == made) or _says_not_found(read)


def _says_not_found(answer: HttpAnswer) -> bool:
    """Whether a path, or a thing, isn't there, in the words of OpenAI's shape."""
    return answer.status == 404 and bool(answer.document["error"]["message"])


def _calls_custom(server: Server) -> bool:
    order = 'Repeat: <tool_call>\n{"name": "apply_patch", "arguments": {"input": "*** Begin"}}\n</tool_call>'
    call = _response(server.respond(order, tools=[_PATCH], stream=True))["output"][-1]
    return (call["type"], call["name"], call["input"]) == (
        "custom_tool_call",
        "apply_patch",
        "*** Begin",
    )


CASES = (
    Case("R01", "a plain answer", "a message, `completed`, a usage", lambda s: _is_whole(s.respond())),
    Case("R02", "a streamed answer", "the events in order, numbered, named, usage at the end", lambda s: _is_in_order(s.respond(stream=True))),
    Case("R03", "instructions, and items of developer and system", "all of it reaches the model",
         lambda s: _shows(s, [{"role": "developer", "content": "be brief"}, {"role": "system", "content": "be kind"}], "be swift", "be brief", "be kind", instructions="be swift")),
    Case("R04", "a function call, streamed", "arguments once: empty when it begins, then deltas, then done", lambda s: _is_called_once(s.respond(ONE_CALL, tools=[FLAT_TOOL], stream=True))),
    Case("R04w", "a function call, not streamed", "an item with its arguments", lambda s: s.respond(ONE_CALL, tools=[FLAT_TOOL]).calls == CALLED),
    Case("R04p", "two function calls, streamed", "both", lambda s: s.respond(TWO_CALLS, tools=[FLAT_TOOL], stream=True).calls == CALLED * 2),
    Case("R04q", "parallel_tool_calls false, two calls said", "one", lambda s: s.respond(TWO_CALLS, tools=[FLAT_TOOL], parallel_tool_calls=False).calls == CALLED),
    Case("R05", "a function's output as a text", "reaches the model", lambda s: s.respond(_output("sunny")).said == "Seen: sunny"),
    Case("R05l", "a function's output as a list of input_text", "the texts, a line each, and no list", lambda s: s.respond(_output(texts("sunny", "windy", kind="input_text"))).said == "Seen: sunny\nwindy"),
    Case("R05x", "a function's output without its call", "a refusal with an explanation", lambda s: s.respond([user("x"), {"type": "function_call_output", "call_id": "c9", "output": "y"}]).is_refused()),
    Case("R06", "reasoning items with null content", "accepted", lambda s: s.respond([user("x"), _THOUGHT, {"role": "assistant", "content": "y"}, user("Repeat: ok")]).said == "ok"),
    Case("R06s", "the same, streamed", "accepted", lambda s: s.respond([user("x"), _THOUGHT, {"role": "assistant", "content": "y"}, user("Repeat: ok")], stream=True).said == "ok"),
    Case("R07", "all that Codex sends", "accepted", lambda s: s.respond(stream=True, **_CODEX).said == "one two three"),
    Case("R07x", "the efforts none, minimal, xhigh and max", "accepted", lambda s: all(s.respond(reasoning={"effort": each}).said == "one two three" for each in ("none", "minimal", "xhigh", "max"))),
    Case("R08", "previous_response_id", "the conversation continues, or a refusal with an explanation", lambda s: _continues(s, streams=False)),
    Case("R08s", "previous_response_id of a streamed answer", "the same", lambda s: _continues(s, streams=True)),
    Case("R08u", "an unknown previous_response_id", "a refusal with an explanation, 400 or 404", lambda s: (it := s.respond(previous_response_id="resp_0")).is_refused() or it.is_refused(404)),
    Case("R08g", "GET of a response by its id", "the response, or 404 with an explanation", _is_kept_or_refused),
    Case("R09", "text.format json_schema", "JSON of that schema, or a refusal with an explanation at once", lambda s: _is_json_or_refused(s.respond(_PARIS, text=_SCHEMA_FORM))),
    Case("R09o", "text.format json_object", "JSON", lambda s: json.loads(s.respond(_PARIS, text={"format": {"type": "json_object"}}).said) == ARGUMENTS),
    Case("R09s", "text.format json_object, streamed", "JSON, the events of a response", lambda s: json.loads((it := s.respond(_PARIS, text={"format": {"type": "json_object"}}, stream=True)).said) == ARGUMENTS and _kinds(it)[-1] == "response.completed"),
    Case("R10", "tools of a namespace (MCP in Codex)", "shown, and called with the namespace", lambda s: _calls_in_namespace(s, streams=False)),
    Case("R10s", "the same, streamed", "the same", lambda s: _calls_in_namespace(s, streams=True)),
    Case("R10c", "a custom tool (apply_patch in Codex)", "shown to the model", lambda s: "apply_patch" in s.respond(SHOW, tools=[_PATCH]).said),
    Case("R10d", "a custom tool is called", "a custom_tool_call with its input as text", _calls_custom),
    Case("R10w", "web_search and local_shell next to a function", "the function is called", lambda s: s.respond(ONE_CALL, tools=[{"type": "web_search"}, {"type": "local_shell"}, FLAT_TOOL]).calls == CALLED),
    Case("R11", "optional fields null", "a whole answer, as if they were missing", lambda s: s.respond(**_NULLS).said == "one two three"),
    Case("R11t", "a tool with parameters, strict and description null", "accepted", lambda s: s.respond(tools=[{"type": "function", "name": "go", "parameters": None, "strict": None, "description": None}]).said == "one two three"),
    Case("R14", "max_output_tokens", "`incomplete`, with the reason", lambda s: (it := s.respond(FOR_EVER, max_output_tokens=20)).ending == "incomplete" and it.document["incomplete_details"]["reason"] == "max_output_tokens"),
    Case("R14m", "max_output_tokens of 3", "so many tokens", lambda s: s.respond(FOR_EVER, max_output_tokens=3).usage["output_tokens"] == 3),
    Case("R14s", "max_output_tokens, streamed", "response.incomplete", lambda s: _kinds(s.respond(FOR_EVER, max_output_tokens=3, stream=True))[-1] == "response.incomplete"),
    Case("R16", "an unknown model", "404 with an explanation", lambda s: s.respond(model="no-such-model").is_refused(404)),
    Case("R16s", "an unknown model, streamed", "404 with an explanation, and no stream", lambda s: s.respond(model="no-such-model", stream=True).is_refused(404)),
    Case("R17", "damaged JSON", "a refusal with an explanation", lambda s: s.ask(RESPONSES, b'{"model"').is_refused()),
    Case("R17i", "no input", "a refusal with an explanation", lambda s: s.ask(RESPONSES, {"model": s.model}).is_refused()),
    Case("R18", "an image for a model that sees none", "a refusal with an explanation", lambda s: s.respond([user([{"type": "input_image", "image_url": URL}])]).is_refused()),
    Case("R18u", "a part of an unknown kind in a message", "a refusal with an explanation: never left out", lambda s: s.respond([user([*texts("x", kind="input_text"), {"type": "hologram"}])]).is_refused()),
    Case("R19", "messages without a type, content as a text", "accepted", lambda s: s.respond([user("Repeat: ok")]).said == "ok"),
    Case("R19l", "content as a list of input_text", "accepted", lambda s: s.respond([user(texts("Repeat: ok", kind="input_text"))]).said == "ok"),
    Case("R20", "input_tokens", "the number, or 404 with an explanation", lambda s: (it := s.ask(f"{RESPONSES}/input_tokens", {"model": s.model, "input": "x"})).status == 200 or _says_not_found(it)),
    Case("R20c", "compact", "an answer, or 404 with an explanation", lambda s: (it := s.ask(f"{RESPONSES}/compact", {"model": s.model, "input": "x"})).status == 200 or _says_not_found(it)),
    Case("R21", "tool_choice of a function, in its flat form", "accepted", lambda s: s.respond(ONE_CALL, tools=[FLAT_TOOL], tool_choice={"type": "function", "name": "weather"}).calls == CALLED),
    Case("R21r", "tool_choice required, and allowed_tools", "accepted",
         lambda s: all(s.respond(ONE_CALL, tools=[FLAT_TOOL], tool_choice=each).calls == CALLED for each in ("required", {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "weather"}]}))),
    Case("R22", "characters of several tokens, streamed", "as they were", lambda s: s.respond(f"Repeat: {EMOJI}", stream=True).said == EMOJI),
    Case("R23", "a custom tool's call and output in the history", "reach the model",
         lambda s: _shows(s, [user("x"), {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": "*** Begin"}, {"type": "custom_tool_call_output", "call_id": "c1", "output": "patched"}], "*** Begin", "patched", tools=[_PATCH])),
    Case("R24", "two calls and their outputs in a row", "reach the model",
         lambda s: _shows(s, [user("x"), _CALL, {**_CALL, "call_id": "c2"}, _output("sunny")[-1], {**_output("windy")[-1], "call_id": "c2"}], "sunny", "windy")),
)  # fmt: skip
