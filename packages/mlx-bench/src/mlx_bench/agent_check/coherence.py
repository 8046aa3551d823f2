"""Whether greedy answers are the ones of last time: what a new version or setting may not change.

Comparing is pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mlx_bench.agent_check.ask import CHAT_WHOLE, Request, ask
from mlx_bench.conformance.server import Server

ANSWER_TOKENS = 32
PROMPTS: Mapping[str, tuple[str, str]] = MappingProxyType({
    "capital": ("What is the capital of France? Answer in one short sentence.", "paris"),
    "sum": ("What is 12 plus 30? Answer in one short sentence.", "42"),
    "days": ("Name the seven days of the week, starting with Monday, with commas.", "thursday"),
    "opposite": ("What is the opposite of hot? Answer with one word.", "cold"),
    "planet": ("Which planet do people live on? Answer with one word.", "earth"),
    "code": ("Write a Python function add(a, b) that returns their sum. Only code.", "return"),
    "spanish": ("How does one say `good morning` in Spanish? Only the Spanish words.", "buenos"),
    "story": ("Begin a story about a lighthouse with one sentence.", "light"),
})  # fmt: skip
"""By name: what is asked, and a word without which an answer makes no sense."""
LEAST_SENSIBLE = 4
"""With fewer answers that make sense, a model talks nonsense."""


@dataclass(frozen=True, slots=True)
class AnswerDifference:
    """An answer that is another than before.

    Attributes:
        at: The first character that differs.
    """

    name: str
    before: str
    now: str
    at: int


def ask_all(server: Server, *, thinks: bool | None) -> dict[str, str]:
    """The greedy answer to each prompt, by its name."""
    off = False if thinks else None
    requests = {
        name: Request(text, max_tokens=ANSWER_TOKENS, thinks=off)
        for name, (text, _) in PROMPTS.items()
    }
    answers: dict[str, str] = {}
    for name, request in requests.items():
        answer = ask(server, CHAT_WHOLE, request)
        answers[name] = (answer.said or answer.thinking).strip()
    return answers


def sensible(answers: Mapping[str, str]) -> int:
    """How many answers hold what they must."""
    return sum(word in answers.get(name, "").casefold() for name, (_, word) in PROMPTS.items())


def compare(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[AnswerDifference, ...]:
    """The answers that differ, of the prompts that both know."""
    return tuple(
        AnswerDifference(name, before[name], now[name], _first_difference(before[name], now[name]))
        for name in PROMPTS
        if name in before and name in now and before[name] != now[name]
    )


def _first_difference(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
