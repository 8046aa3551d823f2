"""The page in Chromium: each view, each action, what goes wrong, and how it is used."""

import base64
import fcntl
import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from mlx_procsup.testing import eventually
from stack_testkit.program import Program

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

type NewPage = Callable[[], "Page"]
type Ask = Callable[..., int]

VIEWS = ("now", "requests", "models", "try", "logs", "usage", "keys", "doctor")
ATTACK = "<script>window.hit=1</script><img src=x onerror=window.hit=2><b>bold</b>"
REPO = "example/Tiny-4bit"
DOT = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
"""A picture of one dot."""


def root_of(page: "Page") -> str:
    return page.url.partition("#")[0]


def show(page: "Page", view: str) -> None:
    page.goto(f"{root_of(page)}#{view}")
    page.locator(f'nav a[href="#{view.partition("/")[0]}"][aria-current]').wait_for()


def region(page: "Page", name: str) -> Any:
    return page.get_by_role("region", name=name, exact=True)


def text_of(page: "Page", words: str) -> Any:
    return page.get_by_text(words, exact=False).first


def row(page: "Page", words: str) -> Any:
    return page.locator("tr", has_text=words).first


def action(page: "Page", words: str) -> Any:
    return page.locator("#actions .job", has_text=words).first


def test_a_link_signs_in_and_leaves_the_address(page: "Page", new_page: NewPage) -> None:
    assert "token" not in page.url
    row(page, "standard").get_by_text("healthy").wait_for()

    again = new_page()
    again.goto(page.url)
    row(again, "fast").get_by_text("healthy").wait_for()


def test_without_a_link_the_page_asks_for_a_key(program: Program, page: "Page") -> None:
    show(page, "now")
    page.get_by_role("button", name="Sign out").click()
    key = page.get_by_label("Key")
    key.fill("wrong")
    key.press("Enter")
    text_of(page, "The key is wrong.").wait_for()

    key.fill(program.run("env", "--json").document["env"]["OPENAI_API_KEY"])
    page.get_by_role("button", name="Sign in").click()
    row(page, "standard").get_by_text("healthy").wait_for()


def test_a_link_that_was_used_is_refused(new_page: NewPage, program: Program) -> None:
    url = program.run("dashboard", "--print-url").out.strip()
    first = new_page()
    first.goto(url)
    first.get_by_role("button", name="Sign out").click()

    second = new_page()
    second.goto(url)

    text_of(second, "The link was used").wait_for()


def test_requests_are_seen_as_they_run_and_afterwards(page: "Page", ask: Ask) -> None:
    client = threading.Thread(target=ask, args=(" ".join(["word"] * 80), "standard"))
    client.start()
    running = region(page, "Running requests")
    running.get_by_text("other-program").wait_for()
    running.get_by_text("writes").wait_for()
    client.join()
    running.get_by_text("No request is running.").wait_for()

    region(page, "Last requests").get_by_text("other-program").first.wait_for()
    region(page, "Last requests").get_by_role("link").first.click()
    page.locator(".legend", has_text="wrote 4").wait_for()
    assert page.get_by_role("img").get_attribute("aria-label").startswith("Timeline: waited")


def test_a_request_says_what_it_waits_for(page: "Page", ask: Ask) -> None:
    clients = [threading.Thread(target=ask, args=("word " * 60, "standard")) for _ in range(2)]
    for client in clients:
        client.start()
    region(page, "Running requests").get_by_text("turn: 1 at work, 1 waiting").wait_for()
    for client in clients:
        client.join()


def test_a_long_prompt_shows_how_far_it_has_been_read(page: "Page", ask: Ask) -> None:
    client = threading.Thread(target=ask, args=("word " * 30, "slow"))
    client.start()
    running = region(page, "Running requests")
    running.get_by_role("progressbar", name="Prompt read").wait_for()
    assert "predicted" not in running.inner_text(), "its engine says it"
    client.join()


