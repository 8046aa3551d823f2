"""How far an engine's load is, and how long it will take: unknown where nothing tells."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from mlx_gateway.ledger import LedgerError
from mlx_procsup import locate
from mlx_procsup.usage import measure_usage
from mlx_stack.format import format_duration
from mlx_stack.gateway.endpoint import running_url
from mlx_stack.gateway.events import last_start_s
from mlx_stack.home import Home
from mlx_stack.models.shelf import service_of
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.assembly import assemble
from mlx_stack.services.at_gateway import AtGateway, ask_gateway
from mlx_stack.services.service import Service

_LEAST_SHARE, _MOST_SHARE = 0.05, 0.99


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """A load that is under way.

    Attributes:
        seconds: How long it has taken.
        progress: How much of it is done, of 1; None where nothing tells.
        left_s: How long it will take; None where nothing tells.
    """

    seconds: float
    progress: float | None = None
    left_s: float | None = None

    def describe(self) -> str:
        """Such as `loading for 12 s, 40 %, about 18 s left`."""
        words = [f"loading for {format_duration(self.seconds)}"]
        if self.progress is not None:
            words.append(f"{self.progress * 100:.0f} %")
        if self.left_s is not None:
            words.append(f"about {format_duration(self.left_s)} left")
        return ", ".join(words)


def foresee(
    seconds: float, *, held_bytes: int | None, needs_bytes: int, usual_s: float | None
) -> LoadProgress:
    """What follows from how long it took last time; without that, from the memory that it holds.

    Args:
        needs_bytes: What it will hold once it is loaded; 0 where that is unknown.
        usual_s: How long it took last time; None where that is unknown.
    """
    if usual_s is not None and seconds < usual_s:
        return LoadProgress(seconds, seconds / usual_s, usual_s - seconds)
    if held_bytes is None or held_bytes < needs_bytes * _LEAST_SHARE or not needs_bytes:
        return LoadProgress(seconds)
    progress = min(held_bytes / needs_bytes, _MOST_SHARE)
    if usual_s is not None or progress == _MOST_SHARE:  # what it still does takes no memory
        return LoadProgress(seconds, progress)
    return LoadProgress(seconds, progress, seconds * (1 - progress) / progress)


def foresee_service(
    home: Home, service: Service, called: str, *, seconds: float, held_bytes: int | None
) -> LoadProgress:
    """How far the engine of a tier is that was started so long ago.

    Args:
        called: Its name at the gateway.
    """
    usual_s = None
    if service.tier is not None:
        try:
            usual_s = last_start_s(home, called, service.tier)
        except LedgerError:
            usual_s = None
    needs_bytes = service.load_bytes
    return foresee(seconds, held_bytes=held_bytes, needs_bytes=needs_bytes, usual_s=usual_s)


def describe_wait(waits_for: Sequence[str]) -> str:
    """Such as `waits until fast makes room in memory`."""
    are_several = len(waits_for) > 1
    return f"waits until {' and '.join(waits_for)} make{'' if are_several else 's'} room in memory"


class StartWatch:
    """What a request for a model waits for, as long as that is a start.

    Args:
        model: Its name at the gateway. Where it has others, the only model that starts is meant.
    """

    def __init__(self, opened: OpenStack, model: str) -> None:
        self._opened = opened
        self._model = model
        self._services: dict[str, Service] | None = None

    def describe(self) -> str | None:
        """What it waits for now; None where it waits for no start, or nobody knows."""
        home = self._opened.home
        url = running_url(home)
        said = ask_gateway(home, url) if url is not None else {}
        starting = {each.name: each for each in said.values() if each.state == "starting"}
        named = starting.get(self._model)
        if named is None:
            if self._model in said or len(starting) != 1:
                return None
            (named,) = starting.values()
        if named.waits_for:
            return f"{named.name} {describe_wait(named.waits_for)}"
        load = self._load(named)
        return f"{named.name} is {load.describe() if load is not None else 'loading'}"

    def _load(self, said: AtGateway) -> LoadProgress | None:
        if self._services is None:
            watched = assemble(self._opened, gateway_key="").watched
            self._services = {service.name: service for service in watched}
        for name in (said.name, service_of(said.name)):
            process = locate(self._opened.home.state_dirs, name).own
            usage = None if process is None else measure_usage(process.pid, time.time())
            if usage is not None and name in self._services:
                return foresee_service(
                    *(self._opened.home, self._services[name], said.name),
                    seconds=usage.age_s,
                    held_bytes=usage.memory_bytes,
                )
        return None
