"""The server for models that read: how it is started, and how much it computes at once."""

import io
import threading
import time
import wave
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_catalog import ModelRole
from mlx_recommend import calibration
from mlx_stack import json_file
from mlx_stack.engines.by_role import engine_of, program_of
from mlx_stack.engines.environment import (
    LOCK_COPY,
    MARKER,
    EngineName,
    Environment,
    Receipt,
    use_environment,
)
from mlx_stack.engines.mlx_vlm_sound import LONGEST_SOUND_S, wav_head
from mlx_stack.engines.mlx_vlm_start import TOKENS_AT_ONCE, batches, in_batches
from mlx_stack.engines.vllm_mlx import Serving, served_by
from mlx_stack.stack import Tier


def tier_of(role: ModelRole) -> Tier:
    return Tier(name="t", model="m", quant=None, source="/m", port=8009, vllm_flags={}, role=role)


def command(role: ModelRole, serving: Serving | None = None) -> tuple[str, ...]:
    tier, serving = tier_of(role), serving or Serving()
    return engine_of(tier).command(("python", "guard.py"), tier, Path("/models/m"), serving)


@pytest.mark.parametrize(
    ("role", "flag"),
    [
        (ModelRole.EMBEDDING, "--embedding-model"),
        (ModelRole.RERANK, "--reranker-model"),
        (ModelRole.SPEECH_TO_TEXT, "--stt-model"),
        (ModelRole.TEXT_TO_SPEECH, "--tts-model"),
    ],
)
def test_it_listens_on_loopback_only_and_has_one_model(role: ModelRole, flag: str) -> None:
    words = command(role)
    assert words[:3] == ("python", "guard.py", "mlx-vlm")
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index(flag) + 1] == "/models/m"
    assert served_by(words) == ("m", 8009)


def test_what_is_planned_beside_the_weights_bounds_what_is_computed() -> None:
    words = command(ModelRole.EMBEDDING, Serving(work_bytes=190_000_000))
    assert words[words.index("--work-bytes") + 1] == "190000000"
    assert "--work-bytes" not in command(ModelRole.EMBEDDING)


@pytest.mark.parametrize("role", ModelRole)
def test_no_engine_asks_the_hub(role: ModelRole) -> None:
    assert engine_of(tier_of(role)).environment(Path("/hf"))["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("role", [ModelRole.CHAT, ModelRole.VISION])
def test_what_chats_is_served_by_vllm_mlx(role: ModelRole) -> None:
    assert command(role)[2] == "serve"


@pytest.mark.parametrize(
    ("role", "program"),
    [
        (ModelRole.CHAT, ("vllm-mlx", "0.6.0")),
        (ModelRole.EMBEDDING, ("mlx-vlm", "0.7.10")),
        (ModelRole.TEXT_TO_SPEECH, ("mlx-vlm", "0.7.10")),
    ],
)
def test_the_program_that_serves_a_role_has_a_version_of_its_own(
    tmp_path: Path, role: ModelRole, program: tuple[str, str]
) -> None:
    assert program_of(tier_of(role), tmp_path) is None
    environment = Environment(EngineName.VLLM_MLX, tmp_path / "vllm-mlx" / "0.6.0-0f0f0f0f")
    (environment.path / "lib" / "python3.13" / "site-packages").mkdir(parents=True)
    environment.python.parent.mkdir()
    environment.python.touch()
    (environment.path / LOCK_COPY).write_text("mlx-lm==0.31.3\nmlx-vlm==0.7.10\n")
    receipt = Receipt(lock_sha256="", records_sha256="", installed_at="")
    json_file.write(environment.path / MARKER, receipt)
    use_environment(tmp_path, environment)
    assert program_of(tier_of(role), tmp_path) == program


def test_the_head_of_a_streamed_wav_file_is_one() -> None:
    with wave.open(io.BytesIO(wav_head(24_000) + b"\0\1" * 5)) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (24_000, 1, 2)
        assert sound.readframes(10) == b"\0\1" * 5


def test_the_memory_plan_counts_on_the_longest_sound_that_the_engine_takes() -> None:
    assert calibration.LONGEST_SOUND_S == LONGEST_SOUND_S


@given(st.lists(st.integers(1, 9000), max_size=200))
def test_every_text_is_computed_once_and_no_batch_is_larger_than_it_may_be(
    lengths: list[int],
) -> None:
    made = list(batches(lengths))
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    for batch in made:
        padded = len(batch) * max(lengths[index] for index in batch)
        assert padded <= TOKENS_AT_ONCE or len(batch) == 1


@given(st.lists(st.integers(1, 9000), max_size=100))
def test_what_comes_of_each_text_is_in_the_order_of_the_texts(lengths: list[int]) -> None:
    def compute(batch: list[int]) -> tuple[list[str], int]:
        return [f"of {each}" for each in batch], len(batch)

    texts = list(range(len(lengths)))
    assert in_batches(lengths, texts, compute) == ([f"of {each}" for each in texts], len(texts))


def test_batches_of_requests_that_come_together_are_computed_one_after_the_other() -> None:
    running = threading.Semaphore(1)
    together = list[bool]()

    def compute(batch: list[int]) -> tuple[list[int], int]:
        together.append(not running.acquire(blocking=False))
        time.sleep(0.001)
        running.release()
        return batch, 1

    def ask(texts: list[int]) -> None:
        in_batches([TOKENS_AT_ONCE] * len(texts), texts, compute)

    threads = [threading.Thread(target=ask, args=(list(range(5)),)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert together == [False] * 20
