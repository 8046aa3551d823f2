"""Trying models that don't chat, in Chromium: two texts, a list, a sound in, a sound out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlx_stack.stack import load_stack
from stack_testkit.program import Program
from stack_testkit.speech_models import seconds_of, tone

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

KINDS = {"Chat": "", "Compare texts": "finder", "Order texts": "ranker", "Transcribe": "ears",
         "Speak": "voice"}  # fmt: skip
TIERS = tuple(KINDS.values())[1:]
ATTACK = "<img src=x onerror=window.hit=1>"


def show(page: "Page", tier: str) -> None:
    page.goto(f"{page.url.partition('#')[0]}#try/{tier}")
    page.locator(f'.kinds a[aria-current][href^="#try/{tier}"]').wait_for()


def result(page: "Page") -> Any:
    return page.locator(".result")


def wav(seconds: float) -> Any:
    return {"name": "meeting.wav", "mimeType": "audio/wav", "buffer": tone(seconds)}


def compare(page: "Page", first: str, second: str) -> None:
    page.get_by_label("First text").fill(first)
    page.get_by_label("Second text").fill(second)
    page.get_by_role("button", name="Compare").click()


def order(page: "Page", query: str, *texts: str) -> list[str]:
    page.get_by_label("Query", exact=True).fill(query)
    page.get_by_label("Texts, one a line").fill("\n".join(texts))
    page.get_by_label("Query", exact=True).press("Enter")
    rows = result(page).locator("tbody tr")
    rows.first.wait_for()
    return rows.all_inner_texts()


def transcribe(page: "Page", seconds: float) -> None:
    page.get_by_label("Audio file").set_input_files(wav(seconds))
    page.get_by_role("button", name="Transcribe").click()


def speak(page: "Page", text: str) -> Any:
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Speak").click()
    player = page.get_by_label("What the model says")
    player.wait_for()
    return player


def test_each_kind_of_model_is_a_click_away(page: "Page") -> None:
    page.get_by_role("link", name="Try finder").click()
    page.get_by_role("region", name="Compare two texts").wait_for()
    kinds = page.get_by_role("navigation", name="What to try")
    assert kinds.get_by_role("link").all_inner_texts() == list(KINDS)
    for name, tier in KINDS.items():
        kinds.get_by_role("link", name=name).click()
        kinds.locator('[aria-current="page"]', has_text=name).wait_for()
        if tier:
            assert page.get_by_label("Model").input_value() == tier


def test_two_texts_are_compared(page: "Page") -> None:
    show(page, "finder")
    compare(page, "the cat sat", "The cat sat")
    result(page).get_by_text("1.000").wait_for()
    assert page.get_by_role("meter", name="Similarity").evaluate("each => each.value") == 1
    assert "Tokens\n6" in result(page).inner_text()

    compare(page, "the cat sat", "bananas")
    result(page).get_by_text("0.000").wait_for()


def test_texts_are_put_in_order_and_stay_text(page: "Page") -> None:
    show(page, "ranker")
    texts = ("bananas", "", "Paris, capital of France", f"{ATTACK} of")
    assert order(page, "capital of France", *texts) == [
        "1\t1.0000\tParis, capital of France",
        f"2\t0.3333\t{ATTACK} of",
        "3\t0.0000\tbananas",
    ]
    assert page.evaluate("window.hit") is None


def test_a_file_is_transcribed(page: "Page") -> None:
    show(page, "ears")
    page.get_by_label("Language").fill("DE")
    transcribe(page, 2.0)
    assert page.get_by_label("The chosen file").is_visible()
    result(page).get_by_text("The sound plays for 2.0 s.").wait_for()
    assert "Language\nde" in result(page).inner_text()
    assert "real time" in result(page).inner_text()
    assert result(page).locator("tbody tr").all_inner_texts() == [
        "0:00.0\t0:01.0\tThe sound plays",
        "0:01.0\t0:02.0\tfor 2.0 s.",
    ]


def test_a_text_is_spoken_and_saved_as_a_whole_file(page: "Page", tmp_path: Path) -> None:
    show(page, "voice")
    player = speak(page, "one two three four five")
    page.wait_for_function("document.querySelector('.result audio').duration > 0")
    assert player.evaluate("each => each.duration") == pytest.approx(0.5, abs=0.05)
    with page.expect_download() as saved:
        page.get_by_role("link", name="Save").click()
    saved.value.save_as(tmp_path / "speech.wav")
    assert seconds_of((tmp_path / "speech.wav").read_bytes()) == pytest.approx(0.5)


def test_a_refusal_is_said_in_its_words(page: "Page") -> None:
    show(page, "ears")
    page.route("**/ui/api/v1/audio/transcriptions", lambda route: route.fulfill(
        status=400, content_type="application/json",
        body='{"error": {"message": "The <b>file</b> is damaged."}}'))  # fmt: skip
    transcribe(page, 0.1)
    result(page).get_by_role("alert").get_by_text("The <b>file</b> is damaged.").wait_for()


def test_an_answer_that_takes_long_is_stopped(page: "Page") -> None:
    show(page, "finder")
    page.route("**/ui/api/v1/embeddings", lambda _route: None)
    compare(page, "one", "two")
    page.get_by_role("button", name="Stop").click()
    page.locator(".trial").get_by_text("stopped").wait_for()
    page.get_by_role("button", name="Stop").wait_for(state="hidden")


def test_what_was_typed_is_there_after_another_view(page: "Page") -> None:
    show(page, "finder")
    page.get_by_label("First text").fill("kept")
    show(page, "ranker")
    show(page, "finder")
    assert page.get_by_label("First text").input_value() == "kept"


def test_only_what_models_are_for_can_be_asked(page: "Page", program: Program) -> None:
    asked = """(path) => fetch(`api/v1/${path}`, {method: 'POST', body: '{"model": "fast"}',
      headers: {'x-mlx-stack-page': '1', 'content-type': 'application/json'}})
      .then((answer) => answer.status)"""
    assert page.evaluate(asked, "embeddings") == 400
    assert page.evaluate(asked, "messages") != 200
    assert {tier.name for tier in load_stack(program.home.stack).tiers} >= {*TIERS}


@pytest.mark.parametrize("options", [{"viewport": {"width": 360, "height": 740}}])
def test_every_form_fits_a_phone(page: "Page", options: dict[str, Any]) -> None:
    for tier in TIERS:
        show(page, tier)
        page.get_by_role("region").get_by_label("Model").wait_for()
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width == options["viewport"]["width"], tier


@pytest.mark.parametrize(
    "options", [{"bypass_csp": True, "color_scheme": scheme} for scheme in ("light", "dark")]
)
def test_every_form_follows_axes_rules(
    page: "Page",
    axe: str,
    options: dict[str, Any],  # noqa: ARG001 - how the window of `page` is
) -> None:
    uses: dict[str, Callable[[], object]] = {
        "finder": lambda: compare(page, "one", "two"),
        "ranker": lambda: order(page, "one", "one two", "three"),
        "ears": lambda: transcribe(page, 1.0),
        "voice": lambda: speak(page, "one two"),
    }
    broken: dict[str, list[str]] = {}
    for tier, use in uses.items():
        show(page, tier)
        use()
        result(page).locator("dl").wait_for()
        page.evaluate(axe)
        for rule in page.evaluate("axe.run().then((found) => found.violations)"):
            nodes = [node["html"][:120] for node in rule["nodes"][:3]]
            broken.setdefault(f"{tier}: {rule['id']}", nodes)
    assert broken == {}


def test_a_form_is_used_with_the_keyboard(page: "Page") -> None:
    show(page, "ranker")
    page.get_by_label("Model").focus()
    page.keyboard.press("Tab")
    page.keyboard.type("river")
    page.keyboard.press("Tab")
    page.keyboard.type("a lamp\nthe river")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    result(page).get_by_text("the river").wait_for()
