"""Saved benchmark results: which count, for what, and what a damaged one does."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlx_catalog import Quant
from mlx_hwprobe import parse_hardware_spec
from mlx_recommend import Basis, Option
from mlx_stack import json_file
from mlx_stack.engines.environment import (
    MARKER,
    EngineName,
    Environment,
    Receipt,
    use_environment,
)
from mlx_stack.errors import InvalidFileError
from mlx_stack.home import Home
from mlx_stack.models.disk.manifest import weights_digest
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.estimate import estimate_model
from mlx_stack.planning.recommend import Constraints, recommend
from mlx_stack.stack import Stack, Tier, save_stack

MAC = parse_hardware_spec("m4-max:40:64")
RESULT: dict[str, Any] = {
    "schema_version": 1,
    "target": "standard",
    "model": "qwen3-8b",
    "quant": "int4",
    "parameters": {"iterations": 3, "prompt_tokens": 1024, "concurrency": 1},
    "machine": {"chip": "Apple M4 Max", "memory_bytes": MAC.memory_bytes},
    "started_at": "2026-11-20T10:00:00+00:00",
    "summary": {
        "ttft_s": {"value": 1.2, "low": 1.1, "high": 1.3, "p95": 1.3},
        "prompt_tps": {"value": 850.0, "low": 840.0, "high": 860.0, "p95": 860.0},
        "generation_tps": {"value": 88.5, "low": 88.0, "high": 89.0, "p95": 89.0},
    },
    "runs": [],
    "cautions": [],
}


def save(home: Home, name: str = "one.json", **changes: object) -> None:
    home.benchmarks.mkdir(exist_ok=True)
    (home.benchmarks / name).write_text(json.dumps({**RESULT, **changes}), encoding="utf-8")


def speed(home: Home, model: str = "qwen3-8b", **options: object):
    return estimate_model(OpenStack(home), model, **options).estimate.generation_tps


def test_a_saved_result_replaces_the_estimate_and_says_so(home: Home):
    save(home)
    assert speed(home).basis is Basis.MEASURED
    assert speed(home).value == pytest.approx(88.5)


def test_a_prefill_rate_of_the_prefix_cache_is_no_evidence(home: Home):
    save(home, parameters={"prompt_tokens": 1024, "concurrency": 1, "cache": "primed"})
    found = estimate_model(OpenStack(home), "qwen3-8b").estimate
    assert found.generation_tps.basis is Basis.MEASURED
    assert found.prompt_tps.basis is not Basis.MEASURED


def test_the_bare_estimate_can_be_asked_for(home: Home):
    save(home)
    assert speed(home, use_measured=False).basis is Basis.ESTIMATE


def test_the_newest_of_several_counts(home: Home):
    newer = {**RESULT["summary"], "generation_tps": {"value": 91.0}}
    save(home, "a.json", started_at="2026-11-21T10:00:00+00:00", summary=newer)
    save(home, "b.json")
    assert speed(home).value == pytest.approx(91.0)


def test_it_counts_for_this_machine_only(home: Home):
    save(home)
    assert speed(home, hardware_spec="m4-max:40:128").basis is Basis.ESTIMATE
    save(home, machine={"chip": "Apple M1", "memory_bytes": 2**33})
    assert speed(home).basis is Basis.ESTIMATE


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "qwen3-14b"},
        {"target": "http://elsewhere:8000/v1"},
        {"quant": "int8"},
        {"parameters": {"prompt_tokens": 1024, "concurrency": 8}},
        {"summary": {"generation_tps": {"value": 0}, "prompt_tps": {"value": None}}},
        {"summary": {}},
    ],
    ids=["another-model", "an-endpoint", "another-precision", "many-requests", "zero", "nothing"],
)
def test_what_says_nothing_about_this_model_is_no_evidence(home: Home, changes: dict[str, Any]):
    save(home, **changes)
    assert speed(home).basis is Basis.ESTIMATE


def test_of_several_levels_the_single_requests_count(home: Home):
    levels = [
        {"concurrency": 4, "prompt_tokens": 1024, "generation_tps": {"value": 40.0}},
        {"concurrency": 1, "prompt_tokens": 1024, "generation_tps": {"value": 87.0}},
    ]
    save(home, summary=levels, parameters={"prompt_tokens": 1024, "concurrency": [1, 4]})
    assert speed(home).value == pytest.approx(87.0)


def test_a_result_can_name_the_repository_instead_of_the_id(home: Home):
    save(home, model="mlx-community/Qwen3-8B-4bit", quant=None)
    assert speed(home).basis is Basis.MEASURED
    assert speed(home, quant="int8").basis is Basis.ESTIMATE


def ranking(home: Home) -> dict[str, Option]:
    found = recommend(OpenStack(home), Constraints())
    return {each.candidate.model: each for each in found.plan.ranking}


def test_recommendations_use_it_and_it_never_changes_what_fits(home: Home):
    plain = ranking(home)
    save(home, summary={"generation_tps": {"value": 3.0}, "prompt_tps": {"value": 5.0}})
    found = ranking(home)
    assert found["qwen3-8b"].generation_tps == pytest.approx(3.0)
    assert found["qwen3-8b"].score < plain["qwen3-8b"].score
    assert {name: each.total_bytes for name, each in found.items()} == {
        name: each.total_bytes for name, each in plain.items()
    }


def test_a_damaged_result_is_an_error_that_names_the_file(home: Home):
    home.benchmarks.mkdir()
    (home.benchmarks / "broken.json").write_text('{"model": 3}', encoding="utf-8")
    with pytest.raises(InvalidFileError, match=r"broken\.json"):
        estimate_model(OpenStack(home), "qwen3-8b")


def in_use(home: Home, version: str = "0.6.0") -> None:
    """A version of the engine, as its folder tells of it, is the one that tiers start with."""
    environment = Environment(
        EngineName.VLLM_MLX, home.engines / "vllm-mlx" / f"{version}-0f0f0f0f"
    )
    (environment.path / "lib" / "python3.13" / "site-packages").mkdir(parents=True)
    environment.python.parent.mkdir()
    environment.python.touch()
    receipt = Receipt(lock_sha256="", records_sha256="", installed_at="")
    json_file.write(environment.path / MARKER, receipt)
    use_environment(home.engines, environment)


def weights_of(home: Home, revision: bytes = b"{}") -> Path:
    """The folder of the model that is tuned, with files of this revision."""
    folder = home.models / "mlx-community--Qwen3.5-27B-4bit"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_bytes(b'{"model_type": "qwen3_5"}')
    header = revision.ljust(16)
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return folder


def tuned(home: Home, **subject: object) -> None:
    """What `bench --tune` leaves of a tier: slower with its model's own drafts."""
    tier = Tier(
        name="standard",
        model="qwen3.5-27b",
        quant=Quant.INT4,
        source=str(weights_of(home)),
        port=8000,
        vllm_flags={},
    )
    save_stack(home.stack, Stack(tiers=(tier,)))
    if not (home.engines / "vllm-mlx").exists():
        in_use(home)
    what = {
        "tier": "standard",
        "model": "qwen3.5-27b",
        "model_hash": weights_digest(weights_of(home)),
        "engine": {"name": "vllm-mlx", "version": "0.6.0"},
        "flags": {},
        "prompt_tokens": 1024,
        "generation_tokens": 64,
        "concurrency": 1,
    }
    trials = [
        ("baseline", {}, [30.0, 31.0, 32.0]),
        ("single", {"enable-mtp": True}, [24.0, 25.0, 26.0]),
        ("baseline", {}, [30.0, 31.0, 32.0]),
    ]
    saved = {
        "subject": what | subject,
        "started_at": "2026-11-20T10:00:00+00:00",
        "tuning": {
            "candidates": [],
            "trials": [
                {
                    "candidate": {"factor": step, "settings": settings, "step": step},
                    "samples": {"generation_tps/1": samples},
                }
                for step, settings, samples in trials
            ],
        },
    }
    folder = home.benchmarks / "tuning"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "one.json").write_text(json.dumps(saved), encoding="utf-8")


