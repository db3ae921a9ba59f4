"""GGUF files: their fields, weights and tokenizers."""
