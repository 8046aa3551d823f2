"""Who may see the page, who may change something, and what no other page can make it do."""

import asyncio
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from mlx_gateway.keys import ADMIN, ClientKey
from mlx_stack import config, page
from mlx_stack.errors import StackError
from mlx_stack.gateway.keys import add_key, revoke_key
from mlx_stack.open_stack import OpenStack
from mlx_stack.page.answer import SECURITY
from mlx_stack.page.session import PageSession, read_session, sign

type Browser = Any

KEY = "the-admins-key-of-the-test"
READS = (
    "session", "status", "usage", "models", "models/catalog", "models/hub", "doctor", "autostart",
    "keys", "logs", "logs/gateway", "requests", "requests/1", "actions", "events",
)  # fmt: skip
CHANGES = (
    ("POST", "actions", {"do": "stop"}),
    ("DELETE", "actions/1", None),
    ("POST", "keys", {"name": "eve"}),
    ("DELETE", "keys/laptop", None),
)
OPEN = """
schema_version: 1
host: 0.0.0.0
models: {standard: {upstreams: [{url: "http://127.0.0.1:9", model: a-model}]}}
"""


@pytest.mark.parametrize("path", READS)
def test_nothing_is_read_without_a_session(browser: Browser, path: str) -> None:
    said = browser.get(path)

    assert said.status == 401
    assert "`mlx-stack dashboard`" in said.document["error"]["hint"]


@pytest.mark.parametrize(("method", "path", "values"), CHANGES)
def test_nothing_is_changed_without_a_session(
    browser: Browser, method: str, path: str, values: object
) -> None:
    assert browser.ask(method, f"/ui/api/{path}", values).status == 401
    assert not browser.home.client_keys.exists()


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": None},
        {"origin": "null"},
        {"origin": "https://elsewhere.example"},
        {"origin": "http://127.0.0.1:3000"},  # the same site, and another program
        {"origin": "http://localhost"},
        {"origin": "http://["},
        {"x_mlx_stack_page": None},
    ],
    ids=str,
)
@pytest.mark.parametrize(("method", "path", "values"), CHANGES)
def test_another_page_changes_nothing_with_the_admins_cookie(
    browser: Browser, method: str, path: str, values: object, headers: dict[str, str | None]
) -> None:
    browser.sign_in()

    said = browser.ask(method, f"/ui/api/{path}", values, **headers)

    assert (said.status, said.document["error"]["message"]) == (
        403,
        "Only the page itself may send this request.",
    )
    assert not browser.home.client_keys.exists()
    assert (
        browser.ask("POST", "/ui/api/v1/chat/completions", {"model": "standard"}, **headers).status
        == 403
    )
    assert browser.ask("POST", "/ui/api/session", {"key": KEY}, **headers).status == 403


def test_a_form_of_another_page_is_not_read_as_a_change(browser: Browser) -> None:
    browser.sign_in()

    said = browser.ask("POST", "/ui/api/keys", {"name": "eve"}, content_type="text/plain")

    assert said.status == 400
    assert not browser.home.client_keys.exists()


@pytest.mark.parametrize(("method", "path", "values"), CHANGES)
def test_a_clients_key_may_look_and_change_nothing(
    browser: Browser, method: str, path: str, values: object
) -> None:
    made = add_key(OpenStack(browser.home), "laptop")
    before = browser.home.client_keys.read_bytes()
    browser.sign_in(made.key)

    assert browser.get("session").document["is_admin"] is False
    assert browser.get("keys").document["keys"][0]["name"] == "laptop"
    said = browser.ask(method, f"/ui/api/{path}", values)
    assert (said.status, said.document["error"]["message"]) == (
        403,
        "The key of laptop can see everything but not change anything.",
    )
    assert browser.home.client_keys.read_bytes() == before


