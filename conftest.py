"""What holds for every package's tests."""

import gc
import os
import sys

from hypothesis import HealthCheck, settings

# tests start the programs hundreds of times: compile them once, also where that is turned off
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


# no test cuts the power: what is written need not reach the disk; a wrong descriptor is still told
os.fsync = os.fstat

# what is collected and imported stays until the end: looking through it for garbage again and again
# took a third of the time of the collection
gc.set_threshold(100_000, 20, 20)


def pytest_collection_finish() -> None:
    """Leaves everything that is there now out of later collections."""
    gc.freeze()


def pytest_xdist_auto_num_workers() -> int:
    """One more worker than cores, since tests wait for processes as well as compute."""
    return 1 + (os.process_cpu_count() or 1)


# whether a property holds does not depend on how busy the machine is
settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")
