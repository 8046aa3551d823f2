"""Where state lives: the only reader of `MLX_STACK_HOME`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlx_procsup import StateDirs

HOME_VARIABLE = "MLX_STACK_HOME"
_DIRECTORY_MODE = 0o700


@dataclass(frozen=True, slots=True)
class Home:
    """The state folder and the places in it. Making one creates nothing on disk.

    Attributes:
        root: The state folder, absolute.
    """

    root: Path

    @property
    def profile(self) -> Path:
        """The detected hardware profile."""
        return self.root / "profile.json"

    @property
    def config(self) -> Path:
        """The configuration; mode 0600, since it can hold an API key."""
        return self.root / "config.yaml"

    @property
    def credentials(self) -> Path:
        """The gateway's generated key; mode 0600."""
        return self.root / "credentials.json"

    @property
    def connections(self) -> Path:
        """What `connect` wrote into other programs' files."""
        return self.root / "connections.json"

    @property
    def stack(self) -> Path:
        """The stack definition."""
        return self.root / "stacks" / "default.yaml"

    @property
    def gateway_settings(self) -> Path:
        """The gateway's generated settings."""
        return self.root / "gateway.yaml"

    @property
    def litellm_config(self) -> Path:
        """LiteLLM's generated configuration."""
        return self.root / "litellm.yaml"

    @property
    def models(self) -> Path:
        """The default folder of downloaded models; the `model-dir` key may name another."""
        return self.root / "models"

    @property
    def engines(self) -> Path:
        """The isolated environments of vllm-mlx and LiteLLM."""
        return self.root / "engines"

    @property
    def pids(self) -> Path:
        """One PID file a service."""
        return self.root / "pids"

    @property
    def run(self) -> Path:
        """What the PID files can't say, one JSON file a service."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """Service logs and their archives."""
        return self.root / "logs"

    @property
    def state_dirs(self) -> "StateDirs":
        """Where the services' PID files, run files and logs are."""
        from mlx_procsup import StateDirs

        return StateDirs(pids=self.pids, run=self.run, logs=self.logs)

    @property
    def benchmarks(self) -> Path:
        """Saved benchmark results."""
        return self.root / "benchmarks"

    @property
    def catalog(self) -> Path:
        """The user's own catalog entries."""
        return self.root / "catalog"

    @property
    def setup_progress(self) -> Path:
        """How far an interrupted `setup` came."""
        return self.root / "setup.json"

    @property
    def lock(self) -> Path:
        """Held by operations that change running services."""
        return self.root / "lock"

    def create(self) -> None:
        """Make the state folder, readable by its owner only, where it doesn't exist."""
        self.root.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)


def find_home(environment: Mapping[str, str] = os.environ) -> Home:
    """The state folder that the environment names, by default `~/.mlx-stack`."""
    named = environment.get(HOME_VARIABLE, "")
    root = Path(named).expanduser() if named else Path.home() / ".mlx-stack"
    return Home(root.absolute())
