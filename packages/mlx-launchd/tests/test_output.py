"""What the readers of launchctl's texts take, and what they leave alone."""

import json
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_launchd import (
    LaunchdError,
    OutputError,
    PrintedJob,
    parse_print,
    parse_print_disabled,
)

DATA = Path(__file__).parent / "data"
PRINTED = [*sorted(DATA.glob("print_[!d]*.txt")), DATA / "print_daemon_macos15.txt"]


def recorded(name: str) -> str:
    return (DATA / name).read_text()


def test_a_running_job_shows_its_process_and_how_it_ended_before() -> None:
    job = parse_print(recorded("print_running_macos27.txt"))
    assert job == PrintedJob(
        target="gui/502/org.quill.indexd",
        state="running",
        pid=71934,
        last_exit_code=75,
        last_exit_name="EX_TEMPFAIL",
        runs=3,
        type="LaunchAgent",
        path="/Users/robin/Library/LaunchAgents/org.quill.indexd.plist",
        program="/Users/robin/.local/share/quill/bin/indexd",
        job_state="running",
        exit_timeout_s=25,
        minimum_runtime_s=20,
        spawn_type="interactive (4)",
        domain="gui/502 [100037]",
        properties=("keepalive", "runatload", "inferred program", "managed LWCR", "has LWCR"),
    )


def test_a_job_that_never_ran_has_no_exit_code() -> None:
    job = parse_print(recorded("print_never_run_macos27.txt"))
    assert (job.state, job.pid, job.last_exit_code, job.runs) == ("not running", None, None, 0)


def test_a_job_ended_by_a_signal_shows_the_signal_instead_of_an_exit_code() -> None:
    job = parse_print(recorded("print_killed_macos26.txt"))
    assert job.last_exit_code is None
    assert (job.last_terminating_signal, job.last_terminating_signal_name) == (9, "Killed")
    assert job.last_exit_reason == "OS_REASON_CODESIGNING | 0x2"


def test_macos_11_has_no_type_and_may_be_indented_with_spaces() -> None:
    job = parse_print(recorded("print_macos11_spaces.txt"))
    assert (job.state, job.type, job.last_exit_code, job.runs) == ("waiting", None, 2, 18)
    assert job.path == "/Library/LaunchAgents/net.fernwood.menubar.plist"


def test_an_argument_that_looks_like_a_state_is_not_the_state() -> None:
    job = parse_print(recorded("print_daemon_macos15.txt"))
    assert (job.state, job.pid, job.type) == ("running", 512, "LaunchDaemon")


def test_a_job_submitted_by_an_application_has_no_path() -> None:
    job = parse_print(recorded("print_submitted_macos14.txt"))
    assert (job.path, job.program, job.type) == (None, None, "Submitted")
    assert (job.last_exit_code, job.last_exit_name) == (78, "EX_CONFIG")


@pytest.mark.parametrize(
    ("value", "number", "name"),
    [
        ("Terminated: 15", 15, "Terminated"),
        ("15", 15, None),
        ("Segmentation fault: 11 (core dumped)", 11, "Segmentation fault"),
        ("no number", None, None),
    ],
)
def test_a_signal_is_read_with_and_without_its_name(
    value: str, number: int | None, name: str | None
) -> None:
    job = parse_print(f"gui/1/a = {{\n\tlast terminating signal = {value}\n}}\n")
    assert (job.last_terminating_signal, job.last_terminating_signal_name) == (number, name)


@pytest.mark.parametrize(
    ("value", "code"), [("0", 0), ("-9", -9), ("(never exited)", None), ("9" * 5000, None)]
)
def test_an_exit_code_is_a_number_or_unknown(value: str, code: int | None) -> None:
    assert parse_print(f"gui/1/a = {{\n\tlast exit code = {value}\n}}\n").last_exit_code == code


@pytest.mark.parametrize("value", ["0", "-1", "12a", "", "٣"])
def test_a_pid_that_is_none_is_unknown(value: str) -> None:
    assert parse_print(f"gui/1/a = {{\n\tstate = running\n\tpid = {value}\n}}\n").pid is None


def test_a_nested_block_never_leaks_even_where_it_is_not_closed() -> None:
    text = (
        "gui/1/a = {\n\tstate = running\n\tenvironment = {\n\t\tX => 1\n\tpid = 4\n\truns = 9\n}\n"
    )
    job = parse_print(text)
    assert (job.state, job.pid, job.runs) == ("running", None, None)


def test_an_argument_of_several_lines_cannot_pass_for_a_field() -> None:
    text = (
        "gui/1/a = {\n\targuments = {\n\t\tsh\n\t\t-c\n\t\techo\n\tstate = forged\n\tpid = 6\n\t}\n"
        "\tstate = running\n\tpid = 77\n}\n"
    )
    job = parse_print(text)
    assert (job.state, job.pid) == ("running", 77)


