"""Models that hear and speak, small enough for a test, and the sounds that they are given.

Both have the shape of real ones and weights that are made up. The one that hears is a Whisper of
one layer whose decoder says the same words to every 30 seconds of sound, others where it is asked
to translate: real ones give garbled text with MLX's CPU build. The one that speaks is a Soprano
with random weights, so what it says is noise.
"""

import io
import math
import subprocess
import wave
from array import array
from pathlib import Path

HEARD = "hello wide world"
TRANSLATED = "good morning"
SPOKEN_RATE_HZ = 32_000

_MAKE_WHISPER = """
import json, sys
import mlx.core as mx
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from mlx_audio.stt.models.whisper.tokenizer import LANGUAGES

folder, chains = sys.argv[1], json.loads(sys.argv[2])
vocab, merges = {}, []
for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
    vocab[symbol] = len(vocab)
for word in sorted({word for words in chains.values() for word in words.split()}):
    joined = "\\u0120"
    for letter in word:
        merges.append((joined, letter))
        joined += letter
        vocab.setdefault(joined, len(vocab))
while len(vocab) < 50257:
    vocab[f"unused{len(vocab)}"] = len(vocab)
tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
names = ["endoftext", "startoftranscript", *list(LANGUAGES)[:99], "translate", "transcribe",
         "startoflm", "startofprev", "nospeech", "notimestamps"]
names += [f"{number * 0.02:.2f}" for number in range(1501)]
tokenizer.add_tokens([AddedToken(f"<|{each}|>", special=True) for each in names])
tokenizer.save(f"{folder}/tokenizer.json")
end = "<|endoftext|>"
json.dump({"tokenizer_class": "WhisperTokenizer", "bos_token": end, "eos_token": end,
           "unk_token": end, "pad_token": end, "add_prefix_space": False},
          open(f"{folder}/tokenizer_config.json", "w"))
json.dump({"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80,
           "hop_length": 160, "n_fft": 400, "chunk_length": 30, "n_samples": 480000,
           "nb_max_frames": 3000, "sampling_rate": 16000, "padding_value": 0.0,
           "processor_class": "WhisperProcessor"},
          open(f"{folder}/preprocessor_config.json", "w"))
width, size = 128, tokenizer.get_vocab_size()
config = {"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper",
          "vocab_size": size, "num_mel_bins": 80, "d_model": width, "encoder_layers": 1,
          "encoder_attention_heads": 2, "decoder_layers": 1, "decoder_attention_heads": 2,
          "encoder_ffn_dim": 4 * width, "decoder_ffn_dim": 4 * width, "num_hidden_layers": 1,
          "max_source_positions": 1500, "max_target_positions": 448}
json.dump(config, open(f"{folder}/config.json", "w"))
mx.random.seed(5)
tokens = mx.random.normal((size, width))
tokens = tokens - tokens.mean(axis=1, keepdims=True)
weights = {
    "encoder.conv1.weight": mx.random.normal((width, 80, 3), scale=0.1),
    "encoder.conv1.bias": mx.zeros((width,)),
    "encoder.conv2.weight": mx.random.normal((width, width, 3), scale=0.1),
    "encoder.conv2.bias": mx.zeros((width,)),
    "decoder.embed_tokens.weight": tokens,
    "decoder.embed_positions.weight": mx.zeros((448, width)),
}
for part, attentions in (("encoder", ["self_attn"]), ("decoder", ["self_attn", "encoder_attn"])):
    layer = f"{part}.layers.0"
    norms = [f"{part}.layer_norm", f"{layer}.final_layer_norm"]
    for attention in attentions:
        norms.append(f"{layer}.{attention}_layer_norm")
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            weights[f"{layer}.{attention}.{name}.weight"] = mx.zeros((width, width))
            if name != "k_proj":
                weights[f"{layer}.{attention}.{name}.bias"] = mx.zeros((width,))
    for name in norms:
        weights[f"{name}.weight"], weights[f"{name}.bias"] = mx.ones((width,)), mx.zeros((width,))
    weights[f"{layer}.fc1.weight"] = mx.zeros((4 * width, width))
    weights[f"{layer}.fc1.bias"] = mx.zeros((4 * width,))
    weights[f"{layer}.fc2.weight"] = mx.zeros((width, 4 * width))
    weights[f"{layer}.fc2.bias"] = mx.zeros((width,))
# each row of the decoder's first matrix knows a token, its second matrix says which comes next
links = [("<|startoftranscript|>", "<|en|>"), ("<|1.00|>", end)]
for task, words in chains.items():
    said = [tokenizer.id_to_token(each) for each in tokenizer.encode(f" {words}").ids]
    chain = [f"<|{task}|>", "<|0.00|>", *said, "<|1.00|>"]
    if task == "transcribe":
        links += zip(chain, chain[1:])
    else:  # both begin with the same token, so the second way leaves from another time
        chain[1] = "<|0.02|>"
        links += zip(chain, chain[1:])
number = {name: tokenizer.token_to_id(name) for link in links for name in link}
known = mx.stack([tokens[number[name]] for name, _ in links])
following = mx.stack([tokens[number[name]] for _, name in links])
count = len(links)
layer = "decoder.layers.0"
weights[f"{layer}.fc1.weight"][:count] = known * (20 / width)
weights[f"{layer}.fc1.bias"][:count] = mx.full((count,), -10.0)
weights[f"{layer}.fc2.weight"][:, :count] = following.T
mx.save_safetensors(
    f"{folder}/model.safetensors",
    {f"model.{name}": each.astype(mx.float16) for name, each in weights.items()},
    metadata={"format": "pt"},
)
"""

