"""Take the handling of each exit code of launchctl away, and see whether a test notices.

    uv run python benchmarks/launchd_exit_codes.py

For every row of `mlx_launchd.exit_codes` the row is removed, so that the code counts as unknown,
and the tests of Jobs are run; the test that compares the table itself is left out. A row that
no test misses is printed and makes the exit code 1.
"""

import subprocess
import sys
from pathlib import Path

from mlx_launchd import exit_codes

TESTS = Path(__file__).parents[1] / "packages" / "mlx-launchd" / "tests" / "test_jobs.py"
SCRIPT = """
import sys, pytest
from mlx_launchd import exit_codes
del exit_codes.STATUSES[exit_codes.Verb(sys.argv[1])][int(sys.argv[2])]
# In this process: a worker of xdist would import the table whole.
sys.exit(pytest.main([sys.argv[3], "-n", "0", "-q", "-x", "--no-header", "-p", "no:cacheprovider",
                      "-k", "not means_what_was_recorded"]))
"""


def main() -> int:
    """Remove one row after another; give 1 if a removal went unnoticed."""
    rows = [(verb, code) for verb, codes in exit_codes.STATUSES.items() for code in codes]
    unnoticed = 0
    for verb, code in rows:
        done = subprocess.run(
            (sys.executable, "-c", SCRIPT, verb, str(code), str(TESTS)),
            capture_output=True,
            text=True,
            check=False,
        )
        failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
        noticed = failed[0].partition("::")[2].partition(" - ")[0] if failed else "nothing"
        unnoticed += not failed
        print(f"{verb:<14} {code:>4}  noticed by {noticed}", flush=True)
    print(f"{len(rows)} rows, {unnoticed} unnoticed")
    return int(unnoticed > 0)


if __name__ == "__main__":
    sys.exit(main())
