"""`mlx-stack ask`."""

import os
import stat
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

import mlx_stack
from mlx_stack import gateway, planning, services
from mlx_stack.cli.frame import standard_input
from mlx_stack.cli.frame.context import Context, examples, with_context
from mlx_stack.cli.frame.options import complete_models, tier_option
from mlx_stack.cli.frame.output import write_error
from mlx_stack.error_table import translate
from mlx_stack.errors import StackError, UsageError
from mlx_stack.format import format_duration

_CHARACTERS_PER_TOKEN = 4
_LONG_PROMPT_TOKENS = 1000
"""From here on reading takes long enough to say so."""
_LOOK_EVERY_S = 1.0
_NO_QUESTION = UsageError("There is no question.", hint='`mlx-stack ask "…"` asks one.')
_existing_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("ask")
@click.argument("question", required=False)
@tier_option("Ask this tier; by default the first of the stack.")
@click.option(
    "--model",
    "-m",
    metavar="MODEL",
    help="Ask any model that the gateway serves.",
    shell_complete=complete_models,
)
@click.option("--system", metavar="TEXT", help="Tell the model how to answer.")
@click.option(
    "--file", "files", type=_existing_file, multiple=True, help="Add a text file. Repeatable."
)
@click.option("--image", "images", type=_existing_file, multiple=True, help="Add an image.")
@click.option("--continue", "-c", "continues", is_flag=True, help="Continue the last conversation.")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Maximum length of the answer, in tokens.",
)
@with_context()
@examples(
    'mlx-stack ask "Why is the sky blue?"', 'git diff | mlx-stack ask "Write a commit message"'
)
def command(
    context: Context,
    question: str | None,
    tier: str | None,
    model: str | None,
    system: str | None,
    files: tuple[Path, ...],
    images: tuple[Path, ...],
    max_tokens: int | None,
    *,
    continues: bool,
) -> None:
    """Ask a model a QUESTION through the gateway and stream its answer.

    Text on standard input is added to the question, or used as the question. Without a question, on
    a terminal, it opens a chat: Ctrl-C stops an answer, Ctrl-D ends the chat. The last conversation
    is kept in conversation.json in the state folder, for `-c`.
    """
    if tier is not None and model is not None:
        raise UsageError("--tier and --model can't be combined.")
    talk = _Talk(context, _conversation(context, tier or model, system, continues=continues))
    talk.max_tokens, talk.images = max_tokens, tuple(map(mlx_stack.ask.image_address, images))
    if tier is not None:
        mlx_stack.stack.require_tier(tier, [each.name for each in context.opened.stack.tiers])
    if question is None and not files and sys.stdin.isatty():
        if not context.may_ask:
            raise _NO_QUESTION
        _chat(context, talk)
        return
    context.output.show(talk.ask(_question(question, files)))


