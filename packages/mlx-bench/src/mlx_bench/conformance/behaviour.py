"""Cases of behaviour: clients that leave, silence, many requests at once."""

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx

from mlx_bench.conformance.case import Case
from mlx_bench.conformance.inputs import user
from mlx_bench.conformance.server import (
    CHAT,
    COMPLETIONS,
    MESSAGES,
    RESPONSES,
    TEXT,
    Server,
)

_SLOW = "Wait 1 s. Talk forever."
_SOON_S = 4.0
"""A request that is answered later has waited for one whose client has left."""
_SILENCE_S = 12
_SIGN_WITHIN_S = 10.0


def _body(server: Server, path: str, text: str, **fields: object) -> dict[str, object]:
    if path == RESPONSES:
        return {"model": server.model, "input": text, **fields}
    if path == COMPLETIONS:
        prompt = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
        return {"model": server.model, "prompt": prompt, "max_tokens": 500, **fields}
    return {"model": server.model, "messages": [user(text)], "max_tokens": 500, **fields}


def _leave(server: Server, path: str, *, streams: bool, after_s: float = 1.5) -> None:
    """Ask for an answer without an end, and leave."""
    body = _body(server, path, _SLOW, stream=streams)
    with (
        suppress(httpx.ReadTimeout),
        httpx.Client(base_url=server.base_url, timeout=after_s) as client,
        client.stream("POST", path, json=body, headers=server.headers()) as answer,
    ):
        next(answer.iter_bytes())


def _answer_s(server: Server) -> float:
    """How long a short answer takes; infinity for a wrong one."""
    began = time.monotonic()
    said = server.chat().said
    return time.monotonic() - began if said == "one two three" else math.inf


def _is_free_again(server: Server, usual_s: float = 0.0) -> bool:
    """Whether the next request is answered as soon as if nothing else were asked.

    Args:
        usual_s: How long such an answer takes if nothing else is asked.
    """
    return _answer_s(server) < max(_SOON_S, 3 * usual_s)


def _forgets(server: Server, *paths: str, streams: bool) -> bool:
    usual_s = _answer_s(server)
    for path in paths:
        _leave(server, path, streams=streams)
        if not _is_free_again(server, usual_s):
            return False
    return math.isfinite(usual_s)


def _forgets_waiting(server: Server) -> bool:
    """Whether requests that were left while they waited cost nothing, and the active one lives."""
    slow = "Wait 0.1 s. Repeat: a b c d e f g h i j k l m n o p q r s t"
    with ThreadPoolExecutor(1) as pool:
        active = pool.submit(server.chat, slow, stream=True)
        time.sleep(0.3)
        for _ in range(4):
            _leave(server, CHAT, streams=True, after_s=0.2)
        said = active.result().said
    return said.endswith("r s t") and _is_free_again(server)


def _sign_of_life_s(server: Server, path: str) -> float:
    """The longest that a stream says nothing: no event, comments don't count."""
    text = f"Wait {_SILENCE_S} s. Repeat: ok"
    began = longest = time.monotonic()
    longest = 0.0
    with server.client.stream(
        "POST",
        path,
        json=_body(server, path, text, stream=True),
        headers=server.headers(),
        timeout=120,
    ) as answer:
        for line in answer.iter_lines():
            if line.startswith(("data:", "{")):
                longest = max(longest, time.monotonic() - began)
                began = time.monotonic()
                if longest > _SIGN_WITHIN_S:
                    break
    return longest


def _is_never_silent(server: Server, path: str) -> bool:
    return _sign_of_life_s(server, path) <= _SIGN_WITHIN_S


def _all_at_once(server: Server) -> bool:
    orders = [f"Repeat: {number}" for number in range(30)]
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(server.chat, orders))
    return [answer.said for answer in answers] == [str(number) for number in range(30)]


def _keeps_connections(server: Server) -> bool:
    """Whether an idle connection can be used again whenever a client does, at 5 s as well."""
    for pause_s in (4.95, 5.0, 5.05):
        server.chat()
        time.sleep(pause_s)
        if server.chat().said != "one two three":
            return False
    return True


