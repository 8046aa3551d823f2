"""The one table that turns exceptions of libraries and of the system into what a user is told."""

import errno
from collections.abc import Callable
from pathlib import Path

from mlx_stack.errors import (
    InvalidFileError,
    LockedError,
    MissingError,
    StackError,
    UsageError,
)
from mlx_stack.home import HOME_VARIABLE

DEBUG_VARIABLE = "MLX_STACK_DEBUG"
"""Set to anything, the variable lets the traceback of any failure through."""

type Translation = Callable[[Exception], StackError]


def translate(error: Exception) -> StackError | None:
    """What to tell the user of `error`, or None where it is a defect of ours."""
    if isinstance(error, StackError):
        return error
    for kind in type(error).__mro__:
        translation = _TRANSLATIONS.get(f"{kind.__module__.partition('.')[0]}.{kind.__name__}")
        if translation is not None:
            return translation(error)
    return None


def _locked(error: Exception) -> StackError:
    return LockedError(
        f"Another command is changing the services: {error}.",
        hint="Wait until it has finished, then run this again.",
    )


def _failed(error: Exception) -> StackError:
    return StackError(str(error), hint=getattr(error, "hint", None) or None)


def _wrong(error: Exception) -> StackError:
    return UsageError(str(error), hint=getattr(error, "hint", None) or None)


def _missing(error: Exception) -> StackError:
    return MissingError(str(error), hint=getattr(error, "hint", None) or None)


def _unknown_model(error: Exception) -> StackError:
    near: tuple[str, ...] = getattr(error, "close_matches", ())
    guess = f"Did you mean {' or '.join(near)}? " if near else ""
    hint = f"{guess}`mlx-stack models --catalog` lists the catalog; `owner/name` is a Hub repo."
    return UsageError(f"There is no model {getattr(error, 'name', '')!r}.", hint=hint)


def _invalid_catalog(error: Exception) -> StackError:
    hint = "Mend the entry, or move it out of the folder `catalog` of the state folder."
    return UsageError(str(error), hint=hint)


def _unknown_chip(error: Exception) -> StackError:
    near: tuple[str, ...] = getattr(error, "nearest", ())
    guess = f"Did you mean {' or '.join(near)}?" if near else None
    return UsageError(str(error), hint=getattr(error, "hint", None) or guess)


def _state_file(error: Exception) -> StackError:
    hint = "`mlx-stack doctor` looks at the state folder; removing the file is safe."
    return StackError(str(error), hint=hint)


def _taken_port(error: Exception) -> StackError:
    hint = "Stop that program, or change the port: of a tier in the stack file, of the gateway with"
    return StackError(str(error), hint=f"{hint} `mlx-stack config set litellm-port`.")


def _not_found_program(error: Exception) -> StackError:
    return MissingError(str(error), hint="`mlx-stack engines verify` finds what is missing.")


def _no_answer(error: Exception) -> StackError:
    """A request of ours failed; the message of the transport may be empty."""
    request = getattr(error, "_request", None)  # the property raises where there is none
    place = f" from {request.url}" if request is not None else ""
    said = str(error) or type(error).__name__
    return StackError(f"No usable answer{place}: {said}", hint="Is the other side running?")


def _damaged(error: Exception) -> StackError:
    hint = "`mlx-stack doctor` looks at the state folder."
    return StackError(f"A file holds something else than it should: {error}", hint=hint)


def _slow_program(error: Exception) -> StackError:
    command = getattr(error, "cmd", ())
    program = command if isinstance(command, str) else next(iter(command), "a program")
    return StackError(f"{program} did not do its work: {error}")


def _too_nested(_error: Exception) -> StackError:
    hint = f"`{DEBUG_VARIABLE}=1` shows where."
    return UsageError("A file is nested deeper than anything meant for this program.", hint=hint)


def _too_big(_error: Exception) -> StackError:
    return StackError("There is not enough free memory to do this.")


def _no_locks(error: Exception) -> StackError:
    hint = f"Keep the state folder on a disk of this machine: {HOME_VARIABLE} says where it is."
    return StackError(f"{error}.", hint=hint)


def _folder(error: Exception) -> StackError:
    assert isinstance(error, OSError)
    path = Path(str(error.filename or "a path"))
    hint = "Move it away; then run the command again."
    if isinstance(error, IsADirectoryError):
        return InvalidFileError(path, "is a folder where a file should be", hint=hint)
    return InvalidFileError(path, "a part of this path is a file, no folder", hint=hint)


def _system(error: Exception) -> StackError:
    assert isinstance(error, OSError)
    what = error.strerror or str(error)
    place = f"{error.filename}: " if error.filename else ""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            hint = "The disk is full: free some space and run the command again; nothing was lost."
        case errno.EACCES | errno.EPERM | errno.EROFS:
            hint = "Check the owner and the permissions: `mlx-stack doctor` looks at them."
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
    "httpx.InvalidURL": _wrong,
    "json.JSONDecodeError": _damaged,
    "mlx_bench.BenchError": _failed,
    "mlx_bench.ParametersError": _wrong,
    "mlx_catalog.CatalogError": _failed,
    "mlx_catalog.InvalidCatalogError": _invalid_catalog,
    "mlx_catalog.UnknownModelError": _unknown_model,
    "mlx_catalog.UnreadableCatalogError": _invalid_catalog,
    "mlx_hwprobe.HwprobeError": _failed,
    "mlx_hwprobe.InvalidDocumentError": _wrong,
    "mlx_hwprobe.NotAppleSiliconError": _missing,
    "mlx_hwprobe.UnknownChipError": _unknown_chip,
    "mlx_hwprobe.UnknownPlatformError": _missing,
    "mlx_launchd.LaunchdError": _failed,
    "mlx_launchd.ProgramMissingError": _missing,
    "mlx_procsup.CommandNotFoundError": _not_found_program,
    "mlx_procsup.LockHeldError": _locked,
    "mlx_procsup.LockUnsupportedError": _no_locks,
    "mlx_procsup.PortTakenError": _taken_port,
    "mlx_procsup.StateFileError": _state_file,
    "mlx_procsup.SupervisionError": _failed,
    "mlx_recommend.RecommendError": _wrong,
    "msgspec.MsgspecError": _damaged,
    "psutil.Error": _failed,
    "subprocess.SubprocessError": _slow_program,
    "yaml.YAMLError": _damaged,
}
"""By package and class name, so that no library is imported to look an error up.

The nearest class in the exception's own order of bases decides.
"""
