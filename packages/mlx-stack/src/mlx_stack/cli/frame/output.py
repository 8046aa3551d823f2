"""The one place that prints: answers on stdout, talk on stderr, JSON when it is asked for."""

import io
import json
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TextIO

import click

from mlx_stack.errors import UsageError
from mlx_stack.format import format_duration

if TYPE_CHECKING:  # Rich takes longer to import than a command without it takes in all
    from rich.console import Console, RenderableType
    from rich.status import Status
    from rich.text import Text

SCHEMA_VERSION = 1
_PIPE_COLUMNS = 120
_LEAST_ROOM = 20
_ELAPSED_FROM_S = 1.0
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What would steer the terminal; servers, models and files that we quote may hold it."""
_ALL_BUT_COLOURS = re.compile(rf"(\x1b\[[0-9;]*m)|{_CONTROLS.pattern}")

type Span = str | tuple[str, str]
"""A text as it is, or a text and its style."""


class Documented(Protocol):
    """What an operation returns."""

    def to_document(self) -> Mapping[str, object]:
        """The fields of the JSON answer."""
        ...


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        heading: What stands above it; a table has none where all are empty.
        right: Whether its cells are aligned to the right, as numbers are.
        folds: Whether a cell may take several lines; else it is cut where there is no room.
        is_kept: Whether it keeps its width where there is no room for all columns.
    """

    heading: str = ""
    right: bool = False
    folds: bool = False
    is_kept: bool = False