def test_a_request_says_why_its_prefix_was_read_again(page: "Page", ask: Ask) -> None:
    said = [{"role": "user", "content": "one"}]
    for second in ("10", "34"):
        rules = f"Be careful.\nIt is {second} s past.\n{'Be brief. ' * 50}"
        assert ask("", "fast", [{"role": "system", "content": rules}, *said]) == 200
        said += [{"role": "assistant", "content": "Two."}, {"role": "user", "content": "x " * 50}]
    region(page, "Last requests").get_by_text("other-program").first.wait_for()
    show(page, "requests")
    row(page, "fast").get_by_role("link").click()
    text_of(page, "line 2 of other-program's system prompt changed").wait_for()
    text_of(page, "Read again").wait_for()

    show(page, "usage")
    region(page, "Usage").get_by_text("line 2 of other-program's system prompt").wait_for()


def test_images_are_offered_for_models_that_read_them_only(page: "Page") -> None:
    show(page, "try/fast")
    page.get_by_label("Model").select_option("fast")
    page.get_by_label("Images").wait_for(state="hidden")
    page.get_by_label("Model").select_option("seeing")
    page.get_by_label("Images").set_input_files(
        {"name": "dot.png", "mimeType": "image/png", "buffer": base64.b64decode(DOT)}
    )
    text_of(page, "1 attached").wait_for()
    page.get_by_label("Message").fill("What is it?")
    with page.expect_request("**/ui/api/v1/chat/completions") as asked:
        page.get_by_label("Message").press("Enter")
    parts = asked.value.post_data_json["messages"][-1]["content"]
    assert [each["type"] for each in parts] == ["text", "image_url"]
    assert parts[1]["image_url"]["url"] == f"data:image/png;base64,{DOT}"
    page.get_by_alt_text("attached image").wait_for()
    page.get_by_role("log").get_by_text("You said:").wait_for()

    page.get_by_role("button", name="One model or two").click()
    page.get_by_label("Images").wait_for(state="hidden")


def test_the_chat_offers_no_model_that_cannot_chat(page: "Page") -> None:
    row(page, "standard").get_by_text("healthy").wait_for()
    page.evaluate(
        """async () => {
          const {store} = await import('/ui/api.js');
          store.requests.lines.finder = {role: 'embedding'};
          location.hash = 'try';
        }"""
    )
    offered = page.get_by_label("Model").locator("option").all_inner_texts()
    assert "fast" in offered
    assert "finder" not in offered


def test_the_ledger_is_filtered(page: "Page", ask: Ask) -> None:
    assert ask("hello there", "fast") == 200
    show(page, "requests")
    row(page, "fast").wait_for()
    page.get_by_label("Result").select_option("failed")
    text_of(page, "No matching requests.").wait_for()
    page.get_by_label("Result").select_option("answered")
    page.get_by_label("Tier").select_option("fast")
    page.locator("tbody tr", has_text="standard").last.wait_for(state="detached")
    row(page, "fast").wait_for()
    page.get_by_label("Key", exact=True).fill("nobody")
    page.get_by_label("Key", exact=True).press("Enter")
    text_of(page, "No matching requests.").wait_for()
    show(page, "requests/999999")
    text_of(page, "The ledger has no such request.").wait_for()


