"""What engines keep of conversations on disk, looked at from outside: listed, and removed."""

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlx_stack.engines.kept_on_disk import FILE, KEPT_DAYS
from mlx_stack.stack import Tier

_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class KeptOfTier:
    """The conversations of one tier.

    Attributes:
        conversations: How many there are.
        old: The files of those that nobody went on with for a fortnight.
    """

    tier: str
    path: Path
    conversations: int
    size_bytes: int
    old: tuple[Path, ...] = ()

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {
            "tier": self.tier,
            "path": str(self.path),
            "conversations": self.conversations,
            "size_bytes": self.size_bytes,
        }


def list_kept(folder: Path) -> tuple[KeptOfTier, ...]:
    """What is kept, by tier; links are nothing of ours."""
    if folder.is_symlink() or not folder.is_dir():
        return ()
    tiers = (each for each in folder.iterdir() if each.is_dir() and not each.is_symlink())
    return tuple(map(_kept_in, sorted(tiers)))


def unused(folder: Path, tiers: Iterable[Tier]) -> tuple[KeptOfTier, ...]:
    """What is kept for tiers that there aren't, or that don't keep anything on disk any more."""
    keeping = _keeping(tiers)
    return tuple(each for each in list_kept(folder) if each.tier not in keeping)


def _keeping(tiers: Iterable[Tier]) -> set[str]:
    return {tier.name for tier in tiers if tier.ssd_cache_gb is not None}


def remove_kept(kept: KeptOfTier) -> None:
    """Remove a tier's conversations.

    Raises:
        OSError: When they can't be removed.
    """
    shutil.rmtree(kept.path)
    kept.path.with_name(kept.tier + _LOCK).unlink(missing_ok=True)


def remove_old(kept: KeptOfTier) -> None:
    """Remove the conversations that nobody went on with.

    Raises:
        OSError: When they can't be removed.
    """
    for path in kept.old:
        path.unlink(missing_ok=True)


def tidy(folder: Path, tiers: Iterable[Tier]) -> None:
    """Remove what no tier keeps, and what nobody went on with; what can't be removed stays."""
    keeping = _keeping(tiers)
    for kept in list_kept(folder):
        with suppress(OSError):  # `doctor` says what is left
            (remove_old if kept.tier in keeping else remove_kept)(kept)


def _kept_in(folder: Path) -> KeptOfTier:
    files = list(_files(folder))
    oldest = time.time() - KEPT_DAYS * 86_400
    return KeptOfTier(
        folder.name,
        folder,
        len(files),
        sum(size_bytes for _, size_bytes, _ in files),
        tuple(path for path, _, used in files if used < oldest),
    )


def _files(folder: Path) -> Iterator[tuple[Path, int, float]]:
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # the engine's own doing
            status = path.lstat()
            if FILE.fullmatch(path.name):
                yield path, status.st_size, status.st_mtime
