"""What the gateway knows of the models on this disk, and when."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

from msgspec import convert

from mlx_gateway.errors import UpstreamFailedError
from mlx_gateway.keys import Priority
from mlx_gateway.settings import parse_settings
from mlx_stack.home import Home
from mlx_stack.services.on_demand import OnDemand
from mlx_stack.stack import Stack, save_stack

SETTINGS = """
schema_version: 1
models:
  rare: {upstreams: [{url: "http://127.0.0.1:9", model: m}]}
"""


class SlowDisk(Path):
    """A disk on which a folder is listed when the test says so."""

    is_asked = threading.Event()
    may_answer = threading.Event()

    def iterdir(self) -> Iterator[Path]:
        self.is_asked.set()
        assert self.may_answer.wait(60)
        return super().iterdir()


def test_who_asks_for_a_tier_at_rest_while_the_models_are_still_read_waits_for_its_start(
    tmp_path: Path,
) -> None:
    home = Home(SlowDisk(tmp_path))
    home.models.mkdir()
    tier = {"name": "rare", "model": "m", "quant": "int4", "source": str(tmp_path / "gone"),
            "port": 8000, "vllm_flags": {}, "lazy": True}  # fmt: skip
    save_stack(home.stack, convert({"schema_version": 1, "tiers": [tier]}, Stack))
    on_demand = OnDemand(home, "key", lambda: parse_settings(SETTINGS))

    async def story() -> list[object]:
        first = asyncio.ensure_future(on_demand.ready("rare", Priority.INTERACTIVE))
        assert await asyncio.to_thread(SlowDisk.is_asked.wait, 60)
        second = asyncio.ensure_future(on_demand.ready("rare", Priority.INTERACTIVE))
        await asyncio.sleep(0)
        SlowDisk.may_answer.set()
        return await asyncio.gather(first, second, return_exceptions=True)

    for said in asyncio.run(story()):
        assert isinstance(said, UpstreamFailedError), "its model is not there: it can't be started"
