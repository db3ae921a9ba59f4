"""Hugging Face directories: their configurations, weights and tokenizers."""
