"""Find out which of the engine's settings make a tier faster here, and write them down.

What to try is in `candidates`, what to make of it in `mlx_bench.tuning`; both are pure. This starts
an engine for each trial, next to what runs, and keeps every trial at once, so that an interrupted
run continues.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psutil

from mlx_bench import Conditions as MeasuringConditions
from mlx_bench import EndpointError, Parameters, Report, ReportError, StreamingClient, run_benchmark
from mlx_bench.agent_check import coherence
from mlx_bench.agent_check.check import server_of
from mlx_bench.report import EngineVersion
from mlx_bench.report_file import write_atomically
from mlx_bench.runner import OnProgress
from mlx_bench.tuning import (
    BASELINE_FACTOR,
    LEAST_SAMPLES,
    Trial,
    TrialSettings,
    Tuning,
    TuningCandidate,
    TuningStep,
    Verdict,
    chosen,
    judge,
    next_candidate,
    pending,
)
from mlx_bench.workload import Cache
from mlx_catalog import UnreadableModelError
from mlx_stack.bench.candidates import candidates
from mlx_stack.bench.target import BenchTarget, serve_beside
from mlx_stack.engines.environment import EngineName, require_environment
from mlx_stack.engines.vllm_mlx import flags_of
from mlx_stack.errors import StackError, UsageError
from mlx_stack.format import format_bytes
from mlx_stack.home import Home
from mlx_stack.models.disk.local import LocalModel
from mlx_stack.models.disk.manifest import weights_digest
from mlx_stack.models.find import local_model_of
from mlx_stack.models.own_code import ensure_no_code
from mlx_stack.models.serving import entry_of, fit_and_shape, memory_of, serving_of
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.ports import free_ports
from mlx_stack.services.saved_tunings import (
    SCHEMA_VERSION,
    SavedTuning,
    Subject,
    load_tunings,
    tunings_folder,
)
from mlx_stack.services.stack_lock import stack_lock
from mlx_stack.stack import Tier, load_stack, require_role, save_stack

_SERVICE = "tune"
_TOKENS_AFTER_FIRST = 4
"""Where only the time to the first token is of interest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """What was found out so far.

    Attributes:
        saved: The evidence; None where nothing was measured yet.
        vllm_flags: What the tier's `vllm_flags` become; None where they stay as they are.
        is_applied: Whether they are written.
    """

    subject: Subject
    tuning: Tuning
    is_finished: bool
    saved: Path | None
    vllm_flags: TrialSettings | None
    is_applied: bool = False

    @property
    def verdicts(self) -> tuple[tuple[Trial, Verdict | None], ...]:
        """Every trial with what is made of it; a baseline has no verdict."""
        is_baseline = TuningStep.BASELINE
        return tuple(
            (each, None if each.candidate.step is is_baseline else self._verdict(each))
            for each in self.tuning.trials
        )

    def _verdict(self, trial: Trial) -> Verdict:
        return judge(self.tuning, trial.candidate)

    @property
    def best(self) -> TuningCandidate | None:
        """What is worth keeping; None where the tier is best as it is, or it isn't known yet."""
        return chosen(self.tuning)

    @property
    def left(self) -> tuple[TuningCandidate, ...]:
        """What is still to be tried."""
        return () if self.is_finished else tuple(pending(self.tuning))

    @property
    def left_s(self) -> float | None:
        """How long that takes; None where no trial tells."""
        return _left_s(self.tuning)

    def to_document(self) -> dict[str, object]:
        """The JSON answer."""
        return {
            "schema_version": SCHEMA_VERSION,
            "subject": msgspec.to_builtins(self.subject),
            "is_finished": self.is_finished,
            "limit_bytes": self.tuning.limit_bytes,
            "trials": [_trial_document(*each) for each in self.verdicts],
            "left": [
                {"factor": each.factor, "settings": dict(each.settings)} for each in self.left
            ],
            "left_s": self.left_s,
            "vllm_flags": self.vllm_flags,
            "is_applied": self.is_applied,
            "saved": str(self.saved) if self.saved else None,
        }


