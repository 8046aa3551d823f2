"""Lets requests without pictures be read by the text half of a model that also sees.

With batching, the pinned engine serves such a model by its half for pictures alone: that reads each
prompt in one go on the thread that answers, so that nobody else is served meanwhile, and keeps
nothing of a recurrent model that a next turn could use. In its simple mode the engine already
builds a second, textual model around the weights that are there; here batching does so too, and
only what has pictures or sounds goes the other way (decision 0023).

`guard.py` applies this in the engine's own process, so this file imports nothing but the standard
library, and no file of the engine is changed.
"""

import copy
import logging
from contextlib import aclosing
from importlib import import_module
from importlib.util import find_spec
from typing import Any

_log = logging.getLogger("vllm_mlx.text_route")
_SUMS = (
    *("num_running", "num_waiting", "num_requests_processed"),
    *("total_prompt_tokens", "total_completion_tokens", "steps_executed"),
)


def apply() -> None:
    """Give the engine's batching half the route, where it is installed."""
    if find_spec("vllm_mlx") is None or find_spec("vllm_mlx.engine") is None:
        return
    batched: Any = import_module("vllm_mlx.engine.batched").BatchedEngine
    _start_both(batched)
    _ask_either(batched)
    _say_of_both(batched)


def _start_both(batched: Any) -> None:
    start, stop = batched._start_mllm, batched.stop  # noqa: SLF001 - there is no other way in

    async def start_both(self: Any) -> None:
        await start(self)
        self._text = await _text_engine(self)

    async def stop_both(self: Any) -> None:
        self._text = None  # its parts are this engine's own, which stops them
        await stop(self)

    batched._start_mllm, batched.stop = start_both, stop_both  # noqa: SLF001


def _ask_either(batched: Any) -> None:
    generate, stream, abort = batched.generate, batched.stream_generate, batched.abort_request

    async def generate_by_either(self: Any, prompt: str, *args: Any, **more: Any) -> Any:
        return await generate(_text_of(self, more) or self, prompt, *args, **more)

    async def stream_by_either(self: Any, prompt: str, *args: Any, **more: Any) -> Any:
        async with aclosing(stream(_text_of(self, more) or self, prompt, *args, **more)) as outputs:
            async for output in outputs:
                yield output

    async def abort_either(self: Any, request_id: str) -> bool:
        text = getattr(self, "_text", None)
        if text is not None and request_id in text._engine.engine.scheduler.requests:  # noqa: SLF001
            return await abort(text, request_id)
        return await abort(self, request_id)

    batched.generate, batched.stream_generate = generate_by_either, stream_by_either
    batched.abort_request = abort_either


def _say_of_both(batched: Any) -> None:
    stats, cache_stats = batched.get_stats, batched.get_cache_stats

    def stats_of_both(self: Any) -> dict[str, Any]:
        text = getattr(self, "_text", None)
        return stats(self) if text is None else _joined(stats(self), stats(text))

    def cache_stats_of_both(self: Any) -> Any:
        text = getattr(self, "_text", None)
        if text is None:
            return cache_stats(self)
        one: dict[str, Any] = cache_stats(self) or {}
        other: dict[str, Any] = cache_stats(text) or {}
        return one | other

    batched.get_stats, batched.get_cache_stats = stats_of_both, cache_stats_of_both
    for name in ("_clear_runtime_caches_on_owner", "_clear_prefix_cache_on_owner"):
        setattr(batched, name, _in_both(getattr(batched, name)))


def _in_both(act: Any) -> Any:
    async def act_in_both(self: Any) -> Any:
        text = getattr(self, "_text", None)
        if text is not None:
            await act(text)
        return await act(self)

    return act_in_both


def _text_of(engine: Any, request: dict[str, Any]) -> Any:
    """What serves the request as text; None where the engine itself must."""
    seen = any(request.get(each) for each in ("images", "videos", "audio"))
    return None if seen else getattr(engine, "_text", None)


async def _text_engine(engine: Any) -> Any:
    """The engine as it would be for the textual model alone; None where there is no such model."""
    config = engine._scheduler_config  # noqa: SLF001
    if engine._mllm_draft_model is not None or (config is not None and config.enable_mtp):  # noqa: SLF001
        return None
    build = import_module("vllm_mlx.text_model_from_vlm").build_text_model
    model = build(engine._model, engine._model_path, enable_mtp=False)  # noqa: SLF001
    if model is None:
        _log.info("no textual model of this kind: every request takes the path for images")
        return None
    ends = import_module("vllm_mlx.utils.tokenizer").collect_eos_token_ids(engine.tokenizer)
    wrapper = import_module("mlx_lm.tokenizer_utils").TokenizerWrapper
    text = copy.copy(engine)
    text._is_mllm, text._mllm_scheduler, text._processor = False, None, None  # noqa: SLF001
    text._model, text._text = model, None  # noqa: SLF001
    text._tokenizer = wrapper(engine.tokenizer, eos_token_ids=ends or None)  # noqa: SLF001
    text._generation_executor = None  # noqa: SLF001
    await text._start_llm()  # noqa: SLF001
    text._loaded = True  # noqa: SLF001 - else its first request would start a second one
    # so that it stops with the engine, and counts as healthy with it
    engine._engine, engine._generation_executor = text._engine, text._generation_executor  # noqa: SLF001
    engine._generation_thread_id = text._generation_thread_id  # noqa: SLF001
    _log.info("requests without pictures are read by the textual model")
    return text


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = one | {"memory_aware_cache": other.get("memory_aware_cache")}
    both |= {name: (one.get(name) or 0) + (other.get(name) or 0) for name in _SUMS}
    both["requests"] = [*one.get("requests", ()), *other.get("requests", ())]
    return both
