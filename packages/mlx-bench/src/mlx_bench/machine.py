"""The machine on which the benchmark ran, as far as the standard library and sysctl tell."""

import os
import platform
import subprocess


def describe_machine() -> dict[str, object]:
    """System, chip, cores and memory of this machine; what can't be known is None.

    No host, user or serial name is in it, so that a report can be published.
    """
    return {
        "system": platform.system(),
        "release": platform.mac_ver()[0] or platform.release(),
        "architecture": platform.machine(),
        "chip": _chip(),
        "cpu_count": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
    }


def _chip() -> str | None:
    if platform.system() != "Darwin":
        return None
    command = ("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