@pytest.mark.parametrize("path", PRINTED, ids=lambda p: p.stem)
def test_carriage_returns_and_an_indented_paste_read_the_same(path: Path) -> None:
    text = path.read_text()
    expected = parse_print(text)
    assert parse_print(text.replace("\n", "\r\n")) == expected
    assert (
        parse_print("".join(f"    {line}" for line in text.splitlines(keepends=True))) == expected
    )
    assert parse_print(text.expandtabs(4)) == expected
    assert parse_print("$ launchctl print gui/502/x\n\n" + text) == expected
    assert parse_print(text.strip()) == expected


@pytest.mark.parametrize("path", PRINTED, ids=lambda p: p.stem)
def test_without_any_indentation_braces_still_tell_blocks_apart(path: Path) -> None:
    text = path.read_text()
    if "QUILL_MODE" in text:
        text = text.replace("0 = \t\t\t\t]", "0 = ]")
    flat = "\n".join(line.strip() for line in text.split("\n"))
    assert parse_print(flat) == parse_print(text)


@pytest.mark.parametrize("path", PRINTED, ids=lambda p: p.stem)
def test_a_text_cut_off_anywhere_gives_true_values_or_none(path: Path) -> None:
    text = path.read_text()
    whole = parse_print(text)
    for end in range(len(text)):
        try:
            cut = parse_print(text[:end])
        except OutputError:
            continue
        for field in fields(PrintedJob):
            value = getattr(cut, field.name)
            assert value in (None, (), getattr(whole, field.name)), (end, field.name)


@pytest.mark.parametrize(
    "text", ["", "\n\n", "Bad request.\nCould not find service", "{}", "\x00", "}" * 50]
)
def test_what_launchctl_never_prints_is_refused(text: str) -> None:
    with pytest.raises(OutputError):
        parse_print(text)


damaged = st.builds(
    lambda text, start, length, filler: text[:start] + filler + text[start + length :],
    st.sampled_from([path.read_text() for path in sorted(DATA.glob("*.txt"))]),
    st.integers(0, 2500),
    st.integers(0, 400),
    st.text(max_size=40) | st.sampled_from(["{", "}", "\n\t}\n", " = ", "\n{\n", "=>", "\t\t]"]),
)


@given(damaged | st.text(max_size=300))
def test_a_damaged_text_raises_nothing_but_the_librarys_error(text: str) -> None:
    for parse in (parse_print, parse_print_disabled):
        with suppress(LaunchdError):
            parse(text)


@given(
    st.dictionaries(
        st.sampled_from(["state", "pid", "runs", "path", "program", "type", "last exit code"]),
        st.text("abc /:.019", min_size=1).map(str.strip).filter(bool),
    ),
    st.lists(
        st.recursive(
            st.sampled_from(["state = active", "pid = 1", "runs = 1", "path = /x", "x => y"]),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=6,
        ),
        max_size=4,
    ),
)
def test_whatever_is_nested_only_the_jobs_own_fields_count(
    own: dict[str, str], nested: list[object]
) -> None:
    def rendered(value: object, level: int) -> str:
        if isinstance(value, list):
            inner = "".join(rendered(member, level + 1) for member in value)
            return f"{'\t' * level}some block = {{\n{inner}{'\t' * level}}}\n"
        return f"{'\t' * level}{value}\n"

    blocks = rendered(nested, 1)
    lines = [f"\t{key} = {value}\n" for key, value in own.items()]
    alone = parse_print("gui/501/a.b = {\n" + "".join(lines) + "}\n")
    mixed = parse_print("gui/501/a.b = {\n" + blocks + blocks.join(lines) + blocks + "}\n")
    assert mixed == alone


def test_both_vocabularies_of_print_disabled_are_read() -> None:
    assert parse_print_disabled(recorded("print_disabled_macos26.txt")) == {
        "com.apple.Siri.agent": True,
        "org.quill.indexd": False,
        'odd " => label': True,
    }
    assert parse_print_disabled(recorded("print_disabled_macos12.txt")) == {
        "com.apple.ftp-proxy": True,
        "org.quill.indexd": False,
    }


@pytest.mark.parametrize("text", ["disabled services = {\n}\n", "disabled services = {}"])
def test_a_domain_without_overrides_has_none(text: str) -> None:
    assert parse_print_disabled(text) == {}


def test_login_items_are_no_overrides_even_where_the_block_before_is_not_closed() -> None:
    text = 'disabled services = {\n\t"a" => true\nlogin item associations = {\n\t"b" => true\n}\n'
    assert parse_print_disabled(text) == {"a": True}


@pytest.mark.parametrize("text", ["", '"a" => true', "login item associations = {\n}\n"])
def test_a_text_without_overrides_block_is_refused(text: str) -> None:
    with pytest.raises(OutputError):
        parse_print_disabled(text)


def test_a_label_of_any_letters_keeps_its_override() -> None:
    labels = {"ünïcode.läbel": True, "with space": False, json.dumps("q"): True}
    rows = "".join(f'\t"{label}" => {str(off).lower()}\n' for label, off in labels.items())
    assert parse_print_disabled(f"disabled services = {{\n{rows}}}\n") == labels
