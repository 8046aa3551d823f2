"""What can end a pull, each with the step that helps."""

import shlex
from collections.abc import Sequence

from mlx_stack.errors import StackError


class PullError(StackError):
    """The model could not be fetched; what was downloaded is kept."""

    type = "pull-failed"


class ModelNotFoundError(PullError):
    """There is no such model, or your account can't see it."""

    type = "model-not-found"


class GatedModelError(PullError):
    """The model's licence must be accepted first, or a token is missing."""

    type = "gated-model"


class HubRefusedError(PullError):
    """The Hub, or a proxy in front of it, refuses the request; a licence isn't the reason."""

    type = "hub-refused"


class HubUnreachableError(PullError):
    """The Hub isn't reachable."""

    type = "hub-unreachable"


class OfflineError(PullError):
    """Offline mode is on, and the model isn't on this disk."""

    type = "offline"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"{why}, and HF_HUB_OFFLINE is set.",
            hint="Unset HF_HUB_OFFLINE and pull again.",
        )


class WrongContentError(PullError):
    """A file's size or hash differs from the Hub's."""

    type = "wrong-content"


class ModelWorseError(PullError):
    """With a newer revision of its model, a tier performs worse; the old revision is kept."""

    type = "model-worse"

    def __init__(self, repo: str, figures: Sequence[str], name: str) -> None:
        lines = "".join(f"\n    {figure}" for figure in figures)
        super().__init__(
            f"The newer revision of {repo} was downloaded but isn't used, because it performs "
            f"worse:{lines}",
            hint=f"`mlx-stack pull {shlex.quote(name)} --force` uses it anyway.",
        )


class DiskSpaceError(PullError):
    """The disk has no room for the model."""

    type = "disk-full"


class ConversionError(PullError):
    """mlx-lm could not convert the weights; the attempt was deleted."""

    type = "conversion-failed"


class ModelInUseError(StackError):
    """A tier of the stack serves this model."""

    type = "model-in-use"


class ModelTooLargeError(StackError):
    """The model needs more memory than the GPU may use."""

    type = "model-too-large"


class ModelCodeError(StackError):
    """The model comes with its own Python code, which the user didn't allow."""

    type = "model-code"

    def __init__(self, place: str, field: str, repo: str | None) -> None:
        super().__init__(
            f"{place} asks to run Python that comes with the model: `{field}`.",
            hint="Read that Python first. If you trust it, allow it for this model: "
            f"`mlx-stack pull --allow-code {repo or 'OWNER/NAME'}`. "
            "Any change to its files revokes that.",
        )


class TransientError(Exception):
    """Something that may go better next time; it never leaves the store.

    Attributes:
        retry_after_s: When the server wants to be asked again, where it said so.
        is_throttled: Whether the server asked for less, so that fewer connections may help.
    """

    def __init__(
        self, reason: str, *, retry_after_s: float | None = None, is_throttled: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.is_throttled = is_throttled
