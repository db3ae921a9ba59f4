"""Hugging Face directory → checkpoint: every family's weights and configuration arrive unchanged."""

import json
import shutil

import checkpoint_weights
import pytest
import tiny_models
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from inflight.checkpoint.config import ModelConfig
from inflight.checkpoint.convert import convert_checkpoint
from inflight.errors import InflightError


@pytest.fixture
def copy(tiny_directory, tmp_path):
    """copy(name): a Hugging Face directory of one's own to damage."""

    def make(name):
        return shutil.copytree(tiny_directory(name), tmp_path / "source")

    return make


def edit_json(path, **changes):
    values = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            values.pop(key, None)
        else:
            values[key] = value
    path.write_text(json.dumps(values))


@pytest.mark.parametrize("name", tiny_models.CONFIGS)
def test_weights_arrive_unchanged(name, tiny_directory, tiny_reference, tmp_path):
    config = convert_checkpoint(tiny_directory(name), tmp_path / "out", progress=False)
    stored = checkpoint_weights.load(tmp_path / "out")
    expected = checkpoint_weights.expected(tiny_reference(name))
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[key], expected[key]) for key in expected)
    assert config.dtype == "float32"
    assert ModelConfig.load(tmp_path / "out") == config


@pytest.mark.parametrize("name", tiny_models.CONFIGS)
def test_configuration_says_what_transformers_computes_with(name, tiny_directory, tiny_reference, tmp_path):
    config = convert_checkpoint(tiny_directory(name), tmp_path / "out", progress=False)
    reference = tiny_reference(name)
    attention = reference.model.layers[0].self_attn
    assert config.head_size == attention.head_dim
    assert config.norm_epsilon == reference.model.norm.variance_epsilon
    assert config.qkv_bias == (attention.q_proj.bias is not None)
    assert config.dense_bias == (attention.o_proj.bias is not None)
    assert config.mlp_bias == (reference.model.layers[0].mlp.down_proj.bias is not None)
    assert config.qk_norm == hasattr(attention, "q_norm")
    windows = [getattr(layer.self_attn, "sliding_window", None) for layer in reference.model.layers]
    if config.model_type == "mistral":
        windows = [reference.config.sliding_window] * config.num_hidden_layers
    assert config.layer_windows == [window or 0 for window in windows]
    assert config.end_ids == [1] and config.pad_id == 0 and config.bos_id is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_kept(dtype, tiny_reference, tmp_path, copy):
    source = copy("qwen2")
    weights = {name: value.to(getattr(torch, dtype)) for name, value in tiny_reference("qwen2").state_dict().items()}
    save_file(weights, source / "model.safetensors")
    assert convert_checkpoint(source, tmp_path / "out", progress=False).dtype == dtype
    stored = load_file(tmp_path / "out" / "rank0.safetensors")
    qkv = "transformer.layers.0.attention.qkv"
    assert stored[f"{qkv}.weight"].dtype == getattr(torch, dtype)
    assert stored[f"{qkv}.bias"].dtype == torch.float32
    assert torch.equal(stored[f"{qkv}.weight"][:64], weights["model.layers.0.self_attn.q_proj.weight"])


