"""`man mlx-stack` finds the page of a program that a tool installed."""

from pathlib import Path

import pytest

from mlx_stack.man_page import ManPage, man_page


@pytest.fixture
def installed(tmp_path: Path) -> tuple[Path, Path]:
    """An environment with the page, and the link that a tool made to its program."""
    environment, bin_folder = tmp_path / "tools" / "mlx-stack", tmp_path / "local" / "bin"
    for file in ("bin/mlx-stack", "share/man/man1/mlx-stack.1"):
        (environment / file).parent.mkdir(parents=True, exist_ok=True)
        (environment / file).touch()
    bin_folder.mkdir(parents=True)
    (bin_folder / "mlx-stack").symlink_to(environment / "bin" / "mlx-stack")
    return environment, bin_folder / "mlx-stack"


def found(installed: tuple[Path, Path]) -> ManPage:
    environment, program = installed
    page = man_page(str(program), environment)
    assert page is not None
    return page


def test_the_page_is_linked_next_to_the_folder_of_the_program(installed: tuple[Path, Path]) -> None:
    page = found(installed)
    assert not page.is_found
    page.put_in_place()
    link = installed[1].parent.parent / "share/man/man1/mlx-stack.1"
    assert found(installed).is_found
    assert link.resolve() == installed[0].resolve() / "share/man/man1/mlx-stack.1"
    page.remove()
    assert not link.is_symlink()


def test_a_page_of_another_package_stays(installed: tuple[Path, Path]) -> None:
    page = found(installed)
    page.link.parent.mkdir(parents=True)
    page.link.write_text("theirs")
    page.put_in_place()
    page.remove()
    assert page.link.read_text() == "theirs"


def test_an_environment_that_is_on_the_path_itself_needs_no_link(
    installed: tuple[Path, Path],
) -> None:
    page = man_page(str(installed[0] / "bin" / "mlx-stack"), installed[0])
    assert page is not None
    assert page.is_found


def test_another_installation_is_left_alone(installed: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other" / "bin" / "mlx-stack"
    other.parent.mkdir(parents=True)
    other.touch()
    assert man_page(str(other), installed[0]) is None