class _Talk:
    """Asks question after question, shows the answers, and keeps the conversation."""

    def __init__(self, context: Context, conversation: "mlx_stack.ask.ChatHistory") -> None:
        self.conversation = conversation
        self.max_tokens: int | None = None
        self.images: tuple[str, ...] = ()
        self._context = context
        self._endpoint = gateway.endpoint.gateway_endpoint(context.opened)
        self._thoughts = 0
        self._has_begun = threading.Event()
        self._telling = threading.Lock()

    def ask(self, question: str) -> "mlx_stack.ask.ModelAnswer":
        """The answer, shown as it comes."""
        output, said = self._context.output, self.conversation
        self._thoughts = 0
        with output.waiting(self._reading(question)), self._showing_start():
            answer = mlx_stack.ask.ask(
                self._endpoint,
                question,
                model=said.model,
                earlier=said.messages,
                images=self.images,
                max_tokens=self.max_tokens,
                on_text=self._show,
                on_thought=self._show_thought,
            )
        output.piece("" if answer.text.endswith("\n") else "\n")
        self._say_figures(answer)
        self.conversation, self.images = said.with_answer(answer), ()
        mlx_stack.ask.save_conversation(self._context.home, self.conversation)
        return answer

    @contextmanager
    def _showing_start(self) -> Generator[None]:
        """On a terminal, tell how far the start is that the question waits for, if it does."""
        self._has_begun.clear()
        if self._context.output.is_live:
            threading.Thread(target=self._show_start, daemon=True).start()
        try:
            yield
        finally:
            self._begin()

    def _show_start(self) -> None:
        watch = services.loading.StartWatch(self._context.opened, self.conversation.model)
        with suppress(StackError):  # whoever asks hears of it
            while not self._has_begun.wait(_LOOK_EVERY_S):
                words = watch.describe()
                with self._telling:
                    if words is not None and not self._has_begun.is_set():
                        self._context.output.spin(f"Waiting: {words}")

    def _begin(self) -> None:
        """Tell of no start any more."""
        with self._telling:
            self._has_begun.set()

    def _show(self, piece: str) -> None:
        self._begin()
        self._context.output.stop_spinning()
        self._context.output.piece(piece)

    def _show_thought(self, _thought: str) -> None:
        self._begin()
        self._thoughts += 1
        self._context.output.spin(f"Thinking, {self._thoughts:,} tokens")

    def _reading(self, question: str) -> str:
        """What the model is doing until its first token: how much it reads, and how long."""
        said = (*(each.content for each in self.conversation.messages), question)
        tokens = sum(map(len, said)) // _CHARACTERS_PER_TOKEN
        if tokens < _LONG_PROMPT_TOKENS:
            return "Waiting for the answer"
        return f"Reading about {tokens:,} tokens{self._expected(tokens)}"

    def _expected(self, tokens: int) -> str:
        opened, name = self._context.opened, self.conversation.model
        try:
            tier = opened.stack.tier(name)
            model = tier.model if tier is not None else name
            expected = planning.estimate.estimate_model(opened, model).estimate
        except Exception as error:
            if translate(error) is None:
                raise
            return ""
        speed = expected.prompt_tps if expected is not None else None
        return "" if speed is None else f", about {format_duration(tokens / speed.value)}"

    def _say_figures(self, answer: "mlx_stack.ask.ModelAnswer") -> None:
        output, tokens = self._context.output, answer.completion_tokens
        if answer.is_cut_off:
            output.say(
                ("note: ", "yellow"),
                f"the answer was cut off after {tokens or self.max_tokens} tokens; "
                "`--max-tokens` allows more.",
            )
        if answer.instead_of is not None:
            output.say(
                ("note: ", "yellow"),
                f"{answer.tier} answered instead of {answer.instead_of}; "
                "`mlx-stack status` shows why.",
            )
        if not output.is_live:
            return
        figures = [f"{tokens:,} tokens" if tokens is not None else ""]
        figures.append(f"{answer.generation_tps:.1f} tokens/s" if answer.generation_tps else "")
        figures.append(f"first after {answer.ttft_s:.1f} s" if answer.ttft_s is not None else "")
        output.say(", ".join(filter(None, figures)), style="dim")


def _chat(context: Context, talk: _Talk) -> None:
    """Ask what is typed, line by line, until the end of input."""
    import readline  # its import changes how `input` reads, which only a chat wants

    history = context.home.chat_history
    with suppress(OSError):
        readline.read_history_file(history)
    context.output.say(f"Chat with {talk.conversation.model}. Ctrl-D ends it.", style="dim")
    while True:
        try:
            line = input("> ")
        except EOFError:
            break
        except KeyboardInterrupt:
            context.output.hint("")
            continue
        if line.strip():
            try:
                talk.ask(line)
            except KeyboardInterrupt:
                context.output.stop_spinning()
                context.output.hint("\nStopped.")
            except StackError as error:
                write_error(error.message, error.hint)
    context.output.hint("")
    with suppress(OSError):
        history.touch(mode=0o600)
        readline.write_history_file(history)


def _conversation(
    context: Context, model: str | None, system: str | None, *, continues: bool
) -> "mlx_stack.ask.ChatHistory":
    """What the question continues: the last conversation, or a new one."""
    ask = mlx_stack.ask
    earlier = ask.load_conversation(context.home) if continues else None
    if continues and earlier is None:
        raise StackError("There is no conversation to continue.", hint="Leave out -c.")
    messages = earlier.messages if earlier is not None else ()
    if system is not None:
        others = (each for each in messages if each.role != "system")
        messages = (ask.ChatMessage("system", system), *others)
    if model is None:
        model = earlier.model if earlier is not None else context.opened.stack.main_tier.name
    return ask.ChatHistory(model=model, messages=messages)


def _question(given: str | None, files: tuple[Path, ...]) -> str:
    """The question, then what standard input and the files hold."""
    ask, parts = mlx_stack.ask, [given] if given not in (None, "-") else []
    if given == "-" or (given is None and not files) or _is_fed():
        parts.append(standard_input.read_all(ask.LONGEST_BODY_BYTES))
    parts += [f"{path.name}:\n{ask.read_text(path)}" for path in files]
    text = "\n\n".join(part for part in parts if part and part.strip())
    if not text:
        raise UsageError("The question is empty.", hint='`mlx-stack ask "…"` asks one.')
    return text


def _is_fed() -> bool:
    """Whether standard input is a pipe or a file, rather than nothing or a terminal."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
