"""What a Mac says of itself before a part of a model is started there, as one line of JSON.

Its text is sent to the engine's Python over there, which knows nothing of mlx-stack: it uses the
standard library, and MLX and PyYAML where they can be imported. What it prints is `facts.Facts`.
"""

import contextlib
import ctypes
import ctypes.util
import errno
import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

MARK = "mlx-stack-facts "
"""Begins the line with the answer: what a login shell prints comes before it."""
MANIFEST = ".mlx-stack.json"
MOST_FILES = 5000
BEGINNING = "beginning"
"""What the hash of a file is of that no manifest names: of its first megabyte."""
_BEGINNING_BYTES = 2**20
_OF_A_FILE = ("path", "size_bytes", "algorithm", "digest")


def answer(home: Path, question: dict[str, Any]) -> dict[str, Any]:
    """The facts.

    Args:
        question: `folder`, the name of the model's folder; `address`, where the ring is to listen;
            `ports`, which of them are wanted there.
    """
    wired, limit, memory = _wired_limit(), *_gpu()
    models = model_dir(home)
    return {
        "schema_version": 1,
        "home": str(home),
        "system": platform.system(),
        # `platform` knows a made-up version where Python was built for an older macOS
        "os_version": _said("/usr/bin/sw_vers", "-productVersion"),
        "os_build": _said("/usr/bin/sw_vers", "-buildVersion"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ("mlx", "mlx-lm")},
        "lock_sha256": _lock(home),
        "memory_bytes": memory or _memory(),
        "gpu_limit_bytes": wired or limit,
        "model_dir": str(models),
        "disk_free_bytes": _free(models),
        "model": _model(models / question["folder"]),
        "addresses": list(addresses()),
        "rdma_devices": _rdma_devices(),
        "ports_taken": [port for port in question["ports"] if _taken(question["address"], port)],
    }


def main(question: str) -> None:
    """Print the answer to `question`, which is JSON; the first argument is the state folder."""
    found = answer(Path(sys.argv[1]), json.loads(question))
    sys.stdout.write(f"{MARK}{json.dumps(found)}\n")


def _said(*command: str, most: int = 200) -> str | None:
    """What a program prints, at most so many characters; None where it can't be asked."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()[:most] or None


def _rdma_devices() -> list[str] | None:
    """The devices for RDMA; None where macOS doesn't list any: it is off, or not there."""
    program = shutil.which("ibv_devices", path="/usr/bin:/bin:/usr/sbin:/sbin")
    said = _said(program, most=4000) if program is not None else None
    return rdma_devices_in(said) if said is not None else None


def rdma_devices_in(said: str) -> list[str]:
    """The names in the table that `ibv_devices` prints."""
    first = (line.split()[0] for line in said.splitlines() if line.strip())
    return [name[:50] for name in first if name.startswith("rdma_")][:100]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _lock(home: Path) -> str | None:
    """The digest of the lock that the engine in use was made from; None if it isn't complete."""
    receipt = home / "engines" / "mlx-lm" / "current" / "mlx-stack.json"
    try:
        return str(json.loads(receipt.read_bytes())["lock_sha256"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _gpu() -> tuple[int | None, int | None]:
    """What Metal lets the GPU use, and the machine's memory; None where Metal doesn't say."""
    try:
        core: Any = import_module("mlx.core")
        said: Any = core.device_info() if hasattr(core, "device_info") else {}
        return said.get("max_recommended_working_set_size"), said.get("memory_size")
    except Exception:  # noqa: BLE001 - whatever MLX does here, the other facts are worth having
        return None, None


def _wired_limit() -> int | None:
    """What the user lets the GPU use; None where they didn't say."""
    said = _said("/usr/sbin/sysctl", "-n", "iogpu.wired_limit_mb")
    return int(said) * 2**20 or None if said and said.isdecimal() else None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _free(folder: Path) -> int | None:
    """What is free on the disk of a folder that needn't be there."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), None)
    return shutil.disk_usage(there).free if there is not None else None


def model_dir(home: Path) -> Path:
    """Where downloaded models are, as the configuration over there says."""
    try:
        yaml: Any = import_module("yaml")
        said: Any = yaml.safe_load((home / "config.yaml").read_text())["model-dir"]
        return home / Path(str(said)).expanduser()
    except Exception:  # noqa: BLE001 - without a file, or with one that nobody can read: the usual one
        return home / "models"


def _model(folder: Path) -> dict[str, Any] | None:
    """What a model's folder holds; None where there is none."""
    if not folder.is_dir():
        return None
    found = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("._") and path.name != MANIFEST
    }
    sizes = {name: path.stat().st_size for name, path in found.items()}
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        hashed = [{key: each[key] for key in _OF_A_FILE} for each in manifest["files"]]
        checked: Any = manifest.get("verification") or {"damaged": ()}
        damaged = [str(each) for each in checked["damaged"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # it wasn't pulled
        hashed = [
            dict(zip(_OF_A_FILE, (name, sizes[name], BEGINNING, _beginning(path)), strict=True))
            for name, path in found.items()
        ]
        damaged = []
    return {
        "folder": str(folder),
        "files": hashed[:MOST_FILES],
        "sizes": dict(list(sizes.items())[:MOST_FILES]),
        "damaged": damaged,
    }


def _beginning(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.sha256(content.read(_BEGINNING_BYTES)).hexdigest()


def _taken(address: str | None, port: int) -> bool:
    """Whether something listens where the ring would."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address or "0.0.0.0", port))  # noqa: S104 - it doesn't listen
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


class _InterfaceAddress(ctypes.Structure):
    """The beginning of `struct ifaddrs`, which macOS and Linux have in common."""


_InterfaceAddress._fields_ = [
    ("next", ctypes.POINTER(_InterfaceAddress)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
    ("netmask", ctypes.c_void_p),
]


def addresses() -> Iterator[dict[str, Any]]:
    """The IPv4 addresses of the interfaces here, each with the length of its network's prefix."""
    library = ctypes.CDLL(ctypes.util.find_library("c") or None)
    first = ctypes.POINTER(_InterfaceAddress)()
    if library.getifaddrs(ctypes.byref(first)) != 0:
        return
    with contextlib.ExitStack() as stack:
        stack.callback(library.freeifaddrs, first)
        current = first
        while current:
            each = current.contents
            address, netmask = _four_bytes(each.address, is_mask=False), None
            if address is not None:
                netmask = _four_bytes(each.netmask, is_mask=True)
            if address is not None and netmask is not None:
                yield {
                    "interface": each.name.decode(errors="replace"),
                    "address": socket.inet_ntoa(address),
                    "prefix": int.from_bytes(netmask).bit_count(),
                }
            current = each.next


def _four_bytes(place: int | None, *, is_mask: bool) -> bytes | None:
    """The IPv4 address in a `sockaddr`; None where it holds another kind."""
    if not place:
        return None
    head = ctypes.string_at(place, 2)
    if sys.platform == "darwin":  # its first byte is its length: a mask leaves its last zeros out
        length, family = head[0], head[1]
    else:
        length, family = 8, int.from_bytes(head, sys.byteorder)
    if family != socket.AF_INET and not (is_mask and sys.platform == "darwin"):
        return None
    return ctypes.string_at(place, min(length, 8))[4:].ljust(4, b"\0")
