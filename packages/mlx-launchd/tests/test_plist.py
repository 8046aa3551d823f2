"""The file says what was asked for, and what launchd would misread is refused."""

import plistlib
import shutil
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_launchd import LaunchAgent, PlistError, ProcessType, read_entries, to_plist

AGENT = LaunchAgent(
    label="org.quill.indexd",
    program_arguments=("/opt/quill/bin/indexd", "--root", "/Users/robin/Notes"),
    run_at_load=True,
    environment_variables={"PATH": "/opt/quill/bin:/usr/bin:/bin"},
    standard_out_path="/Users/robin/Library/Logs/quill/indexd.log",
    process_type=ProcessType.INTERACTIVE,
    exit_timeout_s=0,
    throttle_interval_s=20,
    number_of_files=4096,
    other_keys={"KeepAlive": {"SuccessfulExit": False}, "Umask": 0o022},
)

text = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=12
)
arguments = text.filter(lambda t: not t.startswith("~"))
paths = text.map(lambda t: "/" + t)
naturals = st.integers(0, (1 << 64) - 1)
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
    run_at_load=st.booleans(),
    keep_alive=st.booleans(),
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
    number_of_files=st.none() | naturals,
    user_name=st.none() | text,
    other_keys=st.dictionaries(text.map(lambda t: "X-" + t), other_values, max_size=2),
)


@given(agents)
def test_launchd_reads_every_value_as_it_was_given(agent: LaunchAgent) -> None:
    read = plistlib.loads(to_plist(agent))
    assert read["Label"] == agent.label
    assert tuple(read["ProgramArguments"]) == agent.program_arguments
    assert read.get("EnvironmentVariables", {}) == agent.environment_variables
    assert read.get("WorkingDirectory") == agent.working_directory
    assert read.get("StandardErrorPath") == agent.standard_error_path
    assert read.get("ThrottleInterval") == agent.throttle_interval_s
    assert read.get("ExitTimeOut") == agent.exit_timeout_s
    assert read.get("ProcessType") == agent.process_type
    assert read.get("SoftResourceLimits", {}).get("NumberOfFiles") == agent.number_of_files
    assert read.get("UserName") == agent.user_name
    assert {key: value for key, value in read.items() if key.startswith("X-")} == agent.other_keys
    assert read.get("RunAtLoad", False) is agent.run_at_load
    assert read.get("KeepAlive", False) is agent.keep_alive
    assert read_entries(to_plist(agent)) == read


def test_the_file_has_launchds_own_keys_and_leaves_defaults_out() -> None:
    assert plistlib.loads(to_plist(AGENT)) == {
        "Label": "org.quill.indexd",
        "ProgramArguments": ["/opt/quill/bin/indexd", "--root", "/Users/robin/Notes"],
        "RunAtLoad": True,
        "EnvironmentVariables": {"PATH": "/opt/quill/bin:/usr/bin:/bin"},
        "StandardOutPath": "/Users/robin/Library/Logs/quill/indexd.log",
        "ProcessType": "Interactive",
        "ExitTimeOut": 0,
        "ThrottleInterval": 20,
        "SoftResourceLimits": {"NumberOfFiles": 4096},
        "KeepAlive": {"SuccessfulExit": False},
        "Umask": 18,
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
        ({"working_directory": "~"}, "WorkingDirectory"),
        ({"standard_out_path": "out.log"}, "StandardOutPath"),
        ({"standard_error_path": "err.log"}, "StandardErrorPath"),
        ({"environment_variables": {"PATH": "/bin:~/bin"}}, "EnvironmentVariables.PATH"),
        ({"environment_variables": {"A=B": "c"}}, "EnvironmentVariables"),
        ({"environment_variables": {"A": "\x1b[31m"}}, "EnvironmentVariables.A"),
        ({"exit_timeout_s": -1}, "ExitTimeOut"),
        ({"throttle_interval_s": 1 << 64}, "ThrottleInterval"),
        ({"number_of_files": -1}, "SoftResourceLimits.NumberOfFiles"),
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
        ({"number_of_files": True}, "SoftResourceLimits.NumberOfFiles"),
        ({"run_at_load": "yes"}, "RunAtLoad"),
        ({"keep_alive": {"Crashed": True}}, "KeepAlive"),
        ({"process_type": "Fast"}, "ProcessType"),
        ({"user_name": 501}, "UserName"),
        ({"other_keys": {"X": None}}, "X"),
    ],
)
def test_what_launchd_would_refuse_or_misread_is_not_written(
    changes: dict[str, Any], key: str
) -> None:
    with pytest.raises(PlistError) as raised:
        to_plist(replace(AGENT, **changes))
    assert raised.value.key == key


def test_a_user_is_named_in_a_daemon_only() -> None:
    daemon = replace(AGENT, user_name="robin")
    to_plist(daemon, system=True)
    with pytest.raises(PlistError, match="UserName"):
        to_plist(daemon, system=False)


@given(
    st.builds(
        lambda data, start, length, filler: data[:start] + filler + data[start + length :],
        agents.map(to_plist) | st.binary(max_size=60).map(b"bplist00".__add__),
        st.integers(0, 900),
        st.integers(0, 80),
        st.binary(max_size=20) | st.sampled_from([b"<key>a</key>", b"</dict>", b"<integer/>"]),
    )
)
def test_a_damaged_plist_has_entries_or_none_and_raises_nothing(data: bytes) -> None:
    assert isinstance(read_entries(data), dict)


@pytest.mark.parametrize("data", [b"", b"Label=a", plistlib.dumps([1]), b"<plist><dict>"])
def test_what_is_not_a_plist_has_no_entries(data: bytes) -> None:
    assert read_entries(data) == {}


@pytest.mark.plistutil
def test_a_second_reader_of_plists_reads_the_same(tmp_path: Path) -> None:
    program = shutil.which("plistutil")
    assert program is not None, "install libplist-utils"
    written = tmp_path / "a.plist"
    agent = replace(AGENT, environment_variables={"GREETING": "grüß <& 'dich'>"})
    written.write_bytes(to_plist(agent))
    read = tmp_path / "b.plist"
    subprocess.run([program, "-i", written, "-f", "bin", "-o", read], check=True)
    assert plistlib.loads(read.read_bytes()) == plistlib.loads(to_plist(agent))