def _trial_document(trial: Trial, verdict: Verdict | None) -> dict[str, object]:
    return {
        "step": trial.candidate.step.value,
        "factor": trial.candidate.factor,
        "settings": dict(trial.candidate.settings),
        "outcome": verdict.outcome.value if verdict is not None else None,
        "gain": verdict.gain if verdict is not None else None,
        "words": verdict.words if verdict is not None else None,
        "peak_bytes": trial.peak_bytes,
        "seconds": trial.seconds,
        "samples": {name: list(samples) for name, samples in trial.samples.items()},
    }


def _left_s(tuning: Tuning) -> float | None:
    seconds = [trial.seconds for trial in tuning.trials if trial.error is None]
    return max(seconds) * len(tuple(pending(tuning))) if seconds else None


@dataclass
class _Tuner:
    """A run: the tier, what is measured, and what is known so far."""

    opened: OpenStack
    tier: Tier
    local: LocalModel
    parameters: Parameters
    on_progress: OnProgress
    path: Path
    saved: SavedTuning
    clock: Callable[[], float] = field(default=time.monotonic)

    def run(self, seconds: float) -> None:
        """Try what is left, until nothing is or the time is over."""
        ends = self.clock() + seconds
        while (candidate := next_candidate(self.saved.tuning)) is not None:
            trials = self.saved.tuning.trials
            longest = max((trial.seconds for trial in trials), default=0.0)
            if trials and self.clock() + longest > ends:
                return
            self._say(candidate)
            trial = self._try(candidate)
            if candidate.step is TuningStep.BASELINE and trial.error is not None:
                raise StackError(f"{self.tier.name} can't be measured: {trial.error}")
            tuning = msgspec.structs.replace(self.saved.tuning, trials=(*trials, trial))
            self._keep(msgspec.structs.replace(self.saved, tuning=tuning))
        self._keep(msgspec.structs.replace(self.saved, is_finished=True))

    def _say(self, candidate: TuningCandidate) -> None:
        tuning = self.saved.tuning
        left = _left_s(tuning)
        eta = "" if left is None else f", about {max(1, round(left / 60))} min left"
        at, of = len(tuning.trials) + 1, len(tuning.trials) + len(tuple(pending(tuning)))
        self.on_progress(f"{at} of {of}: {candidate.words}{eta}")

    def _keep(self, saved: SavedTuning) -> None:
        self.saved = saved
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = msgspec.json.format(msgspec.json.encode(saved), indent=2).decode()
        write_atomically(self.path, text + "\n")

    def _try(self, candidate: TuningCandidate) -> Trial:
        began = self.clock()
        (port,) = free_ports(1)
        flags = {**self.tier.vllm_flags, **candidate.settings}
        flags.pop("port", None)
        tier = msgspec.structs.replace(self.tier, name=_SERVICE, port=port, vllm_flags=flags)
        try:
            with serve_beside(self.opened, tier, self.local.path) as target:
                trial = self._measure(candidate, target)
        except (StackError, EndpointError) as error:
            problem = str(error).strip().splitlines()[0]
            trial = Trial(candidate, error=problem)
        return msgspec.structs.replace(trial, seconds=round(self.clock() - began, 1))

    def _measure(self, candidate: TuningCandidate, target: BenchTarget) -> Trial:
        server = server_of(target.endpoint)
        try:
            answers = coherence.ask_all(server, thinks=None)
        finally:
            server.close()
        parameters = self.parameters
        if candidate.step is TuningStep.BASELINE:
            often = parameters.iterations * BASELINE_FACTOR
            parameters = msgspec.structs.replace(parameters, iterations=often)
        once = msgspec.structs.replace(
            parameters,
            concurrency=(1,),
            cache=Cache.PRIMED,
            generation_tokens=min(parameters.generation_tokens, _TOKENS_AFTER_FIRST),
        )
        with StreamingClient(target.endpoint) as client:
            fresh = self._benchmark(client, target, parameters)
            primed = self._benchmark(client, target, once)
        peaks = [each.memory.peak_bytes for each in (fresh, primed) if each.memory is not None]
        return Trial(
            candidate,
            samples=_samples(fresh, ("generation_tps", "prompt_tps"))
            | _samples(primed, ("ttft_s",), prefix="primed_"),
            answers=answers,
            peak_bytes=max(peaks, default=None),
        )

    def _benchmark(
        self, client: StreamingClient, target: BenchTarget, parameters: Parameters
    ) -> Report:
        conditions = MeasuringConditions(
            target=f"tier {self.tier.name}",
            machine={},
            engine=self.saved.subject.engine,
            memory_bytes=target.process.memory_bytes if target.process else None,
            context_tokens=self.tier.context_tokens,
            concurrency=self.tier.concurrency,
        )
        return run_benchmark(client, parameters, conditions)


