"""Cases of HTTP itself, and of the lists of models."""

import gzip
import json
import zlib

from mlx_bench.conformance.case import Case
from mlx_bench.conformance.inputs import user
from mlx_bench.conformance.server import CHAT, TEXT, HttpAnswer, Server

_MB = 2**20


def _body(server: Server, text: str = TEXT, **fields: object) -> bytes:
    return json.dumps({"model": server.model, "messages": [user(text)], **fields}).encode()


def _status(raw: bytes) -> int:
    return int(raw.split(b" ", 2)[1])


def _is_unchunked(server: Server) -> bool:
    """Whether a stream to HTTP/1.0 ends with its connection, and isn't framed in chunks."""
    request = server.raw_request(_body(server, stream=True), version="1.0", close=False)
    head, _, body = server.raw(request).partition(b"\r\n\r\n")
    return (
        b"chunked" not in head.lower()
        and body.startswith(b"data:")
        and body.endswith(b"[DONE]\n\n")
    )


def _answers_chunks(server: Server) -> bool:
    body = _body(server)
    half = len(body) // 2
    parts = (b"%x\r\n%s\r\n" % (len(each), each) for each in (body[:half], body[half:]))
    head, _, _ = server.raw_request(b"", transfer_encoding="chunked", content_length="").partition(
        b"\r\n\r\n"
    )
    return b"one two three" in server.raw(head + b"\r\n\r\n" + b"".join(parts) + b"0\r\n\r\n")


def _continues(server: Server) -> bool:
    """Whether a client that waits for 100 Continue gets its answer."""
    request = server.raw_request(_body(server), expect="100-continue")
    head, _, body = request.partition(b"\r\n\r\n")
    return b"one two three" in server.raw(head + b"\r\n\r\n", more=(body,))


def _reuses(server: Server) -> bool:
    """Whether a connection is used again after an error."""
    wrong = server.raw_request(b"{", close=False)
    answer = server.raw(wrong + server.raw_request(_body(server)))
    return answer.count(b"HTTP/1.1 ") == 2 and b"one two three" in answer


def _refuses_and_reuses(server: Server) -> bool:
    """Whether a connection is used again, or closed, after a large body with a wrong key."""
    large = server.raw_request(b"x" * 300_000, close=False, authorization="Bearer wrong")
    answer = server.raw(large + server.raw_request(_body(server)))
    return _status(answer) == 401 and answer.count(b"HTTP/1.1 ") in (1, 2)


def _is_closed(answer: HttpAnswer) -> bool:
    return "access-control-allow-origin" not in answer.headers


def _lists_models(server: Server) -> bool:
    answer = server.get("/v1/models").document
    row = next(each for each in answer["data"] if each["id"] == server.model)
    return answer["object"] == "list" and {"id", "object", "created", "owned_by"} <= row.keys()


