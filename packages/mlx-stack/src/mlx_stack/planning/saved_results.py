"""What is known of models' speed on a machine: published figures, and what was measured on it.

That is what `bench --save` and `bench --tune` left, and what the ledger tells of the requests to
the stack's tiers.
"""

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mlx_bench import Cache, EngineVersion, Report, ReportError, load_saved
from mlx_bench.tuning import Trial, TuningStep
from mlx_catalog import CatalogEntry, Quant
from mlx_hwprobe import HardwareProfile
from mlx_recommend import Basis, Measurement, reference_measurements
from mlx_stack.engines.by_role import program_of
from mlx_stack.errors import InvalidFileError
from mlx_stack.hardware import known_hardware
from mlx_stack.models.disk.manifest import weights_digest
from mlx_stack.models.find import local_model_of
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.learned import LearnedSpeed, learned_speeds
from mlx_stack.services.saved_tunings import SavedTuning, Subject, load_tunings
from mlx_stack.stack import Tier

type _Dated = tuple[str, Measurement]

_MTP_FLAG = "enable-mtp"
_ONE_STREAM = "generation_tps/1"
_HINT = "Remove the file, or measure again with `mlx-stack bench --save`."


class _Labels(msgspec.Struct, frozen=True):
    """What `bench` adds to a report: what is known of the weights."""

    quant: str | None = None
    source: str | None = None


class _MeasuredMachine(msgspec.Struct, frozen=True):
    chip: str | None = None
    memory_bytes: int | None = None

    def is_like(self, hardware: HardwareProfile) -> bool:
        """Whether it is such a machine; where a result names none, it is from this one."""
        chip = self.chip.removeprefix("Apple ") if self.chip is not None else hardware.chip
        memory = hardware.memory_bytes if self.memory_bytes is None else self.memory_bytes
        return (chip, memory) == (hardware.chip, hardware.memory_bytes)


@dataclass(frozen=True, slots=True)
class _SavedResult:
    report: Report
    labels: _Labels
    machine: _MeasuredMachine

    @property
    def is_of_a_stack(self) -> bool:
        """Whether mlx-stack served it; an endpoint by its URL may be anywhere."""
        return not self.report.target.startswith(("http://", "https://"))

    def is_from(self, source: str | None) -> bool:
        """Whether the weights of a repository or folder were measured."""
        return source is not None and source in (self.report.model, self.labels.source)

    def quant_of(self, entry: CatalogEntry, default: Quant) -> Quant | None:
        """The precision that it measured `entry` at; None where it is about another model."""
        for quant, source in entry.sources.items():
            if self.is_from(source.hf_repo):
                return quant
        if self.report.model != entry.id and self.report.model not in entry.aliases:
            return None
        if self.labels.quant is None:
            return default
        return Quant(self.labels.quant) if self.labels.quant in Quant else None

    def dated(self, quant: str) -> list[_Dated]:
        """The figures of single requests and their date; those of several at once say less.

        Where a prefix cache was made to answer, the prefill rate is the cache's.
        """
        is_primed = self.report.parameters.cache is Cache.PRIMED
        at = self.report.started_at
        return [
            (
                at,
                Measurement(
                    basis=Basis.MEASURED,
                    quant=quant,
                    prompt_tps=None if is_primed else summary.prompt_tps.value,
                    generation_tps=summary.generation_tps.value,
                    prompt_tokens=summary.prompt_tokens,
                    source=f"measured {at[:10]}".rstrip(),
                ),
            )
            for summary in self.report.summaries
            if summary.concurrency == 1
        ]


@dataclass(frozen=True, slots=True)
class _TunedSpeed:
    """The decode speeds that a tuning measured: with and without the model's own drafts."""

    tuning: SavedTuning
    tier: Tier

    def dated(self, quant: str) -> list[_Dated]:
        """Both speeds and their date; neither where the tier made drafts by itself already."""
        subject, at = self.tuning.subject, self.tuning.started_at
        if subject.flags.get(_MTP_FLAG) is True:
            return []
        trials = self.tuning.tuning.trials
        plain = [each for each in trials if each.candidate.step is TuningStep.BASELINE]
        drafting = [each for each in trials if each.candidate.settings == {_MTP_FLAG: True}]
        measurement = Measurement(
            basis=Basis.MEASURED,
            quant=quant,
            generation_tps=_typical(plain),
            mtp_tps=_typical(drafting),
            prompt_tokens=subject.prompt_tokens,
            source=f"tuned {at[:10]}",
        )
        return [(at, measurement)]


def _typical(trials: Iterable[Trial]) -> float | None:
    samples = [each for trial in trials for each in trial.samples.get(_ONE_STREAM, ())]
    return statistics.median(samples) if samples else None


