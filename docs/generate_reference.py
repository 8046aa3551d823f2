"""Write the reference pages and the man page that are made from the code.

uv run just docs-reference            writes them
python docs/generate_reference.py --check    exits with 1 where one is not what the code says
"""

import ast
import inspect
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from mlx_catalog import Quant, load_catalog
from mlx_hwprobe import parse_hardware_spec
from mlx_recommend import (
    DEFAULT_BUDGET_PCT,
    TIER_KINDS,
    Intent,
    budget_bytes,
    candidate_of,
    make_plan,
    reference_measurements,
)
from mlx_stack import __version__, exit_codes
from mlx_stack.cli.frame.commands import COMMANDS, GROUPS
from mlx_stack.cli.root import root
from mlx_stack.config import CONFIG_KEYS, ConfigKeyDef
from mlx_stack.engines import errors as engine_errors
from mlx_stack.errors import StackError
from mlx_stack.models import errors as model_errors

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "packages" / "mlx-stack"
SCHEMAS = PACKAGE / "src" / "mlx_stack" / "schemas"
GENERATED = "<!-- made from the code by `just docs-reference`: change it there -->\n\n"
DESCRIBED_MODULES = (engine_errors, model_errors)
"""Imported so that their errors are known."""

type Page = tuple[Path, str]


def main() -> int:
    """Write the pages, or compare them; the exit code."""
    pages = (
        (REPOSITORY / "docs" / "reference" / "cli.md", cli_page()),
        (REPOSITORY / "docs" / "reference" / "configuration.md", configuration_page()),
        (REPOSITORY / "docs" / "reference" / "exit-codes.md", exit_code_page()),
        (REPOSITORY / "docs" / "reference" / "json.md", json_page()),
        (REPOSITORY / "docs" / "reference" / "recommended.md", recommended_page()),
        (PACKAGE / "data" / "share" / "man" / "man1" / "mlx-stack.1", man_page()),
    )
    if "--check" not in sys.argv[1:]:
        for path, text in pages:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return 0
    stale = [path for path, text in pages if not is_current(path, text)]
    for path in stale:
        print(f"{path.relative_to(REPOSITORY)} is not what the code says: `just docs-reference`")
    return 1 if stale else 0


def is_current(path: Path, text: str) -> bool:
    """Whether the file at `path` holds `text`."""
    return path.exists() and path.read_text(encoding="utf-8") == text


# The commands


def commands() -> Iterator[tuple[str, click.Context]]:
    """Every command with its group, each followed by the commands below it."""
    top = click.Context(root, info_name="mlx-stack", help_option_names=["-h", "--help"])
    for group in GROUPS:
        for entry in COMMANDS:
            if entry.group == group:
                yield from below(group, entry.name, top)


def below(group: str, name: str, parent: click.Context) -> Iterator[tuple[str, click.Context]]:
    """The command `name` of a parent, and what is below it."""
    assert isinstance(parent.command, click.Group)
    command = parent.command.get_command(parent, name)
    assert command is not None
    context = click.Context(command, info_name=name, parent=parent)
    yield group, context
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            yield from below(group, child, context)


def usage(context: click.Context) -> str:
    """The command's usage, without the word."""
    pieces = " ".join(context.command.collect_usage_pieces(context))
    return f"{context.command_path} {pieces}".strip()


def options(context: click.Context) -> list[tuple[str, str]]:
    """The command's options and what they mean, `--help` left out: every command has it."""
    records = [
        parameter.get_help_record(context)
        for parameter in context.command.params
        if isinstance(parameter, click.Option)
    ]
    return [record for record in records if record is not None]


def paragraphs(context: click.Context) -> list[tuple[bool, str]]:
    """The command's help in paragraphs, each with whether its lines must stay as they are."""
    text = inspect.cleandoc(context.command.help or "")
    blocks = [block for block in text.split("\n\n") if block]
    return [
        (block.startswith("\b"), block.removeprefix("\b\n") if block.startswith("\b") else block)
        for block in blocks
    ]


def cli_page() -> str:
    """The page of all commands."""
    lines = [
        "# Commands",
        "",
        "Without a command, `mlx-stack` shows the state of the stack and what to do next.",
        "",
    ]
    last = ""
    for group, context in commands():
        if group != last:
            lines += [f"## {group}", ""]
            last = group
        lines += [f"### {context.command_path}", "", "```text", usage(context), "```", ""]
        for is_verbatim, block in paragraphs(context):
            lines += ["```text", block, "```", ""] if is_verbatim else [block, ""]
        rows = [f"| `{cell(name)}` | {cell(text)} |" for name, text in options(context)]
        lines += ["| option | meaning |", "|---|---|", *rows, ""] if rows else []
    return page(lines)


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def page(lines: list[str]) -> str:
    """A page of Markdown from its lines."""
    return GENERATED + "\n".join(lines).rstrip() + "\n"


# The configuration


