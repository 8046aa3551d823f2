"""vllm-mlx and LiteLLM: pinned, installed in isolation, and their command lines."""
