"""An engine as far as a model repository is concerned: config.json and tokenizer/, without weights."""

import json
from pathlib import Path

from model_fields import model_fields
from small_tokenizers import byte_level, save

VOCAB_SIZE = 512  # more than the tokenizer's: engines pad theirs


def write_engine(
    directory: Path, vocab_size: int = VOCAB_SIZE, max_batch_size: int = 8, max_seq_len: int = 128
) -> Path:
    build = {
        "device": "cpu", "max_batch_size": max_batch_size, "max_num_tokens": 64, "max_seq_len": max_seq_len,
        "tokens_per_block": 16, "kv_cache_bytes": 1 << 20, "logits_bytes": 1 << 20,
        "kv_cache_dtype": "float32", "max_beam_width": 1,
    }  # fmt: skip
    save(byte_level(), directory / "tokenizer", eos_token="<|im_end|>")
    config = {
        "format": "inflight-engine",
        "version": 1,
        "pretrained_config": model_fields(vocab_size=vocab_size),
        "build_config": build,
    }
    (directory / "config.json").write_text(json.dumps(config))
    return directory
