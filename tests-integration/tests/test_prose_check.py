"""The prose check finds odd wording where people read it, and ignores code and good English."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def page() -> Path:
    path = REPOSITORY / "docs" / "_build" / "prose-check"
    path.mkdir(parents=True, exist_ok=True)
    return path


def remarks(path: Path, text: str) -> list[str]:
    path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, REPOSITORY / ".github" / "check_prose.py", path],
        capture_output=True,
        text=True,
        check=False,
    )
    path.unlink()
    assert done.returncode == (1 if done.stdout else 0), done.stderr
    return done.stdout.splitlines()


def test_odd_wording_is_found_with_its_line(page: Path) -> None:
    found = remarks(page / "page.md", "# Title\n\nSomebody else.\n\nIt is fetched anew.\n")

    assert [line.split(":")[1] for line in found] == ["3", "5"]


def test_code_and_good_english_are_left_alone(page: Path) -> None:
    text = "There is no stack. `anew` is left alone.\n\n```sh\necho anew  # alone\n```\n"

    assert remarks(page / "page.md", text) == []


def test_messages_of_a_program_are_read_and_its_comments_are_not(page: Path) -> None:
    program = '# anew\nraise ValueError(f"The file {name} is fetched anew.")\n'

    assert [line.split(":")[1] for line in remarks(page / "program.py", program)] == ["2"]
