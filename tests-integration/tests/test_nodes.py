"""Two real stacks on one machine, each with its own gateway: one is a node of the other."""

import json
import os
import shutil
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from mlx_procsup.testing import eventually
from mlx_stack.config import load_config
from mlx_stack.home import Home
from mlx_stack.nodes.file import load_nodes
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import Tier, load_stack, save_stack
from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.program import Finished, Program
from stack_testkit.schemas import differences

pytestmark = pytest.mark.story


@pytest.fixture
def studio(served: Program, tmp_path: Path) -> Iterator[Program]:
    """The other Mac, up and running, with a tier of its own."""
    home = Home(tmp_path / "studio")
    install_fake_engines(home)
    variables = {**served.variables, "MLX_STACK_HOME": str(home.root)}
    program = Program(home, variables)
    define_stack(home, {"standard": {}}, config={"auto-health-check": False})
    assert program.run("up").code == 0
    yield program
    program.run("down")


def url_of(program: Program) -> str:
    url: str = program.run("env", "--json").document["env"]["OPENAI_BASE_URL"]
    return url


def test_a_node_is_added_with_its_key_checked_and_removed(served: Program, studio: Program) -> None:
    key = studio.run("keys", "add", "mini").out.strip()
    url = url_of(studio)

    added = served.run("nodes", "add", url, "--name", "studio", "--json", stdin=f"{key}\n")
    assert added.code == 0, added.err
    assert differences(added.document, "nodes-add") == []
    assert added.document["tiers"] == ["standard"]
    assert key not in added.out + added.err
    node = load_nodes(served.home.nodes).get("studio")
    assert node is not None
    assert (node.key, node.url) == (key, url.removesuffix("/v1"))
    assert served.home.nodes.stat().st_mode & 0o777 == 0o600

    listed = served.run("nodes", "list", "--json")
    assert differences(listed.document, "nodes-list") == []
    assert key not in listed.out

    checked = served.run("nodes", "check", "--json")
    assert checked.code == 0
    assert differences(checked.document, "nodes-check") == []
    row = checked.document["nodes"][0]
    assert row["reachable"]
    assert row["round_trip_ms"] > 0
    assert row["link_bytes_per_s"] > 0
    assert abs(row["clock_ahead_s"]) < 2
    assert row["models"][0]["tier"] == "standard"

    studio.run("down")
    gone = served.run("nodes", "check", "--json")
    assert gone.code == 1
    assert differences(gone.document, "nodes-check") == []
    assert not gone.document["nodes"][0]["reachable"]
    assert "Nothing answers" in gone.document["nodes"][0]["problem"]

    removed = served.run("nodes", "remove", "studio", "--json")
    assert differences(removed.document, "nodes-remove") == []
    assert served.run("nodes", "list", "--json").document["nodes"] == []
    assert served.run("nodes", "remove", "studio").code == 2


def test_a_wrong_key_and_an_open_network_are_refused(served: Program, studio: Program) -> None:
    wrong = served.run("nodes", "add", url_of(studio), stdin="sk-wrong\n")
    assert wrong.code == 1
    assert "doesn't accept the key" in wrong.err

    no_key = served.run("nodes", "add", url_of(studio), stdin="\n")
    assert no_key.code == 2

    routed = served.run("nodes", "add", "http://192.0.2.7:4000", stdin="sk-any\n")
    assert routed.code == 2
    assert "not encrypted" in routed.err
    assert "--private-link" in routed.err

    assert load_nodes(served.home.nodes).nodes == ()


def test_a_key_of_one_tier_sees_that_tier_alone(served: Program, studio: Program) -> None:
    key = studio.run("keys", "add", "mini", "--tiers", "none").out.strip()

    added = served.run("nodes", "add", url_of(studio), "--json", stdin=f"{key}\n")

    assert added.document["tiers"] == []


@pytest.fixture
def shelf(studio: Program) -> Program:
    """The other Mac, open to others with TLS."""
    studio.run("config", "set", "node-host", "127.0.0.1")
    studio.run("config", "set", "node-port", str(free_ports(1)[0]))
    up = studio.run("up")
    assert up.code == 0, up.err
    return studio


