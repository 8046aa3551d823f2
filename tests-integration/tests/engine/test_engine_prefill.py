"""A short request goes before the rest of long ones, and each gets its own answer."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlx_stack.engines.vllm_mlx import Serving
from stack_testkit.conversations import Conversation, Engine

pytestmark = pytest.mark.engine

LONG_TOKENS, SHORT_TOKENS = 4000, 200


@pytest.mark.parametrize("name", ["full attention", "gated delta", "sliding window"])
def test_a_short_request_overtakes_two_long_ones_and_all_answers_stay_right(
    serve, tiny_family, tmp_path, name
):
    model = tiny_family(name)
    traits = Serving(reuses_prefixes=True, prefill_step=256)
    url = serve(model, traits=traits, concurrency=4, has_additions=True)
    engine = Engine(url, tmp_path / "logs" / "standard.log")

    def asked(seed: int, tokens: int) -> tuple[float, str]:
        conversation = Conversation(seed, tokens, 10, shortens=False)
        conversation.next(engine, answer_tokens=12)
        return time.monotonic(), conversation.turns[0].answer

    with ThreadPoolExecutor() as pool:
        long_ones = [pool.submit(asked, seed, LONG_TOKENS) for seed in (1, 2)]
        time.sleep(0.5)  # until they are being read; later ones would only make this easier
        short_ones = [pool.submit(asked, seed, SHORT_TOKENS) for seed in (3, 4)]
        ends = [each.result()[0] for each in (*short_ones, *long_ones)]
    assert max(ends[:2]) < min(ends[2:])
    together = [each.result()[1] for each in (*long_ones, *short_ones)]
    engine.forget()
    lengths = (LONG_TOKENS, LONG_TOKENS, SHORT_TOKENS, SHORT_TOKENS)
    assert together == [asked(seed, length)[1] for seed, length in enumerate(lengths, 1)]
