"""Which domain a job belongs in, by who asks and from where."""

import pytest

from mlx_launchd import SYSTEM, Domain, DomainKind, Session, choose_domain, places_to_look

GUI = Domain(DomainKind.GUI, 502)
USER = Domain(DomainKind.USER, 502)


def session(
    *, uid: int = 502, console: int | None = 502, ssh: bool = False, sudo: bool = False
) -> Session:
    return Session(uid=uid, user="robin", console_uid=console, is_ssh=ssh, is_sudo=sudo)


@pytest.mark.parametrize(
    ("who", "domain"),
    [
        (session(), GUI),
        (session(ssh=True), GUI),
        (session(ssh=True, console=0), USER),
        (session(ssh=True, console=503), USER),
        (session(ssh=True, console=None), USER),
        (session(console=503), GUI),
        (session(sudo=True), USER),
        (session(uid=0, sudo=True), SYSTEM),
        (session(uid=0, console=0), SYSTEM),
    ],
)
def test_the_domain_follows_the_console_and_the_way_in(who: Session, domain: Domain) -> None:
    choice = choose_domain(who)
    assert choice.domain == domain
    assert choice.reason


def test_only_a_daemon_returns_without_a_login_and_a_user_domain_not_at_all() -> None:
    daemon = choose_domain(session(), system=True)
    assert (daemon.domain, daemon.returns_at_boot) == (SYSTEM, True)
    agent = choose_domain(session())
    assert (agent.returns_at_boot, agent.returns_at_login) == (False, True)
    over_ssh = choose_domain(session(ssh=True, console=0))
    assert (over_ssh.returns_at_boot, over_ssh.returns_at_login) == (False, False)


def test_names_are_launchctls_own() -> None:
    assert (GUI.target, USER.target, SYSTEM.target) == ("gui/502", "user/502", "system")
    assert GUI.service_target("a.b") == "gui/502/a.b"


def test_a_label_is_looked_for_in_both_domains_of_a_user() -> None:
    assert places_to_look(GUI) == (GUI, USER)
    assert places_to_look(USER) == (USER, GUI)
    assert places_to_look(SYSTEM) == (SYSTEM,)
