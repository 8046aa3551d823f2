"""Lets a turn of a conversation cost its new tokens, whatever the model's layers keep.

The pinned engine cuts a kept cache back to where two prompts part, which only layers that keep
every key and value allow. A window and a recurrent state can't be cut, so it reads conversations
with such models from a point that is thousands of tokens old, or from the beginning. Here, what
can't be cut is copied at a few places of each prompt, foremost the end of the last message, and a
cache is put together from the copy and the cut keys and values (decision 0023).

`guard.py` applies this in the engine's own process, so this file imports nothing but the standard
library, and no file of the engine is changed.
"""

import copy
import logging
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

MOST_CHECKPOINTS = 3
"""Of one conversation; each holds a copy of the recurrent states and windows, which the memory plan
counts."""
_LEAST_GAIN_TOKENS = 64
"""What a checkpoint where two conversations part must spare the next one."""
_FAULTS = (AttributeError, IndexError, RuntimeError, TypeError, ValueError)
"""What a cache of an unforeseen kind may raise; the request goes on without a checkpoint."""

_log = logging.getLogger("vllm_mlx.checkpoints")

type Tokens = Sequence[int]


def apply() -> None:
    """Let the engine's batching half keep checkpoints, where it is installed."""
    if find_spec("vllm_mlx") is None or find_spec("vllm_mlx.scheduler") is None:
        return
    scheduler: Any = import_module("vllm_mlx.scheduler").Scheduler
    store = import_module("vllm_mlx.memory_cache").MemoryAwarePrefixCache
    kept = type("KeptPrompts", (KeptPrompts, store), {})
    begin, create = scheduler.__init__, scheduler._create_batch_generator  # noqa: SLF001

    def begin_with_checkpoints(self: Any, *args: Any, **more: Any) -> None:
        begin(self, *args, **more)
        if self.memory_aware_cache is None or self.config.kv_cache_quantization:
            return
        self.memory_aware_cache.__class__ = kept
        # the engine's own copies of what can't be cut, which these replace
        self._store_prompt_only_cache = _nothing
        self._prompt_output_entry_is_useless = _nothing

    def create_with_checkpoints(self: Any, sampling_params: Any) -> Any:
        generator = create(self, sampling_params)
        if isinstance(self.memory_aware_cache, kept) and not self.config.enable_mtp:
            _Reader(self, generator).install()
        return generator

    scheduler.__init__ = begin_with_checkpoints
    scheduler._create_batch_generator = create_with_checkpoints  # noqa: SLF001


def _nothing(*_: Any) -> None:
    """What the engine shall not do, or find."""


# where


def shared(one: Tokens, other: Tokens) -> int:
    """How many tokens the two begin with alike."""
    one, other = tuple(one), tuple(other)
    most = min(len(one), len(other))
    return bisect_left(range(1, most + 1), x=True, key=lambda n: one[:n] != other[:n])


def unstable_tails(tokenizer: Any) -> list[list[int]]:
    """What a prompt may end with that isn't there any more when the conversation goes on.

    It is the part of the template's invitation to answer that differs from the beginning of an
    answer in the history, `<think>` for example. The longest comes first.
    """
    user, answer = {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}
    tails: list[list[int]] = []
    for more in ({}, {"enable_thinking": True}, {"enable_thinking": False}):
        try:
            asked = _rendered(tokenizer, [user], invites=True, **more)
            gone_on = _rendered(tokenizer, [user, answer, user], invites=False, **more)
        except Exception as error:  # noqa: BLE001 - a template raises what it likes
            _log.info("no invitation to answer is known: %s", type(error).__name__)
            continue
        stable = shared(asked, gone_on)
        special = set(getattr(tokenizer, "all_special_ids", ()))
        if stable > 0 and asked[stable - 1] not in special:
            stable -= 1  # an answer may begin with what its tokens are joined with
        tails.append(asked[stable:])
    return sorted({tuple(each): each for each in tails}.values(), key=len, reverse=True)


def _rendered(tokenizer: Any, messages: list[dict[str, str]], *, invites: bool, **more: Any) -> Any:
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=invites, **more
    )
    return tokenizer.encode(text, add_special_tokens=False)


def end_of_message(prompt: Tokens, tails: list[list[int]]) -> int:
    """How many tokens of a prompt stay as they are when the conversation goes on."""
    for tail in tails:
        if tail and len(tail) < len(prompt) and list(prompt[-len(tail) :]) == tail:
            return len(prompt) - len(tail)
    return len(prompt) - 1


def pruned(offsets: Sequence[int], most: int) -> list[int]:
    """At most so many of the sorted offsets: the last, and others with the widest gaps."""
    kept = list(offsets)
    while len(kept) > max(1, most):
        gaps = [after - before for before, after in zip([0, *kept], kept, strict=False)]
        kept.pop(gaps.index(min(gaps[:-1])))
    return kept


