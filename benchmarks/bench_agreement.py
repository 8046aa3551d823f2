r"""Whether mlx-bench, `vllm-mlx bench-serve` and guidellm agree about the same server.

    uv run python benchmarks/bench_agreement.py http://127.0.0.1:8000/v1 --model M \
        --vllm-mlx PATH/TO/bin/vllm-mlx --guidellm PATH/TO/bin/guidellm --tokenizer MODEL_FOLDER

The tools take turns, round after round and in changing order, with prompts of the same length that
that were never sent before. Requests must mean the same, too: guidellm names its limit
`max_completion_tokens`, which vllm-mlx does not read, and only mlx-bench asks for temperature 0. So
start the engine with `--max-tokens` as many as `--generation-tokens` and `--default-temperature 0`.
bench-serve divides n tokens by n - 1 gaps; its rate is multiplied by (n - 1) / n to mean the same.
Figures are medians over all requests of a tool, and ratios to mlx-bench.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_bench import Conditions, ModelEndpoint, Parameters, StreamingClient, run_benchmark
from mlx_bench.request import ChatRequest
from mlx_bench.workload import PromptMaker, calibrate_prompts, new_seed

if TYPE_CHECKING:
    from collections.abc import Callable

_TIMEOUT_S = 300


@dataclass
class Sample:
    """What one tool found: a figure a request."""

    ttft_ms: list[float] = field(default_factory=list)
    tps: list[float] = field(default_factory=list)


def main() -> None:
    """Take turns, then print medians and ratios."""
    options = _options()
    with StreamingClient(ModelEndpoint(options.url, options.model)) as client:
        prompts = _calibrate(client)
        tools: dict[str, Callable[[], Sample]] = {"mlx-bench": lambda: _mlx_bench(client, options)}
        if options.vllm_mlx:
            tools["bench-serve"] = lambda: _bench_serve(prompts, options)
        if options.guidellm:
            tools["guidellm"] = lambda: _guidellm(prompts, options)
        found = {name: Sample() for name in tools}
        names = list(tools)
        for number in range(options.rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                sample = tools[name]()
                found[name].ttft_ms += sample.ttft_ms
                found[name].tps += sample.tps
            print(f"round {number + 1} of {options.rounds}", flush=True)
    print("\ntool          requests   TTFT, ms     ratio   decode, tok/s     ratio")
    our_ttft, our_rate = _medians(found["mlx-bench"])
    for name, sample in found.items():
        ttft, rate = _medians(sample)
        print(
            f"{name:12} {len(sample.tps):9} {ttft:10.2f} {ttft / our_ttft:9.4f}"
            f" {rate:15.2f} {rate / our_rate:9.4f}"
        )


def _medians(sample: Sample) -> tuple[float, float]:
    return statistics.median(sample.ttft_ms), statistics.median(sample.tps)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--model", required=True)
    parser.add_argument("--vllm-mlx", help="vllm-mlx's program")
    parser.add_argument("--guidellm", help="guidellm's program")
    parser.add_argument("--tokenizer", help="a model folder, for guidellm")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=4, help="a round and tool")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--generation-tokens", type=int, default=100)
    return parser.parse_args()


def _calibrate(client: StreamingClient) -> PromptMaker:
    def count_tokens(prompt: str) -> int | None:
        usage = client.negotiate(ChatRequest(prompt, 1)).parse().usage
        return usage.prompt_tokens if usage else None

    return calibrate_prompts(count_tokens)


def _fresh(prompts: PromptMaker, options: argparse.Namespace) -> list[str]:
    seed = new_seed()
    return [
        prompts.make(options.prompt_tokens, seed=seed, index=index)
        for index in range(options.requests)
    ]


def _mlx_bench(client: StreamingClient, options: argparse.Namespace) -> Sample:
    parameters = Parameters(
        iterations=options.requests,
        warm_up=0,
        prompt_tokens=(options.prompt_tokens,),
        generation_tokens=options.generation_tokens,
    )
    report = run_benchmark(client, parameters, Conditions("agreement", {}))
    return Sample(
        [run.ttft_s * 1000 for run in report.runs if run.ttft_s is not None],
        [run.generation_tps for run in report.runs if run.generation_tps is not None],
    )


def _bench_serve(prompts: PromptMaker, options: argparse.Namespace) -> Sample:
    cases = [
        {
            "case_id": f"case-{number}",
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": options.generation_tokens,
        }
        for number, prompt in enumerate(_fresh(prompts, options))
    ]
    with tempfile.TemporaryDirectory() as folder:
        workload, output = Path(folder) / "workload.json", Path(folder) / "output.json"
        workload.write_text(json.dumps({"name": "agreement", "cases": cases}), encoding="utf-8")
        command = [options.vllm_mlx, "bench-serve", "--url", options.url.removesuffix("/v1")]
        command += ["--model", options.model, "--workload", str(workload), "--repetitions", "1"]
        command += ["--warmup", "0", "--format", "json", "--output", str(output)]
        _run(command)
        records = json.loads(output.read_text(encoding="utf-8"))["results"]
    sample = Sample()
    for record in records:
        metrics = record["metrics"]
        tokens = metrics["completion_tokens"]
        sample.ttft_ms.append(metrics["ttft_ms"])
        sample.tps.append(metrics["gen_tps"] * (tokens - 1) / tokens)
    return sample


def _guidellm(prompts: PromptMaker, options: argparse.Namespace) -> Sample:
    with tempfile.TemporaryDirectory() as folder:
        data, output = Path(folder) / "data.jsonl", Path(folder) / "output.json"
        lines = [json.dumps({"prompt": prompt}) for prompt in _fresh(prompts, options)]
        data.write_text("\n".join(lines) + "\n", encoding="utf-8")
        root = options.url.removesuffix("/v1")
        command = [options.guidellm, "run", "--disable-console"]
        command += ["--backend", f"kind=openai_http,target={root},model={options.model}"]
        command += ["--profile", "kind=synchronous"]
        command += ["--constraint", f"kind=max_requests,count={options.requests}"]
        command += ["--data", f"kind=json_file,path={data}"]
        command += ["--tokenizer", f"kind=huggingface_auto,model={options.tokenizer}"]
        command += ["--output", f"kind=json,path={output}"]
        _run(command)
        report = json.loads(output.read_text(encoding="utf-8"))
    sample = Sample()
    for request in report["benchmarks"][0]["requests"]["successful"]:
        sample.ttft_ms.append(request["time_to_first_token_ms"])
        sample.tps.append(1000 / request["inter_token_latency_ms"])
    return sample


def _run(command: list[str]) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command[:2])} failed:\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
