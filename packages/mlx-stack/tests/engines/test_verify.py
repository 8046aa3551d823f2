"""`engines verify` finds whatever differs from the lock."""

import shutil
from dataclasses import replace

import pytest

from mlx_stack.engines.environment import LOCK_COPY, MARKER, EngineName, Environment
from mlx_stack.engines.install import install
from mlx_stack.engines.verify import EngineVerification, LockDifference, record_files, verify


@pytest.fixture(scope="module")
def installed(tmp_path_factory, make_wheelhouse) -> Environment:
    """One installation, which no test touches."""
    folder = tmp_path_factory.mktemp("installed")
    house = make_wheelhouse(folder / "wheels")
    house.pin("for-windows-only", "1.0", "0" * 64, marker="sys_platform == 'win32'")
    return install(EngineName.VLLM_MLX, folder / "engines", house.toolchain, lock=house.lock)


@pytest.fixture
def environment(installed, engines) -> Environment:
    """A copy of it, for the test to change."""
    copy = replace(installed, path=engines / installed.engine / installed.path.name)
    shutil.copytree(installed.path, copy.path, symlinks=True)
    return copy


def found(verification: EngineVerification) -> list[tuple[str, str]]:
    return [(problem.kind, problem.what.rpartition("/")[2]) for problem in verification.problems]


def test_an_untouched_environment_is_what_the_lock_says(environment):
    verification = verify(environment)
    assert verification.problems == ()
    assert verification.ok
    assert verification.packages == 2
    assert verification.files >= 6  # of two packages: module, METADATA, WHEEL; uv adds its own


def test_byte_code_is_no_difference(environment):
    cache = environment.site_packages / "vllm_mlx" / "__pycache__"
    cache.mkdir()
    (cache / "__init__.cpython-313.pyc").write_bytes(b"\0")
    assert verify(environment).ok


def test_a_changed_file_is_found(environment):
    module = environment.site_packages / "vllm_mlx" / "__init__.py"
    module.unlink()
    module.write_text("VALUE = 'evil'\n")
    (problem,) = verify(environment).problems
    assert problem.kind == "file-changed"
    assert problem.what.endswith("site-packages/vllm_mlx/__init__.py")
    assert not problem.what.startswith("/")


def test_a_missing_file_is_found(environment):
    (environment.site_packages / "some_dependency" / "__init__.py").unlink()
    assert found(verify(environment)) == [("file-missing", "__init__.py")]


def test_a_planted_file_is_found(environment):
    (environment.site_packages / "planted.pth").write_text("import os\n")
    assert found(verify(environment)) == [("file-unexpected", "planted.pth")]


def test_a_planted_program_is_found(environment):
    (environment.path / "bin" / "vllm-mlx-helper").write_text("#!/bin/sh\n")
    assert found(verify(environment)) == [("file-unexpected", "vllm-mlx-helper")]


def test_a_change_hidden_in_the_list_of_files_is_found(environment):
    record = record_files(environment.site_packages)[0]
    text = record.read_text()
    record.unlink()
    record.write_text(text.replace("some_dependency/__init__.py,sha256=", "gone,sha256=", 1))
    assert ("records-changed", "site-packages") in found(verify(environment))


def test_a_removed_package_is_found(environment):
    packages = environment.site_packages
    shutil.rmtree(packages / "some_dependency-1.2.dist-info")
    assert ("package-missing", "some-dependency") in found(verify(environment))


def test_without_the_contents_a_removed_package_is_found_still(environment):
    packages = environment.site_packages
    (packages / "vllm_mlx" / "__init__.py").unlink()
    assert verify(environment, contents=False).ok
    shutil.rmtree(packages / "some_dependency-1.2.dist-info")
    assert ("package-missing", "some-dependency") in found(verify(environment, contents=False))


def test_another_version_is_found(environment):
    packages = environment.site_packages
    (packages / "some_dependency-1.2.dist-info").rename(packages / "some_dependency-1.3.dist-info")
    problems = verify(environment).problems
    assert LockDifference("wrong-version", "some-dependency", "1.3 instead of 1.2") in problems


def test_a_package_that_nobody_asked_for_is_found(environment):
    info = environment.site_packages / "intruder-6.6.dist-info"
    info.mkdir()
    (info / "RECORD").write_text("")
    assert LockDifference("package-unexpected", "intruder", "6.6") in verify(environment).problems


def test_an_altered_or_missing_lock_is_found(environment):
    lock = environment.path / LOCK_COPY
    lock.write_text(lock.read_text().replace("0.6.0", "0.5.0"))
    assert ("lock-changed", LOCK_COPY) in found(verify(environment))
    lock.unlink()
    assert ("lock-changed", LOCK_COPY) in found(verify(environment))


def test_an_installation_that_never_ended_is_not_whole(environment):
    (environment.path / MARKER).unlink()
    assert verify(environment).problems == (
        LockDifference("not-whole", environment.path.name, "incomplete"),
    )


def test_a_damaged_receipt_vouches_for_nothing(environment):
    (environment.path / MARKER).write_text("{")
    assert environment.state == "incomplete"


def test_an_environment_without_its_settings_is_no_environment(environment):
    (environment.path / "pyvenv.cfg").unlink()
    assert ("file-missing", "pyvenv.cfg") in found(verify(environment))


def test_a_pth_file_is_found_whatever_it_is_called(environment):
    (environment.site_packages / "_virtualenv.pth").write_text("import os\n")
    assert found(verify(environment)) == [("file-unexpected", "_virtualenv.pth")]


@pytest.mark.parametrize("line", ["include-system-site-packages = true", ""])
def test_an_environment_that_lets_other_packages_in_is_found(environment, line):
    settings = environment.path / "pyvenv.cfg"
    text = settings.read_text().replace("include-system-site-packages = false", line)
    settings.write_text(text)
    assert found(verify(environment)) == [("file-changed", "pyvenv.cfg")]
