"""Chromium in front of the page of a real stack with fake engines."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlx_stack.home import Home
from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.hub import HubServer, Settings, write_repository
from stack_testkit.program import Program

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

REPO = "example/Tiny-4bit"
ROLES = {
    "finder": "embedding",
    "ranker": "rerank",
    "ears": "speech-to-text",
    "voice": "text-to-speech",
}
CONFIG = {"model_type": "llama", "quantization": {"bits": 4, "group_size": 64}}


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """A Hub with one model, as slow as a household's line."""
    root = tmp_path_factory.mktemp("hub")
    header = json.dumps(
        {"w": {"dtype": "U8", "shape": [3_000_000], "data_offsets": [0, 3_000_000]}}
    )
    weights = len(header).to_bytes(8, "little") + header.encode() + bytes(3_000_000)
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights}
    write_repository(root, REPO, files)
    with HubServer(root, Settings(rate_bytes_s=250_000)) as server:
        yield server


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory, hub: HubServer) -> Iterator[Program]:
    """A stack that runs: `standard` writes slowly, `fast` at once, `slow` reads for seconds.

    The others see, embed, rank, hear and speak.
    """
    home = Home(tmp_path_factory.mktemp("stack") / "home")
    variables = {
        "NO_COLOR": "1",
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home.root / "hf"),
        "NO_PROXY": "*",
    }
    program = Program(home, variables)
    install_fake_engines(home)
    flags = {"standard": {"token-delay": 0.05}, "fast": {}, "slow": {"read-for": 6.0}}
    stack = define_stack(
        home,
        {**flags, "seeing": {}, **{name: {} for name in ROLES}},
        config={"auto-health-check": False},
        fields={name: {"role": role} for name, role in ROLES.items()},
    )
    seeing = {**CONFIG, "model_type": "qwen2_vl", "vision_config": {"depth": 1}}
    (Path(stack.tier("seeing").source) / "config.json").write_text(json.dumps(seeing))
    assert program.run("up").code == 0
    yield program
    program.stop_all()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser's console says against the page; empty when a test is over."""
    return []


@pytest.fixture
def context(
    chromium: "Browser", complaints: list[str], request: pytest.FixtureRequest
) -> "Iterator[BrowserContext]":
    """A browser without a session; a test's `options` say how it looks."""
    options: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}}
    if "options" in request.fixturenames:
        options |= request.getfixturevalue("options")
    context = chromium.new_context(**options)
    context.set_default_timeout(15_000)
    yield context
    context.close()
    assert complaints == []


@pytest.fixture
def new_page(context: "BrowserContext", complaints: list[str]) -> "Callable[[], Page]":
    """Another tab of the same browser."""

    def new() -> "Page":
        page = context.new_page()

        def note(message: Any) -> None:
            # a status of an answer is the page's to tell, and told
            if message.type == "error" and not message.text.startswith("Failed to load resource"):
                complaints.append(message.text)

        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    return new


@pytest.fixture
def page(new_page: "Callable[[], Page]", program: Program) -> "Page":
    """The page, opened by the link of `dashboard`."""
    page = new_page()
    page.goto(program.run("dashboard", "--print-url").out.strip())
    page.get_by_role("link", name="Doctor").wait_for()
    return page


@pytest.fixture
def ask(program: Program) -> Callable[..., int]:
    """Asks a model as another client does; the status."""
    root = program.run("env", "--json").document["env"]["OPENAI_BASE_URL"]
    key = json.loads(program.home.credentials.read_text())["gateway_key"]

    def ask(words: str, model: str = "fast", said: list[dict[str, str]] | None = None) -> int:
        messages = said or [{"role": "user", "content": words}]
        body = {"model": model, "stream": True, "messages": messages}
        request = urllib.request.Request(
            f"{root}/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {key}", "User-Agent": "other-program/1.0"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
            return answer.status

    return ask


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core, as text."""
    import axe_playwright_python

    (path,) = Path(axe_playwright_python.__path__[0]).glob("axe.min.js")
    return path.read_text(encoding="utf-8")
