"""What `usage` says besides what the ledger does: prices and predictions."""

import time
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from mlx_catalog import Quant
from mlx_gateway.ledger import Ledger, RequestRow
from mlx_gateway.usage import By
from mlx_stack.errors import InvalidFileError, UsageError
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.stack import Replica, Stack, Tier, load_stack, save_stack
from mlx_stack.usage import load_prices, report_usage

NOW = time.time()
ROW = RequestRow(
    at=NOW - 60, key="laptop", program="curl", model="qwen3-8b", tier="standard", status=200,
    protocol="messages", seconds=3.0, ttft_s=2.0, generation_tps=61.0, prompt_tokens=2048,
    cached_tokens=1024, completion_tokens=200,
)  # fmt: skip


@pytest.fixture
def used(home: Home) -> Home:
    """A home whose stack answered a request of one of its models, and another's."""
    tier = Tier(
        name="standard", model="qwen3-8b", quant=Quant.INT4,
        source="mlx-community/Qwen3-8B-4bit", port=8000, vllm_flags={},
    )  # fmt: skip
    unknown = msgspec.structs.replace(tier, name="fast", model="no-such-model", port=8001)
    home.create()
    save_stack(home.stack, Stack(schema_version=1, tiers=(tier, unknown)))
    ledger = Ledger(home.ledger)
    for model in ("qwen3-8b", "no-such-model", "gone-since"):
        ledger.note(replace(ROW, model=model))
    ledger.close()
    return home


def test_what_was_to_be_expected_stands_next_to_what_was(used: Home) -> None:
    report = report_usage(OpenStack(used), since="1h", by=By.MODEL)

    assert report.usage.rows.keys() == {"qwen3-8b", "no-such-model", "gone-since"}
    assert report.predictions.keys() == {"qwen3-8b"}, "nothing is made up of the others"
    expected = report.predictions["qwen3-8b"]
    assert expected.ttft_s is not None
    assert expected.generation_tps is not None
    assert 0.1 < expected.ttft_s < 10, "for the 1,024 tokens that had to be read"
    assert report_usage(OpenStack(used), since="1h", by=By.KEY).predictions == {}


def test_a_cost_needs_the_price_of_every_model(used: Home) -> None:
    path = used.root / "prices.yaml"
    path.write_text("qwen3-8b: {prompt: 1.0, cached: 0.5, completion: 10}\n")

    report = report_usage(OpenStack(used), since="1h", by=By.MODEL, prices=path)

    assert report.cost("qwen3-8b") == pytest.approx((1024 + 512 + 2000) / 1e6)
    assert report.cost("gone-since") is None
    assert report.cost() is None
    assert report.to_document()["totals"]["cost_usd"] is None  # pyright: ignore[reportIndexIssue]


def test_a_replica_costs_what_its_tiers_model_costs_unless_it_has_its_own_price(
    used: Home,
) -> None:
    stack = load_stack(used.stack)
    there = (Replica(node="studio", tier="big"),)
    tiers = (msgspec.structs.replace(stack.tiers[0], replicas=there),)
    save_stack(used.stack, msgspec.structs.replace(stack, tiers=tiers))
    ledger = Ledger(used.ledger)
    ledger.note(replace(ROW, model="standard@studio", tier="standard@studio"))
    ledger.close()
    path = used.root / "prices.yaml"

    def cost(text: str) -> float | None:
        path.write_text(text)
        report = report_usage(OpenStack(used), since="1h", by=By.MODEL, prices=path)
        return report.cost("standard@studio")

    whole = "qwen3-8b: {prompt: 1.0, cached: 0.5, completion: 10}\n"
    assert cost(whole) == pytest.approx((1024 + 512 + 2000) / 1e6)
    assert cost(whole + '"standard@studio": {prompt: 0, completion: 0}\n') == 0


@pytest.mark.parametrize(
    "text",
    ["- a list", "m: {prompt: 1}", "m: {prompt: -1, completion: 1}", "m: free", "m: {price: 1}",
     "m: {prompt: .inf, completion: 1, cached: x}", "{"],
)  # fmt: skip
def test_prices_that_make_no_sense_are_named(home: Home, text: str) -> None:
    home.create()
    path = home.root / "prices.yaml"
    path.write_text(text)

    with pytest.raises(InvalidFileError, match=r"prices\.yaml"):
        load_prices(path)


def test_a_machine_without_figures_predicts_nothing(used: Home) -> None:
    used.profile.write_text("{}")

    assert report_usage(OpenStack(used), since="1h", by=By.MODEL).predictions == {}


def test_the_time_for_what_was_read_again_is_measured_or_predicted_or_unknown(used: Home) -> None:
    ledger = Ledger(used.ledger)
    again = replace(ROW, program="opencode", prefix="system", prefix_place=3, reread_tokens=1000)
    ledger.note(replace(again, prefix_place=1, reread_s=2.5))
    ledger.note(again)
    ledger.note(replace(again, prefix_place=2, reread_tokens=10, model="gone-since"))
    ledger.close()

    report = report_usage(OpenStack(used), since="1h", by=By.KEY)

    found = {each.sum.place: each for each in report.read_again}
    assert (found[1].seconds, found[1].basis) == (2.5, "measured")
    assert found[3].basis == "predicted"
    assert found[3].seconds is not None
    assert 0.1 < found[3].seconds < 10
    assert (found[2].seconds, found[2].basis) == (None, None), "only the tokens are known"
    document: Any = report.to_document()
    assert document["read_again"][-1]["words"] == "line 2 of opencode's system prompt changed"


def test_what_is_no_time_is_wrong_usage(used: Home) -> None:
    with pytest.raises(UsageError, match="isn't a time"):
        report_usage(OpenStack(used), since="yesterday", by=By.MODEL)
