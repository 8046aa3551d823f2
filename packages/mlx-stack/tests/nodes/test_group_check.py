"""Whether one model can be started over several Macs, by what each says of itself."""

import ipaddress
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.nodes.facts import Facts, HashedFile, InterfaceAddress, ModelThere
from mlx_stack.nodes.facts_script import BEGINNING
from mlx_stack.nodes.group_check import Group, Member, Refusal, refusals
from mlx_stack.nodes.private_link import is_private

FILES = (
    HashedFile(path="config.json", size_bytes=700, algorithm="git-sha1", digest="a" * 40),
    HashedFile(path="model.safetensors", size_bytes=9000, algorithm="sha256", digest="b" * 64),
)
MODEL = ModelThere(
    folder="/home/models/m", files=FILES, sizes={f.path: f.size_bytes for f in FILES}, damaged=()
)
PORT = 28_001


def facts(*addresses: str, **changes: object) -> Facts:
    """A Mac with these addresses, as `10.0.0.1/24` on `bridge0`."""
    found = tuple(
        InterfaceAddress(interface=name, address=str(each.ip), prefix=each.network.prefixlen)
        for name, each in zip(
            ("bridge0", "en0"), map(ipaddress.IPv4Interface, addresses), strict=False
        )
    )
    known = Facts(
        schema_version=1,
        home="/home",
        system="Darwin",
        os_version="26.2",
        os_build="25C56",
        python="3.13.5",
        packages={"mlx": "0.32.4", "mlx-lm": "0.32.2"},
        lock_sha256="c" * 64,
        memory_bytes=64 * 2**30,
        gpu_limit_bytes=48 * 2**30,
        model_dir="/home/models",
        disk_free_bytes=10**12,
        model=MODEL,
        addresses=found,
        ports_taken=(),
        rdma_devices=None,
    )
    return msgspec.structs.replace(known, **changes)


def member(node: str, last: int, **changes: object) -> Member:
    made = Member(
        node,
        f"10.0.0.{last}",
        PORT,
        facts(f"10.0.0.{last}/24", f"192.168.1.{last}/24"),
        reached_from=None if node == "here" else "10.0.0.1",
        needs_bytes=30 * 2**30,
    )
    return replace(made, **changes)


def group(*members: Member, **changes: object) -> Group:
    return replace(Group("huge", members or (here(), member("studio", 2)), "glm-4.7"), **changes)


def here(**changes: object) -> Member:
    return member("here", 1, **changes)


INDEX = "model.safetensors.index.json"


def with_index() -> tuple[Member, Member]:
    """Two Macs with a model whose layers mlx-lm can find."""
    model = msgspec.structs.replace(MODEL, sizes={**MODEL.sizes, INDEX: 5})
    near, there = (facts(f"10.0.0.{last}/24", model=model) for last in (1, 2))
    return here(facts=near), member("studio", 2, facts=there)


def only(found: tuple[Refusal, ...]) -> Refusal:
    assert len(found) == 1, found
    return found[0]


def about_studio(**changes: object) -> Refusal:
    """The only refusal once the studio says something else of itself."""
    studio = member("studio", 2)
    assert studio.facts is not None
    changed = replace(studio, facts=msgspec.structs.replace(studio.facts, **changes))
    refusal = only(refusals(group(here(), changed)))
    assert refusal.node == "studio"
    assert "studio" in refusal.message
    return refusal


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_macs_that_agree_are_not_refused(count: int) -> None:
    others = (member(f"studio-{n}", n + 2) for n in range(count))
    assert refusals(group(here(), *others)) == ()


def test_a_mac_that_is_named_twice_is_refused() -> None:
    refusal = only(refusals(group(here(), member("studio", 2), member("studio.local", 2))))
    assert refusal.node == "studio.local"
    assert "the same Mac as studio: both have the address 10.0.0.2" in refusal.message
    assert refusal.fix == "Take it out of `hosts` of huge in the stack file."


def test_this_mac_is_not_taken_for_another_one() -> None:
    refusal = only(refusals(group(here(), member("mini.local", 1, reached_from="10.0.0.1"))))
    assert "mini.local is this Mac: both have the address 10.0.0.1" in refusal.message


