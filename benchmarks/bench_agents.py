"""How exact `--agents` is against a server whose cache, clock and queue are known.

    uv run python benchmarks/bench_agents.py [--rounds 3] [--prefix-tokens 16000] [--json FILE]

Each case is a cost model of the calibration server: which prefixes it keeps, what a token costs to
read, how many requests it serves at once. Compared with the server's own account of every request,
by turn and over all rounds: the tokens read (exactly), the TTFT, and the fairness that follows from
the server's stamps.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from mlx_bench import AgentParameters, AgentsReport, Conditions, ModelEndpoint, StreamingClient
from mlx_bench.agents.runner import run_agents
from mlx_bench.calibration.check import calibration_server
from mlx_bench.calibration.server import ServedRequest, ServedRequests

CASES = {
    "no cache": "ttft_ms=20,tps=200,prefill_tps=20000,tool_calls=1",
    "prompts kept": "ttft_ms=20,tps=200,prefill_tps=20000,tool_calls=1,cache=1",
    "prompts and answers kept": "ttft_ms=20,tps=200,prefill_tps=20000,tool_calls=1,cache=2",
    "room for two conversations": (
        "ttft_ms=20,tps=200,prefill_tps=20000,tool_calls=1,cache=2,cache_entries=2"
    ),
    "thinking is dropped": "ttft_ms=20,tps=200,prefill_tps=20000,cache=2,reasoning=40",
    "one request at a time": ("ttft_ms=20,tps=200,prefill_tps=20000,tool_calls=1,cache=2,lanes=1"),
}


def main() -> None:
    """Run all rounds and print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--prefix-tokens", type=int, default=16_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(
        "                            tokens read,     read/new     TTFT off, ms     fairness\n"
        "case                        turns wrong      last turn    median   worst   off, %"
    )
    with calibration_server() as base_url:
        for name, model in CASES.items():
            found = [measure(base_url, model, options) for _ in range(options.rounds)]
            rows.append({"case": name, "model": model, **joined(found)})
            print(line(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def measure(base_url: str, model: str, options: argparse.Namespace) -> dict[str, Any]:
    """One run, and how far it is off the server's account."""
    parameters = AgentParameters(
        agents=options.agents, turns=options.turns, prefix_tokens=options.prefix_tokens
    )
    with StreamingClient(ModelEndpoint(base_url, model)) as client:
        known = len(served_by(client))
        report = run_agents(client, parameters, Conditions("calibration", {}))
        # The requests before the agents' own count tokens; those are of one token.
        served = [each for each in served_by(client)[known:] if len(each.sent_ns) > 1]
    by_prompt: dict[int, list[ServedRequest]] = {}
    for each in served:
        by_prompt.setdefault(each.prompt_tokens, []).append(each)
    wrong, offs = 0, list[float]()
    for turn in report.turns:
        runs = sorted(
            (run for run in report.runs if run.turn == turn.turn), key=lambda run: run.sent_s
        )
        truth = [each for run in runs[:1] for each in by_prompt[run.prompt_tokens or 0]]
        read = sorted(each.prompt_tokens - each.cached_tokens for each in truth)
        wrong += read != sorted(run.read_tokens or 0 for run in runs)
        due = sorted((each.sent_ns[0] - each.received_ns) / 1e6 for each in truth)
        seen = sorted((run.ttft_s or 0) * 1e3 for run in runs)
        offs += [ours - theirs for ours, theirs in zip(seen, due, strict=True)]
    return {
        "wrong": wrong,
        "turns": len(report.turns),
        "read_per_new": (report.turns[-1].read_tokens or 0) / (report.turns[-1].new_tokens or 1),
        "ttft_off_ms": offs,
        "fairness_off": (report.fairness or 0) / true_fairness(report, served) - 1,
        "fairness": report.fairness,
    }


def served_by(client: StreamingClient) -> list[ServedRequest]:
    """The server's account of every request so far."""
    page = client.endpoint.base_url.removesuffix("/v1") + "/calibration/requests"
    served = client.get(page, ServedRequests)
    assert served is not None
    return served.requests


def true_fairness(report: AgentsReport, served: list[ServedRequest]) -> float:
    """The slowest conversation over the quickest by the server's stamps.

    Two requests belong to one conversation if the later prompt begins with the earlier one; the
    system prompt is the same in all.
    """
    conversations: list[list[ServedRequest]] = []
    for each in sorted(served, key=lambda each: each.received_ns):
        mine = next((c for c in conversations if each.prompt.startswith(head_of(c[-1]))), None)
        if mine is None:
            conversations.append([each])
        else:
            mine.append(each)
    assert len(conversations) == report.agents
    times = [c[-1].sent_ns[-1] - c[0].received_ns for c in conversations]
    return max(times) / min(times)


def head_of(request: ServedRequest) -> str:
    """What every later prompt of the conversation begins with."""
    return request.prompt.removesuffix("<assistant>")


def joined(found: list[dict[str, Any]]) -> dict[str, Any]:
    """All rounds of a case in one row."""
    offs = [off for each in found for off in each["ttft_off_ms"]]
    return {
        "turns_wrong": sum(each["wrong"] for each in found),
        "turns": sum(each["turns"] for each in found),
        "read_per_new": statistics.median(each["read_per_new"] for each in found),
        "ttft_off_ms": (statistics.median(offs), max(offs, key=abs)),
        "fairness": statistics.median(each["fairness"] for each in found),
        "fairness_off_pct": max((100 * each["fairness_off"] for each in found), key=abs),
    }


def line(row: dict[str, Any]) -> str:
    """A row for the terminal."""
    wrong = f"{row['turns_wrong']} of {row['turns']}"
    median, worst = row["ttft_off_ms"]
    return (
        f"{row['case']:28}{wrong:>11}{row['read_per_new']:15.2f}"
        f"{median:+13.2f}{worst:+9.2f}{row['fairness_off_pct']:+9.2f}"
    )


if __name__ == "__main__":
    main()
