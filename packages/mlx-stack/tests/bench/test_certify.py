"""Which saved benchmark a tier's new files or a new engine are compared with."""

import json
from pathlib import Path

import pytest

from mlx_stack.bench.certify import saved_report
from mlx_stack.home import Home
from mlx_stack.models.disk.manifest import weights_digest
from mlx_stack.open_stack import OpenStack
from mlx_stack.stack import Stack, Tier, save_stack

TIER = "standard"
UNKNOWN_ENGINE = {"name": None, "version": None}
"""That of a tier which never ran."""


@pytest.fixture
def model(home: Home) -> Path:
    folder = home.models / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    header = b"{}".ljust(8)
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return folder


@pytest.fixture
def tier(home: Home, model: Path) -> Tier:
    tier = Tier(name=TIER, model="mine", quant=None, source=str(model), port=8000, vllm_flags={})
    save_stack(home.stack, Stack(tiers=(tier,)))
    return tier


def saved(home: Home, **changes: object) -> None:
    summary = {"value": 1.0, "low": 1.0, "high": 1.0, "p95": 1.0}
    document = {
        "schema_version": 1,
        "target": f"tier {TIER}",
        "tier": TIER,
        "model": "mine",
        "engine": UNKNOWN_ENGINE,
        "parameters": {"iterations": 3, "prompt_tokens": 512, "concurrency": 1},
        "machine": {},
        "started_at": "2026-11-20T10:00:00+00:00",
        "finished": True,
        "summary": {"ttft_s": summary, "prompt_tps": summary, "generation_tps": summary},
        "runs": [],
        "cautions": [],
        **changes,
    }
    home.benchmarks.mkdir(exist_ok=True)
    (home.benchmarks / "one.json").write_text(json.dumps(document), encoding="utf-8")


def is_compared(home: Home, tier: Tier) -> bool:
    return saved_report(OpenStack(home), tier) is not None


def test_a_benchmark_of_the_same_files_and_engine_is_what_new_ones_are_compared_with(
    home: Home, tier: Tier, model: Path
) -> None:
    saved(home, model_hash=weights_digest(model))
    assert is_compared(home, tier)


def test_a_benchmark_of_another_revision_is_not(home: Home, tier: Tier, model: Path) -> None:
    saved(home, model_hash=weights_digest(model))
    (model / "config.json").write_text('{"revised": true}', encoding="utf-8")
    assert not is_compared(home, tier)


def test_one_that_does_not_say_what_files_it_measured_is_not(home: Home, tier: Tier) -> None:
    saved(home)
    assert not is_compared(home, tier)


def test_one_of_another_engine_is_not(home: Home, tier: Tier, model: Path) -> None:
    saved(
        home,
        model_hash=weights_digest(model),
        engine={"name": "vllm-mlx", "version": "0.5.0"},
    )
    assert not is_compared(home, tier)
