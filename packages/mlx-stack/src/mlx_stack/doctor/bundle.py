"""A file for a bug report: what the doctor sees, without names, paths of the user, or keys.

What names a person or grants access is removed if it is known on this machine or has a telling
shape: logs hold what engines and proxies print, so a key in them need not be one of ours.
"""

import json
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from getpass import getuser
from pathlib import Path
from typing import cast

from mlx_hwprobe import HwprobeError
from mlx_procsup import tail_lines
from mlx_stack import __version__, atomic_file
from mlx_stack.config import CONFIG_KEYS
from mlx_stack.credentials import MASK, SECRET_SHAPES, read_gateway_key
from mlx_stack.doctor.finding import Examination
from mlx_stack.engines.environment import EngineName, current_environment
from mlx_stack.engines.guard import PREVIEW
from mlx_stack.errors import StackError
from mlx_stack.hardware import known_hardware
from mlx_stack.models.hub.environment import read_environment
from mlx_stack.open_stack import OpenStack

_LOG_LINES = 200
_SECRET_VARIABLE = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")
_SHORTEST_KEY = 6  # a variable called so may hold `1` or `true`
_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    # the beginning of a prompt, which the engine logs with each request
    (re.compile(f"({PREVIEW}).*"), r"\1<prompt>"),
    *SECRET_SHAPES,
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w"), "<e-mail>"),
    (re.compile(r"(/(?:Users|home)/)[^/\s'\":,;)]+"), r"\1<user>"),
    (re.compile(r"\b[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\b"), "<uuid>"),
    (re.compile(r"\b[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}\b"), "<hardware address>"),
    # a Mac's serial number has ten or twelve characters, letters and digits among them
    (re.compile(r"\b(?=\d*[A-Z])(?=[A-Z]*\d)[A-Z0-9]{10}(?:[A-Z0-9]{2})?\b"), "<serial number>"),
)


def write_bundle(opened: OpenStack, examination: Examination, path: Path) -> Examination:
    """The examination with its bundle, which is written to `path`, readable by its owner only.

    Raises:
        OSError: When it can't be written.
    """
    content = redact(_content(opened, examination), _known(opened))
    text = json.dumps(content, indent=2, ensure_ascii=False)
    atomic_file.write_text(path, f"{text}\n", mode=atomic_file.PRIVATE)
    return replace(examination, bundle=path)


def redact(value: object, known: Mapping[str, str]) -> object:
    """The JSON value without secrets and names, in every string of it.

    Args:
        value: Made of strings, numbers, lists and maps; the keys of maps stay as they are.
        known: Secrets and names of this machine, each with its replacement; they are replaced
            as whole words only, the longest first.
    """
    if isinstance(value, str):
        return _redact_text(value, known)
    if isinstance(value, Mapping):
        fields = cast("Mapping[object, object]", value)
        return {key: redact(item, known) for key, item in fields.items()}
    if isinstance(value, list | tuple):
        return [redact(item, known) for item in cast("list[object]", value)]
    return value


def _redact_text(text: str, known: Mapping[str, str]) -> str:
    for secret in sorted(known, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", lambda _, new=known[secret]: new, text)
    for shape, replacement in _SHAPES:
        text = shape.sub(replacement, text)
    return text


def _content(opened: OpenStack, examination: Examination) -> dict[str, object]:
    home = opened.home
    return {
        "schema_version": 1,
        "mlx_stack": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "engines": {
            engine.value: environment.path.name if environment is not None else None
            for engine in EngineName
            for environment in (current_environment(home.engines, engine),)
        },
        "hardware": _or_error(lambda: known_hardware(home).to_document()),
        "doctor": examination.to_document(),
        "config": _or_error(lambda: _config(opened)),
        "stack": _text(home.stack),
        "logs": {path.stem: tail_lines(path, _LOG_LINES) for path in home.logs.glob("*.log")},
    }


def _config(opened: OpenStack) -> dict[str, str]:
    return {
        name: key.mask(getattr(opened.config, name.replace("-", "_")))
        for name, key in CONFIG_KEYS.items()
    }


def _or_error(read: Callable[[], object]) -> object:
    try:
        return read()
    except (StackError, HwprobeError) as error:
        return {"error": str(error)}


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _known(opened: OpenStack) -> dict[str, str]:
    """What must not be in the bundle though it has no telling shape, with its replacements."""
    host = platform.node()
    names = {host: "<host>", host.partition(".")[0]: "<host>", "localhost": "localhost"}
    names |= dict.fromkeys(_user_names(), "<user>") | {str(Path.home()): "~"}
    secrets = [read_environment().token, *_readable_keys(opened)]
    secrets += [value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name)]
    known = names | {secret: MASK for secret in secrets if secret and len(secret) >= _SHORTEST_KEY}
    return {text: new for text, new in known.items() if len(text) > 1}


def _readable_keys(opened: OpenStack) -> Iterator[str | None]:
    """The keys in our own files; a damaged file doesn't hide another's."""
    with suppress(StackError):
        yield read_gateway_key(opened.home)
    with suppress(StackError):
        yield opened.config.openrouter_key


def _user_names() -> Iterator[str]:
    """What this user is called; in a container, users may have no name."""
    with suppress(OSError):
        yield getuser()
    yield Path.home().name
