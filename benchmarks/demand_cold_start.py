"""From nothing to the first token: an engine by itself, and the same one through the gateway.

    uv run python benchmarks/demand_cold_start.py [--engines HOME] [--rounds 5] [--model FOLDER]
        [--gigabytes 4 [--cold]]

Without `--engines` a stand-in answers, which shows what we add; with it the real engine of a state
folder, and the model in its `models/` (by default the embedded one of `demo --keep`). An engine by
itself is started by procsup and asked as soon as its port accepts a connection, which is looked for
every 2 ms. Both are asked in turns, so that what else the machine does meets them alike. Prints
where the time goes, by itself and through the gateway for a tier at rest, how long after the
port's first connection the waiting request got its first token, and the processor time, which
depends less on what else runs.

`--gigabytes` makes a model with so much random weight from that one's tokenizer, in a temporary
folder that needs as much room on the disk. `--cold` drops its files from the page cache before each
start.
"""

import argparse
import array
import http.client
import json
import math
import os
import random
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from script import run_script

from mlx_procsup import read_pid, start_service, stop_service
from mlx_procsup.usage import measure_usage
from mlx_stack.credentials import read_gateway_key
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.assembly import tier_service
from mlx_stack.services.engine_door import asker
from mlx_stack.services.service import GATEWAY
from mlx_stack.stack import Stack, Tier, load_stack, save_stack
from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.program import Program

MOST_ADDED_S = 0.3
_LOOK_EVERY_S = 0.002
_WITHIN_S = 300


@dataclass(frozen=True, slots=True)
class Start:
    """One start, in seconds from the beginning."""

    spawned: float
    listens: float
    first_token: float
    cpu: float
    """Seconds of processor time until then, of the engine and of the gateway."""


