"""Refuse wording that reads oddly in the documentation, help texts and messages.

Proselint's own checks run first, then the patterns of STYLE: turns of phrase that a reader stumbles
over, each with what to write instead. Code, in Markdown or in a Python string, is not read.

Usage: check_prose.py [FILE ...]
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from proselint.checks import __register__
from proselint.config import Config
from proselint.registry import CheckRegistry
from proselint.tools import LintFile

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    *("*.md", ".github/**/*.md", "benchmarks/*.md", "docs/**/*.md"),
    *("packages/*/README.md", "packages/*/CHANGELOG.md"),
)
SOURCES = ("packages/*/src/**/*.py",)
PROSELINT = (
    *("archaism", "malapropisms", "mondegreens", "needless_variants", "nonwords"),
    *("oxymorons", "redundancy", "skunked_terms", "uncomparables"),
)
COMPARED = "longer|more|one|slower|faster|less|better|worse|larger|different"
STYLE: dict[str, str] = {
    r"\banew\b": "again",
    r"\b(?:mend|mends|mended)\b": "fix",
    r"\b(?:somebody|nobody|everybody|anybody)\b": "someone, no one, anyone; or name the program",
    r"\bbeside\b": "next to, compared with",
    rf"\b(?:is|are|was|were) no (?!(?:{COMPARED})\b)": "isn't a, has no, there is no",
    r"\b(?:is|are|was|were|be) told\b(?! apart)|\btold (?:in|of|by)\b": "reported, explained",
    r"\bstands? in (?:the|a|its|it|for|`)": "is in, replaces",
    r"\bof its own\b|\bof their own\b": "its own X, a separate X",
    r"\balone\b": "only, on its own, by itself",
    r"\b(?:thrown|throws|throw) away\b": "deleted, discarded",
    r"\bput(?:s|ting)? right\b": "fix",
    r"\bsomething else than\b|\belse than\b": "something other than",
    r"\bnot any ?more\b": "no longer",
    r"\binto force\b": "applies",
    r"\b(?:one|each) (?:object|process|event|row|verb|file|line|document|folder) an? [a-z]": "per",
    r"\ball the same\b|\bnone the less\b": "anyway, still",
    r"\b(?-i:Where) (?:there|no|none|nothing|something|it|one|such|they)\b[^.|\n]*,": "If",
    r"(?:^|[.:] )(?-i:What) (?:is|was|are|runs|can't|else)\b[^?\n]*\.": "name the subject",
    r"\bthereof\b|\bwhereof\b|\bthereby\b|\bhitherto\b": "an ordinary word",
    r"\bby and by\b|\bnow and then\b": "sometimes",
    r"\bfor ever\b": "forever",
    r"\bon (?:its|their) way\b": "being downloaded, in progress",
    r"\b(?:this|that|which|it) holds no\b": "contains no",
    r"\bnone of (?:ours|Apple's)\b": "not one of",
    r"\bmakes? no sense\b": "is invalid",
    r"\bas (?:they are|it is) meant\b": "as intended",
    r"\bby (?:hand|itself) alone\b": "only",
    r"\bdoes? (?:not|n't) take\b|\bdoesn't take\b": "doesn't accept",
    r"\btakes? (?:no|any) (?:argument|value|option|root)": "accepts, needs",
    r"\bgoes on\b|\bgo on\b": "continues",
    r"\bbegins? with\b": "starts with",
    r"\bat hand\b|\bto hand\b": "available",
    r"\bsee to it\b": "make sure",
    r"\bwhoever\b": "anyone who, the process that",
    r"\bof late\b|\blately\b": "recently",
    r"\bbe it\b": "whether",
    r"\bin words\b": "with an explanation",
    r"\bstands? twice\b": "appears twice",
    r"\blies (?:an?|the) ": "is, there is",
    r"\blast word\b": "decides",
    r"\bword for word\b": "exactly",
    r"\bin vain\b": "without effect",
    r"\bgoes? by way of\b|\bby way of\b": "through, with",
    r"\bunasked\b": "without being asked",
    r"\bcheck sums?\b": "checksum",
    r"\bin one sitting\b": "together",
    r"\bwithout end\b": "indefinitely",
    r"\bby heart\b": "exactly",
    r"(?:^|[.;] )(?-i:[Ww]ho) (?:gives|comes|waits|has|knows|asks|wants|names|holds)\b[^?]*$": (
        "anyone who, a client that"
    ),
}
"""A regular expression for each turn of phrase, and what to write instead."""
ALLOWED = re.compile(
    r"\b(?:left|leav(?:e|es|ing)(?:\s+[^\s.]+){0,4})\s+alone\b|\bthere (?:is|are|was|were) no\b",
    re.IGNORECASE,
)
"""Good English that the patterns would find."""


class Remark(NamedTuple):
    """One finding."""

    path: Path
    line: int
    what: str


class Text(NamedTuple):
    """A piece of prose, with the line on which it starts."""

    line: int
    text: str


def main(arguments: list[str]) -> int:
    """1 if anything reads oddly."""
    files = [Path(each).resolve() for each in arguments] or sorted(
        path for pattern in (*PAGES, *SOURCES) for path in ROOT.glob(pattern)
    )
    CheckRegistry().register_many(__register__)
    remarks = [remark for path in files for remark in remarks_on(path)]
    for remark in remarks:
        print(f"{remark.path.relative_to(ROOT)}:{remark.line}: {remark.what}")
    return 1 if remarks else 0


def remarks_on(path: Path) -> Iterator[Remark]:
    """What reads oddly in a file."""
    source = path.read_text(encoding="utf-8")
    texts = strings_of(path, source) if path.suffix == ".py" else [Text(1, prose_of(source))]
    for text in texts:
        for line, what in sorted(remarks_of(text.text)):
            yield Remark(path, text.line + line, what)


def remarks_of(text: str) -> Iterator[tuple[int, str]]:
    """What reads oddly in a text, each with the number of lines before it."""
    text = ALLOWED.sub(_blank, text)
    for pattern, better in STYLE.items():
        for match in re.finditer(pattern, text, re.MULTILINE | re.IGNORECASE):
            line = text.count("\n", 0, match.start())
            yield line, f"{' '.join(match.group().split())!r}: {better}"
    config = Config(max_errors=1000, checks=dict.fromkeys(PROSELINT, True))
    for result in LintFile("text", text).lint(config) if text.strip() else ():
        yield result.pos[0] - 2, result.check_result.message


def prose_of(markdown: str) -> str:
    """Markdown without its code, comments and addresses, line by line."""
    for pattern in (r"<!--.*?-->", r"^(`{3,}|~{3,}|:{3,})[^\n]*\n.*?^\1`*\s*$", r"`+[^`]*`+"):
        markdown = re.sub(pattern, _blank, markdown, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"\]\([^)\s]*\)|^\[[^\]]+\]: .*$", "]", markdown, flags=re.MULTILINE)


def _blank(match: re.Match[str]) -> str:
    return "`x`" + "\n" * match.group().count("\n")


def strings_of(path: Path, source: str) -> Iterator[Text]:
    """The strings of a Python file that people read."""
    tree = ast.parse(source)
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    skipped |= {id(node.left) for node in ast.walk(tree) if isinstance(node, ast.Compare)}
    skipped |= {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else "`x`" for part in node.values
            )
        elif isinstance(node, ast.Constant) and id(node) not in skipped:
            text = f"{node.value}"
        else:
            continue
        if is_prose(text):
            yield Text(node.lineno, prose_of(text))
    yield from shown_docstrings(path, tree)


def shown_docstrings(path: Path, tree: ast.Module) -> Iterator[Text]:
    """The docstrings that a user reads: in `--help`, or on the page of exit codes and errors."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(decorator_list=[first, *_]) if "command" in ast.unparse(first):
                yield Text(node.lineno, prose_of(ast.get_docstring(node) or ""))
            case ast.ClassDef() if path.name == "errors.py":
                summary = (ast.get_docstring(node) or "").split("\n\n")[0]
                yield Text(node.lineno, prose_of(summary))
            case ast.Expr(value=ast.Constant(value=str(text))) if path.parts[-2:] == (
                "mlx_stack",
                "exit_codes.py",
            ):
                yield Text(node.lineno, prose_of(text))
            case _:
                pass


def is_prose(text: str) -> bool:
    """Whether a string is meant for people: some words, and no program of another language."""
    return len(re.findall(r"\b[a-z]{2,}\b", text)) > 1 and not re.match(
        r"\s*(?:SELECT|INSERT)", text
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
