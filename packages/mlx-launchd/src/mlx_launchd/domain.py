"""Where a job runs: a user's session, a user without one, or the whole machine; pure."""

from dataclasses import dataclass
from enum import StrEnum


class DomainKind(StrEnum):
    """The three domains that a job can be loaded into by name."""

    GUI = "gui"
    """A user's login session, created by loginwindow when that user logs in at the console."""
    USER = "user"
    """A user without a login session; nothing loads jobs into it again after a reboot."""
    SYSTEM = "system"
    """The machine, from boot on; only root changes it."""


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain of launchd.

    Attributes:
        uid: The user; None in the system domain.
    """

    kind: DomainKind
    uid: int | None = None

    @property
    def target(self) -> str:
        """The domain as launchctl names it: `gui/501`, `user/501` or `system`."""
        return self.kind.value if self.uid is None else f"{self.kind.value}/{self.uid}"

    def service_target(self, label: str) -> str:
        """A job in this domain as launchctl names it: `gui/501/com.example.job`."""
        return f"{self.target}/{label}"


SYSTEM = Domain(DomainKind.SYSTEM)


@dataclass(frozen=True, slots=True)
class Session:
    """The calling user, and where the call comes from.

    Attributes:
        console_uid: Owner of `/dev/console`: the user logged in at the screen; root if there is
            none.
    """

    uid: int
    user: str
    console_uid: int | None
    is_ssh: bool = False
    is_sudo: bool = False


@dataclass(frozen=True, slots=True)
class DomainChoice:
    """A domain, and why it was chosen.

    Attributes:
        reason: The reason, as a sentence for a person.
        returns_at_login: Whether launchd loads the job again when its user logs in.
        returns_at_boot: Whether launchd loads the job again at boot, before any login.
    """

    domain: Domain
    reason: str
    returns_at_login: bool
    returns_at_boot: bool


def choose_domain(session: Session, *, system: bool = False) -> DomainChoice:
    """The domain for a job of this user, with the reason.

    The rule is that of Homebrew's services: root, also through sudo, manages the machine's own
    domain; a user who is logged in at the console has a login session, and reaches it over SSH too;
    as another user under sudo, or over SSH while another user or no one is at the console, there is
    only the user's own domain.
    """
    if system or session.uid == 0:
        reason = (
            "the system domain was asked for" if system else "root manages the machine's own domain"
        )
        return DomainChoice(SYSTEM, reason, returns_at_login=True, returns_at_boot=True)
    at_console = session.console_uid == session.uid
    gui = Domain(DomainKind.GUI, session.uid)
    if session.is_sudo:
        reason = f"under sudo there is no login session of {session.user}"
    elif at_console:
        reason = f"{session.user} is logged in at the console"
        return DomainChoice(gui, reason, returns_at_login=True, returns_at_boot=False)
    elif not session.is_ssh:
        reason = f"{session.user} has a login session behind the one at the console"
        return DomainChoice(gui, reason, returns_at_login=True, returns_at_boot=False)
    else:
        reason = f"{session.user} came over SSH and is not logged in at the console"
    return DomainChoice(
        Domain(DomainKind.USER, session.uid), reason, returns_at_login=False, returns_at_boot=False
    )


def places_to_look(domain: Domain) -> tuple[Domain, ...]:
    """The domains where a label may be loaded, the given one first.

    A user's login session and the user's own domain share their Mach names but not their jobs.
    """
    if domain.uid is None:
        return (domain,)
    both = (Domain(DomainKind.USER, domain.uid), Domain(DomainKind.GUI, domain.uid))
    return (domain, *(other for other in both if other != domain))
