"""How many lines the packages have, room by room: code, docstrings, comments and blank lines apart.

A line is code where a token of the program is on it, so a long expression counts as it is laid out.
A docstring is a string that stands for itself, an attribute's included.

    python benchmarks/house_lines.py             # a line a package
    python benchmarks/house_lines.py mlx-stack   # the rooms of one, as a Markdown table
    python benchmarks/house_lines.py mlx-stack --at 3dc0d21 --at b81b92c   # and at earlier commits
"""

import argparse
import ast
import io
import subprocess
import tarfile
import tokenize
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NO_CODE = frozenset(
    {
        *(tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
        *(tokenize.COMMENT, tokenize.ENCODING, tokenize.ENDMARKER),
    }
)


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of one file or of several."""

    files: int = 0
    lines: int = 0
    code: int = 0
    imports: int = 0
    docstrings: int = 0
    comments: int = 0
    blank: int = 0

    def __add__(self, other: "Lines") -> "Lines":
        """Both together."""
        return Lines(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def count(source: str) -> Lines:
    """The lines of a file; `code` includes those of imports."""
    tree = ast.parse(source)
    docstrings: set[int] = set()
    imports: set[int] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                docstrings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
            case ast.Import() | ast.ImportFrom():
                imports.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
            case _:
                pass
    code: set[int] = set()
    comments: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        rows = range(token.start[0], token.end[0] + 1)
        if token.type == tokenize.COMMENT:
            comments.update(rows)
        elif token.type not in _NO_CODE:
            code.update(rows)
    code -= docstrings
    total = len(source.splitlines())
    blank = total - len(code | docstrings | comments)
    return Lines(1, total, len(code), len(imports), len(docstrings), len(comments - code), blank)


def sources_of(package: str, revision: str | None) -> dict[Path, str]:
    """The text of each source file of a package, now or at a commit, by its path in the package."""
    folder = f"packages/{package}/src"
    if revision is None:
        paths = sorted((ROOT / folder).rglob("*.py"))
        texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}
    else:
        packed = subprocess.run(
            ("git", "archive", revision, folder), cwd=ROOT, capture_output=True, check=False
        ).stdout
        if not packed:
            return {}
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            members = [(each.name, archive.extractfile(each)) for each in archive]
            texts = {name: file.read().decode() for name, file in members if file is not None}
    # packages/PACKAGE/src/IMPORT_NAME/…
    return {Path(*Path(name).parts[4:]): texts[name] for name in texts if name.endswith(".py")}


def rooms_of(package: str, revision: str | None = None) -> dict[str, Lines]:
    """The lines of each folder and top-level module of a package."""
    rooms: defaultdict[str, Lines] = defaultdict(Lines)
    for path, source in sources_of(package, revision).items():
        room = path.stem if len(path.parts) == 1 else path.parts[0]
        rooms[room] += count(source)
    return dict(rooms)


def total_of(package: str, revision: str | None = None) -> Lines:
    """The lines of a whole package."""
    return sum(rooms_of(package, revision).values(), Lines())


def history(package: str | None, revisions: list[str]) -> str:
    """A Markdown table of files, lines and code at each commit and now."""
    columns: list[str | None] = [*revisions, None]
    packages = sorted(path.name for path in (ROOT / "packages").iterdir())
    counted = [
        {name: total_of(name, each) for name in packages}
        if package is None
        else rooms_of(package, each)
        for each in columns
    ]
    rooms = sorted({room for each in counted for room in each if each[room].files})
    titles = [f"{each or 'now'}: {what}" for each in columns for what in ("files", "lines", "code")]
    lines = [f"| room | {' | '.join(titles)} |", f"|---|{'---:|' * len(titles)}"]
    sums = [sum(each.values(), Lines()) for each in counted]
    rows = [(room, [each.get(room, Lines()) for each in counted]) for room in rooms]
    for room, found in [*rows, ("**all**", sums)]:
        cells = [f"{n:,}" for each in found for n in (each.files, each.lines, each.code)]
        lines.append(f"| {room} | {' | '.join(cells)} |")
    return "\n".join(lines)


def table(rows: Iterable[tuple[str, Lines]]) -> str:
    """A Markdown table, the largest first, with the sum below."""
    ordered = sorted(rows, key=lambda row: -row[1].lines)
    names = [field.name for field in fields(Lines)]
    lines = [f"| room | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for room, each in [*ordered, ("**all**", sum((row[1] for row in ordered), Lines()))]:
        lines.append(f"| {room} | {' | '.join(f'{getattr(each, name):,}' for name in names)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("package", nargs="?")
    parser.add_argument("--at", metavar="REVISION", action="append", default=[])
    arguments = parser.parse_args()
    if arguments.at:
        print(history(arguments.package, arguments.at))
    elif arguments.package is not None:
        print(table(rooms_of(arguments.package).items()))
    else:
        packages = sorted(path.name for path in (ROOT / "packages").iterdir())
        print(table((name, total_of(name)) for name in packages))


if __name__ == "__main__":
    main()
