"""The watchdog opens as many files as servers need, although launchd starts it with few."""

import subprocess
import sys

SCRIPT = """
import resource
from mlx_stack.services.watch import raise_file_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard}))
raise_file_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def raised(hard: int) -> int:
    command = (sys.executable, "-c", SCRIPT.format(hard=hard))
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def test_a_small_limit_is_raised_as_far_as_the_hard_one_allows() -> None:
    assert raised(1024) == 1024
    assert raised(10_000) == 8192
