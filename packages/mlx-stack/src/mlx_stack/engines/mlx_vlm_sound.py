"""Keeps mlx_vlm.server's handling of sound to what a machine has memory and time for.

`guard.py` applies it in the engine's process, so it imports nothing but the standard library, and
no file of the engine is changed. By itself the server decodes a whole sound, however long, on the
thread that answers, as 64-bit numbers; continues for a client that has left; loses a Whisper's
prompt; takes a language that it doesn't know for no language; prints what went wrong with the text
that it went wrong with; and streams a WAV file as several, one after the other (decision 0109).
"""

import asyncio
import contextvars
import inspect
import io
import logging
import shutil
import struct
import sys
import threading
import wave
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

LONGEST_SOUND_S = 2 * 60 * 60
"""A lecture or a long meeting."""
RATE_HZ = 16_000
"""What those who transcribe listen to."""
_RATES_HZ = range(1_000, 768_001)
_MOST_CHANNELS = 32
_UNKNOWN_SIZE = 2**32 - 1
_WITHOUT_FFMPEG = ("wav", "mp3", "flac")
_LEFT = 499
_SAMPLES_AT_ONCE = 60 * RATE_HZ
_FRAMES_AT_ONCE = 60 * 100
"""A minute of each."""

_log = logging.getLogger("mlx_vlm.sound")
_asking: contextvars.ContextVar[Any] = contextvars.ContextVar("asking")
_work = threading.local()
"""Of the thread that computes: its `request`, how many `seconds` its sound plays, the `pieces` of
its answer, and whether that `began`."""


def apply(arguments: Sequence[str]) -> None:
    """Change what the server does with sounds, where its `arguments` name a model for them."""
    if not {"--stt-model", "--tts-model"} & {*arguments}:
        return
    audio: Any = import_module("mlx_vlm.server.audio")
    _read_within_bounds(audio)
    _give_up_with_the_client(audio)
    _write_one_file(audio)
    build: Callable[..., dict[str, Any]] = audio._build_stt_generate_kwargs  # noqa: SLF001 - the only way in
    audio._build_stt_generate_kwargs = partial(_asked_of, build)  # noqa: SLF001
    audio.traceback = SimpleNamespace(print_exc=_log_failure)
    if "--stt-model" in arguments:
        whisper: Any = import_module("mlx_audio.stt.models.whisper.whisper")
        whisper.log_mel_spectrogram = log_mel_in_pieces
        whisper.Model.decode = _while_asked(whisper.Model.decode)


def _refusal(reason: str) -> Exception:
    return import_module("fastapi").HTTPException(status_code=400, detail=reason)


# hearing


def _read_within_bounds(audio: Any) -> None:
    """Let the thread that computes decode sounds, to what is listened to and no more of it."""
    write: Callable[..., None] = audio.audio_write
    describe: Callable[[Any], dict[str, Any]] = audio._stt_item_to_dict  # noqa: SLF001

    def keep(file: io.BytesIO, **_: object) -> tuple[bytes, int]:
        return file.getvalue(), RATE_HZ

    def write_decoded(path: Any, data: Any, rate_hz: int, **options: object) -> None:
        if isinstance(data, bytes):
            _work.seconds = decode(data, path)
        else:
            write(path, data, rate_hz, **options)

    def describe_with_length(item: Any) -> dict[str, Any]:
        return {**describe(item), "duration": _work.seconds}

    audio.audio_read, audio.audio_write = keep, write_decoded
    audio._stt_item_to_dict = describe_with_length  # noqa: SLF001


def decode(sound: bytes, path: str) -> float:
    """Write the sound to `path` as a WAV file of one channel; how many seconds it plays.

    Raises:
        HTTPException: When it is none, is too long, or needs a decoder that isn't there.
    """
    audio_io: Any = import_module("mlx_audio.audio_io")
    kind: str | None = audio_io._detect_format(io.BytesIO(sound))  # noqa: SLF001
    if kind is None:
        raise _refusal("The file isn't audio in a known format: wav, mp3, flac, "
                       "m4a, ogg or webm.")  # fmt: skip
    if kind not in _WITHOUT_FFMPEG:
        _require_ffmpeg(kind, "; wav, mp3 and flac don't need it")
    elif _seconds_at_most(kind, sound) > LONGEST_SOUND_S:
        raise _too_long()
    try:
        samples, rate_hz = audio_io.read(
            io.BytesIO(sound),
            dtype="float32",
            sample_rate=RATE_HZ,
            nchannels=1,
            duration=LONGEST_SOUND_S + 1,
        )
    except Exception as error:
        raise _damaged(kind) from error
    seconds = len(samples) / rate_hz
    if seconds > LONGEST_SOUND_S:
        raise _too_long()
    if not len(samples):
        raise _refusal(f"The {kind} file contains no audio.")
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        for begin in range(0, len(samples), _SAMPLES_AT_ONCE):
            part = samples[begin : begin + _SAMPLES_AT_ONCE] * 32767
            file.writeframes(part.clip(-32768, 32767).astype("<i2").tobytes())
    return seconds


