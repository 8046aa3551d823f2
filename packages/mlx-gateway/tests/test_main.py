"""The program: its start, its settings again, its end."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from secrets import SystemRandom
from typing import Any, cast

import pytest
import trustme

from mlx_gateway.__main__ import main

type Bench = Any
type Exchange = Any
type Say = Callable[..., subprocess.CompletedProcess[str]]

KEY = "a-key-of-the-test"
WITHIN_S = 20


def free_port() -> int:
    """A port that is free, and isn't one that the system gives to outgoing connections."""
    while True:
        port = SystemRandom().randrange(20_000, 32_768)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def settings(engine_port: int, name: str = "standard", **more: object) -> str:
    model = {"upstreams": [{"url": f"http://127.0.0.1:{engine_port}", "model": "served"}]}
    return json.dumps({"schema_version": 1, "models": {name: model}, **more})


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "mlx_gateway", *arguments),
        env={**os.environ, "MLX_GATEWAY_KEY": KEY},
        capture_output=True, text=True, check=False, timeout=WITHIN_S,
    )  # fmt: skip


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """Runs the program inside the test process, for what ends before it serves."""

    def run(*arguments: str, key: str | None = KEY) -> subprocess.CompletedProcess[str]:
        monkeypatch.delenv("MLX_GATEWAY_KEY", raising=False)
        if key is not None:
            monkeypatch.setenv("MLX_GATEWAY_KEY", key)
        try:
            code: object = main(arguments)
        except SystemExit as end:
            code = end.code or 0
        return subprocess.CompletedProcess(arguments, cast("int", code), *capsys.readouterr())

    return run


