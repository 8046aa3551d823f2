"""Default durations and limits, used if the caller gives none.

This module imports nothing, so that a command line can show these figures in its help.
"""

READY_TIMEOUT_S = 120.0
"""The time within which a service must answer; extended while its load visibly progresses."""

STOP_GRACE_S = 10.0
"""The time that a process has to obey SIGTERM."""

LOOK_INTERVAL_S = 30.0
"""The time between two looks of a watchdog."""

MAX_RESTARTS = 5
"""More restarts than this within the window mean flapping."""

RESTART_DELAY_S = 5.0
"""The pause before the first restart; it doubles with each one that follows."""
