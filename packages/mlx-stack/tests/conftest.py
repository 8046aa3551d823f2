"""State folders that keep every test away from the one of whoever runs it."""

from pathlib import Path

import pytest

from mlx_stack.paths import HOME_VARIABLE


@pytest.fixture
def clean_mlx_stack_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a state folder that doesn't exist yet; `MLX_STACK_HOME` names it."""
    root = tmp_path / "home"
    monkeypatch.setenv(HOME_VARIABLE, str(root))
    return root


@pytest.fixture
def mlx_stack_home(clean_mlx_stack_home: Path) -> Path:
    """An empty state folder; `MLX_STACK_HOME` names it."""
    clean_mlx_stack_home.mkdir(mode=0o700)
    return clean_mlx_stack_home
