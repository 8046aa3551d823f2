"""The installed program on a Mac of stand-ins: install, crash, restart, power cut, uninstall.

Everything is a real process: `launchctl` and its launchd, the watchdog, the engines.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlx_stack.home import Home
from stack_testkit.fake_mac import FakeMac
from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.program import Finished, Program

pytestmark = pytest.mark.story

DEADLINE_S = 40.0


def wait_until[T](look: Callable[[], T | None], *, deadline_s: float = DEADLINE_S) -> T:
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    pytest.fail(f"not seen within {deadline_s:g} s")


class Mac:
    """Alice's Mac, and `mlx-stack` on it."""

    def __init__(self, folder: Path) -> None:
        self.fake = FakeMac.make(folder / "mac", throttle_scale=0.1)
        self.user_home = folder / "alice"
        self.home = Home(self.user_home / ".mlx-stack")
        self.program = Program(
            self.home,
            {
                "HOME": str(self.user_home),
                "PATH": self.fake.environment()["PATH"],
                "NO_COLOR": "1",
                "COLUMNS": "100",
            },
        )
        install_fake_engines(self.home)
        define_stack(self.home, {"standard": {}}, config={"keep-awake": "always"})

    @property
    def agents(self) -> Path:
        return self.user_home / "Library" / "LaunchAgents"

    def run(self, *arguments: str) -> Finished:
        return self.program.run(*arguments)

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = self.run("install", "--status", "--json").document
        return document

    def pid(self, name: str) -> int | None:
        try:
            return int((self.home.pids / f"{name}.pid").read_text())
        except FileNotFoundError:
            return None


@pytest.fixture
def mac(tmp_path: Path) -> Iterator[Mac]:
    mac = Mac(tmp_path)
    yield mac
    mac.fake.turn_off()
    mac.program.stop_all()


def test_installed_once_the_stack_survives_crashes_and_a_power_cut_until_uninstalled(
    mac: Mac,
) -> None:
    installed = mac.run("install", "--json")
    assert installed.code == 0, installed.err
    document = installed.document
    assert (document["schema_version"], document["outcome"]) == (1, "installed")
    watchdog = document["pid"]
    assert psutil.Process(watchdog).cmdline()[1:] == ["-P", "-m", "mlx_stack", "watch", "--up"]
    engine = wait_until(lambda: mac.pid("standard"))
    wait_until(mac.fake.is_kept_awake)
    wait_until(lambda: mac.run("status").code == 0)
    awake = mac.run("status", "--json").document["keep_awake"]
    assert awake == {"policy": "always", "held": True, "supported": True}

    again = mac.run("install")
    assert again.code == 0
    assert again.out.startswith("Up to date: the watchdog starts at login")

    os.kill(watchdog, signal.SIGKILL)
    restarted = wait_until(lambda: (s := mac.status())["pid"] not in (None, watchdog) and s)
    assert (restarted["runs"], restarted["last_terminating_signal"]) == (2, 9)
    assert mac.pid("standard") == engine, "a crash of the watchdog leaves the services alone"

    mac.fake.turn_off()
    os.kill(engine, signal.SIGKILL)
    mac.fake.launchd.power_cut()
    assert mac.status()["loaded"] is False
    mac.fake.log_in(mac.agents)
    wait_until(lambda: mac.pid("standard") not in (None, engine))
    wait_until(lambda: mac.run("status").code == 0)

    running = mac.pid("standard")
    removed = mac.run("uninstall", "--json")
    assert removed.code == 0, removed.err
    assert removed.document == {
        "schema_version": 1,
        "outcome": "uninstalled",
        "removed": ["agent"],
    }
    assert mac.status()["installed"] is False
    assert not list(mac.agents.iterdir())
    wait_until(lambda: not mac.fake.is_kept_awake())
    assert mac.pid("standard") == running
    assert psutil.pid_exists(running or 0)
    assert mac.run("uninstall").out == "The watchdog was not installed.\n"
    told = mac.run("uninstall", "--status", "--json")
    assert (told.code, told.document["installed"]) == (0, False)


def test_the_status_tells_a_person_what_to_change(mac: Mac) -> None:
    mac.fake.change(filevault=True, autorestart=0, sleep=10)
    answer = mac.run("install", "--status")
    assert answer.code == 0
    assert "not installed" in answer.out
    assert "does not come back by itself" in answer.out
    for words in ("FileVault is on", "sudo pmset -a autorestart 1", "sudo pmset -a sleep 0"):
        assert words in answer.out


def test_a_daemon_without_a_password_says_which_steps_need_root_and_how_to_get_one(
    mac: Mac,
) -> None:
    mac.fake.change(sudo=False)
    refused = mac.run("install", "--system", "--json")
    assert refused.code == 1
    assert "sudo /bin/launchctl bootstrap system /Library/LaunchDaemons/" in refused.err
    assert "ssh -t" in refused.document["error"]["hint"]


def test_on_linux_it_says_what_it_would_do_and_what_to_do_instead(program: Program) -> None:
    for words in (("install",), ("uninstall",), ("uninstall", "--system")):
        answer = program.run(*words, "--json")
        assert answer.code == 5
        assert "launchd" in answer.document["error"]["message"]
        assert "systemd" in answer.document["error"]["hint"]
    assert not program.home.root.exists()
