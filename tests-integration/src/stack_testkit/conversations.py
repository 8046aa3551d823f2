"""Conversations that grow, put to a real engine, and what it says that it read of each turn."""

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

_READ = re.compile(r"prompt_tokens=(\d+) tokens_to_prefill=(\d+)")


@dataclass
class Turn:
    """What one turn took."""

    prompt_tokens: int
    answer_tokens: int
    read_tokens: int
    answer: str


class Engine:
    """A real engine that serves one model, and the end of its log."""

    def __init__(self, url: str, log: Path, model: str = "tiny") -> None:
        self.url, self._log, self._model = url, log, model

    def ask(self, messages: list[dict[str, str]], answer_tokens: int) -> Turn:
        """The answer to the last of the messages."""
        seen = self._log.stat().st_size
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "max_tokens": answer_tokens,
            "temperature": 0,
            "stream": True,  # the engine's simple mode keeps nothing of other answers
            "stream_options": {"include_usage": True},
        }
        answer, usage = "", dict[str, int]()
        address = f"{self.url}/v1/chat/completions"
        with httpx.stream("POST", address, json=body, timeout=600) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line.removeprefix("data: "))
                usage = event.get("usage") or usage
                for choice in event.get("choices", ()):
                    answer += choice["delta"].get("content") or ""
        prompt_tokens = usage["prompt_tokens"]
        read_tokens = self._read(seen, prompt_tokens)
        return Turn(prompt_tokens, usage["completion_tokens"], read_tokens, answer)

    def forget(self) -> None:
        """Let the engine drop all that it keeps of earlier prompts."""
        httpx.delete(f"{self.url}/v1/cache", timeout=60).raise_for_status()

    def _read(self, seen: int, prompt_tokens: int) -> int:
        said = self._log.read_bytes()[seen:].decode(errors="replace")
        for line in said.splitlines():
            read = _READ.search(line)
            if read is not None and int(read[1]) == prompt_tokens:
                return int(read[2])
        return prompt_tokens


class Conversation:
    """A conversation that grows; the same words for the same seed."""

    def __init__(self, seed: int, head_tokens: int, turn_tokens: int, *, shortens: bool) -> None:
        self._random = random.Random(seed)
        self._turn_tokens, self._shortens = turn_tokens, shortens
        self.messages = [{"role": "system", "content": self._words(head_tokens)}]
        self.turns: list[Turn] = []

    def next(self, engine: Engine, answer_tokens: int = 24) -> None:
        """One turn."""
        self.messages.append({"role": "user", "content": self._words(self._turn_tokens)})
        turn = engine.ask(self.messages, answer_tokens)
        self.turns.append(turn)
        said = turn.answer[:4] if self._shortens else turn.answer
        self.messages.append({"role": "assistant", "content": said or "."})

    def new_tokens(self) -> list[int]:
        """Of each turn: what was neither asked nor, if it is kept as it was, answered before."""
        new = [self.turns[0].prompt_tokens]
        for before, turn in zip(self.turns, self.turns[1:], strict=False):
            known = before.prompt_tokens + (0 if self._shortens else before.answer_tokens)
            new.append(turn.prompt_tokens - known)
        return new

    def _words(self, count: int) -> str:
        return " ".join(self._random.choices(_WORDS, k=count))


_WORDS = "the house of a red river and its old stone bridge were quiet in winter".split()  # noqa: SIM905
