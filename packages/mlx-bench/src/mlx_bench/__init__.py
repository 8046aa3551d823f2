"""A calibrated benchmark for OpenAI-compatible endpoints: TTFT, prefill, decode."""

__version__ = "0.1.0"
