"""Text ↔ token ids: what preprocessing, postprocessing and LLM share."""