def test_a_tuned_tier_replaces_the_range_of_its_drafts_by_what_was_measured(home: Home):
    home.create()
    tuned(home)
    found = estimate_model(OpenStack(home), "qwen3.5-27b").estimate
    assert found.mtp_tps.basis is Basis.MEASURED
    assert found.mtp_tps.value == pytest.approx(25.0)
    assert found.generation_tps.value == pytest.approx(31.0)


def test_a_tuning_tells_nothing_of_another_model_machine_or_tier_that_drafts_anyway(home: Home):
    home.create()
    tuned(home, flags={"enable-mtp": True})
    opened = OpenStack(home)
    assert estimate_model(opened, "qwen3.5-27b").estimate.mtp_tps.basis is Basis.ESTIMATE
    assert estimate_model(opened, "qwen3.5-9b").estimate.mtp_tps.basis is Basis.ESTIMATE
    (home.benchmarks / "tuning" / "one.json").unlink()
    (home.benchmarks / "tuning").rmdir()
    tuned(home)
    elsewhere = estimate_model(OpenStack(home), "qwen3.5-27b", hardware_spec="m1-max:32:64")
    assert elsewhere.estimate.mtp_tps.basis is Basis.ESTIMATE


def test_a_tuning_tells_nothing_of_another_revision_or_another_engine(home: Home):
    home.create()

    def basis() -> Basis:
        return estimate_model(OpenStack(home), "qwen3.5-27b").estimate.mtp_tps.basis

    tuned(home)
    assert basis() is Basis.MEASURED
    weights_of(home, b'{"a": 1}')
    assert basis() is Basis.ESTIMATE
    weights_of(home)
    assert basis() is Basis.MEASURED
    in_use(home, "0.7.0")
    assert basis() is Basis.ESTIMATE
    tuned(home, engine={"name": "vllm-mlx", "version": "0.7.0"})
    assert basis() is Basis.MEASURED
    tuned(home, engine={"name": "vllm-mlx", "version": "0.7.0"}, model_hash=None)
    assert basis() is Basis.ESTIMATE


def test_a_damaged_tuning_is_an_error_that_names_the_file(home: Home):
    home.create()
    tuned(home)
    (home.benchmarks / "tuning" / "two.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InvalidFileError, match=r"two\.json"):
        estimate_model(OpenStack(home), "qwen3.5-27b")