# what is kept


def _is_cuttable(layer: Any) -> bool:
    """Whether the layer's cache, of one request or of a batch, holds every key and value."""
    return type(layer).__name__ in {"KVCache", "BatchKVCache"}


def is_cuttable(cache: list[Any]) -> bool:
    """Whether a cache can be cut to any number of its tokens."""
    return all(map(_is_cuttable, cache))


def usable(alike: int, whole: int, offsets: Iterable[int], *, is_cuttable: bool) -> int:
    """How many of the first `alike` tokens a cache can be put together for.

    Args:
        whole: How many tokens it holds.
        offsets: Its checkpoints.
        is_cuttable: Whether it needs none.
    """
    if alike >= whole:
        return whole
    if is_cuttable:
        return alike
    known = sorted(offsets)
    index = bisect_right(known, alike)
    return known[index - 1] if index else 0


class KeptPrompts:
    """What the engine's own store of caches, the other base of its class, does otherwise.

    An entry holds the whole cache at its end, and in `checkpoints` by number of tokens what can't
    be cut of it: a layer's copy, or None for one that can.
    """

    shared = staticmethod(shared)
    usable = staticmethod(usable)

    def fetch(self: Any, tokens: Tokens) -> tuple[list[Any] | None, Tokens]:
        """What is kept of the longest beginning; at least one token is left to read."""
        self._last_matched_key, self._last_match_type = None, "miss"
        found, most = self.best(tokens)
        if found is None:
            self._stats.misses += 1
            return None, tokens
        self._entries.move_to_end(found.tokens)
        self._stats.hits += 1
        self._stats.tokens_saved += most
        self._last_matched_key, self._last_match_type = found.tokens, "prefix"
        return _restored(found, most), tokens[most:]

    def best(self: Any, tokens: Tokens) -> tuple[Any, int]:
        """What is kept of the longest beginning, and of how many tokens; None and 0 if nothing."""
        found, most = None, 0
        for entry in list(self._entries.values()):
            alike = min(shared(entry.tokens, tokens), len(tokens) - 1)
            offset = usable(
                alike, len(entry.tokens), _checkpoints(entry), is_cuttable=is_cuttable(entry.cache)
            )
            if offset > most:
                found, most = entry, offset
        return found, most

    def parting(self: Any, tokens: Tokens) -> int:
        """Where the prompt parts from what is kept and most alike."""
        return max((shared(key, tokens) for key in list(self._entries)), default=0)

    def adopt(
        self: Any, tokens: Tokens, cache: list[Any], checkpoints: dict[int, list[Any]]
    ) -> Any:
        """Keep an entry as another process has kept it; None where it is too large."""
        entry = import_module("vllm_mlx.memory_cache")._CacheEntry.create(tokens, cache)  # noqa: SLF001
        _fit(entry, checkpoints, self._max_memory)
        return entry if self.commit_prepared(entry, evict_prefixes=False) else None

    def store(
        self: Any,
        tokens: Tokens,
        cache: list[Any],
        evict_prefixes: bool = True,  # noqa: ARG002 - as the engine's own
        checkpoints: dict[int, list[Any]] | None = None,
    ) -> bool:
        """Keep a cache, and what is known of the way there, instead of what it continues.

        Args:
            tokens: What the cache holds.
            cache: Its layers.
            evict_prefixes: What it continues goes in any case.
            checkpoints: Copies that were made on the way; if there are any or none, but not None,
                the cache itself stands at a checkpoint.
        """
        if _bytes_of(cache) > self._max_memory:
            self._stats.store_rejections += 1
            return False
        known = dict(checkpoints or {})
        for key, entry in list(self._entries.items()):
            theirs, alike = _checkpoints(entry), shared(key, tokens)
            known = {at: layers for at, layers in theirs.items() if at <= alike} | known
            if key != tuple(tokens) and alike >= max(theirs, default=len(key)):
                self.remove(key)
        entry = self.prepare_store(list(tokens), cache)
        if entry is None:
            return False
        if checkpoints is not None:
            known[len(tokens)] = [None if _is_cuttable(each) else each for each in entry.cache]
        _fit(entry, known, self._max_memory)
        return self.commit_prepared(entry, evict_prefixes=False)


def _fit(entry: Any, known: dict[int, list[Any]], most_bytes: int) -> None:
    """Give an entry as many of the checkpoints as it may have."""
    whole_bytes = _bytes_of(entry.cache)
    for most in range(MOST_CHECKPOINTS, -1, -1):
        offsets = pruned(sorted(known), most) if most else []
        entry.checkpoints = {each: known[each] for each in offsets}
        copies = [layers for at, layers in entry.checkpoints.items() if at != len(entry.tokens)]
        entry.memory_bytes = whole_bytes + sum(map(_bytes_of, copies))
        if entry.memory_bytes <= most_bytes:
            return