@pytest.mark.parametrize(("home", "is_refused"), [("/home", True), ("/Users/other", False)])
def test_over_loopback_another_state_folder_is_another_mac(home: str, *, is_refused: bool) -> None:
    ours, its = (facts("127.0.0.1/8", home=each) for each in ("/home", home))
    own = here(address="127.0.0.1", facts=ours)
    other = member("b", 2, address="127.0.0.1", facts=its, reached_from="127.0.0.1")
    assert (
        any("b is this Mac" in each.message for each in refusals(group(own, other))) == is_refused
    )


def test_a_mac_that_cannot_be_asked_is_refused_for_that_alone() -> None:
    problem = Refusal("studio", "studio asks for a password.", "`ssh-copy-id studio`")
    unasked = member("studio", 2, facts=None, problem=problem)
    assert refusals(group(here(), unasked)) == (problem,)


def test_another_engine_there_is_refused() -> None:
    refusal = about_studio(lock_sha256="d" * 64, packages={"mlx-lm": "0.32.1"})
    assert "0.32.1 there, 0.32.2 here" in refusal.message
    assert "mlx-stack engines install mlx-lm" in refusal.fix


def test_an_engine_there_that_was_never_finished_is_refused() -> None:
    assert "version of the engine" in about_studio(lock_sha256=None).message


def test_another_python_there_is_refused() -> None:
    assert "Python 3.14.1" in about_studio(python="3.14.1").message


def test_a_later_patch_of_the_same_python_is_fine() -> None:
    studio = member("studio", 2, facts=facts("10.0.0.2/24", python="3.13.9"))
    assert refusals(group(here(), studio)) == ()


def test_a_model_that_is_missing_there_is_refused_with_what_copies_it() -> None:
    refusal = about_studio(model=None)
    assert refusal.fix == "`mlx-stack pull glm-4.7 --nodes` copies it there."


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sizes": {"config.json": 700}}, "incomplete: model.safetensors"),
        ({"sizes": {"config.json": 700, "model.safetensors": 8999}}, "incomplete"),
        ({"damaged": ("model.safetensors",)}, "incomplete: model.safetensors"),
        (
            {"sizes": {**MODEL.sizes, "model-2.safetensors": 5}},
            "a file that the one on this Mac lacks: model-2.safetensors",
        ),
        (
            {"files": (msgspec.structs.replace(FILES[0], digest="e" * 40), FILES[1])},
            "config.json differs",
        ),
        (
            {"files": tuple(msgspec.structs.replace(each, algorithm=BEGINNING) for each in FILES)},
            "was not pulled: its hashes are not known",
        ),
    ],
)
def test_another_model_there_is_refused(changes: dict[str, object], words: str) -> None:
    refusal = about_studio(model=msgspec.structs.replace(MODEL, **changes))
    assert words in refusal.message
    assert "pull glm-4.7 --nodes" in refusal.fix


def test_a_readme_more_there_is_fine() -> None:
    model = msgspec.structs.replace(MODEL, sizes={**MODEL.sizes, "README.md": 5})
    studio = member("studio", 2, facts=facts("10.0.0.2/24", model=model))
    assert refusals(group(here(), studio)) == ()


def test_a_model_that_is_not_whole_here_is_to_be_pulled_here() -> None:
    broken = here(facts=facts("10.0.0.1/24", model=None))
    refusal = only(refusals(group(broken, member("studio", 2))))
    assert (refusal.node, refusal.fix) == ("here", "`mlx-stack pull glm-4.7` completes it.")


def test_a_share_beyond_the_limit_of_a_gpu_is_refused() -> None:
    refusal = about_studio(gpu_limit_bytes=20 * 2**30)
    assert "GPU" in refusal.message


def test_shares_of_several_tiers_add_up_on_another_mac() -> None:
    studio = member("studio", 2, beside_bytes=17 * 2**30)
    assert refusals(group(here(), studio)) == ()
    refusal = only(refusals(group(here(), replace(studio, beside_bytes=19 * 2**30))))
    assert refusal.message == (
        "The share of studio takes 32.2 GB, other tiers take 20.4 GB there, and its GPU may use "
        "51.5 GB."
    )


def test_where_no_limit_is_known_none_is_made_up() -> None:
    studio = member("studio", 2, facts=facts("10.0.0.2/24", gpu_limit_bytes=None))
    assert refusals(group(here(), studio)) == ()


def test_a_port_that_is_taken_there_is_refused() -> None:
    refusal = about_studio(ports_taken=(PORT,))
    assert f"lsof -nP -iTCP:{PORT}" in refusal.fix


