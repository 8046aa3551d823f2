"""LaunchAgents and LaunchDaemons from Python: plists, launchctl, and its exit codes."""

__version__ = "0.1.0"