def _bytes_of(layers: list[Any]) -> int:
    estimate = import_module("vllm_mlx.memory_cache").estimate_kv_cache_memory
    return estimate([each for each in layers if each is not None])


def _checkpoints(entry: Any) -> dict[int, list[Any]]:
    return getattr(entry, "checkpoints", {})


def _restored(entry: Any, tokens: int) -> list[Any]:
    """The cache of an entry's first tokens; what is kept is shared, and stays as it is."""
    layers = [None] * len(entry.cache)
    if tokens < len(entry.tokens):
        layers = _checkpoints(entry).get(tokens, layers)
    cache: list[Any] = []
    for whole, layer in zip(entry.cache, layers, strict=True):
        own = copy.copy(whole if layer is None else layer)
        if layer is None and _is_cuttable(whole):
            own.keys, own.values = whole.keys[..., :tokens, :], whole.values[..., :tokens, :]
            own.offset = tokens
        elif isinstance(getattr(own, "cache", None), list):
            own.cache = list(own.cache)
        cache.append(own)
    return cache


# when


@dataclass
class _Prompt:
    """A prompt that is being read: where it began, and where copies are made on the way."""

    tokens: Tokens
    base: int
    marks: list[int]
    checkpoints: dict[int, list[Any]] = field(default_factory=dict[int, list[Any]])

    def segments(self) -> Iterator[list[int]]:
        for begin, end in zip(
            [self.base, *self.marks], [*self.marks, len(self.tokens)], strict=True
        ):
            yield list(self.tokens[begin:end])


class _Reader:
    """Has a batch generator stop where a checkpoint is wanted, and makes it."""

    def __init__(self, scheduler: Any, generator: Any) -> None:
        self._scheduler = scheduler
        self._generator = generator
        self._insert, self._next = generator.insert, generator.next
        self._remove = generator.remove
        self._tails = unstable_tails(scheduler.tokenizer)
        self._reading: dict[int, _Prompt] = {}

    def install(self) -> None:
        self._generator.insert = self.insert
        self._generator.next = self.next
        self._generator.remove = self.remove

    def insert(self, prompts: list[Any], **more: Any) -> list[int]:
        """Take one request's tokens, as the scheduler hands them over."""
        prompt = self._planned(prompts[0])
        if prompt is None or not prompt.marks:
            return self._insert(prompts, **more)
        uids = self._generator.insert_segments([list(prompt.segments())], **more)
        self._reading[uids[0]] = prompt
        return uids

    def next(self) -> Any:
        """One step; whoever has reached a mark is copied after it."""
        result = self._next()
        for response in result[0]:
            prompt = self._reading.get(response.uid)
            if prompt is None or not response.end_of_segment:
                continue
            if response.end_of_prompt:
                del self._reading[response.uid]
            elif (reached := prompt.base + response.progress[0]) in prompt.marks:
                try:
                    self._copy(response.uid, prompt, reached)
                except _FAULTS as error:
                    _log.warning("no checkpoint: %s", type(error).__name__)
        return result

    def remove(self, uids: list[int], **more: Any) -> Any:
        """Let go of requests whose clients have left."""
        for uid in uids:
            self._reading.pop(uid, None)
        return self._remove(uids, **more)

    def _planned(self, tokens: Any) -> _Prompt | None:
        for request in self._scheduler.requests.values():
            if request.remaining_tokens is tokens or request.prompt_token_ids is tokens:
                whole = request.prompt_token_ids
                base = len(whole) - len(tokens)
                end = end_of_message(whole, self._tails)
                parting = self._scheduler.memory_aware_cache.parting(whole)
                wanted = [end] if parting < base + _LEAST_GAIN_TOKENS else [parting, end]
                marks = [each for each in wanted if base < each <= end]
                return _Prompt(whole, base, sorted(set(marks)))
        return None

    def _copy(self, uid: int, prompt: _Prompt, reached: int) -> None:
        batch = self._generator._prompt_batch  # noqa: SLF001 - there is no other way in
        index = batch.uids.index(uid)
        store = self._scheduler.memory_aware_cache
        mx: Any = import_module("mlx.core")
        with mx.stream(self._generator.stream):
            if reached == prompt.marks[-1]:
                store.store(
                    prompt.tokens[:reached],
                    batch.extract_cache(index),
                    checkpoints=prompt.checkpoints,
                )
                return
            layers = [None if _is_cuttable(e) else e.extract(index) for e in batch.prompt_cache]
            if any(each is not None for each in layers):
                detach = import_module("vllm_mlx.memory_cache")._detach_cache_for_storage  # noqa: SLF001
                prompt.checkpoints[reached] = detach(layers)
