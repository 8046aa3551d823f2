"""Bad input over real sockets: a clear answer, and the gateway answers on."""

import asyncio
import contextlib
import gzip
import json
from typing import Any

import pytest

type Exchange = Any
type MakeBench = Any

ONE = """
schema_version: 1
models:
  standard: {upstreams: [{url: "http://127.0.0.1:PORT0", model: qwen3-8b}]}
"""
KEY = b"authorization: Bearer a-key-of-the-test\r\n"
HOST = b"host: localhost\r\n"
CHAT = "/v1/chat/completions"
HELLO = {"model": "standard", "messages": [{"role": "user", "content": "hello"}]}
STREAM = json.dumps({**HELLO, "stream": True}).encode()


def head(line: bytes, *lines: bytes) -> bytes:
    return line + b"\r\n" + HOST + KEY + b"".join(each + b"\r\n" for each in lines) + b"\r\n"


def post(body: bytes, *lines: bytes, path: bytes = CHAT.encode()) -> bytes:
    length = b"content-length: %d" % len(body)
    return head(b"POST %s HTTP/1.1" % path, length, b"connection: close", *lines) + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


async def says_hello(exchange: Exchange) -> None:
    if exchange.document.get("stream"):
        choices = [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}]
        await exchange.events({"choices": choices})
    else:
        await exchange.json({"choices": [{"index": 0, "message": {"content": "Hello"}}]})


async def answers_on(it: Any) -> None:
    assert (await it.client.ask(CHAT, HELLO)).status == 200


@pytest.mark.parametrize(
    ("request_", "statuses"),
    [
        (post(b""), {400}),
        (post(b"{"), {400}),
        (post(b"[1, 2]"), {400}),
        (post(b'"text"'), {400}),
        (post(b"{}"), {400}),
        (post(b'{"model": 5}'), {400}),
        (post(b'{"model": ["standard"]}'), {400}),
        (post(b'{"model": {"a": 1}}'), {400}),
        (post(b'{"model": ""}'), {400}),
        (post(b'{"model": "nobody"}'), {404}),
        (post(b'{"model": "' + b"x" * 10**6 + b'"}'), {404}),
        (post(b'{"model": "standard", "messages": "\\ud800"}'), {400}),
        (post(b'{"model": "standard", "temperature": NaN}'), {400}),
        (post(b'{"model": "standard", "seed": 1e999}'), {400}),
        (post(b"\xff\xfe\x00"), {400}),
        (post(b'{"a":' + b"[" * 200_000), {400}),
        (post(b"not gzip", b"content-encoding: gzip"), {400}),
        (post(gzip.compress(b"\0" * 2**27, 1, mtime=0), b"content-encoding: gzip"), {413}),
        (post(b"x", b"content-encoding: br"), {415}),
        (head(b"POST %s HTTP/1.1" % CHAT.encode(), b"content-length: 99999999999"), {413}),
        (head(b"POST %s HTTP/1.1" % CHAT.encode(), b"content-length: 1", b"content-length: 2")
         + b"{}", {400}),
        (head(b"POST %s HTTP/1.1" % CHAT.encode(), b"content-length: -1"), {400}),
        (head(b"POST %s HTTP/1.1" % CHAT.encode(), b"content-length: x"), {400}),
        (head(b"POST %s HTTP/1.1" % CHAT.encode(), b"transfer-encoding: chunked",
              b"content-length: 2") + b"2\r\n{}\r\n0\r\n\r\n", {400}),
        (head(b"POST %s HTTP/1.1" % CHAT.encode(), b"transfer-encoding: chunked")
         + b"xyz\r\n{}\r\n", {400}),
        (head(b"GET /\xff HTTP/1.1"), {400}),
        (head(b"GET / HTTP/9.9"), {400}),
        (head(b"OPTIONS * HTTP/1.1", b"connection: close"), {404}),
        (head(b"GET /v1/models HTTP/1.1", b"host: evil.example", b"connection: close"), {403}),
        (b"GET /v1/models HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n" + HOST + KEY
         + b"\r\n", {403}),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 this is TLS\r\n\r\n", {400}),
        (b"GET\r\n\r\n", {400}),
        (b"\r\n" * 40 + b"hello?\r\n\r\n", {400}),
        (head(b"GET / HTTP/1.1", *[b"x-%d: %s" % (n, b"y" * 1000) for n in range(100)]), {431}),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", {431}),
        (head(b"GET /v1/models HTTP/1.1", b"connection: upgrade", b"upgrade: websocket",
              b"sec-websocket-key: x", b"sec-websocket-version: 13", b"connection: close"), {200}),
    ],
)  # fmt: skip
async def test_bad_input_gets_a_clear_answer_and_the_gateway_answers_on(
    bench: MakeBench,
    caplog: pytest.LogCaptureFixture,
    request_: bytes,
    statuses: set[int],
) -> None:
    async with bench(ONE, says_hello, headers_within_s=0.5) as it:
        answer = await it.client.send(request_)

        assert status_of(answer) in statuses, answer[:200]
        assert "Traceback" not in answer.decode("latin-1") + caplog.text
        assert it.engines[0].seen == []
        await answers_on(it)


