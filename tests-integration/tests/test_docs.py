"""The documentation is true: links lead somewhere, and what it tells to type is understood."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mlx_stack.cli.root import root
from mlx_stack.stack import load_stack

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "packages/*/*.md", ".github/*.md")
    for path in REPOSITORY.glob(pattern)
    if "_build" not in path.parts
)
FLAGS = re.DOTALL | re.MULTILINE
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", FLAGS)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def is_broken(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    linked = (page.parent / path).resolve() if path else page
    if not linked.exists():
        return True
    return bool(anchor) and linked.suffix == ".md" and anchor not in anchors(linked)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_between_files_leads_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    targets = [link for link in LINK.findall(text) if not re.match(r"\w+:", link)]
    targets += [f"{name}.md" for name in re.findall(r"\{doc\}`([^`<>]+)`", text)]
    assert [target for target in targets if is_broken(page, target)] == []


def pages_below(page: Path) -> Iterator[Path]:
    """The pages that a page's tables of contents lead to, directly or through others."""
    for toctree in re.findall(
        r"^```\{toctree\}\n(.*?)^```", page.read_text(encoding="utf-8"), FLAGS
    ):
        for entry in re.findall(r"^[\w/*-]+$", toctree, re.MULTILINE):
            for below in page.parent.glob(f"{entry}.md"):
                if below != page:
                    yield below
                    yield from pages_below(below)


def test_every_page_is_reached_from_the_index_of_the_site() -> None:
    index = DOCS / "index.md"
    reached = set(pages_below(index))
    assert {page for page in PAGES if page.is_relative_to(DOCS)} == {*reached, index}


def invocations(line: str) -> Iterator[list[str]]:
    """The arguments of every `mlx-stack` that a line of shell would start."""
    for inner in re.findall(r"\$\(([^|)]*)", line):
        yield from invocations(inner)
    lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if not set(word) <= set("();<>|&"):
            words.append(word)
            continue
        if "mlx-stack" in words:
            before = words[: words.index("mlx-stack")]
            if all(
                "=" in each or each in ("python3", "-m", "uv", "run", "ssh", "mini")
                for each in before
            ):
                yield words[len(before) + 1 :]
        words = []


def understand(arguments: list[str]) -> None:
    """Parse arguments as the program would, and run nothing."""
    command: click.Command = root
    context = click.Context(root, info_name="mlx-stack")
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        found = command.get_command(context, arguments[0])
        if found is None:
            raise click.UsageError(f"no command {arguments[0]!r}")
        command, arguments = found, arguments[1:]
    command.make_context(command.name, list(arguments), parent=context, resilient_parsing=True)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_line_shown_is_one_that_the_program_understands(page: Path) -> None:
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    lines = [
        line
        for language, code in blocks
        if language in ("sh", "console")
        for line in code.replace("\\\n", " ").splitlines()
        if language == "sh" or line.startswith("$ ")
    ]
    prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for line in [*lines, *re.findall(r"`(mlx-stack [^`\n]*)`", prose)]:
        for arguments in invocations(line):
            try:
                understand(arguments)
            except click.UsageError as error:
                pytest.fail(f"{line!r}: {error.format_message()}")


def test_the_stack_file_in_the_reference_is_accepted(tmp_path: Path) -> None:
    page = (DOCS / "reference" / "files.md").read_text(encoding="utf-8")
    (shown,) = [code for language, code in BLOCK.findall(page) if language == "yaml"]
    file = tmp_path / "default.yaml"
    file.write_text(shown, encoding="utf-8")
    stack = load_stack(file)
    assert [tier.name for tier in stack.tiers] == ["standard"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_python_program_shown_is_python(page: Path) -> None:
    for language, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            compile(code, name_of(page), "exec")
