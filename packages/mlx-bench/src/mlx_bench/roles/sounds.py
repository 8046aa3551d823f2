"""Sounds for models that hear, and the length of what others say; without a library."""

import io
import math
import random
import struct
import wave
from array import array

SOUND_RATE_HZ = 16_000
"""What those who transcribe listen to."""
_LOUDEST = 9000
_PAUSE = 0.25
"""Of a syllable's time."""
_HEAD = struct.Struct("<4sI")
_FORMAT = struct.Struct("<HHIIHH")


def wav(samples: bytes) -> bytes:
    """A WAV file of one channel, of samples with 16 bits at `SOUND_RATE_HZ`."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SOUND_RATE_HZ)
        sound.writeframes(samples)
    return file.getvalue()


def random_sound(seconds: int, draw: random.Random) -> bytes:
    """A WAV file that plays so long: a hum in syllables, with the pitch and the vowels of a voice.

    It has no words. Each syllable repeats one period of its tone, so that an hour is made quickly.
    """
    samples = array("h")
    wanted = seconds * SOUND_RATE_HZ
    while len(samples) < wanted:
        period = _period(draw)
        length = round(draw.uniform(0.12, 0.3) * SOUND_RATE_HZ)
        spoken = round(length * (1 - _PAUSE)) // len(period)
        samples.extend(period * spoken)
        samples.extend(array("h", bytes(2 * (length - spoken * len(period)))))
    return wav(samples[:wanted].tobytes())


def _period(draw: random.Random) -> "array[int]":
    """One period of a vowel: a pitch from 100 to 250 Hz, louder near two other frequencies."""
    length = round(SOUND_RATE_HZ / draw.uniform(100, 250))
    pitch_hz = SOUND_RATE_HZ / length
    peaks_hz = draw.uniform(300, 800), draw.uniform(900, 2400)
    loudness = [
        sum(1 / (1 + ((number * pitch_hz - peak_hz) / 150) ** 2) for peak_hz in peaks_hz)
        for number in range(1, 21)
    ]
    scale = _LOUDEST / sum(loudness)
    return array(
        "h",
        (
            round(
                scale
                * sum(
                    each * math.sin(math.tau * number * place / length)
                    for number, each in enumerate(loudness, start=1)
                )
            )
            for place in range(length)
        ),
    )


def wav_seconds(sound: bytes) -> float:
    """How long a WAV file plays; one that was streamed need not know it itself.

    Raises:
        ValueError: It isn't a WAV file, or holds no sound.
    """
    if len(sound) < 12 or sound[:4] != b"RIFF" or sound[8:12] != b"WAVE":
        raise ValueError("the answer isn't a WAV file")
    place, bytes_per_s = 12, 0
    while place + _HEAD.size <= len(sound):
        name, size = _HEAD.unpack_from(sound, place)
        place += _HEAD.size
        if name == b"fmt " and place + _FORMAT.size <= len(sound):
            _, channels, rate_hz, bytes_per_s, block, _ = _FORMAT.unpack_from(sound, place)
            if not channels or not bytes_per_s or bytes_per_s != rate_hz * block:
                raise ValueError("the WAV file's header is invalid")
        elif name == b"data":
            return _played(sound, place, size, bytes_per_s)
        place += size + size % 2
    raise ValueError("the WAV file has no sound in it")


def _played(sound: bytes, start: int, said: int, bytes_per_s: int) -> float:
    """The seconds of a file's samples, of which its head has `said` how many bytes there are."""
    there = len(sound) - start
    length = min(said or there, there)
    if sound[start + length :].startswith(b"RIFF"):
        raise ValueError("the answer is several WAV files, one after the other")
    if not length or not bytes_per_s:
        raise ValueError("the WAV file has no sound in it")
    return length / bytes_per_s
