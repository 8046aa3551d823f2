"""Texts come in pieces that are short for those who wait, and not smaller than that."""

from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.fields import Fields
from mlx_gateway.pace import MOST_CHARACTERS_AT_ONCE, MOST_TEXTS_AT_ONCE, PIECE_S, Pace
from mlx_gateway.protocols.events import Usage
from mlx_gateway.protocols.texts import Texts


def of(lengths: list[int], query: int = 0) -> Texts[None]:
    texts = tuple("x" * length for length in lengths)
    return Texts(
        texts,
        "documents",
        asked=lambda _: Fields({}, 0),
        read=lambda *_: None,
        joined=lambda _: (b"", Usage()),
        query="q" * query,
    )


def read(
    texts: Texts[None], pace: Pace, characters_per_s: float, overhead_s: float = 0.0
) -> list[float]:
    """The seconds that each piece takes a model of that speed."""
    found: list[float] = []
    begin = 0
    while begin < len(texts.all):
        end = pace.piece(texts, begin)
        characters = texts.characters(begin, end)
        found.append(overhead_s + characters / characters_per_s)
        pace.note(characters, found[-1])
        begin = end
    return found


@given(
    st.lists(st.integers(1, 20_000), min_size=1, max_size=200),
    st.floats(0, 10),
    st.integers(0, 9000),
)
def test_no_piece_is_empty_or_larger_than_an_engine_computes_at_once(
    lengths: list[int], seconds: float, query: int
) -> None:
    texts, pace = of(lengths, query), Pace()
    pace.note(100, seconds)
    begin = 0
    while begin < len(lengths):
        end = pace.piece(texts, begin)
        assert begin < end <= begin + MOST_TEXTS_AT_ONCE
        assert end == begin + 1 or texts.characters(begin, end) <= MOST_CHARACTERS_AT_ONCE
        begin = end


def test_pieces_of_a_slow_model_soon_take_a_moment_each() -> None:
    seconds = read(of([50] * 512), Pace(), characters_per_s=1000)
    assert max(seconds[6:]) <= PIECE_S * 1.3
    assert len(seconds) < 512 / 4, "and more than one text goes at once"


def test_a_fast_model_gets_as_many_as_it_computes_at_once() -> None:
    pace = Pace()
    read(of([50] * 512), pace, characters_per_s=1e6, overhead_s=0.003)
    assert pace.piece(of([50] * 512), 0) == MOST_TEXTS_AT_ONCE


def test_a_fast_model_that_becomes_slow_soon_gets_less() -> None:
    pace = Pace()
    pace.note(10**6, 0.001)
    seconds = read(of([500] * 512), pace, characters_per_s=1000)
    assert max(seconds[6:]) <= PIECE_S * 2


def test_a_model_that_was_slow_once_is_found_to_be_fast_again() -> None:
    pace, texts = Pace(), of([50] * 512)
    pace.note(50, 60.0)
    read(texts, pace, characters_per_s=1e5, overhead_s=0.003)
    assert pace.piece(texts, 0) == MOST_TEXTS_AT_ONCE