def test_a_model_is_pulled_with_progress_served_and_removed(page: "Page") -> None:
    show(page, "models")
    page.get_by_label("Search the Hub").fill("Tiny")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("button", name=f"Pull {REPO}").click()
    action(page, f"Pulling {REPO}").locator("progress").wait_for()
    action(page, f"Pulling {REPO}").get_by_role("button", name="Cancel").click()
    action(page, "cancelled").wait_for()
    action(page, "cancelled").get_by_role("button", name="Dismiss").click()

    page.reload()  # the work goes on without the page
    page.get_by_role("button", name=f"Continue {REPO}").click()
    action(page, f"Pulling {REPO}").wait_for()
    page.reload()
    row(page, REPO).get_by_text("ok").wait_for(timeout=30_000)

    row(page, REPO).get_by_role("button", name="Serve").click()
    page.get_by_role("dialog").get_by_label("Tier name").fill("tiny")
    page.get_by_role("dialog").get_by_role("button", name="Add the tier").click()
    row(page, REPO).get_by_role("button", name="Remove tier tiny").wait_for(timeout=30_000)
    row(page, REPO).get_by_role("button", name=f"Remove {REPO}").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    action(page, "is used by").wait_for(timeout=30_000)

    row(page, REPO).get_by_role("button", name="Remove tier tiny").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove the tier").click()
    row(page, REPO).get_by_role("button", name="Remove tier tiny").wait_for(
        state="detached", timeout=30_000
    )
    row(page, REPO).get_by_role("button", name=f"Remove {REPO}").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    region(page, "On this disk").locator("tr", has_text=REPO).wait_for(
        state="detached", timeout=30_000
    )


def test_the_catalog_says_what_fits_and_is_searched(page: "Page") -> None:
    show(page, "models")
    row(page, "qwen3-8b").wait_for()
    page.get_by_label("Filter the catalog").fill("gemma3")
    row(page, "gemma3-4b").wait_for()
    assert page.locator("tbody tr", has_text="qwen3-8b").count() == 0


def test_an_answer_streams_and_is_stopped(page: "Page") -> None:
    show(page, "try/standard")
    message = page.get_by_label("Message")
    message.fill(" ".join(["again"] * 200))
    message.press("Enter")
    log = page.get_by_role("log")
    log.get_by_text("You said: again").wait_for()
    page.get_by_role("button", name="Stop").click()
    text_of(page, "stopped, first token").wait_for()
    assert log.inner_text().count("again") < 390

    message.fill("one two")
    message.press("Enter")
    log.get_by_text("You said: one two").wait_for()
    page.get_by_text("4 tokens", exact=False).wait_for()
    assert "tokens/s" in page.get_by_role("status").nth(1).inner_text()


def test_two_models_answer_side_by_side_and_what_they_say_is_text(page: "Page") -> None:
    show(page, "try/fast")
    page.get_by_role("button", name="One model or two").click()
    assert page.get_by_label("Model").count() == 2
    page.get_by_label("Message").fill(ATTACK)
    page.get_by_label("Message").press("Enter")
    page.get_by_text(f"You said: {ATTACK}").nth(1).wait_for()

    assert page.evaluate("window.hit") is None
    assert page.locator(".said b, .said img, .said script").count() == 0


def test_thinking_is_folded(page: "Page") -> None:
    deltas = ({"reasoning_content": "let me <b>think</b>"}, {"content": "the answer"})
    chunks = [f"data: {json.dumps({'choices': [{'delta': each}]})}\n\n" for each in deltas]
    page.route("**/ui/api/v1/chat/completions", lambda route: route.fulfill(
        content_type="text/event-stream", body="".join([*chunks, "data: [DONE]\n\n"])))  # fmt: skip
    show(page, "try/fast")
    page.get_by_label("Message").fill("hello")
    page.get_by_label("Message").press("Enter")
    text_of(page, "the answer").wait_for()
    thought = page.get_by_text("let me <b>think</b>")
    assert not thought.is_visible()
    page.get_by_text("Thinking").click()
    assert thought.is_visible()


def test_a_model_that_fails_says_why(page: "Page") -> None:
    page.route("**/ui/api/v1/chat/completions", lambda route: route.fulfill(
        status=503, content_type="application/json",
        body='{"error": {"message": "No model could answer <i>now</i>."}}'))  # fmt: skip
    show(page, "try/fast")
    page.get_by_label("Message").fill("hello")
    page.get_by_label("Message").press("Enter")
    text_of(page, "No model could answer <i>now</i>.").wait_for()


