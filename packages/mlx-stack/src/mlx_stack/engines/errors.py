"""What goes wrong with engines, as the user sees it."""

from collections.abc import Sequence
from typing import Literal

from mlx_stack import exit_codes
from mlx_stack.errors import MissingError, StackError

type InstallFailure = Literal[
    "registry-unreachable",
    "untrusted-certificate",
    "hash-mismatch",
    "disk-full",
    "no-wheel",
    "killed",
    "failed",
]


class EngineInstallError(StackError):
    """An environment could not be created; nothing unfinished is left in its place."""

    type = "engine-install"

    def __init__(self, message: str, *, reason: InstallFailure, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason: InstallFailure = reason


class UnsupportedPlatformError(EngineInstallError):
    """The packages exist, but not for this machine or this Python."""

    type = "unsupported-platform"
    exit_code = exit_codes.MISSING


class EngineMissingError(MissingError):
    """An engine that the command needs is not installed."""

    type = "engine-missing"

    def __init__(self, engine: str) -> None:
        # `doctor` looks at the tiers only, and a model without one may need mlx-lm
        cure = "engines install mlx-lm" if engine == "mlx-lm" else "doctor --fix"
        super().__init__(f"{engine} is not installed.", hint=f"Install it with `mlx-stack {cure}`.")


class EngineInUseError(StackError):
    """Services are running from the environment that should be reinstalled."""

    type = "engine-in-use"

    def __init__(self, services: Sequence[str]) -> None:
        verb = "runs" if len(services) == 1 else "run"
        super().__init__(
            f"{' and '.join(services)} {verb} from the engine to be reinstalled.",
            hint="`mlx-stack down` first; `mlx-stack up` afterwards.",
        )


class EngineUnhealthyError(StackError):
    """A new engine version gave a wrong answer or none; the old version stays in use."""

    type = "engine-unhealthy"

    def __init__(self, engines: str, problem: str, *, log: str = "") -> None:
        self.problem = problem
        lines = "".join(f"\n    {line}" for line in log.splitlines())
        super().__init__(
            f"{engines} was installed but isn't used: {problem}{lines}",
            hint="The previous version is still in use; `mlx-stack doctor --fix` removes the new.",
        )


class EngineWorseError(StackError):
    """With a new engine version, a tier performs worse; the old version stays in use."""

    type = "engine-worse"

    def __init__(self, figures: Sequence[str]) -> None:
        lines = "".join(f"\n    {figure}" for figure in figures)
        super().__init__(
            f"The new version was installed but isn't used, because it performs worse:{lines}",
            hint="`mlx-stack engines upgrade --force` switches anyway.",
        )


class EmbeddedModelError(StackError):
    """The small built-in model (SmolLM2 135M) could not be built from its package."""

    type = "embedded-model"
