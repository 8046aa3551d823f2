"""A changed configuration brought into a running gateway without dropping a request."""

import os
import signal
import time
from contextlib import closing, suppress
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from mlx_gateway.settings import version_of
from mlx_procsup import locate, read_run, write_run
from mlx_stack.home import Home
from mlx_stack.services.service import GATEWAY, Service

_VERSION_HEADER = "x-mlx-stack-config"
_TIMEOUT_S = 10.0
_POLL_S = 0.05


def reload_gateway(home: Home, gateway: Service) -> bool:
    """Whether a running gateway took over the configuration file as it is now.

    It reads the file again on SIGHUP; no request is dropped. Where that is not enough (another key,
    address or port), or the gateway doesn't confirm it, nothing is noted and the caller restarts
    the gateway.
    """
    dirs = home.state_dirs
    found = locate(dirs, GATEWAY, gateway.spec.masked_command())
    record = found.record
    if found.own is None or record is None:
        return False
    keys, _, config = gateway.spec.fingerprint.partition(":")
    recorded_keys, _, recorded_config = record.fingerprint.partition(":")
    if record.command != gateway.spec.masked_command() or keys != recorded_keys:
        return False
    if config == recorded_config:
        return True
    version = version_of(home.gateway_settings)
    os.kill(found.own.pid, signal.SIGHUP)
    assert gateway.spec.readiness is not None  # every gateway has its liveness probe
    if not _confirms(gateway.spec.readiness.url, version):
        return False
    latest = read_run(dirs, GATEWAY) or record
    write_run(dirs, GATEWAY, replace(latest, fingerprint=gateway.spec.fingerprint))
    return True


def _confirms(liveness_url: str, version: str) -> bool:
    """Whether the gateway says in time that this version of its file is in force."""
    where = urlsplit(liveness_url)
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        with (
            closing(HTTPConnection(where.netloc, timeout=_TIMEOUT_S)) as connection,
            suppress(OSError, HTTPException),
        ):
            connection.request("GET", where.path)
            if connection.getresponse().headers[_VERSION_HEADER] == version:
                return True
        time.sleep(_POLL_S)
    return False