def configuration_page() -> str:
    """The page of configuration keys."""
    lines = [
        "# Configuration",
        "",
        "```sh",
        "mlx-stack config list                            # each key, its value and its source",
        "mlx-stack config set litellm-port 4100",
        "mlx-stack config set openrouter-key - < key.txt  # a secret, from standard input",
        "mlx-stack config reset litellm-port",
        "```",
        "",
        "The values are in `config.yaml` in the [state folder](files.md), with mode 0600. You may",
        "edit that file; unknown keys and invalid values are rejected with the line number.",
        "`mlx-stack up` applies changes.",
        "",
        "| key | default | valid | meaning |",
        "|---|---|---|---|",
        *(
            f"| `{key.name}` | {shown_default(key)} | {cell(key.valid)} | {cell(key.description)} |"
            for key in CONFIG_KEYS.values()
        ),
    ]
    return page(lines)


def shown_default(key: ConfigKeyDef) -> str:
    """A key's default as a person would type it."""
    if isinstance(key.default, Path):
        return f"`~/.mlx-stack/{key.default}`"
    if isinstance(key.default, bool):
        return "`true`" if key.default else "`false`"
    return f"`{key.default}`" if key.default != "" else "empty"


# The exit codes


def exit_code_page() -> str:
    """The page of exit codes and of the types of errors."""
    lines = [
        "# Exit codes and errors",
        "",
        "Errors go to stderr, with a hint if you can do something about it. With `--json`, stdout",
        "contains the error as one document of [this shape](json.md).",
        "`MLX_STACK_DEBUG=1` shows the traceback.",
        "",
        "| code | meaning |",
        "|---:|---|",
        *(f"| {code} | {text} |" for code, text in exit_code_rows()),
        "",
        "In the JSON document of an error, `error.type` is one of these:",
        "",
        "| `error.type` | code | meaning |",
        "|---|---:|---|",
        *(f"| `{name}` | {code} | {text} |" for name, code, text in error_rows()),
        f"| `interrupted` | {exit_codes.INTERRUPTED} | Ctrl-C ended the command early. |",
        f"| `terminated` | {exit_codes.TERMINATED} | SIGTERM ended the command early. |",
    ]
    return page(lines)


def exit_code_rows() -> list[tuple[int, str]]:
    """Each exit code, and what the comment below it says."""
    body = ast.parse(inspect.getsource(exit_codes)).body
    rows: list[tuple[int, str]] = []
    for statement, after in itertools.pairwise(body):
        if isinstance(statement, ast.Assign) and isinstance(after, ast.Expr):
            assert isinstance(statement.value, ast.Constant)
            assert isinstance(after.value, ast.Constant)
            rows.append((int(str(statement.value.value)), " ".join(str(after.value.value).split())))
    return rows


def error_rows() -> list[tuple[str, int, str]]:
    """The types of errors, the general ones of this package first."""
    rows: dict[str, tuple[str, int, str]] = {}
    pending: list[type[StackError]] = [StackError]
    while pending:
        kind = pending.pop(0)
        pending += kind.__subclasses__()
        first = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
        rows.setdefault(kind.type, (kind.type, kind.exit_code, cell(first)))
    return sorted(rows.values(), key=lambda row: (row[1], row[0]))


# The JSON answers


def json_page() -> str:
    """The page of the shapes of `--json`."""
    names = sorted(path.stem for path in SCHEMAS.glob("*.json"))
    first = [name for name in ("error",) if name in names]
    rest = [name for name in names if name not in ("error", "parts")]
    lines = [
        "# JSON answers",
        "",
        "With `--json`, stdout is exactly one document. While `schema_version` is 1, fields may be",
        "added but never removed or redefined, so ignore unknown fields. Units",
        "are in the names. The JSON Schemas are installed with the package:",
        "`python -c 'import mlx_stack; print(mlx_stack.__path__[0] + \"/schemas\")'`.",
        "",
        "`--json-lines` prints one object per line while the command runs: `status --watch` the",
        "documents of `status`, `logs --follow` objects with `service` and `line`, `watch` its",
        'decisions, and `pull` its events and finally its fields with `"event": "result"`.',
        "",
    ]
    for name in [*first, *rest]:
        schema = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
        heading = schema["title"] if name == "error" else f"mlx-stack {schema['title']} --json"
        lines += [f"## {heading}", "", *field_table(schema), ""]
    parts = json.loads((SCHEMAS / "parts.json").read_text(encoding="utf-8"))
    lines += ["## Parts that several answers share", ""]
    for name, schema in parts["$defs"].items():
        lines += [f"### {name}", "", *field_table(schema), ""]
    return page(lines)


def field_table(schema: dict[str, Any]) -> list[str]:
    """A table of an object's fields, those of nested objects with a dotted path."""
    rows = [f"| `{name}` | {kind} | {cell(text)} |" for name, kind, text in fields(schema, "")]
    return ["| field | type | meaning |", "|---|---|---|", *rows]


