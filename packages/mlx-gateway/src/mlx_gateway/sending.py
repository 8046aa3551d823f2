"""A request on its way to an engine: the choice of a model and an upstream, and its turn there.

(decision 0004)
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import msgspec

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import object_in
from mlx_gateway.first_tokens import FirstTokens
from mlx_gateway.form import encode_form
from mlx_gateway.in_flight import RequestPhase
from mlx_gateway.metrics import Metrics
from mlx_gateway.model_request import ModelRequest
from mlx_gateway.options import GatewayOptions
from mlx_gateway.pace import Pace
from mlx_gateway.paths import COUNTING
from mlx_gateway.prompts.read_prefixes import ReadPrefixes
from mlx_gateway.prompts.segments import Prompt
from mlx_gateway.protocols.api import Call, countable, prompt_text
from mlx_gateway.protocols.events import Usage
from mlx_gateway.protocols.media import require_media
from mlx_gateway.protocols.texts import Texts
from mlx_gateway.relay import LONGEST_ANSWER_BYTES, Attempt
from mlx_gateway.routing import RouteOption, candidates, needs_count, refuse_far_too_long, too_long
from mlx_gateway.served_models import ServedModels
from mlx_gateway.settings import Role, Upstream

_COUNT_WITHIN_S = 5.0
_CHARACTERS_PER_TOKEN = 6
"""More than a token of ordinary text has."""
_BYTES_PER_TOKEN = 4
_AWAKE_WITHIN_S = 20.0
"""How long a Mac may take to wake up; most need two or three seconds."""
_LOOK_AGAIN_S = 0.1
_CLOUD = "cloud"
_JSON = "application/json"

_log = logging.getLogger("mlx_gateway")


@dataclass(slots=True)
class _PromptReading:
    """A request's prompt at the upstreams of one model."""

    model: str
    prompt: Prompt | None
    size_bytes: int
    read: ReadPrefixes

    def unseen_tokens(self, upstream: Upstream) -> int:
        """How many of its tokens the upstream has not read."""
        if self.prompt is None:
            return self.size_bytes // _BYTES_PER_TOKEN
        return self.read.unseen_tokens((self.model, upstream.root), self.prompt)

    def begin(self, upstream: Upstream) -> None:
        """Note that the upstream reads it from now on."""
        if self.prompt is not None:
            self.read.note((self.model, upstream.root), self.prompt.trace)


