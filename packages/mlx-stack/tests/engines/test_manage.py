"""`engines install`, `upgrade`, `rollback` and `prune`, on real uv."""

import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mlx_stack.engines import environment as environments
from mlx_stack.engines.environment import EngineName
from mlx_stack.engines.errors import EngineInstallError, EngineUnhealthyError
from mlx_stack.engines.manage import (
    EnginePair,
    HealthReport,
    SwitchedEngines,
    install_engines,
    list_engines,
    prune_engines,
    rollback_engines,
    upgrade_engines,
    verify_engines,
)
from mlx_stack.errors import StackError
from mlx_stack.home import Home

ANSWERED = HealthReport("some-model", "What?", "That.", 0.1)


class Stage:
    """A home, and a wheelhouse whose lock is what the present release ships."""

    def __init__(self, home: Home, wheelhouse) -> None:
        self.home = home
        self.house = wheelhouse
        self.tried: list[EnginePair] = []

    def install(self, **options):
        return install_engines(self.home, self.house.toolchain, locks=self._lock, **options)

    def release(self) -> None:
        """A new release of mlx-stack: its locks name one package more."""
        self.house.add(f"newly-needed-{len(self.house.lines)}", "1.0")

    def upgrade(
        self, check: Callable[[EnginePair], HealthReport] | None = None, **options
    ) -> SwitchedEngines:
        return upgrade_engines(
            self.home, self.house.toolchain, check or self.check, locks=self._lock, **options
        )

    def check(self, pair: EnginePair) -> HealthReport:
        self.tried.append(pair)
        return ANSWERED

    def states(self) -> dict[str, str]:
        return {row.name: row.state for row in list_engines(self.home, locks=self._lock).engines}

    def roles(self, engine: EngineName = EngineName.VLLM_MLX) -> list[str]:
        rows = {row.name: row for row in list_engines(self.home, locks=self._lock).engines}
        return sorted(row.role for row in rows[engine].environments)

    def prune(self, **options):
        return prune_engines(self.home, self.house.toolchain, **options)

    def in_use(self, engine: EngineName = EngineName.VLLM_MLX) -> Path:
        return environments.require_environment(self.home.engines, engine).path

    def _lock(self, _: EngineName):
        return self.house.lock


@pytest.fixture
def bare(tmp_path, wheelhouse) -> Stage:
    """A stage on which nothing is installed."""
    wheelhouse.add("litellm", "1.0")
    return Stage(Home(tmp_path / "home"), wheelhouse)


@pytest.fixture(scope="module")
def template(tmp_path_factory, make_wheelhouse) -> Stage:
    """Both engines installed, once; no test touches it."""
    folder = tmp_path_factory.mktemp("template")
    house = make_wheelhouse(folder / "wheels")
    house.add("litellm", "1.0")
    stage = Stage(Home(folder / "home"), house)
    stage.install()
    return stage


@pytest.fixture
def stage(tmp_path, template) -> Stage:
    """A stage on which both engines are installed."""
    home, wheels = Home(tmp_path / "home"), tmp_path / "wheels"
    shutil.copytree(template.home.root, home.root, symlinks=True)
    shutil.copytree(template.house.folder, wheels, symlinks=True)
    return Stage(home, replace(template.house, folder=wheels, lines=[*template.house.lines]))


def test_the_first_installation_makes_the_home_for_its_owner_only(bare):
    assert bare.states() == {"vllm-mlx": "missing", "litellm": "missing"}
    done = bare.install()
    assert [each.outcome for each in done.engines] == ["installed", "installed"]
    assert stat.S_IMODE(bare.home.root.stat().st_mode) == 0o700
    assert bare.states() == {"vllm-mlx": "ready", "litellm": "ready"}
    assert [each.outcome for each in bare.install().engines] == ["already-installed"] * 2


def test_one_engine_can_be_installed_alone(bare):
    bare.install(only=[EngineName.LITELLM])
    assert bare.states() == {"vllm-mlx": "missing", "litellm": "ready"}


def test_reinstalling_repairs_what_verify_finds(stage):
    (stage.in_use() / "lib" / "planted").touch()
    module = next(stage.in_use().glob("lib/python3*/site-packages/vllm_mlx/__init__.py"))
    module.unlink()
    assert [each.ok for each in verify_engines(stage.home).engines] == [False, True]
    done = stage.install(reinstall=True, only=[EngineName.VLLM_MLX])
    assert [each.outcome for each in done.engines] == ["repaired"]
    assert [each.ok for each in verify_engines(stage.home).engines] == [True, True]


