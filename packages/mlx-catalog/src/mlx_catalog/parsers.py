"""The parser names that the pinned engine's own argument parser accepts (vllm-mlx 0.6.0)."""

from typing import Literal, get_args

ToolCallParserName = Literal[
    "",
    "auto",
    "generic",
    "qwen",
    "qwen3",
    "qwen3_xml",
    "qwen3.5",
    "qwen3_coder",
    "hermes",
    "nous",
    "llama",
    "llama3",
    "llama4",
    "mistral",
    "deepseek",
    "deepseek_v3",
    "deepseek_r1",
    "deepseek_v4",
    "dsml",
    "gemma4",
    "glm47",
    "glm4",
    "harmony",
    "gpt-oss",
    "granite",
    "granite3",
    "kimi",
    "kimi_k2",
    "moonshot",
    "minimax",
    "minimax_m2",
    "nemotron",
    "nemotron3",
    "functionary",
    "meetkai",
    "xlam",
    "step3p5",
    "step",
    "poolside_v1",
]

ReasoningParserName = Literal[
    "",
    "qwen3",
    "deepseek_r1",
    "deepseek_v4",
    "gpt_oss",
    "harmony",
    "gemma4",
    "glm4",
    "mistral",
    "poolside_v1",
    "step3p5",
]

TOOL_CALL_PARSERS: frozenset[str] = frozenset(get_args(ToolCallParserName)) - {""}
"""Values of `--tool-call-parser`."""

REASONING_PARSERS: frozenset[str] = frozenset(get_args(ReasoningParserName)) - {""}
"""Values of `--reasoning-parser`."""
