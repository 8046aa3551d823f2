"""Reports as files: written whole, and read back with the place of whatever is wrong."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, cast

import msgspec

from mlx_bench.agents.export import render_agents_json
from mlx_bench.agents.report import AgentsReport
from mlx_bench.errors import ReportError
from mlx_bench.export import render_json
from mlx_bench.metrics import Count
from mlx_bench.report import SCHEMA_VERSION, Report
from mlx_bench.roles.export import render_role_json
from mlx_bench.roles.report import RoleReport
from mlx_bench.workload import Exactness

_MAX_REPORT_BYTES = 64_000_000
"""A thousand answers of a thousand tokens have a third of it."""
_KNOWN_KEYS = frozenset({"schema_version", *Report.__struct_encode_fields__})

type _OneOrMore = Count | Annotated[tuple[Count, ...], msgspec.Meta(min_length=1)]


class _Parameters(msgspec.Struct):
    """What the document's parameters hold in another form than `Report`."""

    concurrency: _OneOrMore
    prompt_tokens: _OneOrMore
    prompt_exactness: Exactness = Exactness.ASSUMED


class _Document(msgspec.Struct):
    """What the document holds in another form than `Report`."""

    parameters: _Parameters
    summary: dict[str, object] | list[dict[str, object]]


def save_report(report: Report | AgentsReport | RoleReport, path: Path) -> None:
    """Write the report as JSON, so that a reader never sees half of it."""
    match report:
        case Report():
            text = render_json(report)
        case AgentsReport():
            text = render_agents_json(report)
        case RoleReport():
            text = render_role_json(report)
    write_atomically(path, text)


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
        ReportError: The file is missing, not JSON, of a newer version, or lacks something.
    """
    return parse_report(read_text(path), source=str(path))


def load_saved(path: Path) -> Report | AgentsReport | RoleReport:
    """The report that a file holds, of whatever kind.

    Raises:
        ReportError: The file is missing, not JSON, of a newer version, or lacks something.
    """
    return _parse(read_text(path), str(path), _read_saved)


def parse_report(text: str, *, source: str) -> Report:
    """The report that JSON text holds.

    Raises:
        ReportError: The text is not JSON, of a newer version, or lacks something.
    """
    return _parse(text, source, _read)


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        ReportError: It can't be read, is no text, a device, or larger than any report.
    """
    if path.is_char_device():
        raise ReportError("is a device, not a file", source=str(path))
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_REPORT_BYTES + 1)
        if len(content) > _MAX_REPORT_BYTES:
            raise ReportError("is too large for a report", source=str(path))
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ReportError(f"can't be read: {reason}", source=str(path)) from error


def _parse[T](text: str, source: str, read: Callable[[dict[str, object]], T]) -> T:
    """What `read` makes of a document, with the place of whatever is wrong in it."""
    try:
        root = msgspec.json.decode(text, type=dict[str, object])
        found = root.get("schema_version")
        if found != SCHEMA_VERSION:
            wanted = f"this program reads {SCHEMA_VERSION}"
            raise ReportError(f"has schema_version {found!r}; {wanted}", source=source)
        return read(root)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        key_path = place.removesuffix("`").removeprefix(".")
        raise ReportError(message, source=source, key_path=key_path) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise ReportError(f"is not JSON: {error}", source=source) from error


def _read_saved(root: dict[str, object]) -> Report | AgentsReport | RoleReport:
    if "role" in root:
        return _with_extra(root, RoleReport)
    return _with_extra(root, AgentsReport) if "agents" in root else _read(root)


def _with_extra[R: AgentsReport | RoleReport](root: dict[str, object], kind: type[R]) -> R:
    """The report in a document; keys that are not the report's own are its extra."""
    known = {"schema_version", *kind.__struct_encode_fields__}
    extra = {name: value for name, value in root.items() if name not in known}
    return msgspec.convert({**root, "extra": extra}, kind)


def _read(root: dict[str, object]) -> Report:
    """The report in a document; keys that are not the report's own are its extra."""
    for key, what in (("agents", "of agents"), ("role", "of a model that doesn't chat")):
        if key in root:
            raise msgspec.ValidationError(f"is {what}, not of single requests")
    document = msgspec.convert(root, _Document)
    asked = {
        "concurrency": _as_tuple(document.parameters.concurrency),
        "prompt_tokens": _as_tuple(document.parameters.prompt_tokens),
    }
    summaries = document.summary if isinstance(document.summary, list) else [document.summary]
    first = {name: values[0] for name, values in asked.items()}
    shape = {
        **root,
        "parameters": {**cast("dict[str, object]", root["parameters"]), **asked},
        "prompt_exactness": document.parameters.prompt_exactness,
        "summary": [{**first, **summary} for summary in summaries],
        "extra": {name: value for name, value in root.items() if name not in _KNOWN_KEYS},
    }
    return msgspec.convert(shape, Report)


def _as_tuple(levels: int | tuple[int, ...]) -> tuple[int, ...]:
    return (levels,) if isinstance(levels, int) else levels