async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_one_line_at_most_in_the_log(
    bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(ONE, says_hello) as it:
        for rest in (b"{", b"zz\r\n"):  # it hangs up, and it sends what is no chunk
            _, writer = await asyncio.open_connection("127.0.0.1", it.client.port)
            writer.write(head(b"POST /v1/responses HTTP/1.1", b"transfer-encoding: chunked") + rest)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            await answers_on(it)

    assert "Traceback" not in caplog.text


async def test_a_body_that_turns_out_too_large_is_left(bench: MakeBench) -> None:
    async with bench(ONE, says_hello) as it:
        start = head(b"POST %s HTTP/1.1" % CHAT.encode(), b"transfer-encoding: chunked")
        piece = b"%x\r\n" % 2**20 + b" " * 2**20 + b"\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", it.client.port)
        writer.write(start)
        for _ in range(65):
            writer.write(piece)
            await writer.drain()

        assert b" 413 " in await reader.readline()
        writer.close()
        await answers_on(it)


async def test_a_missing_content_type_is_no_mistake(bench: MakeBench) -> None:
    async with bench(ONE, says_hello) as it:
        for line in (b"x: y", b"content-type: text/plain", b"content-type: application/json"):
            assert status_of(await it.client.send(post(json.dumps(HELLO).encode(), line))) == 200


async def test_a_packed_body_is_answered(bench: MakeBench) -> None:
    async with bench(ONE, says_hello) as it:
        body = gzip.compress(json.dumps(HELLO).encode())

        assert status_of(await it.client.send(post(body, b"content-encoding: gzip"))) == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "is_anthropics"),
    [
        ("GET", "/v1/nope", 404, False),
        ("POST", "/v1/images/generations", 404, False),
        ("GET", "/v1/messages/batches", 404, True),
        ("GET", "/v1/models/", 200, False),
        ("GET", "/models", 200, False),
        ("GET", "/v1/modelsandmore", 404, False),
        ("GET", "/v1/models/nobody", 404, False),
        ("GET", CHAT, 405, False),
        ("DELETE", "/v1/models", 405, False),
        ("GET", "/v1/messages", 405, True),
        ("OPTIONS", CHAT, 405, False),
        ("GET", "/ui", 404, False),
        ("GET", "/health", 404, False),
        ("GET", "//health/liveliness", 404, False),
        ("GET", "/v1/models/%2e%2e/metrics", 404, False),
        ("POST", "/health/liveliness", 200, False),
    ],
)
async def test_paths_and_methods_that_are_none_are_refused_in_the_clients_shape(
    bench: MakeBench, method: str, path: str, status: int, is_anthropics: bool
) -> None:
    async with bench(ONE, says_hello) as it:
        answer = await it.client.ask(path, method=method)
        assert answer.status == status
        if status >= 400:
            assert (answer.document.get("type") == "error") is is_anthropics
            assert answer.document["error"]["message"]
        assert "access-control-allow-origin" not in answer.headers
        await answers_on(it)


@pytest.mark.parametrize("key", [None, "wrong"])
@pytest.mark.parametrize(
    ("method", "path", "anthropics"),
    [("GET", "/v1/models", False), ("POST", CHAT, False), ("GET", "/metrics", False),
     ("GET", "/nope", False), ("POST", "/v1/messages", True), ("GET", "/openapi.json", False)],
)  # fmt: skip
async def test_without_the_key_everything_is_closed(
    bench: MakeBench, key: str | None, method: str, path: str, anthropics: bool
) -> None:
    async with bench(ONE, says_hello) as it:
        answer = await it.client.ask(path, method=method, key=key)

        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        kind = answer.document["error"].get("type" if anthropics else "code")
        assert kind == ("authentication_error" if anthropics else "invalid_api_key")
        assert ("missing" if key is None else "wrong") in answer.document["error"]["message"]


async def test_what_needs_no_key_is_open(bench: MakeBench) -> None:
    async with bench(ONE, says_hello) as it:
        for method, path in (("HEAD", "/"), ("GET", "/"), ("GET", "/health/liveliness")):
            answer = await it.client.ask(path, method=method, key=None)
            assert answer.status == 200
            assert (answer.body == b"") is (method == "HEAD")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:4000", "169.254.169.254"])
async def test_a_web_page_can_not_reach_the_gateway_under_its_own_name(
    bench: MakeBench, host: str
) -> None:
    async with bench(ONE, says_hello) as it:
        for path, key in (("/v1/models", "a-key-of-the-test"), ("/health/liveliness", None)):
            answer = await it.client.ask(path, headers={"host": host}, key=key)
            assert answer.status == 403


