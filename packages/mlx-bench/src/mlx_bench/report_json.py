"""A report as JSON and back; the shape is `schema_version` 1."""

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeIs

from mlx_bench._json_values import as_list, as_object, object_or_none
from mlx_bench.cautions import Caution, CautionCode, WaveTiming
from mlx_bench.completion import CountedBy
from mlx_bench.errors import ParametersError, ReportError
from mlx_bench.metrics import Phase, Point, Run
from mlx_bench.report import (
    SUMMARY_METRICS,
    Engine,
    Memory,
    PointSummary,
    Report,
    gap_percentiles_s,
    metric,
)
from mlx_bench.stats import Estimate
from mlx_bench.workload import Cache, Exactness, Parameters

SCHEMA_VERSION = 1
"""The version of the JSON shape that this module writes and reads."""


def report_as_json(report: Report) -> dict[str, object]:
    """The report as a JSON object."""
    summaries = [_summary_as_json(report, summary) for summary in report.summaries]
    labelled = [
        {"concurrency": point.concurrency, "prompt_tokens": point.prompt_tokens, **summary}
        for point, summary in zip(report.points, summaries, strict=True)
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "bench_version": report.bench_version,
        "target": report.target,
        "model": report.model,
        "engine": {"name": report.engine.name or None, "version": report.engine.version or None},
        "parameters": _parameters_as_json(report),
        "machine": report.machine,
        "started_at": report.started_at,
        "finished": report.finished,
        "summary": summaries[0] if len(summaries) == 1 else labelled,
        "memory": asdict(report.memory) if report.memory else None,
        "energy_source": report.energy_source or None,
        "cautions": [_caution_as_json(caution) for caution in report.cautions],
        "runs": [_run_as_json(run) for run in report.runs],
        "other_runs": [_run_as_json(run) for run in report.other_runs],
        "waves": [_flat(asdict(wave)) for wave in report.waves],
        **report.extra,
    }


def estimate_as_json(estimate: Estimate) -> dict[str, object]:
    """An estimate with its interval; what is unknown is null."""
    return asdict(estimate)


def _summary_as_json(report: Report, summary: PointSummary) -> dict[str, object]:
    shape: dict[str, object] = {
        name: estimate_as_json(metric(summary, name)) for name in SUMMARY_METRICS
    }
    shape["inter_token_latency_s"] = {
        **estimate_as_json(summary.inter_token_latency_s),
        **gap_percentiles_s(summary.point, report.runs),
    }
    return shape


def _parameters_as_json(report: Report) -> dict[str, object]:
    parameters = report.parameters
    return {
        **asdict(parameters),
        "prompt_tokens": _one_or_list(parameters.prompt_tokens),
        "concurrency": _one_or_list(parameters.concurrency),
        "prompt_exactness": report.prompt_exactness,
    }


def _one_or_list(values: tuple[int, ...]) -> int | list[int]:
    return values[0] if len(values) == 1 else list(values)


def _caution_as_json(caution: Caution) -> dict[str, object]:
    shape: dict[str, object] = {"code": caution.code, "message": caution.message}
    if caution.point is not None:
        shape |= asdict(caution.point)
    return shape


def _run_as_json(run: Run) -> dict[str, object]:
    shape = _flat(asdict(run))
    shape["event_offsets_s"] = [round(offset, 6) for offset in run.event_offsets_s]
    shape["prompt_tokens_asked"] = run.point.prompt_tokens
    return shape


def _flat(shape: dict[str, object]) -> dict[str, object]:
    """A run or wave with its point's fields beside its own instead of inside."""
    point = as_object(shape.pop("point"))
    return {**point, **shape}


def save_report(report: Report, path: Path) -> None:
    """Write the report as JSON, so that a reader never sees half of it."""
    write_atomically(path, json.dumps(report_as_json(report), indent=1) + "\n")


