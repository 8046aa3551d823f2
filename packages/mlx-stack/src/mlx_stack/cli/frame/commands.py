"""The table of commands: name, where it lives, its group in the help, and its one line of help.

Reading it imports no command. The module `mlx_stack.cli.<name>` holds a click command named
`command`.
"""

from typing import NamedTuple

SETUP = "Setup & Configuration"
MODELS = "Model Management"
LIFECYCLE = "Stack Lifecycle"
DIAGNOSTICS = "Diagnostics"
CONNECT = "Try & connect"
GROUPS = (CONNECT, SETUP, MODELS, LIFECYCLE, DIAGNOSTICS)
"""The groups in the order of the help."""


class CommandEntry(NamedTuple):
    """One row: how the command is called, where it is, and what the help says of it."""

    name: str
    group: str
    help: str


COMMANDS: tuple[CommandEntry, ...] = (
    CommandEntry("demo", CONNECT, "See the whole stack work, from nothing, on an embedded model."),
    CommandEntry("ask", CONNECT, "Put one question to a model and stream its answer."),
    CommandEntry("connect", CONNECT, "Write a client's configuration for this endpoint."),
    CommandEntry("env", CONNECT, "Print the variables that clients read."),
    CommandEntry("setup", SETUP, "From nothing to a running stack, in one guided flow."),
    CommandEntry("init", SETUP, "Define a stack: the recommended tiers, on free ports."),
    CommandEntry("config", SETUP, "Show and change the configuration."),
    CommandEntry("profile", SETUP, "Detect the hardware and save what was found."),
    CommandEntry("recommend", MODELS, "Rank the catalog for a machine and propose the tiers."),
    CommandEntry("estimate", MODELS, "Will a model run, in how much memory, how fast?"),
    CommandEntry("pull", MODELS, "Download a model, or continue where a download stopped."),
    CommandEntry("models", MODELS, "List models: those here, the catalog's, or the Hub's."),
    CommandEntry("up", LIFECYCLE, "Start what is not running, and wait until it is ready."),
    CommandEntry("restart", LIFECYCLE, "Stop the services and start them again."),
    CommandEntry("down", LIFECYCLE, "Stop the services: the gateway first, then the tiers."),
    CommandEntry("status", LIFECYCLE, "Show the hardware and the state of every service."),
    CommandEntry("watch", LIFECYCLE, "Restart services that crash or hang."),
    CommandEntry("bench", DIAGNOSTICS, "Measure a tier, a local model or any endpoint."),
    CommandEntry("doctor", SETUP, "Find what is wrong, and what to do about it."),
    CommandEntry("logs", DIAGNOSTICS, "List the services' logs, or show one of them."),
    CommandEntry("install", LIFECYCLE, "Start the stack at every login, or at every boot."),
    CommandEntry("uninstall", LIFECYCLE, "Undo `install`; the services stay as they are."),
    CommandEntry("engines", LIFECYCLE, "Install, verify, upgrade and roll back the engines."),
    CommandEntry("completion", CONNECT, "Print the shell's completion script."),
)
