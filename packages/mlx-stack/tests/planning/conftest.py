"""A state folder that believes itself on a Mac."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_hwprobe import parse_hardware_spec
from mlx_stack.paths import Home

type OnMac = Callable[[str], None]


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
    home.profile.write_text(json.dumps(profile.to_json()), encoding="utf-8")
