"""What an engine delivers: read from what it says of itself and from what passes through its door.

Whether it is enough is decided by `mlx_procsup.delivery`. How long a prompt may take is predicted
here, by the speed model and with a wide margin (decision 0018).
"""

import http.client
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from mlx_hwprobe import HardwareProfile
from mlx_procsup import AnswerKind, HttpReadiness, RequestInFlight, TokenAnswer, Unreadable, Work
from mlx_recommend import ModelShape, Workload, estimate
from mlx_stack.engines.mlx_vlm_sound import LONGEST_SOUND_S
from mlx_stack.services.engine_door import read_status, request_proof
from mlx_stack.services.proof import Proof

SLACK = 2.0
"""How many times what is predicted a prompt may take: the range of the prediction is counted
already; this is for what else a Mac does."""
UNKNOWN_TPS = 25.0
"""How fast prompts are read where nothing is known of the model or the machine."""
UNKNOWN_TOKENS = 131_072
"""The longest prompt where nothing says how long one may be."""
WHOLE_ANSWER_S = 900.0
"""How long nothing may be seen of an answer that comes in one piece, from an engine that doesn't
count its tokens: the engine itself gives up after 600 s."""
SILENCE_S = 180.0
"""How long an engine may leave small questions unanswered that reads prompts on another thread: it
cuts them into tokens on the one that answers, 30 MB in this time on a slow machine."""
_LOOK_WITHIN_S = 2.0
_BYTES_PER_TOKEN = 2
"""No ordinary prompt has more tokens than half its bytes."""
_LONGEST_WORDS = 200

type _Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
type _Gigabytes = Annotated[float, msgspec.Meta(ge=0, le=2**20)]


class _Row(msgspec.Struct):
    request_id: str
    status: str
    prompt_tokens: _Count
    completion_tokens: _Count
    phase: str = ""
    progress: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


class _Kind(msgspec.Struct):
    status: str


class _Metal(msgspec.Struct):
    active_memory_gb: _Gigabytes | None = None
    cache_memory_gb: _Gigabytes | None = None


class _Status(msgspec.Struct):
    num_running: _Count
    num_waiting: _Count
    total_completion_tokens: _Count
    requests: list[_Row]
    metal: _Metal | None = None


@dataclass(frozen=True, slots=True)
class EngineDelivery:
    """How to learn what the engine of a tier delivers.

    Attributes:
        model: What it calls its model.
        proof: What shows that the model does its work.
        batches: Whether it counts the tokens of every request, which vllm-mlx does with batching
            only.
        predict: The seconds that a prompt of so many tokens may take; None of unknown length.
        asks_when_idle: Whether it may be asked for that when it has nothing to do.
    """

    readiness: HttpReadiness
    model: str
    proof: Proof = field(compare=False)
    batches: bool
    predict: Callable[[int | None], float] = field(compare=False)
    asks_when_idle: bool = True

    def look(self) -> Work | Unreadable:
        """What it says of its work."""
        try:
            status, body, counted = read_status(self.readiness, timeout_s=_LOOK_WITHIN_S)
        except TimeoutError:
            return Unreadable(f"no answer within {_LOOK_WITHIN_S:g} s")
        except (OSError, http.client.HTTPException) as error:
            return Unreadable(str(error) or type(error).__name__)
        if status != http.client.OK:
            return Unreadable(f"HTTP {status}")
        return read_work(body, counted, batches=self.batches)

    def ask(self, wait_s: float) -> TokenAnswer:
        """What comes of a small request to it."""
        try:
            status, body = request_proof(self.readiness, self.model, self.proof, timeout_s=wait_s)
        except (OSError, http.client.HTTPException):
            return TokenAnswer(AnswerKind.NOTHING)
        return read_answer(status, body, self.proof)

    def predict_s(self, size: int | None, /) -> float:
        """The most that it may take to read a prompt of so many tokens."""
        return self.predict(size)


