"""Whether an engine serves a request, read from the metrics that vllm-mlx publishes; pure."""

import re
from dataclasses import dataclass

_SAMPLE = re.compile(
    r"vllm_mlx_http_requests_(in_flight|total)\{([^}]*)\}\s+([0-9][0-9.eE+]*)(?:\s.*)?"
)


@dataclass(frozen=True, slots=True)
class Activity:
    """What an engine has done and does.

    Only POST counts: inference is asked for that way, while health checks and this question are
    GET. A streamed answer is in flight until its last token.

    Attributes:
        in_flight: Requests being answered now.
        answered: Requests answered since the engine started.
    """

    in_flight: int
    answered: int


def parse_activity(metrics: str) -> Activity:
    """What Prometheus' text format says of requests; zeros where it says nothing."""
    counts = {"in_flight": 0, "total": 0}
    for line in metrics.splitlines():
        sample = _SAMPLE.fullmatch(line.strip())
        if sample and 'method="POST"' in sample[2]:
            counts[sample[1]] += int(float(sample[3]))
    return Activity(in_flight=counts["in_flight"], answered=counts["total"])


def is_serving(before: Activity | None, now: Activity) -> bool:
    """Whether a request is in flight, or one was answered since the look before.

    A smaller count than before is an engine that was restarted.
    """
    return now.in_flight > 0 or (
        before is not None and now.answered != before.answered and now.answered > 0
    )
