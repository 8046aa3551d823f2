"""The one place that prints: answers on stdout, talk on stderr, JSON when it is asked for."""

import io
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.status import Status

SCHEMA_VERSION = 1
_PIPE_COLUMNS = 120
_LEAST_ROOM = 20
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What would steer the terminal; servers and files that we quote may hold it."""


class Output:
    """What a command writes to.

    Attributes:
        json: The answer is one JSON document on stdout and nothing else goes there.
        quiet: Nothing but the answer and errors is written.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self._consoles: dict[bool, Console] = {}
        self._spinner: Status | None = None

    def document(self, fields: Mapping[str, object]) -> None:
        """Write the one JSON document of the answer."""
        write_line(_dump({"schema_version": SCHEMA_VERSION, **fields}))

    def event(self, fields: Mapping[str, object]) -> None:
        """Write one JSON object on a line of its own, at once (`--json-lines`)."""
        write_line(_dump(fields))

    def answer(self, renderable: "RenderableType") -> None:
        """Write a part of the answer for a person."""
        with self._spinner_away():
            self._console(stderr=False).print(renderable)

    def item(
        self, sign: str, text: str, *, colour: str = "", style: str = "", indent: int = 0
    ) -> None:
        """Write a paragraph of the answer behind a sign; its lines are indented on a terminal.

        In a pipe it is one line, however long.
        """
        from rich.text import Text

        console = self._console(stderr=False)
        lead = f"{' ' * indent}{sign} "
        lines = [text]
        if not console.soft_wrap:
            room = max(console.width - len(lead), _LEAST_ROOM)
            lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
        body = f"\n{' ' * len(lead)}".join(lines)
        self.answer(Text.assemble((lead, colour), (body, style)))

    def text(self, line: str) -> None:
        """Write a line of the answer as it is, for pipes: no wrapping, no markup."""
        write_line(line)

    def piece(self, text: str) -> None:
        """Write a piece of a streamed answer at once."""
        print(text, end="", flush=True)

    def say(self, renderable: "RenderableType") -> None:
        """Tell the person what happens meanwhile, on stderr; silent with `--quiet`."""
        if not self.quiet:
            with self._spinner_away():
                self._console(stderr=True).print(renderable)

    @contextmanager
    def waiting(self, what: str) -> Generator[None]:
        """Show on a terminal that `what` takes a while; answers and talk appear above it."""
        if not self.is_live:
            yield
            return
        self._spinner = self.talk.status(what)
        try:
            with self._spinner:
                yield
        finally:
            self._spinner = None

    @contextmanager
    def _spinner_away(self) -> Generator[None]:
        if self._spinner is None:
            yield
            return
        self._spinner.stop()
        try:
            yield
        finally:
            self._spinner.start()

    def hint(self, line: str) -> None:
        """Tell the person a plain line on stderr; silent with `--quiet`, and needs no Rich."""
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)

    @property
    def talk(self) -> "Console":
        """The console of stderr, for live progress."""
        return self._console(stderr=True)

    @property
    def is_live(self) -> bool:
        """Whether progress may be redrawn: stderr is a terminal and nobody asked for quiet."""
        return sys.stderr.isatty() and not self.quiet

    @property
    def width(self) -> int:
        """The columns that the answer may take."""
        return self._console(stderr=False).width

    @property
    def answers(self) -> "Console":
        """The console of stdout, for an answer that is redrawn."""
        return self._console(stderr=False)

    @property
    def has_colours(self) -> bool:
        """Whether the answer may be coloured: stdout is a terminal that wants it."""
        return not self.json and self._console(stderr=False).color_system is not None

    def _console(self, *, stderr: bool) -> "Console":
        if stderr not in self._consoles:
            from rich.console import Console

            console = Console(stderr=stderr, highlight=False)
            if not console.is_terminal and "COLUMNS" not in os.environ:
                # whoever reads a pipe wants whole lines, not lines folded for a screen
                console.width = _PIPE_COLUMNS
                console.soft_wrap = True
            self._consoles[stderr] = console
        return self._consoles[stderr]


def write_line(line: str) -> None:
    """Write one line to stdout at once, so that a reader of a pipe has it when it happens."""
    print(line, flush=True)


def bear_any_text() -> None:
    """Let stdout and stderr write what their encoding has no character for as an escape.

    That is for a terminal that isn't UTF-8, and for arguments and file names that are no text.
    What is closed (`2>&-`) takes everything and keeps nothing: `print` would write the errors to
    stdout instead. A closed stdin (`<&-`) has nothing to read.
    """
    sys.stdin = sys.stdin or _nowhere("r")
    sys.stdout = sys.stdout or _nowhere("w")
    sys.stderr = sys.stderr or _nowhere("w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _nowhere(mode: Literal["r", "w"]) -> TextIO:
    return Path(os.devnull).open(mode, encoding="utf-8")


def write_error(message: str, hint: str | None) -> None:
    """Tell what went wrong and what to do, on stderr, without Rich: this must always work.

    Where nobody takes it, the exit code tells.
    """
    bold, red, reset = ("\033[1m", "\033[31m", "\033[0m") if _error_colour() else ("", "", "")
    message, hint = _CONTROLS.sub("\ufffd", message), _CONTROLS.sub("\ufffd", hint or "")
    with suppress(OSError):
        print(f"{bold}{red}error:{reset} {_folded('error: ', message)}", file=sys.stderr)
        if hint:
            print(f"{bold}hint:{reset} {_folded('hint: ', hint)}", file=sys.stderr)


def write_error_document(kind: str, message: str, hint: str | None) -> None:
    """Write a failure as the one JSON document of the answer."""
    error = {"type": kind, "message": message, "hint": hint}
    write_line(_dump({"schema_version": SCHEMA_VERSION, "error": error}))


def _dump(fields: Mapping[str, object]) -> str:
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(fields, ensure_ascii=not is_utf8)


def _folded(label: str, text: str) -> str:
    """The text behind a label: folded between words on a terminal, as it is in a pipe."""
    if not sys.stderr.isatty():
        return text
    width = shutil.get_terminal_size().columns
    first, *others = text.split("\n")
    lines = [(f"{label}{first}", len(label)), *((line, 0) for line in others)]
    return "\n".join(
        textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)[skip:]
        for line, skip in lines
    )


def _error_colour() -> bool:
    return (
        sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
