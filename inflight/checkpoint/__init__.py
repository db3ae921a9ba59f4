"""Hugging Face and GGUF models → checkpoint."""
