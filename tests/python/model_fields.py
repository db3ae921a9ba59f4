"""The config.json of a checkpoint, for tests that need no weights."""

from typing import Any


def model_fields(**changes: Any) -> dict[str, Any]:
    """The fields of a small llama, but for the changes."""
    return {
        "format": "inflight-checkpoint",
        "version": 1,
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": 512,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_size": 16,
        "intermediate_size": 128,
        "max_position_embeddings": 256,
        "norm_epsilon": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "qkv_bias": False,
        "dense_bias": False,
        "mlp_bias": False,
        "qk_norm": False,
        "rope": {"type": "default", "theta": 10000.0},
        "layer_windows": [0, 0],
        "end_ids": [2],
        "pad_id": 2,
        "bos_id": None,
        "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
        **changes,
    }
