"""The check: every case asked, judged and put into a verdict of one line (decision 0099)."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus

import httpx

from mlx_bench.agent_check import coherence
from mlx_bench.agent_check.ask import CHAT_WHOLE, ApiWay, Request, ask
from mlx_bench.agent_check.coherence import AnswerDifference
from mlx_bench.agent_check.needle import Needle, find_needle
from mlx_bench.agent_check.questions import QUESTIONS, CheckQuestion
from mlx_bench.agent_check.report import (
    COHERENCE,
    NEEDLE,
    CheckConditions,
    CheckedCase,
    CheckReport,
    judge,
)
from mlx_bench.client import ModelEndpoint
from mlx_bench.conformance.case import Case, Outcome
from mlx_bench.conformance.server import CHAT, Server
from mlx_bench.conformance.table import try_cases
from mlx_bench.errors import EndpointError

NEEDLE_SECONDS = 30.0
_LONGEST_SAID = 200


@dataclass
class _Check:
    """A running check: what the cases have found out so far."""

    server: Server
    context_tokens: int | None
    before: CheckReport | None
    conditions: CheckConditions
    needle_seconds: float
    thinks: bool | None = None
    answers: dict[str, str] = field(default_factory=dict[str, str])
    notes: dict[str, str] = field(default_factory=dict[str, str])
    skipped: set[str] = field(default_factory=set[str])

    def cases(self) -> tuple[Case, ...]:
        asked = [
            self._case(question, way)
            for question in QUESTIONS
            for way in question.ways
            if self.thinks or not question.needs_thinking
        ]
        coherent = Case(
            COHERENCE,
            f"{len(coherence.PROMPTS)} greedy answers",
            "answers that make sense, the same as at the last check of this model",
            lambda _: self._is_coherent(),
        )
        found = Case(
            NEEDLE,
            "a number in a long text",
            "the number, in a prompt as long as the context",
            lambda _: self._finds_needle(),
        )
        return (*asked, coherent, found)

    def _case(self, question: CheckQuestion, way: ApiWay) -> Case:
        request = question.request
        if self.thinks and request.thinks is None:
            request = replace(request, thinks=False)
        return Case(
            f"{question.id}{way.id}",
            f"{question.topic}: {way.words}",
            question.right,
            lambda server: question.is_right(ask(server, way, request)),
        )

    def _is_coherent(self) -> bool:
        self.answers = coherence.ask_all(self.server, thinks=self.thinks)
        sensible, of = coherence.sensible(self.answers), len(coherence.PROMPTS)
        is_right, words = judge_coherence(self.answers, self.before, self.conditions)
        self.notes[COHERENCE] = f"{sensible} of {of} make sense; {words}"
        return is_right

    def _finds_needle(self) -> bool:
        found: Needle = find_needle(
            self.server, self.context_tokens, thinks=self.thinks, seconds=self.needle_seconds
        )
        self.notes[NEEDLE] = found.words
        if found.is_right is None:
            self.skipped.add(NEEDLE)
        return found.is_right is not False

    def checked(self, outcome: Outcome) -> CheckedCase:
        case = outcome.case
        is_skipped = case.id in self.skipped
        note = self.notes.get(case.id)
        return CheckedCase(
            case.id,
            case.kind.partition(":")[0],
            case.kind,
            case.right,
            None if is_skipped else outcome.is_right,
            outcome.seen if note is None else note,
        )


def judge_coherence(
    answers: Mapping[str, str], before: CheckReport | None, conditions: CheckConditions
) -> tuple[bool, str]:
    """Whether greedy answers are as they should be, and what there is to say of them.

    Under the same conditions they must be those of before; under others, a difference is named.
    """
    if coherence.sensible(answers) < coherence.LEAST_SENSIBLE:
        return False, "the model's answers are nonsense"
    if before is None or not before.answers:
        return True, "there is no check to compare with"
    different = coherence.compare(before.answers, answers)
    if not different:
        return True, f"the same as on {before.started_at[:10]}"
    names = ", ".join(each.name for each in different)
    changed = conditions.differences(before.conditions)
    words = f"{len(different)} differ from {before.started_at[:10]} ({names})"
    if changed:
        return True, f"{words}; {'; '.join(changed)}"
    return False, f"{words}, although nothing else has changed; {_shown(different[0])}"


def _shown(difference: AnswerDifference) -> str:
    return f"{difference.name}: {difference.now!r}, before {difference.before!r}"


def run_check(
    server: Server,
    *,
    target: str,
    model: str = "",
    conditions: CheckConditions | None = None,
    context_tokens: int | None = None,
    before: CheckReport | None = None,
    needle_seconds: float = NEEDLE_SECONDS,
    on_progress: Callable[[str], None] = lambda _: None,
) -> CheckReport:
    """Whether the model behind a server is fit for agents.

    Args:
        server: Where it is asked, in both APIs.
        target: What the report calls it.
        model: What the report calls the model, if the server knows it by another name.
        conditions: What is known of it, for comparisons.
        context_tokens: How long a prompt it promises to read; None where nothing says so.
        before: The last check of this model, with whose answers the new ones are compared.
        needle_seconds: How long the search in a long text may take.
        on_progress: Gets a line about what happens now.

    Raises:
        EndpointError: A plain question is not answered.
    """
    began, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    check = _Check(
        server,
        context_tokens,
        before,
        conditions or CheckConditions(),
        needle_seconds=needle_seconds,
    )
    check.thinks = _does_think(server)
    cases = check.cases()
    for case in cases[:1]:
        on_progress(case.kind)
    following = iter([*(case.kind for case in cases[1:]), ""])

    def note(_: Outcome) -> None:
        on_progress(next(following) or "Done")

    table = try_cases(server, cases, note)
    checked = tuple(check.checked(outcome) for outcome in table.outcomes)
    is_ready, verdict = judge(checked)
    return CheckReport(
        target=target,
        model=model or server.model,
        started_at=started_at,
        seconds=round(time.monotonic() - began, 1),
        conditions=check.conditions,
        is_ready=is_ready,
        verdict=verdict,
        right=sum(case.is_right is True for case in checked),
        tried=sum(case.is_right is not None for case in checked),
        cases=checked,
        answers=check.answers,
    )


def _does_think(server: Server) -> bool:
    """Whether the model thinks before it answers, if nobody says that it shouldn't.

    Raises:
        EndpointError: It doesn't answer at all.
    """
    url = server.base_url + CHAT
    try:
        answer = ask(server, CHAT_WHOLE, Request("Say hello.", max_tokens=16))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        hint = "Is the server running, and is the address right?"
        raise EndpointError(f"Nothing answers at {url} ({error}).", url=url, hint=hint) from error
    server.seen.clear()
    if answer.status != HTTPStatus.OK:
        said = answer.problem or " ".join(answer.text.split())[:_LONGEST_SAID]
        problem = f"A plain question was not answered: HTTP {answer.status} {said}"
        hint = "Is the model there, and is the key right?"
        raise EndpointError(problem, url=url, status=answer.status, hint=hint)
    try:
        return bool(answer.thinking.strip()) or "<think" in answer.said
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise EndpointError(f"{url} gave an unexpected answer: {error}.", url=url) from error


def server_of(endpoint: ModelEndpoint, *, timeout_s: float = 120.0) -> Server:
    """The server of an endpoint, to be asked in all of its APIs."""
    root = endpoint.base_url.rstrip("/").removesuffix("/v1")
    return Server(
        root, endpoint.model, endpoint.api_key or "", timeout_s=timeout_s, auth=endpoint.auth
    )
