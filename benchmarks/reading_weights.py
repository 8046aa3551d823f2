"""Models that read, hear or rank, in the shapes of the catalog's entries, with random weights.

`reading_models.py` serves them: what a process holds follows from shapes, types and the size of
the vocabulary, not from what the numbers are. The widths are those of the models' public
`config.json` files, as the catalog has them, and positions as they are commonly quoted; the
quantized files come out as large as the published ones, to a thousandth. Words are made up, in a
tokenizer of the model's own kind: with as many of them and, for BPE, with as many merges.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MAKE = '''
import importlib, json, random, sys
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors

folder, given = Path(sys.argv[1]), json.loads(sys.argv[2])
config, draw = given["config"], random.Random(1)
words = ("the", "harbour", "lies", "quiet", "under", "a", "grey", "sky")


def made_up(count, taken):
    """Words that begin as others do: in a trie 2.1 nodes each, as of real vocabularies."""
    found = dict.fromkeys(taken)
    every = [each for each in found if each.isalpha()]
    letters = "aabcdeeefghiijklmnooopqrrssttuuvwxyz\u00e0\u00e9\u00ee\u00f5\u00fc"
    letters += "".join(chr(each) for each in range(0x430, 0x443))
    while len(found) < count:
        begin = draw.choice(every)[: draw.randint(1, 8)]
        text = begin + "".join(draw.choices(letters, k=draw.choice((1, 1, 1, 2, 3))))
        if text not in found:
            found[text] = None
            every.append(text)
    return list(found)


def word_pieces(size):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    texts = made_up(size, [*special, *words])
    numbers = {each: n for n, each in enumerate(texts)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.add_special_tokens(special)
    return tokenizer, {"tokenizer_class": "BertTokenizer", "pad_token": "[PAD]",
                       "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
                       "mask_token": "[MASK]"}


def unigram(size):
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    texts = made_up(size - 1, [*special, *words, *("\\u2581" + each for each in words)])
    scores = [0.0] * 4 + [-8 - n / size for n in range(len(texts) - 4)]
    rows = [*zip(texts, scores), ("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(rows, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer.add_special_tokens([*special, "<mask>"])
    return tokenizer, {"tokenizer_class": "XLMRobertaTokenizer", "bos_token": "<s>",
                       "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>",
                       "unk_token": "<unk>",
                       "pad_token": "<pad>", "mask_token": "<mask>"}


def pairs(start, size, count, space):
    """A vocabulary that grows by joining a text and a letter, and as many merges as `count`."""
    vocab, joined = {each: n for n, each in enumerate(start)}, []
    letters = [each for each in start if len(each) == 1 and each.isascii() and each.isalpha()]
    def join(left, right):
        joined.append((left, right))
        vocab.setdefault(left + right, len(vocab))
    for word in words:
        text = space
        for letter in word:
            if text + letter not in vocab:
                join(text, letter)
            text += letter
    texts = [each for each in vocab if len(each) > 1] + letters
    while len(vocab) < size:
        left, right = draw.choice(texts), draw.choice(letters)
        if len(left) < 12 and left + right not in vocab:
            join(left, right)
            texts.append(left + right)
    known = set(joined)
    for text in list(vocab):
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if len(joined) >= count:
                return vocab, joined
            if left in vocab and right in vocab and (left, right) not in known:
                joined.append((left, right))
    return vocab, joined


def byte_pairs(size):
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    start = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab, joined = pairs(start, size - 26, size - 26 - 256, "\\u0120")
    tokenizer = Tokenizer(models.BPE(vocab, joined))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    template = ("{% for m in messages %}<|im_start|>{{ m.role }}\\n{{ m.content }}<|im_end|>\\n"
                "{% endfor %}")
    return tokenizer, {"tokenizer_class": "Qwen2Tokenizer", "pad_token": "<|endoftext|>",
                       "eos_token": "<|im_end|>", "chat_template": template}


def sentence_pairs(size):
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    bytes_ = [f"<0x{n:02X}>" for n in range(256)]
    letters = [chr(n) for n in range(32, 127)] + ["\\u2581"]
    # as many merges for each word as Gemma 3's tokenizer.json has (514,906 for 262,144)
    vocab, joined = pairs([*special, *bytes_, *letters], size, round(size * 1.96), "\\u2581")
    tokenizer = Tokenizer(models.BPE(vocab, joined, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\\u2581", "merged_with_next")
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)])
    return tokenizer, {"tokenizer_class": "GemmaTokenizer", "pad_token": "<pad>",
                       "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}


def hears(size):
    from mlx_audio.stt.models.whisper.tokenizer import LANGUAGES
    start = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab, joined = pairs(start, 50257, 50001, "\\u0120")
    tokenizer = Tokenizer(models.BPE(vocab, joined))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = ["endoftext", "startoftranscript", *LANGUAGES, "translate", "transcribe", "startoflm",
             "startofprev", "nospeech", "notimestamps"]
    names += [f"{number * 0.02:.2f}" for number in range(1501)]
    tokenizer.add_tokens([AddedToken(f"<|{each}|>", special=True) for each in names])
    end = "<|endoftext|>"
    json.dump({"feature_extractor_type": "WhisperFeatureExtractor",
               "feature_size": config["num_mel_bins"], "hop_length": 160, "n_fft": 400,
               "chunk_length": 30, "n_samples": 480000, "nb_max_frames": 3000,
               "sampling_rate": 16000, "padding_value": 0.0,
               "processor_class": "WhisperProcessor"},
              open(folder / "preprocessor_config.json", "w"))
    return tokenizer, {"tokenizer_class": "WhisperTokenizer", "bos_token": end, "eos_token": end,
                       "unk_token": end, "pad_token": end, "add_prefix_space": False}


kinds = {"word pieces": word_pieces, "unigram": unigram, "byte pairs": byte_pairs,
         "sentence pairs": sentence_pairs, "whisper": hears}
tokenizer, said = kinds[given["tokenizer"]](config["vocab_size"])
tokenizer.save(str(folder / "tokenizer.json"))
said["model_max_length"] = given["longest"]
json.dump(said, open(folder / "tokenizer_config.json", "w"))

if given["tokenizer"] == "whisper":
    from mlx_audio.stt.models.whisper.whisper import Model, ModelDimensions
    module = Model(ModelDimensions(**given["dimensions"]))
    kept = {}
else:
    found = importlib.import_module(f"mlx_vlm.models.{given['module']}")
    kind = found.SequenceClassificationModel if given["ranks"] else found.Model
    kept = {"quantization": given["quantization"]} if given["quantization"] else {}
    module = kind(found.ModelConfig.from_dict({**config, "num_labels": 1}))
dtype = getattr(mx, given["dtype"])
mx.random.seed(1)
module.update(tree_map(
    lambda each: mx.random.normal(each.shape, scale=0.02).astype(dtype), module.parameters()))


def is_quantized(_, each):
    return hasattr(each, "to_quantized") and each.weight.shape[-1] % 64 == 0


if given["quantization"]:
    nn.quantize(module, **given["quantization"], class_predicate=is_quantized)
weights = dict(tree_flatten(module.parameters()))
mx.save_safetensors(str(folder / given["file"]), weights, metadata={"format": "mlx"})
json.dump({**config, **kept}, open(folder / "config.json", "w"))
print(sum(each.nbytes for each in weights.values()))
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomModel:
    """What a model's folder is made from.

    Attributes:
        config: Its `config.json`.
        module: The module of mlx_vlm that computes it.
        tokenizer: The kind of its tokenizer.
        longest: The tokens of a text that its tokenizer lets through.
    """

    config: dict[str, Any]
    module: str = ""
    tokenizer: str
    longest: int
    dimensions: dict[str, int] | None = None


def _encoder(layers: int, width: int, heads: int, words: int, positions: int) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": heads,
        "vocab_size": words,
        "max_position_embeddings": positions,
        "hidden_act": "gelu",
    }


def _bert(layers: int, width: int, heads: int, words: int) -> dict[str, Any]:
    own = {"model_type": "bert", "architectures": ["BertModel"], "type_vocab_size": 2}
    return {**own, **_encoder(layers, width, heads, words, 512), "pad_token_id": 0}


def _roberta(positions: int, kind: str = "XLMRobertaModel", layers: int = 24) -> dict[str, Any]:
    own = {"model_type": "xlm-roberta", "architectures": [kind], "type_vocab_size": 1}
    return {**own, **_encoder(layers, 1024, 16, 250_002, positions), "pad_token_id": 1}


def _qwen3(layers: int, width: int, wide: int, heads: int, words: int) -> dict[str, Any]:
    return {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": wide,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": words,
        "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000,
        "tie_word_embeddings": True,
    }


_GEMMA = {
    "model_type": "gemma3_text",
    "architectures": ["Gemma3TextModel"],
    "num_hidden_layers": 24,
    "hidden_size": 768,
    "intermediate_size": 1152,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 512,
    "vocab_size": 262_144,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
}
_WHISPER = {
    "n_mels": 128,
    "n_audio_ctx": 1500,
    "n_audio_state": 1280,
    "n_audio_head": 20,
    "n_audio_layer": 32,
    "n_vocab": 51_866,
    "n_text_ctx": 448,
    "n_text_state": 1280,
    "n_text_head": 20,
    "n_text_layer": 4,
}
_REREAD = {"id2label": {"0": "LABEL_0"}, "num_labels": 1}

MODELS = {
    "all-minilm-l6-v2": RandomModel(
        config=_bert(6, 384, 12, 30_522), module="bert", tokenizer="word pieces", longest=512
    ),
    "multilingual-e5-small": RandomModel(
        config=_bert(12, 384, 12, 250_037), module="bert", tokenizer="unigram", longest=512
    ),
    "multilingual-e5-large": RandomModel(
        config=_roberta(514), module="xlm_roberta", tokenizer="unigram", longest=512
    ),
    "bge-m3": RandomModel(
        config=_roberta(8194), module="xlm_roberta", tokenizer="unigram", longest=8192
    ),
    "embeddinggemma-300m": RandomModel(
        config=_GEMMA, module="gemma3_embedding", tokenizer="sentence pairs", longest=2048
    ),
    "qwen3-embedding-0.6b": RandomModel(
        config=_qwen3(28, 1024, 3072, 16, 151_669),
        module="qwen3_embedding",
        tokenizer="byte pairs",
        longest=131_072,
    ),
    "qwen3-embedding-4b": RandomModel(
        config=_qwen3(36, 2560, 9728, 32, 151_665),
        module="qwen3_embedding",
        tokenizer="byte pairs",
        longest=131_072,
    ),
    "bge-reranker-v2-m3": RandomModel(
        config={**_roberta(8194, "XLMRobertaForSequenceClassification"), **_REREAD},
        module="xlm_roberta",
        tokenizer="unigram",
        longest=8192,
    ),
    "qwen3-reranker-0.6b": RandomModel(
        config=_qwen3(28, 1024, 3072, 16, 151_669),
        module="qwen3_embedding",
        tokenizer="byte pairs",
        longest=131_072,
    ),
    "whisper-large-v3-turbo": RandomModel(
        config={**_WHISPER, "model_type": "whisper", "vocab_size": 51_866, "num_mel_bins": 128},
        tokenizer="whisper",
        longest=448,
        dimensions=_WHISPER,
    ),
}
"""By the id of the catalog's entry."""

_BITS: dict[str, dict[str, Any]] = {
    "int4": {"group_size": 64, "bits": 4},
    "int4-dwq": {"group_size": 64, "bits": 4},
    "int8": {"group_size": 64, "bits": 8},
    "6bit": {"group_size": 64, "bits": 6},
    "mxfp8": {"group_size": 32, "bits": 8, "mode": "mxfp8"},
}


def make_model(
    folder: Path, model: RandomModel, quant: str, *, is_wide: bool, engine_python: Path
) -> Path:
    """Write the model to `folder`, which is returned.

    Args:
        quant: The precision, as the catalog calls it.
        is_wide: Whether weights that aren't quantized have 32 bits.
    """
    folder.mkdir(parents=True)
    given = {
        "config": model.config,
        "module": model.module,
        "tokenizer": model.tokenizer,
        "longest": model.longest,
        "dimensions": model.dimensions,
        "ranks": "num_labels" in model.config,
        "quantization": _BITS.get(quant),
        "dtype": "float32" if is_wide else "float16" if model.dimensions else "bfloat16",
        "file": "weights.safetensors" if model.dimensions else "model.safetensors",
    }
    subprocess.run([engine_python, "-I", "-c", _MAKE, folder, json.dumps(given)], check=True)
    return folder
