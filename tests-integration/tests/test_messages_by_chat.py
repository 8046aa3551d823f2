"""What clients of Messages need, of an engine that only chats: every case of the table."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_bench.conformance.server import Server
from mlx_bench.conformance.table import cases_of, try_cases
from stack_testkit.gateway_program import running_gateway
from stack_testkit.scripted_chat import NAME, scripted_chat

pytestmark = pytest.mark.story

KEY = "a-key-of-the-test"
OTHER = ("A08", "A08s", "A08t", "K10m")
"""Cases of other groups that ask Messages."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with scripted_chat() as engine:
        model = {
            "upstreams": [{"url": engine, "model": NAME}],
            "max_concurrent": 4,
            "sees_images": False,
            "context_tokens": 131_072,
            "chat_only": True,
        }
        with running_gateway(tmp_path, {NAME: model}, key=KEY) as url:
            server = Server(url, NAME, KEY)
            yield server
            server.close()


def test_every_case_of_messages_is_right(server: Server) -> None:
    table = try_cases(server, cases_of(("messages", *OTHER)))

    sys.stdout.write(table.render())
    assert [each.case.id for each in table.outcomes if not each.is_right] == []
    assert table.tried == len(table.outcomes) > 65
