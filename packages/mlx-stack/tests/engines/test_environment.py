"""Which environment is in use."""

import pytest

from mlx_stack import exit_codes
from mlx_stack.engines import environment as environments
from mlx_stack.engines.environment import EngineName, environment_for, shipped_lock
from mlx_stack.engines.errors import EngineMissingError
from mlx_stack.engines.install import install

ENGINE = EngineName.VLLM_MLX


def test_nothing_is_in_use_and_nothing_is_made_where_nothing_was_installed(engines):
    assert environments.list_environments(engines, ENGINE) == ()
    assert environments.current_environment(engines, ENGINE) is None
    with pytest.raises(EngineMissingError, match="vllm-mlx is not installed") as info:
        environments.require_environment(engines, ENGINE)
    assert info.value.exit_code == exit_codes.MISSING
    assert info.value.hint
    assert not engines.exists()


def test_a_new_version_is_installed_beside_the_old_and_used_only_after_the_switch(
    wheelhouse, engines
):
    old = install(ENGINE, engines, wheelhouse.toolchain, lock=wheelhouse.lock)
    wheelhouse.add("newly-needed", "3.0")
    new = install(ENGINE, engines, wheelhouse.toolchain, lock=wheelhouse.lock)
    assert new.path != old.path
    assert environments.current_environment(engines, ENGINE) == old
    environments.use_environment(engines, new)
    assert environments.current_environment(engines, ENGINE) == new
    assert environments.previous_environment(engines, ENGINE) == old
    assert set(environments.list_environments(engines, ENGINE)) == {old, new}


def test_the_folder_s_name_tells_the_version_and_the_lock(engines):
    lock = shipped_lock(ENGINE)
    environment = environment_for(engines, ENGINE, lock)
    assert environment.path == engines / "vllm-mlx" / f"0.6.0-{lock.digest[:8]}"
    assert environment.version == "0.6.0"


def test_disk_use_counts_what_is_there(wheelhouse, engines):
    environment = install(ENGINE, engines, wheelhouse.toolchain, lock=wheelhouse.lock)
    before = environment.disk_bytes()
    (environment.path / "more").write_bytes(b"x" * 1_000_000)
    assert 1_000_000 <= environment.disk_bytes() - before < 1_100_000