def _samples(
    report: Report, figures: tuple[str, ...], *, prefix: str = ""
) -> dict[str, tuple[float, ...]]:
    found: dict[str, list[float]] = {}
    for run in report.runs:
        for name in figures:
            value = getattr(run, name)
            if run.error is None and value is not None:
                found.setdefault(f"{prefix}{name}/{run.concurrency}", []).append(value)
    return {name: tuple(samples) for name, samples in found.items()}


def tune(
    opened: OpenStack,
    name: str,
    parameters: Parameters,
    *,
    seconds: float,
    applies: bool = False,
    is_dry: bool = False,
    available_bytes: int | None = None,
    on_progress: OnProgress = lambda _: None,
) -> TuneResult:
    """Find the settings that make a tier faster, and write them if asked.

    A result that is there already, of the same model, engine and flags, is used or continued.

    Args:
        seconds: When no further trial is begun; what is missing then can be continued.
        applies: Write what wins into the tier's `vllm_flags`.
        is_dry: Start and write nothing: only say what would be tried, and written.
        available_bytes: Memory that is free for a second copy; None asks the machine.

    Raises:
        UsageError: There is no such tier.
        StackError: The tier can't be served next to what runs, or can't be measured.
        ReportError: A saved result is damaged, or can't be written.
    """
    stack = opened.stack
    tier = stack.tier(name)
    if tier is None:
        hint = f"The stack has: {', '.join(each.name for each in stack.tiers)}."
        raise UsageError(f"{name!r} isn't a tier: only tiers are tuned.", hint=hint)
    require_role(tier)
    if tier.is_on_mlx_lm:
        raise UsageError(
            f"{name} is served by mlx-lm: only settings of vllm-mlx are tuned.",
            hint=f"`mlx-stack bench {name}` measures it as it is.",
        )
    local = _whole_model(opened, tier)
    parameters = msgspec.structs.replace(
        parameters,
        iterations=max(parameters.iterations, LEAST_SAMPLES),
        prompt_tokens=parameters.prompt_tokens[:1],
        concurrency=(1, tier.concurrency),
        cache=Cache.FRESH,
    )
    fresh = _fresh(opened, tier, local, parameters)
    folder = tunings_folder(opened.home)
    path, saved = _same_subject(opened.home, fresh) or (_new_path(folder, tier), fresh)
    if not is_dry and not saved.is_finished:
        _ensure_room(saved.tuning, local, available_bytes)
        opened.home.create()
        tuner = _Tuner(opened, tier, local, parameters, on_progress, path, saved)
        try:
            tuner.run(seconds)
        except OSError as error:
            why = f"can't be written: {error.strerror}"
            raise ReportError(why, source=str(path)) from error
        saved = tuner.saved
    best = chosen(saved.tuning) if saved.is_finished else None
    flags = {**tier.vllm_flags, **best.settings} if best is not None else None
    result = TuneResult(
        subject=saved.subject,
        tuning=saved.tuning,
        is_finished=saved.is_finished,
        saved=path if saved.tuning.trials else None,
        vllm_flags=flags,
    )
    if flags is None or not applies or is_dry:
        return result
    _apply(opened.home, tier, flags, path.name)
    return replace(result, is_applied=True)