def fields(schema: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    """Each field's path, type and meaning."""
    optional = set(schema["properties"]) - set(schema.get("required", ()))
    for name, field in schema["properties"].items():
        kind = type_words(field) + (", optional" if name in optional else "")
        yield prefix + name, kind, field.get("description", "")
        if "properties" in field:
            yield from fields(field, f"{prefix}{name}.")
        elif "properties" in field.get("items", {}):
            yield from fields(field["items"], f"{prefix}{name}[].")


def type_words(field: dict[str, Any]) -> str:
    """The type of a field, in words."""
    match field:
        case {"$ref": str(reference)}:
            name = reference.rpartition("/")[2]
            return f"[{name}](#{name})"
        case {"const": constant}:
            return f"`{json.dumps(constant)}`"
        case {"enum": values}:
            return ", ".join("null" if each is None else f"`{each}`" for each in values)
        case {"anyOf": choices}:
            return " or ".join(type_words(choice) for choice in choices)
        case {"type": "array", "items": items}:
            return f"list of {type_words(items)}"
        case {"type": list() as kinds}:
            return " or ".join(kinds)
        case {"type": kind}:
            return str(kind)
        case _:
            return "any"


# The man page


MACS = (
    *("m3:10:8", "m4:10:16", "m4-pro:16:24", "m4:10:32", "m4-pro:20:48", "m4-max:40:64"),
    *("m4-max:40:128", "m3-ultra:60:256", "m3-ultra:80:512"),
)
"""One Mac of each usual memory size."""


def recommended_page() -> str:
    """What is recommended for Macs of each size."""
    lines = [
        "# Recommended models for each Mac",
        "",
        f"These plans are for the default budget of {DEFAULT_BUDGET_PCT} % of the memory, 4 bits",
        "per weight and no Hub token. A Mac is written as chip:GPU cores:GB of memory. Each cell",
        "shows the model, its context in units of 1,024 tokens, and its speed in tokens",
        "per second after a prompt of 1,024 tokens; `-` means that the tier is left out. See",
        "[How models are chosen](../explanation/recommendations.md).",
    ]
    for intent in Intent:
        names = [kind.name for kind in TIER_KINDS]
        lines += ["", f"## `--intent {intent}`", "", f"| Mac | budget | {' | '.join(names)} |"]
        lines.append("|---|--:|" + "---|" * len(names))
        lines += [recommended_row(spec, intent) for spec in MACS]
    return page(lines)


def recommended_row(spec: str, intent: Intent) -> str:
    """The plan for one Mac."""
    mac = parse_hardware_spec(spec)
    budget = budget_bytes(mac)
    assert budget is not None
    candidates = [
        candidate_of(
            entry,
            Quant.INT4,
            allow_gated=False,
            measurements=reference_measurements(entry, mac),
        )
        for entry in load_catalog()
    ]
    plan = make_plan(candidates, mac, budget_bytes=budget, intent=intent)
    tiers = {
        tier.kind.name: f"{tier.candidate.model}, {tier.estimate.workload.context_tokens // 1024}k,"
        f" {tier.generation_tps:.0f}/s"
        for tier in plan.tiers
    }
    cells = [tiers.get(kind.name, "-") for kind in TIER_KINDS]
    return f"| `{spec}` | {budget / 1e9:.1f} GB | {' | '.join(cells)} |"


def man_page() -> str:
    """The man page, in man(7)."""
    lines = [
        '.\\" made from the code by `just docs-reference`',
        f'.TH MLX-STACK 1 "" "mlx-stack {__version__}" "User Commands"',
        ".SH NAME",
        "mlx-stack \\- an always-on local LLM server for Apple Silicon",
        ".SH SYNOPSIS",
        ".B mlx-stack",
        '.RI [ OPTIONS ] " COMMAND" " " [ ARGS ]...',
        ".SH DESCRIPTION",
        "Looks at the hardware, recommends models that fit, downloads them, serves several at once",
        "behind one OpenAI-compatible endpoint, and restarts them after crashes and reboots.",
        "Without a command, it shows the state of the stack and what to do next.",
    ]
    last = ""
    for group, context in commands():
        if group != last:
            lines.append(f".SH {roff(group.upper())}")
            last = group
        lines.append(f'.SS "{roff(usage(context))}"')
        for is_verbatim, block in paragraphs(context):
            body = [roff(line) for line in block.splitlines()]
            lines += [".PP", ".nf", *body, ".fi"] if is_verbatim else [".PP", *body]
        for name, text in options(context):
            lines += [".TP", f".B {roff(name)}", roff(text)]
    lines += [".SH EXIT STATUS"]
    for code, text in exit_code_rows():
        lines += [".TP", f".B {code}", roff(text.replace("`", ""))]
    lines += [
        ".SH ENVIRONMENT",
        ".TP",
        ".B MLX_STACK_HOME",
        "Where state lives; ~/.mlx-stack by default.",
        ".TP",
        ".B MLX_STACK_DEBUG",
        "Show the traceback of a failure.",
        ".TP",
        ".B NO_COLOR",
        "Write no colours.",
        ".TP",
        ".B HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE",
        "As the Hugging Face tools read them.",
    ]
    return "\n".join(lines) + "\n"


def roff(text: str) -> str:
    """Text that man(7) prints as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    sys.exit(main())
