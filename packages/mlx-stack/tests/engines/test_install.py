"""Installing an engine: whole or not there, whatever happens."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from mlx_stack.engines import environment as environments
from mlx_stack.engines.environment import EngineName, Environment
from mlx_stack.engines.errors import EngineInstallError, UnsupportedPlatformError
from mlx_stack.engines.install import InstallEvent, held, install, install_all
from mlx_stack.engines.uv_process import Interruption
from mlx_stack.engines.verify import verify

ENGINE = EngineName.VLLM_MLX


def install_from(wheelhouse, engines: Path, **options) -> Environment:
    toolchain = options.pop("toolchain", wheelhouse.toolchain)
    return install(ENGINE, engines, toolchain, lock=wheelhouse.lock, **options)


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_an_installed_engine_is_whole_in_use_and_runs_on_our_python(wheelhouse, engines):
    environment = install_from(wheelhouse, engines)
    assert environment.state == "ready"
    assert environment.version == "0.6.0"
    assert environments.current_environment(engines, ENGINE) == environment
    program = "import sys, vllm_mlx; print(sys.version_info[:2], vllm_mlx.VALUE)"
    answer = subprocess.check_output([environment.python, "-I", "-c", program], text=True)
    assert answer == f"{sys.version_info[:2]} 1\n"


def test_a_second_installation_does_nothing(wheelhouse, engines, tmp_path):
    first = install_from(wheelhouse, engines)
    no_uv = replace(wheelhouse.toolchain, uv=tmp_path / "absent")
    assert install_from(wheelhouse, engines, toolchain=no_uv) == first


def test_steps_are_reported_in_order(wheelhouse, engines):
    events: list[InstallEvent] = []
    install_from(wheelhouse, engines, on_event=events.append)
    assert [event.step for event in events] == ["creating", "installing", "installing", "ready"]
    assert events[-2].detail == "2 packages"


def test_a_package_that_is_not_the_released_one_is_refused(wheelhouse, engines):
    wheelhouse.add("altered", "1.0")
    wheelhouse.lines[-1] = f"    --hash=sha256:{'0' * 64}"
    with pytest.raises(
        EngineInstallError, match="differs from the one that mlx-stack was released"
    ) as info:
        install_from(wheelhouse, engines)
    assert info.value.reason == "hash-mismatch"
    assert environments.list_environments(engines, ENGINE) == ()


def test_a_registry_out_of_reach_is_named_as_such(wheelhouse, engines):
    toolchain = wheelhouse.toolchain
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(wheelhouse.folder),
        "UV_CACHE_DIR": str(wheelhouse.folder / "cache"),
        "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple",
        "UV_HTTP_RETRIES": "0",
    }
    with pytest.raises(EngineInstallError, match="registry can't be reached") as info:
        install_from(wheelhouse, engines, toolchain=replace(toolchain, variables=variables))
    assert info.value.reason == "registry-unreachable"
    assert info.value.hint
    assert environments.current_environment(engines, ENGINE) is None


def test_a_machine_without_builds_is_told_so(wheelhouse, engines):
    wheel = next(wheelhouse.folder.glob("some_dependency*"))
    wheel.rename(wheel.with_name("some_dependency-1.2-py3-none-macosx_99_0_arm64.whl"))
    with pytest.raises(UnsupportedPlatformError, match="no build for this machine"):
        install_from(wheelhouse, engines)


def test_a_failed_installation_leaves_the_engine_in_use_alone(wheelhouse, engines):
    before = install_from(wheelhouse, engines)
    wheelhouse.pin("never-published", "9.9", "0" * 64)
    with pytest.raises(EngineInstallError):
        install_from(wheelhouse, engines)
    assert environments.current_environment(engines, ENGINE) == before
    assert environments.list_environments(engines, ENGINE) == (before,)


def test_settings_of_pip_and_steering_settings_of_uv_change_nothing(wheelhouse, engines, tmp_path):
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("vllm-mlx<0.1\n")
    meddling = {
        "PIP_FIND_LINKS": str(tmp_path),
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "UV_CONSTRAINT": str(constraints),
        "UV_PYTHON": "3.8",
        "UV_EXCLUDE_NEWER": "2001-01-01",
        "VIRTUAL_ENV": str(tmp_path),
        "PYTHONPATH": str(tmp_path),
    }
    toolchain = wheelhouse.toolchain
    variables = {**toolchain.variables, **meddling}
    environment = install_from(
        wheelhouse, engines, toolchain=replace(toolchain, variables=variables)
    )
    assert verify(environment).ok


def test_a_uv_toml_of_the_user_or_above_the_engines_puts_packages_nowhere_else(
    wheelhouse, engines, tmp_path
):
    elsewhere = tmp_path / "elsewhere"
    settings = f'[pip]\ntarget = "{elsewhere}"\n'
    for folder in (tmp_path / "config" / "uv", engines.parent):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "uv.toml").write_text(settings)
    toolchain = wheelhouse.toolchain
    variables = {**toolchain.variables, "XDG_CONFIG_HOME": str(tmp_path / "config")}
    variables["UV_CONFIG_FILE"] = str(engines.parent / "uv.toml")
    environment = install_from(
        wheelhouse, engines, toolchain=replace(toolchain, variables=variables)
    )
    assert verify(environment).ok
    assert not elsewhere.exists()


def test_an_environment_without_the_packages_of_the_lock_gets_no_receipt(
    wheelhouse, engines, tmp_path
):
    uv = script(tmp_path / "uv", f'[ "$1" = pip ] || exec {wheelhouse.toolchain.uv} "$@"')
    with pytest.raises(EngineInstallError, match="package-missing"):
        install_from(wheelhouse, engines, toolchain=replace(wheelhouse.toolchain, uv=uv))
    assert environments.list_environments(engines, ENGINE) == ()


def test_an_interrupt_stops_uv_and_leaves_nothing(wheelhouse, engines, tmp_path):
    pid_file = tmp_path / "pid"
    uv = script(
        tmp_path / "uv",
        f'if [ "$1" = pip ]; then echo $$ > {pid_file}; echo "Downloading big (1.0GiB)" >&2; '
        f'exec sleep 60; else exec {wheelhouse.toolchain.uv} "$@"; fi',
    )

    def interrupt(event: InstallEvent) -> None:
        if event.step == "downloading":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        install_from(
            wheelhouse,
            engines,
            toolchain=replace(wheelhouse.toolchain, uv=uv),
            on_event=interrupt,
        )
    assert not psutil.pid_exists(int(pid_file.read_text()))
    assert environments.list_environments(engines, ENGINE) == ()


def test_uv_killed_from_outside_is_told_apart(wheelhouse, engines, tmp_path):
    uv = script(tmp_path / "uv", "kill -9 $$")
    with pytest.raises(EngineInstallError, match="uv was killed") as info:
        install_from(wheelhouse, engines, toolchain=replace(wheelhouse.toolchain, uv=uv))
    assert info.value.reason == "killed"


def test_an_installer_killed_midway_is_not_taken_for_done(wheelhouse, engines, tmp_path):
    uv = script(
        tmp_path / "uv",
        f'{wheelhouse.toolchain.uv} "$@" || exit; [ "$1" = pip ] && kill -9 $PPID; exit 0',
    )
    program = f"""
