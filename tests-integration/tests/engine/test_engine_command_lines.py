"""Command lines are checked against the argument parser of the pinned engine itself."""

import json
import subprocess
from pathlib import Path

import pytest

from mlx_catalog import load_catalog
from mlx_catalog.parsers import REASONING_PARSERS, TOOL_CALL_PARSERS
from mlx_stack.engines.vllm_mlx import Serving, command
from mlx_stack.models.serving import serving_of
from mlx_stack.stack import Tier

pytestmark = pytest.mark.engine

_PARSE = """
import contextlib, io, json, sys
from vllm_mlx.cli import create_parser
parser = create_parser()
refused = []
for words in json.load(sys.stdin):
    written = io.StringIO()
    try:
        with contextlib.redirect_stderr(written):
            parser.parse_args(words)
    except SystemExit:
        refused.append([words, written.getvalue().splitlines()[-1]])
print(json.dumps(refused))
"""

_CHOICES = """
import json
from vllm_mlx.cli import create_parser
subparsers = next(a for a in create_parser()._actions if isinstance(a.choices, dict))
serve = subparsers.choices["serve"]
print(json.dumps({a.dest: sorted(a.choices) for a in serve._actions if a.choices}))
"""


def run(environment, program: str, stdin: object = None) -> object:
    output = subprocess.run(
        [environment.python, "-I", "-c", program],
        input=json.dumps(stdin),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return json.loads(output)


def tier(**fields) -> Tier:
    usual = {
        "name": "standard",
        "model": "m",
        "quant": "int4",
        "source": "o/m",
        "port": 8000,
        "vllm_flags": {},
    }
    return Tier(**{**usual, **fields})


def test_the_engine_accepts_every_shape_of_command_line(vllm_mlx_environment):
    traits = [
        Serving(),
        *(Serving(tool_call_parser=name) for name in sorted(TOOL_CALL_PARSERS)),
        *(Serving(reasoning_parser=name) for name in sorted(REASONING_PARSERS)),
    ]
    tiers = [
        tier(),
        tier(concurrency=8, context_tokens=131072),
        tier(lazy=True, idle_unload_s=600),
    ]
    commands = [
        command(("vllm-mlx",), each, Path("/models/m"), trait)[1:]
        for each in tiers
        for trait in traits
    ]
    assert run(vllm_mlx_environment, _PARSE, commands) == []


def test_the_engine_accepts_the_command_line_of_every_catalog_entry(vllm_mlx_environment):
    catalog = load_catalog()
    chatting = [entry for entry in catalog if entry.role.chats]
    commands: list[list[str]] = []
    for entry in chatting:
        for quant in (quant for quant, _ in entry.sources.items()):
            for fields in ({}, {"concurrency": 4, "context_tokens": 32768}, {"lazy": True}):
                one = tier(model=entry.id, quant=quant, **fields)
                serving = serving_of(catalog, one, Path("/models/unused"))
                words = command(("vllm-mlx",), one, Path("/models/m"), serving)
                commands.append(list(words[1:]))
    assert len(commands) > 3 * len(chatting)
    assert run(vllm_mlx_environment, _PARSE, commands) == []


def test_the_check_itself_notices_a_flag_that_the_engine_refuses(vllm_mlx_environment):
    refused = run(vllm_mlx_environment, _PARSE, [["serve", "m", "--no-such-flag"]])
    assert isinstance(refused, list)
    assert "--no-such-flag" in refused[0][1]


def test_the_catalog_knows_the_parsers_of_the_engine(vllm_mlx_environment):
    choices = run(vllm_mlx_environment, _CHOICES)
    assert isinstance(choices, dict)
    assert set(choices["tool_call_parser"]) == TOOL_CALL_PARSERS
    assert set(choices["reasoning_parser"]) == REASONING_PARSERS
