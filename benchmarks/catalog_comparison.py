"""What three catalogs say of ten models, compared with the models' own files.

    uv run python benchmarks/catalog_comparison.py [-o docs/reference/catalog-comparison.md]

The ten are drawn with a fixed seed from all entries. `mlx-stack==0.3.8` and `llmfit==1.1.17` come
from PyPI, each into an environment that uv makes for the call. The truth is in
`data/catalog_facts.csv`: layers, heads and windows of each `config.json`, and the published sizes
of the 4-bit repositories.
"""

import argparse
import csv
import json
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mlx_catalog import CatalogEntry, Quant, load_catalog
from mlx_recommend import Workload, memory_use, shape_of_entry

SEED = 2026
DRAWN = 10
CONTEXT_TOKENS = 32768
FACTS = Path(__file__).parent / "data" / "catalog_facts.csv"

#: What `models --available` of mlx-stack 0.3.8 answers for a repository, and its catalog by id.
RIVAL_PROGRAM = """
import json, sys
from mlx_stack.core.catalog import load_catalog
from mlx_stack.core.discovery import _build_discovered_model, load_benchmark_data
catalog = {entry.id: entry for entry in load_catalog()}
measured = load_benchmark_data()
answer = {}
for name, repo in json.load(sys.stdin).items():
    entry = catalog.get(name)
    found = _build_discovered_model(repo, 0, measured, None) if repo else None
    answer[name] = {
        "params_b": entry.params_b if entry else (found.params_b if found else None) or None,
        "disk_gb": entry.sources["int4"].disk_size_gb if entry else None,
        "architecture": entry.architecture if entry else None,
        "memory_gb": (
            next(iter(entry.benchmarks.values())).memory_gb if entry
            else found.memory_gb if found else None
        ),
    }
print(json.dumps(answer))
"""


HEADING = "| model | files | mlx-catalog | mlx-stack 0.3.8 | llmfit 1.1.17 |"
INTRODUCTION = """\
# Three catalogs compared with the models' own files

This page compares what three tools report about ten random models of mlx-catalog (seed {seed}):
their memory with 4-bit weights and a context of {tokens:,} tokens, their size and architecture.
mlx-stack 0.3.8 is the different program of that name on PyPI. The page was made by
`uv run python benchmarks/catalog_comparison.py -o docs/reference/catalog-comparison.md`.

The column "files" is calculated from the models' own files. The size is the published size of the
4-bit repository. If none is published, it is 4.5 bits per parameter, marked with ~. The memory is
that size plus the 16-bit cache of the layers that have one. The tools may add what an engine itself
needs. So 0.7 GB more isn't an error, although it is a large share for a small model. Percentages
are differences from "files"; the last row has the median of their absolute values, and of how many
models. `?` means that the value is unknown. mlx-stack 0.3.8 reports the same memory for every
context. If its catalog doesn't have the model, the figure is from its listing of the Hub.
"""


@dataclass(frozen=True, slots=True)
class Said:
    """What one source says of one model; None where it says nothing."""

    params_b: float | None = None
    disk_gb: float | None = None
    architecture: str | None = None
    memory_gb: float | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """One model in all four columns."""

    entry: CatalogEntry
    facts: Said
    ours: Said
    rival: Said
    llmfit: Said
    is_published: bool


def main() -> None:
    """Print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="write the page here")
    options = parser.parse_args()
    page = render(compare())
    if options.output is None:
        sys.stdout.write(page)
    else:
        options.output.write_text(page, encoding="utf-8")


def compare() -> list[Compared]:
    """Ten entries, and what each source says of them."""
    with FACTS.open(encoding="utf-8", newline="") as file:
        facts = {row["id"]: row for row in csv.DictReader(file)}
    entries = {entry.id: entry for entry in load_catalog()}
    drawn = random.Random(SEED).sample(sorted(entries), DRAWN)
    rival = ask_rival({name: facts[name]["int4_repo"] for name in drawn})
    return [
        Compared(
            entry=entries[name],
            facts=truth(facts[name]),
            ours=ours(entries[name]),
            rival=rival[name],
            llmfit=ask_llmfit(facts[name]["base_repo"]),
            is_published=bool(facts[name]["int4_gb"]),
        )
        for name in sorted(drawn)
    ]


def truth(row: dict[str, str]) -> Said:
    """What the model's own files say: published bytes, and caches from its configuration."""
    params_b = float(row["params_b"])
    disk_gb = float(row["int4_gb"]) if row["int4_gb"] else params_b * 4.5 / 8
    memory_gb = None
    if row["kv_bytes_per_token"]:
        window = int(row["sliding_window"] or 0)
        in_window = int(row["kv_bytes_in_full_window"] or 0)
        sliding = in_window * min(CONTEXT_TOKENS, window) / window if window else 0
        memory_gb = disk_gb + (CONTEXT_TOKENS * int(row["kv_bytes_per_token"]) + sliding) / 1e9
    return Said(params_b, disk_gb, row["architecture"], memory_gb)


