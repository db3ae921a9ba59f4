"""The least time that the machine needs for a step of a model: its bytes at the read bandwidth, or its operations at
the GEMM rates, whichever takes longer (Williams, Waterman, Patterson: Roofline, 2009).
"""

from dataclasses import dataclass, replace
from pathlib import Path

from works import Work

from inflight.checkpoint.safetensors import SafetensorsReader
from inflight.engine.config import EngineConfig

_GEMM_TYPES = {"int4": "int8", "int8": "int8", "bfloat16": "bfloat16", "float16": "bfloat16", "float32": "float32"}
_KV_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
_EMBEDDING = "transformer.vocab_embedding.weight"


@dataclass(frozen=True)
class ModelCost:
    """What a model costs. weight_bytes: of all that a step reads, packed. layer_weights: of the linear layers, output
    projection apart. kv_bytes: of one token. attention_operations: of one query with one key, over all layers.
    gemm_type: what its linear layers are computed in.
    """

    weight_bytes: int
    layer_weights: int
    output_weights: int
    kv_bytes: int
    attention_operations: int
    gemm_type: str

    @classmethod
    def of_engine(cls, engine: Path) -> "ModelCost":
        config = EngineConfig.load(engine)
        model = config.pretrained_config
        weights = SafetensorsReader(engine / "rank0.safetensors")
        read = [info for name, info in weights.tensors.items() if name != _EMBEDDING or model.tie_word_embeddings]
        layer = model.hidden_size * (model.qkv_size + model.attention_size + 3 * model.intermediate_size)
        kv_values = 2 * model.num_key_value_heads * model.head_size * model.num_hidden_layers
        return cls(
            weight_bytes=sum(info.stop - info.start for info in read),
            layer_weights=layer * model.num_hidden_layers,
            output_weights=model.vocab_size * model.hidden_size,
            kv_bytes=kv_values * _KV_BYTES[config.build_config.kv_cache_dtype],
            attention_operations=4 * model.attention_size * model.num_hidden_layers,
            gemm_type=_GEMM_TYPES[model.dtype],
        )


@dataclass(frozen=True)
class Bound:
    """Seconds of a step at least, and which ceiling it is: "bandwidth" or "gemm"."""

    seconds: float
    ceiling: str


def generation_bound(cost: ModelCost, ceilings: dict, batch: int, context: float) -> Bound:
    """A step of one token for each of `batch` sequences with `context` tokens on average."""
    weights = cost.layer_weights + cost.output_weights
    return _bound(
        cost,
        ceilings,
        read=cost.weight_bytes + batch * context * cost.kv_bytes,
        linear=2 * weights * batch,
        attention=batch * context * cost.attention_operations,
    )


def context_bound(cost: ModelCost, ceilings: dict, batch: int, tokens: float) -> Bound:
    """`batch` prompts of `tokens` tokens, all at once; the output projection for the last token of each.

    With AMX, prompts are multiplied in bfloat16, whatever the weights are: the fastest that loses no accuracy.
    """
    in_bfloat16 = ceilings["isa"] == "amx" and cost.gemm_type == "int8"
    return _bound(
        replace(cost, gemm_type="bfloat16") if in_bfloat16 else cost,
        ceilings,
        read=cost.weight_bytes,
        linear=2 * batch * (tokens * cost.layer_weights + cost.output_weights),
        attention=batch * tokens * (tokens + 1) / 2 * cost.attention_operations,
    )


def tokens_per_second_bound(cost: ModelCost, ceilings: dict, work: Work) -> tuple[float, str]:
    """The highest figure that the row can have on this machine, and the ceiling that sets it."""
    if work.phase == "context":
        bound = context_bound(cost, ceilings, work.batch, work.input)
        return work.batch * work.input / bound.seconds, bound.ceiling
    bound = generation_bound(cost, ceilings, work.batch, work.input + work.output / 2)
    return work.batch / bound.seconds, bound.ceiling


def _bound(cost: ModelCost, ceilings: dict, read: float, linear: float, attention: float) -> Bound:
    """Attention is counted in bfloat16, where the machine has its dot products: the fastest that loses no accuracy."""
    rates = ceilings["gemm_gop_per_s"]
    slow = rates["bfloat16"] or rates["float32"]
    rate = rates[cost.gemm_type] or rates["float32"]
    gemm = linear / (rate * 1e9) + attention / (slow * 1e9)
    bandwidth = read / (ceilings["read_gb_per_s"] * 1e9)
    return Bound(gemm, "gemm") if gemm > bandwidth else Bound(bandwidth, "bandwidth")
