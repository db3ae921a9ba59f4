"""Inflight: large language models on NVIDIA Triton Inference Server."""

from pkgutil import extend_path

# In the root of the source tree, where `python -m inflight.bench` finds the tree's package first, the compiled
# parts and the model templates are those of the installed one.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"


def __getattr__(name: str):
    # LLM loads the native module: only those who use it pay for that, not the Triton Python models.
    if name in ("LLM", "SamplingParams", "BeamSearchParams", "StructuredOutputsParams"):
        from inflight import llm

        return getattr(llm, name)
    raise AttributeError(f"module 'inflight' has no attribute {name!r}")
