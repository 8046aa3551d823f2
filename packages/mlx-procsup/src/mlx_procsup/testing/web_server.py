"""The stand-in server; `web_server_command` makes its command, with every option.

It imports as little as it can, since tests start it hundreds of times.
"""

import os
import signal
import socket
import sys
import threading
import time


def main(words: list[str]) -> None:
    """Serve until a signal or the asked time ends it."""
    options = dict(word.split("=", 1) for word in words)
    signal.signal(signal.SIGUSR1, _stop_delivering)
    signal.signal(signal.SIGUSR2, _stop_delivering)
    started = time.monotonic()
    if options["ignore-sigterm"] == "1":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options["spawn-child"] == "1":
        _spawn_sleeper()
    exit_after_s = float(options["exit-after-s"])
    if exit_after_s >= 0:
        code = int(options["exit-code"])
        threading.Thread(target=_exit_after, args=(exit_after_s, code), daemon=True).start()
    if int(options["print-lines"]) > 0:
        rate = int(options["print-lines"])
        threading.Thread(target=_print_lines, args=(rate,), daemon=True).start()
    time.sleep(float(options["listen-after-s"]))
    _serve(
        int(options["port"]),
        ready_at=started + float(options["ready-after-s"]),
        answer_after_s=float(options["answer-after-s"]),
    )


_DEAD, _FAILING = 1, 2
_WORK = {"wedge": 0, "in_flight": 0, "written": 0, "failures": 0}


def _serve(port: int, *, ready_at: float, answer_after_s: float) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen(64)
        while True:
            client, _ = server.accept()
            threading.Thread(
                target=_answer, args=(client, ready_at, answer_after_s), daemon=True
            ).start()


def _answer(client: socket.socket, ready_at: float, answer_after_s: float) -> None:
    with client:
        request = client.recv(8192)
        if b" /hang " in request:
            time.sleep(3600)
        time.sleep(answer_after_s)
        status = "200 OK" if time.monotonic() >= ready_at else "503 Service Unavailable"
        body = f"pid {os.getpid()}\n"
        if b" /work " in request:
            body = f"{_WORK['in_flight']} {_WORK['written']} {_WORK['failures']}\n"
        elif b" /token " in request:
            status = _deliver()
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        client.sendall((head + body).encode())


def _stop_delivering(number: int, frame: object) -> None:
    del frame
    _WORK["wedge"] = _DEAD if number == signal.SIGUSR1 else _FAILING


def _deliver() -> str:
    """The status of an answer of one token, which never comes from a dead one."""
    _WORK["in_flight"] += 1
    if _WORK["wedge"] == _DEAD:
        time.sleep(3600)
    failed = _WORK["wedge"] == _FAILING
    _WORK["in_flight"] -= 1
    _WORK["failures" if failed else "written"] += 1
    return "500 Internal Server Error" if failed else "200 OK"


def _spawn_sleeper() -> None:
    """A child in the same group; it ignores SIGTERM if its parent does."""
    if os.fork() == 0:
        time.sleep(3600)
        os._exit(0)


def _exit_after(seconds: float, code: int) -> None:
    time.sleep(seconds)
    sys.stderr.write("the stand-in ends as it was asked to\n")
    sys.stderr.flush()
    os._exit(code)


def _print_lines(rate: int) -> None:
    """Print numbered lines in bursts, `rate` a second."""
    number, started = 0, time.monotonic()
    while True:
        due = int((time.monotonic() - started) * rate)
        lines = "".join(f"line {n}\n" for n in range(number, due))
        os.write(1, lines.encode())
        number = due
        time.sleep(0.01)


if __name__ == "__main__":
    main(sys.argv[1:])