def ours(entry: CatalogEntry) -> Said:
    """What this catalog says, with memory as `mlx-stack estimate` counts it."""
    memory = memory_use(shape_of_entry(entry, Quant.INT4), Workload(context_tokens=CONTEXT_TOKENS))
    total = memory.total_bytes
    return Said(
        params_b=entry.params_b,
        disk_gb=entry.weights_bytes(Quant.INT4) / 1e9,
        architecture=entry.architecture,
        memory_gb=None if total is None else total / 1e9,
    )


def ask_rival(repos: dict[str, str]) -> dict[str, Said]:
    """What mlx-stack 0.3.8 says: its catalog where it has the id, else its listing of the Hub."""
    words = ["--with", "mlx-stack==0.3.8", "python", "-c", RIVAL_PROGRAM]
    answer = json.loads(run_isolated(words, json.dumps(repos)))
    return {name: Said(**said) for name, said in answer.items()}


def ask_llmfit(repo: str) -> Said:
    """What llmfit plans for the model at MLX's 4 bits."""
    if not repo:
        return Said()
    program = ["--with", "llmfit==1.1.17", "llmfit", "--json"]
    plan = json.loads(
        run_isolated(
            [*program, "plan", repo, "--context", str(CONTEXT_TOKENS), "--quant", "mlx-4bit"]
        )
        or "{}"
    )
    if plan.get("model_name") != repo:
        return Said()
    (found, *_) = json.loads(run_isolated([*program, "info", repo]))["models"]
    return Said(
        params_b=found["params_b"],
        disk_gb=plan["disk_size_gb"],
        architecture="moe" if found["is_moe"] else "dense",
        memory_gb=plan["minimum"]["vram_gb"],
    )


def run_isolated(words: list[str], stdin: str = "") -> str:
    """What a program of a package from PyPI prints, run apart from this project."""
    command = ["uv", "run", "--quiet", "--no-project", "--isolated", *words]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    return done.stdout


def render(rows: list[Compared]) -> str:
    """The page, with how far each memory figure is from the truth."""
    lines = [INTRODUCTION.format(seed=SEED, tokens=CONTEXT_TOKENS)]
    lines += ["## Memory at 32k, in GB", "", HEADING, "|---|---:|---:|---:|---:|"]
    for row in rows:
        figures = [with_error(said.memory_gb, row.facts.memory_gb) for said in others(row)]
        lines.append(line(row, [number(row.facts.memory_gb), *figures]))
    errors = [median_error(rows, which) for which in range(3)]
    lines += [f"| *median error* | | {' | '.join(errors)} |", ""]
    lines += ["## Size at 4 bits, in GB", "", HEADING, "|---|---:|---:|---:|---:|"]
    for row in rows:
        mark = "" if row.is_published else "~"
        figures = [number(said.disk_gb) for said in others(row)]
        lines.append(line(row, [mark + number(row.facts.disk_gb), *figures]))
    lines += ["", "## Parameters (10^9) and architecture", "", HEADING, "|---|---|---|---|---|"]
    for row in rows:
        columns = (row.facts, *others(row))
        lines.append(
            line(row, [f"{number(said.params_b)}, {said.architecture or '?'}" for said in columns])
        )
    return "\n".join(lines) + "\n"


def line(row: Compared, cells: list[str]) -> str:
    """One line of a table."""
    return f"| {row.entry.id} | {' | '.join(cells)} |"


def others(row: Compared) -> tuple[Said, Said, Said]:
    """The three that are judged."""
    return row.ours, row.rival, row.llmfit


def number(value: float | None) -> str:
    """A figure, or a question mark."""
    return "?" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


def with_error(value: float | None, true: float | None) -> str:
    """A figure with its relative error, where both are known."""
    if value is None or true is None:
        return number(value)
    return f"{number(value)} ({(value - true) / true:+.0%})"


def median_error(rows: list[Compared], which: int) -> str:
    """The median of the absolute relative errors of one tool."""
    errors = sorted(
        abs(value - row.facts.memory_gb) / row.facts.memory_gb
        for row in rows
        if (value := others(row)[which].memory_gb) is not None and row.facts.memory_gb
    )
    return f"{errors[len(errors) // 2]:.0%} of {len(errors)}" if errors else "?"


if __name__ == "__main__":
    main()
