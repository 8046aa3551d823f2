"""Take the documentation's pictures of the page: a stack of fake engines on this machine.

uv run --group browser python docs/make_screenshots.py

CHROMIUM says where the browser is (/usr/bin/chromium). What is expected is for a made-up Mac;
the memory in use and the requests are those of this run.
"""

import json
import os
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from playwright.sync_api import sync_playwright

from mlx_stack.home import Home
from mlx_stack.stack import save_stack
from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.program import Program

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGES = Path(__file__).parent / "images"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
MODELS = {"standard": "qwen3-14b", "fast": "qwen3-4b"}
CLIENTS = (
    ("laptop", "claude-cli", "standard"),
    ("laptop", "opencode", "fast"),
    ("home-assistant", "python-httpx", "fast"),
    ("laptop", "claude-cli", "standard"),
)


def main() -> int:
    """Take every picture."""
    with tempfile.TemporaryDirectory() as folder:
        program = Program(Home(Path(folder) / "home"), {"NO_COLOR": "1"})
        try:
            start(program)
            take(program)
        finally:
            program.run("down")
    return 0


def start(program: Program) -> None:
    """A stack of two tiers that runs."""
    home = program.home
    install_fake_engines(home)
    defined = define_stack(
        home,
        {"standard": {"token-delay": 0.03}, "fast": {"token-delay": 0.012}},
        config={"auto-health-check": False},
    )
    tiers = tuple(msgspec.structs.replace(each, model=MODELS[each.name]) for each in defined.tiers)
    save_stack(home.stack, msgspec.structs.replace(defined, tiers=tiers))
    program.run("profile", f"--from={IMAGES / 'mac-mini.json'}")
    assert program.run("up").code == 0


def ask(program: Program) -> list[threading.Thread]:
    """Requests of several clients at once, some of which have ended by now."""
    root = program.run("env", "--json").document["env"]["OPENAI_BASE_URL"]
    names = {client for client, _, _ in CLIENTS}
    keys = {name: program.run("keys", "add", name, "--json").document["key"] for name in names}

    def one(client: str, agent: str, tier: str, words: int) -> None:
        message = {"role": "user", "content": " ".join(["word"] * words)}
        request = urllib.request.Request(  # noqa: S310 - an address of this machine
            f"{root}/chat/completions",
            data=json.dumps({"model": tier, "stream": True, "messages": [message]}).encode(),
            headers={"Authorization": f"Bearer {keys[client]}", "User-Agent": agent},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
            answer.read()

    for number in range(12):
        one(*CLIENTS[number % len(CLIENTS)], 20 + 7 * number)
    threads = [threading.Thread(target=one, args=(*each, 500)) for each in CLIENTS]
    for thread in threads:
        thread.start()
    return threads


def take(program: Program) -> None:
    """Each picture, in the window that it is for."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        wide = browser.new_context(viewport={"width": 1200, "height": 820})
        page = wide.new_page()
        url = program.run("dashboard", "--print-url").out.strip()
        root = url.partition("#")[0]
        page.goto(url)
        running = ask(program)
        page.get_by_text("writes", exact=True).first.wait_for()
        page.wait_for_timeout(5_000)
        save(page, "page-now")

        phone = browser.new_context(
            viewport={"width": 360, "height": 740},
            color_scheme="dark",
            storage_state=wide.storage_state(),
        ).new_page()
        phone.goto(f"{root}#now")
        phone.get_by_text("writes", exact=True).first.wait_for()
        save(phone, "page-phone")

        page.goto(f"{root}#models")
        page.get_by_text("qwen3-14b").first.wait_for()
        page.wait_for_timeout(1_000)
        save(page, "page-models")
        for thread in running:
            thread.join()
        browser.close()


def save(page: "Page", name: str) -> None:
    """Keep what is in the window."""
    page.screenshot(path=IMAGES / f"{name}.png")


if __name__ == "__main__":
    sys.exit(main())
