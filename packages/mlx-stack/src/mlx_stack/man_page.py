"""The man page, linked to where `man` looks: tools such as uv install programs, but no pages."""

import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PLACE = Path("share", "man", "man1", "mlx-stack.1")


@dataclass(frozen=True, slots=True)
class ManPage:
    """The page of an installation.

    Attributes:
        page: The page itself.
        link: Where `man` looks for the page of the program that the shell finds.
    """

    page: Path
    link: Path

    @property
    def is_found(self) -> bool:
        """Whether `man` finds a page there, this one or another."""
        return self.link.exists()

    def put_in_place(self) -> None:
        """Link the page; a page that is there stays.

        Raises:
            OSError: When the folder can't be written to.
        """
        if not self.is_found:
            self.link.unlink(missing_ok=True)  # of an installation that is gone
            self.link.parent.mkdir(parents=True, exist_ok=True)
            self.link.symlink_to(self.page)

    def remove(self) -> None:
        """Remove the link, if it is ours."""
        with suppress(OSError):
            if self.link.is_symlink() and self.link.readlink() == self.page:
                self.link.unlink()


def man_page(program: str | None = None, prefix: Path | None = None) -> ManPage | None:
    """The page of this installation; None where the shell finds no program of it.

    Args:
        program: Where the shell finds `mlx-stack`; None looks on PATH.
        prefix: The environment that the program runs in; None is this one.
    """
    found = program or shutil.which("mlx-stack")
    page = (prefix or Path(sys.prefix)) / _PLACE
    if found is None or not page.exists():
        return None
    own = page.parents[3] / "bin"
    if Path(found).resolve().parent != own.resolve():
        return None  # another installation's
    return ManPage(page, Path(found).absolute().parent.parent / _PLACE)