def read_work(body: bytes, counted: str | None, *, batches: bool) -> Work | Unreadable:
    """What an answer of `/v1/status` says, with what the guard counted.

    Without batching, the engine counts no token of an answer before its end, and doesn't know how
    long prompts are: what the guard saw pass by stands in.

    Args:
        counted: As `guard.Traffic.render` has it; None where the engine runs without it.
        batches: Whether the engine batches.
    """
    try:
        if msgspec.json.decode(body, type=_Kind).status == "not_loaded":
            return Work(rests=True)
        said = msgspec.json.decode(body, type=_Status)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Unreadable(f"its answer is invalid: {str(error)[:_LONGEST_WORDS]}")
    traffic = _Traffic() if counted is None and batches else _read_traffic(counted or "")
    if traffic is None:
        return Unreadable("its guard doesn't report its requests")
    rows = {name: _in_flight(said.requests, name) for name in ("running", "waiting")}
    running = _padded(rows["running"], said.num_running)
    if not batches:
        running = traffic.passing
    return Work(
        running=running,
        waiting=_padded(rows["waiting"], said.num_waiting) if batches else (),
        written=said.total_completion_tokens + traffic.answered,
        failures=traffic.failures,
        oldest_s=traffic.oldest_s,
        held_bytes=_held_bytes(said.metal),
    )


def read_answer(status: int, body: bytes, proof: Proof) -> TokenAnswer:
    """What the answer to a small request means."""
    words = f"HTTP {status}"
    if status >= http.client.INTERNAL_SERVER_ERROR:
        return TokenAnswer(AnswerKind.ERROR, words)
    if status != http.client.OK:
        return TokenAnswer(AnswerKind.REFUSED, words)
    problem = proof.check(body)
    return TokenAnswer(AnswerKind.ERROR, problem) if problem else TokenAnswer(AnswerKind.TOKEN)


def predictor(
    shape: ModelShape | None, hardware: HardwareProfile | None, context_tokens: int | None
) -> Callable[[int | None], float]:
    """What predicts the most that a prompt may take, for a model on a machine.

    Args:
        shape: What is known of the model; None for nothing.
        hardware: The machine; None where it is unknown.
        context_tokens: How long a prompt may be; None where nothing says.
    """
    longest = context_tokens or UNKNOWN_TOKENS

    def predict_s(size: int | None) -> float:
        if size is None:
            return max(WHOLE_ANSWER_S, predict_s(longest))
        tokens = max(size, 1)
        speed = None
        if shape is not None and hardware is not None:
            workload = Workload(context_tokens=tokens, speed_context_tokens=tokens)
            speed = estimate(shape, hardware, workload).prompt_tps
        return tokens / UNKNOWN_TPS if speed is None else SLACK * tokens / speed.low

    return predict_s


def predict_sound(size: int | None, /) -> float:  # noqa: ARG001 - nothing tells how long it plays
    """The most that a request of sound may take: as long as the longest sound plays."""
    return LONGEST_SOUND_S


def _in_flight(rows: list[_Row], status: str) -> tuple[RequestInFlight, ...]:
    return tuple(
        RequestInFlight(
            row.request_id,
            row.prompt_tokens or None,
            row.progress if row.phase == "prefill" else 0.0,
            row.completion_tokens,
        )
        for row in rows
        if row.status == status
    )


def _held_bytes(metal: _Metal | None) -> int | None:
    """What MLX holds of the GPU's memory, as far as the engine says."""
    if metal is None or metal.active_memory_gb is None:
        return None
    return int((metal.active_memory_gb + (metal.cache_memory_gb or 0.0)) * 1e9)


def _padded(rows: tuple[RequestInFlight, ...], count: int) -> tuple[RequestInFlight, ...]:
    """The rows, and one of unknown length for each that the engine counts and doesn't show."""
    missing = min(max(count - len(rows), 0), 1)  # one that is owed so much is enough
    return (*rows, *(RequestInFlight(f"unknown {number}") for number in range(missing)))


@dataclass(frozen=True, slots=True)
class _Traffic:
    """What the guard counted: see `guard.Traffic.render`."""

    answered: int = 0
    failures: int = 0
    passing: tuple[RequestInFlight, ...] = ()
    oldest_s: float | None = None


def _read_traffic(text: str) -> _Traffic | None:
    """What `guard.Traffic.render` wrote; None of anything else."""
    try:
        answered, failures, *rows = text.split(" ")
        parts = [row.split(":") for row in rows]
        return _Traffic(
            int(answered),
            int(failures),
            tuple(_passing(*part[:-1]) for part in parts),
            max((float(part[-1]) for part in parts), default=None),
        )
    except (ValueError, TypeError):
        return None


def _passing(number: str, body_bytes: str, kind: str, pieces: str) -> RequestInFlight:
    if kind == "w":
        return RequestInFlight(number)  # nothing is seen of it before its end
    tokens = max(int(body_bytes) // _BYTES_PER_TOKEN, 1)
    return RequestInFlight(f"{number} streamed", tokens, written=int(pieces))
