"""One model on two machines with a cable between them: namespaces, a real sshd, real engines."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlx_procsup.testing import eventually
from mlx_stack.engines.environment import EngineName, Environment
from mlx_stack.engines.install import install
from mlx_stack.engines.uv_process import own_toolchain
from mlx_stack.home import Home
from mlx_stack.stack import Host
from stack_testkit.program import Finished
from stack_testkit.several_macs import define_tiers, make_other_mac
from stack_testkit.ssh_server import SSHD, SshServer, ssh_server

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(900)]

WITHIN_S = 240
ADDRESSES = ("10.79.0.1", "10.79.0.2")
ASK = """
import json, sys, urllib.request
url, key, tokens = sys.argv[1:]
body = {
    "model": "pair", "max_tokens": int(tokens), "temperature": 0, "stream": True,
    "messages": [{"role": "user", "content": "Tell me a story."}],
    "logit_bias": {"0": -100, "2": -100},
}
headers = {"Authorization": "Bearer " + key}
request = urllib.request.Request(url + "/chat/completions", json.dumps(body).encode(), headers)
with urllib.request.urlopen(request, timeout=600) as answer:
    for line in answer:
        if line.startswith(b"data: "):
            print(line.decode().strip(), flush=True)
"""


def ip(*arguments: str, is_checked: bool = True) -> int:
    done = subprocess.run(("ip", *arguments), capture_output=True, check=False, timeout=60)
    assert not is_checked or done.returncode == 0, done.stderr
    return done.returncode


@dataclass(frozen=True)
class Mini:
    """The Mac that the model is started from.

    Attributes:
        networks: Of it and of the studio, with the device of the cable in each.
    """

    home: Home
    networks: tuple[tuple[str, str], tuple[str, str]]
    variables: dict[str, str]

    def command(self, *words: str) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.networks[0][0], *words)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.variables, "MLX_STACK_HOME": str(self.home.root)}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words), env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, *arguments: str) -> Finished:
        program = str(Path(sys.executable).with_name("mlx-stack"))
        done = subprocess.run(
            self.command(program, *arguments), env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=WITHIN_S,
        )  # fmt: skip
        return Finished(done.returncode, done.stdout, done.stderr)

    def ask(self, tokens: int) -> subprocess.Popen[str]:
        """A request whose answer comes piece by piece."""
        env = self.run("env", "--json").document["env"]
        url, key = env["OPENAI_BASE_URL"], env["OPENAI_API_KEY"]
        return self.start(sys.executable, "-c", ASK, url, key, str(tokens))

    def row(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = self.run("status", "--json").document["services"]
        return next(row for row in rows if row["name"] == "pair")

    def pull_cable_for(self, seconds: float) -> None:
        network, device = self.networks[0]
        ip("-n", network, "link", "set", device, "down")
        time.sleep(seconds)  # that is what is tested
        ip("-n", network, "link", "set", device, "up")


@pytest.fixture(scope="module")
def mini(vllm_mlx_environment: Environment, tiny_model: Path, tmp_path_factory) -> Iterator[Mini]:
    """A tier on two Macs, up, with a gateway and a watchdog."""
    if shutil.which("ip") is None or ip("netns", "add", f"t{os.getpid()}", is_checked=False):
        pytest.skip("network namespaces can't be made here (iproute2, as root)")
    ip("netns", "del", f"t{os.getpid()}")
    if SSHD is None:
        pytest.skip("there is no sshd here (openssh-server)")
    root = tmp_path_factory.mktemp("cable")
    names = [f"{name}{os.getpid()}" for name in ("m", "s")]
    networks = tuple((f"net-{name}", f"v-{name}") for name in names)
    try:
        for network, _ in networks:
            ip("netns", "add", network)
        (mini, own), (studio, far) = networks
        ip("link", "add", own, "netns", mini, "type", "veth", "peer", "name", far, "netns", studio)
        for (network, device), address in zip(networks, ADDRESSES, strict=True):
            ip("-n", network, "addr", "add", f"{address}/24", "dev", device)
            ip("-n", network, "link", "set", "lo", "up")
            ip("-n", network, "link", "set", device, "up")
        inside = ("ip", "netns", "exec", studio)
        with ssh_server(root / "ssh", address=ADDRESSES[1], inside=inside) as server:
            yield from started(root, server, networks, (vllm_mlx_environment, tiny_model))
    finally:
        for network, _ in networks:
            ip("netns", "del", network, is_checked=False)


def started(
    root: Path, server: SshServer, networks: Any, given: tuple[Environment, Path]
) -> Iterator[Mini]:
    vllm_mlx, model = given
    home, far = Home(root / "mini"), root / "studio"
    home.create()
    home.engines.mkdir()
    (home.engines / "vllm-mlx").symlink_to(vllm_mlx.path.parent)
    install(EngineName.MLX_LM, home.engines, own_toolchain())
    make_other_mac(far, home, model)
    define_tiers(home, model, {"pair": (Host(host="studio", home=str(far)),)})
    mini = Mini(home, networks, server.variables)
    for more in ((), ("--tier", "pair")):
        up = mini.run("up", *more, "--timeout", "200", "--json")
        assert up.code == 0, up.out + up.err
    program = str(Path(sys.executable).with_name("mlx-stack"))
    watching = mini.start(
        *(program, "watch", "--interval", "2", "--restart-delay", "1", "--max-restarts", "100")
    )
    try:
        yield mini
    finally:
        watching.terminate()
        watching.communicate(timeout=WITHIN_S)
        mini.run("down")


def test_an_answer_is_finished_after_its_cable_was_out_for_four_seconds(mini: Mini) -> None:
    pid = mini.row()["pid"]
    asked = mini.ask(200)
    assert asked.stdout is not None
    first = asked.stdout.readline()
    pulling = threading.Thread(target=mini.pull_cable_for, args=(4,))
    pulling.start()
    rest, _ = asked.communicate(timeout=WITHIN_S)
    pulling.join()
    assert has_all_tokens(first + rest), rest[-300:]
    assert mini.row()["pid"] == pid


def test_a_group_comes_back_by_itself_after_its_cable_was_out_for_half_a_minute(
    mini: Mini,
) -> None:
    pid = mini.row()["pid"]
    asked = mini.ask(4000)
    assert asked.stdout is not None
    asked.stdout.readline()
    mini.pull_cable_for(30)
    asked.communicate(timeout=WITHIN_S)

    def is_back() -> bool:
        row = mini.row()
        return row["state"] == "healthy" and row["pid"] != pid

    assert eventually(is_back, within_s=WITHIN_S), mini.run("logs", "pair", "--tail", "60").out
    whole, _ = mini.ask(8).communicate(timeout=WITHIN_S)
    assert whole.rstrip().endswith("[DONE]"), whole


def has_all_tokens(stream: str) -> bool:
    """Whether a streamed answer ended because it had as many tokens as were asked for."""
    *events, end = (line.removeprefix("data: ") for line in stream.splitlines() if line)
    reasons = [each["finish_reason"] for event in events for each in json.loads(event)["choices"]]
    return end == "[DONE]" and reasons[-1] == "length"
