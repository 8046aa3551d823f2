"""Process supervision without a daemon: PID files, readiness, restarts, logs and locks."""

__version__ = "0.1.0"
