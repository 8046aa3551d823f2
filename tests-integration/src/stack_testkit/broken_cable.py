"""A way to an SSH server, as `ProxyCommand`, that ends or stalls after so many bytes.

`python -m stack_testkit.broken_cable HOST PORT BYTES ends|stalls`
"""

import os
import socket
import sys
import threading

_CHUNK_BYTES = 65536


def main(host: str, port: str, most: str, then: str) -> None:
    """Pass everything on between stdin, stdout and the server, until it was enough."""
    server = socket.create_connection((host, int(port)))

    def back() -> None:
        while chunk := server.recv(_CHUNK_BYTES):
            os.write(1, chunk)

    threading.Thread(target=back, daemon=True).start()
    left = int(most)
    while left > 0 and (chunk := os.read(0, _CHUNK_BYTES)):
        server.sendall(chunk)
        left -= len(chunk)
    if left <= 0 and then == "stalls":
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
