"""One pull, conversion or removal of a model at a time; the kernel frees the lock on a crash."""

from contextlib import AbstractContextManager

from mlx_procsup import LockOwner, acquire_lock
from mlx_stack.models.disk.layout import ModelPlaces
from mlx_stack.models.events import Observer, Unlocked, Waiting


def hold(places: ModelPlaces, repo: str, observer: Observer) -> AbstractContextManager[LockOwner]:
    """The lock of a model's folder, once nobody else has it; its file is removed again.

    Disks without locks (many network disks) are worked on without one.

    Args:
        places: The folder.
        repo: What to call the model.
        observer: Gets `Waiting` where another pull has the lock, `Unlocked` where there is none.
    """
    return acquire_lock(
        places.lock,
        "pull",
        on_wait=lambda _: observer(Waiting(repo)),
        on_unsupported=lambda _: observer(Unlocked(str(places.model_dir))),
        remove=True,
    )
