"""A job survives being written and read, and what launchd would misread is refused."""

import plistlib
import shutil
import subprocess
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_launchd import (
    CalendarInterval,
    KeepAlive,
    LaunchAgent,
    PlistError,
    ProcessType,
    ResourceLimits,
    from_plist,
    to_plist,
    validate,
)

AGENT = LaunchAgent(
    label="org.quill.indexd",
    program_arguments=("/opt/quill/bin/indexd", "--root", "/Users/robin/Notes"),
    run_at_load=True,
    keep_alive=KeepAlive(successful_exit=False),
    environment_variables={"PATH": "/opt/quill/bin:/usr/bin:/bin"},
    standard_out_path="/Users/robin/Library/Logs/quill/indexd.log",
    process_type=ProcessType.INTERACTIVE,
    exit_timeout_s=30,
    throttle_interval_s=20,
    umask=0o022,
    soft_resource_limits=ResourceLimits(number_of_files=4096),
)

text = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=12
)
arguments = text.filter(lambda t: not t.startswith("~"))
paths = text.map(lambda t: "/" + t)
naturals = st.integers(0, (1 << 64) - 1)
limits = st.builds(
    ResourceLimits,
    **{name: st.none() | naturals for name in ("core_bytes", "cpu_s", "stack_bytes")},
)
keep_alive = st.builds(
    KeepAlive,
    successful_exit=st.none() | st.booleans(),
    crashed=st.none() | st.booleans(),
    path_state=st.dictionaries(paths, st.booleans(), max_size=2),
    other_job_enabled=st.dictionaries(text, st.booleans(), max_size=2),
)
moments = st.builds(
    CalendarInterval, minute=st.none() | st.integers(0, 59), weekday=st.none() | st.integers(0, 7)
)
other_values = st.recursive(
    st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | text
    | st.binary(max_size=8)
    | st.floats(allow_nan=False)
    | st.datetimes(min_value=datetime(1900, 1, 1)).map(lambda d: d.replace(microsecond=0)),  # noqa: DTZ001 -- a plist's dates are naive UTC
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
agents = st.builds(
    LaunchAgent,
    label=st.from_regex(r"[a-z]{1,8}(\.[a-z0-9-]{1,8}){1,3}", fullmatch=True),
    program_arguments=st.builds(lambda p, rest: (p, *rest), paths, st.lists(arguments, max_size=3)),
    program=st.none() | paths,
    disabled=st.booleans(),
    run_at_load=st.booleans(),
    keep_alive=st.booleans() | keep_alive,
    start_interval_s=st.none() | st.integers(1, 1 << 40),
    start_calendar_interval=st.lists(moments, max_size=2).map(tuple),
    watch_paths=st.lists(paths, max_size=2).map(tuple),
    environment_variables=st.dictionaries(
        text.filter(lambda t: bool(t) and "=" not in t),
        text.filter(lambda t: "~" not in t),
        max_size=3,
    ),
    working_directory=st.none() | paths,
    standard_error_path=st.none() | paths,
    throttle_interval_s=st.none() | naturals,
    exit_timeout_s=st.none() | naturals,
    process_type=st.none() | st.sampled_from(ProcessType),
    nice=st.none() | st.integers(-20, 20),
    umask=st.none() | st.integers(0, 0o777),
    soft_resource_limits=limits,
    hard_resource_limits=limits,
    abandon_process_group=st.booleans(),
    limit_load_to_session_type=st.lists(st.sampled_from(["Aqua", "Background"]), max_size=2).map(
        tuple
    ),
    user_name=st.none() | text,
    init_groups=st.none() | st.booleans(),
    other_keys=st.dictionaries(text.map(lambda t: "X-" + t), other_values, max_size=2),
)


@given(agents)
def test_every_job_reads_back_as_it_was_written(agent: LaunchAgent) -> None:
    assert from_plist(to_plist(agent)) == agent


@given(agents)
def test_a_binary_plist_reads_the_same(agent: LaunchAgent) -> None:
    entries = plistlib.loads(to_plist(agent))
    assert from_plist(plistlib.dumps(entries, fmt=plistlib.FMT_BINARY)) == agent


@given(
    st.builds(
        lambda data, start, length, filler: data[:start] + filler + data[start + length :],
        agents.map(to_plist) | st.binary(max_size=60).map(b"bplist00".__add__),
        st.integers(0, 900),
        st.integers(0, 80),
        st.binary(max_size=20) | st.sampled_from([b"<key>a</key>", b"</dict>", b"<integer/>"]),
    )
)
def test_a_damaged_plist_raises_nothing_but_the_librarys_error(data: bytes) -> None:
    with suppress(PlistError):
        from_plist(data)


def test_the_file_has_launchds_own_keys_and_leaves_defaults_out() -> None:
    assert plistlib.loads(to_plist(AGENT)) == {
        "Label": "org.quill.indexd",
        "ProgramArguments": ["/opt/quill/bin/indexd", "--root", "/Users/robin/Notes"],
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "EnvironmentVariables": {"PATH": "/opt/quill/bin:/usr/bin:/bin"},
        "StandardOutPath": "/Users/robin/Library/Logs/quill/indexd.log",
        "ProcessType": "Interactive",
        "ExitTimeOut": 30,
        "ThrottleInterval": 20,
        "Umask": 18,
        "SoftResourceLimits": {"NumberOfFiles": 4096},
    }


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"label": ""}, "Label"),
        ({"label": "a/b"}, "Label"),
        ({"label": "a b"}, "Label"),
        ({"program_arguments": ()}, "ProgramArguments"),
        ({"program_arguments": ("indexd",)}, "ProgramArguments.0"),
        ({"program_arguments": ("/bin/indexd", "~/Notes")}, "ProgramArguments.1"),
        ({"program": "indexd"}, "Program"),
        ({"working_directory": "~"}, "WorkingDirectory"),
        ({"standard_out_path": "out.log"}, "StandardOutPath"),
        ({"watch_paths": ("a",)}, "WatchPaths.0"),
        ({"keep_alive": KeepAlive(path_state={"a": True})}, "KeepAlive.PathState"),
        ({"environment_variables": {"PATH": "/bin:~/bin"}}, "EnvironmentVariables.PATH"),
        ({"environment_variables": {"A=B": "c"}}, "EnvironmentVariables"),
        ({"environment_variables": {"A": "\x1b[31m"}}, "EnvironmentVariables.A"),
        ({"exit_timeout_s": -1}, "ExitTimeOut"),
        ({"nice": 21}, "Nice"),
        ({"umask": 0o1000}, "Umask"),
        ({"start_interval_s": 0}, "StartInterval"),
        (
            {"start_calendar_interval": (CalendarInterval(hour=24),)},
            "StartCalendarInterval.0.Hour",
        ),
        (
            {"hard_resource_limits": ResourceLimits(number_of_files=-1)},
            "HardResourceLimits.NumberOfFiles",
        ),
        ({"limit_load_to_session_type": ("Terminal",)}, "LimitLoadToSessionType"),
        ({"other_keys": {"Label": "b"}}, "Label"),
        ({"other_keys": {"X": [{"y": "\x00"}]}}, "X.0.y"),
        ({"other_keys": {"X": 1 << 64}}, "X"),
        ({"working_directory": "/a\rb"}, "WorkingDirectory"),
        # what a type checker would have refused
        ({"label": None}, "Label"),
        ({"program_arguments": "/bin/indexd"}, "ProgramArguments"),
        ({"program_arguments": ("/bin/indexd", 3)}, "ProgramArguments.1"),
        ({"environment_variables": {"A": 1}}, "EnvironmentVariables.A"),
        ({"environment_variables": {1: "a"}}, "EnvironmentVariables"),
        ({"standard_error_path": Path("/tmp/log")}, "StandardErrorPath"),
        ({"exit_timeout_s": "30"}, "ExitTimeOut"),
        ({"throttle_interval_s": 0.5}, "ThrottleInterval"),
        ({"run_at_load": "yes"}, "RunAtLoad"),
        ({"keep_alive": KeepAlive(crashed=1)}, "KeepAlive.Crashed"),
        ({"process_type": "Fast"}, "ProcessType"),
        ({"other_keys": {"X": None}}, "X"),
    ],
)
def test_what_launchd_would_refuse_or_misread_is_not_written(
    changes: dict[str, Any], key: str
) -> None:
    with pytest.raises(PlistError) as raised:
        to_plist(replace(AGENT, **changes))
    assert raised.value.key == key