def test_a_log_follows_and_is_filtered_and_its_lines_are_text(
    page: "Page", program: Program
) -> None:
    show(page, "logs/fast")
    log = page.get_by_role("log")
    log.get_by_text("listening on").wait_for()
    with program.home.state_dirs.log_file("fast").open("a") as file:
        file.write(f"a new line {ATTACK}\n")
    log.get_by_text(f"a new line {ATTACK}").wait_for()
    assert page.evaluate("window.hit") is None
    page.get_by_label("Filter lines").fill("NEW LINE")
    assert log.locator("mark").first.inner_text() == "new line"
    assert "listening on" not in log.inner_text()


def test_usage_shows_who_used_what(page: "Page", ask: Ask) -> None:
    for _ in range(3):
        ask("hello", "fast")
    show(page, "usage")
    row(page, "fast-model").wait_for()
    page.get_by_label("By").select_option("key")
    row(page, "admin").wait_for()


def test_a_key_is_made_shown_once_and_revoked(page: "Page") -> None:
    show(page, "keys")
    page.get_by_label("Name").fill("laptop")
    page.get_by_role("button", name="Add a key").click()
    key = page.locator("code.wrap").inner_text()
    assert key.startswith("sk-")
    row(page, "laptop").wait_for()
    page.reload()
    row(page, "laptop").wait_for()
    assert key not in page.content()

    page.get_by_role("button", name="Revoke laptop").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    text_of(page, "No client has its own key.").wait_for()


def test_the_doctor_says_what_to_do(page: "Page") -> None:
    show(page, "doctor")
    text_of(page, "warnings.").wait_for(timeout=60_000)
    text_of(page, "mlx-stack engines upgrade").wait_for()
    text_of(page, "which only macOS has").wait_for(timeout=60_000)


def test_a_clients_key_looks_and_changes_nothing(new_page: NewPage, program: Program) -> None:
    made = program.run("keys", "add", "guest", "--json").document
    page = new_page()
    page.goto(program.run("dashboard", "--print-url").out.strip().partition("#")[0])
    page.get_by_label("Key").fill(made["key"])
    page.get_by_label("Key").press("Enter")
    row(page, "standard").get_by_text("healthy").wait_for()
    assert page.get_by_role("button", name="Stop everything").count() == 0
    show(page, "models")
    row(page, "qwen3-8b").wait_for()
    assert page.get_by_role("button", name="Pull", exact=False).count() == 0
    show(page, "keys")
    text_of(page, "This key can see everything but not change anything").wait_for()
    assert page.get_by_role("button", name="Add a key").count() == 0

    program.run("keys", "revoke", "guest")
    page.reload()
    page.get_by_label("Key").wait_for()


def test_a_tier_is_stopped_and_started(page: "Page") -> None:
    page.get_by_role("button", name="Stop fast").click()
    row(page, "fast").get_by_text("stopped").wait_for(timeout=30_000)
    action(page, "Stopping fast").get_by_text("done").wait_for(timeout=30_000)
    page.get_by_role("button", name="Start fast").click()
    row(page, "fast").get_by_text("healthy").wait_for(timeout=30_000)
    page.get_by_role("button", name="Restart fast").click()
    action(page, "Restarting fast").get_by_text("done").wait_for(timeout=30_000)


def test_an_action_fails_with_the_commands_own_words(page: "Page", program: Program) -> None:
    with program.home.lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        page.get_by_role("button", name="Restart fast").click()
        action(page, "Another command is changing the services").wait_for(timeout=30_000)


def test_everything_restarts_and_the_page_comes_back_by_itself(page: "Page") -> None:
    page.get_by_role("button", name="Restart everything").click()
    text_of(page, "offline: waiting for the gateway").wait_for(timeout=30_000)
    action(page, "Restarting everything").get_by_text("done").wait_for(timeout=60_000)
    row(page, "gateway").get_by_text("healthy").wait_for()


def test_a_stopped_stack_is_said_and_comes_back(page: "Page", program: Program) -> None:
    page.get_by_role("button", name="Stop everything").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Stop everything").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop everything").click()
    text_of(page, "offline: waiting for the gateway").wait_for(timeout=30_000)
    # it ends its streams first, and answers until it has gone
    assert eventually(lambda: not (program.home.pids / "gateway.pid").exists(), 30)
    show(page, "requests")
    text_of(page, "The gateway does not answer.").wait_for()
    assert program.run("up").code == 0
    show(page, "now")
    row(page, "standard").get_by_text("healthy").wait_for(timeout=30_000)
    text_of(page, "admin").wait_for()


