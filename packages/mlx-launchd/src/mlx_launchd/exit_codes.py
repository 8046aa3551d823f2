"""What launchctl's exit codes mean, by verb; only numbers, since its text changes (decision 0065).

The codes are errno values or launchd's own (112, 113, 119, 122, 125); `launchctl error N` decodes
one. They were recorded on macOS 11 to 27 by Homebrew, lima, Tailscale and others, and on Darwin
25.6.0.
"""

from enum import StrEnum


class Verb(StrEnum):
    """A subcommand of launchctl."""

    PRINT = "print"
    BOOTSTRAP = "bootstrap"
    BOOTOUT = "bootout"
    KICKSTART = "kickstart"
    ENABLE = "enable"
    PRINT_DISABLED = "print-disabled"


class LaunchctlStatus(StrEnum):
    """The status that launchctl reported; a caller acts differently on each."""

    DONE = "done"
    """Done, or begun. For a bootstrap, this counts only once `print` agrees."""
    NOT_LOADED = "not loaded"
    """The domain has no job with this label."""
    NO_DOMAIN = "no domain"
    """The domain does not exist: its user isn't logged in."""
    NOT_PERMITTED = "not permitted"
    """The domain belongs to another user, or to root."""
    ALREADY_LOADED = "already loaded"
    """The label is loaded, or the job with that label is still being torn down."""
    STOPPING = "stopping"
    """The job is stopping, and has not stopped yet."""
    DISABLED = "disabled"
    """The label is disabled in the database of `launchctl disable`."""
    REFUSED = "refused"
    """The domain does not accept such a job.

    There is no session, or the user disabled the job in Login Items.
    """
    BAD_FILE = "bad file"
    """launchd doesn't accept the plist's owner, mode or volume."""
    NO_FILE = "no file"
    """There is no plist at that path."""
    IO_ERROR = "input/output error"
    """launchd's answer to almost anything; only a further command shows the cause.

    A loaded label, a job being torn down, a disabled label on older systems, a bad plist, missing
    permission, and sometimes, on macOS 14, a job that did load.
    """
    UNKNOWN = "unknown"
    """A code that isn't in this table."""


STATUSES: dict[Verb, dict[int, LaunchctlStatus]] = {
    Verb.PRINT: {
        1: LaunchctlStatus.NOT_PERMITTED,
        112: LaunchctlStatus.NO_DOMAIN,
        113: LaunchctlStatus.NOT_LOADED,
    },
    Verb.BOOTSTRAP: {
        1: LaunchctlStatus.NOT_PERMITTED,
        2: LaunchctlStatus.NO_FILE,
        5: LaunchctlStatus.IO_ERROR,
        17: LaunchctlStatus.ALREADY_LOADED,
        37: LaunchctlStatus.ALREADY_LOADED,
        119: LaunchctlStatus.DISABLED,
        122: LaunchctlStatus.BAD_FILE,
        125: LaunchctlStatus.REFUSED,
    },
    Verb.BOOTOUT: {
        1: LaunchctlStatus.NOT_PERMITTED,
        3: LaunchctlStatus.NOT_LOADED,
        5: LaunchctlStatus.IO_ERROR,
        36: LaunchctlStatus.STOPPING,
        113: LaunchctlStatus.NOT_LOADED,
        125: LaunchctlStatus.NO_DOMAIN,
    },
    Verb.KICKSTART: {
        1: LaunchctlStatus.NOT_PERMITTED,
        113: LaunchctlStatus.NOT_LOADED,
    },
    Verb.ENABLE: {1: LaunchctlStatus.NOT_PERMITTED},
    # Only asked to explain another failure: whatever it says but 0 explains nothing.
    Verb.PRINT_DISABLED: {},
}
"""Every known code, by verb; 0 is DONE for all."""


def classify(verb: Verb, returncode: int) -> LaunchctlStatus:
    """The meaning of this exit code of this verb."""
    if returncode == 0:
        return LaunchctlStatus.DONE
    return STATUSES[verb].get(returncode, LaunchctlStatus.UNKNOWN)
