"""What mlx-launchd's README shows really runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stack_testkit.fake_mac import FakeMac

pytestmark = pytest.mark.story

README = Path(__file__).parents[2] / "packages" / "mlx-launchd" / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_each_example_runs_on_a_mac(block: str, tmp_path: Path) -> None:
    mac = FakeMac.make(tmp_path / "mac")
    environment = mac.environment(HOME=str(tmp_path))
    try:
        done = subprocess.run(
            (sys.executable, "-c", block),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        mac.turn_off()
    assert done.returncode == 0, done.stderr
    if "installer" in block:
        assert done.stdout.startswith("gui/501 - alice is logged in at the console\ninstalled run")
        assert not list((tmp_path / "Library" / "LaunchAgents").iterdir())
