"""The client's side: signs of life, headers that are known late, errors in their place."""

import asyncio
from typing import Any

import pytest

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.outbox import Outbox
from mlx_gateway.protocols.api import Api
from mlx_gateway.protocols.openai_chat import ChatCompletions
from mlx_gateway.protocols.openai_responses import Responses

PROBLEM = ApiError(503, "busy", retry_after_s=7)


class Client:
    """What an ASGI server was told to send."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.news = asyncio.Event()

    async def send(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        self.news.set()

    @property
    def body(self) -> bytes:
        return b"".join(each.get("body", b"") for each in self.messages)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.messages[0]["headers"])

    @property
    def is_whole(self) -> bool:
        last = self.messages[-1]
        return last["type"] == "http.response.body" and not last.get("more_body", False)


def outbox(client: Client, *, streams: bool = True, sign_of_life_s: float = 60.0) -> Outbox:
    return Outbox(
        client.send, ChatCompletions(), streams=streams, sign_of_life_s=sign_of_life_s, model="m"
    )


async def test_a_stream_says_who_answers_in_its_headers() -> None:
    client = Client()
    it = outbox(client)
    it.headers = [(b"x-tier", b"fast")]

    await it.event(b"data: 1\n\n")
    await it.event(b"data: 2\n\n")
    await it.close()

    assert client.messages[0]["status"] == 200
    assert client.headers[b"x-tier"] == b"fast"
    assert client.headers[b"content-type"].startswith(b"text/event-stream")
    assert client.body == b"data: 1\n\ndata: 2\n\n"
    assert client.is_whole


async def test_a_silent_stream_gets_signs_of_life_and_then_a_comment_that_says_who_answers() -> (
    None
):
    client = Client()
    it = outbox(client, sign_of_life_s=0.01)
    it.begin_waiting()
    while len(client.messages) < 4:
        client.news.clear()
        await client.news.wait()
    it.headers = [(b"x-tier", b"fast"), (b"x-queue-ms", b"9")]

    await it.event(b"data: 1\n\n")
    await it.close()

    assert client.body.count(b'"delta":{}') >= 3
    assert client.body.endswith(b"\n\n: x-tier: fast\n: x-queue-ms: 9\n\ndata: 1\n\n")
    seen = len(client.messages)
    await asyncio.sleep(0.05)
    assert len(client.messages) == seen, "nothing is sent after the end"


async def test_the_engines_own_opening_is_the_first_sign_of_life_where_one_is_needed() -> None:
    client = Client()
    it = Outbox(client.send, Responses(), streams=True, sign_of_life_s=0.01)
    it.opening = b"event: response.created\ndata: {}\n\nevent: response.in_progress\ndata: {}\n\n"
    it.begin_waiting()
    while len(client.messages) < 4:
        client.news.clear()
        await client.news.wait()
    it.stop_waiting()

    assert it.opened == it.opening
    assert client.body.count(b"response.created") == 1
    assert client.body.count(b"response.in_progress") >= 3


async def test_an_answer_that_falls_silent_is_not_opened_a_second_time() -> None:
    client = Client()
    it = Outbox(client.send, Responses(), streams=True, sign_of_life_s=0.01)
    it.opening = b"event: response.created\ndata: {}\n\nevent: response.in_progress\ndata: {}\n\n"
    it.begin_waiting()
    await it.event(it.opening + b"event: response.output_text.delta\ndata: {}\n\n")
    while client.body.count(b"response.in_progress") < 3:
        client.news.clear()
        await client.news.wait()
    await it.close()

    assert client.body.count(b"response.created") == 1


async def test_a_whole_answer_gets_no_sign_of_life() -> None:
    client = Client()
    it = outbox(client, streams=False, sign_of_life_s=0.005)
    it.begin_waiting()
    await asyncio.sleep(0.03)

    await it.whole(200, b"{}", b"application/json")

    assert len(client.messages) == 2
    assert client.headers[b"content-length"] == b"2"


async def test_an_error_before_the_answer_is_a_status() -> None:
    client = Client()
    it = outbox(client)

    await it.fail(PROBLEM)
    await it.close()

    assert client.messages[0]["status"] == 503
    assert client.headers[b"retry-after"] == b"7"
    assert it.first_at is None
    assert client.is_whole


async def test_an_error_after_a_sign_of_life_is_an_event() -> None:
    client = Client()
    it = outbox(client, sign_of_life_s=0.01)
    it.begin_waiting()
    await client.news.wait()

    await it.fail(PROBLEM)
    await it.close()

    assert client.messages[0]["status"] == 200
    assert b'"message":"busy"' in client.body
    assert client.is_whole


async def test_an_error_in_the_middle_of_other_bytes_breaks_the_connection_off() -> None:
    client = Client()
    it = outbox(client, streams=False)
    await it.begin_raw(200, [(b"content-type", b"audio/wav")])
    await it.raw(b"RIFF")

    await it.fail(PROBLEM)
    await it.close()

    assert client.body == b"RIFF"
    assert not client.is_whole, "so that it can't pass for the whole"


@pytest.mark.parametrize("raw", [False, True])
async def test_an_answer_in_one_piece_can_not_follow_a_sign_of_life(raw: bool) -> None:
    client = Client()
    it = outbox(client, sign_of_life_s=0.01)
    it.begin_waiting()
    await client.news.wait()

    with pytest.raises(UpstreamFailedError):
        await (it.begin_raw(200, []) if raw else it.whole(200, b"{}", b"application/json"))


async def test_a_wrong_key_says_what_a_right_one_looks_like() -> None:
    client = Client()

    await Outbox(client.send, Api()).fail(ApiError(401, "The API key is wrong."))

    assert client.headers[b"www-authenticate"] == b"Bearer"