def test_a_session_ends_with_its_key_also_where_another_has_the_name(browser: Browser) -> None:
    browser.sign_in(add_key(OpenStack(browser.home), "laptop").key)
    assert browser.get("session").status == 200

    revoke_key(browser.home, "laptop")
    assert browser.get("session").status == 401

    add_key(OpenStack(browser.home), "laptop")
    assert browser.get("session").status == 401


def test_a_link_opens_the_page_once(browser: Browser) -> None:
    token = browser.token()

    first = browser.ask("POST", "/ui/api/session", {"token": token})
    second = browser.ask("POST", "/ui/api/session", {"token": token})

    assert (first.status, first.document["is_admin"]) == (200, True)
    assert (second.status, second.document["error"]["message"]) == (
        401,
        "The link was used, or is older than two minutes.",
    )


def test_a_link_opens_nothing_after_two_minutes(browser: Browser) -> None:
    token = browser.token()
    (path,) = (browser.home.page / "tokens").iterdir()
    assert token not in path.name
    long_ago = time.time() - page.link.LASTS_S - 2
    os.utime(path, (long_ago, long_ago))

    assert browser.ask("POST", "/ui/api/session", {"token": token}).status == 401
    assert not path.exists()


@pytest.mark.parametrize(
    "values", [{}, {"token": ""}, {"token": "../../config.yaml"}, {"key": ""}, {"key": KEY[:-1]}]
)
def test_what_is_no_key_and_no_link_opens_nothing(browser: Browser, values: dict[str, str]) -> None:
    said = browser.ask("POST", "/ui/api/session", values)

    assert said.status == 401
    assert "set-cookie" not in said.headers


def test_the_cookie_is_kept_from_scripts_and_other_sites(browser: Browser) -> None:
    plain = browser.ask("POST", "/ui/api/session", {"key": KEY})
    tls = browser.ask(
        "POST", "/ui/api/session", {"key": KEY}, origin="https://mac.example", host="localhost"
    )

    name, _, rest = plain.headers["set-cookie"].partition("=")
    assert name == "mlx-stack-page-4000"
    assert rest.split("; ")[1:] == ["Path=/ui", "Max-Age=86400", "HttpOnly", "SameSite=Strict"]
    assert KEY not in rest
    assert tls.status == 403  # the host is another than the origin's


def test_behind_tls_the_cookie_is_for_tls_only(browser: Browser) -> None:
    said = browser.ask(
        "POST", "/ui/api/session", {"key": KEY}, origin="https://localhost", host="localhost"
    )

    assert said.headers["set-cookie"].endswith("; Secure")


def test_signing_out_takes_the_cookie_away(browser: Browser) -> None:
    said = browser.sign_in().ask("DELETE", "/ui/api/session")

    assert "Max-Age=0" in said.headers["set-cookie"]


CLIENTS = {"admin": ADMIN, "laptop": ClientKey(name="laptop", digest="ab" * 32)}


def holder(cookie: str, key: str = KEY, now: float = 100.0) -> str | None:
    headers = {b"cookie": f"other=1; page={cookie}".encode()}
    found = read_session(headers, "page", key, CLIENTS.get, now)
    return None if found is None else found.client.name


def test_only_a_cookie_that_was_signed_here_and_has_not_ended_holds() -> None:
    cookie = sign(PageSession(CLIENTS["laptop"], 200), KEY)

    assert holder(cookie) == "laptop"
    assert holder(cookie, now=200.0) is None
    assert holder(cookie, key="another") is None
    assert holder(cookie.replace("laptop", "admin")) is None
    assert holder(cookie.replace(":200:", ":999:")) is None
    assert holder(cookie[:-1]) is None
    for damaged in (
        "",
        ":",
        "::",
        "admin",
        "admin:1",
        "admin::",
        "nobody:200:ab",
        "admin:²:x",
        "a:9" * 99,
    ):
        assert holder(damaged) is None


