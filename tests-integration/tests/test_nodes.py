"""Two real stacks on one machine, each with its own gateway: one is a node of the other."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_stack.home import Home
from mlx_stack.nodes.file import load_nodes
from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.program import Program
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
