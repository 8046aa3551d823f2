"""A model that hears and one that speaks: real engines, through the endpoint.

Their weights are made up. The Whisper's decoder says fixed words, so that its text can be checked;
what the Soprano says is noise, of which only the form can be.
"""

import io
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI

from mlx_stack.config import save_values
from mlx_stack.engines.environment import Environment
from mlx_stack.home import Home
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import load_stack
from stack_testkit.gateway_program import client_of
from stack_testkit.hub import HubServer
from stack_testkit.program import Program
from stack_testkit.speech_models import (
    HEARD,
    SPOKEN_RATE_HZ,
    TRANSLATED,
    make_soprano,
    make_whisper,
    tone,
)

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def program(
    stack_home: Home,
    vllm_mlx_environment: Environment,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Program]:
    """A stack of both, made as a user makes one, up."""
    folder, python = tmp_path_factory.mktemp("speech"), vllm_mlx_environment.python
    whisper = make_whisper(folder / "whole", engine_python=python)
    soprano = make_soprano(folder / "wee-soprano", engine_python=python)
    (gateway_port,) = free_ports(1)
    save_values(stack_home, {"litellm-port": gateway_port, "litellm": "never"})
    program = Program(stack_home, {})
    pull_in_two_parts(program, whisper, folder / "hub")
    models = [word for each in ("wee-whisper", soprano) for word in ("--add", str(each))]
    usual = [word for name in ("standard", "fast", "longctx") for word in ("--remove", name)]
    made = program.run("init", *usual, *models, "--json")
    assert made.code == 0, made.out + made.err
    started = program.run("up", "--timeout", "300", "--json", timeout_s=400)
    assert started.code == 0, started.out + started.err
    yield program
    assert program.run("down", timeout_s=60).code == 0


ENTRY = """
id: wee-whisper
name: Wee Whisper
family: whisper
role: speech-to-text
processor_repo: example/original
params_b: 0.01
architecture: encoder-decoder
model_type: whisper
source: made for this test
geometry: {layers: 2, hidden_size: 128, vocab_size: 51865, query_heads: 2, source: this test}
sources: {bf16: {hf_repo: example/wee-whisper, source: this test}}
capabilities: {tool_calling: false, thinking: false, vision: false}
"""


def pull_in_two_parts(program: Program, whole: Path, root: Path) -> None:
    """Have a Whisper pulled as it is published: weights here, tokenizer and processor there."""
    for name in ("example/wee-whisper", "example/original"):
        (root / name).mkdir(parents=True)
    for path in whole.iterdir():
        is_weights = path.name in ("config.json", "model.safetensors")
        path.rename(root / "example" / ("wee-whisper" if is_weights else "original") / path.name)
    program.home.catalog.mkdir(parents=True, exist_ok=True)
    (program.home.catalog / "wee-whisper.yaml").write_text(ENTRY)
    with HubServer(root) as hub:
        pulling = program.with_variables(**hub.variables(root / "hf"))
        pulled = pulling.run("pull", "wee-whisper", "--json")
    assert pulled.code == 0, pulled.out + pulled.err


@pytest.fixture(scope="module")
def client(program: Program) -> Iterator[httpx.Client]:
    with client_of(program) as client:
        yield client


@pytest.fixture
def openai(client: httpx.Client) -> OpenAI:
    key = client.headers["authorization"].removeprefix("Bearer ")
    return OpenAI(base_url=str(client.base_url), api_key=key, max_retries=0)


def hear(client: httpx.Client, sound: bytes, *, to: str = "transcriptions", **more: str) -> Any:
    files = {"file": ("../../secret.mp3", sound, "audio/mpeg")}
    form = {"model": "wee-whisper", **more}
    return client.post(f"/audio/{to}", files=files, data=form)


