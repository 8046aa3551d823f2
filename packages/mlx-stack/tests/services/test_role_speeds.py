"""The figure that `status` and the page show of a tier that doesn't chat."""

import msgspec
import pytest

from mlx_bench import RoleReport, save_report
from mlx_bench.roles.report import LoadSummary
from mlx_bench.roles.workload import RoleParameters
from mlx_bench.stats import MedianEstimate
from mlx_catalog import ModelRole
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.role_speeds import role_results, role_speeds
from mlx_stack.stack import Stack, Tier, save_stack

REPORT = RoleReport(
    target="tier embedder",
    model="minilm",
    role="embedding",
    unit="texts/s",
    item=("text", "texts"),
    size_unit="tokens",
    parameters=RoleParameters(items=(1, 32), sizes=(128,)),
    machine={},
    started_at="2026-11-28T10:00:00+00:00",
    finished=True,
    summaries=tuple(
        LoadSummary(
            items=n, size=128, concurrency=1, rate=MedianEstimate(10.0 * n, 9.0 * n, 11.0 * n)
        )
        for n in (1, 32)
    ),
    extra={"source": "/models/minilm"},
)


@pytest.fixture
def opened(home: Home) -> OpenStack:
    tier = Tier(
        name="embedder",
        model="minilm",
        quant=None,
        source="/models/minilm",
        port=8003,
        vllm_flags={},
        role=ModelRole.EMBEDDING,
    )
    save_stack(home.stack, Stack(tiers=(tier,)))
    return OpenStack(home)


def save(opened: OpenStack, name: str, **changed: object) -> None:
    report = msgspec.structs.replace(REPORT, **changed)
    save_report(report, role_results(opened.home) / f"{name}.json")


def test_nothing_saved_is_nothing_shown(opened: OpenStack) -> None:
    assert role_speeds(opened) == {}


def test_the_highest_rate_of_the_latest_result_is_shown_with_its_load(opened: OpenStack) -> None:
    save(opened, "b")
    save(opened, "a", started_at="2026-11-27T10:00:00+00:00", unit="older/s")
    shown = role_speeds(opened)["embedder"]
    assert (shown.value, shown.low, shown.high, shown.unit) == (320.0, 288.0, 352.0, "texts/s")
    assert (shown.load, shown.at) == ("32 texts of 128 tokens per request", "2026-11-28")


def test_results_of_other_weights_and_damaged_files_say_nothing(opened: OpenStack) -> None:
    save(opened, "elsewhere", extra={"source": "/models/other"})
    save(opened, "other", model="bge")
    save(opened, "unknown", summaries=())
    (role_results(opened.home) / "damaged.json").write_text('{"schema_version": 1, "role": 3}')
    assert role_speeds(opened) == {}
