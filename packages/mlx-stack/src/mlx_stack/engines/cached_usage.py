"""Lets the engine say in `usage` how many tokens of a prompt came from its cache.

The pinned engine knows it of every request, and says it in its log. `guard.py` applies this in the
engine's own process, so this file imports nothing but the standard library, and no file of the
engine is changed. A test shows that the engine doesn't say it by itself: once it does, that test
fails, and this goes (decision 0026).
"""

from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from typing import Any

_asked: ContextVar[list[Any] | None] = ContextVar("asked", default=None)
"""What an HTTP request has asked of the engine: its own list, which all its tasks share."""


def apply() -> None:
    """Add the field to the answers of chat completions, completions and responses."""
    if find_spec("vllm_mlx") is None or find_spec("vllm_mlx.engine_core") is None:
        return
    _begin_a_list_with_each_request(import_module("fastapi").FastAPI)
    _remember_what_is_asked(import_module("vllm_mlx.engine_core").EngineCore)
    _say_it(import_module("vllm_mlx.api.models"))
    _count_it(import_module("vllm_mlx.api.responses_models"))


def cached_tokens() -> int | None:
    """What the cache answered of this HTTP request's prompt; None where nobody can tell.

    A request to the engine's half for pictures isn't among those that are remembered.
    """
    asked = _asked.get()
    return sum(each.cached_tokens or 0 for each in asked) if asked else None


def _begin_a_list_with_each_request(application: Any) -> None:
    call = application.__call__

    async def call_with_list(self: Any, scope: Any, receive: Any, send: Any) -> None:
        _asked.set([])
        await call(self, scope, receive, send)

    application.__call__ = call_with_list


def _remember_what_is_asked(core: Any) -> None:
    add = core.add_request

    async def add_and_remember(self: Any, *args: Any, **more: Any) -> str:
        request_id: str = await add(self, *args, **more)
        asked, request = _asked.get(), self.scheduler.requests.get(request_id)
        if asked is not None and request is not None:
            asked.append(request)
        return request_id

    core.add_request = add_and_remember


def _say_it(models: Any) -> None:
    """Give `usage` OpenAI's `prompt_tokens_details`, and whatever holds a `usage` the new shape."""
    pydantic: Any = import_module("pydantic")

    def details() -> dict[str, int] | None:
        cached = cached_tokens()
        return None if cached is None else {"cached_tokens": cached}

    models.Usage.__pydantic_fields__["prompt_tokens_details"] = pydantic.fields.FieldInfo(
        annotation=dict[str, int] | None, default_factory=details
    )
    _build_again(models, pydantic.BaseModel)


def _count_it(models: Any) -> None:
    """Let the Responses API's own count be the true one; it is always 0 otherwise."""
    pydantic: Any = import_module("pydantic")
    fields = models.ResponsesInputTokenDetails.__pydantic_fields__
    fields["cached_tokens"] = pydantic.fields.FieldInfo(
        annotation=int, default_factory=lambda: cached_tokens() or 0
    )
    _build_again(models, pydantic.BaseModel)


def _build_again(models: Any, base: type) -> None:
    """Let every shape of a module know the fields that its parts have now."""
    for shape in models.__dict__.values():
        if _is_shape(shape, base):
            shape.model_rebuild(force=True)


def _is_shape(each: Any, base: type) -> bool:
    return isinstance(each, type) and issubclass(each, base) and each is not base
