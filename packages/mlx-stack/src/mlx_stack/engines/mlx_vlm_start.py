"""Keeps mlx_vlm.server to one model, and to what a machine has memory for.

`guard.py` runs it in the engine's environment, so it imports nothing but the standard library, and
no file of the engine is changed. By itself the server loads whatever model a request names, goes
on without the one that it was started with where that can't be loaded, and computes all texts of a
request at once, or eight documents, each as long as the longest, beside those of other requests.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

PROGRAM = "mlx-vlm"
"""What `guard.py` is called with to start it."""
TOKENS_AT_ONCE = 4096
"""The tokens of texts that are computed together, padding included, unless one is longer."""
_KINDS = {
    "--embedding-model": "embedding",
    "--reranker-model": "reranker",
    "--stt-model": "audio_stt",
    "--tts-model": "audio_tts",
}
LONGEST_TEXT_TOKENS = 8192
"""Where the server cuts a text of a model that reads longer ones."""
_TOKENS_OF_A_PROMPT = 64
"""More than the words that a chat template, and the server, put around a query and a document."""
_one_at_a_time = threading.Lock()
"""Held while a batch is computed: beside each other, batches take longer and more memory."""


def main(arguments: Sequence[str]) -> None:
    """Run the server with its own flags for one model, and those that are only taken here.

    They are `--served-model-name`, `--pooling`, and `--work-bytes`: what MLX may take beside the
    weights.
    """
    given = list(arguments)
    name, pooling = _taken(given, "--served-model-name"), _taken(given, "--pooling")
    work_bytes = int(_taken(given, "--work-bytes") or 0)
    flag = next(each for each in given if each in _KINDS)
    serve_one_model(name, given[given.index(flag) + 1], _KINDS[flag], pooling, work_bytes)
    keep_to_texts()
    bound_batches()
    sys.argv[:] = ["mlx_vlm.server", *given]
    import_module("mlx_vlm.server.cli").main()


def _taken(words: list[str], flag: str) -> str:
    """The value of a flag that the server doesn't know, which is taken out; "" without it."""
    if flag not in words:
        return ""
    at = words.index(flag)
    value, words[at : at + 2] = words[at + 1], []
    return value


def serve_one_model(
    name: str, folder: str, kind: str, pooling: str = "", work_bytes: int = 0
) -> None:
    """Let the server know the model in `folder` by `name`, and no other.

    The first who asks for a model is the server itself, before it listens.

    Args:
        pooling: How it makes one vector of many, where its folder doesn't say: conversions leave
            that file out, and the server would suppose what is usual for the type.
        work_bytes: What MLX may take beside the weights; 0 leaves it its own limit, which is more
            than the machine has.
    """
    server: Any = import_module("mlx_vlm.server")
    app: Any = import_module("mlx_vlm.server.app")
    mlx: Any = import_module("mlx.core")
    refuse: Callable[..., Exception] = import_module("fastapi").HTTPException
    load: Callable[..., Any] = app.get_cached_model
    loaded = False

    def get_model(asked: str, *_: object, model_kind: str = "auto") -> Any:
        nonlocal loaded
        if asked not in (name, folder) or model_kind != kind:
            raise refuse(status_code=404, detail=f"There is no such model here; ask for {name!r}.")
        try:
            found = load(folder, model_kind=kind)
        except Exception as error:
            if loaded:
                raise
            reason = getattr(error, "detail", error)
            print(f"error: the model can't be loaded: {reason}", file=sys.stderr, flush=True)  # noqa: T201
            os._exit(1)  # an exception's words would be taken out of the log
        if not loaded and pooling and found[0].pooling_config is None:
            found[0].pooling_config = {"pooling_mode": pooling}
        if not loaded and work_bytes:
            # beyond its limit, MLX waits for what is being computed before it begins more, and
            # gives back the buffers that it keeps for later
            mlx.set_memory_limit(mlx.get_active_memory() + work_bytes)
        loaded = True
        return found

    app.get_cached_model = server.get_cached_model = get_model