async def test_a_head_that_comes_too_slowly_ends_its_connection(bench: MakeBench) -> None:
    async with bench(ONE, says_hello, headers_within_s=0.2) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.client.port)

        async def drip() -> None:
            for letter in b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 1000:
                writer.write(bytes([letter]))
                await asyncio.sleep(0.02)

        dripping = asyncio.ensure_future(drip())
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        assert not dripping.done()
        dripping.cancel()
        writer.transport.abort()
        await answers_on(it)


async def test_a_body_that_nobody_waits_for_ends_its_connection(bench: MakeBench) -> None:
    async with bench(ONE, says_hello, headers_within_s=0.2) as it:
        start = head(b"POST %s HTTP/1.1" % CHAT.encode(), b"content-length: 1000")
        answer = await it.client.send(start.replace(KEY, b""), b"{")

        assert status_of(answer) == 401
        await answers_on(it)


async def test_a_connection_that_says_nothing_ends(bench: MakeBench) -> None:
    async with bench(ONE, says_hello, headers_within_s=0.2) as it:
        assert await it.client.send() == b""
        await answers_on(it)


async def test_an_idle_connection_is_kept_longer_than_a_head_may_take(bench: MakeBench) -> None:
    async with bench(ONE, says_hello, headers_within_s=0.2) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.client.port)
        for _ in range(2):
            writer.write(b"GET /health/liveliness HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert b" 200 " in await reader.readline()
            await reader.readuntil(b"}")
            await asyncio.sleep(0.5)
        writer.close()


async def test_hundreds_of_half_open_connections_hold_up_nobody(bench: MakeBench) -> None:
    async with bench(ONE, says_hello) as it:
        halves = [await asyncio.open_connection("127.0.0.1", it.client.port) for _ in range(300)]
        for _, writer in halves:
            writer.write(b"GET / HTTP/1.1\r\nhost: loc")
        await answers_on(it)
        for _, writer in halves:
            writer.close()


async def test_a_client_that_reads_nothing_loses_its_connection(bench: MakeBench) -> None:
    async def talks(exchange: Exchange) -> None:
        await exchange.begin_events()
        while True:
            choices = [{"index": 0, "delta": {"content": "x" * 10_000}}]
            data = b"data: " + json.dumps({"choices": choices}).encode() + b"\n\n"
            await exchange.send(data)

    async with bench(ONE, talks, headers_within_s=0.1) as it:
        reader, writer = await it.client.open(CHAT, {**HELLO, "stream": True})
        reader._transport.pause_reading()

        await asyncio.wait_for(it.engines[0].left.wait(), 10)
        writer.transport.abort()


async def test_an_answer_to_http_1_0_ends_with_its_connection(bench: MakeBench) -> None:
    async with bench(ONE, says_hello) as it:
        lines = [b"content-length: %d" % len(STREAM)]
        request = head(b"POST %s HTTP/1.0" % CHAT.encode(), *lines) + STREAM
        answer = await it.client.send(request)

        start, _, body = answer.partition(b"\r\n\r\n")
        assert b"chunked" not in start
        assert b"connection: close" in start
        assert body.startswith(b"data: {")
        assert body.endswith(b"data: [DONE]\n\n")


async def test_events_reach_http_1_0_as_they_come(bench: MakeBench) -> None:
    go_on = asyncio.Event()

    async def waits(exchange: Exchange) -> None:
        choices = [{"index": 0, "delta": {"content": "one"}, "finish_reason": None}]
        await exchange.begin_events()
        await exchange.send(b"data: " + json.dumps({"choices": choices}).encode() + b"\n\n")
        await go_on.wait()
        await exchange.send(b"data: [DONE]\n\n")
        await exchange.end()

    async with bench(ONE, waits) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.client.port)
        length = b"content-length: %d" % len(STREAM)
        writer.write(head(b"POST %s HTTP/1.0" % CHAT.encode(), length) + STREAM)
        await reader.readuntil(b"one")
        go_on.set()
        assert (await reader.read()).endswith(b"data: [DONE]\n\n")
        writer.close()


async def test_a_client_may_wait_to_be_told_to_go_on(bench: MakeBench) -> None:
    body = json.dumps(HELLO).encode()
    async with bench(ONE, says_hello) as it:
        start = post(body, b"expect: 100-continue").removesuffix(body)
        reader, writer = await asyncio.open_connection("127.0.0.1", it.client.port)
        writer.write(start)
        assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        assert b" 200 " in await reader.readline()
        writer.close()


async def test_requests_in_a_row_on_one_connection_are_answered_in_order(bench: MakeBench) -> None:
    async with bench(ONE, says_hello) as it:
        one = head(b"GET /v1/models HTTP/1.1")
        two = head(b"GET /v1/models/standard HTTP/1.1", b"connection: close")
        answer = await it.client.send(one + two)

        assert answer.count(b"HTTP/1.1 200") == 2
        assert answer.index(b'"object":"list"') < answer.rindex(b'"object":"model"')
