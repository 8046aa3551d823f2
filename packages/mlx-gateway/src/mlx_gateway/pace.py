"""How many texts a model gets at once: as many as it reads in a moment.

All engines of a machine share its GPU, which turns to others between two pieces. Pure.

(decision 0118)
"""

from typing import Any

from mlx_gateway.protocols.texts import Texts

PIECE_S = 0.25
"""How long a piece should take, in seconds."""
MOST_TEXTS_AT_ONCE = 64
MOST_CHARACTERS_AT_ONCE = 16_384
"""About as many as the tokens that the engine computes together, unless one text is longer."""
_FIRST_CHARACTERS = 2048
"""Before anything is known of the model's speed."""


class Pace:
    """How fast one model reads.

    Attributes:
        piece_s: How long its last piece took; a guess before the first.
    """

    def __init__(self) -> None:
        self.piece_s: float = PIECE_S
        self._characters_at_once = float(_FIRST_CHARACTERS)

    def piece(self, texts: Texts[Any], begin: int) -> int:
        """Where the piece ends that begins with a text; it has one text at least."""
        end, last = begin + 1, min(begin + MOST_TEXTS_AT_ONCE, len(texts.all))
        while end < last and texts.characters(begin, end + 1) <= self._characters_at_once:
            end += 1
        return end

    def note(self, characters: int, seconds: float) -> None:
        """Learn from a piece of so many characters, which took so long."""
        self.piece_s = max(seconds, 0.001)
        found = min(characters / self.piece_s * PIECE_S, MOST_CHARACTERS_AT_ONCE)
        self._characters_at_once = (self._characters_at_once + found) / 2
