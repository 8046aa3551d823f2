"""An entry to start from, and the programs that tests run."""

import sys
from pathlib import Path

import pytest

ENTRY = """\
id: lynx-7b
name: Lynx 7B
family: lynx
params_b: 7.25
architecture: transformer-swa
model_type: lynx
hf_base_repo: example/Lynx-7B
min_mlx_lm_version: 0.28.0
aliases: [lynx]
license: apache-2.0
gated: false
max_context_tokens: 65536
source: config.json of example/Lynx-7B
geometry:
  layers: 32
  hidden_size: 4096
  full_attention_layers: 8
  kv_heads: 4
  head_dim: 128
  sliding_layers: 24
  sliding_window: 2048
  source: config.json of example/Lynx-7B
sources:
  int4:
    hf_repo: example/Lynx-7B-4bit
    disk_size_gb: 4.1
    disk_size_source: the repository's file list
    source: the model's page
capabilities:
  tool_calling: true
  tool_call_parser: hermes
  thinking: false
  reasoning_parser: ""
  vision: false
quality:
  overall: 41.5
  source:
    overall: an index of example.org
benchmarks:
  m4-pro-24:
    quant: int4
    prompt_tps: 402
    gen_tps: 51.5
    source: https://example.org/figures
tags: [tools]
"""


@pytest.fixture
def entry_text() -> str:
    """A valid entry, of a model that no shipped entry describes."""
    return ENTRY


@pytest.fixture
def entry_folder(tmp_path: Path) -> Path:
    """A folder with that entry in it."""
    folder = tmp_path / "entries"
    folder.mkdir()
    (folder / "lynx-7b.yaml").write_text(ENTRY, encoding="utf-8")
    return folder


@pytest.fixture
def program() -> tuple[str, ...]:
    """The command line of `mlx-catalog`."""
    return (sys.executable, "-m", "mlx_catalog")