def main() -> int:
    """Measure, print, and exit with 1 where we add more than we may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=Path, metavar="HOME")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--gigabytes", type=float)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = Program(Home(Path(folder) / "home"), {})
        define_stack(program.home, {"rare": {}}, fields={"rare": {"lazy": True}})
        if options.engines is None:
            install_fake_engines(program.home)
        else:
            program.home.engines.symlink_to(options.engines.absolute() / "engines")
            model = options.engines.absolute() / "models" / options.model
            if options.gigabytes is not None:
                model = make_random(model, program.home.models / "random", options.gigabytes)
            use_model(program.home, model)
        imports_s = import_time(program.home) if options.engines else 0.0
        bare, through = list[Start](), list[Start]()
        try:
            program.run("up")
            for _ in range(options.rounds + 1):
                for ask, starts in ((ask_bare, bare), (ask_through, through)):
                    program.run("down", "--tier", "rare")
                    program.run("up")
                    if options.cold:
                        forget(load_stack(program.home.stack).tiers[0])
                    starts.append(ask(program))
        finally:
            program.run("down")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, medians of {options.rounds}")
    show("by itself", bare[1:], imports_s)
    show("through the gateway", through[1:], imports_s)
    pairs = list(zip(bare[1:], through[1:], strict=True))
    added_s = statistics.median(whole.first_token - alone.first_token for alone, whole in pairs)
    cpu_s = statistics.median(whole.cpu - alone.cpu for alone, whole in pairs)
    print(
        f"of each pair, the median: {added_s:+.2f} s, limit +{MOST_ADDED_S:g}; "
        f"processor time {cpu_s:+.2f} s"
    )
    return 0 if added_s <= MOST_ADDED_S else 1


def show(what: str, starts: list[Start], imports_s: float) -> None:
    """Print the medians."""
    spawned, listens, first, cpu = (
        statistics.median(getattr(each, name) for each in starts)
        for name in ("spawned", "listens", "first_token", "cpu")
    )
    waited = statistics.median(each.first_token - each.listens for each in starts)
    print(
        f"{what}: first token after {first:.2f} s: spawn {spawned:.2f}, import {imports_s:.2f}, "
        f"load {listens - spawned - imports_s:.2f}, first token {waited * 1000:.0f} ms; "
        f"{cpu:.2f} s of processor time"
    )


def make_random(like: Path, folder: Path, gigabytes: float) -> Path:
    """A Llama of two layers with random weights, and with the tokenizer of another model."""
    folder.mkdir(parents=True)
    for path in like.iterdir():
        if path.suffix != ".safetensors" and path.name != "config.json" and path.is_file():
            shutil.copy(path, folder)
    config = json.loads((like / "config.json").read_text(encoding="utf-8"))
    for name in ("quantization", "quantization_config", "head_dim"):
        config.pop(name, None)
    words, hidden, layers = int(config["vocab_size"]), 2048, 2
    rest = gigabytes * 1e9 / 4 - words * hidden - layers * 4 * hidden * hidden
    wide = int(rest / (layers * 3 * hidden)) // 64 * 64
    config |= {
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shapes = {"model.embed_tokens.weight": [words, hidden], "model.norm.weight": [hidden]}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.self_attn.{name}_proj.weight": [hidden, hidden] for name in "qkvo"}
        shapes |= {f"{at}.mlp.{name}_proj.weight": [wide, hidden] for name in ("gate", "up")}
        shapes[f"{at}.mlp.down_proj.weight"] = [hidden, wide]
        shapes |= {
            f"{at}.{name}_layernorm.weight": [hidden] for name in ("input", "post_attention")
        }
    write_random(folder / "model.safetensors", shapes)
    return folder


def write_random(path: Path, shapes: dict[str, list[int]]) -> None:
    """Weights of these shapes, in 32 bits between -0.03 and 0.03: repeated noise is as heavy."""
    header, end = dict[str, object](), 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    noise = array.array("f", (random.uniform(-0.03, 0.03) for _ in range(1_000_003))).tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        while end > 0:
            file.write(noise[:end])
            end -= len(noise)
        file.flush()
        os.fsync(file.fileno())


def forget(tier: Tier) -> None:
    """Drop a tier's weights from the page cache."""
    for path in Path(tier.source).glob("*.safetensors"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def use_model(home: Home, model: Path) -> None:
    """Let the tier serve a real model."""
    stack: Stack = load_stack(home.stack)
    tier = msgspec.structs.replace(
        stack.tiers[0], model=model.name, source=str(model), quant=None, context_tokens=2048
    )
    save_stack(home.stack, msgspec.structs.replace(stack, tiers=(tier,)))


def import_time(home: Home) -> float:
    """How long the engine's Python takes until its program is imported."""
    python = tier_service(OpenStack(home), load_stack(home.stack).tiers[0]).spec.command[0]
    command = (python, "-I", "-c", "import vllm_mlx.cli, vllm_mlx.server")
    seconds: list[float] = []
    for _ in range(2):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    return seconds[-1]


def ask_bare(program: Program) -> Start:
    """Start the engine alone, ask it, and stop it."""
    home = program.home
    tier = load_stack(home.stack).tiers[0]
    spec = tier_service(OpenStack(home), tier).spec
    began = time.perf_counter()
    start_service(spec, home.state_dirs)
    spawned = time.perf_counter() - began
    wait_until_listening(tier.port)
    listens = time.perf_counter() - began
    proof = asker(home.state_dirs, tier.name)("POST", "/v1/chat/completions").headers
    first_token(f"127.0.0.1:{tier.port}", tier.model, dict(proof))
    first = time.perf_counter() - began
    cpu = processor_time(home, tier.name)
    stop_service(tier.name, home.state_dirs, wanted=None)
    return Start(spawned, listens, first, cpu)


def ask_through(program: Program) -> Start:
    """Ask the gateway for the tier, which is at rest."""
    home, tier = program.home, load_stack(program.home.stack).tiers[0]
    url = urlsplit(program.run("env", "--json").document["env"]["OPENAI_BASE_URL"])
    headers = {"Authorization": f"Bearer {read_gateway_key(home)}"}
    seen: list[float] = []

    def watch() -> None:
        while not home.state_dirs.pid_file(tier.name).exists():
            time.sleep(_LOOK_EVERY_S)
        seen.append(time.perf_counter())
        wait_until_listening(tier.port)
        seen.append(time.perf_counter())

    watching = threading.Thread(target=watch)
    watching.start()
    before = processor_time(home, GATEWAY)
    began = time.perf_counter()
    first_token(url.netloc, tier.name, headers)
    first = time.perf_counter()
    cpu = processor_time(home, tier.name) + processor_time(home, GATEWAY) - before
    watching.join()
    return Start(seen[0] - began, seen[1] - began, first - began, cpu)


def processor_time(home: Home, service: str) -> float:
    """Seconds of processor time that a service has used."""
    usage = measure_usage(read_pid(home.state_dirs, service) or 0, time.time())
    return 0.0 if usage is None else usage.cpu_s


def wait_until_listening(port: int) -> None:
    """Return as soon as something accepts a connection there."""
    ends = time.monotonic() + _WITHIN_S
    while time.monotonic() < ends:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(_LOOK_EVERY_S)
    raise TimeoutError(f"nothing listens on port {port}")


def first_token(address: str, model: str, headers: dict[str, str]) -> None:
    """Ask for a streamed answer and return with its first content."""
    connection = http.client.HTTPConnection(address, timeout=_WITHIN_S)
    body = {
        "model": model,
        "stream": True,
        "max_tokens": 2,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    kind = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {**headers, **kind})
    response = connection.getresponse()
    if response.status != http.client.OK:
        raise RuntimeError(response.read().decode()[:500])
    for line in response:
        if b'"content":' in line and b'"content":""' not in line and b'"content":null' not in line:
            break
    connection.close()


if __name__ == "__main__":
    run_script(main)
