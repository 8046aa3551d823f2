"""The README's example does what it says."""

import re
import subprocess
import sys
from pathlib import Path

from mlx_procsup.testing import free_port

README = Path(__file__).parents[1] / "README.md"


def test_three_web_servers_run_as_the_readme_shows(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    ports = [free_port() for _ in range(3)]
    program = blocks[0].replace("(8101, 8102, 8103)", str(tuple(ports)))
    watch = blocks[1].replace("threading.Event().wait", "lambda seconds: True")
    # the watchdog looks once, before the servers are stopped
    before, stop = program.split("for spec in specs:\n    print(spec.name, stop_service")
    program = f"{before}{watch}for spec in specs:\n    print(spec.name, stop_service{stop}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    assert [line.strip() for line in lines[:3]] == [f"web{port} started" for port in ports]
    assert all(" healthy " in line for line in lines[3:6])
    assert lines[6:] == [f"web{port} stopped" for port in ports]
