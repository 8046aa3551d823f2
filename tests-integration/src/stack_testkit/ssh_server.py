"""A real OpenSSH server on loopback with keys of its own: what stands for another Mac in tests."""

import os
import shutil
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from getpass import getuser
from pathlib import Path

from mlx_procsup.testing import eventually
from mlx_stack.services.ports import free_ports

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
"""OpenSSH's server, which wants to be started by its whole path; None where there is none."""
_WITHIN_S = 60


@dataclass(slots=True)
class SshServer:
    """A server, and a client that knows it by several names.

    Attributes:
        folder: Where its keys and its configuration are.
        programs: A folder with an `ssh` that reads the configuration of this server only.
    """

    folder: Path
    port: int
    programs: Path
    _names: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])

    @property
    def variables(self) -> dict[str, str]:
        """The environment in which `ssh` is the client that knows this server."""
        return {"PATH": f"{self.programs}:{os.environ['PATH']}", "SSH_AUTH_SOCK": ""}

    def know(self, name: str, **options: str) -> str:
        """Have the client know the server as `name`, with more options than the right ones."""
        self._names[name] = {
            "HostName": "127.0.0.1",
            "Port": str(self.port),
            "User": getuser(),
            "IdentityFile": str(self.folder / "key"),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "GlobalKnownHostsFile": "/dev/null",
            **options,
        }
        text = "".join(
            f"Host {each}\n" + "".join(f"  {key} {value}\n" for key, value in fields.items())
            for each, fields in self._names.items()
        )
        (self.folder / "ssh_config").write_text(text, encoding="utf-8")
        return name


def make_key(path: Path) -> str:
    """A key pair in `path` and `path.pub`; the public half."""
    command = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))
    subprocess.run(command, check=True, timeout=_WITHIN_S, stdin=subprocess.DEVNULL)
    return path.with_name(f"{path.name}.pub").read_text(encoding="utf-8")


@contextmanager
def ssh_server(
    folder: Path, *, address: str = "127.0.0.1", inside: Sequence[str] = ()
) -> Generator[SshServer]:
    """A server that listens on a free port of `address`, and is known as `studio`.

    Args:
        inside: What runs a command where that address is, such as `ip netns exec studio`.
    """
    assert SSHD is not None
    folder.mkdir(mode=0o700)
    (port,) = free_ports(1)
    host_key = make_key(folder / "host_key")
    (folder / "authorized_keys").write_text(make_key(folder / "key"), encoding="utf-8")
    (folder / "known_hosts").write_text(f"[{address}]:{port} {host_key}", encoding="utf-8")
    settings: Mapping[str, object] = {
        "Port": port,
        "ListenAddress": address,
        "HostKey": folder / "host_key",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
    }
    text = "".join(f"{key} {value}\n" for key, value in settings.items())
    (folder / "sshd_config").write_text(text, encoding="utf-8")
    programs = folder / "bin"
    programs.mkdir()
    client = programs / "ssh"
    real = shutil.which("ssh")
    client.write_text(f'#!/bin/sh\nexec {real} -F {folder}/ssh_config "$@"\n', encoding="utf-8")
    client.chmod(0o755)
    if os.geteuid() == 0:  # where it gives up its rights before a client is known
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    log = (folder / "sshd.log").open("w", encoding="utf-8")
    with log:
        process = subprocess.Popen(
            (*inside, SSHD, "-D", "-e", "-f", str(folder / "sshd_config")),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            log_file = folder / "sshd.log"
            assert eventually(lambda: "listening" in log_file.read_text(), within_s=_WITHIN_S)
            server = SshServer(folder, port, programs)
            server.know("studio", HostName=address)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=_WITHIN_S)
