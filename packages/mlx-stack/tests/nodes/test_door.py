"""The door for other Macs while it is open: what keeps it good goes on, whatever fails."""

import threading
from functools import partial

import pytest

from mlx_gateway.settings import TlsSettings
from mlx_stack.home import Home
from mlx_stack.nodes import door as door_module
from mlx_stack.nodes.door import NodeDoor
from mlx_stack.nodes.identity import find_identity


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "_LOOK_EVERY_S", 0.01)


def _set(event: threading.Event, *_: object) -> None:
    event.set()


def settings(host: str) -> TlsSettings:
    return TlsSettings(host, 4443, "certificate.pem", "key.pem")


@pytest.mark.usefixtures("quick")
# zeroconf leaves a socket to the collector where it can't join a network
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("host", ["fd00::1", "203.0.113.9"])
def test_an_address_that_isn_t_there_does_not_end_the_renewal(
    home: Home, host: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reread = threading.Event()
    monkeypatch.setattr("os.kill", partial(_set, reread))
    door = NodeDoor(home)

    door.open(settings(host))
    try:
        home.node_certificate.unlink()
        assert reread.wait(60)
    finally:
        door.close()

    assert home.node_certificate.exists()
    assert [each.message for each in caplog.records if "discover" in each.message]


@pytest.mark.usefixtures("quick")
def test_an_authority_that_can_not_be_used_keeps_nobody_from_starting(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reread = threading.Event()
    monkeypatch.setattr("os.kill", partial(_set, reread))
    home.create()
    home.node.mkdir()
    home.node_ca.write_text("nonsense")
    door = NodeDoor(home)

    door.open(settings("127.0.0.1"))
    try:
        assert "the certificate for other Macs can't be made or renewed" in caplog.text
        home.node_ca.unlink()
        assert reread.wait(60)
    finally:
        door.close()

    assert find_identity(home) is not None
