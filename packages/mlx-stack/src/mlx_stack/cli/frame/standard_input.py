"""What is piped into a command, read within bounds: `/dev/zero` never ends."""

import sys

from mlx_stack.errors import UsageError

_LONGEST_LINE = 64 * 1024
"""In characters: no key, code or path comes near."""


def read_line() -> str:
    """The first line of standard input, without its end.

    Raises:
        UsageError: It is longer than any value.
    """
    line = sys.stdin.readline(_LONGEST_LINE + 1)
    if len(line) > _LONGEST_LINE:
        raise UsageError("The line on standard input is longer than any value.")
    return line.rstrip("\r\n")


def read_all(most_characters: int) -> str:
    """Everything on standard input.

    Raises:
        UsageError: It is longer than `most_characters`.
    """
    text = sys.stdin.read(most_characters + 1)
    if len(text) > most_characters:
        most = most_characters // 2**20
        raise UsageError(f"Standard input has more than {most} million characters.")
    return text
