"""The one table that turns exceptions of libraries and of the system into what a user is told."""

import errno
from collections.abc import Callable

from mlx_stack.errors import StackError

type Translation = Callable[[BaseException], StackError]


def translate(error: Exception) -> StackError | None:
    """What to tell the user of `error`, or None where it is a defect of ours."""
    if isinstance(error, StackError):
        return error
    by_type = _by_type()
    for kind in type(error).__mro__:
        name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
        if name in by_type:
            return by_type[name](error)
    return None


def _by_type() -> dict[str, Translation]:
    """Keyed by package and class name, so that no library is imported to look an error up."""
    return {"builtins.OSError": _system}


def _system(error: BaseException) -> StackError:
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
