"""A turn of a conversation costs its new tokens, and says the same as without a cache."""

import pytest

from mlx_stack.engines.vllm_mlx import Serving
from stack_testkit.conversations import Conversation, Engine
from stack_testkit.tiny_families import FAMILIES

pytestmark = pytest.mark.engine

HEAD_TOKENS, TURN_TOKENS = 200, 70
UNBATCHED = {"parallel mamba-2", "sparse latent attention"}
FEW = {"sliding window", "gated delta that sees"}
"""What the pinned engine is asked to fail at."""


def two_conversations(engine: Engine, *, shortens: bool) -> list[Conversation]:
    """Two that take turns, each of three."""
    pair = [
        Conversation(2 * shortens + which, HEAD_TOKENS + 9 * which, TURN_TOKENS, shortens=shortens)
        for which in range(2)
    ]
    for _ in range(3):
        for conversation in pair:
            conversation.next(engine, answer_tokens=12)
    return pair


@pytest.mark.parametrize("name", FAMILIES)
def test_a_turn_costs_its_new_tokens_and_says_the_same_whatever_the_layers_keep(
    serve, tiny_family, tmp_path, name
):
    model = tiny_family(name)
    traits = Serving(batching=name not in UNBATCHED, reuses_prefixes=True)
    url = serve(model, traits=traits, concurrency=2, has_additions=True)
    engine = Engine(url, tmp_path / "logs" / "standard.log")
    for shortens in (False, True):
        for conversation in two_conversations(engine, shortens=shortens):
            later = zip(conversation.turns, conversation.new_tokens(), strict=True)
            for turn, new_tokens in list(later)[1:]:
                assert turn.read_tokens <= 1.1 * new_tokens, (shortens, conversation.turns)
            asked = conversation.messages[:-1]
            engine.forget()
            fresh = engine.ask(asked, answer_tokens=12)
            assert fresh.read_tokens == fresh.prompt_tokens
            assert fresh.answer == conversation.turns[-1].answer


@pytest.mark.parametrize("name", sorted(FEW))
def test_the_pinned_engine_still_reads_whole_conversations_where_layers_cannot_be_cut(
    serve, tiny_family, tmp_path, name
):
    model = tiny_family(name)
    url = serve(model, traits=Serving(reuses_prefixes=True), concurrency=2)
    engine = Engine(url, tmp_path / "logs" / "standard.log")
    last = two_conversations(engine, shortens=False)[0]
    turn, new_tokens = last.turns[-1], last.new_tokens()[-1]
    assert turn.read_tokens > 1.5 * new_tokens, (
        "the engine reads only what is new: our addition can go"
    )
