"""The `config.json` of Llama 3.2 1B, for models that are only read about."""

LLAMA_1B = {
    "model_type": "llama",
    "num_hidden_layers": 16,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
    "quantization": {"group_size": 64, "bits": 4},
}