def test_fused_parts_of_several_types_take_the_widest(tiny_reference, tmp_path, copy):
    source = copy("llama")
    weights = {name: value.bfloat16() for name, value in tiny_reference("llama").state_dict().items()}
    key = "model.layers.0.self_attn.k_proj.weight"
    weights[key] = weights[key].half()
    save_file(weights, source / "model.safetensors")
    assert convert_checkpoint(source, tmp_path / "out", progress=False).dtype == "bfloat16"
    stored = load_file(tmp_path / "out" / "rank0.safetensors")
    assert stored["transformer.layers.0.attention.qkv.weight"].dtype == torch.float32
    assert stored["transformer.layers.1.attention.qkv.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_floats_are_rounded_as_torch_rounds(dtype, tiny_directory, tiny_reference, tmp_path):
    convert_checkpoint(tiny_directory("llama"), tmp_path / "out", dtype=dtype, progress=False)
    stored = checkpoint_weights.load(tmp_path / "out")
    for name, value in checkpoint_weights.expected(tiny_reference("llama")).items():
        rounded = value.to(getattr(torch, dtype)).float() if value.ndim == 2 else value
        assert torch.equal(stored[name], rounded)


def test_int8_is_per_channel(tiny_directory, tiny_reference, tmp_path):
    config = convert_checkpoint(tiny_directory("llama"), tmp_path / "out", dtype="int8", progress=False)
    assert config.dtype == "int8"
    tensors = load_file(tmp_path / "out" / "rank0.safetensors")
    stored = checkpoint_weights.load(tmp_path / "out")
    for name, value in checkpoint_weights.expected(tiny_reference("llama")).items():
        if value.ndim == 2:
            assert tensors[name].dtype == torch.int8
            step = value.abs().amax(dim=1, keepdim=True) / 127
            assert torch.allclose(tensors[name.replace(".weight", ".scale")], step)
            assert ((stored[name] - value).abs() <= step * 0.501).all()


@pytest.mark.parametrize("group_size", [16, 32])
def test_int4_is_by_groups_with_minimums_and_spares_the_embeddings(
    group_size, tiny_directory, tiny_reference, tmp_path
):
    convert_checkpoint(tiny_directory("llama"), tmp_path / "out", dtype="int4", progress=False, group_size=group_size)
    tensors = load_file(tmp_path / "out" / "rank0.safetensors")
    stored = checkpoint_weights.load(tmp_path / "out")
    for name, value in checkpoint_weights.expected(tiny_reference("llama")).items():
        if value.ndim != 2:
            continue
        if name.startswith("transformer.layers"):
            assert tensors[name].dtype == torch.uint8
            groups = value.reshape(len(value), -1, group_size)
            step = (groups.amax(dim=-1) - groups.amin(dim=-1)) / 15
        else:
            assert tensors[name].dtype == torch.int8
            step = value.reshape(len(value), -1, 32).abs().amax(dim=-1) / 127
        error = (stored[name] - value).abs().reshape(*step.shape, -1).amax(dim=-1)
        assert (error <= step * 0.501).all()


def test_int4_refuses_groups_that_do_not_divide_the_columns(tiny_directory, tmp_path):
    with pytest.raises(InflightError, match=r"layers.0.self_attn.q_proj has 72 columns.*--group-size"):
        convert_checkpoint(tiny_directory("llama-odd-sizes"), tmp_path / "out", dtype="int4", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_sharded_weights(tiny_reference, tmp_path, copy):
    source = copy("llama")
    (source / "model.safetensors").unlink()
    tiny_reference("llama").save_pretrained(source, max_shard_size="100KB")
    assert len(list(source.glob("model-*.safetensors"))) > 1
    convert_checkpoint(source, tmp_path / "out", progress=False)
    stored = checkpoint_weights.load(tmp_path / "out")
    expected = checkpoint_weights.expected(tiny_reference("llama"))
    assert all(torch.equal(stored[key], expected[key]) for key in expected)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("held", ["embedding", "head", "both", "both, different"])
@pytest.mark.parametrize("prefix", ["", "model.", "model.model."])
def test_tied_and_untied_weights_are_those_of_transformers(tied, held, prefix, tiny_reference, tmp_path, copy):
    """Whatever the configuration says and the file holds: the logits are transformers', or both are named."""
    name = "llama-tied"
    source = copy(name)
    weights = {key.removeprefix("model."): value.clone() for key, value in tiny_reference(name).state_dict().items()}
    head, embedding = weights.pop("lm_head.weight"), weights.pop("embed_tokens.weight")
    weights = {f"{prefix}{key}": value for key, value in weights.items()}
    if held != "head":
        weights[f"{prefix}embed_tokens.weight"] = embedding
    if held != "embedding":
        head_prefix = "model." if prefix == "model.model." else ""
        weights[f"{head_prefix}lm_head.weight"] = head.flip(0).contiguous() if "different" in held else head
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    edit_json(source / "config.json", tie_word_embeddings=tied)
    missing = {"embedding": "lm_head", "head": "embed_tokens"}.get(held) if not tied else None
    if missing is not None:
        with pytest.raises(InflightError, match=f"tie_word_embeddings is false.*{missing}|lack tensor model.{missing}"):
            convert_checkpoint(source, tmp_path / "out", progress=False)
        return
    convert_checkpoint(source, tmp_path / "out", progress=False)
    stored = checkpoint_weights.load(tmp_path / "out")
    reference = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    ours = stored.get("lm_head.weight", stored["transformer.vocab_embedding.weight"])
    assert torch.equal(ours, reference.lm_head.weight)
    assert torch.equal(stored["transformer.vocab_embedding.weight"], reference.model.embed_tokens.weight)


def test_refuses_two_tensors_of_one_kind(tiny_reference, tmp_path, copy):
    source = copy("llama-tied")
    weights = {name: value.clone() for name, value in tiny_reference("llama-tied").model.state_dict().items()}
    weights["model.norm.weight"] = weights["norm.weight"] + 1
    save_file(weights, source / "model.safetensors")
    with pytest.raises(InflightError, match="norm.weight, two tensors of one kind"):
        convert_checkpoint(source, tmp_path / "out", progress=False)


def test_refuses_a_tensor_that_two_shards_hold(tiny_reference, tmp_path, copy):
    source = copy("llama")
    (source / "model.safetensors").unlink()
    tiny_reference("llama").save_pretrained(source, max_shard_size="100KB")
    first, second = sorted(source.glob("model-*.safetensors"))[:2]
    name, value = next(iter(load_file(first).items()))
    save_file(load_file(second) | {name: value}, second)
    with pytest.raises(InflightError, match=f"both .*{first.name} and .*{second.name} hold tensor {name}"):
        convert_checkpoint(source, tmp_path / "out", progress=False)


def test_names_without_model_prefix(tiny_reference, tmp_path, copy):
    source = copy("llama-tied")
    weights = tiny_reference("llama-tied").model.state_dict()
    weights["layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)  # in many old files
    save_file(weights, source / "model.safetensors")
    convert_checkpoint(source, tmp_path / "out", progress=False)
    stored = checkpoint_weights.load(tmp_path / "out")
    assert torch.equal(stored["transformer.ln_f.weight"], weights["norm.weight"])


@pytest.mark.parametrize(
    "old, new",
    [
        ({"type": "linear", "factor": 2.0}, {"type": "linear", "theta": 500.0, "factor": 2.0}),
        ({"rope_type": "dynamic", "factor": 3.0}, {"type": "dynamic", "theta": 500.0, "factor": 3.0}),
        (
            {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": None},
            {"type": "yarn", "theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 64},
        ),
        (None, {"type": "default", "theta": 500.0}),
    ],
)
def test_rope_scaling_as_transformers_4_spelled_it(old, new, tmp_path, copy):
    source = copy("llama")
    edit_json(source / "config.json", rope_parameters=None, rope_theta=500.0, rope_scaling=old)
    assert convert_checkpoint(source, tmp_path / "out", progress=False).rope == new


def test_generation_config_gives_several_end_ids(tmp_path, copy):
    source = copy("llama")
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 3], "bos_token_id": 5}))
    config = convert_checkpoint(source, tmp_path / "out", progress=False)
    assert (config.end_ids, config.pad_id, config.bos_id) == ([7, 3], 0, 5)


def test_refuses_end_ids_beyond_the_vocabulary(tmp_path, copy):
    source = copy("llama")
    edit_json(source / "generation_config.json", eos_token_id=[1, 480])
    with pytest.raises(InflightError, match=r"end_ids is \[1, 480\]; expected token ids below vocab_size \(480\)"):
        convert_checkpoint(source, tmp_path / "out", progress=False)


def test_explicit_layer_types(tmp_path, copy):
    source = copy("qwen2")
    layer_types = ["sliding_attention", "full_attention"]
    edit_json(source / "config.json", layer_types=layer_types, use_sliding_window=True, sliding_window=9)
    assert convert_checkpoint(source, tmp_path / "out", progress=False).layer_windows == [9, 0]


def test_tokenizer_and_chat_template_come_along(tmp_path, copy):
    source = copy("llama")
    (source / "chat_template.jinja").write_text("{{ messages }}")
    convert_checkpoint(source, tmp_path / "out", progress=False)
    copied = sorted(path.name for path in (tmp_path / "out" / "tokenizer").iterdir())
    assert copied == ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(model_type="gemma2"), "model_type is 'gemma2'; expected one of llama, mistral, qwen2, qwen3"),
        (dict(head_dim="x"), "head_dim is 'x'; expected an integer of at least 1"),
        (dict(num_hidden_layers=2**40), "num_hidden_layers is 1099511627776; expected an integer of 1 to 10000"),
        (dict(rms_norm_eps=2), "rms_norm_eps is 2; expected a number above 0 and below 1"),
        (dict(rms_norm_eps=[1e-6]), "rms_norm_eps is [1e-06]; expected a number"),
        (dict(tie_word_embeddings="yes"), "tie_word_embeddings is 'yes'; expected true or false"),
        (dict(eos_token_id=["x"]), "eos_token_id is ['x']; expected a list of integers"),
        (dict(eos_token_id={}), "eos_token_id is {}; expected an integer"),
        (dict(pad_token_id="x"), "pad_token_id is 'x'; expected an integer"),
        (dict(bos_token_id=1.5), "bos_token_id is 1.5; expected an integer"),
        (dict(rope_parameters=dict(rope_type={})), "rope"),
        (dict(rope_parameters="default"), "rope_parameters is 'default'; expected a JSON object"),
        (dict(rope_scaling=[1]), "rope_scaling is [1]; expected a JSON object"),
        (dict(max_position_embeddings="long"), "max_position_embeddings is 'long'; expected an integer"),
        (dict(hidden_act=3), "hidden_act is 3; expected a string"),
        (dict(hidden_act="gelu"), "hidden_act is gelu; expected silu"),
        (dict(hidden_size=None), "hidden_size is missing"),
        (dict(hidden_size="64"), "hidden_size is '64'; expected an integer of at least 1"),
        (dict(num_hidden_layers=3), "lack tensor model.layers.2.self_attn.q_proj.weight of shape [64, 64]"),
        (dict(num_hidden_layers=1), "has no tensor model.layers.1"),
        (dict(intermediate_size=128), "mlp.gate_proj.weight has shape [96, 64]"),
        (dict(num_key_value_heads=3), "num_key_value_heads is 3; expected a divisor of num_attention_heads (4)"),
        (
            dict(
                rope_parameters=dict(
                    rope_type="longrope", rope_theta=1e4, short_factor=[1] * 8, long_factor=[1] * 8, factor=2.0
                )
            ),
            "RoPE type is longrope",
        ),
        (
            dict(rope_parameters=dict(rope_type="default", rope_theta=None)),
            "rope_theta is None; expected a number above",
        ),
        (
            dict(rope_parameters=dict(rope_type="default", rope_theta=[1e4])),
            "rope_theta is [10000.0]; expected a number",
        ),
        (
            dict(rope_parameters=dict(rope_type="default", rope_theta="x")),
            "rope_theta is 'x'; expected a number above 0",
        ),
        (dict(partial_rotary_factor=0.5), "partial_rotary_factor is 0.5"),
        (dict(quantization_config=dict(quant_method="awq")), "quantization_config"),
        (dict(attention_bias=True), "lack tensor model.layers.0.self_attn.q_proj.bias of shape [64]"),
    ],
)
def test_refuses_by_name(changes, message, tmp_path, copy):
    source = copy("llama")
    edit_json(source / "config.json", **changes)
    with pytest.raises(InflightError) as error:
        convert_checkpoint(source, tmp_path / "out", progress=False)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert str(source) in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(eos_token_id="x"), "generation_config.json: eos_token_id is 'x'; expected an integer"),
        (dict(eos_token_id=[[1]]), "generation_config.json: eos_token_id is [[1]]; expected a list of integers"),
        (dict(pad_token_id=[0]), "generation_config.json: pad_token_id is [0]"),
        (dict(bos_token_id=2**40), "generation_config.json: bos_token_id is 1099511627776; expected an integer"),
    ],
)
def test_refuses_generation_configurations_by_name(changes, message, tmp_path, copy):
    source = copy("llama")
    edit_json(source / "generation_config.json", **changes)
    with pytest.raises(InflightError) as error:
        convert_checkpoint(source, tmp_path / "out", progress=False)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "changes, expected",
    [
        (dict(eos_token_id=-1), dict(end_ids=[])),
        (dict(eos_token_id=[3, -1, 3]), dict(end_ids=[3])),
        (dict(pad_token_id=-1), dict(pad_id=1)),
        (dict(pad_token_id=480), dict(pad_id=1)),  # added to the tokenizer, without a row of the embedding
        (dict(bos_token_id=-1), dict(bos_id=None)),
    ],
)
def test_special_ids_that_are_none(changes, expected, tmp_path, copy):
    source = copy("llama")
    edit_json(source / "generation_config.json", **changes)
    config = convert_checkpoint(source, tmp_path / "out", progress=False)
    assert {name: getattr(config, name) for name in expected} == expected


