"""A model so small that serving, not computing, is what takes the time: one layer of random weights."""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from inflight.checkpoint.config import ModelConfig
from inflight.checkpoint.safetensors import SafetensorsWriter

HIDDEN, HEADS, VOCABULARY = 64, 4, 257  # every byte is a token, and one ends the text


def write_tiny_checkpoint(directory: Path) -> None:
    """A Llama checkpoint with a byte-level tokenizer, as `inflight convert` would write it."""
    tokenizer = directory / "tokenizer"
    tokenizer.mkdir(parents=True)
    _tokenizer().save(str(tokenizer / "tokenizer.json"))
    (tokenizer / "tokenizer_config.json").write_text("{}", encoding="utf-8")

    layer = "transformer.layers.0."
    shapes = {
        "transformer.vocab_embedding.weight": (VOCABULARY, HIDDEN),
        f"{layer}input_layernorm.weight": (HIDDEN,),
        f"{layer}attention.qkv.weight": (3 * HIDDEN, HIDDEN),
        f"{layer}attention.dense.weight": (HIDDEN, HIDDEN),
        f"{layer}post_layernorm.weight": (HIDDEN,),
        f"{layer}mlp.gate_up.weight": (4 * HIDDEN, HIDDEN),
        f"{layer}mlp.down.weight": (HIDDEN, 2 * HIDDEN),
        "transformer.ln_f.weight": (HIDDEN,),
    }
    random = np.random.default_rng(0)
    with SafetensorsWriter(directory / "rank0.safetensors", shapes) as writer:
        for name, shape in shapes.items():
            values = random.standard_normal(shape) if len(shape) == 2 else np.ones(shape)
            writer.write(name, "F32", values.astype(np.float32))
    _config().save(directory)


def _tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    return tokenizer


def _config() -> ModelConfig:
    return ModelConfig(
        model_type="llama",
        dtype="float32",
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_size=HIDDEN // HEADS,
        intermediate_size=2 * HIDDEN,
        max_position_embeddings=1024,
        norm_epsilon=1e-5,
        hidden_act="silu",
        tie_word_embeddings=True,
        qkv_bias=False,
        dense_bias=False,
        mlp_bias=False,
        qk_norm=False,
        rope={"type": "default", "theta": 10000.0},
        layer_windows=[0],
        end_ids=[VOCABULARY - 1],
        pad_id=VOCABULARY - 1,
        bos_id=None,
    )
