"""`mlx-stack engines` of the installed program, on stand-in engines."""

import os
import shutil
import signal
import socket
from pathlib import Path

import psutil
import pytest

from mlx_stack.engines import environment as environments
from mlx_stack.engines.environment import EngineName, Environment, shipped_lock
from mlx_stack.engines.errors import EngineUnhealthyError
from mlx_stack.engines.manage import EnginePair
from mlx_stack.engines.uv_process import own_toolchain
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.engine_health import check_health
from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.program import Program

pytestmark = pytest.mark.story

PLENTY_BYTES = 2**40


def used(program: Program, engine: EngineName = EngineName.VLLM_MLX) -> Environment:
    return environments.require_environment(program.home.engines, engine)


def install_beside(program: Program, name: str = "0.0.1-fake0001") -> Environment:
    """A copy of the stand-in vllm-mlx, put to use; the one before it is kept for rollback."""
    old = used(program)
    new = Environment(EngineName.VLLM_MLX, old.path.with_name(name))
    shutil.copytree(old.path, new.path, symlinks=True)
    environments.use_environment(program.home.engines, new)
    return new


def test_without_engines_the_list_says_how_to_install_them(program: Program) -> None:
    done = program.run("engines", "list")
    assert done.code == 0
    assert "not installed" in done.out
    assert "mlx-stack doctor --fix" in done.out
    assert not program.home.root.exists()


def test_the_list_tells_what_is_in_use_and_the_disk_it_takes(served: Program) -> None:
    install_beside(served)

    document = served.run("engines", "list", "--json").document

    rows = {row["name"]: row for row in document["engines"]}
    assert rows["vllm-mlx"]["state"] == "outdated"
    assert rows["vllm-mlx"]["shipped_version"] == shipped_lock(EngineName.VLLM_MLX).version_of(
        "vllm-mlx"
    )
    roles = {row["version"]: row["role"] for row in rows["vllm-mlx"]["environments"]}
    assert roles == {"0.0.1": "in-use", "0.0.0": "previous"}
    assert all(row["disk_bytes"] > 0 for row in rows["vllm-mlx"]["environments"])
    assert document["free_disk_bytes"] > 0


def test_verify_exits_with_1_and_names_what_differs_and_the_repair(served: Program) -> None:
    done = served.run("engines", "verify")
    assert done.code == 1
    assert "lock" in done.out
    assert "`mlx-stack doctor --fix` reinstalls it" in done.out
    assert served.run("engines", "verify", "--json").document["engines"][0]["ok"] is False


def test_verify_without_engines_exits_with_5(program: Program) -> None:
    done = program.run("engines", "verify", "--json")
    assert done.code == 5
    assert done.document["error"]["type"] == "engine-missing"


def test_a_rollback_names_the_services_that_still_run_the_other_version(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    install_beside(served)
    assert served.run("up").code == 0

    back = served.run("engines", "rollback", "--json")

    assert back.code == 0
    assert back.document["engines"] == [
        {"name": "vllm-mlx", "before": "0.0.1", "after": "0.0.0", "changed": True}
    ]
    assert back.document["restart"] == ["standard"]
    outcomes = served.run("up", "--json").document["services"]
    assert {row["name"]: row["outcome"] for row in outcomes} == {
        "standard": "started",
        "gateway": "already-running",
    }
    assert served.run("engines", "rollback", "--json").document["restart"] == ["standard"]


def test_pruning_keeps_what_a_service_still_runs_from(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    assert served.run("up").code == 0
    running_from = used(served)
    install_beside(served)

    kept = served.run("engines", "prune", "--previous", "--json").document
    assert kept == {"schema_version": 1, "removed": [], "kept_for_services": ["standard"]}
    assert running_from.state == "ready"

    served.run("down")
    removed = served.run("engines", "prune", "--previous", "--json").document["removed"]
    assert [row["path"] for row in removed] == [str(running_from.path)]


def test_what_services_run_from_is_not_reinstalled_under_them(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    shipped = environments.environment_for(
        served.home.engines, EngineName.VLLM_MLX, shipped_lock(EngineName.VLLM_MLX)
    )
    install_beside(served, shipped.path.name)
    assert served.run("up").code == 0

    refused = served.run("engines", "install", "vllm-mlx", "--reinstall", "--json")

    assert refused.code == 1
    assert refused.document["error"]["type"] == "engine-in-use"
    assert "mlx-stack down" in refused.document["error"]["hint"]
    assert shipped.state == "ready"


def test_a_registry_out_of_reach_is_named_and_nothing_is_left(program: Program) -> None:
    variables = {
        "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple",
        "UV_CACHE_DIR": str(program.home.root.parent / "cache"),
        "UV_HTTP_RETRIES": "0",
    }
    offline = program.with_variables(**variables)

    done = offline.run("engines", "install", "--json")

    assert done.code == 1
    assert "registry can't be reached" in done.document["error"]["message"]
    assert {
        row["state"] for row in offline.run("engines", "list", "--json").document["engines"]
    } == {"missing"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_installation_stops_at_once_and_leaves_nothing(
    program: Program, number: signal.Signals, code: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent_registry:
        silent_registry.settimeout(60)
        variables = {
            "UV_DEFAULT_INDEX": f"http://127.0.0.1:{silent_registry.getsockname()[1]}/simple",
            "UV_CACHE_DIR": str(program.home.root.parent / "cache"),
        }
        process = program.with_variables(**variables).start("engines", "install")
        connection, _ = silent_registry.accept()
        with connection:
            process.send_signal(number)
            process.communicate(timeout=30)

    assert process.returncode == code
    assert not _processes_of(program.home.root)
    assert not any(
        environments.list_environments(program.home.engines, engine) for engine in EngineName
    )


def test_a_mistyped_command_is_answered_with_the_nearest_name(program: Program) -> None:
    done = program.run("engines", "rolback")
    assert done.code == 2
    assert "rollback" in done.err


def pair_of(program: Program) -> EnginePair:
    return EnginePair(used(program), used(program, EngineName.LITELLM))


def test_the_health_check_asks_the_smallest_model_of_the_stack_through_the_gateway(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {}, "fast": {}})

    report = check_health(
        OpenStack(served.home), pair_of(served), own_toolchain(), available_bytes=PLENTY_BYTES
    )

    assert report.model in ("standard-model", "fast-model")
    assert report.answer.startswith("You said:")
    assert {path.name for path in served.home.engines.iterdir()} == {"vllm-mlx", "litellm"}


def test_an_engine_that_dies_fails_the_health_check_and_leaves_nothing(program: Program) -> None:
    install_fake_engines(program.home, engine_options=("--exit-after", "0.1", "--ready-after", "9"))
    define_stack(program.home, {"standard": {}})

    with pytest.raises(EngineUnhealthyError, match="was installed but isn't used") as info:
        check_health(
            OpenStack(program.home), pair_of(program), own_toolchain(), available_bytes=PLENTY_BYTES
        )

    assert "exiting with 3" in info.value.message
    assert not list(program.home.engines.glob(".health*"))
    assert not _processes_of(program.home.root)


def _processes_of(root: Path) -> list[str]:
    """The command lines that name something below `root`."""
    lines = [
        " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
    ]
    return [line for line in lines if str(root) + os.sep in line]