def test_an_upgrade_tries_the_new_beside_the_old_and_then_switches(stage):
    old = stage.in_use()
    stage.release()
    assert stage.states()["vllm-mlx"] == "outdated"
    used_while_tried: list[Path] = []

    def check(pair: EnginePair) -> HealthReport:
        used_while_tried.append(stage.in_use())
        return stage.check(pair)

    done = stage.upgrade(check)
    assert used_while_tried == [old]
    assert stage.in_use() != old
    assert stage.tried[0].vllm_mlx is not None
    assert stage.tried[0].vllm_mlx.path == stage.in_use()
    assert done.health == ANSWERED
    assert all(switch.changed for switch in done.switches)
    assert stage.states() == {"vllm-mlx": "ready", "litellm": "ready"}
    assert stage.roles() == ["in-use", "previous"]


def test_an_upgrade_of_one_engine_tries_it_with_the_other_that_is_in_use(stage):
    stage.release()
    stage.upgrade(only=[EngineName.LITELLM])
    (pair,) = stage.tried
    assert pair.vllm_mlx is not None
    assert pair.vllm_mlx.path == stage.in_use(EngineName.VLLM_MLX)
    assert stage.states() == {"vllm-mlx": "outdated", "litellm": "ready"}


def test_an_upgrade_of_what_is_current_tries_nothing(stage):
    done = stage.upgrade()
    assert stage.tried == []
    assert done.health is None
    assert not any(switch.changed for switch in done.switches)


def test_a_new_version_that_doesn_t_answer_is_not_put_to_use(stage):
    old = stage.in_use()
    stage.release()

    def refuse(_: EnginePair) -> HealthReport:
        raise EngineUnhealthyError("vllm-mlx 0.7", "it said nothing")

    with pytest.raises(EngineUnhealthyError, match="it said nothing"):
        stage.upgrade(refuse)
    assert stage.in_use() == old
    assert stage.roles() == ["in-use", "unused"]


def test_a_new_version_that_can_t_be_installed_leaves_the_old_in_use(stage):
    old = stage.in_use()
    stage.house.pin("never-published", "9.9", "0" * 64)
    with pytest.raises(EngineInstallError):
        stage.upgrade()
    assert stage.in_use() == old
    assert stage.tried == []


def test_a_rollback_goes_back_and_another_forth(stage):
    old = stage.in_use()
    stage.release()
    stage.upgrade()
    new = stage.in_use()
    done = rollback_engines(stage.home)
    assert [switch.name for switch in done.switches] == ["vllm-mlx", "litellm"]
    assert stage.in_use() == old
    rollback_engines(stage.home, only=[EngineName.VLLM_MLX])
    assert stage.in_use() == new
    assert environments.require_environment(stage.home.engines, EngineName.LITELLM).path != new


def test_an_installation_after_a_rollback_says_that_another_version_is_in_use(stage):
    stage.release()
    stage.upgrade()
    rollback_engines(stage.home)
    assert [each.is_in_use for each in stage.install().engines] == [False, False]


def test_without_an_earlier_version_there_is_nothing_to_go_back_to(stage):
    with pytest.raises(StackError, match="no version of vllm-mlx or litellm to go back to"):
        rollback_engines(stage.home)


def test_pruning_keeps_what_is_in_use_and_what_rollback_needs(stage):
    for _ in range(2):
        stage.release()
        stage.upgrade()
    assert stage.roles() == ["in-use", "previous", "unused"]
    removed = stage.prune().removed
    assert [row.role for row in removed] == ["unused", "unused"]
    assert all(row.disk_bytes > 0 and not row.path.exists() for row in removed)
    assert stage.roles() == ["in-use", "previous"]
    assert [row.role for row in stage.prune(previous=True).removed] == ["previous", "previous"]
    assert stage.roles() == ["in-use"]
    with pytest.raises(StackError):
        rollback_engines(stage.home)
    assert stage.prune().removed == ()


def test_pruning_removes_an_installation_that_was_cut_off(stage):
    shutil.copytree(
        stage.in_use(), stage.in_use().with_name("0.6.0-deadbeef"), symlinks=True
    ).joinpath(environments.MARKER).unlink()
    (row,) = stage.prune().removed
    assert row.state == "incomplete"


def test_where_nothing_is_installed_pruning_makes_nothing(bare):
    assert bare.prune().removed == ()
    assert not bare.home.root.exists()
