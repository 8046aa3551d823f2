"""The program `mlx-hwprobe`: what this Mac is, and what the table says of others."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from mlx_hwprobe import __version__
from mlx_hwprobe.errors import (
    HwprobeError,
    InvalidDocumentError,
    UnknownChipError,
    UnknownPlatformError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlx_hwprobe.profile import HardwareProfile

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNSUPPORTED = 5
EXIT_INTERRUPTED = 130

# What each error is called in JSON, and what the program then exits with; the first that fits.
_FAILURES: tuple[tuple[type[HwprobeError], str, int], ...] = (
    (UnknownChipError, "unknown-chip", EXIT_USAGE),
    (InvalidDocumentError, "invalid-file", EXIT_USAGE),
    (UnknownPlatformError, "missing", EXIT_UNSUPPORTED),
    (HwprobeError, "failed", EXIT_FAILED),
)


class _UsageError(Exception):
    """The command line makes no sense."""

    def __init__(self, message: str, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


class _Formatter(argparse.HelpFormatter):
    """Help as wide as the terminal, without loading shutil to ask: that takes milliseconds."""

    def __init__(self, prog: str) -> None:
        asked = os.environ.get("COLUMNS", "")
        try:
            columns = int(asked) if _is_positive(asked) else os.get_terminal_size().columns
        except OSError:
            columns = 80
        super().__init__(prog, width=max(columns, 40) - 2)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=_Formatter, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise _UsageError(message, self.format_usage())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    # Started with a closed output (`>&-`) there is none: what is printed goes nowhere.
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    # A processor's name may have letters that the terminal's encoding doesn't.
    if (reconfigure := getattr(sys.stdout, "reconfigure", None)) is not None:
        reconfigure(errors="backslashreplace")
    try:
        code = _run(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail("--json" in words, "interrupted", "interrupted", None, EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader has what it wanted; Python would complain once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:  # an error of a file names the file: this one is the output's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"mlx-hwprobe: the answer can't be written: {error.strerror}", file=sys.stderr)
        return EXIT_FAILED
    return code


def _run(words: Sequence[str]) -> int:
    """Answer the command line, with a failure's own answer where it fails."""
    wants_json = "--json" in words
    try:
        arguments = _parser().parse_args(words)
        code: int = arguments.run(arguments)
    except _UsageError as error:
        return _fail(wants_json, "usage", str(error), error.usage.strip(), EXIT_USAGE)
    except HwprobeError as error:
        _, name, code = next(row for row in _FAILURES if isinstance(error, row[0]))
        return _fail(wants_json, name, error.message, error.hint, code)
    return code


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - pathlib takes longer to load


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mlx-hwprobe",
        description="Report the Apple Silicon chip, the memory bandwidth, and how much memory the "
        "GPU may use. Without a command, describe this machine.",
    )
    parser.add_argument("--version", action="version", version=f"mlx-hwprobe {__version__}")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--from",
        dest="capture",
        metavar="CAPTURE",
        help="read a saved capture (or profile) instead of this machine; - is standard input",
    )
    parser.set_defaults(run=_profile)
    # Without a default here, --json counts on both sides of the command.
    shared = _Parser(add_help=False)
    shared.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_lookup(commands, shared)
    table = commands.add_parser("table", parents=[shared], help="list all known chips and bins")
    table.add_argument("--csv", action="store_true", help="print CSV, with sources")
    table.set_defaults(run=_table)
    capture = commands.add_parser(
        "capture",
        parents=[shared],
        help="save the data that the probe reads on this machine, for a bug report",
    )
    capture.add_argument("-o", "--output", metavar="FILE", help="write to FILE instead of stdout")
    capture.set_defaults(run=_capture)
    measure = commands.add_parser("measure", parents=[shared], help="measure the memory bandwidth")
    measure.add_argument(
        "--repetitions",
        type=_positive,
        default=10,
        metavar="N",
        help="number of measurements (default: %(default)s)",
    )
    measure.set_defaults(run=_measure)
    return parser


def _add_lookup(commands: Any, shared: argparse.ArgumentParser) -> None:
    lookup = commands.add_parser(
        "lookup",
        parents=[shared],
        help='describe a chip: lookup "M4 Max" --gpu-cores 32',
    )
    lookup.add_argument(
        "name", nargs="+", metavar="CHIP", help='"M4 Max", m4max, m4-max:40:128 ...'
    )
    lookup.add_argument("--gpu-cores", type=_positive, metavar="N", help="number of GPU cores")
    lookup.add_argument("--memory-gb", type=_gigabytes, metavar="N", help="memory size in GB")
    lookup.set_defaults(run=_lookup)


def _profile(arguments: argparse.Namespace) -> int:
    from mlx_hwprobe import NotAppleSiliconError

    try:
        profile = _read_profile(arguments.capture)
    except NotAppleSiliconError as error:
        _show_profile(error.profile, as_json=arguments.json)
        _complain(error.message, error.hint)
        return EXIT_UNSUPPORTED
    _show_profile(profile, as_json=arguments.json)
    return 0


