"""Which engine serves a tier: it follows from what the tier's model is for.

A further engine is a module with these two functions, and a row here.
"""

from pathlib import Path
from typing import Protocol

from mlx_catalog import ModelRole
from mlx_stack.engines import mlx_vlm, vllm_mlx
from mlx_stack.engines.vllm_mlx import Serving
from mlx_stack.stack import Tier


class RoleEngine(Protocol):
    """A program in vllm-mlx's environment that serves one model of a role behind the guard.

    It answers `GET /v1/models` once the model is loaded; what proves that it does its work is
    asked of every engine alike (`services.proof`), and the guard counts what passes where the
    program itself says nothing of its work.
    """

    def environment(self, hf_home: Path) -> dict[str, str]:
        """What it needs in its environment."""
        ...

    def command(
        self, start: tuple[str, ...], tier: Tier, model_folder: Path, serving: Serving
    ) -> tuple[str, ...]:
        """The command line that serves `tier` on loopback."""
        ...


def engine_of(role: ModelRole) -> RoleEngine:
    """The engine that serves models of that role."""
    return vllm_mlx if role.chats else mlx_vlm
