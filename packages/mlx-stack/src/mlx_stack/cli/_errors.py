"""The one table that turns exceptions of libraries and of the system into what a user is told."""

import errno
from collections.abc import Callable

from mlx_stack.errors import LockedError, MissingError, StackError, UsageError

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
    return StackError(str(error), hint=getattr(error, "hint", None))


def _wrong(error: Exception) -> StackError:
    return UsageError(str(error), hint=getattr(error, "hint", None))


def _missing(error: Exception) -> StackError:
    return MissingError(str(error), hint=getattr(error, "hint", None))


def _unknown_model(error: Exception) -> StackError:
    near: tuple[str, ...] = getattr(error, "close_matches", ())
    guess = f"Did you mean {' or '.join(near)}? " if near else ""
    hint = f"{guess}`mlx-stack models --catalog` lists the catalog; `owner/name` is a Hub repo."
    return UsageError(f"There is no model {getattr(error, 'name', '')!r}.", hint=hint)


def _gated(error: Exception) -> StackError:
    hint = "Accept the licence on the model's page, then set a token: `hf auth login` or HF_TOKEN."
    return StackError(str(error), hint=hint)


def _unreachable(error: Exception) -> StackError:
    hint = "Check the connection and HF_ENDPOINT; models of the catalog need neither."
    return StackError(str(error), hint=hint)


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
    "builtins.OSError": _system,
    "mlx_bench.BenchError": _failed,
    "mlx_bench.ParametersError": _wrong,
    "mlx_catalog.CatalogError": _failed,
    "mlx_catalog.GatedRepoError": _gated,
    "mlx_catalog.HubUnreachableError": _unreachable,
    "mlx_catalog.InvalidCatalogError": _wrong,
    "mlx_catalog.UnknownModelError": _unknown_model,
    "mlx_hwprobe.HwprobeError": _failed,
    "mlx_hwprobe.NotAppleSiliconError": _missing,
    "mlx_hwprobe.InvalidDocumentError": _wrong,
    "mlx_hwprobe.UnknownChipError": _wrong,
    "mlx_hwprobe.UnsupportedPlatformError": _missing,
    "mlx_launchd.LaunchdError": _failed,
    "mlx_launchd.ProgramMissingError": _missing,
    "mlx_procsup.LockHeldError": _locked,
    "mlx_procsup.SupervisionError": _failed,
    "mlx_recommend.RecommendError": _wrong,
}
"""By package and class name, so that no library is imported to look an error up.

The nearest class in the exception's own order of bases decides.
"""
