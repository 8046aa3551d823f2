"""All cases, tried at a server, and the table of how it did (decision 0084)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlx_bench.conformance import behaviour, chat, http, messages, ollama, responses, thinking
from mlx_bench.conformance.case import Case, Outcome, judge
from mlx_bench.conformance.server import Server

GROUPS: dict[str, tuple[Case, ...]] = {
    "chat": chat.CASES,
    "messages": messages.CASES,
    "responses": responses.CASES,
    "ollama": ollama.CASES,
    "http": http.CASES,
    "behaviour": behaviour.CASES,
    "thinking": thinking.CASES,
}
USUAL = tuple(name for name in GROUPS if name != "thinking")
"""The groups for a model that doesn't think: one that does takes every answer for a thought until
it has said that the thought is over."""
_WORDS = {True: "right", False: "WRONG", None: "-"}


@dataclass(frozen=True, slots=True)
class Conformance:
    """How a server did in some cases."""

    target: str
    model: str
    outcomes: tuple[Outcome, ...]

    @property
    def right(self) -> int:
        """How many cases were right."""
        return sum(outcome.is_right is True for outcome in self.outcomes)

    @property
    def tried(self) -> int:
        """How many cases made sense there."""
        return sum(outcome.is_right is not None for outcome in self.outcomes)

    def to_document(self) -> dict[str, object]:
        """The JSON document."""
        return {
            "schema_version": 1,
            "target": self.target,
            "model": self.model,
            "right": self.right,
            "tried": self.tried,
            "cases": [outcome.to_document() for outcome in self.outcomes],
        }

    def render(self) -> str:
        """The table, a line a case, and what came instead of a right answer."""
        lines = [f"{self.model} at {self.target}", ""]
        for outcome in self.outcomes:
            case = outcome.case
            lines.append(f"{case.id:5} {_WORDS[outcome.is_right]:5}  {case.kind}")
            if outcome.is_right is False:
                lines += [f"{'':12}should be: {case.right}", f"{'':12}was: {outcome.seen}"]
        lines += ["", f"{self.right} of {self.tried} right"]
        return "\n".join(lines) + "\n"


def cases_of(names: Sequence[str]) -> tuple[Case, ...]:
    """The cases with these ids, or in these groups; for none all of `USUAL`.

    Raises:
        KeyError: When there is no such case and no such group.
    """
    known = {case.id: (case,) for group in GROUPS.values() for case in group} | GROUPS
    chosen = [case for name in names or USUAL for case in known[name]]
    return tuple(dict.fromkeys(chosen))


def try_cases(
    server: Server,
    cases: Sequence[Case],
    on_event: Callable[[Outcome], None] = lambda _: None,
    revive: Callable[[], bool] = lambda: False,
) -> Conformance:
    """How the server does in these cases, one after the other.

    Args:
        server: The server.
        cases: What is tried.
        on_event: Learns how each went.
        revive: Called where a case has left the server unable to answer; whether it is there again.
            Where it isn't, the cases that are left make no sense.
    """
    outcomes: list[Outcome] = []
    is_there = True
    for case in cases:
        if is_there:
            outcomes.append(judge(server, case))
            is_there = outcomes[-1].is_right is not False or server.is_there() or revive()
        else:
            outcomes.append(Outcome(case, None, "the server no longer answers"))
        server.seen.clear()
        on_event(outcomes[-1])
    return Conformance(server.base_url, server.model, tuple(outcomes))
