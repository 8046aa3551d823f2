"""A conversation goes on after the engine was stopped and started again, and says the same."""

import pytest

from mlx_stack.engines.kept_on_disk import FILE, DiskBounds
from mlx_stack.engines.vllm_mlx import Serving
from stack_testkit.conversations import Conversation, Engine
from stack_testkit.tiny_families import make_tiny_family

pytestmark = pytest.mark.engine

HEAD_TOKENS, TURN_TOKENS, ANSWER_TOKENS = 200, 70, 12


@pytest.mark.parametrize("name", ["full attention", "sliding window", "gated delta that sees"])
def test_a_turn_after_a_restart_costs_its_new_tokens_and_says_the_same(
    serve, stop, vllm_mlx_environment, embedded_model, tmp_path, name
):
    model = make_tiny_family(
        tmp_path / "tiny",
        name,
        tokenizer_of=embedded_model,
        engine_python=vllm_mlx_environment.python,
    )
    kept = DiskBounds(tmp_path / "kept" / "standard", 10**9)
    kept.folder.parent.mkdir()

    def started() -> Engine:
        traits = Serving(reuses_prefixes=True)
        url = serve(model, traits=traits, concurrency=2, has_additions=True, kept=kept)
        return Engine(url, tmp_path / "logs" / "standard.log")

    engine = started()
    known, other, new = (
        Conversation(seed, HEAD_TOKENS, TURN_TOKENS, shortens=False) for seed in range(3)
    )
    other.messages[0] = new.messages[0] = known.messages[0]
    for conversation in (known, other):
        conversation.next(engine, ANSWER_TOKENS)
    stop("standard")
    files = [path.name for path in kept.folder.iterdir()]
    assert len(files) == 2
    assert all(map(FILE.fullmatch, files))
    damaged = [kept.folder / f"{number:064}.safetensors" for number in range(2)]
    for path, name_on_disk in zip(damaged, files, strict=True):
        path.write_bytes((kept.folder / name_on_disk).read_bytes())

    engine = started()
    known.next(engine, ANSWER_TOKENS)
    new.next(engine, ANSWER_TOKENS)
    assert known.turns[-1].read_tokens <= 1.1 * known.new_tokens()[-1]
    assert new.turns[0].read_tokens <= 1.5 * TURN_TOKENS, "the system prompt was read again"
    assert not all(path.exists() for path in damaged), "one comes before what is used"
    for conversation in (known, new):
        engine.forget()
        fresh = engine.ask(conversation.messages[:-1], ANSWER_TOKENS)
        assert fresh.read_tokens > 2 * TURN_TOKENS
        assert fresh.answer == conversation.turns[-1].answer
    assert not list(kept.folder.iterdir()), "the engine was told to forget"
