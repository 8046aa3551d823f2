"""What the gateway knows of the models on this disk, and when."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from msgspec import convert

from mlx_gateway.errors import UpstreamFailedError
from mlx_gateway.keys import Priority
from mlx_gateway.settings import parse_settings
from mlx_stack.home import Home
from mlx_stack.services.inventory import take
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


class FailsOnce(Path):
    """A disk that can't be read the first time."""

    failures: ClassVar[list[str]] = ["too many open files"]

    def iterdir(self) -> Iterator[Path]:
        if self.failures:
            raise OSError(self.failures.pop())
        return super().iterdir()


class LosesGuest(Path):
    """A disk on which a model is removed just before its files are listed."""

    def iterdir(self) -> Iterator[Path]:
        if self.name == "Guest":
            self.rmdir()
        return super().iterdir()


def stack_with_rare_tier(home: Home) -> None:
    """A tier at rest whose model isn't there."""
    tier = {"name": "rare", "model": "m", "quant": "int4", "source": str(home.root / "gone"),
            "port": 8000, "vllm_flags": {}, "lazy": True}  # fmt: skip
    save_stack(home.stack, convert({"schema_version": 1, "tiers": [tier]}, Stack))
    home.models.mkdir()


def test_models_that_could_not_be_read_are_read_again_soon(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = Home(FailsOnce(tmp_path))
    stack_with_rare_tier(home)
    on_demand = OnDemand(home, "key", lambda: parse_settings(SETTINGS))

    async def story() -> None:
        on_demand.begin()
        async with asyncio.timeout(60):
            while on_demand.presence("rare") is None:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.05)
        await on_demand.end()

    asyncio.run(story())
    assert "can't be read: too many open files" in caplog.text


def test_a_model_that_is_removed_while_the_models_are_read_hides_no_other(tmp_path: Path) -> None:
    home = Home(LosesGuest(tmp_path))
    stack_with_rare_tier(home)
    (home.models / "Guest").mkdir()

    taken = take(home, None)

    assert [each.name for each in taken.held] == ["rare"]


def test_who_asks_for_a_tier_at_rest_while_the_models_are_still_read_waits_for_its_start(
    tmp_path: Path,
) -> None:
    home = Home(SlowDisk(tmp_path))
    stack_with_rare_tier(home)
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
