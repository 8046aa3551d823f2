"""`keys` and `usage`: a key for each client, and what each used."""

import json
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing
from typing import Any

import pytest

from mlx_gateway.usage import read_events
from mlx_procsup.testing import eventually
from stack_testkit.home import define_stack
from stack_testkit.program import Program
from stack_testkit.schemas import differences

pytestmark = pytest.mark.story


@pytest.fixture
def running(served: Program) -> Program:
    # `up` would ask a question, too
    define_stack(served.home, {"standard": {}, "fast": {}}, config={"auto-health-check": False})
    assert served.run("up").code == 0
    return served


def ask(
    program: Program, key: str, model: str = "standard", path: str = "/chat/completions"
) -> tuple[int, Any]:
    """The status and the document of an answer, as a client with this key gets it."""
    url = program.run("env", "--json").document["env"]["OPENAI_BASE_URL"]
    body = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "hi there"}]}
    request = urllib.request.Request(
        url + path,
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "User-Agent": "test-program/1.0"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with closing(error):
            return error.code, json.load(error)


def test_a_key_is_good_from_when_it_is_shown_until_it_is_revoked(running: Program) -> None:
    made = running.run("keys", "add", "laptop", "--tiers", "fast", "--priority", "agent", "--json")
    assert made.code == 0
    assert differences(made.document, "keys-add") == []
    key = made.document["key"]
    assert made.document["tiers"] == ["fast"]

    assert ask(running, key, "fast")[0] == 200
    status, refusal = ask(running, key, "standard", "/messages")
    assert (status, refusal["error"]["type"]) == (403, "permission_error")
    assert ask(running, key[:-1], "fast")[0] == 401

    assert key not in running.home.client_keys.read_text()
    assert running.home.client_keys.stat().st_mode & 0o777 == 0o600

    def last_use() -> Any:
        listed = running.run("keys", "list", "--json").document
        assert differences(listed, "keys-list") == []
        return listed["keys"][0]["last_used_at"]

    assert eventually(last_use)

    revoked = running.run("keys", "revoke", "laptop", "--json")
    assert differences(revoked.document, "keys-revoke") == []
    assert ask(running, key, "fast")[0] == 401
    assert running.run("keys", "list", "--json").document["keys"] == []


def test_what_was_used_is_told_by_model_key_and_day(running: Program) -> None:
    key = running.run("keys", "add", "laptop").out.strip()
    for _ in range(3):
        assert ask(running, key)[0] == 200
    admin = json.loads(running.home.credentials.read_text())["gateway_key"]
    assert ask(running, admin, "fast")[0] == 200

    def used(*arguments: str) -> Any:
        return running.run("usage", "--json", *arguments).document

    assert eventually(lambda: used()["totals"]["requests"] == 4)
    document = used("--by", "key")
    assert differences(document, "usage") == []
    rows = {row["key"]: row for row in document["rows"]}
    assert rows["laptop"]["requests"] == 3
    assert rows["laptop"]["prompt_tokens"] == 6
    assert document["totals"]["completion_tokens"] == 16
    models = {row["model"]: row["requests"] for row in used("--by", "model")["rows"]}
    assert models == {"standard-model": 3, "fast-model": 1}
    assert len(used("--by", "day")["rows"]) == 1
    assert used()["availability"]["endpoint"] == 1.0
    table = running.run("usage", "--by", "key", "--csv").out.splitlines()
    assert table[0].startswith("key,requests,failed,prompt_tokens")
    assert table[1].startswith("laptop,3,0,6,0,")
    assert "laptop" in running.run("usage", "--by", "key").out
    whole = running.home.ledger.read_bytes()
    assert b"hi there" not in whole
    running.run("down")
    whats = [(event.what, event.service) for event in read_events(running.home.ledger)]
    for event in (("start", "standard"), ("ready", "endpoint"), ("stop", "fast")):
        assert event in whats


def test_costs_are_told_only_for_prices_that_were_given(running: Program) -> None:
    admin = json.loads(running.home.credentials.read_text())["gateway_key"]
    assert ask(running, admin)[0] == 200
    prices = running.home.root / "prices.yaml"
    prices.write_text("standard-model: {prompt: 1000, completion: 2000}\n")

    def total(*arguments: str) -> Any:
        return running.run("usage", "--json", *arguments).document["totals"]

    assert eventually(lambda: total()["requests"] == 1)
    assert "cost_usd" not in total()
    assert total("--prices", str(prices))["cost_usd"] == pytest.approx(0.002 + 0.008)
    prices.write_text("standard-model: {prompt: -1, completion: cheap}\n")
    refused = running.run("usage", "--prices", str(prices), "--json")
    assert refused.code == 2
    assert str(prices) in refused.document["error"]["message"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "add", "no spaces"),
        ("keys", "add", "admin"),
        ("keys", "add", ""),
        ("keys", "add", "x" * 65),
        ("keys", "add", "a", "--tiers", "slow"),
        ("keys", "add", "a", "--tiers", ","),
        ("keys", "add", "a", "--priority", "first"),
        ("keys", "add", "a", "--max-in-flight", "0"),
        ("keys", "revoke", "nobody"),
        ("usage", "--since", "yesterday"),
        ("usage", "--since", "-3d"),
        ("usage", "--by", "colour"),
        ("usage", "--prices", "/no/such/file"),
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    program: Program, arguments: tuple[str, ...]
) -> None:
    define_stack(program.home, {"standard": {}})

    done = program.run(*arguments, "--json")

    assert done.code == 2, done.err
    assert differences(done.document, "error") == []
    assert not program.home.client_keys.exists()
    assert not program.home.ledger.exists()


def test_reading_makes_nothing(program: Program) -> None:
    assert program.run("keys", "--json").document["keys"] == []
    assert program.run("usage", "--json").document["totals"]["requests"] == 0
    assert "No request" in program.run("usage").err
    assert not program.home.root.exists()


def test_a_second_key_of_a_name_and_a_damaged_file_are_refused(program: Program) -> None:
    define_stack(program.home, {"standard": {}})
    assert program.run("keys", "add", "laptop").code == 0
    before = program.home.client_keys.read_text()

    again = program.run("keys", "add", "laptop", "--json")
    assert (again.code, "revoke laptop" in again.document["error"]["hint"]) == (2, True)
    assert program.home.client_keys.read_text() == before

    program.home.client_keys.write_text("{")
    for words in (("list",), ("add", "other"), ("revoke", "laptop")):
        assert program.run("keys", *words).code == 2
    assert program.home.client_keys.read_text() == "{"


def test_keys_that_are_added_at_once_are_all_kept(program: Program) -> None:
    define_stack(program.home, {"standard": {}})
    started = [program.start("keys", "add", f"client-{number}") for number in range(4)]
    assert [each.wait() for each in started] == [0, 0, 0, 0]
    for each in started:
        each.communicate()

    assert len(program.run("keys", "list", "--json").document["keys"]) == 4


def test_a_ledger_of_a_newer_version_is_left_alone_and_named(program: Program) -> None:
    program.home.create()
    with closing(sqlite3.connect(program.home.ledger)) as newer:
        newer.execute("PRAGMA user_version = 99")
        newer.commit()

    refused = program.run("usage", "--json")

    assert refused.code == 1
    assert "version 99" in refused.document["error"]["message"]
    findings = program.run("doctor", "--json").document["findings"]
    assert [each["fix"] for each in findings if each["check"] == "ledger"] == ["Upgrade mlx-stack."]
