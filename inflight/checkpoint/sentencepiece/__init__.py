"""SentencePiece's tokenizer.model."""
