"""The program `mlx-stack`."""

import sys

from mlx_stack import __version__, exit_codes


def main() -> int:
    """Run `mlx-stack` with the arguments of this process; the exit code."""
    if sys.argv[1:] in (["--version"], ["-V"]):  # answered before click is even imported
        try:
            print(f"mlx-stack {__version__}", flush=True)
        except OSError:  # stdout takes nothing: reported below, as for any command
            pass
        else:
            return exit_codes.DONE
    try:
        from mlx_stack.cli.root import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:  # Ctrl-C while modules are still being imported
        return exit_codes.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
