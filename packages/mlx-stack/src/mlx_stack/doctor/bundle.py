"""A file for a bug report: what the doctor sees, without names, paths of the user, or keys."""

import json
import os
import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from getpass import getuser
from pathlib import Path

from mlx_procsup import tail_lines
from mlx_stack import __version__, atomic_file
from mlx_stack.config import CONFIG_KEYS, mask_value
from mlx_stack.credentials import MASK, read_gateway_key
from mlx_stack.doctor.examine import Examination
from mlx_stack.doctor.redaction import redact
from mlx_stack.engines.environment import current_environment
from mlx_stack.engines.lockfile import Engine
from mlx_stack.errors import StackError
from mlx_stack.hardware import known_hardware
from mlx_stack.models.hub.environment import read_environment
from mlx_stack.open_stack import OpenStack

_LOG_LINES = 200
_SECRET_VARIABLE = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")
_SHORTEST_KEY = 6  # a variable called so may hold `1` or `true`


def write_bundle(opened: OpenStack, examination: Examination, path: Path) -> None:
    """Write the bundle to `path`, readable by its owner only.

    Raises:
        OSError: It can't be written.
    """
    content = redact(_content(opened, examination), _known(opened))
    text = json.dumps(content, indent=2, ensure_ascii=False)
    atomic_file.write_text(path, f"{text}\n", mode=atomic_file.PRIVATE)


def _content(opened: OpenStack, examination: Examination) -> dict[str, object]:
    home = opened.home
    return {
        "schema_version": 1,
        "mlx_stack": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "engines": {
            engine.value: environment.path.name if environment is not None else None
            for engine in Engine
            for environment in (current_environment(home.engines, engine),)
        },
        "hardware": known_hardware(home).to_json(),
        "doctor": examination.to_document(),
        "config": _config(opened),
        "stack": _text(home.stack),
        "logs": {path.stem: tail_lines(path, _LOG_LINES) for path in home.logs.glob("*.log")},
    }


def _config(opened: OpenStack) -> dict[str, str]:
    try:
        config = opened.config
    except StackError as error:
        return {"error": error.message}
    return {key: mask_value(key, getattr(config, key.replace("-", "_"))) for key in CONFIG_KEYS}


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _known(opened: OpenStack) -> dict[str, str]:
    """What must not be in the bundle though it has no shape of its own, and what stands there."""
    host = platform.node()
    names = {host: "<host>", host.partition(".")[0]: "<host>", "localhost": "localhost"}
    names |= dict.fromkeys(_user_names(), "<user>") | {str(Path.home()): "~"}
    secrets = [read_environment().token, *_readable_keys(opened)]
    secrets += [value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name)]
    known = names | {secret: MASK for secret in secrets if secret and len(secret) >= _SHORTEST_KEY}
    return {text: new for text, new in known.items() if len(text) > 1}


def _readable_keys(opened: OpenStack) -> Iterator[str | None]:
    """The keys of our own files; what is damaged hides no other."""
    with suppress(StackError):
        yield read_gateway_key(opened.home)
    with suppress(StackError):
        yield opened.config.openrouter_key


def _user_names() -> Iterator[str]:
    """What this user is called; a container may have users without a name."""
    with suppress(OSError):
        yield getuser()
    yield Path.home().name
