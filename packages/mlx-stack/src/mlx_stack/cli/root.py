"""The root command, and what happens when a command fails."""

import itertools
import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn, cast

import click

from mlx_stack import __version__, exit_codes
from mlx_stack.cli.frame.commands import LazyGroup, import_command
from mlx_stack.cli.frame.output import (
    bear_any_text,
    end_line,
    wants_colours,
    write_error,
    write_error_document,
    write_line,
)
from mlx_stack.error_table import DEBUG_VARIABLE, translate
from mlx_stack.errors import Interrupted, StackError, UsageError

_REFUSED = re.compile(r"(?P<value>.*) is not (a valid|in the range|one of) .*", re.DOTALL)
_OPTIONS_OF_COMMANDS = ("--json", "--json-lines", "--quiet", "-q")


@click.group(
    cls=LazyGroup,
    name="mlx-stack",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "color": None if wants_colours() else False,
    },
    invoke_without_command=True,
)
@click.option("--version", "-V", "-v", is_flag=True, help="Show the version and exit.")
@click.pass_context
def root(ctx: click.Context, *, version: bool) -> None:
    """An always-on local LLM server for Apple Silicon.

    Without a command it shows the state of the stack and what to do next.
    """
    if version:
        write_line(f"mlx-stack {__version__}")
    elif ctx.invoked_subcommand is None:
        ctx.invoke(import_command("overview"))


def run(arguments: Sequence[str]) -> int:
    """Run the command line `arguments`; the exit code. No foreseeable failure shows a traceback."""
    bear_any_text()
    if arguments and arguments[0] == "help":  # as `git help`, `uv help`
        arguments = [*arguments[1:], "--help"]
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _invoke(arguments)
    except (KeyboardInterrupt, click.Abort) as interruption:
        _report_interruption("interrupted", interruption, arguments)
        return exit_codes.INTERRUPTED
    except Interrupted as interruption:
        _report_interruption("terminated", interruption, arguments)
        return exit_codes.TERMINATED
    except BrokenPipeError:  # the reader of our pipe has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_codes.FAILED
    except OSError as error:  # stdout takes not even the document that says what failed
        if os.environ.get(DEBUG_VARIABLE):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        write_error(f"The answer can't be written: {error.strerror}.", None)
        return exit_codes.FAILED


def _invoke(arguments: Sequence[str]) -> int:
    options = list(itertools.takewhile(lambda word: word != "--", arguments))
    as_json = "--json" in options or "--json-lines" in options
    try:
        outcome = root.main(list(arguments), prog_name="mlx-stack", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        return _report(_usage(error), as_json=as_json)
    except BrokenPipeError:
        raise
    except Exception as error:
        problem = translate(error)
        if problem is None or os.environ.get(DEBUG_VARIABLE):
            raise
        return _report(problem, as_json=as_json)
    return outcome if isinstance(outcome, int) else exit_codes.DONE


def _report_interruption(kind: str, interruption: BaseException, arguments: Sequence[str]) -> None:
    """Say that it ended early; what the command noted on the exception is the hint."""
    if isinstance(interruption, click.Abort) and interruption.__cause__ is None:
        end_line()  # of the question; elsewhere click has ended it
    noted_on = interruption.__cause__ or interruption  # click wraps Ctrl-C in its own exception
    hint = " ".join(getattr(noted_on, "__notes__", ())) or None
    if "--json" in arguments:  # with --json-lines the last event has been written
        write_error_document(kind, f"The command was {kind}.", hint)
    write_error(kind, hint)


def _usage(error: click.ClickException) -> StackError:
    """Click's own complaint, with the help that would have explained it."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if isinstance(error, click.NoSuchOption) and context is not None and context.parent is None:
        option = error.option_name
        if option in _OPTIONS_OF_COMMANDS:
            message = f"The option {option!r} goes after the command."
            return UsageError(message, hint=f"As in `mlx-stack status {option}`.")
    path = context.command_path if context is not None else "mlx-stack"
    return UsageError(_in_words(error), hint=f"See `{path} --help`.")


def _in_words(error: click.ClickException) -> str:
    """What is wrong with a command line, as a sentence about what was typed."""
    said = error.format_message().removesuffix(".")
    parameter = error.param if isinstance(error, click.BadParameter) else None
    name = "" if parameter is None else _name_of(parameter)
    match error:
        case click.MissingParameter():
            return f"{name} is missing."
        case click.NoSuchOption():
            end = "" if said.endswith("?") else "."
            return f"There is no option {said.removeprefix('No such option ')}{end}"
        case click.BadOptionUsage():
            takes_none = "does not take" in said
            return f"{error.option_name} {'takes no' if takes_none else 'needs a'} value."
        case click.BadParameter() if parameter is not None:
            reason = error.message.removesuffix(".")
            found = _REFUSED.fullmatch(reason)
            kind = parameter.type
            if found is None:
                return f"{name}: {reason}."
            return f"{name} can't be {found['value'].strip(chr(39))!r}: it must be {_valid(kind)}."
        case _:
            found = re.search(r"unexpected extra arguments? \((.*)\)", said)
            return f"Unexpected argument: {found[1]}." if found else f"{said}."


def _name_of(parameter: click.Parameter) -> str:
    long = [each for each in parameter.opts if each.startswith("--")]
    return long[0] if long else (parameter.metavar or parameter.human_readable_name).strip("[].…")


def _valid(kind: click.ParamType[Any]) -> str:
    """Which values a parameter takes, in words."""
    match kind:
        case click.Choice():
            *others, last = map(str, cast("tuple[object, ...]", kind.choices))
            return f"{', '.join(others)} or {last}" if others else last
        case click.IntRange() | click.FloatRange():
            what = "a whole number" if isinstance(kind, click.IntRange) else "a number"
            if kind.max is not None and kind.min_open and not kind.max_open:
                return f"{what} above {kind.min}, and at most {kind.max}"
            if kind.max is not None:
                return f"{what} from {kind.min} to {kind.max}"
            return f"{what} above {kind.min}" if kind.min_open else f"{what}, {kind.min} or more"
        case _:
            return f"a valid {kind.name}"


def _report(problem: StackError, *, as_json: bool) -> int:
    write_error(problem.message, problem.hint)
    if as_json:
        with suppress(OSError):  # stdout itself may take nothing: then stderr has it
            write_error_document(problem.type, problem.message, problem.hint)
    return problem.exit_code


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted
