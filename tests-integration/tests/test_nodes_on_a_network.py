"""Two real stacks on two machines: network namespaces with a cable between them."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlx_procsup.testing import eventually
from mlx_stack.home import Home
from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.program import Finished

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]

WITHIN_S = 120
ASK = """
import json, sys, urllib.request
url, key, words = sys.argv[1:]
body = {"model": "standard", "max_tokens": 5, "messages": [{"role": "user", "content": words}]}
headers = {"Authorization": "Bearer " + key}
request = urllib.request.Request(url + "/chat/completions", json.dumps(body).encode(), headers)
with urllib.request.urlopen(request, timeout=100) as answer:
    print(answer.status, answer.headers["x-mlx-stack-tier"])
    answer.read()
"""


def ip(*arguments: str, is_checked: bool = True) -> int:
    done = subprocess.run(("ip", *arguments), capture_output=True, check=False, timeout=WITHIN_S)
    assert not is_checked or done.returncode == 0, done.stderr
    return done.returncode


@dataclass(frozen=True)
class Mac:
    """A machine: a network, a host name, and a state folder."""

    name: str
    network: str
    device: str
    home: Home

    def inside(self, *command: str, stdin: str = "") -> Finished:
        named = ("unshare", "--uts", "sh", "-c", 'hostname "$1"; shift; exec "$@"', "-", self.name)
        done = subprocess.run(
            ("ip", "netns", "exec", self.network, *named, *command),
            env={**os.environ, "NO_COLOR": "1", "MLX_STACK_HOME": str(self.home.root)},
            input=stdin, capture_output=True, text=True, check=False, timeout=WITHIN_S,
        )  # fmt: skip
        return Finished(done.returncode, done.stdout, done.stderr)

    def run(self, *arguments: str, stdin: str = "") -> Finished:
        program = str(Path(sys.executable).with_name("mlx-stack"))
        return self.inside(program, *arguments, stdin=stdin)

    def ask(self, words: str) -> str:
        """The status of an answer and who gave it, or what went wrong."""
        env = self.run("env", "--json").document["env"]
        found = self.inside(
            sys.executable, "-c", ASK, env["OPENAI_BASE_URL"], env["OPENAI_API_KEY"], words
        )
        return found.out.strip() or found.err

    def cable(self, state: str) -> None:
        ip("-n", self.network, "link", "set", self.device, state)

    def kill(self, service: str) -> None:
        rows: list[dict[str, Any]] = self.run("status", "--json").document["services"]
        os.kill(next(row["pid"] for row in rows if row["name"] == service), signal.SIGKILL)


@pytest.fixture
def macs(tmp_path: Path) -> Iterator[tuple[Mac, Mac]]:
    """The mini, whose tier has a replica on the studio; the cable is in, neither is up."""
    if shutil.which("ip") is None or ip("netns", "add", f"t{os.getpid()}", is_checked=False):
        pytest.skip("network namespaces can't be made here (iproute2, as root)")
    ip("netns", "del", f"t{os.getpid()}")
    made = tuple(
        Mac(name, f"{name}{os.getpid()}", f"{name[0]}{os.getpid()}", Home(tmp_path / name))
        for name in ("mini", "studio")
    )
    mini, studio = made
    try:
        for mac in made:
            ip("netns", "add", mac.network)
        peer = ("peer", "name", studio.device, "netns", studio.network)
        ip("link", "add", mini.device, "netns", mini.network, "type", "veth", *peer)
        for number, mac in enumerate(made, 1):
            ip("-n", mac.network, "addr", "add", f"10.78.0.{number}/24", "dev", mac.device)
            ip("-n", mac.network, "link", "set", "lo", "up")
            mac.cable("up")
            install_fake_engines(mac.home)
        quiet = {"auto-health-check": False}
        define_stack(*(studio.home, {"standard": {}}), config={**quiet, "node-host": "10.78.0.2"})
        replica = {"replicas": [{"node": "studio", "tier": "standard"}]}
        define_stack(*(mini.home, {"standard": {}}), config=quiet, fields={"standard": replica})
        yield mini, studio
    finally:
        for mac in made:
            mac.run("down")
            ip("netns", "del", mac.network, is_checked=False)


def test_a_laptop_borrows_a_studio_that_it_discovers_and_loses(macs: tuple[Mac, Mac]) -> None:
    mini, studio = macs
    assert studio.run("up").code == 0

    def heard() -> list[dict[str, Any]]:
        return mini.run("nodes", "discover", "--json").document["found"]

    assert eventually(lambda: [each["name"] for each in heard()] == ["studio"], within_s=WITHIN_S)
    code = studio.run("nodes", "pair", "--json").document
    assert heard()[0]["fingerprint"] == code["fingerprint"]
    added = mini.run(
        *("nodes", "add", heard()[0]["host"], "--code", "--name", "studio"),
        stdin=f"{code['code']}\n",
    )
    assert added.code == 0, added.err
    assert mini.run("nodes", "check").code == 0
    assert heard()[0]["node"] == "studio"

    assert mini.run("up").code == 0
    mini.kill("standard")
    assert mini.ask("a question") == "200 standard@studio"

    assert mini.run("up").code == 0
    studio.cable("down")
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(mini.ask, map(str, range(8)))) == {"200 standard"}

    studio.cable("up")
    mini.kill("standard")
    assert eventually(lambda: mini.ask("again") == "200 standard@studio", within_s=WITHIN_S)


def test_no_request_is_lost_when_a_node_is_killed_under_load(macs: tuple[Mac, Mac]) -> None:
    mini, studio = macs
    assert studio.run("up").code == 0
    code = studio.run("nodes", "pair", "--json").document
    added = mini.run(
        *("nodes", "add", code["host"], "--code", "--name", "studio"), stdin=f"{code['code']}\n"
    )
    assert added.code == 0, added.err
    assert mini.run("up").code == 0
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(mini.ask, f"{n} " * 500) for n in range(18)]
        asked[3].result()
        for service in ("gateway", "standard"):
            studio.kill(service)
        answers = [each.result() for each in asked]
    assert {each.split()[0] for each in answers} == {"200"}, answers
