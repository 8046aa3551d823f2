"""What goes wrong with engines, as a user is told."""

from collections.abc import Sequence
from typing import Literal

from mlx_stack import exit_codes
from mlx_stack.errors import MissingError, StackError

type Reason = Literal[
    "registry-unreachable", "hash-mismatch", "disk-full", "no-wheel", "killed", "failed"
]


class EngineInstallError(StackError):
    """An environment could not be made; nothing of it is left that could be taken for whole.

    Attributes:
        reason: What kind of trouble it was.
        output: The end of what uv wrote.
    """

    type = "engine-install"

    def __init__(self, message: str, *, reason: Reason, output: str, hint: str | None) -> None:
        super().__init__(message, hint=hint)
        self.reason: Reason = reason
        self.output = output


class UnsupportedPlatformError(EngineInstallError):
    """The packages exist, and none of them for this machine or this Python."""

    type = "unsupported-platform"
    exit_code = exit_codes.MISSING


class EngineMissingError(MissingError):
    """An engine that the command needs is not installed.

    Attributes:
        engine: Its name.
    """

    type = "engine-missing"

    def __init__(self, engine: str) -> None:
        super().__init__(
            f"{engine} is not installed.", hint="Install it with `mlx-stack engines install`."
        )
        self.engine = engine


class EngineInUseError(StackError):
    """Services run from an environment that was to be made anew.

    Attributes:
        services: Their names.
    """

    type = "engine-in-use"

    def __init__(self, services: Sequence[str]) -> None:
        names = " and ".join(services)
        verb = "runs" if len(services) == 1 else "run"
        super().__init__(
            f"{names} {verb} from what was to be installed anew.",
            hint="`mlx-stack down` first; `mlx-stack up` afterwards.",
        )
        self.services = tuple(services)


class EngineUnhealthyError(StackError):
    """A new version of an engine gave no answer, or a wrong one; the old one stays in use.

    Attributes:
        engines: What was tried, with versions.
        log: The end of what it wrote, or "".
    """

    type = "engine-unhealthy"

    def __init__(self, engines: str, problem: str, *, log: str = "") -> None:
        lines = "".join(f"\n    {line}" for line in log.splitlines())
        super().__init__(
            f"{engines} was installed but not put to use: {problem}{lines}",
            hint="What was in use before still is. `mlx-stack engines prune` removes the new one.",
        )
        self.engines = engines
        self.log = log


class EmbeddedModelError(StackError):
    """The embedded model could not be made from its package.

    Attributes:
        output: The end of what the conversion wrote.
    """

    type = "embedded-model"

    def __init__(self, message: str, *, output: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.output = output
