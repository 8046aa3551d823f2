"""What the stack file may say, and what is refused before anything starts."""

from pathlib import Path

import pytest

from mlx_stack.errors import InvalidFileError, StackError, UsageError
from mlx_stack.stack import Host, load_stack, require_role, save_stack

TIER = "{name: standard, model: m, quant: int4, source: o/m, port: 8000, vllm_flags: {%s}}"


def write(folder: Path, flags: str = "", *, encoding: str = "utf-8", newline: str = "\n") -> Path:
    path = folder / "default.yaml"
    text = f"schema_version: 1\ntiers:\n- {TIER % flags}\n"
    path.write_text(text, encoding=encoding, newline=newline)
    return path


def test_six_fields_make_a_tier(tmp_path: Path) -> None:
    (tier,) = load_stack(write(tmp_path)).tiers
    assert (tier.concurrency, tier.context_tokens, tier.lazy) == (1, None, False)


def test_a_file_from_another_editor_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, encoding="utf-8-sig", newline="\r\n")
    assert load_stack(path).tiers[0].name == "standard"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("host: 0.0.0.0", "would listen on '0.0.0.0'"),
        ("host: true", "would listen on True"),
        ("hos: 0.0.0.0", "would mistake for another: write it in full .host"),
        ("por: 9000", "write it in full .port"),
        ("served-model: other", "write it in full .served-model-name"),
        ("served-model-name: other", "different names"),
        ("port: 9000", "different ports"),
        ("--max-tokens: 9", "without the leading dashes"),
        ("'': 9", "without the leading dashes"),
        ("'a b': 9", "without the leading dashes"),
    ],
)
def test_flags_that_would_open_or_misplace_an_engine_are_refused(
    tmp_path: Path, flags: str, said: str
) -> None:
    with pytest.raises(InvalidFileError, match=said):
        load_stack(write(tmp_path, flags))


@pytest.mark.parametrize("flags", ["host: 127.0.0.1", "port: 8000", "max-tokens: 9", "mllm: true"])
def test_flags_of_the_engine_are_kept(tmp_path: Path, flags: str) -> None:
    assert len(load_stack(write(tmp_path, flags)).tiers[0].vllm_flags) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("schema_version: 1\ntiers:\n- {tier}\ncolour: red\n", 4),
        ("schema_version: 1\ntiers:\n- {tier}\n- name: b\n  colour: red\n", 5),
    ],
)
def test_an_unknown_key_is_refused_with_its_own_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "default.yaml"
    path.write_text(text.replace("{tier}", TIER % ""), encoding="utf-8")
    with pytest.raises(InvalidFileError, match=f"line {line}: .*colour"):
        load_stack(path)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("name: standard", 'name: "standard\\n"', r"tiers\[0\]\.name"),
        ("model: m", 'model: ""', r"tiers\[0\]\.model"),
        ("model: m", 'model: "a\\tb"', r"tiers\[0\]\.model"),
        ("tiers:", 'aliases: {"": standard}\ntiers:', "aliases"),
        ("tiers:", 'aliases: {"gpt\\n": standard}\ntiers:', "aliases"),
        ("tiers:", f"aliases: {{{'x' * 257}: standard}}\ntiers:", "aliases"),
    ],
    ids=["line-break", "empty", "tab", "empty-alias", "alias-line-break", "long-alias"],
)
def test_a_name_that_no_client_could_ask_for_is_refused(
    tmp_path: Path, old: str, new: str, key: str
) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text().replace(old, new), encoding="utf-8")
    with pytest.raises(InvalidFileError, match=rf"line \d: `{key}"):
        load_stack(path)


def test_a_tier_whose_weights_have_no_named_precision_is_kept_so(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text().replace("quant: int4", "quant: null"), encoding="utf-8")
    stack = load_stack(path)
    assert stack.tiers[0].quant is None
    save_stack(path, stack)
    assert load_stack(path) == stack


@pytest.mark.parametrize("port", ["08000", "8_000", "2:13", "0x1F40", "yes"])
def test_a_port_that_is_no_plain_number_is_refused_with_its_line(tmp_path: Path, port: str) -> None:
    path = write(tmp_path)
    text = path.read_text().replace("port: 8000", f"port: {port}")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidFileError, match=r"line 3: `tiers\[0\]\.port`"):
        load_stack(path)


