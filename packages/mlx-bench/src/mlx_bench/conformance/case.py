"""One kind of request, what a right answer to it is, and how a server did."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlx_bench.conformance.server import HttpAnswer, Server

_LONGEST_SEEN = 300


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of request.

    Attributes:
        id: Short, and the same for ever: `C` for Chat Completions, `P` for Completions, `A` for
            Messages, `R` for Responses, `O` for Ollama's API, `H` for HTTP, `K` for behaviour.
        kind: What is asked.
        right: What a right answer is.
        is_right: Asks, and says whether the answer was right.
        needs_key: Whether it makes sense only where a key is needed.
    """

    id: str
    kind: str
    right: str
    is_right: Callable[[Server], object]
    needs_key: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a server did in one case.

    Attributes:
        is_right: None where the case makes no sense there.
        seen: What came instead of a right answer.
    """

    case: Case
    is_right: bool | None
    seen: str = ""

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        case = self.case
        return {
            "id": case.id,
            "kind": case.kind,
            "right_answer": case.right,
            "is_right": self.is_right,
            "seen": self.seen,
        }


def judge(server: Server, case: Case) -> Outcome:
    """How the server does in one case; whatever happens is an outcome."""
    if case.needs_key and not server.has_key:
        return Outcome(case, None, "no key is needed there")
    before = len(server.seen)
    try:
        if case.is_right(server):
            return Outcome(case, is_right=True)
        what = ""
    except Exception as error:  # noqa: BLE001 - a server may answer anything
        what = f"{type(error).__name__}: {error}; "
    answers = server.seen[before:]
    return Outcome(case, is_right=False, seen=(what + _seen(answers))[:_LONGEST_SEEN])


def _seen(answers: Sequence[HttpAnswer]) -> str:
    if not answers:
        return "no answer"
    last = answers[-1]
    return f"HTTP {last.status} {_in_short(last)}{' '.join(last.text.split())}"


def _in_short(answer: HttpAnswer) -> str:
    """What a stream came to, since its first events say little."""
    if not answer.is_stream:
        return ""
    try:
        calls = "".join(f"{name}({arguments}) " for name, arguments in answer.calls)
        ending = f"ended {answer.ending}"
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return ""  # what it came to is not to be understood; its bytes show why
    said = f"said {answer.said!r} " if answer.said else ""
    return f"{said}{calls}{ending}; "
