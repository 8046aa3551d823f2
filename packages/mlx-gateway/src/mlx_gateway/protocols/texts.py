"""Texts of which a model reads each by itself, so that an engine can get them in any pieces."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlx_gateway.fields import Fields, invalid
from mlx_gateway.protocols.events import Usage

MOST_TEXTS = 2048
"""As many as OpenAI takes in a request."""


@dataclass(frozen=True, slots=True)
class Texts[Part]:
    """The texts of one request, and what is made of an engine's answers for them.

    Attributes:
        all: The texts in the client's order.
        param: The field that holds them.
        asked: What the engine gets for some of them, but for the model's name.
        read: The part of the answer that the body of an engine's answer for so many of them gives;
            UpstreamFailedError where it gives none.
        joined: What the client gets for all parts, and what they used.
        query: What is read once more with each, the field `query`; "" for nothing.
        can_wait: Whether it is much work that nobody follows: chats begin before each piece.
    """

    all: tuple[str, ...]
    param: str
    asked: Callable[[Sequence[str]], Fields]
    read: Callable[[bytes, int], Part]
    joined: Callable[[Sequence[Part]], tuple[bytes, Usage]]
    query: str = ""
    can_wait: bool = False

    @property
    def longest(self) -> dict[str, str]:
        """The longest text of each field that holds some, by the field's name."""
        return {"query": self.query, self.param: max(self.all, key=len)}

    def characters(self, begin: int, end: int) -> int:
        """How much is read for those from `begin` to before `end`."""
        lengths = map(len, self.all[begin:end])
        return sum(lengths) + len(self.query) * (end - begin)


def refuse_too_many(texts: Sequence[object], param: str) -> None:
    """Return if a request may hold so many texts.

    Raises:
        ApiError: When it may not.
    """
    if len(texts) > MOST_TEXTS:
        raise invalid(
            f"`{param}` contains {len(texts):,} texts; a request may have at most {MOST_TEXTS:,}.",
            param=param,
        )