def _bomb() -> bytes:
    """A gzip of 200 MB in 200 KB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = b" " * _MB
    return b"".join([packer.compress(zeros) for _ in range(200)]) + packer.flush()


def _without_type(server: Server) -> bool:
    raw = server.raw(server.raw_request(_body(server), content_type=""))
    return b"one two three" in raw or _status(raw) in (400, 415)


def _is_refused_alike(server: Server, *paths: str) -> bool:
    return all(
        server.ask(path, {"model": server.model, "input": "x"}).status in (404, 405)
        for path in paths
    )


CASES = (
    Case("H01", "HTTP/1.0", "an answer", lambda s: b"one two three" in s.raw(s.raw_request(_body(s), version="1.0", close=False))),
    Case("H01s", "HTTP/1.0, streamed", "no chunks; the connection ends with the answer", _is_unchunked),
    Case("H02", "a request in chunks", "an answer", _answers_chunks),
    Case("H03", "Expect: 100-continue", "an answer", _continues),
    Case("H04", "a connection after an error", "is used again", _reuses),
    Case("H05", "a wrong key", "401 with an explanation", lambda s: s.ask(CHAT, _body(s), authorization="Bearer wrong").is_refused(401), needs_key=True),
    Case("H05n", "no key", "401 with an explanation", lambda s: s.ask(CHAT, _body(s), authorization="").is_refused(401), needs_key=True),
    Case("H05k", "a large body with a wrong key", "401, and no connection that hangs", _refuses_and_reuses, needs_key=True),
    Case("H06", "another name in Host", "a refusal: no page may reach a server by another name", lambda s: 400 <= s.ask(CHAT, _body(s), host="evil.example").status < 500),
    Case("H06o", "a browser's preflight (OPTIONS) from another page", "no permission", lambda s: _is_closed(s.ask(CHAT, method="OPTIONS", origin="http://evil.example", access_control_request_method="POST"))),
    Case("H07", "GET /v1/models", "every model, in OpenAI's shape", _lists_models),
    Case("H07i", "GET /v1/models/{id}", "that model", lambda s: s.get(f"/v1/models/{s.model}").document["id"] == s.model),
    Case("H07u", "GET /v1/models/{id} of an unknown one", "404 with an explanation", lambda s: s.get("/v1/models/no-such-model").is_refused(404)),
    Case("H07c", "context lengths in /v1/models", "given", lambda s: s.get("/v1/models").document["data"][0].get("context_length", 0) > 0),
    Case("H08", "a body of 20 MB", "not refused for its size", lambda s: s.ask(CHAT, _body(s, padding="x" * 20 * _MB)).status == 200),
    Case("H09", "a body of 70 MB", "413, or an answer", lambda s: s.ask(CHAT, _body(s, padding="x" * 70 * _MB)).status in (200, 413)),
    Case("H10", "invalid UTF-8", "a refusal with an explanation", lambda s: s.ask(CHAT, b'{"model": "\xff\xfe"}').is_refused()),
    Case("H11", "JSON 100,000 levels deep", "a refusal, and the next request is answered", lambda s: 400 <= s.ask(CHAT, b'{"a": ' + b"[" * 100_000).status < 500 and s.chat().status == 200),
    Case("H12", "a byte order mark before the JSON", "an answer, or a refusal with an explanation", lambda s: (it := s.ask(CHAT, b"\xef\xbb\xbf" + _body(s))).status == 200 or it.is_refused()),
    Case("H13", "a key twice in the JSON", "an answer, or a refusal with an explanation", lambda s: (it := s.ask(CHAT, _body(s)[:-1] + b', "temperature": 0, "temperature": 0}')).status == 200 or it.is_refused()),
    Case("H14", "an integer of 400 digits", "an answer or a refusal, no 5xx", lambda s: s.ask(CHAT, _body(s)[:-1] + b', "seed": %s}' % (b"9" * 400)).status in (200, 400)),
    Case("H15", "the head of a stream", "text/event-stream, and nothing that lets proxies keep it back", lambda s: (it := s.chat(stream=True)).is_stream and "no-cache" in it.headers.get("cache-control", "no-cache")),
    Case("H16", "accept: application/json, and stream", "a stream", lambda s: s.ask(CHAT, _body(s, stream=True), accept="application/json").is_stream),
    Case("H17", "accept-encoding: gzip", "an answer that can be read", lambda s: s.ask(CHAT, _body(s), accept_encoding="gzip").said == "one two three"),
    Case("H18", "a body packed with gzip", "an answer, or 415", lambda s: (it := s.ask(CHAT, gzip.compress(_body(s)), content_encoding="gzip")).status == 415 or it.said == "one two three"),
    Case("H19", "a gzip of 200 MB in 200 KB", "a refusal, and the next request is answered", lambda s: 400 <= s.ask(CHAT, _bomb(), content_encoding="gzip").status < 500 and s.chat().status == 200),
    Case("H20", "a damaged gzip", "a refusal, no 5xx", lambda s: 400 <= s.ask(CHAT, b"\x1f\x8bxx", content_encoding="gzip").status < 500),
    Case("H21", "no content type", "an answer, or a refusal", _without_type),
    Case("H22", "text/plain as the content type", "an answer, or a refusal", lambda s: s.ask(CHAT, _body(s), content_type="text/plain").status in (200, 400, 415)),
    Case("H23", "paths of other servers (images, moderations, files)", "404, once", lambda s: _is_refused_alike(s, "/v1/images/generations", "/v1/moderations", "/v1/files", "/v1/fine_tuning/jobs")),
    Case("H24", "GET where POST belongs", "405, or 404", lambda s: s.get(CHAT).status in (404, 405)),
    Case("H25", "embeddings of a model that embeds nothing", "a refusal with an explanation, at once", lambda s: (it := s.ask("/v1/embeddings", {"model": s.model, "input": "x"})).is_refused() and "mbedding" in it.problem),
    Case("H26", "rerank of a model that ranks nothing", "a refusal with an explanation, no 5xx", lambda s: 400 <= (it := s.ask("/v1/rerank", {"model": s.model, "query": "x", "documents": ["y"]})).status < 500 and bool(it.problem)),
)  # fmt: skip