@pytest.mark.parametrize("path", ["/ui/", "/ui/main.js", "/ui/nothing", "/ui/api/status", "/ui"])
def test_every_answer_forbids_what_does_not_come_from_the_page(browser: Browser, path: str) -> None:
    said = browser.ask("GET", path)

    assert {name.encode(): value.encode() for name, value in said.headers.items()}.items() >= dict(
        SECURITY
    ).items()
    policy = said.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "access-control-allow-origin" not in said.headers


@pytest.mark.parametrize(
    "path",
    [
        "/ui/../app.py", "/ui/%2e%2e/app.py", "/ui/..%2fapp.py", "/ui//etc/passwd",
        "/ui/static/main.js", "/ui/app.py", "/ui/main.js/", "/ui/main.js%00", "/uix",
    ],
)  # fmt: skip
def test_only_the_pages_own_files_are_served(browser: Browser, path: str) -> None:
    assert browser.ask("GET", path).status in (401, 404)


def test_the_page_is_asked_by_the_names_of_this_machine_only(browser: Browser) -> None:
    assert browser.ask("GET", "/ui/", host="rebound.example").status == 403
    assert browser.sign_in().get("session", host="rebound.example").status == 403


def test_a_page_that_is_switched_off_is_not_there_from_then_on(browser: Browser) -> None:
    browser.sign_in()
    config.set_value(browser.home, "dashboard", "false")

    for path in ("/ui/", "/ui/main.js", "/ui/api/status", "/ui/api/session"):
        said = browser.ask("GET", path)
        assert (said.status, said.document["error"]["message"]) == (
            404,
            "The page is switched off.",
        )
    with pytest.raises(StackError, match="switched off"):
        page.link.make_link(OpenStack(browser.home))

    config.set_value(browser.home, "dashboard", "true")
    assert browser.get("session").status == 200


def test_a_damaged_configuration_does_not_switch_the_page_on_again(browser: Browser) -> None:
    config.set_value(browser.home, "dashboard", "false")
    assert browser.get("session").status == 404

    browser.home.config.write_text("dashboard: [")

    assert browser.get("session").status == 404


def status_from(
    browser: Browser, client: str, server: str = "192.0.2.1", scheme: str = "http"
) -> int:
    """The status of an answer to a browser at that address."""
    sent: list[dict[str, Any]] = []

    async def ask() -> None:
        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "scheme": scheme,
            "path": "/ui/",
            "headers": [(b"host", b"localhost")],
            "client": (client, 50000),
            "server": (server, 4000),
        }
        await browser.gateway(scope, None, send)

    asyncio.run(ask())
    return sent[0]["status"]


@pytest.mark.parametrize("settings_text", [OPEN])
def test_on_a_network_the_page_is_shown_to_this_machine_unless_the_user_says_otherwise(
    browser: Browser,
) -> None:
    assert browser.ask("GET", "/ui/").status == 200  # as a proxy with TLS here would ask
    assert status_from(browser, "192.0.2.1") == 200
    assert status_from(browser, "192.0.2.77") == 403

    config.set_value(browser.home, "dashboard-on-lan", "true")
    assert status_from(browser, "192.0.2.77") == 200


def test_the_door_for_other_macs_shows_the_page_to_nobody_elsewhere(browser: Browser) -> None:
    assert status_from(browser, "192.0.2.77", scheme="https") == 403


FILES = Path(page.__path__[0]) / "static"


def test_the_page_is_small_enough_to_read() -> None:
    texts = [path.read_text() for path in FILES.iterdir()]

    assert sum(len(text.splitlines()) for text in texts) <= 3_000
    assert sum(len(text.encode()) for text in texts) <= 150_000
    assert len((FILES / "charts.js").read_text().splitlines()) <= 200


@pytest.mark.parametrize("path", sorted(FILES.iterdir()), ids=lambda path: path.name)
def test_the_page_has_no_code_in_its_text_and_asks_nobody_else(path: Path) -> None:
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")

    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", text
    )
    assert not re.search(r"https?://(?!127)|@import|url\(", text)
    if path.suffix == ".html":
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
        assert all('src="' in tag for tag in re.findall(r"<script[^>]*>", text))