def test_a_user_is_named_in_a_daemon_and_a_session_in_an_agent_only() -> None:
    daemon = replace(AGENT, user_name="robin")
    validate(daemon, system=True)
    with pytest.raises(PlistError, match="UserName"):
        validate(daemon, system=False)
    aqua = replace(AGENT, limit_load_to_session_type=("Aqua",))
    validate(aqua, system=False)
    with pytest.raises(PlistError, match="LimitLoadToSessionType"):
        validate(aqua, system=True)


@pytest.mark.parametrize(
    ("entries", "key"),
    [
        ({}, "Label"),
        ({"Label": 3}, "Label"),
        ({"Label": "a", "RunAtLoad": 1}, "RunAtLoad"),
        ({"Label": "a", "Nice": True}, "Nice"),
        ({"Label": "a", "ProgramArguments": "/bin/sh"}, "ProgramArguments"),
        ({"Label": "a", "ProgramArguments": ["/bin/sh", 1]}, "ProgramArguments.1"),
        ({"Label": "a", "EnvironmentVariables": {"A": 1}}, "EnvironmentVariables.A"),
        ({"Label": "a", "KeepAlive": {"Sometimes": True}}, "KeepAlive.Sometimes"),
        ({"Label": "a", "ProcessType": "Fast"}, "ProcessType"),
        ({"Label": "a", "SoftResourceLimits": [1]}, "SoftResourceLimits"),
        ({"Label": "a", "Umask": "rw"}, "Umask"),
    ],
)
def test_a_value_of_another_type_is_named_by_its_key(entries: dict[str, Any], key: str) -> None:
    with pytest.raises(PlistError) as raised:
        from_plist(plistlib.dumps(entries))
    assert raised.value.key == key