def require_writable(path: Path) -> None:
    """Make the folder of a file that is to be written, and see that it takes one.

    A measurement takes minutes; what can't be kept should be known before.

    Raises:
        ReportError: Nothing can be written there.
    """
    if path.is_dir():
        raise ReportError("is a folder", source=str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ReportError(f"can't be written: {error.strerror}", source=str(path)) from error


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by text through a temporary file in the same folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_report(path: Path) -> Report:
    """The report that a file holds.

    Raises:
        ReportError: The file is missing, no JSON, of a newer version, or lacks something.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"can't be read: {error}", source=str(path)) from error
    return parse_report(text, source=str(path))


def parse_report(text: str, *, source: str) -> Report:
    """The report that JSON text holds.

    Raises:
        ReportError: The text is no JSON, of a newer version, or lacks something.
    """
    try:
        root = object_or_none(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ReportError(f"is no JSON: {error}", source=source) from error
    if root is None:
        raise ReportError("is no JSON object", source=source)
    if root.get("schema_version") != SCHEMA_VERSION:
        found = root.get("schema_version")
        raise ReportError(
            f"has schema_version {found!r}; this program reads {SCHEMA_VERSION}", source=source
        )
    return _read_report(_Fields(root, source))


def _is_finite(value: object) -> TypeIs[float]:
    """Whether arithmetic can take a value as a number: no NaN, no infinity, no huge integer."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max


def _is_integer(value: object) -> TypeIs[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


class _Fields:
    """Reads fields of one JSON object, naming the place of what is missing or of another type."""

    def __init__(self, shape: Mapping[str, object], source: str, place: str = "") -> None:
        self.shape = shape
        self.source = source
        self.place = place

    def _wrong(self, name: str, wanted: str) -> ReportError:
        place = f"{self.place}.{name}" if self.place else name
        value = self.shape.get(name)
        got = str(value)[:40] if isinstance(value, int | float) else type(value).__name__
        got = got if name in self.shape else "nothing"
        return ReportError(f"expected {wanted}, got {got}", source=self.source, key_path=place)

    def inside(self, name: str) -> "_Fields":
        value = object_or_none(self.shape.get(name))
        if value is None:
            raise self._wrong(name, "an object")
        return _Fields(value, self.source, f"{self.place}.{name}" if self.place else name)

    def each(self, name: str) -> "list[_Fields]":
        values = self.shape.get(name)
        if not isinstance(values, list):
            raise self._wrong(name, "a list")
        return [
            _Fields(as_object(value), self.source, f"{name}[{position}]")
            for position, value in enumerate(as_list(self.shape.get(name)))
        ]

    def text(self, name: str) -> str:
        value = self.shape.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def optional_text(self, name: str) -> str | None:
        return None if self.shape.get(name) is None else self.text(name)

    def number(self, name: str) -> float:
        value = self.shape.get(name)
        if not _is_finite(value):
            raise self._wrong(name, "a number")
        return value

    def optional_number(self, name: str) -> float | None:
        return None if self.shape.get(name) is None else self.number(name)

    def integer(self, name: str) -> int:
        value = self.shape.get(name)
        if not _is_integer(value):
            raise self._wrong(name, "an integer")
        return value

    def optional_integer(self, name: str) -> int | None:
        return None if self.shape.get(name) is None else self.integer(name)

    def integers(self, name: str) -> tuple[int, ...]:
        values = self.shape.get(name)
        listed = as_list(values) or [values]
        found = tuple(filter(_is_integer, listed))
        if not found or len(found) != len(listed):
            raise self._wrong(name, "an integer or a list of integers")
        return found

    def numbers(self, name: str) -> tuple[float, ...]:
        listed = as_list(self.shape.get(name))
        found = tuple(filter(_is_finite, listed))
        if not isinstance(self.shape.get(name), list) or len(found) != len(listed):
            raise self._wrong(name, "a list of numbers")
        return found

    def choice[Kind: (Cache, CautionCode, CountedBy, Exactness, Phase)](
        self, name: str, kind: type[Kind]
    ) -> Kind:
        value = self.text(name)
        if value not in list(kind):
            raise self._wrong(name, f"one of {', '.join(kind)}")
        return kind(value)


def _read_report(fields: _Fields) -> Report:
    memory = fields.inside("memory") if fields.shape.get("memory") is not None else None
    engine = fields.inside("engine")
    parameters = fields.inside("parameters")
    return Report(
        target=fields.text("target"),
        model=fields.text("model"),
        parameters=_read_parameters(parameters),
        machine=dict(fields.inside("machine").shape),
        engine=Engine(engine.optional_text("name") or "", engine.optional_text("version") or ""),
        started_at=fields.text("started_at"),
        finished=fields.shape.get("finished") is True,
        prompt_exactness=parameters.choice("prompt_exactness", Exactness),
        runs=tuple(_read_run(run) for run in fields.each("runs")),
        other_runs=tuple(_read_run(run) for run in fields.each("other_runs")),
        waves=tuple(_read_wave(wave) for wave in fields.each("waves")),
        memory=Memory(memory.integer("peak_bytes"), memory.text("source")) if memory else None,
        energy_source=fields.optional_text("energy_source") or "",
        cautions=tuple(_read_caution(caution) for caution in fields.each("cautions")),
        bench_version=fields.text("bench_version"),
        extra={name: value for name, value in fields.shape.items() if name in _EXTRA_KEYS},
    )


_EXTRA_KEYS = frozenset({"verdict", "tool_calling", "tier", "quant", "source"})


def _read_parameters(fields: _Fields) -> Parameters:
    try:
        return Parameters(
            iterations=fields.integer("iterations"),
            warm_up=fields.integer("warm_up"),
            prompt_tokens=fields.integers("prompt_tokens"),
            generation_tokens=fields.integer("generation_tokens"),
            concurrency=fields.integers("concurrency"),
            cache=fields.choice("cache", Cache),
            seed=fields.integer("seed"),
            precision=fields.optional_number("precision"),
            max_iterations=fields.integer("max_iterations"),
        )
    except ParametersError as error:
        raise ReportError(error.message, source=fields.source, key_path=fields.place) from error


def _read_point(fields: _Fields, prompt_tokens: str = "prompt_tokens") -> Point:
    return Point(fields.integer("concurrency"), fields.integer(prompt_tokens))


def _read_run(fields: _Fields) -> Run:
    return Run(
        point=_read_point(fields, "prompt_tokens_asked"),
        phase=fields.choice("phase", Phase),
        iteration=fields.integer("iteration"),
        stream=fields.integer("stream"),
        connect_s=fields.number("connect_s"),
        ttft_s=fields.optional_number("ttft_s"),
        prompt_tps=fields.optional_number("prompt_tps"),
        generation_tps=fields.optional_number("generation_tps"),
        end_to_end_s=fields.optional_number("end_to_end_s"),
        requested_tokens=fields.integer("requested_tokens"),
        completion_tokens=fields.integer("completion_tokens"),
        counted_by=fields.choice("counted_by", CountedBy),
        prompt_tokens=fields.optional_integer("prompt_tokens"),
        cached_tokens=fields.optional_integer("cached_tokens"),
        event_offsets_s=fields.numbers("event_offsets_s"),
        finish_reason=fields.optional_text("finish_reason"),
        error=fields.optional_text("error"),
    )


def _read_wave(fields: _Fields) -> WaveTiming:
    return WaveTiming(
        point=_read_point(fields),
        iteration=fields.integer("iteration"),
        duration_s=fields.number("duration_s"),
        clock_drift_s=fields.number("clock_drift_s"),
        client_cpu_s=fields.number("client_cpu_s"),
        peak_memory_bytes=fields.optional_integer("peak_memory_bytes"),
        energy_j=fields.optional_number("energy_j"),
    )


def _read_caution(fields: _Fields) -> Caution:
    has_point = "concurrency" in fields.shape
    return Caution(
        fields.choice("code", CautionCode),
        fields.text("message"),
        _read_point(fields) if has_point else None,
    )
