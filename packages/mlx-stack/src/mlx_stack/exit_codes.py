"""The numbers that `mlx-stack` exits with, and nothing else."""

from typing import Final

DONE: Final = 0
"""Done."""
FAILED: Final = 1
"""Failed, and a message says why (`up`: a service is not ready)."""
USAGE: Final = 2
"""Wrong usage, or an invalid configuration, catalog or stack file."""
UNHEALTHY: Final = 3
"""`status`: a defined engine or the gateway is not healthy."""
NO_STACK: Final = 4
"""`status`: no stack is defined."""
MISSING: Final = 5
"""A needed program or platform is missing."""
LOCKED: Final = 75
"""Another command holds the lock (`EX_TEMPFAIL`: try again later)."""
INTERRUPTED: Final = 130
"""Interrupted by Ctrl-C (SIGINT)."""
TERMINATED: Final = 143
"""Ended by SIGTERM, after cleaning up."""