def test_a_port_that_the_group_itself_holds_is_not() -> None:
    studio = member("studio", 2, port=None, facts=facts("10.0.0.2/24", ports_taken=(PORT,)))
    assert refusals(group(here(port=None), studio)) == ()


def test_a_model_that_does_not_divide_is_refused() -> None:
    reason = "its 3 KV heads can't be divided evenly by 2 Macs"
    refusal = only(refusals(group(indivisible=(reason,))))
    assert refusal.message == f"The model can't be divided between 2 Macs: {reason}."
    assert "another number of Macs" in refusal.fix
    kept = group(indivisible=(reason,), divides_otherwise=True, by_layers=True)
    assert "Without `pipeline`" in only(refusals(kept)).fix
    assert "another number of Macs" in only(refusals(replace(kept, by_layers=False))).fix
    indexed = replace(kept, by_layers=False, members=with_index())
    assert "mlx_lm_flags: {pipeline: true}" in only(refusals(indexed)).fix


def test_layers_that_mlx_lm_cannot_find_are_not_divided() -> None:
    refusal = only(refusals(group(by_layers=True)))
    assert refusal.message.startswith(f"The model has no {INDEX}")
    assert "Choose weights that have this file" in refusal.fix
    otherwise = only(refusals(group(by_layers=True, divides_otherwise=True)))
    assert "Without `pipeline` in `mlx_lm_flags` of huge" in otherwise.fix
    assert refusals(group(*with_index(), by_layers=True)) == ()


def rdma(found: tuple[str, ...] | None, version: str | None = "26.2", **own: object) -> Group:
    """Two Macs that are to use RDMA, of which the studio has these devices."""
    there = facts("10.0.0.2/24", rdma_devices=found, os_version=version)
    near = facts("10.0.0.1/24", rdma_devices=("rdma_en4",), **own)
    return group(
        here(facts=near, rdma=("rdma_en4",)),
        member("studio", 2, facts=there, rdma=("rdma_en5",)),
    )


@pytest.mark.parametrize(
    ("asked", "message", "fix"),
    [
        (rdma(None), "RDMA is off on studio", "`rdma_ctl enable`"),
        (rdma(()), "RDMA is off on studio", "recoveryOS"),
        (rdma(("rdma_en2", "rdma_en3")), "rdma_en5; it has rdma_en2, rdma_en3", "`rdma`"),
        (rdma(None, "26.1"), "studio has macOS 26.1, and RDMA needs 26.2", "Update macOS"),
        (rdma(None, "15.7.1"), "studio has macOS 15.7.1, and RDMA needs 26.2", "Update macOS"),
        (rdma(("rdma_en5",), "26.3"), "studio has macOS 26.3, and this Mac has 26.2", "Update"),
    ],
)
def test_a_mac_without_its_rdma_device_is_refused(asked: Group, message: str, fix: str) -> None:
    refusal = only(refusals(asked))
    assert refusal.node == "studio"
    assert message in refusal.message
    assert fix in refusal.fix


def test_macs_with_their_rdma_devices_are_not_refused() -> None:
    assert refusals(rdma(("rdma_en2", "rdma_en5"))) == ()
    assert refusals(rdma(("rdma_en5",), "26.10", os_version="26.10")) == ()


def test_a_mac_on_the_ring_needs_no_rdma() -> None:
    studio = member("studio", 2, facts=facts("10.0.0.2/24", os_version="15.7", rdma_devices=()))
    assert refusals(group(here(), studio)) == ()


def test_an_address_of_the_internet_is_refused_whatever_the_user_says() -> None:
    studio = member("studio", 2, address="8.8.8.8", link_is_private=True, reached_from="10.0.0.1")
    refusal = only(refusals(group(here(), studio)))
    assert refusal.node == "studio"
    assert "internet" in refusal.message


def test_an_address_that_is_none_of_that_mac_is_refused() -> None:
    refusal = only(refusals(group(here(), member("studio", 2, address="10.0.0.9"))))
    assert "10.0.0.2 (bridge0), 192.168.1.2 (en0)" in refusal.message
    assert "hosts" in refusal.fix


def test_an_address_that_nobody_knows_is_asked_for() -> None:
    refusal = only(refusals(group(here(), member("studio", 2, address=None))))
    assert "{host: studio, address: …}" in refusal.fix


