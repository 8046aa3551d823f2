"""mlx_lm.server: how it is started, and what of a request reaches it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlx_catalog import ModelRole, ServingEngine
from mlx_stack.engines.by_role import engine_of, environment_name
from mlx_stack.engines.environment import EngineName, shipped_lock
from mlx_stack.engines.mlx_lm_start import UnservableError, cleaned
from mlx_stack.engines.vllm_mlx import Serving, served_by, settings_of
from mlx_stack.stack import Stack, Tier, contradiction

TIER: dict[str, Any] = {
    "name": "t", "model": "m", "quant": None, "source": "/m", "port": 8009, "vllm_flags": {},
    "engine": ServingEngine.MLX_LM,
}  # fmt: skip


def command(serving: Serving | None = None, **fields: object) -> tuple[str, ...]:
    tier = Tier(**{**TIER, **fields})
    start = ("python", "guard.py")
    return engine_of(tier).command(start, tier, Path("/models/m"), serving or Serving())


def value(words: tuple[str, ...], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_it_listens_on_loopback_only_and_serves_one_folder() -> None:
    words = command()
    assert words[:3] == ("python", "guard.py", "mlx-lm")
    assert value(words, "--host") == "127.0.0.1"
    assert value(words, "--model") == "/models/m"
    assert served_by(words) == ("m", 8009)
    assert "--trust-remote-code" not in words


def test_it_stands_in_an_environment_of_its_own_and_asks_no_hub() -> None:
    assert environment_name(Tier(**TIER)) is EngineName.MLX_LM
    assert engine_of(Tier(**TIER)).environment(Path("/hf"))["HF_HUB_OFFLINE"] == "1"
    assert shipped_lock(EngineName.MLX_LM).version_of("mlx-lm") == "0.32.2"


def test_a_plan_and_the_tiers_own_flags_decide_how_it_serves() -> None:
    serving = Serving(cache_bytes=5, prefill_step=512, tool_call_parser="poolside_v1")
    words = command(serving, concurrency=3, context_tokens=4096, mlx_lm_flags={"max-tokens": 9})
    assert value(words, "--decode-concurrency") == "3"
    assert value(words, "--prompt-cache-bytes") == "5"
    assert value(words, "--prefill-step-size") == "512"
    assert value(words, "--tool-parser") == "laguna"
    assert value(words, "--max-tokens") == "9"
    assert "--port" not in settings_of(words)
    assert "--decode-concurrency" in settings_of(words)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mlx_lm_flags": {"host": "0.0.0.0"}}, "a flag 'host'"),
        ({"mlx_lm_flags": {"trust-remote-code": True}}, "a flag 'trust-remote-code'"),
        ({"mlx_lm_flags": {"model": "/other"}}, "a flag 'model'"),
        ({"vllm_flags": {"timeout": 9}}, "see `mlx_lm_flags`"),
        ({"engine": None, "mlx_lm_flags": {"temp": 1}}, "vllm-mlx serves it"),
        ({"role": ModelRole.EMBEDDING}, "leaves no choice"),
        ({"role": ModelRole.VISION}, "can't read images"),
    ],
)
def test_what_the_engine_cannot_have_is_refused(fields: dict[str, object], said: str) -> None:
    problem = contradiction(Stack(tiers=(Tier(**{**TIER, **fields}),)))
    assert problem is not None
    assert said in problem


def asked(**fields: object) -> bytes:
    messages = [{"role": "developer", "content": "Be brief."}]
    return json.dumps({"model": "m", "messages": messages, **fields}).encode()


def test_nothing_of_a_request_loads_other_weights_or_another_template() -> None:
    words = {"enable_thinking": False, "chat_template": "x", "tokenize": False}
    given = {"adapters": "/a", "draft_model": "o/d", "role_mapping": {}, "temperature": None}
    fields = cleaned(asked(**given, chat_template_kwargs=words, reasoning_effort="low"), "m", 100)
    assert fields == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}],
        "reasoning_effort": "low",
        "chat_template_kwargs": {"enable_thinking": False, "reasoning_effort": "low"},
    }


def test_what_the_system_says_in_a_row_is_one_message_as_templates_demand() -> None:
    def said(*messages: tuple[str, object]) -> list[tuple[str, object]]:
        given = [{"role": role, "content": content} for role, content in messages]
        found = cleaned(asked(messages=given), "m", 100)["messages"]
        return [(message["role"], message["content"]) for message in found]

    parts = [{"type": "text", "text": "In "}, {"type": "text", "text": "Latin."}]
    assert said(("system", "Be brief."), ("developer", parts), ("user", "Hi")) == [
        ("system", "Be brief.\n\nIn Latin."), ("user", "Hi"),
    ]  # fmt: skip
    apart = [("system", "Be brief."), ("user", "Hi"), ("system", "In Latin.")]
    assert said(*apart) == apart


def test_a_client_that_wants_no_tool_shows_none_to_the_model() -> None:
    assert "tools" not in cleaned(asked(tools=[{}], tool_choice="none"), "m", 100)
    assert "tools" in cleaned(asked(tools=[{}], tool_choice="required"), "m", 100)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"no JSON", 400),
        (b"[]", 400),
        (b'{"model": "o/other"}', 404),
        (asked(response_format={"type": "json_object"}, tools=[{}]), 400),
        (b'{"model": "m", "prompt": [1, 2]}', 400),
        (asked(logit_bias={"100": 1}), 400),
        (asked(logit_bias={"-1": 1}), 400),
        (asked(logit_bias={"1" * 31: 1}), 400),
        (asked(logit_bias={"9" * 5000: 1}), 400),
        (asked(logit_bias={"1.5": 1}), 400),
        (asked(logit_bias={"1": float("inf")}), 400),
        (asked(logit_bias={"1": float("nan")}), 400),
        (asked(logit_bias={"1": 10**400}), 400),
        (asked(logit_bias={"1": True}), 400),
        (asked(logit_bias={"0" * 9 + "1": 1}), 400),
        (asked(logit_bias=[1]), 400),
    ],
)
def test_what_the_server_would_get_wrong_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(UnservableError) as refused:
        cleaned(body, "m", 100)
    assert refused.value.status == status


def test_the_bounds_of_what_chooses_a_token_are_the_models_own() -> None:
    bias = {"0": -100, "99": 0.5}
    assert cleaned(asked(logit_bias=bias), "m", 100)["logit_bias"] == bias
    many = {str(number): 1 for number in range(1025)}
    with pytest.raises(UnservableError, match="at most 1024 tokens"):
        cleaned(asked(logit_bias=many), "m", 2000)
    limits = [cleaned(asked(top_k=top_k), "m", 100)["top_k"] for top_k in (-1, 99, 100, 10**6)]
    assert limits == [0, 99, 0, 0]


ENGINE = """
import sys, threading
from types import SimpleNamespace as Module
from mlx_stack.engines import mlx_lm_start

