"""What launchctl's exit codes mean, by verb; numbers only, since its words change.

The codes are errno values or launchd's own (112, 113, 119, 122, 125); `launchctl error N` decodes
one. Recorded on macOS 11 to 27 by Homebrew, lima, Tailscale and others, and on Darwin 25.6.0.
"""

from enum import StrEnum


class Verb(StrEnum):
    """A subcommand of launchctl."""

    PRINT = "print"
    BOOTSTRAP = "bootstrap"
    BOOTOUT = "bootout"
    KICKSTART = "kickstart"
    ENABLE = "enable"
    DISABLE = "disable"
    LIST = "list"
    PRINT_DISABLED = "print-disabled"


class Situation(StrEnum):
    """What launchctl found; a caller acts differently on each."""

    DONE = "done"
    """Done, or begun. Of a bootstrap it is believed only once `print` agrees."""
    NOT_LOADED = "not loaded"
    """The domain has no job of this label."""
    NO_DOMAIN = "no domain"
    """The domain does not exist: its user is not logged in."""
    NOT_PERMITTED = "not permitted"
    """The domain belongs to another user, or to root."""
    ALREADY_LOADED = "already loaded"
    """The label is loaded, or the job of that label is still being torn down."""
    STOPPING = "stopping"
    """The job was told to stop, and has not yet."""
    DISABLED = "disabled"
    """The label is switched off in the database of `launchctl disable`."""
    REFUSED = "refused"
    """The domain takes no such job: there is no session, or the user switched the job off in
    Login Items."""
    BAD_FILE = "bad file"
    """The plist's owner, mode or volume is not to launchd's liking."""
    NO_FILE = "no file"
    """There is no plist at that path."""
    IO_ERROR = "input/output error"
    """launchd's answer to almost anything: a loaded label, a job being torn down, a disabled label
    on older systems, a bad plist, missing rights, and on macOS 14 now and then a job that did
    load. Only another question tells which."""
    UNKNOWN = "unknown"
    """A code that nobody has written down."""


SITUATIONS: dict[Verb, dict[int, Situation]] = {
    Verb.PRINT: {
        1: Situation.NOT_PERMITTED,
        112: Situation.NO_DOMAIN,
        113: Situation.NOT_LOADED,
    },
    Verb.BOOTSTRAP: {
        1: Situation.NOT_PERMITTED,
        2: Situation.NO_FILE,
        5: Situation.IO_ERROR,
        17: Situation.ALREADY_LOADED,
        37: Situation.ALREADY_LOADED,
        119: Situation.DISABLED,
        122: Situation.BAD_FILE,
        125: Situation.REFUSED,
    },
    Verb.BOOTOUT: {
        1: Situation.NOT_PERMITTED,
        3: Situation.NOT_LOADED,
        5: Situation.IO_ERROR,
        36: Situation.STOPPING,
        113: Situation.NOT_LOADED,
        125: Situation.NO_DOMAIN,
    },
    Verb.KICKSTART: {
        1: Situation.NOT_PERMITTED,
        113: Situation.NOT_LOADED,
    },
    Verb.ENABLE: {1: Situation.NOT_PERMITTED},
    Verb.DISABLE: {1: Situation.NOT_PERMITTED},
    Verb.LIST: {
        1: Situation.NOT_LOADED,
        3: Situation.NOT_LOADED,
        113: Situation.NOT_LOADED,
    },
    # Only asked to explain another failure: whatever it says but 0 explains nothing.
    Verb.PRINT_DISABLED: {},
}
"""Every code that is known, by verb; 0 is DONE for all."""


def classify(verb: Verb, returncode: int) -> Situation:
    """Give what this exit code of this verb means."""
    if returncode == 0:
        return Situation.DONE
    return SITUATIONS[verb].get(returncode, Situation.UNKNOWN)