def test_the_two_forms_that_launchd_allows_are_both_read() -> None:
    entries = {
        "Label": "a",
        "Umask": "022",
        "LimitLoadToSessionType": "Aqua",
        "StartCalendarInterval": {"Hour": 4},
        "AssociatedBundleIdentifiers": "org.quill.app",
    }
    agent = from_plist(plistlib.dumps(entries))
    assert agent.umask == 0o22
    assert agent.limit_load_to_session_type == ("Aqua",)
    assert agent.start_calendar_interval == (CalendarInterval(hour=4),)
    assert agent.associated_bundle_identifiers == ("org.quill.app",)


@pytest.mark.parametrize("data", [b"", b"Label=a", plistlib.dumps([1]), b"<plist><dict>"])
def test_what_is_no_dictionary_is_refused(data: bytes) -> None:
    with pytest.raises(PlistError):
        from_plist(data)


@pytest.mark.plistutil
def test_a_second_reader_of_plists_reads_the_same(tmp_path: Path) -> None:
    program = shutil.which("plistutil")
    assert program is not None, "install libplist-utils"
    written = tmp_path / "a.plist"
    agent = replace(AGENT, environment_variables={"GREETING": "grüß <& 'dich'>"})
    written.write_bytes(to_plist(agent))
    read = tmp_path / "b.plist"
    subprocess.run([program, "-i", written, "-f", "bin", "-o", read], check=True)
    assert from_plist(read.read_bytes()) == agent
