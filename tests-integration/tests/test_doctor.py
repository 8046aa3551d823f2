"""`doctor`: what it finds, what it puts right, and what it tells a bug report."""

import json
import os
import shutil
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlx_stack.credentials import ensure_gateway_key
from mlx_stack.engines.environment import (
    EngineName,
    current_environment,
    environment_for,
    shipped_lock,
    use_environment,
)
from stack_testkit.fake_mac import FakeMac
from stack_testkit.home import define_stack
from stack_testkit.program import Program

pytestmark = pytest.mark.story


@pytest.fixture
def offline(served: Program) -> Program:
    """A program that asks no Hub, so that nothing here depends on a network."""
    return served.with_variables(HF_HUB_OFFLINE="1")


def _findings(program: Program, *options: str) -> dict[str, list[Any]]:
    rows: dict[str, list[Any]] = {}
    for row in program.run("doctor", "--json", *options).document["findings"]:
        rows.setdefault(row["check"], []).append(row)
    return rows


def test_a_file_that_others_can_read_is_found_and_put_right(offline: Program) -> None:
    define_stack(offline.home, {"standard": {}})
    offline.home.config.chmod(0o644)

    found = _findings(offline)["mode"][0]
    assert found["severity"] == "problem"
    assert str(offline.home.config) in found["message"]
    assert found["can_fix"]

    fixed = offline.run("doctor", "--fix", "--json").document
    assert fixed["fixed"] == ["mode"]
    (row,) = [row for row in fixed["findings"] if row["check"] == "mode"]
    assert row["message"] == f"{offline.home.config} has mode 0600 now."
    assert offline.home.config.stat().st_mode & 0o777 == 0o600
    assert "mode" not in _findings(offline)


def test_a_crashed_and_a_hanging_tier_come_first_as_problems(offline: Program) -> None:
    define_stack(offline.home, {"standard": {}, "fast": {}})
    assert offline.run("up").code == 0
    crashed, hangs = (
        int((offline.home.pids / f"{name}.pid").read_text()) for name in ("standard", "fast")
    )
    os.kill(crashed, signal.SIGKILL)
    os.kill(hangs, signal.SIGSTOP)

    done = offline.run("doctor", "--json")

    os.kill(hangs, signal.SIGCONT)
    first, second = done.document["findings"][:2]
    assert done.code == 1
    assert (first["message"], first["severity"]) == ("standard has crashed.", "problem")
    assert "Last log line:" in first["reason"]
    assert "`mlx-stack logs standard`" in first["fix"]
    assert (second["message"], second["severity"]) == ("fast doesn't answer.", "problem")


def test_what_is_well_is_counted_and_listed_on_request(offline: Program) -> None:
    define_stack(offline.home, {"standard": {}})

    done = offline.run("doctor")

    assert "✓" not in done.out
    assert "checks found nothing wrong" in done.err
    assert "✓" in offline.run("doctor", "-v").out


def test_a_taken_port_names_who_has_it(offline: Program) -> None:
    stack = define_stack(offline.home, {"standard": {}})
    offline.run("up")
    other = Program(offline.home, offline.variables)
    pid = int((other.home.pids / "standard.pid").read_text())
    (other.home.pids / "standard.pid").unlink()
    (other.home.run / "standard.json").unlink()

    found = _findings(other)["port"][0]

    os.killpg(pid, signal.SIGKILL)
    assert str(stack.tiers[0].port) in found["message"]
    assert str(pid) in found["message"]


def test_what_a_crash_left_is_removed_and_nothing_else(offline: Program) -> None:
    define_stack(offline.home, {"standard": {}, "fast": {}})
    offline.run("up")
    os.killpg(int((offline.home.pids / "standard.pid").read_text()), signal.SIGKILL)

    fixed = offline.run("doctor", "--fix", "--json").document

    assert fixed["fixed"] == ["stale-pid"]
    assert not (offline.home.pids / "standard.pid").exists()
    states = {
        row["name"]: row["state"] for row in offline.run("status", "--json").document["services"]
    }
    assert states["standard"] == "stopped"
    assert states["fast"] == "healthy"


def test_a_damaged_stack_file_is_one_problem_among_the_others(offline: Program) -> None:
    define_stack(offline.home, {"standard": {}})
    offline.home.stack.write_text("tiers: [")

    done = offline.run("doctor", "--json")

    assert done.code == 1
    rows = {row["check"]: row for row in done.document["findings"]}
    assert f"{offline.home.stack}, line" in rows["stack-file"]["message"]
    assert "chip" in rows


def test_the_bundle_names_neither_the_key_nor_the_user(offline: Program, tmp_path: Path) -> None:
    define_stack(offline.home, {"standard": {}}, config={"openrouter-key": "sk-or-very-secret-key"})
    key = ensure_gateway_key(offline.home)
    offline.home.logs.mkdir(parents=True)
    (offline.home.logs / "standard.log").write_text(f"Bearer {key} from {Path.home()}/x\n")
    bundle = tmp_path / "bundle.json"

    offline.run("doctor", "--bundle", str(bundle))

    text = bundle.read_text()
    assert key not in text
    assert "sk-or-very-secret-key" not in text
    assert str(Path.home()) not in text
    assert bundle.stat().st_mode & 0o777 == 0o600
    assert json.loads(text)["logs"]["standard"]