def test_refuses_unknown_layer_types(tmp_path, copy):
    source = copy("qwen3")
    edit_json(source / "config.json", layer_types=["full_attention", "chunked_attention"])
    with pytest.raises(InflightError, match="layer_types holds chunked_attention"):
        convert_checkpoint(source, tmp_path / "out", progress=False)


def test_refuses_a_tokenizer_of_another_vocabulary(tmp_path, copy):
    source = copy("llama")
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["beyond"] = 480
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(InflightError, match="token ids go up to 480, the model's vocabulary has 480"):
        convert_checkpoint(source, tmp_path / "out", progress=False)


def test_refuses_a_directory_without_weights_or_tokenizer(tmp_path, copy):
    source = copy("llama")
    (source / "tokenizer.json").unlink()
    with pytest.raises(InflightError, match="has no tokenizer"):
        convert_checkpoint(source, tmp_path / "out", progress=False)
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(InflightError, match=r"neither model.safetensors nor .*found pytorch_model.bin"):
        convert_checkpoint(source, tmp_path / "out", progress=False)


def test_refuses_values_that_the_type_cannot_hold(tiny_reference, tmp_path, copy):
    source = copy("llama")
    weights = {name: value.clone() for name, value in tiny_reference("llama").state_dict().items()}
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = 1e5
    save_file(weights, source / "model.safetensors")
    with pytest.raises(InflightError, match=r"layers.1.mlp.up_proj.weight, rows 0 to 96: .*float16's range"):
        convert_checkpoint(source, tmp_path / "out", dtype="float16", progress=False)
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    save_file(weights, source / "model.safetensors")
    with pytest.raises(InflightError, match="NaN or infinity"):
        convert_checkpoint(source, tmp_path / "out", dtype="int8", progress=False)


def test_slow_tokenizers_are_converted(tmp_path, copy):
    source = copy("qwen2")
    model = json.loads((source / "tokenizer.json").read_text())["model"]
    (source / "tokenizer.json").unlink()
    (source / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (source / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    edit_json(source / "tokenizer_config.json", tokenizer_class="Qwen2Tokenizer")
    convert_checkpoint(source, tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "tokenizer" / "tokenizer.json").is_file()
