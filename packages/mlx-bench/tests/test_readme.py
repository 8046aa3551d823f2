"""What the README shows runs."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_program_in_the_readme_runs(server_url: str, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    code = code.replace("http://127.0.0.1:8000/v1", server_url)
    code = code.replace("qwen3-8b", "ttft_ms=5,tps=500")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Decode" in done.stdout
    assert (tmp_path / "report.json").exists()
