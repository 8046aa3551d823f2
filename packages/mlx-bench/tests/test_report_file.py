"""Reports saved, and read back."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlx_bench.errors import ReportError
from mlx_bench.metrics import Point
from mlx_bench.report import Report
from mlx_bench.report_file import load_report, parse_report, require_writable, save_report

type MakeReport = Callable[..., Report]

SWEEP = (Point(1, 256), Point(4, 256), Point(1, 2048), Point(4, 2048))


@pytest.mark.parametrize("points", [SWEEP[:1], SWEEP])
def test_a_saved_report_is_read_back_the_same(
    make_report: MakeReport, tmp_path: Path, points: tuple[Point, ...]
) -> None:
    report = make_report(points)
    path = tmp_path / "deep" / "report.json"
    save_report(report, path)
    assert load_report(path) == report
    assert [entry.name for entry in path.parent.iterdir()] == ["report.json"]


def test_keys_that_others_added_are_kept_as_they_are(make_report: MakeReport) -> None:
    added = {"tier": "fast", "whose": {"name": None, "list": [1, 2.5]}}
    text = json.dumps(make_report().with_extra(**added).to_document())
    assert parse_report(text, source="mine").extra == {"quant": "int4", **added}


def test_the_published_fields_are_enough() -> None:
    text = json.dumps(
        {
            "schema_version": 1,
            "target": "http://127.0.0.1:8000/v1",
            "model": "m",
            "parameters": {"prompt_tokens": 512, "concurrency": [1, 4]},
            "machine": {},
            "summary": [{"concurrency": n, "ttft_s": {"value": 0.1 * n}} for n in (1, 4)],
            "runs": [],
            "cautions": [],
        }
    )
    report = parse_report(text, source="old.json")
    assert report.points == (Point(1, 512), Point(4, 512))
    assert [summary.ttft_s.value for summary in report.summaries] == [0.1, 0.4]
    assert report.summaries[0].generation_tps.value is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "Expected `object`, got `array`"),
        ('{"a": ' * 100_000, "not JSON"),
        ('{"schema_version": 2}', "schema_version 2"),
        ("{}", "schema_version None"),
        ('{"schema_version": 1}', "missing required field `parameters`"),
    ],
)
def test_a_damaged_report_is_refused_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(ReportError, match=complaint):
        parse_report(text, source="old.json")


def test_a_wrong_field_is_named_with_its_place(make_report: MakeReport) -> None:
    shape = make_report().to_document()
    text = json.dumps(shape).replace('"connect_s": 0.0005', '"connect_s": "fast"', 1)
    with pytest.raises(ReportError, match=r"runs\[0\].connect_s: Expected `float`, got `str`") as e:
        parse_report(text, source="old.json")
    assert (e.value.source, e.value.key_path) == ("old.json", "runs[0].connect_s")


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("ttft_s", math.nan, "is not JSON"),
        ("ttft_s", 10**400, r"runs\[0\].ttft_s: Number out of range"),
        ("completion_tokens", 10**400, r"runs\[0\].completion_tokens: Expected `int` <="),
        ("completion_tokens", -1, r"runs\[0\].completion_tokens: Expected `int` >= 0"),
        ("completion_tokens", True, "Expected `int`, got `bool`"),
        ("event_offsets_s", None, "Expected `array`, got `null`"),
        ("event_offsets_s", [0.1, "late"], r"event_offsets_s\[1\]: Expected `float`, got `str`"),
    ],
)
def test_figures_that_no_arithmetic_can_take_are_refused(
    make_report: MakeReport, field: str, value: object, complaint: str
) -> None:
    shape: dict[str, Any] = make_report().to_document()
    shape["runs"][0][field] = value
    with pytest.raises(ReportError, match=complaint):
        parse_report(json.dumps(shape), source="old.json")


def test_a_report_of_impossible_parameters_is_refused_with_its_place(
    make_report: MakeReport,
) -> None:
    text = json.dumps(make_report().to_document()).replace('"iterations": ', '"iterations": -')
    with pytest.raises(ReportError, match=r"old.json: parameters: .* at least 1"):
        parse_report(text, source="old.json")


def test_a_place_that_takes_no_file_is_known_before(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "report.json")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    for wrong in (tmp_path, tmp_path / "file" / "report.json"):
        with pytest.raises(ReportError, match=str(wrong)):
            require_writable(wrong)


def test_a_device_is_refused_rather_than_read() -> None:
    with pytest.raises(ReportError, match="is a device"):
        load_report(Path("/dev/zero"))


def test_a_file_larger_than_any_report_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(ReportError, match="too large"):
        load_report(path)


def test_a_missing_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="can't be read"):
        load_report(tmp_path / "none.json")
