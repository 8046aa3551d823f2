"""What is noted of a request that has ended: in the metrics, the ledger and the log."""

import logging
import time
from dataclasses import replace
from http import HTTPStatus

from mlx_gateway.errors import CLIENT_LEFT
from mlx_gateway.ledger import Ledger, RequestRow
from mlx_gateway.metrics import Metrics
from mlx_gateway.model_request import ModelRequest
from mlx_gateway.outbox import Outbox
from mlx_gateway.paths import CONVERSATIONS
from mlx_gateway.prompts.conversations import Conversations, in_words, reread
from mlx_gateway.protocols.events import Usage
from mlx_gateway.served_models import ServedModels

_log = logging.getLogger("mlx_gateway")


class RequestNotes:
    """Notes requests as they end.

    Attributes:
        finished: How many have ended since the start.
        speeds: By the tier as people see it, the tokens a second of its last answer.
    """

    def __init__(self, models: ServedModels, metrics: Metrics, ledger: Ledger | None) -> None:
        self._models = models
        self._metrics = metrics
        self._ledger = ledger
        self.conversations: Conversations = Conversations()
        self.finished: int = 0
        self.speeds: dict[str, float] = {}

    def note(self, request: ModelRequest, usage: Usage, problem: str) -> None:
        """Count a request that has ended, in the metrics, the ledger and the log."""
        outbox, now = request.outbox, time.monotonic()
        row = RequestRow(
            at=time.time() - (now - request.began),
            key=request.client.name,
            program=request.program,
            model=self._model_of(request),
            tier=request.shown_tier,
            protocol=request.path.removeprefix("/v1/").removeprefix("/"),
            status=_status_of(problem, outbox.status),
            seconds=now - request.began,
            queue_s=request.queued_s,
            ttft_s=None if outbox.first_at is None else outbox.first_at - request.began,
            generation_tps=_speed(usage.completion_tokens, outbox, now),
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            fallback_from=request.name if request.answered_by not in ("", request.name) else "",
            received_bytes=len(request.body),
            sent_bytes=outbox.sent_bytes,
            was_alone=request.was_alone,
        )
        row = self._explained(request, row)
        self.finished += 1
        self._metrics.finished(row, problem)
        if row.generation_tps is not None:
            self.speeds[row.tier] = row.generation_tps
        if self._ledger is not None:
            is_stream = outbox.first_at is not None and outbox.streams
            self._ledger.note(row if is_stream else replace(row, ttft_s=None))
        _log.info(
            "%s %s: %s in %.2f s%s%s",
            request.path,
            row.tier,
            problem or "done",
            row.seconds,
            "" if usage.prompt_tokens is None else f", {usage.prompt_tokens} tokens read",
            "" if usage.completion_tokens is None else f", {usage.completion_tokens} written",
        )

    def _explained(self, request: ModelRequest, row: RequestRow) -> RequestRow:
        """The row with what was read again, and why; the log says it, too."""
        was_read = row.status == HTTPStatus.OK or row.ttft_s is not None
        is_turn = request.path in CONVERSATIONS and "previous_response_id" not in request.fields
        tier = request.tier
        model = self._models.settings.models.get(tier)
        is_here = model is not None and not self._models.settings.is_cloud(model.upstreams[0].root)
        prompt = request.prompt if was_read and is_turn and is_here else None
        if prompt is None:
            return row
        whose = (tier, row.key, row.program)
        found = self.conversations.compare(whose, prompt, row.prompt_tokens)
        reading_s = None
        if row.ttft_s is not None and request.outbox.streams:
            reading_s = max(row.ttft_s - row.queue_s, 0.0)
        again = reread(
            found,
            prompt_tokens=row.prompt_tokens,
            cached_tokens=row.cached_tokens,
            reading_s=reading_s,
        )
        if again.tokens:
            words = in_words(again.prefix, again.place, row.program)
            _log.info(
                "%s: %s: %d of %d tokens had been read before",
                row.tier, words, again.tokens, row.prompt_tokens,
            )  # fmt: skip
        return replace(
            row,
            prefix=again.prefix.value,
            prefix_place=again.place,
            reread_tokens=again.tokens,
            reread_s=again.seconds,
        )

    def _model_of(self, request: ModelRequest) -> str:
        """What the engine that answered, or would have, calls its model; `standard@studio` there.

        Only the other machine knows which model it has for that name.
        """
        if request.upstream is not None and request.upstream.node is not None:
            return request.shown_tier
        tier = request.tier
        model = self._models.settings.models.get(tier)
        return tier if model is None else model.upstreams[0].model


def _status_of(problem: str, sent: int | None) -> int:
    """The status under which a request is noted."""
    if problem.isdecimal():
        return int(problem)
    if problem:
        return CLIENT_LEFT if problem == "client_left" else HTTPStatus.BAD_GATEWAY
    return sent or HTTPStatus.OK


def _speed(tokens: int | None, outbox: Outbox, now: float) -> float | None:
    """Tokens a second after the first; None where the answer was no stream, or too short."""
    if tokens is None or tokens < 2 or outbox.first_at is None or not outbox.streams:
        return None
    seconds = now - outbox.first_at
    return (tokens - 1) / seconds if seconds > 0 else None
