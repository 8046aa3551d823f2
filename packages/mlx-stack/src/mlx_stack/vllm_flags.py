"""The flags of `vllm-mlx serve` (0.6.0), by which a tier's `vllm_flags` are judged.

The engine's parser takes any unambiguous beginning of a flag for it: `--hos` is `--host`.
"""

_FLAGS = frozenset(
    {
        *("help", "enable-auto-tool-choice", "tool-call-parser"),
        *("api-key", "auto-unload-idle-seconds", "cache-memory-mb", "cache-memory-percent"),
        *("chunked-prefill-tokens", "completion-batch-size", "continuous-batching"),
        *("default-chat-template-kwargs", "default-min-p", "default-mllm-draft"),
        *("default-presence-penalty", "default-repetition-penalty", "default-temperature"),
        *("default-thinking-token-budget", "default-top-k", "default-top-p"),
        *("disable-prefix-cache", "download-retries", "download-timeout"),
        *("embedding-max-length", "embedding-model", "embedding-overflow-policy"),
        *("enable-metrics", "enable-mtp", "enable-prefix-cache", "gpu-memory-utilization"),
        *("host", "kv-cache-min-quantize-tokens", "kv-cache-quantization"),
        *("kv-cache-quantization-bits", "kv-cache-quantization-group-size", "lazy-load-model"),
        *("max-audio-upload-mb", "max-cache-blocks", "max-kv-size", "max-num-seqs"),
        *("max-request-tokens", "max-tokens", "max-tts-input-chars", "mcp-config"),
        *("memory-budget-gb", "mllm", "mllm-draft-block-size", "mllm-draft-kind"),
        *("mllm-draft-model", "mllm-prefill-step-size", "models-config"),
        *("mtp-num-draft-tokens", "mtp-optimistic", "no-memory-aware-cache", "offline"),
        *("paged-cache-block-size", "port", "prefill-batch-size", "prefill-step-size"),
        *("prefix-cache-size", "prefix-trie-cache", "prefix-trie-cache-memory-mb"),
        *("prefix-trie-cache-size", "rate-limit", "reasoning-parser", "rerank-model"),
        *("served-model-name", "specprefill", "specprefill-backbone-pct"),
        *("specprefill-draft-model", "specprefill-keep-pct", "specprefill-threshold"),
        *("ssd-cache-dir", "ssd-cache-max-gb", "stream-interval", "timeout"),
        *("trust-remote-code", "use-paged-cache", "warm-prompts"),
    }
)


def abbreviated(name: str) -> str | None:
    """A flag that the engine would take `name` for, though that is not its full name; or None."""
    if name in _FLAGS:
        return None
    return min((flag for flag in _FLAGS if flag.startswith(name)), default=None)
