"""A model hub on loopback: the Hub's HTTP API over a folder of repositories, with faults on demand.

`HubServer` runs it in a test's own process; `python -m stack_testkit.hub` is the same as a program.
"""

from stack_testkit.hub.faults import Fault, Settings
from stack_testkit.hub.repository import Repository, write_repository
from stack_testkit.hub.server import HubServer, Request

__all__ = ["Fault", "HubServer", "Repository", "Request", "Settings", "write_repository"]