class Logits:
    shape = (1, 1, 100)

class Generator:
    def __init__(self, provider, kept):
        self.cli_args, self.dies = provider.cli_args, threading.Event()
        self.thread = threading.Thread(target=self.generate, args=(provider,))
        self.thread.start()
    def _tokenize(self, *arguments):
        return [], []
    def generate(self, provider):
        provider.load_default()
        self.dies.wait()
    def generation_available(self):
        return self.thread.is_alive()
    def join(self):
        self.thread.join()

def serve(application, **_):
    generator = application._generator
    print("top-k", generator.cli_args.top_k)
    try:
        generator._tokenize("words")
    except ValueError as error:
        print(error, flush=True)
    generator.dies.set()
    threading.Event().wait()  # as a server that goes on

distributed = Module(init=lambda: Module(rank=lambda: 0, size=lambda: 1))
sys.modules["mlx.core"] = Module(distributed=distributed, array=list)
sys.modules["mlx_lm.models.cache"] = Module(make_prompt_cache=lambda model: [])
sys.modules["uvicorn"] = Module(run=serve)
server = Module(
    LRUPromptCache=lambda *_: None, ResponseGenerator=Generator, APIHandler=object,
    process_message_content=None, get_system_fingerprint=lambda: "",
)
options = Module(model="/m", prompt_cache_size=1, prompt_cache_bytes=1, top_k=1000000)
provider = Module(
    cli_args=options, _model_map={}, _adapter_map={}, load_default=lambda: None,
    model=lambda tokens, cache: Logits(),
)
mlx_lm_start.run(server, "m", mlx_lm_start.Meetings(()), "127.0.0.1", 1, provider)
"""


def test_a_server_whose_generation_has_ended_ends_so_that_another_is_started() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENGINE], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1, ended.stderr
    assert "the thread that generates has ended" in ended.stderr
    # and neither an empty prompt nor the tier's own `top-k` is what ends it
    assert ended.stdout.splitlines() == ["top-k 0", "The prompt is empty."]


RANK = """
import socket, sys
from types import SimpleNamespace as Module
from mlx_stack.engines import mlx_lm_start

opened = []

def init(strict=False, backend="any"):
    if sys.argv[1] != backend:
        raise RuntimeError(f"Cannot initialize {backend} distributed backend.")
    waiting = socket.create_server(("127.0.0.1", 0))
    opened.extend((waiting, socket.create_connection(waiting.getsockname())))

sys.modules["mlx.core"] = Module(distributed=Module(init=init))
found = mlx_lm_start.joined_ring()
print(list(found) == [each.fileno() for each in opened[1:]], flush=True)
"""


def joined(there: str, **variables: str) -> tuple[int, str, str]:
    """How a rank fares where MLX has one of its backends: its exit code, and what it says."""
    process = subprocess.Popen(
        [sys.executable, "-c", RANK, there],
        env={"MLX_RANK": "1", **variables},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    with process:  # its standard input stays open until it has said all
        out, err = process.stdout.read(), process.stderr.read()
    return process.returncode, out, err


OVER_RDMA = {"MLX_JACCL_COORDINATOR": "10.0.0.1:20000"}


def test_a_rank_waits_for_its_neighbours_on_the_ring_and_never_over_rdma() -> None:
    assert joined("ring") == (0, "True\n", "")
    # the socket over which they agreed on RDMA stays silent: who waits there would miss meetings
    assert joined("jaccl", **OVER_RDMA) == (0, "False\n", "")


@pytest.mark.parametrize(
    ("there", "variables", "said"),
    [
        ("ring", OVER_RDMA, "over RDMA: Cannot initialize jaccl distributed backend."),
        ("jaccl", {}, "over TCP: Cannot initialize ring distributed backend."),
    ],
)
def test_a_rank_takes_no_other_way_than_the_one_that_is_meant(
    there: str, variables: dict[str, str], said: str
) -> None:
    assert joined(there, **variables) == (
        1,
        "",
        f"error: the other ranks can't be reached {said}\n",
    )