class Program:
    """A gateway that runs."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    async def ask(self, path: str, body: bytes = b"") -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        method = "POST" if body else "GET"
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
        writer.write(f"{head}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        writer.write(body)
        answer = await reader.read()
        writer.close()
        return int(answer.split(b" ", 2)[1]), answer

    async def until(self, path: str, holds: Callable[[bytes], bool]) -> bytes:
        async with asyncio.timeout(WITHIN_S):
            while True:
                with contextlib.suppress(OSError, IndexError):
                    _, answer = await self.ask(path)
                    if holds(answer):
                        return answer
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(
    config: Path, open_files: int | None = None, log: Path = Path(os.devnull)
) -> AsyncIterator[Program]:
    port = free_port()

    def limit() -> None:
        if open_files is not None:
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, hard))

    with log.open("w") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mlx_gateway", "serve", "--config", str(config)),
            *("--port", str(port)),
            env={**os.environ, "MLX_GATEWAY_KEY": KEY},
            stderr=stderr,
            preexec_fn=limit,
        )
    program = Program(process, port)
    try:
        await program.until("/health/liveliness", lambda answer: b" 200 " in answer)
        yield program
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def test_it_says_its_version_and_what_it_does(say: Say) -> None:
    assert say("--version", key=None).stdout.startswith("mlx-gateway ")
    assert "answer requests until stopped" in say("--help", key=None).stdout


@pytest.mark.parametrize("key", [None, "", "short"])
def test_without_a_key_it_does_not_start(tmp_path: Path, say: Say, key: str | None) -> None:
    done = say("serve", "--config", str(tmp_path / "gateway.yaml"), key=key)

    assert (done.returncode, done.stdout) == (2, "")
    assert "MLX_GATEWAY_KEY must contain a key" in done.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file"),
        ("schema_version: 9\nmodels: {}", "schema_version is 9"),
        ("[", "yaml"),
    ],
)
def test_settings_that_can_not_be_used_are_named(
    tmp_path: Path, say: Say, text: str | None, reason: str
) -> None:
    config = tmp_path / "gateway.yaml"
    if text is not None:
        config.write_text(text)

    done = say("serve", "--config", str(config))

    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {config}: ")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (("--host", "203.0.113.1"), 2, "can't listen on 203.0.113.1"),
        (("--host", "not a host"), 2, "can't listen on not a host"),
        (("--port", "70000"), 2, "can't listen on 127.0.0.1, port 70000"),
        (("--port", "http"), 2, "invalid int value"),
    ],
)
def test_an_address_that_can_not_be_had_is_named(
    tmp_path: Path, say: Say, options: tuple[str, ...], code: int, reason: str
) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(settings(1))

    done = say("serve", "--config", str(config), *options)

    assert done.returncode == code
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(settings(1, port=port))
        done = run("serve", "--config", str(config))

    assert done.returncode == 1
    assert done.stderr == f"error: Port {port} on 127.0.0.1 is in use by another program.\n"


def test_a_second_port_in_use_is_named_and_can_not_be_the_first(tmp_path: Path, say: Say) -> None:
    config = tmp_path / "gateway.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(settings(1, port=free_port(), ollama_port=port))
        done = say("serve", "--config", str(config))
    assert done.returncode == 1
    assert done.stderr == f"error: Port {port} on 127.0.0.1 is in use by another program.\n"

    config.write_text(settings(1, port=port, ollama_port=port))
    done = say("serve", "--config", str(config))
    assert done.returncode == 2
    assert "`ollama_port` is the same as `port`" in done.stderr


async def test_a_second_port_answers_like_the_first(tmp_path: Path) -> None:
    config, second_port = tmp_path / "gateway.yaml", free_port()
    config.write_text(settings(1, ollama_port=second_port))
    async with running(config) as program:
        first = await program.ask("/api/tags")
        program.port = second_port
        assert await program.ask("/api/tags") == first
        assert b'"standard"' in first[1]


def certificate(folder: Path, authority: trustme.CA) -> dict[str, str]:
    """The files of a certificate from it, as `tls` names them."""
    made, paths = authority.issue_cert("localhost"), (folder / "c.pem", folder / "k.pem")
    paths[0].write_bytes(made.cert_chain_pems[0].bytes())
    paths[1].write_bytes(made.private_key_pem.bytes())
    return {"certificate": str(paths[0]), "key": str(paths[1])}


async def ask_by_tls(port: int, authority: trustme.CA) -> bytes:
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    writer.write(
        f"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
        "connection: close\r\n\r\n".encode()
    )
    answer = await reader.read()
    writer.close()
    return answer


async def test_a_door_with_tls_answers_like_the_other_and_shows_a_new_certificate(
    tmp_path: Path,
) -> None:
    config, port = tmp_path / "gateway.yaml", free_port()
    first, second = trustme.CA(), trustme.CA()
    tls = {"host": "127.0.0.1", "port": port, **certificate(tmp_path, first)}
    config.write_text(settings(1, tls=tls))
    async with running(config) as program:
        assert await ask_by_tls(port, first) == (await program.ask("/v1/models"))[1]
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask_by_tls(port, second)

        in_clear = await asyncio.open_connection("127.0.0.1", port)
        in_clear[1].write(b"GET /health/liveliness HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"HTTP" not in await in_clear[0].read()
        in_clear[1].close()

        certificate(tmp_path, second)
        program.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(WITHIN_S):
            while True:
                with contextlib.suppress(ssl.SSLCertVerificationError):
                    assert b'"standard"' in await ask_by_tls(port, second)
                    break

        (tmp_path / "c.pem").write_text("damaged")
        program.process.send_signal(signal.SIGHUP)
        assert b'"standard"' in await ask_by_tls(port, second)


async def test_a_door_with_tls_that_can_not_be_opened_is_named_and_the_others_open(
    tmp_path: Path,
) -> None:
    config, files = tmp_path / "gateway.yaml", certificate(tmp_path, trustme.CA())
    port = free_port()
    config.write_text(settings(1, port=port, tls={"host": "127.0.0.1", "port": port, **files}))
    done = run("serve", "--config", str(config))
    assert (done.returncode, "without TLS" in done.stderr) == (2, True)

    elsewhere = {"host": "203.0.113.9", "port": free_port(), **files}
    without_key = {"host": "127.0.0.1", "port": free_port(), **files, "key": str(tmp_path / "no")}
    for tls, problem in ((elsewhere, "203.0.113.9"), (without_key, "c.pem can't be used")):
        config.write_text(settings(1, tls=tls))
        async with running(config, log=tmp_path / "log") as program:
            assert (await program.ask("/v1/models"))[0] == 200
        said = (tmp_path / "log").read_text()
        assert problem in said
        assert "Traceback" not in said


async def test_sighup_reads_the_settings_again_and_a_damaged_file_changes_nothing(
    tmp_path: Path,
) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(settings(1))
    async with running(config) as program:
        before = await program.until("/v1/models", lambda answer: b'"standard"' in answer)
        assert b'"renamed"' not in before
        first = await program.until("/health/liveliness", lambda answer: b"-config: " in answer)

        config.write_text("models: [")
        program.process.send_signal(signal.SIGHUP)
        config.write_text(settings(1, "renamed"))
        program.process.send_signal(signal.SIGHUP)
        await program.until("/v1/models", lambda answer: b'"renamed"' in answer)
        second = await program.until("/health/liveliness", lambda answer: b"-config: " in answer)
        assert first != second

        config.write_text("models: [")
        program.process.send_signal(signal.SIGHUP)
        assert b'"renamed"' in (await program.ask("/v1/models"))[1]


async def test_a_stream_ends_before_the_gateway_does(bench: Bench, tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def waits(exchange: Exchange) -> None:
        choices = [{"index": 0, "delta": {"content": "one"}, "finish_reason": None}]
        await exchange.begin_events()
        await exchange.send(b"data: " + json.dumps({"choices": choices}).encode() + b"\n\n")
        await go_on.wait()
        await exchange.send(b"data: [DONE]\n\n")
        await exchange.end()

    unused = (
        'schema_version: 1\nmodels: {m: {upstreams: [{url: "http://127.0.0.1:PORT0", model: m}]}}'
    )
    config = tmp_path / "gateway.yaml"
    async with bench(unused, waits) as it:
        config.write_text(settings(it.engines[0].port))
        async with running(config) as program:
            asked = {"model": "standard", "stream": True,
                     "messages": [{"role": "user", "content": "x"}]}  # fmt: skip
            stream = asyncio.ensure_future(
                program.ask("/v1/chat/completions", json.dumps(asked).encode())
            )
            asked_engine = asyncio.ensure_future(it.engines[0].asked.wait())
            await asyncio.wait({asked_engine, stream}, return_when=asyncio.FIRST_COMPLETED)
            assert not stream.done(), await stream
            program.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
            assert program.process.returncode is None
            go_on.set()
            status, answer = await stream
            assert status == 200
            assert b"[DONE]" in answer
            assert await asyncio.wait_for(program.process.wait(), WITHIN_S) == 0


async def test_300_half_open_connections_leave_it_answering_where_256_files_are_usual(
    tmp_path: Path,
) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(settings(1))
    async with running(config, open_files=256) as program:
        halves = [await asyncio.open_connection("127.0.0.1", program.port) for _ in range(300)]
        for _, writer in halves:
            writer.write(b"GET / HT")

        assert (await asyncio.wait_for(program.ask("/v1/models"), 5))[0] == 200
        for _, writer in halves:
            writer.close()
