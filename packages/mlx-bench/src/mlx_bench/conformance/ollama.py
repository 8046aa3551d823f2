"""Cases of Ollama's API."""

import json
from typing import Any

from mlx_bench.conformance.case import Case
from mlx_bench.conformance.inputs import (
    ARGUMENTS,
    CALLED,
    EMOJI,
    FOR_EVER,
    ONE_CALL,
    PIXEL,
    SCHEMA,
    SHOW,
    TOOL,
    TWO_CALLS,
    user,
)
from mlx_bench.conformance.server import HttpAnswer, Server

_PARIS = f"Repeat: {json.dumps(ARGUMENTS)}"
_CALL = {"function": {"name": "weather", "arguments": ARGUMENTS}}


def _is_streamed(answer: HttpAnswer) -> bool:
    lines = answer.events
    last = lines[-1]
    return (
        answer.headers["content-type"].startswith("application/x-ndjson")
        and answer.said == "one two three"
        and [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
        and last["done_reason"] == "stop"
        and min(last["prompt_eval_count"], last["eval_count"], last["total_duration"]) > 0
    )


def _is_whole(answer: HttpAnswer) -> bool:
    it = answer.document
    return (
        (it["done"], it["done_reason"], answer.said) == (True, "stop", "one two three")
        and bool(it["model"] and it["created_at"])
        and it["eval_count"] > 0
    )


def _is_json_or_refused(answer: HttpAnswer) -> bool:
    return answer.is_done_or_refused(
        done=answer.status == 200 and json.loads(answer.said) == ARGUMENTS
    )


def _generate(server: Server, prompt: object, **fields: object) -> HttpAnswer:
    return server.ask("/api/generate", {"model": server.model, "prompt": prompt, **fields})


def _is_listed(server: Server) -> bool:
    rows = server.get("/api/tags").document["models"]
    row: dict[str, Any] = next(each for each in rows if each["name"] == server.model)
    details = row["details"]
    return isinstance(row["size"], int) and all(
        isinstance(each, str) for each in (row["digest"], row["modified_at"], details["family"])
    )


def _tells_context(server: Server) -> bool:
    shown = server.ask("/api/show", {"model": server.model}).document
    facts = shown["model_info"]
    context = facts.get(f"{facts['general.architecture']}.context_length")
    return "completion" in shown["capabilities"] and (context is None or context > 0)


CASES = (
    Case("O01", "/api/chat", "lines of JSON, streamed by default, counts and durations at the end", lambda s: _is_streamed(s.ollama())),
    Case("O01w", "/api/chat, stream false", "one document, the same", lambda s: _is_whole(s.ollama(stream=False))),
    Case("O02", "/api/generate", "lines of JSON", lambda s: _is_streamed(_generate(s, "Repeat: one two three"))),
    Case("O02w", "/api/generate, stream false, system", "one document; the system prompt reaches the model",
         lambda s: "be brief" in _generate(s, SHOW, system="be brief", stream=False).said),
    Case("O03", "options: num_predict, temperature, seed, num_ctx and others", "so many tokens, `length`",
         lambda s: (it := s.ollama(FOR_EVER, options={"num_predict": 3, "temperature": 0, "seed": 1, "num_ctx": 2048, "top_k": 5, "repeat_penalty": 1.0, "num_thread": 4}, stream=False)).ending == "length" and it.document["eval_count"] == 3),
    Case("O03s", "options.stop, streamed", "the answer ends before it", lambda s: s.ollama(options={"stop": ["ne tw"]}).said == "o"),
    Case("O04", "format json", "JSON", lambda s: json.loads(s.ollama(_PARIS, format="json", stream=False).said) == ARGUMENTS),
    Case("O04s", "format with a schema", "JSON of that schema, or a refusal with an explanation", lambda s: _is_json_or_refused(s.ollama(_PARIS, format=SCHEMA, stream=False))),
    Case("O05", "a tool call, streamed", "one call, its arguments an object", lambda s: s.ollama(ONE_CALL, tools=[TOOL]).calls == CALLED),
    Case("O05w", "two tool calls, stream false", "both", lambda s: s.ollama(TWO_CALLS, tools=[TOOL], stream=False).calls == CALLED * 2),
    Case("O05r", "a tool's result by tool_name", "reaches the model after its call",
         lambda s: s.ollama([user("x"), {"role": "assistant", "content": "", "tool_calls": [_CALL]}, {"role": "tool", "tool_name": "weather", "content": "sunny"}]).said == "Seen: sunny"),
    Case("O06f", "think false, and low", "accepted", lambda s: all(s.ollama("Repeat: ok", think=each).status == 200 for each in (False, "low"))),
    Case("O07", "an image for a model that sees none", "a refusal with an explanation", lambda s: s.ollama([{**user("x"), "images": [PIXEL]}]).is_refused()),
    Case("O08", "/api/tags", "every model, every field of the type that clients need", _is_listed),
    Case("O09", "/api/show", "capabilities and context", _tells_context),
    Case("O10", "/api/ps", "the models that are ready", lambda s: any(each["name"] == s.model for each in s.get("/api/ps").document["models"])),
    Case("O11", "/api/version", "a version that clients compare with theirs", lambda s: tuple(map(int, s.get("/api/version").document["version"].split("."))) >= (0, 6, 4)),
    Case("O12", "/api/embed for a model that embeds nothing", "vectors, or a refusal with an explanation",
         lambda s: (it := s.ask("/api/embed", {"model": s.model, "input": "x"})).is_done_or_refused(done=it.status == 200 and bool(it.document["embeddings"]))),
    Case("O13", "keep_alive in its forms", "accepted", lambda s: all(s.ollama("Repeat: ok", keep_alive=each, stream=False).said == "ok" for each in (-1, "5m", 0, "24h"))),
    Case("O13l", "no messages: load the model", "`load`", lambda s: (it := s.ollama([])).document["done"] is True and it.document["done_reason"] == "load"),
    Case("O14", "a model by its name and :latest", "an answer", lambda s: s.ollama("Repeat: ok", model=f"{s.model}:latest").said == "ok"),
    Case("O15", "an unknown model", "404 with an explanation", lambda s: s.ollama(model="no-such-model").is_refused(404)),
    Case("O16", "a wrong option, damaged JSON", "a refusal with an explanation", lambda s: s.ollama(options={"temperature": "hot"}).is_refused() and s.ask("/api/chat", b"{").is_refused()),
    Case("O17", "characters of several tokens", "as they were", lambda s: s.ollama(f"Repeat: {EMOJI}").said == EMOJI),
    Case("O18", "raw", "the prompt as it stands", lambda s: _generate(s, "<|im_start|>user\nRepeat: ok<|im_end|>\n<|im_start|>assistant\n", raw=True).said == "ok"),
)  # fmt: skip
