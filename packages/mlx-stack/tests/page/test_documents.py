"""What the page reads and does: the commands' own documents, errors and operations."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import psutil
import pytest

from mlx_catalog import Quant
from mlx_gateway.ledger import LedgerEvent, write_event
from mlx_hwprobe import parse_hardware_spec
from mlx_procsup import identify
from mlx_stack import usage
from mlx_stack.errors import UsageError
from mlx_stack.home import Home
from mlx_stack.models.local import list_models
from mlx_stack.open_stack import OpenStack
from mlx_stack.page.actions import KINDS, Actions
from mlx_stack.stack import Stack, Tier, save_stack

type Browser = Any


@pytest.fixture
def admin(browser: Browser) -> Browser:
    return browser.sign_in()


def eventually[T](look: Callable[[], T], within_s: float = 30.0) -> T:
    """What `look` finds, once it finds something."""
    give_up_at = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    return found


def test_documents_are_those_of_the_commands(admin: Browser) -> None:
    opened = OpenStack(admin.home)

    assert admin.get("models").document == {
        "schema_version": 1,
        **list_models(opened).to_document(),
    }
    found = admin.get("usage?since=1d&by=key").document
    expected = usage.report_usage(opened, since="1d", by=usage.By.KEY).to_document()
    assert found.keys() == {"schema_version", *expected}
    catalog = admin.get("models/catalog").document["models"]
    assert {"id", "estimate", "capabilities"} <= catalog[0].keys()


def test_what_is_expected_of_each_tier_stands_next_to_what_is_measured(admin: Browser) -> None:
    assert admin.get("predictions").document == {"schema_version": 1, "tiers": {}}, "no stack"
    known = Tier(
        name="standard", model="qwen3-8b", quant=Quant.INT4,
        source="mlx-community/Qwen3-8B-4bit", port=8000, vllm_flags={},
    )  # fmt: skip
    unknown = msgspec.structs.replace(known, name="fast", model="no-such-model", port=8001)
    save_stack(admin.home.stack, Stack(schema_version=1, tiers=(known, unknown)))
    profile = parse_hardware_spec("m4-max:40:64").to_document()
    admin.home.profile.write_text(json.dumps(profile))

    tiers = admin.get("predictions").document["tiers"]

    assert tiers.keys() == {"standard"}, "nothing is made up of the other"
    assert tiers["standard"]["generation_tps"]["value"] > 0
    assert tiers["standard"]["prompt_tps"]["low"] <= tiers["standard"]["prompt_tps"]["value"]


def test_errors_are_those_of_the_commands(admin: Browser) -> None:
    nothing = admin.get("status")
    assert (nothing.status, nothing.document["error"]["type"]) == (404, "no-stack")

    wrong = admin.get("usage?since=yesterday")
    assert (wrong.status, wrong.document["error"]["type"]) == (400, "usage")

    if sys.platform != "darwin":
        elsewhere = admin.get("autostart")
        assert (elsewhere.status, elsewhere.document["error"]["type"]) == (503, "missing")

    assert admin.get("logs/nothing").status == 400
    assert admin.get("requests/99").status == 404
    assert admin.get("nothing").status == 404
    assert admin.ask("PUT", "/ui/api/status").status == 405
    assert admin.ask("POST", "/ui/api/keys", {"name": "x" * 70_000}).status == 413
    assert admin.ask("POST", "/ui/api/keys", {"name": 7}).status == 400
    long = {"name": "laptop", "max_in_flight": "9" * 5000}
    assert admin.ask("POST", "/ui/api/keys", long).status == 400


def test_a_key_is_made_shown_once_and_revoked(admin: Browser) -> None:
    made = admin.ask("POST", "/ui/api/keys", {"name": "laptop", "priority": "agent"})
    key = made.document["key"]
    assert made.document["priority"] == "agent"

    assert key not in json.dumps(admin.get("keys").document)
    again = admin.ask("POST", "/ui/api/keys", {"name": "laptop"})
    assert (again.status, again.document["error"]["type"]) == (400, "usage")
    assert "'laptop'" in again.document["error"]["message"]
    assert admin.ask("DELETE", "/ui/api/keys/laptop").document["revoked"] is True
    assert admin.get("keys").document["keys"] == []


def test_a_chat_goes_to_the_gateway_as_the_client_that_looks(admin: Browser) -> None:
    key = admin.ask("POST", "/ui/api/keys", {"name": "laptop"}).document["key"]
    admin.sign_in(key)
    question = {"model": "standard", "messages": [{"role": "user", "content": "hello"}]}

    said = admin.ask("POST", "/ui/api/v1/chat/completions", question)

    assert said.status == 503  # no engine runs here, and the gateway says so
    noted = eventually(lambda: admin.get("requests").document["requests"])
    assert [(row["key"], row["program"], row["status"]) for row in noted] == [
        ("laptop", "mlx-stack-page", 503)
    ]
    assert "hello" not in json.dumps(noted)
    one = admin.get(f"requests/{noted[0]['id']}").document
    assert one == {"schema_version": 1, **noted[0]}
    assert admin.get("requests?failed=no").document["requests"] == []
    assert admin.get("requests?key=laptop&tier=standard&failed=yes").document["requests"] == noted
    assert admin.get(f"requests?before={noted[0]['id']}").document["requests"] == []


def test_a_log_that_has_not_changed_is_not_sent_again(admin: Browser) -> None:
    admin.home.logs.mkdir()
    log = admin.home.logs / "gateway.log"
    log.write_text("one\n<script>alert(1)</script>\n\x1b[31mred\n")

    first = admin.get("logs/gateway")
    assert first.document["lines"] == ["one", "<script>alert(1)</script>", "red"]
    assert admin.get("logs/gateway", if_none_match=first.headers["etag"]).status == 304

    log.write_text("one\ntwo\n")
    assert admin.get("logs/gateway", if_none_match=first.headers["etag"]).status == 200


def events(answer: Any) -> Iterator[tuple[str, Any]]:
    """The events of a stream: each topic with its document."""
    topic = ""
    while line := answer.readline():
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "event":
            topic = value
        elif name == "data":
            yield topic, json.loads(value)


def test_the_stream_tells_everything_anew_to_whoever_comes_and_ends_with_the_gateway(
    admin: Browser,
) -> None:
    write_event(admin.home.ledger, LedgerEvent(time.time(), "restart", "standard"))
    for _ in range(2):  # also to a page that comes back
        with admin.open("GET", "/ui/api/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            found: dict[str, Any] = {}
            for topic, document in events(answer):
                found.setdefault(topic, document)
                if len(found) == 6:
                    break
    assert found["status"]["error"]["type"] == "no-stack"
    assert found["requests"]["lines"] == {
        "standard": {"running": 0, "waiting": 0, "sees_images": None, "role": None}
    }
    assert "restart" in [each["what"] for each in found["events"]["events"]]
    assert found["machine"]["memory_bytes"] > 0
    assert found["actions"] == {"actions": []}

    with admin.open("GET", "/ui/api/events") as answer:
        answer.readline()
        admin.gateway.end_soon()
        while answer.readline():
            pass


def test_an_action_is_the_command_itself_and_outlives_the_gateway(admin: Browser) -> None:
    started = admin.ask("POST", "/ui/api/actions", {"do": "remove", "model": "no/model"})
    assert started.status == 200
    number = started.document["id"]

    def ended() -> Any:
        (found,) = admin.get("actions").document["actions"]
        return found if found["state"] != "running" else None

    found = eventually(ended)
    assert (found["id"], found["state"]) == (number, "failed")
    assert found["error"]["message"].startswith("There is no model 'no/model' in ")
    # another gateway, which did not start it, finds it as well
    (again,) = Actions(admin.home).all()
    assert again.to_document() == found


def test_an_action_is_no_child_of_the_gateway_whose_stop_would_end_it(admin: Browser) -> None:
    started = admin.ask("POST", "/ui/api/actions", {"do": "fix"}).document
    record = json.loads((admin.home.page / "actions" / started["id"] / "action.json").read_text())

    process = psutil.Process(record["pid"])
    assert os.getpid() not in [each.pid for each in process.parents()]
    assert os.getsid(process.pid) != os.getsid(0)
    admin.ask("DELETE", f"/ui/api/actions/{started['id']}")
    assert eventually(lambda: admin.get("actions").document["actions"][0]["state"] != "running")


def test_what_looks_like_an_option_is_never_one() -> None:
    assert KINDS["pull"]({"model": "--force"})[-2:] == ("--", "--force")
    for kind in ("start", "stop", "restart"):
        assert KINDS[kind]({"tier": "--help"})[-1] == "--tier=--help"
    assert KINDS["remove"]({"model": "--force"})[-1] == "--remove=--force"
    assert KINDS["add-tier"]({"model": "-x", "tier": "-y"})[-2:] == ("--add=-x", "--as=-y")


@pytest.mark.parametrize(
    ("do", "given"),
    [
        ("nothing", {}),
        ("pull", {}),
        ("pull", {"model": "a", "quant": "int7"}),
        ("pull", {"model": "a\nb"}),
        ("pull", {"model": "a" * 1000}),
        ("remove-tier", {}),
    ],
)
def test_an_action_that_makes_no_sense_is_not_started(
    do: str, given: dict[str, str], admin: Browser
) -> None:
    with pytest.raises(UsageError):
        Actions(admin.home).start(do, given)
    assert admin.ask("POST", "/ui/api/actions", {"do": do, **given}).status == 400
    assert admin.get("actions").document["actions"] == []


def test_an_action_that_died_without_a_word_has_failed(tmp_path: Any) -> None:
    home = Home(tmp_path)
    actions = Actions(home)
    started = actions.start("pull", {"model": "no/such", "quant": "int4"})
    record = json.loads((home.page / "actions" / started.id / "action.json").read_text())
    os.kill(record["pid"], signal.SIGKILL)
    assert eventually(lambda: identify(record["pid"]) is None)

    (found,) = Actions(home).all()

    assert found.state == "failed"
    assert found.error is not None
