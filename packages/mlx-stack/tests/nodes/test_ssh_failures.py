"""What OpenSSH's client says, in the words of someone who can do something about it."""

import pytest

from mlx_stack.nodes.ssh import failure_in, ssh_command

CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
Host key for studio has changed and you have requested strict checking.
Host key verification failed."""
UNKNOWN = """\
No ED25519 host key is known for studio and you have requested strict checking.
Host key verification failed."""


@pytest.mark.parametrize(
    ("said", "message", "hint"),
    [
        (
            "me@studio: Permission denied (publickey,password,keyboard-interactive).",
            "asks for a password",
            "`ssh-copy-id studio`",
        ),
        (UNKNOWN, "is not known here", "ssh-keygen -lf"),
        (CHANGED, "has another host key", "ssh-keygen -R"),
        (
            "ssh: Could not resolve hostname studio: nodename nor servname provided, or not known",
            "no address for studio",
            "~/.ssh/config",
        ),
        (
            "ssh: connect to host studio port 22: Operation timed out",
            "does not answer",
            "Is it awake",
        ),
        ("ssh: connect to host studio port 22: No route to host", "no route to studio", "cable"),
        ("ssh: connect to host studio port 22: Host is down", "no route to studio", "cable"),
        (
            "ssh: connect to host studio port 22: Connection refused",
            "logins over ssh",
            "Remote Login",
        ),
        ("Timeout, server studio not responding.", "does not answer", "Is it awake"),
        ("client_loop: send disconnect: Broken pipe", "broke off", "cable"),
        (
            "/Users/me/.ssh/config: line 3: Bad configuration option: hots",
            "hots",
            "`ssh -v studio`",
        ),
    ],
)
def test_each_failure_has_a_cure(said: str, message: str, hint: str) -> None:
    error = failure_in("studio", 255, said.splitlines())
    assert message in error.message
    assert "studio" in error.message
    assert error.hint is not None
    assert hint in error.hint


def test_what_a_command_over_there_failed_of_is_passed_on() -> None:
    error = failure_in("studio", 3, ["first", "last"])
    assert error.message == "A command on studio failed: last"
    assert error.code == 3


def test_no_word_of_a_command_is_read_by_the_shell_over_there() -> None:
    line = ssh_command("studio", ("echo", "a b; $(id)"))
    assert line[-3:] == ("--", "studio", "echo 'a b; $(id)'")
