"""`mlx-catalog`: validate catalog files, look up entries, and read model folders."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mlx_catalog import __version__
from mlx_catalog.catalog import load_catalog, load_entries
from mlx_catalog.errors import CatalogError, InvalidCatalogError, UnreadableCatalogError
from mlx_catalog.json_schema import entry_schema
from mlx_catalog.model_files import read_model

_DONE, _FAILED, _INVALID, _INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program and returns its exit code: 2 for an invalid catalog or wrong usage."""
    parsed = _parser().parse_args(arguments)
    code = _DONE
    try:
        match parsed.command:
            case "validate":
                code = _validate(parsed.paths)
            case "list":
                print("\n".join(f"{entry.id}\t{entry.name}" for entry in load_catalog()))
            case "show":
                _show(parsed.name)
            case "read":
                print(_pretty(read_model(parsed.path)))
            case _:
                print(_pretty(entry_schema()))
        sys.stdout.flush()
    except (InvalidCatalogError, UnreadableCatalogError) as error:
        print(error, file=sys.stderr)
        return _INVALID
    except CatalogError as error:
        print(error, file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # the reader has what it wanted, as `head` does
        _discard_output()
        return _FAILED
    except OSError as error:  # files are reported by name above: this is the output
        _discard_output()
        print(f"mlx-catalog: the answer can't be written: {error.strerror}", file=sys.stderr)
        return _FAILED
    return code


def _discard_output() -> None:
    """Keep Python from complaining once more when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlx-catalog",
        description="Validate catalog files, look up entries, and read model folders.",
    )
    parser.add_argument("--version", action="version", version=f"mlx-catalog {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    validate = commands.add_parser("validate", help="check entry files or folders of entries")
    validate.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    commands.add_parser("list", help="list the shipped entries")
    show = commands.add_parser("show", help="print one entry as JSON, by ID or alias")
    show.add_argument("name")
    read = commands.add_parser(
        "read", help="print the facts in a config.json or a model folder as JSON"
    )
    read.add_argument("path", type=Path)
    commands.add_parser("schema", help="print the JSON Schema of an entry, for editors")
    return parser


def _validate(paths: Sequence[Path]) -> int:
    valid = 0
    for path in paths:
        entries = load_entries(path)
        if not entries:
            print(f"{path}: no *.yaml files", file=sys.stderr)
            return _INVALID
        valid += len(entries)
    print(f"{valid} {'entry' if valid == 1 else 'entries'} valid")
    return _DONE


def _show(name: str) -> None:
    found = load_catalog().resolve(name)
    if found.note:
        print(f"{name} is {found.entry.id}: {found.note}", file=sys.stderr)
    print(_pretty(found.entry))


def _pretty(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


if __name__ == "__main__":
    sys.exit(main())
