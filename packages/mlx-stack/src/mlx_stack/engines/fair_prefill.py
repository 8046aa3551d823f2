"""Lets a short prompt be read before the rest of long ones.

mlx-lm reads all prompts of a batch side by side, each by a whole step: a short one waits for a step
of each long one, then is padded to the length of theirs. Here a prompt that is shorter than what is
left of each of the others is read by itself, and a step is shared by those who take part in it.
Whoever was interrupted reads at least one step before the next interruption, so nobody starves.

mlx-lm hands over a token only after the step of reading that it does next, which takes as long as
dozens of tokens. So nothing is read while an answer's first tokens are written.

`guard.py` applies this in the engine's own process, so this file imports nothing but the standard
library, and no file of the engine is changed (decision 0023).
"""

from collections import deque
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

LEAST_STEP_TOKENS = 64
"""Of each prompt: below this, a step costs about as much as one of this many."""
FIRST_TOKENS = 8
"""Of an answer, written before others are read on: its first word often has several."""
_SHORTER = 2
"""So many times shorter than the rest of each of the others is what goes first."""


def apply() -> None:
    """Let the engine's batching half take turns, where it is installed."""
    if find_spec("vllm_mlx") is None or find_spec("vllm_mlx.scheduler") is None:
        return
    scheduler: Any = import_module("vllm_mlx.scheduler").Scheduler
    create = scheduler._create_batch_generator  # noqa: SLF001 - there is no other way in

    def create_with_turns(self: Any, sampling_params: Any) -> Any:
        generator = create(self, sampling_params)
        if not self.config.enable_mtp:
            _Turns(generator).install()
        return generator

    scheduler._create_batch_generator = create_with_turns  # noqa: SLF001


def goes_first(waiting: Sequence[int], left: Sequence[int]) -> int | None:
    """Which of the waiting prompts is read before those that are being read; None for no one.

    Args:
        waiting: How many tokens each of them has to read.
        left: How many tokens are left of each that is being read.
    """
    if not waiting or not left:
        return None
    shortest = min(range(len(waiting)), key=waiting.__getitem__)
    return shortest if _SHORTER * waiting[shortest] <= min(left) else None


def share(step_tokens: int, prompts: int) -> int:
    """How many tokens each of so many prompts reads in a step."""
    return max(min(LEAST_STEP_TOKENS, step_tokens), step_tokens // max(1, prompts))


class _Turns:
    """Whose prompts a batch generator reads in its next step."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator
        self._next, self._remove = generator.next, generator.remove
        self._step_tokens: int = generator.prefill_step_size
        self._aside: tuple[Any, list[Any]] | None = None
        self._owes_a_step = False

    def install(self) -> None:
        self._generator.next = self.next
        self._generator.remove = self.remove

    def next(self) -> Any:
        """One step; afterwards the batch of its prompts is still the generator's."""
        generator = self._generator
        begins = self._somebody_begins()
        if begins and self._aside is None and generator._currently_processing:  # noqa: SLF001
            self._interrupt()
        elif not begins and self._aside is not None and not generator._currently_processing:  # noqa: SLF001
            self._resume()
        waiting = list(generator._unprocessed_sequences)  # noqa: SLF001
        if begins or self._aside is not None:
            joining = list[Any]()
        elif (first := self._first(waiting)) is not None:
            self._interrupt()
            joining = [waiting[first]]
        else:
            joining = waiting
        self._owes_a_step = False
        generator._unprocessed_sequences = deque(joining)  # noqa: SLF001
        readers = len(generator._currently_processing) + len(joining)  # noqa: SLF001
        readers = min(readers, generator.prefill_batch_size)
        generator.prefill_step_size = share(self._step_tokens, readers)
        try:
            return self._next()
        finally:
            taken = {each[0] for each in joining}
            held = [each for each in waiting if each[0] not in taken]
            generator._unprocessed_sequences.extend(held)  # noqa: SLF001

    def remove(self, uids: list[int], **more: Any) -> Any:
        """Let go of requests whose clients have left, of those that wait in between as well."""
        removed = self._remove(uids, **more)
        if self._aside is not None:
            self._swap()
            removed |= self._remove(uids, **more)
            self._swap()
        return removed

    def _somebody_begins(self) -> bool:
        written = self._generator._generation_batch._num_tokens  # noqa: SLF001
        return any(tokens < FIRST_TOKENS for tokens in written)

    def _first(self, waiting: list[Any]) -> int | None:
        if self._owes_a_step:
            return None
        left = [whole - read for _, read, whole in self._generator._currently_processing]  # noqa: SLF001
        return goes_first([sum(map(len, each[1])) for each in waiting], left)

    def _interrupt(self) -> None:
        batch = self._generator._prompt_batch  # noqa: SLF001
        step_tokens = batch.prefill_step_size
        kind: Any = batch.__class__
        empty = kind.empty(batch.model, batch.fallback_sampler, step_tokens)
        self._aside = (empty, [])
        self._swap()

    def _resume(self) -> None:
        self._swap()
        self._aside, self._owes_a_step = None, True

    def _swap(self) -> None:
        generator, aside = self._generator, self._aside
        if aside is not None:
            self._aside = (generator._prompt_batch, generator._currently_processing)  # noqa: SLF001
            generator._prompt_batch, generator._currently_processing = aside  # noqa: SLF001
