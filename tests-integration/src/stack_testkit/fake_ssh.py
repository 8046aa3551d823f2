"""An `ssh` that reaches Macs which are folders of this machine: a program for PATH.

As OpenSSH's it takes options, `--`, a Mac and a command for its shell, asks no question, and passes
bytes both ways between two processes, of which each sees the end of the other.
"""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

_NOT_CONNECTED = 255
_CHUNK_BYTES = 65536


def install_fake_ssh(folder: Path, macs: Path) -> Path:
    """Write the program into `folder`, for a PATH, which is returned.

    Args:
        macs: What holds the home folder of each Mac, by its name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "ssh"
    command = f"{sys.executable} -I {Path(__file__)}"
    program.write_text(f'#!/bin/sh\nexec {command} "{macs}" "$@"\n', encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


def main(macs: Path, words: list[str]) -> int:
    """Run what the command line says; the exit code."""
    at = words.index("--")
    host, command = words[at + 1].rpartition("@")[2], words[at + 2 :]
    if "-G" in words[:at]:
        print(f"host {host}\nhostname 127.0.0.1\nport 22")
        return 0
    home = macs / host
    if not home.is_dir():
        print(f"ssh: connect to host {host} port 22: No route to host", file=sys.stderr)
        return _NOT_CONNECTED
    there = subprocess.Popen(
        ("/bin/sh", "-c", " ".join(command)),
        cwd=home,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "USER": "me"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert there.stdin is not None
    assert there.stdout is not None
    threading.Thread(target=_pass, args=(0, there.stdin), daemon=True).start()
    while chunk := os.read(there.stdout.fileno(), _CHUNK_BYTES):
        os.write(1, chunk)
    return there.wait()


def _pass(source: int, target: IO[bytes]) -> None:
    while chunk := os.read(source, _CHUNK_BYTES):
        target.write(chunk)
        target.flush()
    target.close()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
