"""What the README shows runs."""

import re
import subprocess
import sys
from pathlib import Path

from mlx_hwprobe import parse_hardware_spec, render_profile

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_program_in_the_readme_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "M4 Max 546" in done.stdout
    assert "table" in done.stdout


def test_the_profile_in_the_readme_has_the_lines_that_the_program_prints() -> None:
    (shown,) = re.findall(r"```console\n\$ mlx-hwprobe\n(.*?)```", README, re.DOTALL)
    printed = render_profile(parse_hardware_spec("m4-max:40:128"))
    assert shown.splitlines()[0] == printed.splitlines()[0]
    labels = [line[2:18].strip() for line in printed.splitlines() if line.startswith("  ")]
    assert all(label in shown for label in labels)
