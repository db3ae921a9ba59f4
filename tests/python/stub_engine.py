"""An engine as far as a model repository is concerned: config.json and tokenizer/, without weights."""

import json
from pathlib import Path

from small_tokenizers import byte_level, save

VOCAB_SIZE = 512  # more than the tokenizer's: engines pad theirs


def write_engine(directory: Path, vocab_size: int = VOCAB_SIZE, max_batch_size: int = 8) -> Path:
    pretrained = {
        "format": "inflight-checkpoint", "version": 1, "model_type": "llama", "dtype": "float32",
        "vocab_size": vocab_size, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_size": 16, "intermediate_size": 128, "max_position_embeddings": 256,
        "norm_epsilon": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True, "qkv_bias": False,
        "dense_bias": False, "mlp_bias": False, "qk_norm": False, "rope": {"type": "default", "theta": 10000.0},
        "layer_windows": [0], "end_ids": [2], "pad_id": 2, "bos_id": None,
        "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
    }  # fmt: skip
    build = {
        "device": "cpu", "max_batch_size": max_batch_size, "max_num_tokens": 64, "max_seq_len": 128,
        "tokens_per_block": 16, "kv_cache_bytes": 1 << 20, "kv_cache_dtype": "float32", "max_beam_width": 1,
    }  # fmt: skip
    save(byte_level(), directory / "tokenizer", eos_token="<|im_end|>")
    config = {"format": "inflight-engine", "version": 1, "pretrained_config": pretrained, "build_config": build}
    (directory / "config.json").write_text(json.dumps(config))
    return directory