@dataclass(frozen=True, slots=True)
class KnownSpeeds:
    """The figures that are known for machines of one kind.

    Attributes:
        results: The saved results of such machines.
        learned: The speeds of this machine's requests, where it is such a machine.
        tuned: The speeds that the stack's tiers were tuned at, where it is such a machine.
    """

    hardware: HardwareProfile
    results: tuple[_SavedResult, ...]
    learned: tuple[LearnedSpeed, ...] = ()
    tuned: tuple[_TunedSpeed, ...] = ()

    def of_entry(self, entry: CatalogEntry, default_quant: Quant) -> list[Measurement]:
        """The published and the saved figures of a catalog entry.

        Args:
            default_quant: The precision of results that don't name theirs.
        """
        repos = [source.hf_repo for _, source in entry.sources.items()]
        dated: list[_Dated] = []
        for result in self.results:
            quant = result.quant_of(entry, default_quant)
            if quant is not None:
                dated += result.dated(quant)
        for each in self.learned:
            if each.tier.model in (entry.id, *entry.aliases) or each.tier.source in repos:
                dated.append((each.at, each.measurement))
        for each in self.tuned:
            if each.tier.model in (entry.id, *entry.aliases) or each.tier.source in repos:
                dated += each.dated(each.tier.quant or default_quant)
        return [*reference_measurements(entry, self.hardware), *_oldest_first(dated)]

    def of_source(self, source: str, quant: str) -> list[Measurement]:
        """The measured figures of a repository or folder that the catalog doesn't have."""
        dated: list[_Dated] = []
        for result in self.results:
            if result.is_from(source) and result.labels.quant in (None, quant):
                dated += result.dated(quant)
        dated += [
            (each.at, each.measurement) for each in self.learned if each.tier.source == source
        ]
        for each in self.tuned:
            if each.tier.source == source:
                dated += each.dated(quant)
        return _oldest_first(dated)


def known_speeds(opened: OpenStack, hardware: HardwareProfile) -> KnownSpeeds:
    """What is known for machines like `hardware`.

    Raises:
        InvalidFileError: When a saved result is damaged.
    """
    results = [_read(path) for path in sorted(opened.home.benchmarks.glob("*.json"))]
    found = tuple(
        each
        for each in results
        if each is not None and each.is_of_a_stack and each.machine.is_like(hardware)
    )
    learned = learned_speeds(opened, time.time()) if opened.home.ledger.exists() else ()
    tuned = _tuned(opened)
    if learned or tuned:
        this = known_hardware(opened.home)
        if not _MeasuredMachine(this.chip, this.memory_bytes).is_like(hardware):
            learned, tuned = (), ()
    return KnownSpeeds(hardware, found, learned, tuned)


def _tuned(opened: OpenStack) -> tuple[_TunedSpeed, ...]:
    """What was measured of the tiers that the stack has now: of their files, by their engine."""
    stack = opened.readable_stack
    try:
        saved = load_tunings(opened.home)
    except ReportError as error:
        hint = "Remove the file, or measure again with `mlx-stack bench --tune`."
        raise InvalidFileError(Path(error.source), error.problem, hint=hint) from error
    found = ((each, stack.tier(each.subject.tier)) for _, each in saved) if stack else ()
    return tuple(
        _TunedSpeed(each, tier)
        for each, tier in found
        if tier is not None and _is_of(opened, tier, each.subject)
    )


def _is_of(opened: OpenStack, tier: Tier, subject: Subject) -> bool:
    """Whether a tuning measured the tier's model as it is on this disk, by the engine in use."""
    if tier.model != subject.model or subject.model_hash is None:
        return False
    program = program_of(tier, opened.home.engines)
    if program is None or EngineVersion(*program) != subject.engine:
        return False
    local = local_model_of(opened, tier)
    return local is not None and weights_digest(local.path) == subject.model_hash


def _oldest_first(dated: Iterable[_Dated]) -> list[Measurement]:
    return [measurement for _, measurement in sorted(dated, key=lambda each: each[0])]


def _read(path: Path) -> _SavedResult | None:
    """A saved result; None for one of agents, which tells nothing of single requests."""
    try:
        report = load_saved(path)
        if not isinstance(report, Report):
            return None
        labels = msgspec.convert(report.extra, _Labels)
        machine = msgspec.convert(report.machine, _MeasuredMachine)
    except (ReportError, msgspec.ValidationError) as error:
        why = error.problem if isinstance(error, ReportError) else str(error)
        raise InvalidFileError(path, f"isn't a benchmark result: {why}", hint=_HINT) from error
    return _SavedResult(report, labels, machine)
