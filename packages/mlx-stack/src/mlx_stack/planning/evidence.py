"""What `bench --save` left behind, as measurements of models on this machine."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mlx_bench import Cache, Report, ReportError, load_report
from mlx_catalog import CatalogEntry, Quant
from mlx_hwprobe import HardwareProfile
from mlx_recommend import Basis, Measurement
from mlx_stack.errors import InvalidFileError

_HINT = "Remove the file, or measure again with `mlx-stack bench --save`."


class _Labels(msgspec.Struct, frozen=True):
    """What `bench` adds to a report: what is known of the weights."""

    quant: str | None = None
    source: str | None = None


class _MeasuredMachine(msgspec.Struct, frozen=True):
    chip: str | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class SavedBenchmark:
    """A saved result, as far as estimates need it.

    Attributes:
        model: What was measured: a catalog id, a repository or a folder.
        quant: Its precision, where the result says so.
        source: Where its weights are from, where the result says so.
        report: The figures.
        machine: Where they were measured.
    """

    model: str
    quant: str | None
    source: str | None
    report: Report
    machine: _MeasuredMachine

    @property
    def is_of_this_stack(self) -> bool:
        """Whether mlx-stack served it; an endpoint by its URL may be anywhere."""
        return not self.report.target.startswith(("http://", "https://"))

    def measurements(self, quant: str) -> tuple[Measurement, ...]:
        """The figures of single requests; those of several at once say less.

        Where a prefix cache was made to answer, the prefill rate is the cache's.
        """
        is_primed = self.report.parameters.cache is Cache.PRIMED
        return tuple(
            Measurement(
                basis=Basis.MEASURED,
                quant=quant,
                prompt_tps=None if is_primed else summary.prompt_tps.value,
                generation_tps=summary.generation_tps.value,
                prompt_tokens=summary.prompt_tokens,
                source=f"measured {self.report.started_at[:10]}".rstrip(),
            )
            for summary in self.report.summaries
            if summary.concurrency == 1
        )


def saved_benchmarks(folder: Path, hardware: HardwareProfile) -> tuple[SavedBenchmark, ...]:
    """The saved results of machines like `hardware`, oldest first.

    Raises:
        InvalidFileError: A result is damaged.
    """
    if not folder.is_dir():
        return ()
    results = [_read(path) for path in sorted(folder.glob("*.json"))]
    found = [
        result for result in results if result.is_of_this_stack and _is_of(result.machine, hardware)
    ]
    return tuple(sorted(found, key=lambda result: result.report.started_at))


def measurements_of(
    entry: CatalogEntry, saved: Iterable[SavedBenchmark], *, default_quant: Quant
) -> tuple[Measurement, ...]:
    """What the saved results say of a catalog entry, oldest first."""
    found: list[Measurement] = []
    for result in saved:
        quant = _quant(entry, result, default_quant)
        if quant is not None:
            found += result.measurements(quant)
    return tuple(found)


def measurements_of_source(
    name: str, quant: str, saved: Iterable[SavedBenchmark]
) -> Sequence[Measurement]:
    """What the saved results say of a repository or folder that the catalog doesn't have."""
    return [
        measurement
        for result in saved
        if name in (result.model, result.source) and result.quant in (None, quant)
        for measurement in result.measurements(quant)
    ]


def _read(path: Path) -> SavedBenchmark:
    try:
        report = load_report(path)
        labels = msgspec.convert(report.extra, _Labels)
        machine = msgspec.convert(report.machine, _MeasuredMachine)
    except ReportError as error:
        why = f"is not a benchmark result: {error.problem}"
        raise InvalidFileError(path, why, hint=_HINT) from error
    except msgspec.ValidationError as error:
        raise InvalidFileError(path, f"is not a benchmark result: {error}", hint=_HINT) from error
    return SavedBenchmark(report.model, labels.quant, labels.source, report, machine)


def _is_of(machine: _MeasuredMachine, hardware: HardwareProfile) -> bool:
    """Whether a result is from such a machine; one that names none is from this one."""
    chip = machine.chip.removeprefix("Apple ") if machine.chip is not None else hardware.chip
    memory = hardware.memory_bytes if machine.memory_bytes is None else machine.memory_bytes
    return (chip, memory) == (hardware.chip, hardware.memory_bytes)


def _quant(entry: CatalogEntry, result: SavedBenchmark, default: Quant) -> Quant | None:
    """The precision that a result measured `entry` at; None where it is about another model."""
    for quant, source in entry.sources.items():
        if source.hf_repo is not None and source.hf_repo in (result.model, result.source):
            return quant
    if result.model != entry.id and result.model not in entry.aliases:
        return None
    if result.quant is None:
        return default
    return next((each for each in Quant if each == result.quant), None)
