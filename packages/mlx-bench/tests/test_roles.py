"""Benchmarks of models that don't chat, against a server whose work is known."""

import json
import random
import re
import socket
import struct
import time
import zlib
from array import array
from base64 import b64decode
from collections.abc import Iterator
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, override

import msgspec
import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers, sampled_from

from mlx_bench.__main__ import main
from mlx_bench.cautions import CautionCode
from mlx_bench.client import ModelEndpoint, StreamingClient
from mlx_bench.errors import EndpointError, ParametersError
from mlx_bench.report_file import load_saved, save_report
from mlx_bench.roles.export import render_role_table
from mlx_bench.roles.known import WORKLOADS, workload_of
from mlx_bench.roles.pictures import data_url, png, random_picture
from mlx_bench.roles.report import RoleReport
from mlx_bench.roles.runner import run_role
from mlx_bench.roles.sounds import SOUND_RATE_HZ, random_sound, wav, wav_seconds
from mlx_bench.roles.workload import REAL_TIME, FreshMaterial, RoleLoad, RoleParameters
from mlx_bench.runner import Conditions
from mlx_bench.workload import PromptMaker

TAKES_S = 0.01
LONGEST = 120
"""So many tokens of a text does the server read."""


class Worker(BaseHTTPRequestHandler):
    """Takes its time for each request, and counts a token a word and two around it."""

    @override
    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        kind = self.headers["content-type"]
        body = json.loads(content) if kind == "application/json" else _form(content, kind)
        time.sleep(TAKES_S)
        handlers = {
            "/v1/embeddings": _embed,
            "/v1/rerank": _rank,
            "/v1/chat/completions": _see,
            "/v1/audio/transcriptions": _hear,
        }
        if body["model"] == "broken":
            self._say(500, {"error": {"message": "out of memory"}})
        elif self.path == "/v1/audio/speech":
            self._speak(body)
        else:
            self._say(200, handlers[self.path](body))

    @override
    def do_GET(self) -> None:
        models = {"data": [{"id": "m", "owned_by": "worker"}]}
        self._say(200 if self.path == "/v1/models" else 404, models)

    def _say(self, status: int, document: object) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _speak(self, body: dict[str, Any]) -> None:
        """A second of sound a word: half of it at once, the rest when it is made."""
        assert (body["response_format"], body["stream"]) == ("wav", True)
        sound = wav(b"\1\0" * SOUND_RATE_HZ * len(body["input"].split()))
        self.send_response(200)
        self.send_header("content-length", str(len(sound)))
        self.end_headers()
        middle = len(sound) // 2
        self.wfile.write(sound[:middle])
        time.sleep(TAKES_S)
        self.wfile.write(sound[middle:])

    @override
    def log_message(self, format: str, *args: object) -> None:
        pass


def _tokens(text: str) -> int:
    return min(len(text.split()) + 2, LONGEST)


def _embed(body: dict[str, Any]) -> object:
    rows = [{"embedding": [0.5, 0.5], "index": n} for n in range(len(body["input"]))]
    return {"data": rows, "usage": {"prompt_tokens": sum(map(_tokens, body["input"]))}}


def _rank(body: dict[str, Any]) -> object:
    documents = body["documents"]
    rows = [{"index": n, "relevance_score": 0.5} for n in reversed(range(len(documents)))]
    tokens = sum(_tokens(each) + _tokens(body["query"]) for each in documents)
    return {"results": rows, "usage": {"total_tokens": tokens}}


def _see(body: dict[str, Any]) -> object:
    pictures = [part for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    assert all(part["image_url"]["url"].startswith("data:image/png;") for part in pictures)
    return {"choices": [{"finish_reason": "length"}], "usage": {"prompt_tokens": 9}}


def _form(content: bytes, kind: str) -> dict[str, Any]:
    message = message_from_bytes(f"content-type: {kind}\r\n\r\n".encode() + content)
    parts = {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in message.walk()
        if not part.is_multipart()
    }
    return {str(name): each if name == "file" else each.decode() for name, each in parts.items()}  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]


def _hear(body: dict[str, Any]) -> object:
    """Hears half a minute, as a server does that cuts what is longer than Whisper's window."""
    assert body["response_format"] == "json"
    seconds = min(wav_seconds(body["file"]), 30)
    return {"text": "words", "usage": {"type": "duration", "seconds": seconds}}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Worker) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def measured(url: str, role: str, *, model: str = "m", **asked: Any) -> RoleReport:
    workload = workload_of(role)
    usual: dict[str, Any] = {"items": (1, 5), "sizes": (40,), "iterations": 2}
    with StreamingClient(ModelEndpoint(url, model), timeout_s=20) as client:
        parameters = RoleParameters(**{**usual, **asked})
        return run_role(client, workload, parameters, Conditions("here", {}))