def keep_to_texts() -> None:
    """Let what is embedded be text, though it begins as the URL of a picture does.

    The server decodes such a text as a picture of any size, which none of these models can read.
    """
    embeddings: Any = import_module("mlx_vlm.server.embeddings")

    def no_picture(_: object) -> None:
        return None

    embeddings._extract_image_url = no_picture  # noqa: SLF001 - there is no other way in


def bound_batches() -> None:
    """Let the texts of a request be computed in batches of `TOKENS_AT_ONCE` at most, one at a time.

    Texts of like length go together, so that little is computed for padding.
    """
    embeddings: Any = import_module("mlx_vlm.server.embeddings")
    reranking: Any = import_module("mlx_vlm.server.reranking")
    embed = embeddings._embed  # noqa: SLF001 - the only way in
    score_pairs, score_prompts = reranking._score_sequence_batch, reranking._score_text_batch  # noqa: SLF001
    usual_size: Callable[[str], int] = reranking._batch_size  # noqa: SLF001

    def embed_in_batches(model: Any, processor: Any, texts: list[str]) -> tuple[list[Any], int]:
        tokenizer = getattr(processor, "tokenizer", processor)
        longest = int(getattr(tokenizer, "model_max_length", 0) or LONGEST_TEXT_TOKENS)
        lengths = _lengths(tokenizer(texts), min(longest, LONGEST_TEXT_TOKENS))
        return in_batches(lengths, texts, lambda batch: embed(model, processor, batch))

    def score_pairs_in_batches(
        model: Any, processor: Any, config: Any, query: Any, documents: list[Any]
    ) -> tuple[list[Any], int]:
        tokenizer = getattr(processor, "tokenizer", processor)
        pairs = tokenizer([query.text] * len(documents), [each.text for each in documents])
        longest: int = reranking._sequence_max_length(config, tokenizer)  # noqa: SLF001
        return in_batches(
            _lengths(pairs, longest),
            documents,
            lambda batch: score_pairs(model, processor, config, query, batch),
        )

    def score_prompts_in_batches(
        model: Any, processor: Any, query: Any, documents: list[Any], instruction: str
    ) -> tuple[list[Any], int]:
        tokenizer = getattr(processor, "tokenizer", processor)
        asked = tokenizer(f"{reranking.SYSTEM_PROMPT}{instruction}{query.text}")["input_ids"]
        around = len(asked) + _TOKENS_OF_A_PROMPT
        texts = tokenizer([each.text for each in documents])
        lengths = _lengths(texts, LONGEST_TEXT_TOKENS, around=around)
        return in_batches(
            lengths,
            documents,
            lambda batch: score_prompts(model, processor, query, batch, instruction),
        )

    def any_size(model_type: str) -> int:
        return usual_size(model_type) if model_type == "qwen3_vl" else sys.maxsize

    embeddings._embed = embed_in_batches  # noqa: SLF001
    reranking._score_sequence_batch = score_pairs_in_batches  # noqa: SLF001
    reranking._score_text_batch = score_prompts_in_batches  # noqa: SLF001
    reranking._batch_size = any_size  # noqa: SLF001


def _lengths(encoded: Any, longest: int, *, around: int = 0) -> list[int]:
    return [min(len(each) + around, longest) for each in encoded["input_ids"]]


def in_batches[T](
    lengths: Sequence[int],
    items: Sequence[T],
    compute: Callable[[list[T]], tuple[list[Any], int]],
) -> tuple[list[Any], int]:
    """What is computed of each item, in their order, and the tokens that all had together."""
    found: list[Any] = [None] * len(items)
    tokens = 0
    for batch in batches(lengths):
        with _one_at_a_time:
            computed, used = compute([items[index] for index in batch])
        tokens += used
        for index, each in zip(batch, computed, strict=True):
            found[index] = each
    return found, tokens


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The numbers of texts of these lengths, in groups that are computed together."""
    batch: list[int] = []
    # the longest last, so that each is the one that the others of its batch are padded to
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[index] * (len(batch) + 1) > TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
