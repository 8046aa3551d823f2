"""Keeps mlx_vlm.server to one model, and to what a machine has memory for.

`guard.py` runs it in the engine's environment, so it imports nothing but the standard library, and
no file of the engine is changed. By itself the server loads whatever model a request names, goes
on without the one that it was started with where that can't be loaded, and computes all texts of a
request at once, each as long as the longest.
"""

import os
import sys
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


def main(arguments: Sequence[str]) -> None:
    """Run the server with its own flags for one model, `--served-model-name` and `--pooling`."""
    given = list(arguments)
    name, pooling = _taken(given, "--served-model-name"), _taken(given, "--pooling")
    flag = next(each for each in given if each in _KINDS)
    serve_one_model(name, given[given.index(flag) + 1], _KINDS[flag], pooling)
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


def serve_one_model(name: str, folder: str, kind: str, pooling: str = "") -> None:
    """Let the server know the model in `folder` by `name`, and no other.

    The first who asks for a model is the server itself, before it listens.

    Args:
        pooling: How it makes one vector of many, where its folder doesn't say: conversions leave
            that file out, and the server would suppose what is usual for the type.
    """
    server: Any = import_module("mlx_vlm.server")
    app: Any = import_module("mlx_vlm.server.app")
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
    """Let the texts of a request be computed in batches of `TOKENS_AT_ONCE` at most.

    Texts of like length go together, so that little is computed for padding.
    """
    embeddings: Any = import_module("mlx_vlm.server.embeddings")
    embed: Callable[..., tuple[list[Any], int]] = embeddings._embed  # noqa: SLF001 - the only way in

    def embed_in_batches(model: Any, processor: Any, texts: list[str]) -> tuple[list[Any], int]:
        tokenizer = getattr(processor, "tokenizer", processor)
        longest = int(getattr(tokenizer, "model_max_length", 0) or LONGEST_TEXT_TOKENS)
        longest = min(longest, LONGEST_TEXT_TOKENS)
        lengths = [min(len(each), longest) for each in tokenizer(texts)["input_ids"]]
        vectors: list[Any] = [None] * len(texts)
        tokens = 0
        for batch in batches(lengths):
            found, used = embed(model, processor, [texts[index] for index in batch])
            tokens += used
            for index, vector in zip(batch, found, strict=True):
                vectors[index] = vector
        return vectors, tokens

    embeddings._embed = embed_in_batches  # noqa: SLF001


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
