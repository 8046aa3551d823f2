"""A state folder and the installed program for every test, and nothing left running after it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlx_stack.home import Home
from stack_testkit.home import install_fake_engines
from stack_testkit.program import Program

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
STORY_S = 300
"""A story is a dozen commands and real services: seconds, or minutes on a busy machine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives stories that don't say how long they may take more time than other tests."""
    for item in items:
        if item.get_closest_marker("story") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(STORY_S))


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """`mlx-stack` with an empty home; whatever it started is stopped when the test is over."""
    program = Program(Home(tmp_path / "home"), {"NO_COLOR": "1", "COLUMNS": "100"})
    yield program
    program.stop_all()


@pytest.fixture
def served(program: Program) -> Program:
    """`mlx-stack` with the fake engine and the fake LiteLLM installed."""
    install_fake_engines(program.home)
    return program


@pytest.fixture(scope="session")
def chromium() -> "Iterator[Browser]":
    """One Chromium for all tests of the page; each opens contexts of its own."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="`just browser` installs it")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS])
        yield browser
        browser.close()
