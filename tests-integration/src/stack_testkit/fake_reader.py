"""A stand-in for mlx_vlm.server: what embeds, orders documents, hears or speaks, as a real process.

It is started as the real one is, behind the guard with all that this changes in the server, and its
answers follow from what is sent: a text's vector counts its words, a document's score is the share
of the query's words that it has, a sound is transcribed as its length, and a text becomes a tone of
a tenth of a second a word.
"""

import argparse
import hashlib
import io
import json
import math
import struct
import sys
import wave
from collections.abc import Iterator, MutableMapping
from email import message_from_bytes
from email.message import Message as Part
from pathlib import Path
from typing import Any

from stack_testkit.asgi_program import serve

DIMENSIONS = 64
RATE_HZ = 16_000
SECONDS_A_WORD = 0.1
_UNKNOWN_SIZE = 2**32 - 1

type Scope = MutableMapping[str, Any]

_SERVER = """
def __getattr__(name):  # what is changed in the real one can be changed here
    if name.startswith("__"):
        raise AttributeError(name)
    return lambda *_, **__: None
"""
PACKAGE = {
    "fastapi.py": "class HTTPException(Exception):\n    pass\n",
    "mlx/__init__.py": "",
    "mlx/core.py": _SERVER,
    "mlx_vlm/__init__.py": "",
    "mlx_vlm/server/__init__.py": _SERVER,
    "mlx_vlm/server/app.py": _SERVER,
    "mlx_vlm/server/audio.py": _SERVER,
    "mlx_vlm/server/embeddings.py": _SERVER,
    "mlx_vlm/server/reranking.py": _SERVER,
    "mlx_vlm/server/cli.py": "from stack_testkit.fake_reader import main\n",
    "mlx_audio/__init__.py": "",
    "mlx_audio/stt/__init__.py": "",
    "mlx_audio/stt/models/__init__.py": "",
    "mlx_audio/stt/models/whisper/__init__.py": "",
    "mlx_audio/stt/models/whisper/whisper.py": "class Model:\n    decode = None\n",
}
"""What the guard imports, by its path in an environment."""


def write_package(packages: Path) -> None:
    """Put it where an environment has its packages."""
    for name, text in PACKAGE.items():
        path = packages / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="fake-reader", allow_abbrev=False)
    for flag in ("embedding", "reranker", "stt", "tts"):
        parser.add_argument(f"--{flag}-model")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(sys.argv[1:])
    serve(_answer, options.host, options.port)


async def _answer(scope: Scope, receive: Any, send: Any) -> None:
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    match scope["method"], scope["path"]:
        case "GET", "/v1/models":
            await _send(send, {"object": "list", "data": []})
        case "POST", "/v1/embeddings":
            await _send(send, _embeddings(json.loads(body)))
        case "POST", "/v1/rerank":
            await _send(send, _order(json.loads(body)))
        case "POST", "/v1/audio/transcriptions":
            kind = dict(scope["headers"])[b"content-type"]
            await _send(send, _heard(_form(kind, body)))
        case "POST", "/v1/audio/speech":
            await _speak(json.loads(body)["input"], send)
        case _:
            await _send(send, {"error": {"message": "Not Found"}}, 404)


def _embeddings(asked: Any) -> dict[str, object]:
    texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
    rows = [{"index": index, "embedding": _vector(text)} for index, text in enumerate(texts)]
    used = sum(len(text.split()) for text in texts)
    return {"object": "list", "data": rows, "usage": {"prompt_tokens": used, "total_tokens": used}}


def _vector(text: str) -> list[float]:
    counts = [0.0] * DIMENSIONS
    for word in text.lower().split():
        counts[hashlib.sha256(word.encode()).digest()[0] % DIMENSIONS] += 1
    length = math.hypot(*counts) or 1.0
    return [each / length for each in counts]


def _order(asked: Any) -> dict[str, object]:
    wanted = {*asked["query"].lower().split()}
    shares = [len(wanted & {*text.lower().split()}) / len(wanted) for text in asked["documents"]]
    rows = [{"index": index, "relevance_score": share} for index, share in enumerate(shares)]
    rows.sort(key=lambda row: -row["relevance_score"])
    return {"results": rows, "usage": {"total_tokens": len(asked["documents"])}}


def _form(kind: bytes, body: bytes) -> dict[str, bytes]:
    """The fields of a form, with the file's content as one."""
    form = message_from_bytes(b"content-type: " + kind + b"\r\n\r\n" + body)
    parts: Any = form.get_payload()
    return dict(map(_field, parts))


def _field(part: Part) -> tuple[str, bytes]:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return str(part.get_param("name", header="content-disposition")), content


def _heard(form: dict[str, bytes]) -> dict[str, object]:
    with wave.open(io.BytesIO(form["file"])) as sound:
        seconds = sound.getnframes() / sound.getframerate()
    halves = [
        (0.0, seconds / 2, "The sound plays"),
        (seconds / 2, seconds, f"for {seconds:.1f} s."),
    ]
    segments = [{"start": start, "end": end, "text": f" {text}"} for start, end, text in halves]
    return {
        "text": "".join(f" {text}" for _, _, text in halves),
        "segments": segments,
        "language": form.get("language", b"en").decode(),
        "duration": seconds,
    }


async def _speak(text: str, send: Any) -> None:
    headers = [(b"content-type", b"audio/wav")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for piece in _tone(len(text.split())):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _tone(words: int) -> Iterator[bytes]:
    """A WAV file whose head doesn't know how long it is, in pieces."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16)
    data = struct.pack("<4sI", b"data", _UNKNOWN_SIZE)
    yield struct.pack("<4sI4s", b"RIFF", _UNKNOWN_SIZE, b"WAVE") + form + data
    count = round(RATE_HZ * SECONDS_A_WORD)
    waves = [round(6000 * math.sin(2 * math.pi * 440 * each / RATE_HZ)) for each in range(count)]
    piece = struct.pack(f"<{count}h", *waves)
    for _ in range(words):
        yield piece


async def _send(send: Any, document: object, status: int = 200) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})