class Sender:
    """Sends requests to engines until one has answered."""

    def __init__(self, models: ServedModels, options: GatewayOptions, metrics: Metrics) -> None:
        self._models = models
        self._options = options
        self._metrics = metrics
        self._first_tokens = FirstTokens()
        self._paces: defaultdict[str, Pace] = defaultdict(Pace)

    async def send(self, request: ModelRequest) -> Usage:
        """Send the request to its model, and on to others while none of an answer has gone out.

        Raises:
            ApiError: When it is at fault, or no model answered.
        """
        failures: list[str] = []
        retries_s: list[int] = []
        overflow: ApiError | None = None
        at_rest = self._options.activator.is_at_rest
        options = candidates(self._models.settings, request.name, at_rest)
        # who sent it here has others to go on to, and knows which is next
        for option in options[:1] if request.is_forwarded else options:
            if not request.client.may_use(option.name):
                continue
            if overflow is not None and not option.model.takes_overflow:
                continue
            try:
                return await self._try_upstreams(request, option)
            except UpstreamFailedError as error:
                failures.append(f"{option.name}: {error.reason.removesuffix('.')}")
                if error.retry_after_s is not None:
                    retries_s.append(error.retry_after_s)
            except ApiError as error:
                if error.tokens is None:
                    raise
                overflow = overflow or error
        if overflow is not None and not failures:
            raise overflow
        raise ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"No model could answer. {'; '.join(failures)}.",
            retry_after_s=min(retries_s, default=None),
        )

    async def _try_upstreams(self, request: ModelRequest, option: RouteOption) -> Usage:
        """Send the request to the model's upstreams, one after the other, until one answers.

        Raises:
            ApiError: When it is at fault, or the answer broke off.
            UpstreamFailedError: When none gave a usable answer.
        """
        nodes = {each.root for each in option.model.upstreams if each.node is not None}
        failed: set[str] = set(nodes) if request.is_forwarded else set()
        is_awaited = False
        while True:
            tried = len(failed)
            try:
                return await self._attempt(request, option, failed)
            except UpstreamFailedError as error:
                _log.warning("%s: %s: %s", request.path, request.shown_tier, error.what)
                if request.upstream is not None and len(failed) > tried:
                    self._note_failure(option.name, request.upstream, error)
                if request.outbox.first_at is not None:
                    raise ApiError(
                        HTTPStatus.BAD_GATEWAY, f"The answer was cut off: {error.reason}."
                    ) from error
                if len(failed) in (tried, len(option.model.upstreams)):
                    if request.is_forwarded or is_awaited:
                        raise
                    awake = await self._awakened(nodes)
                    if awake is None:
                        raise
                    is_awaited = True
                    failed.discard(awake)

    def _note_failure(self, model: str, upstream: Upstream, error: UpstreamFailedError) -> None:
        """Let a node that failed get nothing until it answers, or for a while if it is there."""
        if upstream.node is None:
            return
        if error.has_answered:
            self._models.read.forget((model, upstream.root))
            if model in self._models.lines:
                self._models.lines[model].rest(upstream)
        else:
            self._models.engines.at(upstream.root).lose()

    async def _awakened(self, nodes: Collection[str]) -> str | None:
        """A node that could be woken and answers now; None where none does in time."""
        asleep = [
            root
            for root in nodes
            if not self._models.engines.is_up(root) and self._options.wake(root)
        ]
        until = time.monotonic() + (_AWAKE_WITHIN_S if asleep else 0.0)
        while time.monotonic() < until:
            awake = next((root for root in asleep if self._models.engines.is_up(root)), None)
            if awake is not None:
                return awake
            await asyncio.sleep(_LOOK_AGAIN_S)
        return None

    async def _attempt(self, request: ModelRequest, option: RouteOption, failed: set[str]) -> Usage:
        """One upstream of one model, none of those that have `failed`, where it is noted first.

        Raises:
            ApiError: When the request is at fault, or the model's line is full.
            UpstreamFailedError: When the upstream gave no usable answer.
        """
        call = self._call(request, option)
        if call.unloads:
            await self._options.activator.unload(option.name)
            return await self._answer_ready(request, option, call)
        waited_from = time.monotonic()
        request.phase = RequestPhase.STARTING
        await self._make_ready(request, option, failed)
        request.phase = RequestPhase.QUEUED
        try:
            if call.ready_answer:
                return await self._answer_ready(request, option, call)
            await self._refuse_too_long(request, option, call)
            if call.texts is not None:
                usage = await self._ask_in_pieces(
                    request, option, call, call.texts, failed, waited_from
                )
            else:
                async with self._turn(request, option, failed, waited_from) as upstream:
                    attempt = self._prepare(request, option, upstream, call)
                    usage = await attempt.run(request.outbox)
        finally:
            self._options.activator.finished(option.name, call.keep_s)
        if option.name != request.name:
            self._metrics.fell_back(request.name, option.name)
        return usage

    async def _make_ready(
        self, request: ModelRequest, option: RouteOption, failed: set[str]
    ) -> None:
        """Return once the model can be asked; its own engine is out if only others can.

        Raises:
            ApiError: As of the activator, and UpstreamFailedError.
        """
        own = {each.root for each in option.model.upstreams if each.node is None}
        others = {each.root for each in option.model.upstreams} - own - failed
        if own <= failed:
            return
        try:
            await self._options.activator.ready(option.name, request.client.priority)
        except UpstreamFailedError as error:
            if not any(self._models.engines.is_up(root) for root in others):
                raise
            _log.warning("%s: %s: %s", request.path, option.name, error.what)
            failed |= own

    async def _answer_ready(self, request: ModelRequest, option: RouteOption, call: Call) -> Usage:
        """Answer a request for which no engine has to do anything."""
        self._say_who(request, option)
        await request.outbox.whole(HTTPStatus.OK, call.ready_answer, _JSON.encode())
        return Usage()

    async def _ask_in_pieces(
        self,
        request: ModelRequest,
        option: RouteOption,
        call: Call,
        texts: Texts[Any],
        failed: set[str],
        waited_from: float,
    ) -> Usage:
        """Ask for some of the texts at a time, and answer with all of them together.

        Raises:
            ApiError: When the request is at fault, or the model's line is full.
            UpstreamFailedError: When an upstream gave no usable answer.
        """
        pace = self._paces[option.name]
        parts: list[Any] = []
        begin = 0
        while begin < len(texts.all):
            if texts.can_wait and any(map(self._models.settings.is_here, option.model.upstreams)):
                await self._first_tokens.go_first(pace.piece_s)
            end = pace.piece(texts, begin)
            fields = texts.asked(texts.all[begin:end])
            async with self._turn(request, option, failed, waited_from) as upstream:
                attempt = self._prepare(request, option, upstream, replace(call, fields=fields))
                asked_at = time.monotonic()
                body = await attempt.fetch()
                waited_from = time.monotonic()
                pace.note(texts.characters(begin, end), waited_from - asked_at)
                parts.append(texts.read(body, end - begin))
            failed.discard(upstream.root)
            begin = end
        answer, usage = texts.joined(parts)
        await request.outbox.whole(HTTPStatus.OK, answer, _JSON.encode())
        return usage

    @asynccontextmanager
    async def _turn(
        self, request: ModelRequest, option: RouteOption, failed: set[str], waited_from: float
    ) -> AsyncGenerator[Upstream]:
        """Around one request to an upstream, which is noted in `failed` first.

        Raises:
            ApiError: When the model's line is full.
            UpstreamFailedError: When the model is gone.
        """
        line = self._models.lines.get(option.name)
        if line is None:
            raise UpstreamFailedError("it is no longer served")
        reading = self._reading(request, option)
        turn = await line.take(frozenset(failed), request.client.priority, reading)
        request.upstream = upstream = turn.upstream
        failed.add(upstream.root)
        began = time.monotonic()
        request.queued_s += began - waited_from
        is_alone = line.running_at(upstream.root) == 1
        try:
            self._say_who(request, option)
            request.phase = RequestPhase.READING
            is_chat = Role.CHAT in request.api.roles and self._models.settings.is_here(upstream)
            with self._first_tokens.awaited_by(request.outbox) if is_chat else nullcontext():
                yield upstream
        finally:
            request.was_alone = is_alone and line.running_at(upstream.root) == 1
            line.release(turn, time.monotonic() - began)

    def _reading(self, request: ModelRequest, option: RouteOption) -> _PromptReading | None:
        """The prompt for the choice among the model's upstreams; None where there is none."""
        if len(option.model.upstreams) == 1:
            return None
        return _PromptReading(
            option.name, request.prompt, request.fields.size_bytes, self._models.read
        )

    def _call(self, request: ModelRequest, option: RouteOption, *, at_node: bool = False) -> Call:
        """What the model is asked; a node's gateway speaks every API, whatever its engine does.

        Raises:
            ApiError: When the request is at fault.
        """
        if self._models.settings.is_cloud(option.model.upstreams[0].root):
            return request.api.as_sent(request.asked)
        if Role.CHAT in request.api.roles:
            require_media(
                request.fields,
                allows_remote=self._models.settings.remote_images,
                allowed_by=self._options.remote_images_by,
            )
        call = request.api.read(request.fields, sees_images=option.model.sees_images)
        request.api.require(request.fields, option.model)
        if option.model.chat_only and not at_node:
            sees = option.model.sees_images
            call = request.api.by_chat(call, request.fields, sees_images=sees)
        return call

    async def _refuse_too_long(
        self, request: ModelRequest, option: RouteOption, call: Call
    ) -> None:
        """Return if the model takes a prompt of this length, or nobody knows.

        Raises:
            ApiError: When it does not.
        """
        limit = option.model.context_tokens
        if limit is not None and call.texts is not None:
            for param, text in call.texts.longest.items():
                refuse_far_too_long(option.name, text, limit, param)
            return
        if limit is None or not needs_count(option.model, request.fields.size_bytes):
            return
        if request.api is COUNTING or request.file is not None:
            return
        tokens = await self._length(request, option.model.upstreams[0], call, limit)
        if tokens is not None and tokens >= limit:
            raise too_long(option.name, tokens, limit)

    async def _length(
        self, request: ModelRequest, upstream: Upstream, call: Call, limit: int
    ) -> int | None:
        """How many tokens the prompt has; about, if its beginning alone is longer than `limit`.

        An engine takes seconds to count megabytes, and answers nobody meanwhile.
        """
        text = prompt_text(call.fields)
        begin = text[: limit * _CHARACTERS_PER_TOKEN]
        if len(begin) < len(text):
            tokens = await self._count(upstream, countable(begin))
            if tokens is None or tokens >= limit:
                return tokens and tokens * len(text) // len(begin)
        return await self._count(upstream, request.api.counted(call))

    async def _count(self, upstream: Upstream, counted: dict[str, Any]) -> int | None:
        """The tokens of what is `counted`, as the upstream counts; None if it can't."""
        if not self._models.engines.is_up(upstream.root):
            return None
        engine = self._models.engines.at(upstream.root)
        try:
            async with (
                asyncio.timeout(_COUNT_WITHIN_S),
                engine.request(
                    "POST",
                    "/v1/messages/count_tokens",
                    {"content-type": _JSON},
                    msgspec.json.encode({**counted, "model": upstream.model}),
                ) as answer,
            ):
                said: object = msgspec.json.decode(await answer.read(LONGEST_ANSWER_BYTES))
        except (TimeoutError, UpstreamFailedError, ValueError, RecursionError):
            return None
        tokens = object_in(said).get("input_tokens")
        return tokens if isinstance(tokens, int) else None

    def _prepare(
        self, request: ModelRequest, option: RouteOption, upstream: Upstream, call: Call
    ) -> Attempt:
        if upstream.node is not None and option.model.chat_only:
            call = self._call(request, option, at_node=True)
        named, kind = call.fields.with_values(model=upstream.model), _JSON
        if request.file is None:
            body = named.encode()
        else:
            kind, body = encode_form(named.decoded(), request.file)
        return Attempt(
            engine=self._models.engines.at(upstream.root),
            path=call.path or request.path,
            headers={"content-type": kind},
            body=body,
            api=request.api,
            call=call,
            count=None
            if self._models.settings.is_cloud(upstream.root)
            else lambda counted: self._count(upstream, counted),
            # a node's gateway answers questions while its engine reads in silence
            silence_s=option.model.silence_s if upstream.node is None else None,
            is_to_node=upstream.node is not None,
        )

    def _say_who(self, request: ModelRequest, option: RouteOption) -> None:
        """Name the model that answers, in the answer's headers."""
        request.answered_by = option.name
        is_cloud = self._models.settings.is_cloud(option.model.upstreams[0].root)
        named = {
            "tier": _CLOUD if is_cloud else request.shown_tier,
            "queue-ms": str(round(request.queued_s * 1000)),
        }
        if option.name != request.name:
            named["fallback-from"] = request.name
        request.outbox.headers = [
            (f"{self._options.header_prefix}-{name}".encode(), value.encode("ascii", "replace"))
            for name, value in named.items()
        ]
