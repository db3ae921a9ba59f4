"""Inflight: large language models on NVIDIA Triton Inference Server."""

__version__ = "0.1.0"


def __getattr__(name: str):
    # LLM loads the native module: only those who use it pay for that, not the Triton Python models.
    if name in ("LLM", "SamplingParams"):
        from inflight import llm

        return getattr(llm, name)
    raise AttributeError(f"module 'inflight' has no attribute {name!r}")
