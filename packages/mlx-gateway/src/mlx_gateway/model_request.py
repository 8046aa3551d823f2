"""A request for a model, on its way through the gateway."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from mlx_gateway.fields import Fields
from mlx_gateway.in_flight import InFlight, RequestPhase
from mlx_gateway.keys import ClientKey
from mlx_gateway.outbox import Outbox
from mlx_gateway.paths import CONVERSATIONS
from mlx_gateway.prompts.segments import Prompt
from mlx_gateway.protocols.api import Api
from mlx_gateway.settings import Upstream


@dataclass(kw_only=True)
class ModelRequest:
    """One request, and what has become of it so far.

    Attributes:
        asked: Its fields as the client sent them.
        fields: The same for engines.
        file: The file of one that came as a form; None for one in JSON.
        name: The model that was asked for, as the settings have it.
        read_prompt: Reads the parts of a prompt.
        is_forwarded: Whether another gateway sent it here: it is for an engine of this machine.
        upstream: Who has it, or had it last.
    """

    path: str
    api: Api
    asked: Fields
    fields: Fields
    body: bytes
    file: memoryview | None
    name: str
    outbox: Outbox
    began: float
    client: ClientKey
    program: str
    read_prompt: Callable[[Fields], Prompt | None]
    is_forwarded: bool = False
    queued_s: float = 0.0
    answered_by: str = ""
    upstream: Upstream | None = None
    was_alone: bool = False
    phase: RequestPhase = RequestPhase.QUEUED

    @cached_property
    def prompt(self) -> Prompt | None:
        """The parts of its prompt; None for what is no conversation."""
        return self.read_prompt(self.fields) if self.path in CONVERSATIONS else None

    @property
    def tier(self) -> str:
        """The model that answers, or is asked now."""
        return self.answered_by or self.name

    @property
    def shown_tier(self) -> str:
        """The same as people see it: `standard`, or `standard@studio`."""
        return self.tier if self.upstream is None else self.upstream.shown(self.tier)

    def shown(self, number: int, now: float) -> InFlight:
        """How it is at `now`, by the monotonic clock.

        Args:
            number: What tells it from the others that are on their way.
        """
        outbox, first_at = self.outbox, self.outbox.first_at
        return InFlight(
            id=number,
            key=self.client.name,
            program=self.program,
            model=self.name,
            tier=self.shown_tier,
            protocol=self.path.removeprefix("/v1/"),
            phase=self.phase if first_at is None else RequestPhase.WRITING,
            seconds=now - self.began,
            queue_s=self.queued_s,
            ttft_s=None if first_at is None else first_at - self.began,
            writing_s=None if first_at is None else now - first_at,
            received_bytes=len(self.body),
            sent_bytes=outbox.sent_bytes,
            events=outbox.events,
        )
