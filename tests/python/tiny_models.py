"""Random-weight models of a few thousand parameters: every family and every variation that conversion supports.

Each is a Hugging Face directory as transformers writes it, in float32, with a byte-level tokenizer. The weights
are large enough that greedy decoding neither repeats one token nor hangs on ties.
"""

import copy
import zlib
from pathlib import Path

import small_tokenizers
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

SIZE = dict(
    vocab_size=480,  # the tokenizer's is smaller, as that of many models is
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    tie_word_embeddings=False,
    bos_token_id=None,
    eos_token_id=1,
    pad_token_id=0,
)

LLAMA3_ROPE = dict(
    rope_type="llama3",
    rope_theta=500.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
YARN_ROPE = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64)


def _config(family: type[PretrainedConfig], **changes) -> PretrainedConfig:
    return family(**{**SIZE, **changes})


CONFIGS = {
    "llama": _config(LlamaConfig),
    "llama-tied": _config(LlamaConfig, tie_word_embeddings=True),
    "llama-multi-head": _config(LlamaConfig, num_key_value_heads=4),
    "llama-multi-query": _config(LlamaConfig, num_key_value_heads=1, num_hidden_layers=4, max_position_embeddings=2048),
    "llama-biases": _config(LlamaConfig, attention_bias=True, mlp_bias=True),
    "llama-head-size": _config(LlamaConfig, head_dim=32),
    "llama-odd-sizes": _config(
        LlamaConfig, hidden_size=72, intermediate_size=100, num_attention_heads=6, num_key_value_heads=3, vocab_size=431
    ),
    "llama-rope-theta": _config(LlamaConfig, rope_parameters=dict(rope_type="default", rope_theta=100.0)),
    "llama-rope-linear": _config(LlamaConfig, rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0)),
    "llama-rope-dynamic": _config(
        LlamaConfig,
        max_position_embeddings=48,
        rope_parameters=dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0),
    ),
    "llama-rope-llama3": _config(LlamaConfig, rope_parameters=LLAMA3_ROPE),
    "llama-rope-yarn": _config(LlamaConfig, rope_parameters=YARN_ROPE),
    "llama-rope-yarn-attention-factor": _config(
        LlamaConfig, rope_parameters=dict(**YARN_ROPE, attention_factor=0.8, beta_fast=16.0, beta_slow=2.0)
    ),
    "llama-rope-yarn-mscale": _config(
        LlamaConfig, rope_parameters=dict(**YARN_ROPE, mscale=0.7, mscale_all_dim=0.4, truncate=False)
    ),
    "mistral": _config(MistralConfig, sliding_window=None),
    "mistral-sliding-window": _config(MistralConfig, sliding_window=24, head_dim=16),
    "qwen2": _config(Qwen2Config),
    "qwen2-sliding-layers": _config(
        Qwen2Config, num_hidden_layers=4, use_sliding_window=True, sliding_window=20, max_window_layers=2
    ),
    "qwen3": _config(Qwen3Config, head_dim=32),
    "qwen3-tied": _config(Qwen3Config, head_dim=16, tie_word_embeddings=True),
}


def load(name: str, **changes) -> PreTrainedModel:
    """The model on its own, in float32, the same weights at every call. changes: of its configuration."""
    torch.manual_seed(zlib.crc32(name.encode()))
    config = copy.deepcopy(CONFIGS[name])
    for key, value in changes.items():
        setattr(config, key, value)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    return randomize(model)


def randomize(model: PreTrainedModel) -> PreTrainedModel:
    """Gives the model weights that are large enough."""
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name:
                parameter.normal_(1.0, 0.2)
            elif parameter_name.endswith(".bias"):
                parameter.normal_(0.0, 0.3)
            else:
                parameter.normal_(0.0, 1.5 * parameter.shape[-1] ** -0.5)
    return model.eval()


def save(name: str, directory: Path) -> Path:
    """Writes the model and its tokenizer as a Hugging Face directory."""
    load(name).save_pretrained(directory)
    return small_tokenizers.save(
        small_tokenizers.byte_level(), directory, tokenizer_class="PreTrainedTokenizerFast", eos_token="<|im_end|>"
    )
