"""The command line of an engine."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.engines.vllm_mlx import Serving, command, environment, reads_in_silence
from mlx_stack.stack import Tier

START = ("/engines/vllm-mlx/bin/vllm-mlx",)
FOLDER = Path("/models/some-model")


def tier(**fields) -> Tier:
    usual = {
        "name": "standard",
        "model": "some-model",
        "quant": "int4",
        "source": "org/some-model",
        "port": 8000,
        "vllm_flags": {},
    }
    return Tier(**{**usual, **fields})


def value_of(words: tuple[str, ...], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_an_engine_serves_a_folder_on_loopback_and_never_downloads():
    words = command(START, tier(port=8123), FOLDER)
    assert words[:3] == (*START, "serve", str(FOLDER))
    assert value_of(words, "--host") == "127.0.0.1"
    assert value_of(words, "--port") == "8123"
    assert value_of(words, "--served-model-name") == "some-model"
    assert "--offline" in words


def test_tools_are_called_only_with_a_parser():
    assert "--enable-auto-tool-choice" not in command(START, tier(), FOLDER)
    words = command(START, tier(), FOLDER, Serving(tool_call_parser="qwen3_xml"))
    assert "--enable-auto-tool-choice" in words
    assert value_of(words, "--tool-call-parser") == "qwen3_xml"


def test_thinking_is_told_apart_with_a_parser():
    words = command(START, tier(), FOLDER, Serving(reasoning_parser="qwen3"))
    assert value_of(words, "--reasoning-parser") == "qwen3"


def test_a_planned_prefill_step_is_passed_on_and_no_step_leaves_it_to_the_engine():
    words = command(START, tier(), FOLDER, Serving(prefill_step=1024))
    assert value_of(words, "--prefill-step-size") == "1024"
    assert "--prefill-step-size" not in command(START, tier(), FOLDER)


@pytest.mark.parametrize(("planned", "step"), [(None, "512"), (1024, "512"), (256, "256")])
def test_a_batch_reads_in_short_steps_so_that_nobody_waits_for_a_long_one(planned, step):
    words = command(START, tier(concurrency=2), FOLDER, Serving(prefill_step=planned))
    assert value_of(words, "--prefill-step-size") == step


def test_requests_are_batched_where_several_are_served():
    assert "--continuous-batching" not in command(START, tier(concurrency=1), FOLDER)
    words = command(START, tier(concurrency=4), FOLDER, Serving(cache_bytes=3 * 2**30))
    assert "--continuous-batching" in words
    assert value_of(words, "--max-num-seqs") == "4"
    assert value_of(words, "--cache-memory-mb") == "3072"


def test_requests_to_a_model_that_can_t_be_batched_wait_in_line():
    traits = Serving(batching=False, reuses_prefixes=True)
    for concurrency in (1, 4):
        words = command(START, tier(concurrency=concurrency), FOLDER, traits)
        assert value_of(words, "--max-num-seqs") == "1"


def test_a_model_that_can_t_be_batched_and_reuses_nothing_is_served_simply():
    words = command(START, tier(concurrency=4), FOLDER, Serving(batching=False))
    assert "--continuous-batching" not in words


def test_a_single_request_s_conversation_is_kept_where_that_saves_reading_it_again():
    serving = Serving(reuses_prefixes=True, cache_bytes=2 * 2**30)
    words = command(START, tier(concurrency=1), FOLDER, serving)
    assert "--continuous-batching" in words
    assert value_of(words, "--max-num-seqs") == "1"
    assert value_of(words, "--cache-memory-mb") == "2048"


@pytest.mark.parametrize(
    ("traits", "fields", "silent"),
    [
        (Serving(multimodal=True), {"concurrency": 2}, True),
        (Serving(multimodal=True), {"concurrency": 1}, False),
        (Serving(), {"concurrency": 2}, False),
        (Serving(), {"concurrency": 2, "vllm_flags": {"mllm": True}}, True),
        (Serving(multimodal=True), {"vllm_flags": {"continuous-batching": True}}, True),
    ],
)
def test_engines_that_batch_images_and_text_read_prompts_in_silence(traits, fields, silent):
    assert reads_in_silence(tier(**fields), traits) is silent


def test_without_a_plan_the_cache_is_bounded_all_the_same():
    assert value_of(command(START, tier(concurrency=2), FOLDER), "--cache-memory-mb") == "1024"


def test_an_answer_whose_length_nobody_named_stays_within_the_planned_context():
    words = command(START, tier(context_tokens=8192), FOLDER)
    assert value_of(words, "--max-tokens") == "8192"
    words = command(START, tier(context_tokens=131072), FOLDER)
    assert value_of(words, "--max-tokens") == "32768"


def test_an_engine_has_no_home_to_leave_conversations_in():
    variables = environment(Path("/state/huggingface"))
    assert variables["HOME"] == "/dev/null"
    assert variables["HF_HOME"] == "/state/huggingface"
    assert variables["HF_HUB_OFFLINE"] == "1"


def test_a_paged_cache_is_never_used():
    for concurrency in (1, 8):
        assert "--use-paged-cache" not in command(START, tier(concurrency=concurrency), FOLDER)


def test_an_engine_loads_at_once_since_what_rests_has_no_process():
    assert command(START, tier(lazy=True, idle_unload_s=900), FOLDER) == command(
        START, tier(), FOLDER
    )


def test_the_user_s_flags_replace_ours():
    flags = {"timeout": 30, "enable-metrics": False, "default-temperature": 0.2, "mllm": True}
    words = command(START, tier(vllm_flags=flags), FOLDER)
    assert value_of(words, "--timeout") == "30"
    assert words.count("--timeout") == 1
    assert "--enable-metrics" not in words
    assert value_of(words, "--default-temperature") == "0.2"
    assert "--mllm" in words


@given(
    concurrency=st.integers(1, 64),
    cache_bytes=st.none() | st.integers(0, 2**40),
    lazy=st.booleans(),
)
def test_every_command_line_is_words_without_repeated_flags(concurrency, cache_bytes, lazy):
    words = command(
        START, tier(concurrency=concurrency, lazy=lazy), FOLDER, Serving(cache_bytes=cache_bytes)
    )
    flags = [word for word in words if word.startswith("--")]
    assert len(flags) == len(set(flags))
    assert all(words)
