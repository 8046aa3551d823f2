"""A model that another machine's gateway serves as well: who answers, and what if it fails."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from mlx_gateway.ledger import Ledger
from mlx_gateway.liveness import EngineTimeouts
from mlx_gateway.requests import RequestFilter, read_requests
from mlx_gateway.usage import read_usage

NODES = """
schema_version: 1
models:
  standard:
    upstreams:
    - {url: "http://127.0.0.1:PORT0", model: m}
    - {url: "http://127.0.0.1:PORT1", model: standard, node: studio}
    max_concurrent: 4
  other: {upstreams: [{url: "http://127.0.0.1:PORT0", model: o}]}
"""


async def chats(exchange: Any) -> None:
    said = {"role": "assistant", "content": "yes"}
    choice = {"index": 0, "message": said, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    await exchange.json(
        {"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}
    )


async def hangs_up(exchange: Any) -> None:
    exchange.hang_up()


async def refuses(exchange: Any) -> None:
    await exchange.json({"error": {"message": "no engine"}}, status=503)


def talk(*said: str) -> dict[str, Any]:
    return {"model": "standard", "messages": [{"role": "user", "content": each} for each in said]}


async def test_a_conversation_stays_on_its_node_and_another_goes_to_the_other(
    bench: Any,
) -> None:
    async with bench(NODES, chats, chats) as it:
        answered = []
        for said in (["a " * 900], ["b " * 900]):
            busy = asyncio.ensure_future(it.client.ask("/v1/chat/completions", talk("c " * 9000)))
            await it.engines[0].asked.wait()
            answered.append((await it.client.ask("/v1/chat/completions", talk(*said))).headers)
            await busy
        first, second = (each["x-mlx-stack-tier"] for each in answered)
        for said in (["a " * 900], ["b " * 900]):
            for _ in range(3):
                said += ["more " * 90]
                answer = await it.client.ask("/v1/chat/completions", talk(*said))
                here = first if said[0].startswith("a") else second
                assert answer.headers["x-mlx-stack-tier"] == here
        assert {first, second} <= {"standard", "standard@studio"}


async def test_a_model_is_listed_as_loaded_where_another_machine_alone_has_it(bench: Any) -> None:
    async with bench(NODES, chats, chats) as it:

        async def loaded() -> dict[str, bool]:
            rows = json.loads((await it.client.ask("/v1/models")).body)["data"]
            return {row["id"]: row["loaded"] for row in rows}

        assert await loaded() == {"standard": True, "other": True}
        await it.engines[0].stop()
        assert await loaded() == {"standard": True, "other": False}
        await it.engines[1].stop()
        assert await loaded() == {"standard": False, "other": False}


async def test_a_forwarded_request_says_so_and_carries_the_nodes_key_alone(
    bench: Any,
) -> None:
    def keys(root: str) -> dict[str, str]:
        return {"authorization": "Bearer of-the-node"} if root.endswith(str(port)) else {}

    port = 0
    async with bench(NODES, hangs_up, chats, headers_for=keys) as it:
        port = it.engines[1].port
        answer = await it.client.ask("/v1/chat/completions", talk("hello"))

        assert answer.headers["x-mlx-stack-tier"] == "standard@studio"
        got = it.engines[1].seen[0]
        assert got.headers["x-mlx-stack-forwarded"] == "1"
        assert got.headers["authorization"] == "Bearer of-the-node"
        assert got.document["model"] == "standard"
        assert "x-mlx-stack-forwarded" not in it.engines[0].seen[0].headers


async def test_what_another_gateway_sent_here_is_answered_here_or_not_at_all(
    bench: Any,
) -> None:
    forwarded = {"x-mlx-stack-forwarded": "1"}
    async with bench(NODES, chats, chats) as it:
        for _ in range(4):
            answer = await it.client.ask("/v1/chat/completions", talk("hello"), headers=forwarded)
            assert answer.headers["x-mlx-stack-tier"] == "standard"
        assert it.engines[1].seen == []
    async with bench(NODES, hangs_up, chats) as it:
        answer = await it.client.ask("/v1/chat/completions", talk("hello"), headers=forwarded)
        assert answer.status == 503
        assert it.engines[1].seen == []


@pytest.mark.parametrize("fails", [hangs_up, refuses])
async def test_a_node_that_fails_before_its_first_byte_costs_no_request(
    bench: Any, fails: Any
) -> None:
    async with bench(NODES, chats, fails) as it:
        answers = await asyncio.gather(
            *(it.client.ask("/v1/chat/completions", talk(f"{n} " * 2000)) for n in range(8))
        )

        assert [each.status for each in answers] == [200] * 8
        assert {each.headers["x-mlx-stack-tier"] for each in answers} == {"standard"}


async def test_a_node_that_is_gone_gets_nothing_until_it_answers(bench: Any) -> None:
    quick = EngineTimeouts(silence_s=60, lost_s=0.02)
    async with bench(NODES, hangs_up, chats, timeouts=quick) as it:
        node = it.engines[1]
        assert (await it.client.ask("/v1/chat/completions", talk("hello"))).status == 200
        await node.stop()
        it.engines[0].handler = chats
        answers = [await it.client.ask("/v1/chat/completions", talk(f"{n}")) for n in range(3)]
        assert {each.headers["x-mlx-stack-tier"] for each in answers} == {"standard"}
        status = (await it.client.ask("/v1/status")).document["models"]
        rows = {row["name"]: row for row in status}

        await node.start()
        it.engines[0].handler = hangs_up
        while True:
            answer = await it.client.ask("/v1/chat/completions", talk("again"))
            if answer.status == 200:
                break
            await asyncio.sleep(0.05)
        assert answer.headers["x-mlx-stack-tier"] == "standard@studio"
        assert rows["standard@studio"]["node"] == "studio"


async def test_a_sleeping_node_is_woken_before_the_request_is_given_up(bench: Any) -> None:
    woken = asyncio.Event()
    async with bench(NODES, hangs_up, chats, wake=lambda _: not woken.set()) as it:
        node = it.engines[1]
        await node.stop()

        asked = asyncio.ensure_future(it.client.ask("/v1/chat/completions", talk("hello")))
        async with asyncio.timeout(10):
            await woken.wait()
            await node.start()
            answer = await asked

        assert answer.status == 200
        assert answer.headers["x-mlx-stack-tier"] == "standard@studio"


async def test_the_status_the_metrics_and_the_list_tell_the_node_from_this_machine(
    bench: Any,
) -> None:
    async with bench(NODES, hangs_up, chats) as it:
        await it.client.ask("/v1/chat/completions", talk("hello"))

        rows = (await it.client.ask("/v1/status")).document["models"]
        assert [row["name"] for row in rows] == ["standard", "standard@studio", "other"]
        assert (rows[1]["node"], rows[1]["is_up"]) == ("studio", True)
        metrics = (await it.client.ask("/metrics")).body.decode()
        assert 'gen_ai_request_model="standard@studio"' in metrics
        listed = (await it.client.ask("/v1/models")).document["data"]
        assert [each["id"] for each in listed] == ["standard", "other"]


async def test_the_ledger_tells_what_the_node_answered_from_what_this_machine_did(
    bench: Any, tmp_path: Path
) -> None:
    path, begin = tmp_path / "ledger.db", time.time()
    ledger = Ledger(path)
    async with bench(NODES, chats, chats, ledger=ledger) as it:
        await it.client.ask("/v1/chat/completions", talk("hello"))
        it.engines[0].handler = hangs_up
        await it.client.ask("/v1/chat/completions", talk("hello"))
    ledger.close()

    usage = read_usage(path, since=begin - 1, until=time.time() + 1)
    assert {name: each.requests for name, each in usage.rows.items()} == {
        "m": 1,
        "standard@studio": 1,
    }
    (there,) = read_requests(path, RequestFilter(tier="standard@studio"))
    assert (there.tier, there.status, there.fallback_from) == ("standard@studio", 200, None)


async def test_a_stream_of_a_node_is_passed_on_with_its_usage(bench: Any) -> None:
    async def streams(exchange: Any) -> None:
        delta = {"index": 0, "delta": {"role": "assistant", "content": "yes"}}
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
        await exchange.events(
            {"id": "1", "object": "chat.completion.chunk", "choices": [delta]},
            {"id": "1", "object": "chat.completion.chunk", "choices": [last]},
            {"id": "1", "object": "chat.completion.chunk", "choices": [], "usage": usage},
        )

    async with bench(NODES, hangs_up, streams) as it:
        answer = await it.client.ask("/v1/chat/completions", {**talk("hello"), "stream": True})

        assert b'"yes"' in answer.body
        assert answer.body.rstrip().endswith(b"[DONE]")
        assert json.dumps("standard@studio")[1:-1] in answer.headers["x-mlx-stack-tier"]
