"""The numbers that `mlx-stack` exits with, and nothing else."""

DONE = 0
"""Done."""
FAILED = 1
"""Failed, and a message says why (`up`: a service is not ready)."""
USAGE = 2
"""Wrong usage, or an invalid configuration, catalog or stack file."""
UNHEALTHY = 3
"""`status`: a defined engine or the gateway is not healthy."""
NO_STACK = 4
"""`status`: no stack is defined."""
MISSING = 5
"""A needed program or platform is missing."""
LOCKED = 75
"""Another command holds the lock (`EX_TEMPFAIL`: try again later)."""
INTERRUPTED = 130
"""Interrupted by Ctrl-C (SIGINT)."""
TERMINATED = 143
"""Ended by SIGTERM, after cleaning up."""