@pytest.mark.parametrize(
    ("role", "unit"), [("embedding", "texts/s"), ("rerank", "pairs/s"), ("vision", "images/s")]
)
def test_what_was_done_is_counted_over_the_time_that_it_took(
    url: str, role: str, unit: str
) -> None:
    report = measured(url, role, concurrency=(1, 2))

    assert (report.role, report.unit, report.finished) == (role, unit, True)
    assert len(report.summaries) == 4
    for summary in report.summaries:
        rate = summary.rate.value
        assert rate is not None
        assert 0 < rate <= summary.items * summary.concurrency / TAKES_S
        assert summary.rate.samples == 2
        assert summary.end_to_end_s.value is not None
        assert summary.end_to_end_s.value >= TAKES_S
    assert len(report.runs) == 2 * 2 * (1 + 2), "the warm-up doesn't count"
    assert report.engine.name == "worker"


@pytest.mark.parametrize("role", ["embedding", "rerank"])
def test_texts_are_as_long_as_asked_by_the_servers_count(url: str, role: str) -> None:
    report = measured(url, role, sizes=(60,))

    assert {run.tokens for run in report.runs} == {60, 5 * 60}
    per_item = [s.tokens_per_s.value / s.rate.value for s in report.summaries]  # pyright: ignore[reportOptionalOperand]
    assert per_item == pytest.approx([60, 60])
    assert CautionCode.PROMPT_LENGTH not in {each.code for each in report.cautions}


def test_sounds_are_heard_so_many_times_faster_than_they_play(url: str) -> None:
    report = measured(url, "speech-to-text", items=(1,), sizes=(1, 20))

    assert (report.unit, report.size_exactness) == (REAL_TIME, None)
    assert [run.amount for run in report.runs] == [1, 1, 20, 20]
    for summary in report.summaries:
        assert summary.rate.value is not None
        assert 0 < summary.rate.value <= summary.size / TAKES_S
        assert summary.first_byte_s.value is None
    assert report.load_words(report.summaries[1]) == "1 sound of 20 seconds per request"
    assert "tok/s" not in render_role_table(report)
    assert len({*sounds(4)}) == 4, "no sound is sent twice"


def sounds(count: int) -> list[bytes]:
    material, load = FreshMaterial(PromptMaker(), seed=1), RoleLoad(items=1, size=1)
    made = [WORKLOADS["speech-to-text"].make("m", load, material) for _ in range(count)]
    return [_form(each.content, each.content_type)["file"] for each in made]


def test_a_server_that_hears_only_the_beginning_is_found_out(url: str) -> None:
    with pytest.raises(EndpointError, match="30 of 40 seconds were heard"):
        measured(url, "speech-to-text", items=(1,), warm_up=0)


def test_speech_is_as_long_as_it_plays_and_has_a_first_byte(url: str) -> None:
    report = measured(url, "text-to-speech", items=(1,), sizes=(3, 25), concurrency=(1, 2))

    assert {(run.load.size, run.amount) for run in report.runs} == {(3, 3.0), (25, 25.0)}
    for run in report.runs:
        assert run.first_byte_s is not None
        assert run.end_to_end_s is not None
        assert TAKES_S <= run.first_byte_s < run.end_to_end_s
    assert all(each.rate.value for each in report.summaries)
    titles = render_role_table(report).splitlines()[3]
    assert len(titles) <= 80
    assert re.search(r"x real time +95 % interval +First byte s +Request s$", titles)


@pytest.mark.parametrize("role", ["speech-to-text", "text-to-speech"])
def test_a_sound_of_a_request_is_one_and_has_a_longest(
    role: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, value in (("--items", "1,2"), ("--sizes", "10,1000000")):
        assert main(["http://127.0.0.1:9", "--role", role, "--model", "m", option, value]) == 2
        assert "at most" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("role", "option", "value"),
    [
        ("vision", "--sizes", "999999999999999999999"),
        ("vision", "--sizes", "100000"),
        ("vision", "--items", "65"),
        ("embedding", "--sizes", "1000001"),
        ("rerank", "--items", "2049"),
        ("rerank", "--concurrency", "257"),
    ],
)
def test_a_load_that_would_fill_the_memory_is_refused(
    role: str, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["http://127.0.0.1:9", "--role", role, "--model", "m", option, value]) == 2
    assert "at most" in capsys.readouterr().err


def test_a_server_that_is_down_is_called_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    with pytest.raises(EndpointError, match="Nothing answers") as caught:
        measured(f"http://127.0.0.1:{port}/v1", "embedding")
    assert "role" not in caught.value.message


def test_texts_that_the_model_cuts_are_a_caution(url: str) -> None:
    report = measured(url, "embedding", sizes=(LONGEST + 30,), items=(2,))

    (caution,) = [each for each in report.cautions if each.code is CautionCode.PROMPT_LENGTH]
    assert caution.message == (
        "2 texts of 150 tokens per request: by the server's count a text had 120 to 120 tokens."
    )


def test_no_text_is_sent_twice() -> None:
    material = FreshMaterial(PromptMaker(), seed=1)
    load = RoleLoad(items=8, size=50)
    made = [WORKLOADS["embedding"].make("m", load, material).content for _ in range(20)]
    texts = [text for each in made for text in json.loads(each)["input"]]
    assert len(set(texts)) == len(texts) == 160


