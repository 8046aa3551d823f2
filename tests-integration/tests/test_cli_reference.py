"""The pages and the man page that are made from the code are what the code says."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent


def test_the_generated_reference_is_current() -> None:
    script = REPOSITORY / "docs" / "generate_reference.py"

    done = subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
