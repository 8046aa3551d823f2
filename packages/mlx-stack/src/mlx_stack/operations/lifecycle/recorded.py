"""Which services have left their traces in the state folder, whatever the stack file says."""

from mlx_procsup import StateFileError, read_run
from mlx_stack.paths import Home
from mlx_stack.services import state_dirs


def recorded_services(home: Home) -> tuple[str, ...]:
    """The services that have a PID file, or were started and not stopped, by name."""
    dirs = state_dirs(home)
    names = {path.stem for path in home.pids.glob("*.pid")}
    for path in home.run.glob("*.json"):
        try:
            record = read_run(dirs, path.stem)
        except (StateFileError, ValueError):  # a damaged file, or no file of ours
            continue
        if record is not None and record.identity is not None:
            names.add(path.stem)
    return tuple(sorted(names))
