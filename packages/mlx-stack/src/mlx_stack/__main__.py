"""The program `mlx-stack`."""

import sys
from contextlib import suppress

from mlx_stack import __version__, exit_codes


def main() -> int:
    """Run `mlx-stack` with the arguments of this process; the exit code."""
    if sys.argv[1:] == ["--version"]:  # answered before click is even imported
        with suppress(OSError):  # where stdout takes nothing, that is told as of any command
            print(f"mlx-stack {__version__}", flush=True)
            return exit_codes.DONE
    try:
        from mlx_stack.cli.root import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:  # Ctrl-C while modules are still being imported
        return exit_codes.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
