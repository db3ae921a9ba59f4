"""Bytes that an engine's parts take. The one place in Python that mirrors what the C++ engine allocates."""

import numpy as np

from inflight.checkpoint import canonical
from inflight.checkpoint.config import ModelConfig
from inflight.checkpoint.matrix import MatrixType

_FLOAT_BYTES = 4
_ALIGNMENT = 64
_STEPS_IN_FLIGHT = 1  # kMaxStepsInFlight (backend/engine/cpu/cpu_engine.cc)


def kv_bytes_per_token(model: ModelConfig, kv_cache_dtype: str) -> int:
    """Keys and values of all layers (backend/engine/cpu/kv_cache_storage.h)."""
    value_bytes = {"float32": 4, "bfloat16": 2}[kv_cache_dtype]
    return 2 * value_bytes * model.num_hidden_layers * model.num_key_value_heads * model.head_size


def logits_bytes_per_token(model: ModelConfig) -> int:
    return _FLOAT_BYTES * model.vocab_size


def blocks_for(tokens: int, tokens_per_block: int) -> int:
    return -(-tokens // tokens_per_block)


def activation_bytes(model: ModelConfig, max_batch_size: int, max_num_tokens: int, num_threads: int) -> int:
    """What CpuEngine, ForwardPass, OutputLayer and LinearInput allocate (backend/engine/cpu/{cpu_engine,forward,
    output_layer}.cc and kernels/linear_input.cc)."""
    floats_per_token = model.hidden_size + model.head_size  # hidden; cos and sin
    floats_per_strip_token = (
        model.hidden_size  # normed
        + model.qkv_size
        + model.attention_size
        + 3 * model.intermediate_size  # gate and up, activated
    )
    strip_tokens = min(max_num_tokens, 256 * num_threads)
    batch_token, attention_queries, strip = 12, 16, 40
    strips = -(-max_num_tokens // strip_tokens) + 2 * max_batch_size
    output_rows = min(max_num_tokens, max(max_batch_size, 16))
    returned_rows = min(max_num_tokens, max(max_batch_size, 16, (64 << 20) // (_FLOAT_BYTES * model.vocab_size)))
    attention_rows = _whole_tiles(max(60, model.num_attention_heads // model.num_key_value_heads))
    scratch_per_thread = _FLOAT_BYTES * (attention_rows * (64 + 2 * model.head_size + 2) + 16 * model.head_size)
    return (
        max_num_tokens * (_FLOAT_BYTES * floats_per_token + batch_token + attention_queries)
        + strips * strip
        + strip_tokens * _FLOAT_BYTES * floats_per_strip_token
        + _input_bytes(strip_tokens, max(model.hidden_size, model.attention_size))
        + _input_bytes(strip_tokens, model.intermediate_size)
        + output_rows * _FLOAT_BYTES * (model.hidden_size + model.vocab_size)
        # Of the steps in flight, and of the one that was finished last.
        + (_STEPS_IN_FLIGHT + 1) * returned_rows * _FLOAT_BYTES * model.vocab_size
        + _input_bytes(output_rows, model.hidden_size)
        + num_threads * scratch_per_thread
    )


def _input_bytes(rows: int, columns: int) -> int:
    """Of a linear layer's input: values of up to 16 bits, in tiles; scales and two sums."""
    return _whole_tiles(rows) * 2 * (columns + 31) + rows * 3 * _FLOAT_BYTES * (columns // 16 + 1)


def _whole_tiles(rows: int) -> int:
    return -(-rows // 16) * 16


def vector_bytes(model: ModelConfig) -> int:
    """Norm weights and biases, float32."""
    return _FLOAT_BYTES * sum(canonical.vector_sizes(model).values())


def packed_bytes(matrix_type: MatrixType, rows: int, columns: int, half_scales: bool = False) -> int:
    """Size of inflight._native.pack_matrix's blob (backend/engine/cpu/packed_layout.h).

    half_scales: all scales and minimums are exact in float16, which the layout makes use of.
    """
    panels = -(-rows // 16)
    if not matrix_type.is_quantized:
        element_bytes = 4 if matrix_type.dtype == "float32" else 2
        return _ALIGNMENT + panels * _round_up(columns * 16 * element_bytes)
    groups = columns // matrix_type.group_size
    segments = -(-matrix_type.group_size // 32)
    segment_columns = -(-matrix_type.group_size // segments // 8) * 8
    scale_bytes = groups * 16 * (2 if half_scales else 4) * (2 if matrix_type.has_minimum else 1)
    weight_bytes = groups * segments * segment_columns * 16 // (2 if matrix_type.dtype == "int4" else 1)
    return _ALIGNMENT + panels * _round_up(_round_up(scale_bytes) + weight_bytes)


def are_half(values: np.ndarray) -> bool:
    """Whether float32 values are exact in float16."""
    with np.errstate(over="ignore"):
        return bool((values.astype(np.float16).astype(np.float32) == values).all())


def _round_up(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
