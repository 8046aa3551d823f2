import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_first_example_of_the_readme_runs():
    first, *_ = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", first], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("qwen3.5-27b - No Qwen3.5 of 32B was ever published")
    assert lines[1] == f"{4_610_000_000 + 32768 * 147456} bytes at 32k of context"
    assert lines[2] == "reuses prefixes: True"
    assert "granite-4.0-h-micro" in lines[3]


def test_the_readme_names_the_commands_that_there_are(program: tuple[str, ...]):
    text = README.read_text(encoding="utf-8")
    shown = set(re.findall(r"^mlx-catalog (\w+)", text, re.MULTILINE))
    usage = subprocess.run([*program, "--help"], capture_output=True, text=True, check=True).stdout
    (offered,) = re.findall(r"\{([a-z,]+)\}", usage.splitlines()[0])
    assert shown == set(offered.split(","))
