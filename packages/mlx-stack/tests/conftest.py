"""State folders that keep every test away from the one of whoever runs it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_hwprobe import parse_hardware_spec
from mlx_stack.home import HOME_VARIABLE, Home

type OnMac = Callable[[str], None]


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


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A state folder whose saved profile is a Mac with 64 GB."""
    home = Home(tmp_path / "home")
    home.create()
    save_profile(home, "m4-max:40:64")
    return home


@pytest.fixture
def on_mac(home: Home) -> OnMac:
    """Make the machine another one."""
    return lambda spec: save_profile(home, spec)


def save_profile(home: Home, spec: str) -> None:
    profile = parse_hardware_spec(spec)
    home.profile.write_text(json.dumps(profile.to_document()), encoding="utf-8")
