"""What the gateway measures, as Prometheus text.

Names are those of OpenTelemetry's conventions for generative AI where these have one.
"""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from mlx_gateway.ledger import Ledger, RequestRow

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_PER_TOKEN = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.4, 1)
_TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 60)
_TOKENS = tuple(4**power for power in range(14))
_OPERATIONS = {
    "chat/completions": "chat",
    "completions": "text_completion",
    "messages": "chat",
    "responses": "chat",
    "api/chat": "chat",
    "api/generate": "text_completion",
    "api/embed": "embeddings",
}


class Metrics:
    """The gateway's own measurements, since it started."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._duration = Histogram(
            "gen_ai_server_request_duration_seconds",
            "From the request to the end of its answer.",
            ("gen_ai_operation_name", "gen_ai_request_model", "error_type"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._ttft = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From the request to the first event of its answer.",
            ("gen_ai_operation_name", "gen_ai_request_model"),
            buckets=_TTFT,
            registry=self._registry,
        )
        self._per_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time per token after the first.",
            ("gen_ai_operation_name", "gen_ai_request_model"),
            buckets=_PER_TOKEN,
            registry=self._registry,
        )
        self._queued = Histogram(
            "mlx_gateway_queue_seconds",
            "How long a request waited for its turn.",
            ("gen_ai_request_model",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens that a request read and wrote, as far as its engine says.",
            ("gen_ai_operation_name", "gen_ai_request_model", "gen_ai_token_type"),
            buckets=_TOKENS,
            registry=self._registry,
        )
        self._reused = Counter(
            "mlx_gateway_cached_tokens",
            "Tokens of prompts that were not read again, as far as the engines say.",
            ("gen_ai_request_model",),
            registry=self._registry,
        )
        self._of_key = Counter(
            "mlx_gateway_key_requests",
            "Requests of each client's key.",
            ("key", "gen_ai_request_model", "error_type"),
            registry=self._registry,
        )
        self._tokens_of_key = Counter(
            "mlx_gateway_key_tokens",
            "Tokens read and written for each client's key.",
            ("key", "gen_ai_token_type"),
            registry=self._registry,
        )
        self._fallbacks = Counter(
            "mlx_gateway_fallbacks",
            "Requests answered by a different model than the requested one.",
            ("asked", "answered_by"),
            registry=self._registry,
        )
        self._running = Gauge(
            "mlx_gateway_requests_running", "Requests running at the engines.", ("model",),
            registry=self._registry,
        )  # fmt: skip
        self._waiting = Gauge(
            "mlx_gateway_requests_waiting", "Requests that wait for their turn.", ("model",),
            registry=self._registry,
        )  # fmt: skip
        self._ledger = Gauge(
            "mlx_gateway_ledger_writes",
            "1 while requests are recorded, 0 while they are not.",
            registry=self._registry,
        )
        self._lost = Gauge(
            "mlx_gateway_ledger_lost_rows",
            "Rows that the ledger lost since the start.",
            registry=self._registry,
        )

    def finished(self, row: RequestRow, error: str) -> None:
        """Count a request that has ended; `error` is "" where all went well."""
        operation, model = _OPERATIONS.get(row.protocol, row.protocol), row.tier
        self._duration.labels(operation, model, error).observe(row.seconds)
        self._queued.labels(model).observe(row.queue_s)
        self._of_key.labels(row.key, model, error).inc()
        if row.ttft_s is not None:
            self._ttft.labels(operation, model).observe(row.ttft_s)
        if row.generation_tps:
            self._per_token.labels(operation, model).observe(1 / row.generation_tps)
        if row.cached_tokens:
            self._reused.labels(model).inc(row.cached_tokens)
        counts = (("input", row.prompt_tokens), ("output", row.completion_tokens))
        for kind, count in counts:
            if count is not None:
                self._tokens.labels(operation, model, kind).observe(count)
                self._tokens_of_key.labels(row.key, kind).inc(count)

    def fell_back(self, asked: str, answered_by: str) -> None:
        """Count a request that another model answered."""
        self._fallbacks.labels(asked, answered_by).inc()

    def render(
        self,
        lines: Mapping[str, tuple[int, int]],
        engines: Iterable[tuple[str, str, str]],
        ledger: Ledger | None = None,
    ) -> bytes:
        """Everything as text.

        Args:
            lines: For each model, how many requests run and how many wait.
            engines: The text of each engine's own metrics, after its model's name and its root.
            ledger: Where requests are written down, if anywhere.
        """
        for model, (running, waiting) in lines.items():
            self._running.labels(model).set(running)
            self._waiting.labels(model).set(waiting)
        self._ledger.set(ledger is not None and not ledger.problem)
        self._lost.set(0 if ledger is None else ledger.dropped)
        joined = CollectorRegistry(auto_describe=False)
        joined.register(_Joined(engines))
        return generate_latest(self._registry) + generate_latest(joined)


class _Joined(Collector):
    """The metrics of several engines in one, each sample with its engine's model and root."""

    def __init__(self, engines: Iterable[tuple[str, str, str]]) -> None:
        self._families: dict[str, Metric] = {}
        for name, root, text in engines:
            try:
                families = list(text_string_to_metric_families(text))
            except ValueError:  # not Prometheus text: nothing of it can be told apart
                continue
            for family in families:
                self._add(family, {"engine": name, "upstream": root})

    def collect(self) -> Iterable[Metric]:
        """The families of all engines."""
        return self._families.values()

    def _add(self, family: Metric, engine: dict[str, str]) -> None:
        known = self._families.setdefault(
            family.name, Metric(family.name, family.documentation, family.type, family.unit)
        )
        if known.type != family.type:
            return
        for sample in family.samples:
            labels = {**sample.labels, **engine}
            known.samples.append(sample._replace(labels=labels))
