"""Which start of the machine this is."""

import subprocess
import sys
from pathlib import Path


def boot_session() -> str:
    """A name for the time since the machine started: the same until the next start.

    Linux keeps it in `/proc`, macOS in the sysctl `kern.bootsessionuuid`.
    """
    if sys.platform == "darwin":
        command = ("/usr/sbin/sysctl", "-n", "kern.bootsessionuuid")
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
