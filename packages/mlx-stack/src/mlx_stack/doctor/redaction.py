"""Removing from text what names a person or opens a door: what is known here, and what looks so.

Logs hold what engines and proxies print, so a key need not be one of ours to be in them.
"""

import re
from collections.abc import Mapping
from typing import cast

from mlx_stack.credentials import MASK

_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]+-----.*?(-----END [A-Z ]+-----|\Z)", re.DOTALL), MASK),
    (re.compile(r"(://)[^/\s@]+@"), rf"\1{MASK}@"),
    (re.compile(r"(?i)\b(bearer|authorization:\s*\w+)(\s+)[\w.~+/=-]{8,}"), rf"\1\2{MASK}"),
    (
        re.compile(
            r"(?i)((?:api[-_]?key|[-_]key|\btoken|[-_]token|secret|password|passwd)['\"]?\s*[:=]\s*['\"]?)"
            r"[^\s'\",;&}]{8,}"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"\b(?:sk|pk|hf|gh[a-z]|github_pat|glpat|xox[a-z]|AKIA)[-_]?[\w-]{16,}"), MASK),
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w"), "<e-mail>"),
    (re.compile(r"(/(?:Users|home)/)[^/\s'\":,;)]+"), r"\1<user>"),
    (re.compile(r"\b[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\b"), "<uuid>"),
    (re.compile(r"\b[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}\b"), "<hardware address>"),
    # a Mac's serial number has ten or twelve characters, letters and digits among them
    (re.compile(r"\b(?=\d*[A-Z])(?=[A-Z]*\d)[A-Z0-9]{10}(?:[A-Z0-9]{2})?\b"), "<serial number>"),
)


def redact(value: object, known: Mapping[str, str]) -> object:
    """The JSON value without secrets and names, in every string of it.

    Args:
        value: Of strings, numbers, lists and maps; the keys of maps stay as they are.
        known: Secrets and names of this machine, each with what is to stand in its place; they are
            removed where they stand as words, the longest first.
    """
    if isinstance(value, str):
        return _redact_text(value, known)
    if isinstance(value, Mapping):
        fields = cast("Mapping[object, object]", value)
        return {key: redact(item, known) for key, item in fields.items()}
    if isinstance(value, list | tuple):
        return [redact(item, known) for item in cast("list[object]", value)]
    return value


def _redact_text(text: str, known: Mapping[str, str]) -> str:
    for secret in sorted(known, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", lambda _, new=known[secret]: new, text)
    for shape, replacement in _SHAPES:
        text = shape.sub(replacement, text)
    return text
