"""Faults of the pinned engine and its libraries, fixed here until a lock holds them fixed.

`guard.py` applies them in the engine's own process, so this file imports nothing but the standard
library, and no file of the engine is changed. Each names the change upstream, if there is one. A
test shows each fault without its fix: when the pinned engine has none of them any more, it fails,
and this goes (decision 0026).
"""

from contextlib import aclosing
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def apply() -> None:
    """Fix what is known of the libraries that are installed where this runs."""
    if find_spec("mlx_lm") is not None:
        bound_recurrent_metadata()
    if find_spec("vllm_mlx") is not None and find_spec("vllm_mlx.scheduler") is not None:
        end_requests_that_wait()
        end_whole_answers()


def bound_recurrent_metadata() -> None:
    """Let the caches of hybrid models hold no more after a million tokens than after one.

    A batch's cache counts its padding down with each token, and nothing ever computes the result:
    the chain of subtractions grows, with a small buffer of the GPU for each, in each recurrent
    layer, until Metal has no more to give (`Resource limit (499000) exceeded`). Bound to the state,
    the counts are computed whenever the state is: https://github.com/ml-explore/mlx-lm/pull/1632.
    """
    mx: Any = import_module("mlx.core")
    caches: Any = import_module("mlx_lm.models.cache")
    count_down = caches.ArraysCache.advance

    def advance(cache: Any, tokens: int) -> None:
        count_down(cache, tokens)
        counts = [each for each in (cache.lengths, cache.left_padding) if each is not None]
        for index, state in enumerate(cache.cache):
            if counts and state is not None:
                cache.cache[index] = mx.depends([state], counts)[0]
                break

    caches.ArraysCache.advance = advance


def end_requests_that_wait() -> None:
    """Let a request whose client left while it waited inside the engine end there.

    The engine core forgets such a request before its scheduler deals with the abort, which then
    looks for it among the known ones only. It stays in the line, and is answered to its last token
    for nobody: two of them fill a tier that takes two at once.
    """
    scheduler: Any = import_module("vllm_mlx.scheduler").Scheduler
    abort = scheduler._do_abort_request  # noqa: SLF001 - there is no other way in

    def abort_also_forgotten(self: Any, request_id: str) -> bool:
        if request_id not in self.requests:
            for request in [each for each in self.waiting if each.request_id == request_id]:
                self.waiting.remove(request)
        return abort(self, request_id)

    scheduler._do_abort_request = abort_also_forgotten  # noqa: SLF001


def end_whole_answers() -> None:
    """Let an answer that isn't streamed end when its client leaves, in the engine's simple mode.

    The engine writes it in one call that nothing can stop, up to its last token, and takes no other
    request meanwhile. With tools it collects the stream instead, which can be stopped; so it does
    now without tools as well.
    """
    simple: Any = import_module("vllm_mlx.engine.simple")
    in_one_call = simple.SimpleEngine.chat

    async def chat(self: Any, messages: Any, **more: Any) -> Any:
        if self._is_mllm:  # collects already where it can
            return await in_one_call(self, messages, **more)
        last = simple.GenerationOutput(text="")
        async with aclosing(self.stream_chat(messages=messages, **more)) as stream:
            async for output in stream:
                last = output
        return replace(last, text=simple.clean_output_text(last.text))

    simple.SimpleEngine.chat = chat