def test_a_server_that_fails_is_an_error_in_its_own_words(url: str) -> None:
    with pytest.raises(EndpointError, match=r"role embedding: HTTP 500: out of memory"):
        measured(url, "embedding", model="broken")
    with pytest.raises(EndpointError, match=r"None of 4 requests succeeded: HTTP 500"):
        measured(url, "vision", model="broken", warm_up=0)


def test_precision_goes_on_until_the_rate_is_known(url: str) -> None:
    report = measured(url, "rerank", items=(1,), precision=0.9)

    assert 6 <= report.summaries[0].rate.samples < 30


def test_a_saved_report_comes_back_as_it_was(url: str, tmp_path: Path) -> None:
    for role in ("embedding", "text-to-speech"):
        measured_now = measured(url, role, items=(1,))
        report = msgspec.structs.replace(measured_now, extra={"tier": "one"})
        save_report(report, tmp_path / "one.json")

        assert load_saved(tmp_path / "one.json") == report


def test_the_program_shows_the_unit_and_refuses_what_is_for_chats(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = (url, "--role", "rerank", "--items", "2,4", "--sizes", "40", "--iterations", "1")

    assert main([*asked, "--save"]) == 0
    table = capsys.readouterr().out
    assert "pairs/s" in table
    assert "Documents  of tokens" in table
    (saved,) = (tmp_path / "benchmarks").iterdir()
    report = load_saved(saved)
    assert isinstance(report, RoleReport)
    assert render_role_table(report) == table
    assert report.best is not None
    assert report.best.items in (2, 4)

    assert main([*asked, "--generation-tokens", "5"]) == 2
    assert "--generation-tokens is for models that chat" in capsys.readouterr().err
    assert main([url, "--items", "5"]) == 2
    assert "say which with --role" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["items", "sizes", "concurrency"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(ParametersError):
        RoleParameters(**{"items": (1,), "sizes": (1,), name: (0,)})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ParametersError, match="speech-of-birds"):
        workload_of("speech-of-birds")


def streamed(sound: bytes, said: int) -> bytes:
    """A WAV file whose head says that so many bytes come."""
    return sound[:40] + said.to_bytes(4, "little") + sound[44:]


@given(frames=integers(1, 50_000), said=sampled_from([0, 2**31 - 1, 2**32 - 1]))
def test_a_wav_file_plays_as_long_as_its_samples(frames: int, said: int) -> None:
    sound = wav(b"\1\0" * frames)

    assert wav_seconds(sound) == frames / SOUND_RATE_HZ
    assert wav_seconds(streamed(sound, said)) == frames / SOUND_RATE_HZ
    assert wav_seconds(sound + b"LIST\4\0\0\0more") == frames / SOUND_RATE_HZ


@pytest.mark.parametrize(
    ("sound", "said"),
    [
        (b'{"detail": "no"}', "isn't a WAV"),
        (wav(b""), "no sound"),
        (wav(b"\1\0")[:36], "no sound"),
        (wav(b"\1\0") * 2, "several WAV files"),
        (wav(b"\1\0").replace((2 * SOUND_RATE_HZ).to_bytes(4, "little"), b"\1\0\0\0"), "invalid"),
    ],
    ids=["json", "empty", "cut", "several", "rate"],
)
def test_what_isnt_one_sound_has_no_length(sound: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        wav_seconds(sound)


@given(binary(max_size=200))
def test_any_bytes_are_a_length_or_an_error_in_words(noise: bytes) -> None:
    for sound in (noise, wav(b"")[:12] + noise, wav(b"")[:36] + noise):
        try:
            assert wav_seconds(sound) > 0
        except ValueError as error:
            assert str(error)  # noqa: PT017 - either is right


@pytest.mark.parametrize("seconds", [1, 3])
def test_a_made_sound_plays_as_long_as_asked_and_is_loud(seconds: int) -> None:
    sound = random_sound(seconds, random.Random(1))

    assert wav_seconds(sound) == seconds
    samples = array("h", sound[44:])
    assert 2000 < max(samples) < 20_000


@pytest.mark.parametrize("pixels", [1, 7, 8, 64, 100])
def test_a_picture_is_a_png_of_its_size(pixels: int) -> None:
    picture = random_picture(pixels, random.Random(1))

    assert b64decode(data_url(picture).partition(",")[2]) == picture
    assert struct.unpack(">II", picture[16:24]) == (pixels, pixels)
    (length,) = struct.unpack(">I", picture[33:37])
    lines = zlib.decompress(picture[41 : 41 + length])
    assert len(lines) == pixels * (1 + 3 * pixels)


def test_a_picture_has_the_colours_asked_for() -> None:
    red = png(2, [(255, 0, 0)])
    (length,) = struct.unpack(">I", red[33:37])
    assert zlib.decompress(red[41 : 41 + length]) == (b"\0" + b"\xff\0\0" * 2) * 2
