"""The page in Chromium, in front of the real vllm-mlx."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlx_stack.config import save_values
from mlx_stack.engines.environment import Environment
from mlx_stack.home import Home
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import Stack, Tier, save_stack
from stack_testkit.home import allow_code
from stack_testkit.program import Program

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.engine, pytest.mark.browser, pytest.mark.timeout(600)]

STARTED_WITHIN_MS = 120_000


@pytest.fixture(scope="module")
def program(
    engines_home: Path,
    vllm_mlx_environment: Environment,
    scripted_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Program]:
    """A stack of one tier that says what it is told to, up."""
    assert vllm_mlx_environment.state == "ready"
    home = Home(tmp_path_factory.mktemp("page") / "home")
    home.create()
    home.engines.symlink_to(engines_home / "engines")
    port, gateway_port = free_ports(2)
    allow_code(scripted_model)
    tier = Tier(
        name="standard", model="scripted", quant="int4", source=str(scripted_model), port=port,
        vllm_flags={}, context_tokens=2048,
    )  # fmt: skip
    save_stack(home.stack, Stack(schema_version=1, tiers=(tier,)))
    save_values(home, {"litellm-port": gateway_port})
    program = Program(home, {})
    started = program.run("up", "--timeout", "300", "--json", timeout_s=400)
    assert started.code == 0, started.out + started.err
    yield program
    program.run("down", timeout_s=60)


@pytest.fixture
def page(program: Program, chromium: "Browser") -> "Iterator[Page]":
    context = chromium.new_context()
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.goto(program.run("dashboard", "--print-url").out.strip())
    page.get_by_role("link", name="Doctor").wait_for()
    yield page
    context.close()


def ask(page: "Page", words: str) -> None:
    page.get_by_label("Message").fill(words)
    page.get_by_label("Message").press("Enter")


def test_an_engines_answer_streams_into_the_chat_and_the_ledger(page: "Page") -> None:
    services = page.get_by_role("region", name="Services", exact=True)
    services.locator("tr", has_text="standard").get_by_text("healthy").wait_for()

    page.get_by_role("link", name="Try", exact=True).click()
    page.get_by_label("Images").wait_for(state="hidden")
    ask(page, "Repeat: one two three four five six")
    conversation = page.get_by_role("log", name="Conversation")
    conversation.get_by_text("one two three four five six", exact=True).wait_for()
    page.get_by_text("tokens/s").wait_for()

    page.get_by_role("link", name="Requests").click()
    page.locator("tr", has_text="mlx-stack-page").first.get_by_role("link").click()
    page.get_by_text("the first turn of a conversation of mlx-stack-page").wait_for()
    assert "wrote" in page.locator(".legend").inner_text()

    page.get_by_role("link", name="Try", exact=True).click()
    ask(page, "Repeat: seven eight")
    conversation.get_by_text("seven eight", exact=True).wait_for()
    page.get_by_text("tokens/s").wait_for()
    page.get_by_role("link", name="Now").click()
    recent = page.get_by_role("region", name="Last requests", exact=True)
    recent.get_by_role("link").nth(2).wait_for()  # after the one of `up` and the first question
    recent.get_by_role("link").first.click()
    page.get_by_text("nothing before the end of mlx-stack-page's prompt changed").wait_for()

    page.get_by_role("link", name="Usage").click()
    page.get_by_role("region", name="Usage", exact=True).get_by_text("scripted").first.wait_for()


def test_an_engine_that_would_talk_for_ever_is_stopped(page: "Page") -> None:
    page.get_by_role("link", name="Try", exact=True).click()
    ask(page, "Talk forever.")
    page.get_by_text("word word word").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("stopped, first token").wait_for()
    page.get_by_role("link", name="Now").click()
    page.get_by_text("No request is running.").wait_for()


def test_an_engine_is_stopped_and_started_from_the_page(page: "Page") -> None:
    row = page.get_by_role("region", name="Services", exact=True).locator("tr", has_text="standard")
    row.get_by_role("button", name="Stop").click()
    row.get_by_text("stopped").wait_for(timeout=60_000)
    row.get_by_role("button", name="Start").click()
    row.get_by_text("healthy").wait_for(timeout=STARTED_WITHIN_MS)