def test_the_role_of_each_model_is_known(program: Program) -> None:
    tiers = {tier.name: tier for tier in load_stack(program.home.stack).tiers}
    assert {name: str(tier.role) for name, tier in tiers.items()} == {
        "wee-whisper": "speech-to-text",
        "wee-soprano": "text-to-speech",
    }


def test_words_come_in_each_form(openai: OpenAI) -> None:
    file = ("speech.wav", tone(1.5, rate_hz=22_050, channels=2))
    transcribe = openai.audio.transcriptions.create
    words = transcribe(model="wee-whisper", file=file, language="en", prompt="names", temperature=0)
    assert words.text == HEARD
    subtitles = transcribe(model="wee-whisper", file=file, language="en", response_format="srt")
    assert subtitles == f"1\n00:00:00,000 --> 00:00:01,000\n{HEARD}\n\n"
    verbose = transcribe(model="wee-whisper", file=file, response_format="verbose_json")
    assert (verbose.language, verbose.duration) == ("en", 1.5)
    assert verbose.segments is not None
    assert [each.end for each in verbose.segments] == [1.0]


def test_words_come_translated(client: httpx.Client) -> None:
    answer = hear(client, tone(1), to="translations", response_format="verbose_json")
    assert answer.status_code == 200, answer.text
    verbose = answer.json()
    assert (verbose["text"], verbose["task"]) == (TRANSLATED, "translate")


def test_bench_says_how_much_faster_than_real_time_a_tier_hears(program: Program) -> None:
    asked = ("--sizes", "5", "--iterations", "1", "--save", "--json")
    measured = program.run("bench", "wee-whisper", *asked, timeout_s=240)
    assert measured.code == 0, measured.out + measured.err
    report = measured.document
    assert [run["error"] for run in report["runs"]] == [None]
    (rate,) = [load["rate"]["value"] for load in report["summary"]]
    assert rate > 0
    services = program.run("status", "--json").document["services"]
    (shown,) = [each["measured"] for each in services if each["name"] == "wee-whisper"]
    assert (shown["value"], shown["unit"]) == (rate, "x real time")


@pytest.mark.parametrize(
    ("sound", "more", "said"),
    [
        (b"RIFFnonsense", {}, "audio in a known format"),
        (tone(1)[:30] + b"\0" * 4, {}, "damaged"),
        (tone(0), {}, "contains no audio"),
        (tone(1), {"language": "xx"}, "'xx' isn't one"),
        (tone(3 * 60 * 60, rate_hz=1500), {}, "longer than 2 hours"),
    ],
    ids=["text", "damaged", "empty", "language", "three hours"],
)
def test_a_sound_that_nobody_transcribes_is_refused_in_words(
    client: httpx.Client, sound: bytes, more: dict[str, str], said: str
) -> None:
    answer = hear(client, sound, **more)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]["message"]


def test_a_text_is_spoken_as_one_file(openai: OpenAI) -> None:
    speak = openai.audio.speech.with_streaming_response.create
    asked: Any = {"model": "wee-soprano", "input": "hello there", "voice": "any"}
    with speak(**asked, response_format="wav") as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        sound = answer.read()
    with wave.open(io.BytesIO(sound)) as file:
        assert (file.getframerate(), file.getnchannels()) == (SPOKEN_RATE_HZ, 1)
        assert any(file.readframes(2**20))


def test_a_speed_that_a_model_has_not_is_refused(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="fixed speed"):
        openai.audio.speech.create(
            model="wee-soprano", input="x", voice="any", speed=2, response_format="pcm"
        )


def test_a_model_asked_for_another_ones_work_names_the_one_that_does_it(
    client: httpx.Client,
) -> None:
    spoken = client.post("/audio/speech", json={"model": "wee-whisper", "input": "x"})
    heard = hear(client, tone(1), model="wee-soprano")
    assert (spoken.status_code, heard.status_code) == (400, 400)
    assert "Use 'wee-soprano'." in spoken.json()["error"]["message"]
    assert "Use 'wee-whisper'." in heard.json()["error"]["message"]