def test_two_macs_are_paired_by_a_code_and_answer_each_other_over_tls(
    served: Program, shelf: Program
) -> None:
    shown = shelf.run("nodes", "pair", "--json")
    assert shown.code == 0, shown.err
    assert differences(shown.document, "nodes-pair") == []
    code, host = shown.document["code"], shown.document["host"]
    for path in (shelf.home.node_ca_key, shelf.home.node_key, shelf.home.pairing):
        assert path.stat().st_mode & 0o777 == 0o600
    assert shelf.home.node.stat().st_mode & 0o777 == 0o700

    wrong = "000000" if code != "000000" else "111111"
    refused = served.run("nodes", "add", host, "--code", stdin=f"{wrong}\n")
    assert refused.code == 1
    assert "refuses the code" in refused.err
    assert "another machine" in refused.err

    typed = f"{code[:3]} {code[3:]}\n"
    added = eventually_paired(served, host, typed)
    assert added.code == 0, added.err
    assert differences(added.document, "nodes-add") == []
    assert added.document["url"] == f"https://{host}"
    assert added.document["fingerprint"] == shown.document["fingerprint"]
    assert added.document["tiers"] == ["standard"]
    assert [row["name"] for row in shelf.run("keys", "--json").document["keys"]] != []

    again = served.run("nodes", "add", host, "--code", "--name", "again", stdin=typed)
    assert again.code != 0
    checked = served.run("nodes", "check", "--json")
    assert checked.code == 0, checked.out
    assert differences(checked.document, "nodes-check") == []

    leave_the_replica_alone(served)
    assert ask(served, "hello there")[:2] == (200, "standard@studio")


def leave_the_replica_alone(served: Program) -> None:
    """A stack whose tier has a replica on the studio, which loses its own engine."""
    define_stack(
        *(served.home, {"standard": {}}),
        config={"auto-health-check": False},
        fields={"standard": {"replicas": [{"node": "studio", "tier": "standard"}]}},
    )
    assert served.run("up").code == 0
    rows = served.run("status", "--json").document["services"]
    os.kill(next(row["pid"] for row in rows if row["name"] == "standard"), signal.SIGKILL)


def test_what_answers_in_a_paired_macs_place_gets_nothing(served: Program, shelf: Program) -> None:
    """The other Mac's authority was made again, as someone between the two would have another."""
    config = load_config(shelf.home)
    url = f"https://{config.node_host}:{config.node_port}"
    by_key = served.run("nodes", "add", url, stdin="sk-any\n")
    assert by_key.code == 1
    assert "isn't trusted" in by_key.err
    other = served.run("nodes", "add", url, "--fingerprint", "0" * 64, stdin="sk-any\n")
    assert other.code == 1
    assert "another fingerprint" in other.err
    shown = shelf.run("nodes", "pair", "--json").document
    key = shelf.run("keys", "add", "mini").out
    added = served.run(
        *("nodes", "add", url, "--fingerprint", shown["fingerprint"], "--name", "studio"),
        stdin=key,
    )
    assert added.code == 0, added.err

    shutil.rmtree(shelf.home.node)
    assert shelf.run("up").code == 0
    assert shelf.run("nodes", "pair", "--json").document["fingerprint"] != shown["fingerprint"]

    checked = served.run("nodes", "check", "--json")
    assert checked.code == 1
    assert "is not from the Mac that was added" in checked.document["nodes"][0]["problem"]
    leave_the_replica_alone(served)
    status, _, text = ask(served, "hello")
    assert status == 503, text
    assert "certificate" in (served.home.logs / "gateway.log").read_text()


def test_without_a_door_for_others_there_is_no_code(served: Program) -> None:
    refused = served.run("nodes", "pair")
    assert refused.code == 2
    assert "config set node-host" in refused.err
    served.run("config", "set", "node-host", "127.0.0.1")
    early = served.run("nodes", "pair")
    assert early.code == 1
    assert "mlx-stack up" in early.err


def test_a_door_that_can_not_be_opened_leaves_the_stack_usable_and_is_named(
    studio: Program,
) -> None:
    """Its address belongs to another network, as at home after work."""
    for setting, value in (("node-host", "203.0.113.9"), ("node-port", str(free_ports(1)[0]))):
        assert studio.run("config", "set", setting, value).code == 0
    assert studio.run("up").code == 0  # restarts the gateway
    assert ask(studio, "hello")[0] == 200

    refused = studio.run("nodes", "pair")
    assert refused.code == 1
    assert "203.0.113.9" in refused.err
    checked = studio.run("nodes", "check", "--json")
    assert differences(checked.document, "nodes-check") == []
    assert "203.0.113.9" in checked.document["door_problem"]
    findings = studio.run("doctor", "--json").document["findings"]
    assert [each["check"] for each in findings if "203.0.113.9" in each["message"]] == ["node-door"]
    log = (studio.home.logs / "gateway.log").read_text()
    assert "can't listen on 203.0.113.9" in log
    assert "Traceback" not in log


