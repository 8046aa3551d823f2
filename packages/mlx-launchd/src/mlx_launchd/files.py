"""Plists on disk as launchd requires them: complete, with a trusted owner who alone may write."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Protocol

from mlx_launchd.command import CommandRunner, InputRunner
from mlx_launchd.errors import LaunchctlError, LaunchdError, PlistError

_MODE = 0o644


class PlistFiles(Protocol):
    """Where plists are kept."""

    def read(self, path: Path) -> bytes | None:
        """The file's content, or None if there is no file."""
        ...

    def write(self, path: Path, data: bytes) -> None:
        """Put the whole file in place at once."""
        ...

    def remove(self, path: Path) -> None:
        """Remove the file if it exists."""
        ...


@dataclass(frozen=True, slots=True)
class UserPlistFiles:
    """Plists in a folder that the user may write."""

    def read(self, path: Path) -> bytes | None:
        """The file's content, or None if there is no file."""
        return _read(path)

    def write(self, path: Path, data: bytes) -> None:
        """Put the whole file in place at once, mode 0644; creates its folder if it is missing.

        Raises:
            LaunchdError: The folder or the file can't be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
                try:
                    new.write(data)
                    new.flush()
                    os.fchmod(new.fileno(), _MODE)
                    os.fsync(new.fileno())
                    Path(new.name).replace(path)
                except OSError:
                    Path(new.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise LaunchdError(
                f"cannot write {path}: {error.strerror}", hint=f"check who owns {path.parent}"
            ) from error

    def remove(self, path: Path) -> None:
        """Remove the file if it exists.

        Raises:
            LaunchdError: The folder does not allow it to be removed.
        """
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise LaunchdError(f"cannot remove {path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class RootPlistFiles:
    """Plists in a folder that only root may write.

    Root gets a file's content on standard input, because any of the user's programs could replace a
    file that the user owns before root reads it.

    Attributes:
        privilege: Put before each command.
    """

    run: InputRunner
    privilege: tuple[str, ...] = ("/usr/bin/sudo",)

    def read(self, path: Path) -> bytes | None:
        """The file's content, or None if there is no file."""
        return _read(path)

    def write(self, path: Path, data: bytes) -> None:
        """Write the whole file, which then belongs to root, with mode 0644.

        Raises:
            LaunchctlError: The command failed, or permission was denied.
            LaunchdError: There is no such folder, or the written file differs; in that case it is
                removed again.
        """
        if not path.parent.is_dir():
            raise LaunchdError(
                f"there is no folder {path.parent}", hint=f"make it: `sudo mkdir {path.parent}`"
            )
        write, make_readable = self.write_commands(path)
        self._run(write, data.decode())
        self._run(make_readable)
        if self.read(path) != data:
            self._run(self.remove_command(path))
            raise LaunchdError(f"{path} does not contain what was written to it, and was removed")

    def write_commands(self, path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The commands that write the file from standard input and set its mode, to be shown."""
        return (
            (*self.privilege, "/usr/bin/tee", str(path)),
            (*self.privilege, "/bin/chmod", f"{_MODE:04o}", str(path)),
        )

    def remove(self, path: Path) -> None:
        """Remove the file if it exists.

        Raises:
            LaunchctlError: The command failed, or permission was denied.
        """
        if path.exists():
            self._run(self.remove_command(path))

    def remove_command(self, path: Path) -> tuple[str, ...]:
        """The command that removes the file, to be shown."""
        return (*self.privilege, "/bin/rm", "-f", str(path))

    def _run(self, command: tuple[str, ...], stdin: str | None = None) -> None:
        done = self.run(command, stdin)
        if done.returncode != 0:
            raise LaunchctlError(
                f"`{' '.join(command)}` exited with {done.returncode}",
                command=command,
                returncode=done.returncode,
                text=done.stderr.strip(),
                hint="run it yourself in a terminal, where sudo can ask for your password",
            )


def check_plist_file(path: Path, *, owner_uid: int) -> None:
    """Returns if launchd would trust this file.

    Raises:
        PlistError: It isn't a regular file, belongs to another user, or others may write it.
    """
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise PlistError("", expected="a regular file", got=stat.filemode(found.st_mode))
    if found.st_uid not in {owner_uid, 0}:
        raise PlistError("", expected=f"a file of uid {owner_uid}", got=f"uid {found.st_uid}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PlistError(
            "",
            expected="a file that only its owner may write",
            got=stat.filemode(found.st_mode),
            hint=f"chmod 644 {path}",
        )


def lint(run: CommandRunner, path: Path) -> None:
    """Returns if `plutil -lint`, which reads plists as macOS does, finds no problem.

    Raises:
        ProgramMissingError: There is no plutil: this isn't a Mac.
        PlistError: plutil found a problem in the file.
    """
    done = run(("plutil", "-lint", str(path)))
    if done.returncode != 0:
        raise PlistError(
            "", expected="what plutil accepts", got=(done.stdout or done.stderr).strip()
        )


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LaunchdError(f"cannot read {path}: {error.strerror}") from error
