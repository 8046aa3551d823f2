"""How long things take and how often they are tried where the caller says nothing.

It imports nothing, so that a command line can show these figures in its help.
"""

READY_TIMEOUT_S = 120.0
"""What a service may take until it answers; longer while its load visibly progresses."""

STOP_GRACE_S = 10.0
"""What a process may take to obey SIGTERM."""

LOOK_INTERVAL_S = 30.0
"""The time between two looks of a watchdog."""

MAX_RESTARTS = 5
"""More restarts than this within the window mean flapping."""

RESTART_DELAY_S = 5.0
"""The pause before the first restart; it doubles with each one that follows."""
