"""`python -m stack_testkit.hub ROOT`: serve the repositories `ROOT/OWNER/NAME` until interrupted.

Prints one line of JSON, `{"url": …, "cdn_url": …}`, when it listens. `PUT /_settings` with the JSON
of `Settings` changes how it behaves; `GET /_stats` tells what it was asked and what it sent.
"""

import argparse
import json
import signal
import threading
from pathlib import Path

import msgspec

from stack_testkit.hub.faults import Settings
from stack_testkit.hub.server import HubServer


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(prog="python -m stack_testkit.hub", description=__doc__)
    parser.add_argument("root", type=Path, help="a folder of OWNER/NAME folders")
    parser.add_argument("--port", type=int, default=0, help="the hub's port (default: a free one)")
    parser.add_argument("--settings", default="{}", help="the settings, as JSON")
    options = parser.parse_args()
    settings = msgspec.json.decode(options.settings, type=Settings)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: ended.set())
    with HubServer(options.root, settings, port=options.port) as hub:
        print(json.dumps({"url": hub.url, "cdn_url": hub.cdn_url}), flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
