"""Which local process serves a URL, and how much memory it uses.

On macOS the figure is `phys_footprint`, which counts Metal buffers and is what Activity Monitor
shows; resident size would miss most of a model. On Linux it is the resident size. Both are read
without privileges for processes of the same user; anything else is unknown, never zero.
"""

import ctypes
import platform
import socket
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_LSOF = "/usr/sbin/lsof"
_RUSAGE_INFO_V0 = 0
# struct rusage_info_v0 in <sys/resource.h>: a UUID of 16 bytes, then 64-bit fields, of which the
# eighth is ri_phys_footprint. The buffer is larger than any version of the structure.
_RUSAGE_BUFFER_BYTES = 1024
_PHYS_FOOTPRINT_OFFSET = 16 + 7 * 8
_TCP_LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class ServingProcess:
    """A local process that serves, with the descendants it had when it was found."""

    pid: int
    descendants: tuple[int, ...] = ()

    def memory_bytes(self) -> int | None:
        """Memory in use now by the process and its descendants, or None where it can't be seen."""
        parts = [
            size
            for pid in (self.pid, *self.descendants)
            if (size := _process_memory_bytes(pid)) is not None
        ]
        return sum(parts) or None

    @property
    def source(self) -> str:
        """What `memory_bytes` reads."""
        return "phys_footprint" if platform.system() == "Darwin" else "resident size"


def serving_process_of(pid: int) -> ServingProcess:
    """A known process with the descendants that it has now."""
    return ServingProcess(pid, _descendants(pid))


def find_serving_process(url: str) -> ServingProcess | None:
    """The process that listens where the URL points, or None if it is elsewhere or not ours."""
    parts = urlsplit(url)
    if not is_local(url):
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    pid = _darwin_listener(port) if platform.system() == "Darwin" else _linux_listener(port)
    return serving_process_of(pid) if pid is not None else None


def is_local(url: str) -> bool:
    """Whether a URL points to a loopback address of this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return socket.inet_aton(host)[0] == 127
    except OSError:
        return host == "::1"


def parse_linux_listeners(table: str, port: int) -> tuple[str, ...]:
    """The socket inodes that listen on a port, from the text of `/proc/net/tcp` or `tcp6`."""
    inodes: list[str] = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _TCP_LISTEN:
            _, _, hex_port = fields[1].rpartition(":")
            if int(hex_port, 16) == port:
                inodes.append(fields[9])
    return tuple(inodes)


def parse_parents(table: str) -> dict[int, int]:
    """Parent by process, from the text of `ps -A -o pid=,ppid=`."""
    parents: dict[int, int] = {}
    for line in table.splitlines():
        fields = line.split()
        if len(fields) == 2 and all(field.isdigit() for field in fields):
            parents[int(fields[0])] = int(fields[1])
    return parents


def descendants_of(pid: int, parents: dict[int, int]) -> tuple[int, ...]:
    """Every process below this one."""
    found: list[int] = []
    frontier = {pid}
    while frontier:
        frontier = {child for child, parent in parents.items() if parent in frontier} - set(found)
        found += sorted(frontier)
    return tuple(found)


def _linux_listener(port: int) -> int | None:
    inodes: set[str] = set()
    for name in ("tcp", "tcp6"):
        table = _read_text(Path("/proc/net") / name)
        inodes |= {f"socket:[{inode}]" for inode in parse_linux_listeners(table, port)}
    if not inodes:
        return None
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            if any(str(link.readlink()) in inodes for link in (folder / "fd").iterdir()):
                return int(folder.name)
        except OSError:
            continue  # another user's process, or one that has just gone
    return None


def _darwin_listener(port: int) -> int | None:
    text = _output((_LSOF, "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-t"))
    pids = [int(line) for line in text.split() if line.isdigit()]
    return min(pids) if pids else None


def _descendants(pid: int) -> tuple[int, ...]:
    if platform.system() == "Darwin":
        return descendants_of(pid, parse_parents(_output(("/bin/ps", "-A", "-o", "pid=,ppid="))))
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        # The name in parentheses may hold spaces, so count from behind it.
        fields = _read_text(folder / "stat").rpartition(")")[2].split()
        if len(fields) > 1:
            parents[int(folder.name)] = int(fields[1])
    return descendants_of(pid, parents)


def _process_memory_bytes(pid: int) -> int | None:
    if platform.system() == "Darwin":
        return _darwin_footprint_bytes(pid)
    for line in _read_text(Path(f"/proc/{pid}/status")).splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return None


def _darwin_footprint_bytes(pid: int) -> int | None:
    libproc = ctypes.CDLL("/usr/lib/libproc.dylib")
    buffer = ctypes.create_string_buffer(_RUSAGE_BUFFER_BYTES)
    if libproc.proc_pid_rusage(pid, _RUSAGE_INFO_V0, buffer) != 0:
        return None
    (size,) = struct.unpack_from("<Q", buffer.raw, _PHYS_FOOTPRINT_OFFSET)
    return int(size) or None


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