from pathlib import Path
from dataclasses import replace
from mlx_stack.engines.environment import EngineName, Lock
from mlx_stack.engines.install import install
from mlx_stack.engines.uv_process import Toolchain
variables = {dict(wheelhouse.toolchain.variables)!r}
toolchain = Toolchain(Path({str(uv)!r}), Path({sys.executable!r}), variables)
install(EngineName.VLLM_MLX, Path({str(engines)!r}), toolchain, lock=Lock({wheelhouse.lock.text!r}))
"""
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = environments.list_environments(engines, ENGINE)
    assert left.state == "incomplete"
    assert environments.current_environment(engines, ENGINE) is None
    assert install_from(wheelhouse, engines).state == "ready"


def test_of_two_installations_at_once_one_installs_and_the_other_waits(wheelhouse, engines):
    events: list[InstallEvent] = []
    results: list[Environment] = []

    def run() -> None:
        results.append(install_from(wheelhouse, engines, on_event=events.append))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert results[0] == results[1]
    assert results[0].state == "ready"
    assert [event.step for event in events].count("creating") == 1


def test_reinstalling_repairs_a_changed_file_even_where_the_cache_shares_it(wheelhouse, engines):
    environment = install_from(wheelhouse, engines)
    assert environment.site_packages is not None
    module = environment.site_packages / "vllm_mlx" / "__init__.py"
    with module.open("a") as file:
        file.write("VALUE = 2\n")
    assert not verify(environment).ok
    repaired = install_from(wheelhouse, engines, reinstall=True)
    assert repaired == environment
    assert verify(repaired).ok


def test_an_environment_whose_python_is_gone_is_made_again(wheelhouse, engines):
    environment = install_from(wheelhouse, engines)
    environment.python.unlink()
    assert environment.state == "broken"
    assert environments.current_environment(engines, ENGINE) is None
    assert install_from(wheelhouse, engines).state == "ready"


def test_an_installation_in_another_thread_is_stopped(wheelhouse, engines, tmp_path):
    pid_file = tmp_path / "pid"
    uv = script(
        tmp_path / "uv",
        f'if [ "$1" = pip ]; then echo $$ > {pid_file}; echo "Downloading big (1.0GiB)" >&2; '
        f'exec sleep 60; else exec {wheelhouse.toolchain.uv} "$@"; fi',
    )
    toolchain = replace(wheelhouse.toolchain, uv=uv)
    failures: list[EngineInstallError] = []
    downloading = threading.Event()

    def run() -> None:
        try:
            install_from(wheelhouse, engines, toolchain=toolchain, on_event=watch)
        except EngineInstallError as error:
            failures.append(error)

    def watch(event: InstallEvent) -> None:
        if event.step == "downloading":
            downloading.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert downloading.wait(30)
    toolchain.interruption.stop()
    thread.join(30)
    assert [failure.reason for failure in failures] == ["killed"]
    assert not psutil.pid_exists(int(pid_file.read_text()))
    assert environments.list_environments(engines, ENGINE) == ()


def test_who_waits_for_another_installation_can_be_interrupted(wheelhouse, engines):
    toolchain = wheelhouse.toolchain
    waiting: list[InstallEvent] = []

    def watch(event: InstallEvent) -> None:
        waiting.append(event)
        toolchain.interruption.stop()

    with (
        held(engines, ENGINE, Interruption()),
        pytest.raises(EngineInstallError, match="interrupted while another installation ran"),
    ):
        install_from(wheelhouse, engines, toolchain=toolchain, on_event=watch)
    assert [event.step for event in waiting] == ["waiting"]


def test_nothing_begins_once_the_installation_was_stopped(wheelhouse, engines):
    toolchain = wheelhouse.toolchain
    toolchain.interruption.stop_and_wait()

    with pytest.raises(EngineInstallError, match="interrupted before it began"):
        install_all(engines, toolchain, only=(ENGINE,), locks=lambda _: wheelhouse.lock)
    assert not engines.exists()


def test_stopping_waits_for_who_is_at_work() -> None:
    interruption = Interruption()
    order: list[str] = []
    begun = threading.Event()

    def work() -> None:
        with interruption.working("it"):
            begun.set()
            interruption.wanted.wait(30)
            order.append("worked")

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait(30)
    interruption.stop_and_wait()
    order.append("stopped")
    thread.join(30)
    assert order == ["worked", "stopped"]
