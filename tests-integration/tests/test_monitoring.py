"""The dashboard in the documentation shows what the gateway measures."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlx_gateway.ledger import RequestRow
from mlx_gateway.metrics import Metrics

EXAMPLES = Path(__file__).parents[2] / "docs" / "how-to" / "examples"
DASHBOARD: dict[str, Any] = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
FUNCTIONS = frozenset(
    {"by", "histogram_quantile", "increase", "le", "rate", "sum", "__rate_interval", "__range"}
)
WORD = re.compile(r"[a-z_][a-z0-9_]*")


@pytest.fixture(scope="module")
def measured() -> dict[str, set[str]]:
    """The names of all samples, each with its labels."""
    metrics = Metrics()
    row = RequestRow(
        at=0, key="laptop", program="curl", model="qwen3-8b", tier="standard", seconds=1.0,
        protocol="messages", status=200, ttft_s=0.1, generation_tps=50.0, prompt_tokens=10,
        cached_tokens=5, completion_tokens=20,
    )  # fmt: skip
    metrics.finished(row, "")
    metrics.fell_back("standard", "fast")
    text = metrics.render({"standard": (1, 0)}, []).decode()
    return {
        sample.name: {*sample.labels}
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("expression", expressions())
def test_a_panel_asks_for_what_there_is(expression: str, measured: dict[str, set[str]]) -> None:
    words = set(WORD.findall(re.sub(r'"[^"]*"', "", expression))) - FUNCTIONS
    names = words & measured.keys()

    assert len(names) == 1, "one metric, by a name that it has"
    assert words - names <= measured[names.pop()], "and labels that it has"


def test_every_measurement_of_the_gateway_is_on_the_dashboard(
    measured: dict[str, set[str]],
) -> None:
    shown = {name for each in expressions() for name in WORD.findall(each)}
    kinds = {re.sub(r"_(bucket|count|sum|created|total)$", "", name) for name in measured}

    assert kinds == {
        re.sub(r"_(bucket|count|sum|total)$", "", name) for name in shown if name in measured
    }


def test_panels_lie_beside_each_other_and_name_their_lines(measured: dict[str, set[str]]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
        for target in panel["targets"]:
            (name,) = set(WORD.findall(target["expr"])) & measured.keys()
            labels = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
            assert set(labels) <= measured[name]
