"""Work that can wait lets chats have their first token; but not for ever."""

import asyncio

from mlx_gateway.first_tokens import FirstTokens
from mlx_gateway.outbox import Outbox
from mlx_gateway.protocols.api import Api

WITHIN_S = 30.0


async def swallow(_: object) -> None: ...


async def test_it_waits_until_every_chat_has_begun() -> None:
    tokens, first, second = FirstTokens(), Outbox(swallow, Api()), Outbox(swallow, Api())
    with tokens.awaited_by(first), tokens.awaited_by(second):
        waiting = asyncio.ensure_future(tokens.go_first(WITHIN_S))
        await first.event(b"data: 1\n\n")
        await asyncio.sleep(0)
        assert not waiting.done()
        await second.event(b"data: 1\n\n")
        await waiting


async def test_a_chat_that_ends_without_a_word_is_waited_for_no_longer() -> None:
    tokens = FirstTokens()
    with tokens.awaited_by(Outbox(swallow, Api())):
        waiting = asyncio.ensure_future(tokens.go_first(WITHIN_S))
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting


async def test_short_work_does_not_wait_for_a_long_prompt() -> None:
    tokens = FirstTokens()
    with tokens.awaited_by(Outbox(swallow, Api())):
        await tokens.go_first(0.001)
