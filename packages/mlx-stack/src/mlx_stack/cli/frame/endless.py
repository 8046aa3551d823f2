"""Commands that run until their user ends them."""

from collections.abc import Generator
from contextlib import contextmanager

import click

from mlx_stack import exit_codes
from mlx_stack.errors import Interrupted


@contextmanager
def until_interrupted() -> Generator[None]:
    """Take Ctrl-C and SIGTERM for the ordinary end: only the exit code tells of them, no error."""
    try:
        yield
    except KeyboardInterrupt:
        raise click.exceptions.Exit(exit_codes.INTERRUPTED) from None
    except Interrupted:
        raise click.exceptions.Exit(exit_codes.TERMINATED) from None
