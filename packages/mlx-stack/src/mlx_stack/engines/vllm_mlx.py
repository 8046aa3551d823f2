"""The command line of a vllm-mlx engine, from a tier and what is known of its model.

Flags are those of the pinned engine (vllm-mlx 0.6.0). What a tier's `vllm_flags` says is added
last, and replaces what stands here.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

from mlx_stack.engines import guard, mlx_lm_start
from mlx_stack.engines.environment import Environment
from mlx_stack.stack import FlagValue, Tier

LOOPBACK = "127.0.0.1"
REQUEST_TIMEOUT_S = 600
"""As long as the gateway waits: the prefill of a long prompt takes minutes on a small Mac."""
MAX_ANSWER_TOKENS = 32_768
"""The longest answer where the client names none: the engine's own default."""
MAX_REQUEST_TOKENS = 1_000_000
"""What a client may name: agents ask for more than any answer has, and the default of 32,768 would
refuse them. The model stops by itself."""
_MTP_HEADS = ("mtp/weights.safetensors", "model-mtp.safetensors")
STEP_TOKENS = 512
"""Of prompts, at most, with batching: a short prompt waits for the step that is being read. The
engine's own 2,048 is hardly faster (decision 0023)."""
_ADDRESS_FLAGS = frozenset({"--served-model-name", "--host", "--port", "--model"})
DEFAULT_CACHE_BYTES = 2**30
"""For prefixes kept between requests, where nobody planned. The engine's own default, a fifth of
the machine's free memory for each engine, would leave none for several."""


@dataclass(frozen=True, slots=True)
class Serving:
    """How a tier is to be served, apart from what it says itself; the default suits any model.

    Attributes:
        tool_call_parser: A value of `--tool-call-parser`, or "" where the model calls no tools.
        reasoning_parser: A value of `--reasoning-parser`, or "" where the model doesn't think.
        batching: Whether several requests may be decoded side by side; else they wait in line.
        reuses_prefixes: Whether what two requests begin with alike is read once, where the engine
            keeps it.
        multimodal: Whether the engine serves it with its half for images.
        has_mtp: Whether it can draft with heads of its own: see `finds_mtp_heads`.
        cache_bytes: The memory for prefixes kept between requests; None where nobody planned it.
        prefill_step: Tokens of a prompt that memory allows to compute at once; None sets no limit.
        dimensions: How long an embedder's vectors are; None where that isn't known.
        shortens: Whether the beginning of such a vector is one by itself (Matryoshka).
        pooling: How one vector is made of those of a text's tokens, where the model's files don't
            say; "" where nothing else says, either.
        work_bytes: What MLX may take beside the weights of a model that only reads; None where
            nobody planned it.
        runs_own_code: Whether the model's folder holds Python that the user allowed.
    """

    tool_call_parser: str = ""
    reasoning_parser: str = ""
    batching: bool = True
    reuses_prefixes: bool = False
    multimodal: bool = False
    has_mtp: bool = False
    cache_bytes: int | None = None
    prefill_step: int | None = None
    dimensions: int | None = None
    shortens: bool = False
    pooling: str = ""
    work_bytes: int | None = None
    runs_own_code: bool = False


def environment(hf_home: Path) -> dict[str, str]:
    """What an engine needs in its environment.

    Args:
        hf_home: Where Hugging Face's libraries may put what they make of a model's own code; made
            by them if at all.
    """
    return {
        # a request that comes while another is being answered waits; the default is a 503
        "VLLM_MLX_SIMPLE_ENGINE_LOCK_ADMISSION": "wait",
        # system prompts kept in simple mode, which no flag limits; the default is 4
        "VLLM_MLX_SYSTEM_KV_SLOTS": "2",
        # with batching, conversations would be written to ~/.cache/vllm-mlx whenever the engine
        # stops or unloads; no other setting than its home keeps them off the disk
        **closed_environment(hf_home),
    }


def closed_environment(hf_home: Path) -> dict[str, str]:
    """What any engine needs in its environment, so that it finds and writes nothing elsewhere.

    Args:
        hf_home: Where Hugging Face's libraries look for models of others: nowhere.
    """
    # without the last, servers load whatever a request names from the Hub
    return {"HOME": "/dev/null", "HF_HOME": str(hf_home), "HF_HUB_OFFLINE": "1"}


def guarded(environment: Environment) -> tuple[str, ...]:
    """The beginning of a command line that runs the engine in `environment` behind the guard."""
    return (str(environment.python), "-I", "-u", str(Path(guard.__file__)))