class Output:
    """What a command writes to.

    An operation's result goes through `show`, what happens meanwhile through `event`: they decide
    between a person, JSON and nothing. What a view writes for a person is left out with `--json`.

    Attributes:
        json: The answer is one JSON document.
        json_lines: The answer is one JSON object a line, as things happen.
        quiet: Nothing but the answer and errors is written.
    """

    def __init__(
        self, *, json: bool = False, json_lines: bool = False, quiet: bool = False
    ) -> None:
        self.json = json
        self.json_lines = json_lines
        self.quiet = quiet
        self._consoles: dict[bool, Console] = {}
        self._spinner: Status | None = None
        self._spinning_since = 0.0
        self._spinning: RenderableType = ""
        self._frame: list[RenderableType] | None = None

    def show[T: Documented](
        self,
        result: T,
        view: "Callable[[Output, T], object] | None" = None,
        *,
        event: str | None = None,
    ) -> None:
        """Give the answer: one JSON document, or what `view` shows a person of `result`.

        Args:
            view: Writes it for a person; None where all of it was shown meanwhile.
            event: What the answer is called among other events, with `--json-lines`.
        """
        if event is not None and self.json_lines:
            write_line(_dump({"event": event, **result.to_document()}))
        elif self.is_for_programs:
            write_line(_dump({"schema_version": SCHEMA_VERSION, **result.to_document()}))
        elif view is not None:
            view(self, result)

    def event[T: Documented](self, event: T, view: "Callable[[Output, T], object]") -> None:
        """Report what happens: one JSON object on its own line, or what `view` shows of it."""
        if self.json_lines:
            write_line(_dump(event.to_document()))
        else:
            view(self, event)

    def show_events[T: Documented](
        self, result: Documented, events: Iterable[T], view: "Callable[[Output, T], object]"
    ) -> None:
        """Give an answer that is made of events: one JSON document of all, or each by itself."""
        if self.json:
            self.show(result)
        else:
            for each in events:
                self.event(each, view)

    def refuse_document(self, what: str) -> None:
        """Refuse `--json` for `what`, which would write more than one document.

        Raises:
            UsageError: When one document was asked for.
        """
        if self.json:
            message = f"{what} can't be combined with --json: it writes more than one document."
            raise UsageError(message, hint="Use --json-lines.")

    def answer(self, *parts: Span, style: str = "") -> None:
        """Write a paragraph of the answer."""
        self.draw(lambda: _assembled(parts, style))

    def draw(self, make: "Callable[[], RenderableType]") -> None:
        """Write a part of the answer that Rich renders; it is not even made with `--json`."""
        if self.is_for_programs:
            return
        if self._frame is not None:
            self._frame.append(make())
            return
        with self._spinner_away():
            self._console(stderr=False).print(make())

    def table(
        self, columns: Sequence[Column], rows: Iterable[Sequence[Span]], *, as_talk: bool = False
    ) -> None:
        """Write a table as a part of the answer, or on stderr, as `say` does."""
        cells = [[_assembled((cell,)) for cell in row] for row in rows]
        if not as_talk:
            self.draw(lambda: _table(columns, cells))
        elif not self.quiet:
            self.talk.print(_table(columns, cells))

    def facts(self, rows: Sequence[tuple[str, Span]]) -> None:
        """Write names and what they are as a part of the answer, a line each, indented."""
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            self.answer((f"  {name:<{width}}  ", "dim"), value)

    def item(
        self, sign: str, text: str, *, colour: str = "", style: str = "", indent: int = 0
    ) -> None:
        """Write a paragraph of the answer behind a sign; its lines are indented on a terminal.

        In a pipe it is one line, however long.
        """
        console = self._console(stderr=False)
        lead = f"{' ' * indent}{sign} "
        lines = [text]
        if not console.soft_wrap:
            room = max(console.width - len(lead), _LEAST_ROOM)
            lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
        body = f"\n{' ' * len(lead)}".join(lines)
        self.answer((lead, colour), (body, style))

    def text(self, line: str) -> None:
        """Write a line of the answer as it is, for pipes: no wrapping, no colours."""
        if not self.is_for_programs:
            write_line(_ALL_BUT_COLOURS.sub(lambda found: found[1] or "\ufffd", line))

    def piece(self, text: str) -> None:
        """Write a piece of a streamed answer at once."""
        if not self.is_for_programs:
            print(harmless(text), end="", flush=True)

    def say(self, *parts: Span, style: str = "") -> None:
        """Tell the person what happens meanwhile, on stderr; silent with `--quiet`."""
        if not self.quiet:
            with self._spinner_away():
                self.talk.print(_assembled(parts, style))

    def hint(self, line: str) -> None:
        """Tell the person a plain line on stderr; silent with `--quiet`, and needs no Rich."""
        if not self.quiet:
            print(harmless(line), file=sys.stderr, flush=True)

    @contextmanager
    def waiting(self, *what: Span) -> Generator[Callable[..., None]]:
        """Show on a terminal that `what` takes a while.

        Yields:
            What changes the words, as `spin` does.
        """
        self.spin(*what)
        try:
            yield self.spin
        finally:
            self.stop_spinning()

    def spin(self, *what: Span, is_timed: bool = True) -> None:
        """Show on a terminal what happens now, and for how long, from any thread.

        Answers and talk stand above it.
        """
        if not self.is_live:
            return
        text = _assembled(what)
        if self._spinner is None:
            self._spinning_since = time.monotonic()
        self._spinning = _Elapsed(text, self._spinning_since) if is_timed else text
        if self._spinner is None:
            self._start_spinner()
        else:
            self._spinner.update(self._spinning)

    def stop_spinning(self) -> None:
        """Take away what `spin` shows."""
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None

    def _start_spinner(self) -> None:
        # one that was stopped would take away as many lines as it had, of whatever came since
        self._spinner = self.talk.status(self._spinning)
        self._spinner.start()

    @contextmanager
    def _spinner_away(self) -> Generator[None]:
        if self._spinner is None:
            yield
            return
        self._spinner.stop()
        try:
            yield
        finally:
            self._start_spinner()

    @contextmanager
    def redrawing(self) -> Generator[Callable[[Callable[[], object]], None]]:
        """Keep one answer up to date: on a terminal it is redrawn, in a pipe written again.

        Yields:
            What redraws the answer: it calls a function that writes all of it.
        """
        if not sys.stdout.isatty() or self.is_for_programs:

            def write(show: Callable[[], object]) -> None:
                show()
                self.text("")

            yield write
            return
        from rich.console import Group
        from rich.live import Live

        with Live(console=self._console(stderr=False), screen=True, auto_refresh=False) as live:

            def redraw(show: Callable[[], object]) -> None:
                self._frame = []
                show()
                live.update(Group(*self._frame), refresh=True)

            try:
                yield redraw
            finally:
                self._frame = None

    @property
    def is_for_programs(self) -> bool:
        """Whether the answer is JSON, and nothing else goes to stdout."""
        return self.json or self.json_lines

    @property
    def talk(self) -> "Console":
        """The console of stderr, for live progress."""
        return self._console(stderr=True)

    @property
    def is_live(self) -> bool:
        """Whether progress may be redrawn: stderr is a terminal, without --quiet."""
        return sys.stderr.isatty() and not self.quiet

    @property
    def width(self) -> int:
        """The columns that the answer may take."""
        return self._console(stderr=False).width

    @property
    def has_colours(self) -> bool:
        """Whether the answer may be coloured: stdout is a terminal that wants it."""
        return not self.is_for_programs and sys.stdout.isatty() and wants_colours()

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