def test_what_a_damaged_file_says_of_keys_is_not_in_the_bundle(
    offline: Program, tmp_path: Path
) -> None:
    define_stack(offline.home, {"standard": {}})
    key = "sk-or-v1-0123456789abcdef"
    offline.home.config.write_text(f"openrouter-key: {key}\nlitellm-port: {key}\n")
    offline.home.credentials.write_text(f'{{"gateway_key": "{key}",')
    offline.home.logs.mkdir(parents=True)
    (offline.home.logs / "standard.log").write_text(f"asked OpenRouter with {key}\n")
    bundle = tmp_path / "bundle.json"
    token = "a-token-without-any-usual-shape"

    program = offline.with_variables(HF_TOKEN=token)
    (offline.home.logs / "fast.log").write_text(f"asked the Hub with {token}\n")
    program.run("doctor", "--bundle", str(bundle))

    text = bundle.read_text()
    assert key not in text
    assert token not in text


def test_one_damaged_file_is_reported_once_though_many_checks_read_it(offline: Program) -> None:
    define_stack(offline.home, {"standard": {}})
    offline.home.config.write_text("litellm-port: [")

    rows = offline.run("doctor", "--json").document["findings"]

    about_it = [row["check"] for row in rows if str(offline.home.config) in row["message"]]
    assert about_it == ["config-file"]


def test_a_damaged_profile_and_a_wrong_catalog_entry_are_found(offline: Program) -> None:
    offline.home.catalog.mkdir(parents=True)
    offline.home.profile.write_text("{")
    (offline.home.catalog / "mine.yaml").write_text("id: 3")

    bundle = offline.home.root / "bundle.json"
    found = _findings(offline, "--bundle", str(bundle))

    assert "not JSON" in json.loads(bundle.read_text())["hardware"]["error"]
    assert "`mlx-stack profile`" in found["profile-file"][0]["fix"]
    assert "mine.yaml" in found["catalog"][0]["message"]
    assert {row["severity"] for row in found["profile-file"] + found["catalog"]} == {"problem"}


def test_advice_is_whole_in_a_pipe(offline: Program) -> None:
    define_stack(offline.home, {"standard": {}}, config={"gateway-host": "0.0.0.0"})

    assert "permission under Privacy & Security > Local Network." in offline.run("doctor").out


def test_an_engine_whose_packages_are_gone_is_a_problem(offline: Program) -> None:
    engines = offline.home.engines
    fake = current_environment(engines, EngineName.LITELLM)
    pinned = environment_for(engines, EngineName.LITELLM, shipped_lock(EngineName.LITELLM))
    assert fake is not None
    use_environment(engines, replace(fake, path=fake.path.rename(pinned.path)))

    [found] = [row for row in _findings(offline)["engine"] if "litellm" in row["message"]]

    assert found["severity"] == "problem"
    assert "`mlx-stack doctor --fix` reinstalls it" in found["fix"]


def test_old_engine_installations_are_counted_and_removed(offline: Program) -> None:
    fake = current_environment(offline.home.engines, EngineName.VLLM_MLX)
    assert fake is not None
    copies = [fake.path.with_name(f"0.{minor}.0-fake0001") for minor in (1, 2, 3)]
    for copy in copies:
        shutil.copytree(fake.path, copy, symlinks=True)
    use_environment(offline.home.engines, replace(fake, path=copies[0]))

    found = _findings(offline)["old-engines"][0]
    assert found["message"].startswith("2 old engine installations: ")
    assert found["can_fix"]

    assert "old-engines" in offline.run("doctor", "--fix", "--json").document["fixed"]
    assert [copy.exists() for copy in copies] == [True, False, False]
    assert fake.path.exists()  # for `mlx-stack engines rollback`
    assert "old-engines" not in _findings(offline)


def test_a_new_user_is_told_what_to_do_first(program: Program) -> None:
    done = program.with_variables(HF_HUB_OFFLINE="1").run("doctor")

    assert done.code == 1
    assert "`mlx-stack doctor --fix` installs it" in done.out
    assert "mlx-stack setup" in done.out
    assert not program.home.root.exists()


def test_a_hub_out_of_reach_and_a_missing_token_are_reported_with_what_to_do(
    served: Program,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unserved:
        port = unserved.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    found = _findings(served.with_variables(HF_ENDPOINT=endpoint, HF_TOKEN=""))

    assert found["hub"][0]["severity"] == "warning"
    assert endpoint in found["hub"][0]["message"]
    assert found["hub"][0]["fix"]
    assert "hub-token" in found


def test_on_a_mac_it_says_that_nothing_would_come_back_after_a_reboot(
    offline: Program, tmp_path: Path
) -> None:
    mac = FakeMac.make(tmp_path / "mac")
    path = mac.environment()["PATH"]
    found = _findings(offline.with_variables(PATH=path))

    assert found["launchd"][0]["fix"] == "mlx-stack install"
    assert {"boot-autorestart", "boot-sleep"} <= found.keys()


def test_conversations_on_disk_are_shown_and_go_with_the_tier_that_kept_them(
    offline: Program,
) -> None:
    home = offline.home
    define_stack(home, {"standard": {}, "fast": {}}, fields={"standard": {"ssd_cache_gb": 1}})
    for tier in ("standard", "fast"):
        folder = home.kept_prompts / tier
        folder.mkdir(parents=True)
        (folder / f"{'a' * 64}.safetensors").write_bytes(bytes(1000))

    listed = offline.run("models", "--json").document["kept_prompts"]
    assert [(row["tier"], row["conversations"], row["size_bytes"]) for row in listed] == [
        ("fast", 1, 1000),
        ("standard", 1, 1000),
    ]
    assert "The tier standard keeps 1 conversation on disk" in offline.run("models").out

    fixed = offline.run("doctor", "--fix", "--json").document
    assert fixed["fixed"] == ["kept-prompts"]
    assert [path.name for path in home.kept_prompts.iterdir()] == ["standard"]

    assert offline.run("init", "--remove", "standard").code == 0
    assert not list(home.kept_prompts.iterdir())
