"""Where state lives, and that looking for it leaves no trace."""

from pathlib import Path

import pytest

from mlx_stack.config import load_config, save_values
from mlx_stack.home import HOME_VARIABLE, find_home


def test_the_variable_names_the_state_folder(mlx_stack_home: Path) -> None:
    assert find_home().root == mlx_stack_home


def test_reading_creates_nothing(clean_mlx_stack_home: Path) -> None:
    assert load_config(find_home()).litellm_port == 4000
    assert not clean_mlx_stack_home.exists()


def test_the_first_command_that_writes_makes_a_folder_for_its_owner_only(
    clean_mlx_stack_home: Path,
) -> None:
    home = find_home()
    save_values(home, {"litellm-port": 4100})
    assert clean_mlx_stack_home.stat().st_mode & 0o777 == 0o700
    assert home.config.stat().st_mode & 0o777 == 0o600


def test_without_the_variable_it_is_in_the_users_folder() -> None:
    assert find_home({}).root == Path.home() / ".mlx-stack"
    assert find_home({HOME_VARIABLE: ""}).root == Path.home() / ".mlx-stack"


def test_a_relative_folder_is_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_home({HOME_VARIABLE: "state"}).root == tmp_path / "state"