_MAKE_SOPRANO = """
import json, sys
import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_audio.tts.models.soprano import Model, ModelConfig
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

folder = sys.argv[1]
names = ["[UNK]", "[STOP]", "[TEXT]", "[START]", *" abcdefghijklmnopqrstuvwxyz.,!?"]
tokenizer = Tokenizer(models.WordLevel({each: n for n, each in enumerate(names)}, "[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
tokenizer.add_tokens([AddedToken(each, special=True) for each in names[:4]])
tokenizer.save(f"{folder}/tokenizer.json")
json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]",
           "eos_token": "[STOP]", "pad_token": "[STOP]"},
          open(f"{folder}/tokenizer_config.json", "w"))
config = {"model_type": "soprano", "architectures": ["SopranoForSpeech"], "hidden_size": 64,
          "num_hidden_layers": 1, "intermediate_size": 64, "num_attention_heads": 2,
          "num_key_value_heads": 1, "head_dim": 32, "rms_norm_eps": 1e-6,
          "vocab_size": len(names), "rope_theta": 10000.0, "max_position_embeddings": 2048,
          "tie_word_embeddings": False, "sample_rate": 32000}
json.dump(config, open(f"{folder}/config.json", "w"))
mx.random.seed(7)
made = Model(ModelConfig.from_dict({**config, "model_path": folder}))
weights = dict(tree_flatten(made.parameters()))
mx.save_safetensors(f"{folder}/model.safetensors", weights, metadata={"format": "pt"})
"""


def make_whisper(folder: Path, *, engine_python: Path) -> Path:
    """Write a Whisper that says `HEARD` and `TRANSLATED` to `folder`, which is returned."""
    folder.mkdir(parents=True)
    chains = f'{{"transcribe": "{HEARD}", "translate": "{TRANSLATED}"}}'
    subprocess.run([engine_python, "-I", "-c", _MAKE_WHISPER, folder, chains], check=True)
    return folder


def make_soprano(folder: Path, *, engine_python: Path) -> Path:
    """Write a Soprano with random weights, which speaks noise, to `folder`, which is returned."""
    folder.mkdir(parents=True)
    subprocess.run([engine_python, "-I", "-c", _MAKE_SOPRANO, folder], check=True)
    return folder


def tone(seconds: float, *, rate_hz: int = 16_000, channels: int = 1) -> bytes:
    """A WAV file with a tone of 440 Hz."""
    period = [round(9000 * math.sin(2 * math.pi * 440 * each / rate_hz)) for each in range(rate_hz)]
    second = array("h", [value for value in period for _ in range(channels)]).tobytes()
    frames = round(seconds * rate_hz)
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(2)
        sound.setframerate(rate_hz)
        whole, rest = divmod(frames, rate_hz)
        for _ in range(whole):
            sound.writeframesraw(second)
        sound.writeframes(second[: rest * 2 * channels])
    return file.getvalue()


def seconds_of(sound: bytes) -> float:
    """How long a WAV file plays."""
    with wave.open(io.BytesIO(sound)) as file:
        return file.getnframes() / file.getframerate()
