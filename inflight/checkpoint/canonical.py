"""The checkpoint's tensors: names and shapes that a model's configuration calls for (docs/architecture.md)."""

from inflight.checkpoint.config import ModelConfig

EMBEDDING = "transformer.vocab_embedding"
LM_HEAD = "lm_head"
FINAL_NORM = "transformer.ln_f.weight"

# The linear maps of a decoder layer, each with the parts it is fused from, by rows.
LINEAR_PARTS = {
    "attention.qkv": ("q", "k", "v"),
    "attention.dense": ("dense",),
    "mlp.gate_up": ("gate", "up"),
    "mlp.down": ("down",),
}
# The norms of a decoder layer.
NORMS = {
    "input_layernorm": "input",
    "post_layernorm": "post",
    "attention.q_layernorm": "q",
    "attention.k_layernorm": "k",
}


def layer_prefix(layer: int) -> str:
    return f"transformer.layers.{layer}."


def part_shape(config: ModelConfig, part: str) -> tuple[int, int]:
    """[out, in] of one part of LINEAR_PARTS."""
    hidden, intermediate = config.hidden_size, config.intermediate_size
    kv_size = config.num_key_value_heads * config.head_size
    return {
        "q": (config.attention_size, hidden),
        "k": (kv_size, hidden),
        "v": (kv_size, hidden),
        "dense": (hidden, config.attention_size),
        "gate": (intermediate, hidden),
        "up": (intermediate, hidden),
        "down": (hidden, intermediate),
    }[part]


def biased_linears(config: ModelConfig) -> list[str]:
    """The keys of LINEAR_PARTS that have a bias."""
    has_bias = {
        "attention.qkv": config.qkv_bias,
        "attention.dense": config.dense_bias,
        "mlp.gate_up": config.mlp_bias,
        "mlp.down": config.mlp_bias,
    }
    return [name for name in LINEAR_PARTS if has_bias[name]]


def norm_sizes(config: ModelConfig) -> dict[str, int]:
    """The keys of NORMS that the model has, with their sizes."""
    sizes = {"input_layernorm": config.hidden_size, "post_layernorm": config.hidden_size}
    if config.qk_norm:
        sizes |= {"attention.q_layernorm": config.head_size, "attention.k_layernorm": config.head_size}
    return sizes


def embeddings(config: ModelConfig) -> list[str]:
    """The [vocab, hidden] matrices: the embedding, and the output projection unless it is tied to it."""
    return [EMBEDDING] if config.tie_word_embeddings else [EMBEDDING, LM_HEAD]


def matrix_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Every matrix, by its name less ".weight", with [out, in]."""
    shapes = {name: (config.vocab_size, config.hidden_size) for name in embeddings(config)}
    for layer in range(config.num_hidden_layers):
        for name, parts in LINEAR_PARTS.items():
            rows = sum(part_shape(config, part)[0] for part in parts)
            shapes[layer_prefix(layer) + name] = (rows, part_shape(config, parts[0])[1])
    return shapes


def vector_sizes(config: ModelConfig) -> dict[str, int]:
    """Every norm weight and bias, by its full name."""
    sizes: dict[str, int] = {}
    for layer in range(config.num_hidden_layers):
        prefix = layer_prefix(layer)
        sizes |= {f"{prefix}{name}.weight": size for name, size in norm_sizes(config).items()}
        for name in biased_linears(config):
            sizes[f"{prefix}{name}.bias"] = sum(part_shape(config, part)[0] for part in LINEAR_PARTS[name])
    return sizes | {FINAL_NORM: config.hidden_size}
