"""What a program that talks to the gateway is, and what it needs to know of the gateway."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlx_gateway.keys import Priority
from mlx_stack.clients.documents import DocumentPath, FormatName

NAME = "mlx-stack"
"""Our name in other programs' files; whatever carries it is ours."""
MOST_ANSWER_TOKENS = 16_384
"""What a program may ask of one answer at most; a long file is written in one."""
ASSUMED_CONTEXT_TOKENS = 32_768
"""For programs that ask for a context length where nobody knows it."""
_ANSWER_SHARE = 8

type ClientSettings = Mapping[DocumentPath, object]


@dataclass(frozen=True, slots=True)
class ClientEndpoint:
    """The gateway as a client needs to know it.

    Attributes:
        root_url: Its address without `/v1`.
        base_url: Its address with `/v1`.
        models: The tiers' names, the one for the real work first; each with its context length, or
            None where the model decides.
    """

    root_url: str
    base_url: str
    key: str
    models: Mapping[str, int | None]

    @property
    def main(self) -> str:
        """The model for the real work."""
        return next(iter(self.models))

    @property
    def main_context(self) -> int | None:
        """The context length of the model for the real work."""
        return self.models[self.main]

    @property
    def small(self) -> str:
        """The model for small background work: `fast` if there is one."""
        return "fast" if "fast" in self.models else self.main

    def helper(self, first_prompt_tokens: int | None) -> str:
        """The model for sub-agents: the small one, if it holds what an agent begins with."""
        return self.small if has_room(self.models[self.small], first_prompt_tokens) else self.main


def answer_tokens(context_tokens: int | None) -> int | None:
    """How much of a context a program should keep free for one answer; None where nobody knows."""
    return (
        None if context_tokens is None else min(context_tokens // _ANSWER_SHARE, MOST_ANSWER_TOKENS)
    )


def has_room(context_tokens: int | None, first_prompt_tokens: int | None) -> bool:
    """Whether what an agent begins with fits into a context and leaves room for an answer."""
    if context_tokens is None or first_prompt_tokens is None:
        return True
    return first_prompt_tokens + (answer_tokens(context_tokens) or 0) <= context_tokens


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a user's files and programs are.

    Attributes:
        variables: The environment; some programs let it move their files.
        state: The state folder of mlx-stack, for files that only we write.
    """

    home: Path
    variables: Mapping[str, str]
    is_mac: bool
    state: Path

    def config(self, *parts: str) -> Path:
        """A path below `XDG_CONFIG_HOME`, by default `~/.config`; a relative one doesn't count."""
        base = Path(self.variables.get("XDG_CONFIG_HOME", ""))
        return (base if base.is_absolute() else self.home / ".config").joinpath(*parts)

    def moved(self, variable: str, default: Path) -> Path:
        """The folder that `variable` names, or `default`; absolute."""
        return Path(self.variables.get(variable) or default).absolute()

    def find(self, traces: "Traces") -> Path | None:
        """What shows that a program is on this machine: itself, else a folder of its own."""
        path = self.variables.get("PATH")
        programs = (shutil.which(program, path=path) for program in traces.programs)
        found = next((Path(program) for program in programs if program is not None), None)
        if found is not None:
            return found
        folders = [Path("/Applications"), self.home / "Applications"] if self.is_mac else []
        apps = [folder / f"{app}.app" for app in traces.apps for folder in folders]
        others = [self.home / folder for folder in traces.folders]
        return next((each for each in (*apps, *others) if each.exists()), None)


@dataclass(frozen=True, slots=True)
class Traces:
    """What a program leaves on a machine.

    Attributes:
        programs: Its commands.
        apps: Its applications, by name without `.app`.
        folders: Its own folders, relative to the user's.
    """

    programs: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClientFile:
    """What goes into one file of a client.

    Attributes:
        settings: Our values, by their path in the file.
        frame: What a new file must say as well.
    """

    path: Path
    format: FormatName
    settings: ClientSettings
    frame: ClientSettings = field(default_factory=dict[DocumentPath, object])


type Writer = Callable[[Surroundings, ClientEndpoint], tuple[ClientFile, ...]]


@dataclass(frozen=True, slots=True)
class Client:
    """A program that can talk to the gateway.

    Attributes:
        next_step: What the user does after its files are written; where it has none that can be
            written safely, everything that they type, and where.
        files: Its files; None where everything is set by hand.
        first_prompt_tokens: What an agent sends before the user's first word, with room for a few
            tools of the user's own; None for what isn't an agent.
        priority: How urgent its requests are.
    """

    name: str
    title: str
    traces: Traces
    next_step: Callable[[Surroundings, ClientEndpoint], str]
    files: Writer | None = None
    first_prompt_tokens: int | None = None
    priority: Priority = Priority.INTERACTIVE
