"""Answers of Chat Completions told as another API has them: what all such translations share. Pure.

(decision 0105)
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Protocol

import msgspec

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import list_in, object_in
from mlx_gateway.protocols.api import Call, answer_in
from mlx_gateway.protocols.events import EventStream, Usage, document_of
from mlx_gateway.protocols.openai_chat import ChatCompletions

CHAT = ChatCompletions()
CHAT_PATH = "/v1/chat/completions"

type ChatFailure = ApiError | UpstreamFailedError


class ChatAnswer(Protocol):
    """What a chat says, as an answer of the other API that grows."""

    @property
    def document(self) -> dict[str, Any]:
        """The answer so far."""
        ...

    def open(self) -> Iterator[bytes]:
        """The events that say nothing of the answer."""
        ...

    def take(self, said: dict[str, Any]) -> Iterator[bytes]:
        """The events for a delta, or for a whole message."""
        ...

    def end(self, finish_reason: object, usage: Usage) -> Iterator[bytes]:
        """The events that end the answer."""
        ...

    def fail(self, failure: ChatFailure, document: dict[str, Any], /) -> bytes:
        """The event that says that there is no more of the answer, and why."""
        ...


def whole_answer(
    body: bytes, call: Call, begin: Callable[[str], ChatAnswer]
) -> tuple[bytes, Usage]:
    """The whole answer of a chat, as the other API has it, and what it used.

    Args:
        begin: Makes an empty answer for the model of that name.
    """
    body, usage = CHAT.whole(body, call)
    document = answer_in(body)
    choice = object_in(next(iter(list_in(document.get("choices"))), None))
    answer = begin(str(document.get("model", "")))
    said = answer.take(object_in(choice.get("message")))
    for _ in chain(said, answer.end(choice.get("finish_reason"), usage)):
        pass  # nobody waits for the events
    return msgspec.json.encode(answer.document), usage


class TranslatedChat:
    """The chunks of a chat as events of the other API.

    Args:
        begin: As of `whole_answer`.

    Attributes:
        chat: The stream of the chat, which knows its usage, its failure and its end.
    """

    def __init__(self, call: Call, begin: Callable[[str], ChatAnswer]) -> None:
        self.chat: EventStream = CHAT.stream(call)
        self._begin = begin
        self._answer: ChatAnswer | None = None
        self._finish_reason: object = None

    def take(self, event: bytes) -> Iterator[bytes]:
        """The events for a chunk; `chat` knows at once what it says of usage, failure and end."""
        if self.chat.has_ended or self.chat.failure is not None:
            return iter(())
        self.chat.repair(event)
        document = document_of(event)
        if document is None and not self.chat.has_ended:
            return iter(())
        return self._told(document or {})

    def _told(self, document: dict[str, Any]) -> Iterator[bytes]:
        if self._answer is None:
            self._answer = self._begin(str(document.get("model", "")))
            yield from self._answer.open()
        if self.chat.failure is not None:
            yield self._answer.fail(self.chat.failure, document)
            return
        for choice in map(object_in, list_in(document.get("choices"))):
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            yield from self._answer.take(object_in(choice.get("delta")))
        if self.chat.has_ended:
            yield from self._answer.end(self._finish_reason, self.chat.usage)
