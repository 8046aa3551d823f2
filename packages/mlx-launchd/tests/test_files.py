"""Plists on disk."""

import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from mlx_launchd import (
    Completed,
    LaunchctlError,
    LaunchdError,
    PlistError,
    ProgramMissingError,
    RootPlistFiles,
    SubprocessRun,
    UserPlistFiles,
    check_plist_file,
    lint,
)


def test_a_plist_is_written_whole_readable_by_all_and_writable_by_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "LaunchAgents" / "a.plist"
    UserPlistFiles().write(path, b"one")
    UserPlistFiles().write(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]
    check_plist_file(path, owner_uid=path.stat().st_uid)


def test_an_absent_plist_reads_as_none_and_can_be_removed(tmp_path: Path) -> None:
    files = UserPlistFiles()
    assert files.read(tmp_path / "a.plist") is None
    files.remove(tmp_path / "a.plist")


def test_a_folder_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    blocker = tmp_path / "LaunchAgents"
    blocker.write_text("")
    with pytest.raises(LaunchdError, match="cannot write"):
        UserPlistFiles().write(blocker / "a.plist", b"")
    with pytest.raises(LaunchdError, match="cannot read"):
        UserPlistFiles().read(blocker / "a.plist")


def test_a_plist_that_others_may_write_or_that_is_a_link_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "a.plist"
    path.write_bytes(b"")
    path.chmod(0o664)
    uid = path.stat().st_uid
    with pytest.raises(PlistError, match="only its owner"):
        check_plist_file(path, owner_uid=uid)
    link = tmp_path / "b.plist"
    link.symlink_to(path)
    with pytest.raises(PlistError, match="regular file"):
        check_plist_file(link, owner_uid=uid)


def test_root_reads_a_file_from_standard_input_and_no_file_of_the_user(tmp_path: Path) -> None:
    asked: list[tuple[tuple[str, ...], str | None]] = []

    def run(command: Sequence[str], /, stdin: str | None = None) -> Completed:
        asked.append((tuple(command), stdin))
        if stdin is not None:
            target.write_text(stdin)
        return Completed(0)

    target = tmp_path / "a.plist"
    files = RootPlistFiles(run)
    files.write(target, b"one")
    assert asked == [
        (("/usr/bin/sudo", "/usr/bin/tee", str(target)), "one"),
        (("/usr/bin/sudo", "/bin/chmod", "0644", str(target)), None),
    ]
    assert files.write_commands(target) == tuple(command for command, _ in asked)
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_is_not_there_is_named_before_anything_is_asked_of_root(
    tmp_path: Path,
) -> None:
    def run(command: Sequence[str], /, stdin: str | None = None) -> Completed:
        raise AssertionError((command, stdin))

    with pytest.raises(LaunchdError, match=r"there is no folder .*/LaunchDaemons") as refused:
        RootPlistFiles(run).write(tmp_path / "LaunchDaemons" / "a.plist", b"one")
    assert "sudo mkdir" in (refused.value.hint or "")


def test_a_file_that_landed_otherwise_than_it_was_written_is_removed_again(tmp_path: Path) -> None:
    target = tmp_path / "a.plist"

    def run(command: Sequence[str], /, stdin: str | None = None) -> Completed:
        if command[1] == "/bin/rm":
            target.unlink()
        elif stdin is not None:
            target.write_bytes(b"<plist>/bin/sh -c ...</plist>")
        return Completed(0)

    with pytest.raises(LaunchdError, match="does not contain what was written"):
        RootPlistFiles(run).write(target, b"one")
    assert not target.exists()


def test_a_denied_password_is_reported_with_the_command_to_run(tmp_path: Path) -> None:
    def run(_command: Sequence[str], /, stdin: str | None = None) -> Completed:
        assert stdin == ""
        return Completed(1, "", "sudo: a password is required\n")

    with pytest.raises(LaunchctlError, match="sudo /usr/bin/tee") as raised:
        RootPlistFiles(run).write(tmp_path / "a.plist", b"")
    assert raised.value.text == "sudo: a password is required"


def test_plutils_verdict_counts(tmp_path: Path) -> None:
    lint(lambda _command: Completed(0, "OK\n"), tmp_path)
    with pytest.raises(PlistError, match="line 3"):
        lint(lambda _command: Completed(1, "a.plist: bad at line 3\n"), tmp_path)


def test_programs_are_run_with_their_output_kept_apart() -> None:
    done = SubprocessRun()(("sh", "-c", "echo out; echo err >&2; exit 3"))
    assert done == Completed(3, "out\n", "err\n")


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(ProgramMissingError) as raised:
        SubprocessRun()(("launchctl-of-another-planet",))
    assert raised.value.program == "launchctl-of-another-planet"


def test_a_program_that_hangs_is_given_up() -> None:
    with pytest.raises(LaunchdError, match="did not answer"):
        SubprocessRun(timeout_s=0.05)(("sleep", "5"))