@pytest.mark.parametrize(
    ("role", "flags", "said"),
    [
        ("embedding", "max-tokens: 9", "served by another engine"),
        ("speech-to-text", "max-tokens: 9", "served by another engine"),
        ("poet", "", "role"),
    ],
)
def test_a_role_that_nothing_serves_as_it_is_defined_is_refused(
    tmp_path: Path, role: str, flags: str, said: str
) -> None:
    path = write(tmp_path, flags)
    path.write_text(path.read_text().replace("name: standard", f"name: standard, role: {role}"))
    with pytest.raises(InvalidFileError, match=said):
        load_stack(path)


@pytest.mark.parametrize(
    "role", ["chat", "vision", "embedding", "rerank", "speech-to-text", "text-to-speech"]
)
def test_a_tier_has_a_role(tmp_path: Path, role: str) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text().replace("name: standard", f"name: standard, role: {role}"))
    stack = load_stack(path)
    save_stack(path, stack)
    assert str(load_stack(path).tiers[0].role) == role
    assert bool(stack.chatting) == (role in ("chat", "vision"))


def test_what_needs_answers_says_so_of_a_tier_that_writes_none(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text().replace("name: standard", "name: standard, role: rerank"))
    stack = load_stack(path)
    with pytest.raises(UsageError, match="writes no answers"):
        require_role(stack.tiers[0])
    with pytest.raises(StackError, match="No tier of the stack chats"):
        _ = stack.main_tier


THREE = """[
    {host: here, rdma: [null, rdma_en1, rdma_en2]},
    {host: b, rdma: [rdma_en3, null, rdma_en4]},
    {host: c, rdma: [rdma_en5, rdma_en6, null]}]"""


def write_hosts(folder: Path, hosts: str, more: str = "engine: mlx-lm") -> Path:
    path = write(folder)
    text = path.read_text().replace("vllm_flags: {}", f"vllm_flags: {{}}, {more}, hosts: {hosts}")
    path.write_text(text, encoding="utf-8")
    return path


def test_a_tier_is_divided_between_the_macs_it_names(tmp_path: Path) -> None:
    path = write_hosts(
        tmp_path,
        "[studio-b, {host: here, address: 169.254.1.1}, "
        "{host: me@studio-c, address: 169.254.1.3, home: ~/state}]",
    )
    stack = load_stack(path)
    (tier,) = stack.tiers
    third = Host(host="me@studio-c", address="169.254.1.3", home="~/state")
    assert tier.workers == (Host(host="studio-b"), third)
    assert tier.own_address == "169.254.1.1"
    assert [tier.ring_port(rank) for rank in range(3)] == [20_000, 20_001, 20_002]
    save_stack(path, stack)
    assert load_stack(path) == stack


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        ("[-oProxyCommand=sh]", "hosts"),
        ("['b;sh']", "hosts"),
        ("['a@b@c']", "hosts"),
        ("[{host: b, adress: 10.0.0.1}]", "adress"),
        ("[{host: b, address: fe80::1}]", "isn't the IPv4 address of a Mac"),
        ("[{host: b, address: 0.0.0.0}]", "isn't the IPv4 address of a Mac"),
        ("[{host: b, address: studio.local}]", "isn't the IPv4 address of a Mac"),
        ("[{host: b, home: state}]", "isn't an absolute path"),
        (r"[{host: b, home: '/state\'}]", "isn't an absolute path"),
        ("[{host: b, home: '~root/state'}]", "isn't an absolute path"),
        ("[b, b]", "'b' is named twice"),
        ("[{host: b, address: 10.0.0.1}, {host: c, address: 10.0.0.1}]", "10.0.0.1 is named twice"),
        ("[b, here]", "'here' must have an `address` or `rdma`"),
        ("[{host: here, rdma: rdma_en5}, b]", "only some Macs have `rdma`"),
        (
            "[{host: b, rdma: rdma_en5}]",
            "only some Macs have `rdma`: all must have it, including 'here'",
        ),
        ("[{host: here, rdma: en5}, {host: b, rdma: rdma_en5}]", "of 'here' isn't a device"),
        ("[{host: here, rdma: rdma_en5}, {host: b, rdma: rdma_en5;sh}]", "of 'b' isn't a device"),
        ("[{host: here, rdma: [null, '']}, {host: b, rdma: rdma_en5}]", "of 'here' isn't a device"),
        (
            "[{host: here, rdma: rdma_en5}, {host: b, rdma: rdma_en5}, {host: c, rdma: rdma_en5}]",
            "`rdma` of 'here' must be a list",
        ),
        (
            "[{host: here, rdma: [null, rdma_en5]}, {host: b, rdma: [null, rdma_en5]}]",
            "`rdma` of 'b' must have a device for each Mac in their order",
        ),
        (
            "[{host: here, rdma: [null, rdma_en5, rdma_en4]}, {host: b, rdma: rdma_en5}]",
            "`rdma` of 'here' must have a device for each Mac in their order",
        ),
        ("[{host: here, address: 10.0.0.1}]", "1 to 7 other Macs"),
        ("[a, b, c, d, e, f, g, h]", "1 to 7 other Macs"),
    ],
)
def test_hosts_that_no_one_could_mean_are_refused(tmp_path: Path, hosts: str, said: str) -> None:
    with pytest.raises(InvalidFileError, match=said):
        load_stack(write_hosts(tmp_path, hosts))


