"""What the tests share: folders, specs of the stand-in server, and a sweep afterwards."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlx_procsup import HttpReadiness, ProcessSpec, StateDirs, stop_service
from mlx_procsup.testing import free_port, web_server_command

SpecMaker = Callable[..., ProcessSpec]


@pytest.fixture
def dirs(tmp_path: Path) -> Iterator[StateDirs]:
    made = StateDirs(pids=tmp_path / "pids", run=tmp_path / "run", logs=tmp_path / "logs")
    yield made
    for name in made.names():
        stop_service(name, made, grace_s=0.0)


@pytest.fixture
def web(tmp_path: Path) -> SpecMaker:
    """Makes the spec of a stand-in web server; keyword arguments as `web_server_command`."""

    def make(
        name: str = "web", port: int = 0, path: str = "/health", **options: Any
    ) -> ProcessSpec:
        port = port or free_port()
        return ProcessSpec(
            name=name,
            command=web_server_command(port, **options),
            env={"PATH": os.defpath},
            cwd=tmp_path,
            readiness=HttpReadiness(f"http://127.0.0.1:{port}{path}"),
        )

    return make
