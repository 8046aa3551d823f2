"""Which engine serves a tier: it follows from what the tier's model is for, or the tier says it.

A further engine is a module with these two functions, and a row here.
"""

from pathlib import Path
from typing import Protocol

from mlx_stack.engines import mlx_lm, mlx_vlm, mlx_vlm_start, vllm_mlx
from mlx_stack.engines.environment import (
    EngineName,
    Environment,
    current_environment,
    require_environment,
)
from mlx_stack.engines.vllm_mlx import Serving
from mlx_stack.stack import Tier


class RoleEngine(Protocol):
    """A program that serves one model behind the guard.

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


def engine_of(tier: Tier) -> RoleEngine:
    """The engine that serves `tier`."""
    if tier.is_on_mlx_lm:
        return mlx_lm
    return vllm_mlx if tier.role.chats else mlx_vlm


def environment_name(tier: Tier) -> EngineName:
    """Whose environment that engine stands in."""
    return EngineName.MLX_LM if tier.is_on_mlx_lm else EngineName.VLLM_MLX


def program_of(tier: Tier, engines: Path) -> tuple[str, str | None] | None:
    """The program that serves `tier` with the environment in use, and its version.

    None where there is no such environment.
    """
    environment = current_environment(engines, environment_name(tier))
    if environment is None:
        return None
    if engine_of(tier) is mlx_vlm:
        return mlx_vlm_start.PROGRAM, environment.version_of(mlx_vlm_start.PROGRAM)
    return environment.engine.value, environment.version


def environment_of(tier: Tier, engines: Path) -> Environment:
    """The environment in use that the engine of `tier` stands in.

    Raises:
        EngineMissingError: When there is none that works.
    """
    return require_environment(engines, environment_name(tier))