def _whole_model(opened: OpenStack, tier: Tier) -> LocalModel:
    local = local_model_of(opened, tier)
    if local is None or not local.is_whole:
        hint = f"`mlx-stack pull {tier.model}` downloads it."
        raise StackError(f"The model of {tier.name} is not on this disk.", hint=hint)
    ensure_no_code(local.path)
    return local


def _fresh(opened: OpenStack, tier: Tier, local: LocalModel, parameters: Parameters) -> SavedTuning:
    """A result of which nothing is measured yet."""
    entry = entry_of(opened.catalog, tier)
    serving = serving_of(opened.catalog, tier, local.path)
    environment = require_environment(opened.home.engines, EngineName.VLLM_MLX)
    flags = flags_of(tier, serving)
    for address in ("served-model-name", "host", "port"):
        flags.pop(address, None)
    try:
        fit, shape = fit_and_shape(entry, tier, local.path)
        memory = memory_of(shape, fit, tier)
    except UnreadableModelError:  # an odd model is served all the same; nobody planned its memory
        memory = None
    return SavedTuning(
        subject=Subject(
            tier=tier.name,
            model=tier.model,
            model_hash=weights_digest(local.path),
            engine=EngineVersion(environment.engine, environment.version),
            flags=flags,
            prompt_tokens=parameters.prompt_tokens[0],
            generation_tokens=parameters.generation_tokens,
            concurrency=tier.concurrency,
        ),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        tuning=Tuning(
            candidates(tier, serving),
            limit_bytes=memory.total_bytes if memory is not None else None,
        ),
    )


def _same_subject(home: Home, fresh: SavedTuning) -> tuple[Path, SavedTuning] | None:
    """The latest result of the same subject that tried the same, with its file."""
    wanted = (fresh.subject, fresh.tuning.candidates)
    found = load_tunings(home)
    same = [each for each in found if (each[1].subject, each[1].tuning.candidates) == wanted]
    return max(same, key=lambda each: each[1].started_at, default=None)


def _new_path(folder: Path, tier: Tier) -> Path:
    parts = (tier.name, tier.model, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    words = [re.sub(r"[^A-Za-z0-9._]+", "-", part).strip("-.") for part in parts]
    return folder / f"{'-'.join(filter(None, words))}.json"


def _ensure_room(tuning: Tuning, local: LocalModel, available_bytes: int | None) -> None:
    """Refuse to load a second copy that doesn't fit next to what runs."""
    free = available_bytes if available_bytes is not None else psutil.virtual_memory().available
    needed = tuning.limit_bytes or local.size_bytes
    if needed > free:
        raise StackError(
            f"A second copy of the model needs {format_bytes(needed)}; "
            f"{format_bytes(free)} are free.",
            hint="`mlx-stack down` frees the memory of the tiers.",
        )


def _apply(home: Home, tuned: Tier, flags: TrialSettings, evidence: str) -> None:
    """Write a tier's flags and where they come from.

    Raises:
        StackError: The tier has been changed meanwhile.
    """
    with stack_lock(home, "bench"):
        stack = load_stack(home.stack)
        if stack.tier(tuned.name) != tuned:
            raise StackError(
                f"The tier {tuned.name} was changed meanwhile: nothing was written.",
                hint="Tune it again as it is now.",
            )
        better = msgspec.structs.replace(tuned, vllm_flags=flags, tuned_by=evidence)
        tiers = tuple(better if each == tuned else each for each in stack.tiers)
        save_stack(home.stack, msgspec.structs.replace(stack, tiers=tiers))
