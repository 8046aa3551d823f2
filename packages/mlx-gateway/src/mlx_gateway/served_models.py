"""The models in force: their settings, the line before each, and the engines behind them."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus

from mlx_gateway.engines import Engines
from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.heartbeat import Heartbeat
from mlx_gateway.in_flight import Line
from mlx_gateway.options import GatewayOptions
from mlx_gateway.prompts.read_prefixes import ReadPrefixes
from mlx_gateway.relay import LONGEST_ANSWER_BYTES
from mlx_gateway.routing import resolve
from mlx_gateway.settings import GatewaySettings
from mlx_gateway.waiting_line import WaitingLine

_TOLD_WITHIN_S = 1.0

_log = logging.getLogger("mlx_gateway")


class ServedModels:
    """What is served now.

    Attributes:
        settings: Those that were given, with the models that could be started.
        lines: By the model's name.
        read: What each upstream has read of prompts.
        forwarded: The header of requests that another gateway sends on.
        heartbeat: None where nothing is noted.
    """

    def __init__(self, settings: GatewaySettings, options: GatewayOptions) -> None:
        self.settings: GatewaySettings = settings
        self._given = settings
        self._options = options
        self.engines: Engines = Engines(
            self._headers_for,
            options.ask_for,
            options.tls_for,
            options.timeouts,
            self._engine_hangs,
            options.is_wedged,
        )
        self.lines: dict[str, WaitingLine] = {}
        self.read: ReadPrefixes = ReadPrefixes()
        self.forwarded: str = f"{options.header_prefix}-forwarded"
        self.heartbeat: Heartbeat | None = None
        if options.ledger is not None:
            self.heartbeat = Heartbeat(options.ledger, self.engines, lambda: self.settings)
        self._node_roots: set[str] = set()
        self._apply()

    def reload(self, settings: GatewaySettings) -> None:
        """Go on with other settings."""
        self._given = settings
        self._apply()

    def _apply(self) -> None:
        self.settings = settings = self._options.activator.extended(self._given)
        for name in self.lines.keys() - settings.models.keys():
            self.lines.pop(name).fail("it is no longer served")
        for name, model in settings.models.items():
            if name in self.lines:
                self.lines[name].change(model)
            else:
                self.lines[name] = WaitingLine(model, self.engines.is_up)
        self._node_roots = {
            each.root for model in settings.models.values() for each in model.upstreams if each.node
        }
        used = {each.root for model in settings.models.values() for each in model.upstreams}
        self.engines.forget_others(used)

    async def look(self) -> None:
        """Know what could be started by now."""
        if await self._options.activator.look():
            self._apply()

    def _headers_for(self, root: str) -> dict[str, str]:
        """What requests to an upstream carry; another gateway must not send them any further."""
        given = dict(self._options.headers_for(root))
        return {**given, self.forwarded: "1"} if root in self._node_roots else given

    def _engine_hangs(self, root: str, hangs: bool) -> None:
        """Send on those who wait for nothing but an engine that hangs."""
        _log.warning("%s %s", root, "does not answer" if hangs else "answers again")
        if hangs and root in self._node_roots:
            for name in self.settings.models:
                self.read.forget((name, root))
            self._options.wake(root)
        if self.heartbeat is not None:
            self.heartbeat.note_hang(root, hangs=hangs)
        for line in self.lines.values():
            line.advance()

    def shown_lines(self) -> dict[str, Line]:
        """How busy each model is; on a node, under a name such as `standard@studio`."""
        found: dict[str, Line] = {}
        for name, line in self.lines.items():
            found[name] = Line(0, line.waiting)
            for each in line.upstreams:
                known = found.get(each.shown(name), Line(0, 0))
                running = known.running + line.running_at(each.root)
                found[each.shown(name)] = Line(running, known.waiting)
        return found

    async def resolve(self, asked: str) -> str:
        """The model of that name, looked for again where it isn't known or has to be started.

        Raises:
            ApiError: When there is no such model, or it can't be served.
        """
        with suppress(ApiError):
            name = resolve(self.settings, asked)
            activator = self._options.activator
            presence = activator.presence(name) if activator.is_at_rest(name) else None
            if presence is None or presence.state == "starting":
                return name
        await self.look()
        try:
            return resolve(self.settings, asked)
        except ApiError:
            refusal = self._options.activator.refusal(asked)
            if refusal is not None:
                raise refusal from None
            raise

    async def told_by(self, root: str, path: str) -> bytes | None:
        """What the engine at a root says there; None where it doesn't, or not at once."""
        try:
            async with (
                asyncio.timeout(_TOLD_WITHIN_S),
                self.engines.at(root).request("GET", path) as answer,
            ):
                body = await answer.read(LONGEST_ANSWER_BYTES)
                return body if answer.status == HTTPStatus.OK else None
        except (TimeoutError, UpstreamFailedError):
            return None

    def own_engines(self) -> Iterator[tuple[str, str]]:
        """Every engine of this machine: its model's name, and its root."""
        for name, model in self.settings.models.items():
            for each in model.upstreams:
                if self.settings.is_here(each):
                    yield name, each.root
