"""Lets answers of mlx_lm.server be held to JSON, or to a JSON schema, by llguidance.

`guard.py` applies it in the engine's environment, so it imports nothing but the standard library,
and no file of the engine is changed. By itself the server ignores `response_format`. A grammar is
made of it before the request reaches the model; then, token by token, whatever the grammar doesn't
allow gets no chance. Thoughts before the answer are free (decision 0105).
"""

import json
import logging
from importlib import import_module
from threading import Lock
from typing import Any, cast

_WHITESPACE = r"[ \t\n\r]{0,32}"
"""Between the parts of an answer; without a bound, small models go on with it for ever."""
_LONGEST_SCHEMA = 256 * 1024

_log = logging.getLogger("mlx-lm")


def apply() -> None:
    """Let the server look for a `form` in what it is told of a request, and make those."""
    server: Any = import_module("mlx_lm.server")
    make: Any = server._make_logits_processors  # noqa: SLF001 - the only way in

    def make_with_form(options: Any) -> list[Any]:
        form = getattr(options, "form", None)
        return [*make(options), *([form] if form is not None else [])]

    server._make_logits_processors = make_with_form  # noqa: SLF001
    server.make_form = _Forms().make


class _Forms:
    """What makes forms. The tokenizer is prepared once, which takes a second."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._prepared: Any = None

    def make(self, response_format: object, tokenizer: Any) -> "FormProcessor | None":
        """What an answer is to be held to; None for one that is free.

        Raises:
            ValueError: When it isn't known, or no grammar can be made of it.
        """
        schema = schema_of(response_format)
        if schema is None:
            return None
        llguidance: Any = import_module("llguidance")
        with self._lock:
            if self._prepared is None:
                self._prepared = import_module("llguidance.hf").from_tokenizer(
                    tokenizer._tokenizer,  # noqa: SLF001 - mlx-lm's wraps it
                    eos_token=sorted(tokenizer.eos_token_ids),
                )
        grammar = llguidance.LLMatcher.grammar_from_json_schema(
            schema, defaults={"whitespace_pattern": _WHITESPACE}
        )
        matcher = llguidance.LLMatcher(self._prepared, grammar)
        if matcher.is_error():
            raise ValueError(f"`response_format` can't be followed: {matcher.get_error()[:500]}")
        return FormProcessor(matcher, self._prepared.vocab_size, tokenizer)


def schema_of(response_format: object) -> str | None:
    """The JSON schema of a `response_format`, as JSON; None where the answer is free.

    Raises:
        ValueError: When it is neither.
    """
    said = _object(response_format)
    kind = said.get("type")
    if response_format is None or kind == "text":
        return None
    if kind == "json_object":
        return '{"type": "object"}'
    schema = _object(said.get("json_schema")).get("schema")
    if kind != "json_schema" or not isinstance(schema, dict):
        raise ValueError(
            "`response_format` is `text`, `json_object`, or `json_schema` with a `schema`."
        )
    text = json.dumps(schema)
    if len(text) > _LONGEST_SCHEMA:
        raise ValueError(f"The schema of `response_format` is longer than {_LONGEST_SCHEMA} bytes.")
    return text


class FormProcessor:
    """What one answer is held to: a logits processor. It never raises.

    An exception would end the thread that generates for everyone; instead, this answer ends.
    """

    def __init__(self, matcher: Any, vocabulary: int, tokenizer: Any) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._ends = sorted(tokenizer.eos_token_ids)
        self._thoughts = Thoughts(tokenizer.think_start_tokens, tokenizer.think_end_tokens)
        self._seen: int | None = None
        self._is_over = False

    def __call__(self, tokens: Any, logits: Any) -> Any:
        """The logits of the next token, those that may not come at minus infinity."""
        try:
            if self._seen is None:
                self._thoughts.begin(tokens.tolist())
            else:
                self._take(tokens[self._seen :].tolist())
            self._seen = tokens.shape[0]
            if self._thoughts.are_open:
                return logits
            return self._masked(logits)
        except Exception:  # noqa: BLE001 - of a library in another language
            _log.exception("an answer can't be held to its form")
            self._is_over = True
            return self._masked(logits)

    def _take(self, tokens: list[int]) -> None:
        for token in tokens:
            if self._thoughts.take(token) or self._is_over:
                continue
            if token in self._ends or not self._matcher.consume_token(token):
                self._is_over = True

    def _masked(self, logits: Any) -> Any:
        numpy, mlx = import_module("numpy"), import_module("mlx.core")
        width = logits.shape[-1]
        allowed = numpy.zeros(width, dtype=bool)
        if self._thoughts.are_opening:
            allowed[self._thoughts.next_opening] = True
        elif self._is_over or self._matcher.is_stopped():
            allowed[[each for each in self._ends if each < width]] = True
        else:
            of: Any = import_module("llguidance.numpy")
            words = of.allocate_token_bitmask(1, self._vocabulary)
            of.fill_next_token_bitmask(self._matcher, words)
            bits = numpy.unpackbits(words.view(numpy.uint8)[0], bitorder="little")
            known = min(width, self._vocabulary)
            allowed[:known] = bits[:known]
            if self._thoughts.next_opening is not None:
                allowed[self._thoughts.next_opening] = True
        return mlx.where(mlx.array(allowed), logits, mlx.array(-float("inf"), logits.dtype))


class Thoughts:
    """Where the thoughts before an answer begin and end, by the tokens that say so.

    Attributes:
        are_open: Whether what comes next is a thought.
    """

    def __init__(self, opening: tuple[int, ...] | None, closing: tuple[int, ...] | None) -> None:
        self._opening = tuple(opening or ())
        self._closing = tuple(closing or ())
        self._said: list[int] = []
        self._may_open = bool(self._opening)
        self.are_open = False

    @property
    def next_opening(self) -> int | None:
        """The token that would begin thoughts, or continue their beginning; None where none may."""
        return self._opening[len(self._said)] if self._may_open and not self.are_open else None

    @property
    def are_opening(self) -> bool:
        """Whether a part of what begins thoughts has been said, and the rest must follow."""
        return self._may_open and not self.are_open and bool(self._said)

    def begin(self, prompt: list[int]) -> None:
        """Learn whether the prompt has begun a thought already."""
        if self._opening:
            self.are_open = _last(prompt, self._opening) > _last(prompt, self._closing)

    def take(self, token: int) -> bool:
        """Whether a token of the answer belongs to the thoughts."""
        if self.are_open:
            self._said = [*self._said, token][-len(self._closing) :]
            if tuple(self._said) == self._closing:
                self.are_open = self._may_open = False
            return True
        if self._may_open and token == self._opening[len(self._said)]:
            self._said.append(token)
            if len(self._said) == len(self._opening):
                self.are_open, self._said = True, []
            return True
        self._may_open = False
        return False


def _last(tokens: list[int], wanted: tuple[int, ...]) -> int:
    """Where `wanted` is in `tokens` for the last time; -1 where it isn't."""
    size = len(wanted)
    places = range(len(tokens) - size, -1, -1)
    return next((at for at in places if tuple(tokens[at : at + size]) == wanted), -1)


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