def _read_profile(source: str | None) -> HardwareProfile:
    from mlx_hwprobe import detection

    if source is None:
        return detection.detect()
    if source == "-":
        return (
            detection.read_profile(sys.stdin.buffer) if sys.stdin else detection.parse_profile(b"")
        )
    return detection.load_profile(source)


def _lookup(arguments: argparse.Namespace) -> int:
    from mlx_hwprobe.chips import lookup
    from mlx_hwprobe.spec import describe_mac, parse_mac_name

    named = parse_mac_name(" ".join(arguments.name))
    gpu_cores = named.gpu_cores if arguments.gpu_cores is None else arguments.gpu_cores
    memory_gb = arguments.memory_gb or named.memory_gb
    rows = lookup(named.chip, gpu_cores=gpu_cores, memory_gb=memory_gb)
    if len(rows) == 1:
        profile = describe_mac(named.chip, gpu_cores=gpu_cores, memory_gb=memory_gb)
        _show_profile(profile, as_json=arguments.json)
        return 0
    if arguments.json:
        bins = [row.to_document() for row in rows]
        _show({"schema_version": 1, "chip": rows[0].chip, "bins": bins})
    else:
        from mlx_hwprobe.render import render_bins

        _show(render_bins(rows))
    return 0


def _table(arguments: argparse.Namespace) -> int:
    from mlx_hwprobe.chips import chip_table
    from mlx_hwprobe.render import render_csv, render_table

    if arguments.json and arguments.csv:
        raise _UsageError("--json and --csv can't be combined", "mlx-hwprobe table [--json|--csv]")
    rows = chip_table()
    if arguments.json:
        _show({"schema_version": 1, "bins": [row.to_document() for row in rows]})
    elif arguments.csv:
        sys.stdout.write(render_csv(rows))
    else:
        _show(render_table(rows))
    return 0


def _capture(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from mlx_hwprobe.detection import read_machine
    from mlx_hwprobe.redaction import redact

    document = redact(read_machine(thorough=True), names=_own_names()).to_document()
    if arguments.output is None:
        _show(document)
        return 0
    try:
        Path(arguments.output).write_text(f"{_to_text(document)}\n", encoding="utf-8")
    except OSError as error:
        raise HwprobeError(f"{arguments.output or '-o'}: {error.strerror or error}") from error
    except ValueError as error:
        raise HwprobeError(f"{arguments.output}: {error}") from error
    print(
        f"Wrote {arguments.output}: no serial number, UUID, user or host name is in it.",
        file=sys.stderr,
    )
    if arguments.json:
        _show(document)
    return 0


def _own_names() -> list[str]:
    """The names that must not leave this machine: its own, and its user's."""
    import getpass
    import pwd
    import socket

    host = socket.gethostname()
    names = [host, host.split(".")[0]]
    try:
        user = getpass.getuser()
        names += [user, *pwd.getpwnam(user).pw_gecos.split(",")[:1]]
    except (KeyError, OSError):
        pass  # a user without an account has no name to give away
    return names


def _measure(arguments: argparse.Namespace) -> int:
    from mlx_hwprobe import NotAppleSiliconError, detection
    from mlx_hwprobe.measure import measure_bandwidth, table_bandwidth
    from mlx_hwprobe.render import render_measurement

    try:
        profile = detection.detect()
    except NotAppleSiliconError as error:
        profile = error.profile
    measurement = measure_bandwidth(repetitions=arguments.repetitions)
    if arguments.json:
        _show(measurement.to_document(profile))
    else:
        _show(render_measurement(measurement, table_bandwidth(profile)))
    return 0


def _is_positive(text: str) -> bool:
    return re.fullmatch(r"[1-9]\d{0,8}", text, re.ASCII) is not None


def _positive(text: str) -> int:
    if not _is_positive(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _gigabytes(text: str) -> int:
    return _positive(text.lower().removesuffix("gb").strip())


def _show_profile(profile: HardwareProfile, *, as_json: bool) -> None:
    if as_json:
        _show(profile.to_document())
    else:
        from mlx_hwprobe.render import render_profile

        _show(render_profile(profile))


def _show(answer: dict[str, Any] | str) -> None:
    print(answer if isinstance(answer, str) else _to_text(answer))


def _to_text(document: dict[str, Any]) -> str:
    import json

    return json.dumps(document, indent=2)


def _complain(message: str, hint: str | None) -> None:
    print(f"mlx-hwprobe: {message}", file=sys.stderr)
    if hint:
        print(hint, file=sys.stderr)


def _fail(wants_json: bool, name: str, message: str, hint: str | None, code: int) -> int:
    _complain(message, hint)
    if wants_json:
        _show({"schema_version": 1, "error": {"type": name, "message": message, "hint": hint}})
    return code


if __name__ == "__main__":
    sys.exit(main())