@pytest.mark.parametrize(
    ("hosts", "devices"),
    [
        ("[b]", ()),
        (
            "[{host: b, rdma: rdma_en4}, {host: here, rdma: rdma_en5}]",
            ((None, "rdma_en5"), ("rdma_en4", None)),
        ),
        (
            THREE,
            (
                (None, "rdma_en1", "rdma_en2"),
                ("rdma_en3", None, "rdma_en4"),
                ("rdma_en5", "rdma_en6", None),
            ),
        ),
    ],
)
def test_macs_may_be_named_with_the_devices_between_them(
    tmp_path: Path, hosts: str, devices: object
) -> None:
    path = write_hosts(tmp_path, hosts)
    stack = load_stack(path)
    assert stack.tiers[0].rdma_devices == devices
    assert stack.tiers[0].own_address is None
    save_stack(path, stack)
    assert load_stack(path) == stack


@pytest.mark.parametrize(
    ("hosts", "more", "said"),
    [
        ("[b]", "engine: null", "needs `engine: mlx-lm`"),
        ("[b]", "role: vision", "needs `engine: mlx-lm`"),
        ("[b]", "engine: mlx-lm, replicas: [{node: n, tier: t}]", "both `hosts` and `replicas`"),
        ("[]", "engine: mlx-lm, mlx_lm_flags: {pipeline: true}", "no `hosts`"),
    ],
)
def test_only_mlx_lm_runs_on_several_macs(tmp_path: Path, hosts: str, more: str, said: str) -> None:
    with pytest.raises(InvalidFileError, match=said):
        load_stack(write_hosts(tmp_path, hosts, more))


@pytest.mark.parametrize(
    ("port", "more", "said"),
    [
        (9000, "engine: mlx-lm, hosts: [c]", "port 9000 of 'other' .* use 20000 to 20001"),
        (20_001, "", "port 20001 of 'other' .* use 20000 to 20001"),
        (20_002, "", None),
        (8001, "engine: mlx-lm, hosts: [b]", None),
    ],
)
def test_macs_of_one_tier_never_connect_to_those_of_another(
    tmp_path: Path, port: int, more: str, said: str | None
) -> None:
    path = write_hosts(tmp_path, "[b]")
    fields = f"name: other, model: m, quant: int4, source: o/r, port: {port}, vllm_flags: {{}}"
    path.write_text(f"{path.read_text().rstrip()}\n- {{{fields}{', ' if more else ''}{more}}}\n")
    if said is None:
        assert len(load_stack(path).tiers) == 2
    else:
        with pytest.raises(InvalidFileError, match=said):
            load_stack(path)
