"""LiteLLM's configuration."""
