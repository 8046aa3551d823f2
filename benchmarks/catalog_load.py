"""How long the catalog takes to load and validate, how that grows, and how long the command takes.

    uv run python benchmarks/catalog_load.py

Loading is timed after the imports. It grows linearly when the time for an entry stays the same from
the shipped catalog to 5,000 entries, which are copies of the shipped ones under other names. Each
figure is the least of several runs: what else the machine does only ever adds.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mlx_catalog import load_catalog, load_entries
from mlx_catalog.catalog import SHIPPED_MODELS

ENTRIES = (500, 1000, 2000, 5000)
LOAD_LIMIT_S = 0.060
COMMAND_LIMIT_S = 0.5


def main() -> None:
    """Print the figures with their limits."""
    shipped = len(load_catalog())
    loading_s = least(load_catalog, runs=15)
    print(
        f"{shipped} shipped entries: {loading_s * 1000:.1f} ms (at most {LOAD_LIMIT_S * 1000:.0f})"
    )
    print(f"  of CPU time: {least(load_catalog, runs=15, clock=time.process_time) * 1000:.1f} ms")
    print(f"  for each entry: {loading_s / shipped * 1e6:.0f} µs")
    with tempfile.TemporaryDirectory() as folder:
        for count in ENTRIES:
            copies = write_copies(Path(folder) / str(count), count)
            seconds = least(lambda path=copies: load_entries(path), runs=3)
            print(f"{count} entries: {seconds:.3f} s, {seconds / count * 1e6:.0f} µs for each")
        environment = {**os.environ, "MLX_STACK_HOME": f"{folder}/home", "NO_COLOR": "1"}
        program = str(Path(sys.executable).with_name("mlx-stack"))
        for words in (["models", "--catalog"], ["models", "--catalog", "--json"]):
            command = [program, *words, "--hardware", "m4-max:40:64"]
            seconds = least(lambda command=command: run(command, environment), runs=10)
            print(f"mlx-stack {' '.join(words)}: {seconds:.2f} s (at most {COMMAND_LIMIT_S} s)")


def least(
    action: Callable[[], object], *, runs: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The shortest of several runs, in seconds of `clock`."""
    times: list[float] = []
    for _ in range(runs):
        began = clock()
        action()
        times.append(clock() - began)
    return min(times)


def write_copies(folder: Path, count: int) -> Path:
    """A folder of `count` entries: the shipped ones again and again, under names of their own."""
    folder.mkdir()
    texts = [path.read_text(encoding="utf-8") for path in sorted(SHIPPED_MODELS.glob("*.yaml"))]
    for number in range(count):
        text = texts[number % len(texts)]
        name = f"{text.partition('id: ')[2].partition(chr(10))[0]}-{number}"
        text = re.sub(r"^id: .*$", f"id: {name}", text, count=1, flags=re.MULTILINE)
        text = re.sub(r"^aliases: .*$\n", "", text, flags=re.MULTILINE)
        text = re.sub(r"^alias_notes:\n(  .*\n)+", "", text, flags=re.MULTILINE)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def run(command: list[str], environment: dict[str, str]) -> None:
    """The command, to its end."""
    subprocess.run(command, env=environment, capture_output=True, check=True)


if __name__ == "__main__":
    main()
