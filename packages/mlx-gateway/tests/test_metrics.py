"""What Prometheus reads."""

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlx_gateway.ledger import RequestRow
from mlx_gateway.metrics import Metrics

FAILED = RequestRow(
    at=0, key="laptop", program="curl", model="qwen3-8b", tier="standard", seconds=2.5,
    protocol="chat/completions", status=503, queue_s=0.5,
)  # fmt: skip
ENGINE = """\
# HELP vllm_requests_total Requests.
# TYPE vllm_requests_total counter
vllm_requests_total{result="success"} 3.0
# HELP vllm_wait_seconds Wait.
# TYPE vllm_wait_seconds histogram
vllm_wait_seconds_bucket{le="1.0"} 1.0
vllm_wait_seconds_bucket{le="+Inf"} 2.0
vllm_wait_seconds_count 2.0
vllm_wait_seconds_sum 4.0
"""


def rendered(metrics: Metrics, *engines: tuple[str, str, str]) -> dict[tuple[object, ...], float]:
    text = metrics.render({"standard": (2, 5)}, engines).decode()
    assert not [line for line in text.splitlines() if text.splitlines().count(line) > 1]
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_requests_are_counted_with_their_time_and_tokens() -> None:
    metrics = Metrics()
    done = replace(
        FAILED, status=200, ttft_s=0.03, generation_tps=50.0,
        prompt_tokens=100, cached_tokens=64, completion_tokens=20,
    )  # fmt: skip
    metrics.finished(done, "")
    metrics.finished(FAILED, "503")
    metrics.fell_back("standard", "fast")

    values = rendered(metrics)

    labels = (("error_type", ""), ("gen_ai_operation_name", "chat"),
              ("gen_ai_request_model", "standard"))  # fmt: skip
    assert values["gen_ai_server_request_duration_seconds_count", *labels] == 1
    assert values["gen_ai_server_request_duration_seconds_sum", *labels] == 2.5
    assert values["gen_ai_server_time_to_first_token_seconds_count", *labels[1:]] == 1
    for kind, count in (("input", 100), ("output", 20)):
        used = (*labels[1:], ("gen_ai_token_type", kind))
        assert values["gen_ai_client_token_usage_sum", *used] == count
        assert values["gen_ai_client_token_usage_count", *used] == 1, "nobody counted the other"
    per_token = values["gen_ai_server_time_per_output_token_seconds_sum", *labels[1:]]
    assert per_token == pytest.approx(0.02)
    assert values["mlx_gateway_queue_seconds_sum", labels[2]] == 1.0
    assert values["mlx_gateway_cached_tokens_total", labels[2]] == 64
    assert values["mlx_gateway_key_requests_total", labels[0], labels[2], ("key", "laptop")] == 1
    assert (
        values["mlx_gateway_key_tokens_total", ("gen_ai_token_type", "input"), ("key", "laptop")]
        == 100
    )
    assert values["mlx_gateway_ledger_writes",] == 0
    assert values["mlx_gateway_requests_running", ("model", "standard")] == 2
    assert values["mlx_gateway_requests_waiting", ("model", "standard")] == 5
    assert values[
        "mlx_gateway_fallbacks_total", ("answered_by", "fast"), ("asked", "standard")
    ] == 1  # fmt: skip


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/messages", "chat"),
        ("/v1/responses", "chat"),
        ("/v1/completions", "text_completion"),
        ("/v1/embeddings", "embeddings"),
        ("/v1/rerank", "rerank"),
    ],
)
def test_operations_have_the_names_of_the_genai_conventions(path: str, operation: str) -> None:
    metrics = Metrics()
    metrics.finished(replace(FAILED, protocol=path.removeprefix("/v1/"), ttft_s=1), "")

    said = {label for key in rendered(metrics) for label in key[1:] if isinstance(label, tuple)}

    assert [label[1] for label in said if label[0] == "gen_ai_operation_name"] == [operation]


def test_the_engines_own_metrics_are_joined_and_keep_apart() -> None:
    first, second = ("standard", "http://a:1", ENGINE), ("standard", "http://b:1", ENGINE)

    values = rendered(Metrics(), first, second)

    counts = {key[2]: value for key, value in values.items() if key[0] == "vllm_requests_total"}
    assert counts == {("result", "success"): 3.0}
    for root in ("http://a:1", "http://b:1"):
        labels = (("engine", "standard"), ("upstream", root))
        assert values["vllm_wait_seconds_count", *labels] == 2


@pytest.mark.parametrize("text", ["", "no metrics at all {", "<html>", "a b c d e"])
def test_an_engine_that_shows_something_else_is_left_out(text: str) -> None:
    assert rendered(Metrics(), ("standard", "http://a:1", text))
