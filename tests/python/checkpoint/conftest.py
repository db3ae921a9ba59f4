"""A model to write as GGUF."""

import gguf_models
import pytest


@pytest.fixture(scope="session")
def model():
    """The tiny llama of gguf_models, in transformers."""
    return gguf_models.make("llama")
