"""A company's proxy that reads TLS: what is said of it, and that following it helps."""

import hashlib
import http.server
import json
import os
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import override

import pytest

from mlx_stack.engines.environment import EngineName, Lock
from mlx_stack.engines.errors import EngineInstallError
from mlx_stack.engines.install import install
from mlx_stack.engines.uv_process import own_toolchain
from stack_testkit.hub import HubServer, write_repository
from stack_testkit.inspecting_proxy import InspectingProxy
from stack_testkit.program import Finished, Program

pytestmark = pytest.mark.story

REPO = "example/Tiny-4bit"
CONFIG = {"model_type": "llama", "quantization": {"bits": 4, "group_size": 64}}
HEADER = b"{}      "
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER


class _Quiet(http.server.SimpleHTTPRequestHandler):
    @override
    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[tuple[str, Lock]]:
    """An index of one package, without TLS, and the lock that names it."""
    folder = tmp_path / "index" / "simple" / "vllm-mlx"
    folder.mkdir(parents=True)
    wheel = folder / "vllm_mlx-0.6.0-py3-none-any.whl"
    info = "vllm_mlx-0.6.0.dist-info"
    files = {
        "vllm_mlx/__init__.py": "",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: vllm-mlx\nVersion: 0.6.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    (folder / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    handler = partial(_Quiet, directory=str(tmp_path / "index"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        lock = Lock(f"vllm-mlx==0.6.0 \\\n    --hash=sha256:{digest}\n")
        yield f"127.0.0.1:{server.server_port}", lock
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[InspectingProxy]:
    (tmp_path / "proxy").mkdir()
    with InspectingProxy(tmp_path / "proxy") as proxy:
        yield proxy


def test_engines_are_installed_once_the_proxys_authority_is_named(
    tmp_path: Path, proxy: InspectingProxy, index: tuple[str, Lock]
):
    address, lock = index
    proxy.upstream["packages.example"] = address
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_DEFAULT_INDEX": "https://packages.example/simple",
        "HTTPS_PROXY": f"http://{proxy.address}",
    }
    engine, engines = EngineName.VLLM_MLX, tmp_path / "engines"
    with pytest.raises(EngineInstallError, match="a proxy that reads TLS") as refused:
        install(engine, engines, own_toolchain(variables), lock=lock)
    assert refused.value.reason == "untrusted-certificate"
    assert "SSL_CERT_FILE" in (refused.value.hint or "")
    assert "UV_SYSTEM_CERTS" in (refused.value.hint or "")
    assert proxy.hosts == []

    trusting = own_toolchain({**variables, "SSL_CERT_FILE": str(proxy.authority)})
    assert install(engine, engines, trusting, lock=lock).state == "ready"
    assert "packages.example" in proxy.hosts


def test_a_model_is_pulled_once_the_proxys_authority_is_named(
    program: Program, tmp_path: Path, proxy: InspectingProxy
):
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": WEIGHTS}
    write_repository(tmp_path / "hub", REPO, files)
    with HubServer(tmp_path / "hub") as hub:
        proxy.upstream["hub.example"] = hub.url.removeprefix("http://")
        variables = {
            **program.variables,
            **hub.variables(tmp_path / "hf"),
            "HF_ENDPOINT": "https://hub.example",
            "HTTPS_PROXY": f"http://{proxy.address}",
            "NO_PROXY": "",
            "SSL_CERT_FILE": "",
            "SSL_CERT_DIR": "",
        }

        def pull(**more: str) -> Finished:
            return Program(program.home, {**variables, **more}).run("pull", REPO, "--json")

        refused = pull()
        assert refused.code == 1
        error = refused.document["error"]
        assert error["type"] == "hub-unreachable"
        assert "the proxy that HTTPS_PROXY names" in error["message"]
        assert "certificate" in error["message"]
        assert "SSL_CERT_FILE" in error["hint"]
        assert hub.requests == []

        done = pull(SSL_CERT_FILE=str(proxy.authority))
        assert (done.code, done.document["outcome"]) == (0, "downloaded"), done.err
        assert {*proxy.hosts} == {"hub.example"}