class _Elapsed:
    """A text that Rich draws again and again, with the seconds since something began."""

    def __init__(self, text: "Text", since: float) -> None:
        self._text = text
        self._since = since

    def __rich__(self) -> "Text":
        seconds = time.monotonic() - self._since
        if seconds < _ELAPSED_FROM_S:
            return self._text
        return self._text.copy().append(f"  {format_duration(seconds)}", style="dim")


def _assembled(parts: Iterable[Span], style: str = "") -> "Text":
    from rich.text import Text

    clean = (harmless(p) if isinstance(p, str) else (harmless(p[0]), p[1]) for p in parts)
    return Text.assemble(*clean, style=style)


def harmless(text: str) -> str:
    """The text without anything that would steer a terminal."""
    return _CONTROLS.sub("\ufffd", text)


def _table(columns: Sequence[Column], rows: "Sequence[Sequence[Text]]") -> "RenderableType":
    from rich.table import Table

    has_headings = any(column.heading for column in columns)
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=has_headings)
    for number, column in enumerate(columns):
        width = max(len(column.heading), *(row[number].cell_len for row in rows), 0)
        table.add_column(
            _assembled((column.heading,)),
            justify="right" if column.right else "left",
            overflow="fold" if column.folds else "ellipsis",
            no_wrap=not column.folds,
            min_width=width if column.is_kept else None,
        )
    for row in rows:
        table.add_row(*row)
    return table


def wants_colours() -> bool:
    """Whether a terminal gets colours: NO_COLOR and TERM=dumb say no."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write_line(line: str) -> None:
    """Write one line to stdout at once, so that a reader of a pipe has it when it happens.

    Colours are left out where stdout isn't a terminal, or doesn't want them.
    """
    click.echo(line, sys.stdout, color=None if wants_colours() else False)


def bear_any_text() -> None:
    """Let stdout and stderr write what their encoding has no character for as an escape.

    That is for a terminal that isn't UTF-8, and for arguments and file names that aren't text.
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


def end_line() -> None:
    """Begin a new line on a terminal, behind a question or the `^C` that it shows."""
    if sys.stderr.isatty():
        print(file=sys.stderr, flush=True)


def write_error(message: str, hint: str | None) -> None:
    """Tell what went wrong and what to do, on stderr, without Rich: this must always work.

    Where stderr is closed, the exit code has to do.
    """
    message, hint = harmless(message), harmless(hint or "")
    error = f"{click.style('error:', fg='red', bold=True)} {_folded('error: ', message)}"
    lines = [error, f"{click.style('hint:', bold=True)} {_folded('hint: ', hint)}" if hint else ""]
    with suppress(OSError):
        for line in filter(None, lines):
            click.echo(line, sys.stderr, color=None if wants_colours() else False)


def write_error_document(kind: str, message: str, hint: str | None) -> None:
    """Write a failure as the one JSON document of the answer."""
    error = {"type": kind, "message": message, "hint": hint}
    write_line(_dump({"schema_version": SCHEMA_VERSION, "error": error}))


def _dump(fields: Mapping[str, object]) -> str:
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(fields, ensure_ascii=not is_utf8)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


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
