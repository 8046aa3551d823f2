"""Texts of which a model reads each by itself, so that an engine can get them in any pieces."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mlx_gateway.fields import Fields, invalid

MOST_TEXTS = 2048
"""As many as OpenAI takes in a request."""


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of one request.

    Attributes:
        all: The texts in the client's order.
        asked: What the engine gets for some of them, but for the model's name.
        read_with_each: The characters of what is read once more with each, such as a query.
        can_wait: Whether it is much work that nobody follows: chats begin before each piece.
    """

    all: tuple[str, ...]
    asked: Callable[[Sequence[str]], Fields]
    read_with_each: int = 0
    can_wait: bool = False

    @property
    def longest(self) -> str:
        """The longest of them."""
        return max(self.all, key=len)

    def characters(self, begin: int, end: int) -> int:
        """How much is read for those from `begin` to before `end`."""
        lengths = map(len, self.all[begin:end])
        return sum(lengths) + self.read_with_each * (end - begin)


class AnsweredPiece(NamedTuple):
    """An engine's answer for some of the texts."""

    texts: int
    body: bytes


def refuse_too_many(texts: Sequence[object], param: str) -> None:
    """Return if a request may hold so many texts.

    Raises:
        ApiError: When it may not.
    """
    if len(texts) > MOST_TEXTS:
        raise invalid(
            f"`{param}` holds {len(texts):,} texts; a request may have {MOST_TEXTS:,}.", param=param
        )