def _seconds_at_most(kind: str, sound: bytes) -> float:
    """How long a sound plays by what its head says.

    Raises:
        HTTPException: When that makes no sense: the rate decides how a sound is resampled.
    """
    miniaudio: Any = import_module("miniaudio")
    try:
        info = getattr(miniaudio, f"{kind}_get_info")(sound)
    except miniaudio.DecodeError as error:
        raise _damaged(kind) from error
    rate_hz, frames = info.sample_rate, info.num_frames
    if rate_hz not in _RATES_HZ or not 1 <= info.nchannels <= _MOST_CHANNELS:
        raise _damaged(kind)
    if kind == "wav":  # one that was streamed doesn't know how long it is
        frames = min(frames, len(sound) // (info.nchannels * max(info.sample_width, 1)))
    return frames / rate_hz


def _damaged(kind: str) -> Exception:
    return _refusal(f"The {kind} file is damaged, or of a kind that can't be read.")


def _too_long() -> Exception:
    return _refusal(f"The audio is longer than {LONGEST_SOUND_S // 3600} hours, the most that a "
                    "request may have. Split it.")  # fmt: skip


def _require_ffmpeg(kind: str, more: str) -> None:
    if shutil.which("ffmpeg") is None:
        raise _refusal(f"{kind} needs ffmpeg, which the engine doesn't find "
                       f"(`brew install ffmpeg`){more}.")  # fmt: skip


def _asked_of(
    build: Callable[..., dict[str, Any]], model: Any, request: Any, *, translate: bool
) -> dict[str, Any]:
    """What a model's `generate` gets for a request: `build`'s, without its mistakes."""
    asked = build(model, request, translate=translate)
    asked.pop("verbose", None)  # false draws a bar into the log
    if "initial_prompt" in inspect.signature(model.generate).parameters:
        asked.pop("context", None)
        if request.prompt:
            asked["initial_prompt"] = request.prompt
        _require_language(asked.get("language"))
    return asked


def _require_language(language: str | None) -> None:
    names: Any = import_module("mlx_audio.stt.models.whisper.tokenizer").LANGUAGES
    if language is not None and language not in names:
        raise _refusal(f"`language` must be the code of a language that Whisper knows, such as "
                       f"'en' or 'de'; {language[:20]!r} isn't one.")  # fmt: skip


def log_mel_in_pieces(sound: Any, n_mels: int = 80, padding: int = 0) -> Any:
    """What Whisper hears of a sound, as `log_mel_spectrogram` has it.

    That one takes 2.5 GB for an hour, since it holds every frame at once; this one about a quarter.
    """
    mx: Any = import_module("mlx.core")
    samples = sound if isinstance(sound, mx.array) else mx.array(sound)
    pieces = [*_log_mels(samples, n_mels, padding)]
    least = max(float(each.max()) for each in pieces) - 8.0
    for index, each in enumerate(pieces):
        pieces[index] = (mx.maximum(each, least) + 4.0) / 4.0
        mx.eval(pieces[index])
    return mx.concatenate(pieces)


def _log_mels(sound: Any, n_mels: int, padding: int) -> Iterator[Any]:
    """The same a minute at a time, and without the scale that follows from the loudest."""
    mx: Any = import_module("mlx.core")
    whisper: Any = import_module("mlx_audio.stt.models.whisper.audio")
    size, hop, half = whisper.N_FFT, whisper.HOP_LENGTH, whisper.N_FFT // 2
    filters = whisper.mel_filters(RATE_HZ, size, n_mels, norm="slaney", mel_scale=None).T
    window = whisper.hanning(size, periodic=True)
    end = mx.concatenate([sound[-half - 1 :], mx.zeros((padding,))])
    # its ends are mirrored, as the whole is where it is heard in one piece
    ends = sound[1 : half + 1][::-1], end[-half - 1 : -1][::-1]
    whole = mx.concatenate([ends[0], sound, end[half + 1 :], ends[1]])
    frames = (whole.shape[0] - size) // hop
    for first in range(0, frames, _FRAMES_AT_ONCE):
        last = min(first + _FRAMES_AT_ONCE, frames) - 1
        heard = whisper.stft(
            whole[first * hop : last * hop + size],
            window=window,
            n_fft=size,
            hop_length=hop,
            center=False,
        )
        log = mx.maximum(heard.abs().square() @ filters, 1e-10).log10()
        mx.eval(log)
        yield log


# leaving


def _give_up_with_the_client(audio: Any) -> None:
    """End a request whose client has left, at the next 30 seconds of its sound."""
    respond, collect = audio._audio_transcription_response, audio._collect_audio_handle  # noqa: SLF001
    run, stream = audio._run_stt_request, audio._stream_audio_handle  # noqa: SLF001

    async def respond_to(request: Any, *, translate: bool) -> Any:
        _asking.set(request)
        return await respond(request, translate=translate)

    async def collect_while_asked(handle: Any) -> Any:
        work, request = asyncio.ensure_future(collect(handle)), _asking.get(None)
        if request is not None:
            # `is_disconnected` sees nothing through the server's middleware
            gone = asyncio.ensure_future(_wait_until_gone(request))
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            if not work.done():
                handle.cancel()
        return await work

    async def stream_while_asked(handle: Any, *given: Any, **named: Any) -> AsyncIterator[Any]:
        try:
            async for piece in stream(handle, *given, **named):
                yield piece
        finally:
            handle.cancel()

    def run_noted(request: Any) -> None:
        _work.request = request
        run(request)

    audio._audio_transcription_response = respond_to  # noqa: SLF001
    audio._collect_audio_handle = collect_while_asked  # noqa: SLF001
    audio._stream_audio_handle = stream_while_asked  # noqa: SLF001
    audio._run_stt_request = run_noted  # noqa: SLF001


async def _wait_until_gone(request: Any) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _while_asked(decode_part: Callable[..., Any]) -> Callable[..., Any]:
    """`decode_part`, which computes 30 seconds of a sound, as long as its client waits."""

    def decode_if_asked(*args: Any, **options: Any) -> Any:
        if _work.request.cancel_event.is_set():
            raise import_module("fastapi").HTTPException(_LEFT, "The client has left.")
        return decode_part(*args, **options)

    return decode_if_asked


# speaking


def _write_one_file(audio: Any) -> None:
    """Let an answer that comes in pieces be one file: a WAV with one head, others at their end."""
    encode: Callable[[Any, int, str], bytes] = audio._encode_audio  # noqa: SLF001
    run, filtered = audio._run_tts_request, audio._filter_kwargs  # noqa: SLF001

    def run_one(request: Any) -> None:
        form: str = request.payload.request.response_format
        if form not in ("pcm", "wav"):
            _require_ffmpeg(form, "; wav and pcm don't need it")
        _work.pieces, _work.began = list[Any](), False
        try:
            run(request)
        except ValueError as error:  # such as a voice that the model doesn't have
            raise _refusal(f"The model can't say this: {error}") from error
        if _work.pieces and not request.cancel_event.is_set():
            whole: Any = import_module("numpy").concatenate(_work.pieces)
            request.emit_data(encode(whole, _work.rate_hz, form))

    def encode_piece(sound: Any, rate_hz: int, form: str) -> bytes:
        if form in ("pcm", "wav"):
            head = wav_head(rate_hz) if form == "wav" and not _work.began else b""
            _work.began = True
            return head + encode(sound, rate_hz, "pcm")
        _work.pieces.append(audio._to_numpy_audio(sound))  # noqa: SLF001
        _work.rate_hz = rate_hz
        return b""

    def filtered_with_speed(call: Any, asked: dict[str, Any], **more: Any) -> dict[str, Any]:
        if asked.get("speed", 1) != 1 and "speed" not in inspect.signature(call).parameters:
            raise _refusal("This model doesn't support `speed`: it has a fixed speed.")
        return filtered(call, asked, **more)

    audio._run_tts_request, audio._encode_audio = run_one, encode_piece  # noqa: SLF001
    audio._filter_kwargs = filtered_with_speed  # noqa: SLF001


def wav_head(rate_hz: int) -> bytes:
    """The head of a WAV file of one channel and 16 bits whose end nobody knows yet."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    data = struct.pack("<4sI", b"data", _UNKNOWN_SIZE)
    return struct.pack("<4sI4s", b"RIFF", _UNKNOWN_SIZE, b"WAVE") + form + data


def _log_failure() -> None:
    """Log what a request failed on, unless it was the request's own fault."""
    error = sys.exception()
    if getattr(error, "status_code", 500) >= 500:
        _log.error("a request failed", exc_info=error)
