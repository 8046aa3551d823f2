"""What a gateway tells an application that it carries, and what it expects of one."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol


class RequestPhase(StrEnum):
    """How far a request has come."""

    STARTING = "starting"
    """Its upstream is being started."""
    QUEUED = "queued"
    READING = "reading"
    """An upstream has it, and has sent nothing of the answer yet."""
    WRITING = "writing"


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """A request for a model that has not ended.

    Attributes:
        id: Tells it from every other that is on its way at the same time.
        key: Whose key it carried.
        model: The name that was asked for, as the settings have it.
        tier: The model that answers, or is asked now.
        protocol: The API, such as `chat/completions`.
        seconds: Since it came.
        queue_s: How long it waited for its turn.
        ttft_s: From the request to the first of the answer; None before that.
        writing_s: Since the first of the answer; None before that.
        received_bytes: The size of its body.
        sent_bytes: How long the answer is so far.
        events: How many events of a streamed answer have gone out: about one a token.
    """

    id: int
    key: str
    program: str
    model: str
    tier: str
    protocol: str
    phase: RequestPhase
    seconds: float
    queue_s: float
    ttft_s: float | None
    writing_s: float | None
    received_bytes: int
    sent_bytes: int
    events: int


class Reading(NamedTuple):
    """How far an engine has read a prompt, as it says itself.

    Attributes:
        prompt_tokens: The prompt's length; None where the engine doesn't say.
        progress: The share of it that was read, 0 to 1; the same.
    """

    prompt_tokens: int | None
    progress: float | None


class Line(NamedTuple):
    """How busy a model is."""

    running: int
    waiting: int


class Mounted(Protocol):
    """An ASGI application below a path of the gateway's."""

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one HTTP request."""
        ...

    def end(self) -> None:
        """End every answer that would never end by itself: the gateway is to stop."""
        ...
