"""The machine on which the benchmark ran, as far as it tells without further packages."""

import os
import platform
import subprocess


def describe_machine() -> dict[str, object]:
    """System, chip, cores and memory of this machine; what can't be known is None.

    No host, user or serial name is in it, so that a report can be published.
    """
    is_mac = platform.system() == "Darwin"
    return {
        "system": platform.system(),
        "release": _answer("/usr/bin/sw_vers", "-productVersion") if is_mac else platform.release(),
        "architecture": platform.machine(),
        "chip": _answer("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string") if is_mac else None,
        "cpu_count": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
    }


def _answer(*command: str) -> str | None:
    """What the program prints; None where it prints nothing."""
    # To programs that are too old for it, macOS 26 calls itself 16.0; not so with this variable.
    environment = {"PATH": os.defpath, "SYSTEM_VERSION_COMPAT": "0"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
