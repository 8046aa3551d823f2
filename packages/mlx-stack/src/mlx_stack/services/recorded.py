"""Which services have left their traces in the state folder, whatever the stack file says."""

from mlx_procsup import StateDirs, StateFileError, read_run
from mlx_stack.home import Home


def recorded_services(home: Home) -> tuple[str, ...]:
    """The services that have a PID file, or were started and not stopped, by name."""
    dirs = home.state_dirs
    return tuple(
        name for name in dirs.names() if dirs.pid_file(name).exists() or _was_started(dirs, name)
    )


def _was_started(dirs: StateDirs, name: str) -> bool:
    try:
        record = read_run(dirs, name)
    except StateFileError:
        return False
    return record is not None and record.identity is not None
