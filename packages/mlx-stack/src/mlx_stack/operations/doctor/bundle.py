"""A file for a bug report: what the doctor sees, without names, paths of the user, or keys."""

import json
import platform
from getpass import getuser
from pathlib import Path

from mlx_procsup.logfiles import tail_lines
from mlx_stack import __version__, atomic_file
from mlx_stack.config import CONFIG_KEYS, load_config, mask_value
from mlx_stack.credentials import read_gateway_key
from mlx_stack.engines.environment import current_environment
from mlx_stack.engines.lockfile import Engine
from mlx_stack.errors import StackError
from mlx_stack.operations.doctor.examine import Examination
from mlx_stack.operations.machine.hardware import known_hardware
from mlx_stack.paths import Home

_LOG_LINES = 200
_MASK = "********"


def write_bundle(home: Home, examination: Examination, path: Path) -> None:
    """Write the bundle to `path`, readable by its owner only.

    Raises:
        OSError: It can't be written.
    """
    text = json.dumps(_content(home, examination), indent=2, ensure_ascii=False)
    for secret, stand_in in _to_hide(home):
        text = text.replace(secret, stand_in)
    atomic_file.write_text(path, f"{text}\n", mode=atomic_file.PRIVATE)


def _content(home: Home, examination: Examination) -> dict[str, object]:
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
        "config": _config(home),
        "stack": _text(home.stack),
        "logs": {path.stem: tail_lines(path, _LOG_LINES) for path in home.logs.glob("*.log")},
    }


def _config(home: Home) -> dict[str, str]:
    try:
        config = load_config(home)
    except StackError as error:
        return {"error": error.message}
    return {key: mask_value(key, getattr(config, key.replace("-", "_"))) for key in CONFIG_KEYS}


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _to_hide(home: Home) -> list[tuple[str, str]]:
    """What must not be in the bundle, each with what stands there instead; the longest first."""
    secrets = [(str(Path.home()), "~"), (platform.node(), "<host>")]
    try:
        secrets += [
            (key, _MASK)
            for key in (read_gateway_key(home), load_config(home).openrouter_key)
            if key
        ]
        user = getuser()
    except (StackError, OSError):
        user = ""
    secrets.append((user, "<user>"))
    return sorted(
        (
            (json.dumps(secret, ensure_ascii=False)[1:-1], name)
            for secret, name in secrets
            if len(secret) > 2
        ),
        key=lambda pair: -len(pair[0]),
    )