def command(
    start: tuple[str, ...],
    tier: Tier,
    model_folder: Path,
    serving: Serving | None = None,
) -> tuple[str, ...]:
    """The command line that serves `tier` on loopback.

    Args:
        start: What runs the engine, `guarded(environment)`.
        tier: What to serve; requests must name `tier.model`.
        model_folder: The model's folder; absolute, so that nothing is ever downloaded.
        serving: How.
    """
    flags = flags_of(tier, serving or Serving())
    return (*start, "serve", str(model_folder), *words_of(flags))


def flags_of(tier: Tier, serving: Serving) -> dict[str, FlagValue]:
    """The flags by which a tier is served, with its own ones."""
    return _flags(tier, serving) | tier.vllm_flags


def served_by(command: tuple[str, ...]) -> tuple[str | None, int | None]:
    """The model's name and the port of a command line of `command`; None where it names none."""
    values = dict(itertools.pairwise(command))
    port = values.get("--port", "")
    return values.get("--served-model-name"), int(port) if port.isdigit() else None


def settings_of(command: tuple[str, ...]) -> tuple[str, ...]:
    """The flags of an engine's command line, without names and addresses: how it serves."""
    if "serve" in command:
        words = iter(command[command.index("serve") + 2 :])
    elif mlx_lm_start.PROGRAM in command:
        words = iter(command[command.index(mlx_lm_start.PROGRAM) + 1 :])
    else:
        return ()
    kept: list[str] = []
    for word in words:
        if word in _ADDRESS_FLAGS:
            next(words, None)
        else:
            kept.append(word)
    return tuple(kept)


def finds_mtp_heads(folder: Path) -> bool:
    """Whether a model's folder has heads for multi-token prediction where the engine looks.

    It loads them for Qwen3.5 and its successors of that type, served by its half for images with
    batching, and drafts with them for a single greedy request; elsewhere `--enable-mtp` does
    nothing. Conversions by mlx-lm leave the heads out.
    """
    return any((folder / each).is_file() for each in _MTP_HEADS)


def reads_in_silence(tier: Tier, serving: Serving) -> bool:
    """Whether the engine of `tier` answers nothing at all while it reads a prompt.

    With batching, the half for images reads on the thread that answers.
    """
    flags = flags_of(tier, serving)
    multimodal = serving.multimodal or flags.get("mllm") is True
    return multimodal and flags.get("continuous-batching") is True


def _flags(tier: Tier, serving: Serving) -> dict[str, FlagValue]:
    flags: dict[str, FlagValue] = {
        "served-model-name": tier.model,
        "host": LOOPBACK,
        "port": tier.port,
        "offline": True,
        "enable-metrics": True,
        "timeout": REQUEST_TIMEOUT_S,
        "max-tokens": min(MAX_ANSWER_TOKENS, tier.context_tokens or MAX_ANSWER_TOKENS),
        "max-request-tokens": MAX_REQUEST_TOKENS,
    }
    if serving.tool_call_parser:
        flags["enable-auto-tool-choice"] = True
        flags["tool-call-parser"] = serving.tool_call_parser
    if serving.reasoning_parser:
        flags["reasoning-parser"] = serving.reasoning_parser
    caching = _caching(tier, serving)
    steps = [STEP_TOKENS] if "continuous-batching" in caching else []
    steps += [serving.prefill_step] if serving.prefill_step is not None else []
    if steps:
        flags["prefill-step-size"] = min(steps)
    return flags | caching


def _caching(tier: Tier, serving: Serving) -> dict[str, FlagValue]:
    """How requests share the engine, and what it keeps of the finished ones.

    Batching serves a single request as well where prefixes can be reused: the simple mode keeps
    nothing but system prompts, and reads every turn of a conversation from its beginning. A batch
    of one is right for every cache.
    """
    at_once = tier.concurrency if serving.batching else 1
    if at_once == 1 and not serving.reuses_prefixes:
        return {}
    return {
        "continuous-batching": True,
        "max-num-seqs": at_once,
        "cache-memory-mb": max(1, (serving.cache_bytes or DEFAULT_CACHE_BYTES) // 2**20),
    }


def words_of(flags: dict[str, FlagValue]) -> list[str]:
    """`{"port": 8000, "offline": True, "mllm": False}` → `--port 8000 --offline`."""
    words: list[str] = []
    for name, value in flags.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not False:
            words += [f"--{name}", str(value)]
    return words