def _stays_open(server: Server) -> bool:
    """Whether others are answered while a prompt of 4 MB is dealt with."""
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(server.chat, "word " * 800_000)
        time.sleep(0.2)
        began = time.monotonic()
        answer = server.get("/v1/models")
        took_s = time.monotonic() - began
        status = large.result().status
    return answer.status == 200 and took_s < 2 and (status == 200 or 400 <= status < 500)


def _refuses_overflow(server: Server, path: str) -> bool:
    """Whether a prompt of two million tokens is refused in the words on which agents compact."""
    answer = server.ask(path, _body(server, path, "word " * 800_000))
    if path == MESSAGES:
        return answer.is_refused() and "prompt is too long" in answer.problem
    return answer.is_refused() and answer.document["error"]["code"] == "context_length_exceeded"


def _many_messages(server: Server) -> bool:
    messages = [user("x"), {"role": "assistant", "content": "y"}] * 1000
    return server.chat([*messages, user("Repeat: ok")]).said == "ok"


def _recovers(server: Server) -> bool:
    """Whether a good request is answered after some that are not."""
    for path in ("/v1/images/generations", "/v1/nothing"):
        server.ask(path, {"model": server.model})
    server.chat(model="no-such-model")
    return server.chat().said == "one two three"


def _equal_streams(server: Server) -> bool:
    """Whether a long answer of one word again and again comes to its end."""
    answer = server.chat("Talk forever.", max_tokens=150, stream=True)
    return answer.said.split() == ["word"] * 150


def _same_bytes(server: Server) -> bool:
    """Whether a streamed answer of every API says what the whole one says."""
    whole = json.dumps(TEXT)
    return bool(whole) and all(
        server.ask(path, _body(server, path, TEXT, stream=streams)).said == "one two three"
        for path in (CHAT, MESSAGES, RESPONSES, COMPLETIONS)
        for streams in (False, True)
    )


CASES = (
    Case("K01", "a client leaves a whole answer", "its work ends, in all four APIs", lambda s: _forgets(s, CHAT, MESSAGES, RESPONSES, COMPLETIONS, streams=False)),
    Case("K02", "a client leaves a stream", "its work ends", lambda s: _forgets(s, CHAT, CHAT, CHAT, streams=True)),
    Case("K03", "a client leaves a stream of another API", "its work ends", lambda s: _forgets(s, MESSAGES, RESPONSES, COMPLETIONS, streams=True)),
    Case("K04", "clients leave while they wait", "no work is done for them; the active one is answered", _forgets_waiting),
    Case("K08", "12 s without a token: Chat Completions", "an event every 10 s (comments don't count: Codex)", lambda s: _is_never_silent(s, CHAT)),
    Case("K08m", "the same: Messages", "the same", lambda s: _is_never_silent(s, MESSAGES)),
    Case("K08r", "the same: Responses", "the same", lambda s: _is_never_silent(s, RESPONSES)),
    Case("K09", "a good request after wrong ones", "an answer", _recovers),
    Case("K10", "a prompt beyond every context: Chat Completions", "a refusal, context_length_exceeded", lambda s: _refuses_overflow(s, CHAT)),
    Case("K10m", "the same: Messages", "a refusal, `prompt is too long`", lambda s: _refuses_overflow(s, MESSAGES)),
    Case("K10r", "the same: Responses", "a refusal, context_length_exceeded", lambda s: _refuses_overflow(s, RESPONSES)),
    Case("K11", "30 requests at once", "each answer the right one", _all_at_once),
    Case("K12", "a connection after 5 s of rest", "is used again, or closed so that the client sees it", _keeps_connections),
    Case("K13", "a prompt of 4 MB", "others are answered meanwhile", _stays_open),
    Case("K13m", "2,001 messages", "an answer", _many_messages),
    Case("K15", "150 equal tokens, streamed", "all of them", _equal_streams),
    Case("K16", "the same words whole and streamed", "the same answer, in all four APIs", _same_bytes),
)  # fmt: skip
