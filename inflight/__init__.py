"""Inflight: large language models on NVIDIA Triton Inference Server."""

import os

# Commands begin here, and Ctrl-C is not theirs before inflight.entry: nothing is imported that takes long.

# In the root of the source tree, where `python -m inflight.bench` finds the tree's package first, the compiled
# parts and the model templates are those of the installed one.
if not any(name.startswith("_native.") for name in os.listdir(__path__[0])):
    from pkgutil import extend_path

    __path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"


__all__ = ["BeamSearchParams", "InflightError", "LLM", "SamplingParams", "StructuredOutputsParams"]

TYPE_CHECKING = False  # typing's, which type checkers take for true
if TYPE_CHECKING:
    from typing import Any

    from inflight.errors import InflightError
    from inflight.llm import LLM, BeamSearchParams, SamplingParams, StructuredOutputsParams


def __getattr__(name: str) -> "Any":
    # LLM loads the native module: only those who use it pay for that, not the Triton Python models.
    if name in __all__:
        from inflight import llm

        return getattr(llm, name)
    raise AttributeError(f"module 'inflight' has no attribute {name!r}")