def eventually_paired(here: Program, host: str, typed: str) -> Finished:
    """The first answer that isn't "one try per second"."""
    for _ in range(20):
        added = here.run("nodes", "add", host, "--code", "--name", "studio", "--json", stdin=typed)
        if "is being paired" not in added.out + added.err:
            break
    return added


def ask(program: Program, words: str, path: str = "/chat/completions") -> tuple[int, str, str]:
    """The status of an answer, who gave it, and its text."""
    environment = program.run("env", "--json").document["env"]
    body = {"model": "standard", "max_tokens": 9, "messages": [{"role": "user", "content": words}]}
    request = urllib.request.Request(
        environment["OPENAI_BASE_URL"] + path,
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {environment['OPENAI_API_KEY']}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.headers["x-mlx-stack-tier"], response.read().decode()
    except urllib.error.HTTPError as error:
        with closing(error):
            return error.code, "", error.read().decode()


def test_a_tier_on_two_macs_goes_on_when_either_fails(served: Program, studio: Program) -> None:
    key = studio.run("keys", "add", "mini").out.strip()
    replica = {"replicas": [{"node": "studio", "tier": "standard"}]}
    define_stack(
        *(served.home, {"standard": {}}),
        config={"auto-health-check": False},
        fields={"standard": replica},
    )
    refused = served.run("up")
    assert refused.code == 2
    assert "'studio', which is not a node" in refused.err

    added = served.run("nodes", "add", url_of(studio), "--name", "studio", stdin=f"{key}\n")
    assert added.code == 0, added.err
    assert served.run("up").code == 0
    assert key not in served.home.gateway_settings.read_text()
    assert served.run("nodes", "remove", "studio").code == 2, "a tier needs it"

    assert {ask(served, f"{n} " * 3000)[1] for n in range(2)} <= {"standard", "standard@studio"}
    pid = next(
        row["pid"]
        for row in served.run("status", "--json").document["services"]
        if row["name"] == "standard"
    )
    os.kill(pid, signal.SIGKILL)
    for path in ("/chat/completions", "/messages"):
        status, who, text = ask(served, "hello there", path)
        assert (status, who) == (200, "standard@studio"), text

    shown = served.run("status", "--json").document
    assert differences(shown, "status") == []
    rows = {row["name"]: row for row in shown["services"]}
    assert (rows["standard@studio"]["kind"], rows["standard@studio"]["state"]) == (
        "replica",
        "healthy",
    )

    def used(program: Program, by: str) -> list[str]:
        return [row[by] for row in program.run("usage", "--by", by, "--json").document["rows"]]

    assert eventually(lambda: used(studio, "key") == ["mini"])
    assert eventually(lambda: "standard@studio" in used(served, "model"))

    assert served.run("up").code == 0
    studio.run("down")
    for n in range(3):
        assert ask(served, f"{n} and more")[:2] == (200, "standard")


def test_a_request_never_goes_round_in_circles(served: Program, studio: Program) -> None:
    """Each of two Macs has the other for a replica, and neither has an engine left."""
    programs = {"studio": (served, studio), "mini": (studio, served)}
    replica = {name: {"replicas": [{"node": name, "tier": "standard"}]} for name in programs}
    define_stack(
        *(served.home, {"standard": {}}),
        config={"auto-health-check": False},
    )
    assert served.run("up").code == 0
    for name, (here, there) in programs.items():
        key = there.run("keys", "add", name).out.strip()
        assert here.run("nodes", "add", url_of(there), "--name", name, stdin=f"{key}\n").code == 0
        stack = load_stack(here.home.stack)
        fields = msgspec.to_builtins(stack.tiers[0]) | replica[name]
        tiers = (msgspec.convert(fields, Tier),)
        save_stack(here.home.stack, msgspec.structs.replace(stack, tiers=tiers))
        assert here.run("up").code == 0
    assert ask(served, "hello")[0] == 200

    for program in (served, studio):
        rows = program.run("status", "--json").document["services"]
        os.kill(next(row["pid"] for row in rows if row["name"] == "standard"), signal.SIGKILL)

    status, _, text = ask(served, "hello again")
    assert status == 503, text
