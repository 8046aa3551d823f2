"""What starts an upstream that is not running, when a request needs it."""

from dataclasses import dataclass
from typing import Protocol

from mlx_gateway.errors import ApiError
from mlx_gateway.fields import invalid
from mlx_gateway.keys import Priority
from mlx_gateway.settings import GatewaySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """How a model is that may be started and ended.

    Attributes:
        state: One of `at-rest`, `starting`, `up`, `ending`.
        for_s: How long it has been starting, or unused; None where it is neither.
        rests_in_s: When it is ended if no request comes; None where that isn't foreseen.
        waits_for: Those that have to make room in memory before it is started.
        problem: Why it could not be started when it was last tried; "" where it could.
    """

    state: str
    for_s: float | None = None
    rests_in_s: float | None = None
    waits_for: tuple[str, ...] = ()
    problem: str = ""


class Activator(Protocol):
    """Makes upstreams ready on demand."""

    def begin(self) -> None:
        """Begin to look after them; called once, in the gateway's event loop."""
        ...

    async def end(self) -> None:
        """Look after nothing any more; what is being started goes on by itself."""
        ...

    async def ready(self, model: str, priority: Priority) -> None:
        """Return when an upstream of `model` can take a request.

        Called before every request to the model, so that the usual case must be quick. Where
        several models have to be started, those for more urgent requests go first.

        Raises:
            ApiError: When it can't be made ready, and the client is to get this answer.
            UpstreamFailedError: When another model may answer instead.
        """
        ...

    def finished(self, model: str, keep_s: float | None = None) -> None:
        """Learn that a request has ended; called once for each time that `ready` has returned.

        Args:
            keep_s: For how long its client wants the model kept from now on; None doesn't say.
        """
        ...

    async def unload(self, model: str) -> None:
        """End what serves `model`, now or when it has answered the requests that it works on.

        Raises:
            ApiError: When it is not to be ended.
        """
        ...

    def is_at_rest(self, model: str) -> bool:
        """Whether a request to `model` would have to wait for a start."""
        ...

    def presence(self, model: str) -> Presence | None:
        """How `model` is; None where it is not for this to start."""
        ...

    def extended(self, settings: GatewaySettings) -> GatewaySettings:
        """The settings with every model that could be started besides, as known from last time."""
        ...

    def refusal(self, name: str) -> ApiError | None:
        """The answer to a request for a name that is known and can't be served; None where not."""
        ...

    async def look(self) -> bool:
        """Look again for what could be started; whether that is something else now.

        Called when a name is not known, when its model is at rest, and when the models are listed.
        """
        ...


class NothingToStart:
    """For upstreams that others keep running."""

    def begin(self) -> None:
        """Do nothing."""

    async def end(self) -> None:
        """Do nothing."""

    async def ready(self, model: str, priority: Priority) -> None:
        """Return at once."""

    def finished(self, model: str, keep_s: float | None = None) -> None:
        """Do nothing."""

    async def unload(self, model: str) -> None:
        """Refuse.

        Raises:
            ApiError: Always.
        """
        raise invalid(f"This gateway can't unload {model}.", param="keep_alive")

    def is_at_rest(self, model: str) -> bool:
        """Whether `model` has to start first: never."""
        del model
        return False

    def presence(self, model: str) -> Presence | None:
        """Nothing."""
        del model

    def extended(self, settings: GatewaySettings) -> GatewaySettings:
        """The settings as they are."""
        return settings

    def refusal(self, name: str) -> ApiError | None:
        """The answer to a request for a name that can't be served: none is known."""
        del name

    async def look(self) -> bool:
        """Find nothing."""
        return False
