"""`mlx-stack` as a process of its own, for what takes a lock, a network or long (decision 0092)."""

import asyncio
import os
import sys
from typing import Any

import msgspec

from mlx_gateway.access import KEY_VARIABLE
from mlx_stack import exit_codes
from mlx_stack.errors import StackError
from mlx_stack.home import HOME_VARIABLE, Home
from mlx_stack.page.answer import CommandFailedError

_WITHIN_S = 120.0


def command_line(*arguments: str) -> tuple[str, ...]:
    """How this very `mlx-stack` is called with these arguments."""
    return (sys.executable, "-P", "-m", "mlx_stack", *arguments)


def environment(home: Home) -> dict[str, str]:
    """What a command sees: this process's environment without the gateway's key."""
    own = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
    return {**own, HOME_VARIABLE: str(home.root), "NO_COLOR": "1"}


async def run_command(home: Home, *arguments: str) -> dict[str, Any]:
    """The one document that a command with `--json` prints.

    Raises:
        StackError: When it prints none, or takes minutes.
    """
    process = await asyncio.create_subprocess_exec(
        *command_line(*arguments),
        env=environment(home),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_WITHIN_S):
            out, err = await process.communicate()
    except TimeoutError as error:
        raise StackError(f"`mlx-stack {arguments[0]}` took too long.") from error
    finally:
        if process.returncode is None:
            process.kill()
    try:
        document: dict[str, Any] = msgspec.json.decode(out, type=dict[str, Any])
    except msgspec.DecodeError as error:
        words = err.decode("utf-8", "replace").strip().splitlines()[-3:]
        raise StackError(f"`mlx-stack {arguments[0]}` failed.", hint=" ".join(words)) from error
    if isinstance(problem := document.get("error"), dict):
        said: dict[str, str | None] = msgspec.convert(problem, dict[str, Any])
        raise CommandFailedError(
            said.get("type") or StackError.type,
            process.returncode or exit_codes.FAILED,
            said.get("message") or "It failed.",
            hint=said.get("hint"),
        )
    return document
