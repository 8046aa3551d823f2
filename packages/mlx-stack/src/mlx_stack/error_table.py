"""The one table that turns exceptions of libraries and of the system into what a user sees.

(decision 0072)
"""

import errno
from collections.abc import Callable
from pathlib import Path

import mlx_stack
from mlx_stack.errors import (
    InvalidFileError,
    LockedError,
    MissingError,
    StackError,
    UsageError,
)

DEBUG_VARIABLE = "MLX_STACK_DEBUG"
"""Set to anything, the variable lets the traceback of any failure through."""

_FIX_ENTRY = "Fix the entry, or move it out of the folder `catalog` of the state folder."
_FREE_PORT = (
    "Stop that program, or change the port: of a tier in the stack file, of the gateway with "
    "`mlx-stack config set litellm-port`."
)

type Translation = Callable[[Exception], StackError]


def translate(error: Exception) -> StackError | None:
    """The error to show the user for `error`, or None where it is a defect of ours."""
    if isinstance(error, StackError):
        return error
    for kind in type(error).__mro__:
        translation = _TRANSLATIONS.get(f"{kind.__module__.partition('.')[0]}.{kind.__name__}")
        if translation is not None:
            return translation(error)
    return None


def _as(kind: type[StackError], hint: str | None = None) -> Translation:
    """A translation that keeps the message, and the exception's own hint if it has one."""
    return lambda error: kind(str(error), hint=getattr(error, "hint", None) or hint)


def _locked(error: Exception) -> StackError:
    return LockedError(
        f"Another command is changing the services: {error}.",
        hint="Wait until it has finished, then run this again.",
    )


def _unknown_model(error: Exception) -> StackError:
    near: tuple[str, ...] = getattr(error, "close_matches", ())
    guess = f"Did you mean {' or '.join(near)}? " if near else ""
    hint = (
        f"{guess}`mlx-stack models list --catalog` lists the catalog; `owner/name` is a Hub repo."
    )
    return UsageError(f"There is no model {getattr(error, 'name', '')!r}.", hint=hint)


def _unknown_chip(error: Exception) -> StackError:
    near: tuple[str, ...] = getattr(error, "nearest", ())
    guess = f"Did you mean {' or '.join(near)}?" if near else None
    return UsageError(str(error), hint=getattr(error, "hint", None) or guess)


def _no_answer(error: Exception) -> StackError:
    """A request failed; the message of the transport may be empty."""
    request = getattr(error, "_request", None)  # the property raises where there is none
    place = f" from {request.url}" if request is not None else ""
    said = str(error) or type(error).__name__
    return StackError(f"No usable answer{place}: {said}", hint="Is the other side running?")


def _damaged(error: Exception) -> StackError:
    hint = "`mlx-stack doctor` checks the state folder."
    return StackError(f"A file has unexpected content: {error}", hint=hint)


def _slow_program(error: Exception) -> StackError:
    command = getattr(error, "cmd", ())
    program = command if isinstance(command, str) else next(iter(command), "a program")
    return StackError(f"{program} failed: {error}")


def _too_nested(_error: Exception) -> StackError:
    hint = f"`{DEBUG_VARIABLE}=1` shows where."
    return UsageError("A file is nested too deeply.", hint=hint)


def _too_big(_error: Exception) -> StackError:
    return StackError("There is not enough free memory to do this.")


def _no_locks(error: Exception) -> StackError:
    variable = mlx_stack.home.HOME_VARIABLE
    hint = f"Keep the state folder on a disk of this machine: {variable} says where it is."
    return StackError(f"{error}.", hint=hint)


def _folder(error: Exception) -> StackError:
    assert isinstance(error, OSError)
    path = Path(str(error.filename or "a path"))
    hint = "Move it away; then run the command again."
    if isinstance(error, IsADirectoryError):
        return InvalidFileError(path, "is a folder where a file should be", hint=hint)
    return InvalidFileError(path, "part of this path is a file, not a folder", hint=hint)


def _system(error: Exception) -> StackError:
    assert isinstance(error, OSError)
    what = error.strerror or str(error)
    place = f"{error.filename}: " if error.filename else ""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            hint = "The disk is full: free some space and run the command again; nothing was lost."
        case errno.EACCES | errno.EPERM | errno.EROFS:
            hint = "Check the owner and the permissions: `mlx-stack doctor` checks them."
        case _:
            hint = None
    return StackError(f"{place}{what}", hint=hint)


_TRANSLATIONS: dict[str, Translation] = {
    "builtins.IsADirectoryError": _folder,
    "builtins.MemoryError": _too_big,
    "builtins.NotADirectoryError": _folder,
    "builtins.OSError": _system,
    "builtins.RecursionError": _too_nested,
    "builtins.UnicodeError": _damaged,
    "httpx.HTTPError": _no_answer,
    "httpx.InvalidURL": _as(UsageError),
    "json.JSONDecodeError": _damaged,
    "mlx_bench.BenchError": _as(StackError),
    "mlx_bench.ParametersError": _as(UsageError),
    "mlx_catalog.CatalogError": _as(StackError),
    "mlx_catalog.InvalidCatalogError": _as(UsageError, _FIX_ENTRY),
    "mlx_catalog.UnknownModelError": _unknown_model,
    "mlx_catalog.UnreadableCatalogError": _as(UsageError, _FIX_ENTRY),
    "mlx_gateway.LedgerError": _as(StackError, "`mlx-stack doctor` says what to do."),
    "mlx_hwprobe.HwprobeError": _as(StackError),
    "mlx_hwprobe.InvalidDocumentError": _as(UsageError),
    "mlx_hwprobe.NotAppleSiliconError": _as(MissingError),
    "mlx_hwprobe.UnknownChipError": _unknown_chip,
    "mlx_hwprobe.UnknownPlatformError": _as(MissingError),
    "mlx_launchd.LaunchdError": _as(StackError),
    "mlx_launchd.ProgramMissingError": _as(MissingError),
    "mlx_procsup.CommandNotFoundError": _as(
        MissingError, "`mlx-stack doctor --fix` installs an engine that is missing."
    ),
    "mlx_procsup.LockHeldError": _locked,
    "mlx_procsup.LockUnsupportedError": _no_locks,
    "mlx_procsup.PortTakenError": _as(StackError, _FREE_PORT),
    "mlx_procsup.StateFileError": _as(
        StackError, "`mlx-stack doctor` checks the state folder; removing the file is safe."
    ),
    "mlx_procsup.SupervisionError": _as(StackError),
    "mlx_recommend.RecommendError": _as(UsageError),
    "msgspec.MsgspecError": _damaged,
    "psutil.Error": _as(StackError),
    "subprocess.SubprocessError": _slow_program,
    "yaml.YAMLError": _damaged,
}
"""By package and class name, so that no library is imported to look an error up.

The nearest class in the exception's own order of bases decides.
"""