def routed(**changes: object) -> Member:
    fields = {"address": "10.9.0.2", "facts": facts("10.9.0.2/24"), **changes}
    return member("studio", 2, **fields)


def test_a_routed_address_is_refused() -> None:
    refusal = only(refusals(group(here(), routed())))
    assert refusal.node == "studio"
    assert "private_link: true" in refusal.fix


def test_a_routed_address_is_accepted_from_a_user_who_knows() -> None:
    assert refusals(group(here(), routed(link_is_private=True))) == ()


def test_an_address_on_another_cable_than_this_macs_is_refused() -> None:
    studio = member("studio", 2, address="192.168.1.2", reached_from="192.168.1.1")
    refusal = only(refusals(group(here(), studio)))
    assert "in the network of en0 of this Mac, and not in that of bridge0" in refusal.message


def test_a_way_over_another_interface_than_the_one_that_is_meant_is_refused() -> None:
    refusal = only(refusals(group(here(), member("studio", 2, reached_from="192.168.1.1"))))
    assert "reached from 192.168.1.1 (en0), and 10.0.0.1 was configured" in refusal.message


def test_two_others_that_are_not_on_one_network_are_refused() -> None:
    apart = member("studio-b", 3, facts=facts("10.0.0.3/31", "10.0.1.3/24"))
    found = refusals(group(here(), member("studio-a", 2), apart))
    assert found
    assert all("studio-b" in each.node for each in found)


addresses = st.ip_addresses(v=4).map(str)
interfaces = st.lists(
    st.builds(
        InterfaceAddress,
        interface=st.sampled_from(("bridge0", "en0", "en1")),
        address=addresses,
        prefix=st.integers(0, 32),
    ),
    max_size=3,
).map(tuple)
models = st.none() | st.builds(
    ModelThere,
    folder=st.just("/m"),
    files=st.lists(st.sampled_from(FILES), max_size=2, unique=True).map(tuple),
    sizes=st.dictionaries(st.sampled_from(("config.json", "x.safetensors")), st.integers(0, 9)),
    damaged=st.just(()),
)
said = st.none() | st.builds(
    msgspec.structs.replace,
    st.just(facts()),
    addresses=interfaces,
    model=models,
    lock_sha256=st.none() | st.sampled_from(("x", "y")),
    python=st.sampled_from(("3.13.5", "3.14", "", "…")),
    gpu_limit_bytes=st.none() | st.integers(0, 2**40),
    ports_taken=st.lists(st.integers(0, 65535), max_size=3).map(tuple),
    os_version=st.none() | st.sampled_from(("26.2", "26.3", "15.7.1", "", "26.²")),
    rdma_devices=st.none() | st.just(()) | st.just(("rdma_en4",)),
)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    names = ("here", *(f"mac-{n}" for n in range(draw(st.integers(1, 4)))))
    members: list[Member] = []
    for name in names:
        known = draw(said)
        own = [each.address for each in known.addresses] if known is not None else []
        members.append(
            Member(
                name,
                draw(st.none() | st.sampled_from((*own, "10.0.0.1", "8.8.8.8"))),
                draw(st.none() | st.integers(1, 65535)),
                known,
                Refusal(name, "It can't be asked.", "Look.") if known is None else None,
                reached_from=draw(st.none() | addresses),
                link_is_private=draw(st.booleans()),
                needs_bytes=draw(st.none() | st.integers(0, 2**40)),
                rdma=draw(st.sampled_from(((), ("rdma_en4",)))),
            )
        )
    return Group("huge", tuple(members), "m")


@given(groups())
def test_whatever_macs_say_each_refusal_names_one_and_a_cure(asked: Group) -> None:
    found = refusals(asked)
    assert all(each.node in {m.node for m in asked.members} for each in found)
    assert all(each.message and each.fix for each in found)
    refused = {each.node for each in found}
    for each in asked.members:
        assert each.facts is not None or each.node in refused
        if each.address is not None and not is_private(each.address):
            assert each.node in refused


@given(groups())
def test_no_group_starts_whose_macs_have_different_engines_or_no_model(asked: Group) -> None:
    if not refusals(asked):
        known = [each.facts for each in asked.members if each.facts is not None]
        assert len(known) == len(asked.members)
        assert len({each.lock_sha256 for each in known}) == 1
        assert all(each.model is not None for each in known)
