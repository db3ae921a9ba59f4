"""A checkpoint's weights as float32, read with the safetensors library instead of our own reader."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from inflight.checkpoint.config import ModelConfig
from inflight.checkpoint.convert import convert_checkpoint


def convert(source: Path, tmp_path: Path, **options) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    """Converts to tmp_path/out, and loads that."""
    config = convert_checkpoint(source, tmp_path / "out", progress=False, **options)
    return config, load(tmp_path / "out")


def load(directory: Path) -> dict[str, torch.Tensor]:
    """Every tensor of rank0.safetensors; quantized matrices dequantized as docs/architecture.md says."""
    stored = load_file(directory / "rank0.safetensors")
    values = {}
    for name, tensor in stored.items():
        if name.endswith((".scale", ".minimum")):
            continue
        scale = stored.get(name.removesuffix(".weight") + ".scale")
        minimum = stored.get(name.removesuffix(".weight") + ".minimum")
        values[name] = tensor.float() if scale is None else dequantize(tensor, scale, minimum)
    return values


def dequantize(weight: torch.Tensor, scale: torch.Tensor, minimum: torch.Tensor | None) -> torch.Tensor:
    if weight.dtype == torch.uint8:
        q = torch.stack([weight & 15, weight >> 4], dim=-1).reshape(len(weight), -1).float()
        q = q if minimum is not None else q - 8
    else:
        q = weight.float()
    groups = q.reshape(*scale.shape, -1) * scale[..., None]
    if minimum is not None:
        groups = groups + minimum[..., None]
    return groups.reshape(q.shape)


def expected(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that the checkpoint of a transformers model must hold."""
    state = model.state_dict()
    config = model.config
    values = {
        "transformer.vocab_embedding.weight": state["model.embed_tokens.weight"],
        "transformer.ln_f.weight": state["model.norm.weight"],
    }
    if not config.tie_word_embeddings:
        values["lm_head.weight"] = state["lm_head.weight"]
    fused = {
        "attention.qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "attention.dense": ["self_attn.o_proj"],
        "mlp.gate_up": ["mlp.gate_proj", "mlp.up_proj"],
        "mlp.down": ["mlp.down_proj"],
        "input_layernorm": ["input_layernorm"],
        "post_layernorm": ["post_attention_layernorm"],
        "attention.q_layernorm": ["self_attn.q_norm"],
        "attention.k_layernorm": ["self_attn.k_norm"],
    }
    for layer in range(config.num_hidden_layers):
        for name, modules in fused.items():
            for kind in ("weight", "bias"):
                sources = [f"model.layers.{layer}.{module}.{kind}" for module in modules]
                if sources[0] in state:
                    parts = [state[source].float() for source in sources]
                    values[f"transformer.layers.{layer}.{name}.{kind}"] = torch.cat(parts)
    return values