def test_a_page_that_was_cut_off_reconnects(page: "Page", context: Any) -> None:
    context.set_offline(True)
    page.evaluate("import('/ui/api.js').catch(() => 0)")
    show(page, "logs")
    text_of(page, "The gateway does not answer.").wait_for()
    context.set_offline(False)
    show(page, "now")
    row(page, "standard").get_by_text("healthy").wait_for(timeout=30_000)


def test_after_a_sleep_the_page_asks_for_everything_again(page: "Page") -> None:
    page.clock.install()
    page.reload()
    row(page, "standard").get_by_text("healthy").wait_for()
    with page.expect_request("**/ui/api/events"):
        page.clock.fast_forward(60_000)  # timers stand still meanwhile, and no error is reported
    row(page, "standard").get_by_text("healthy").wait_for()
    assert not page.get_by_text("offline").is_visible()


def test_the_page_is_used_with_the_keyboard(page: "Page") -> None:
    row(page, "standard").get_by_text("healthy").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    for _ in VIEWS:
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Doctor"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.get_by_label("Name").wait_for()
    page.get_by_label("Name").focus()
    page.keyboard.type("by-keyboard")
    page.keyboard.press("Enter")
    row(page, "by-keyboard").wait_for()
    page.get_by_role("button", name="Revoke by-keyboard").focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Revoke").focus()
    page.keyboard.press("Enter")
    row(page, "by-keyboard").wait_for(state="detached")


def test_the_focus_stays_where_it_is_when_something_changes(page: "Page", ask: Ask) -> None:
    button = page.get_by_role("button", name="Restart fast")
    button.focus()
    ask("hello there", "fast")
    region(page, "Last requests").get_by_text("other-program").first.wait_for()
    page.wait_for_timeout(1500)
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Restart fast"


@pytest.mark.parametrize("options", [{"viewport": {"width": 360, "height": 740}}])
def test_every_view_fits_a_phone(page: "Page", options: dict[str, Any]) -> None:
    width = options["viewport"]["width"]
    for view in (*VIEWS, "requests/1"):
        show(page, view)
        page.wait_for_timeout(700)
        assert page.evaluate("document.documentElement.scrollWidth") == width, view


@pytest.mark.parametrize("options", [{"color_scheme": "dark"}, {"color_scheme": "light"}])
def test_the_page_is_as_dark_as_the_system(page: "Page", options: dict[str, Any]) -> None:
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, colour.removeprefix("rgb(").rstrip(")").split(","))) / 3
    assert (brightness < 60) is (options["color_scheme"] == "dark")


@pytest.mark.parametrize(
    "options", [{"bypass_csp": True, "color_scheme": scheme} for scheme in ("light", "dark")]
)
def test_every_view_follows_axes_rules(
    page: "Page",
    axe: str,
    options: dict[str, Any],  # noqa: ARG001 - how the window of `page` is
) -> None:
    row(page, "standard").get_by_text("healthy").wait_for()
    broken: dict[str, list[str]] = {}
    for view in VIEWS:
        show(page, view)
        page.wait_for_timeout(1500)
        page.evaluate(axe)
        for rule in page.evaluate("axe.run().then((found) => found.violations)"):
            nodes = [node["html"][:120] for node in rule["nodes"][:3]]
            broken.setdefault(f"{view}: {rule['id']}", nodes)
    assert broken == {}


def test_a_page_that_is_switched_off_is_gone(page: "Page", program: Program) -> None:
    program.run("config", "set", "dashboard", "false")
    try:
        answer = page.goto(root_of(page))
        assert answer is not None
        assert answer.status == 404
    finally:
        program.run("config", "set", "dashboard", "true")
